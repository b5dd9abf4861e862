/** Freeing restore slots from outside the programs. */
import { isKeyed, slotKeyOf } from './flow-key.ts';
import { FlowFlag, SlotState, type Flow, type FlowKey, type Slot, type SlotKey } from './layout.ts';
import type { HashTable } from './ports.ts';
import type { Tables } from './tables.ts';

/**
 * A generation that no program gives: they count up by two, and this is far ahead. Even: the slot is not changing.
 */
function foreignGeneration(gen: number): number {
  return ((gen & ~1) + 0x10000) >>> 0;
}

/**
 * Turns a slot into a tombstone, which restores nothing and remembers its key and its pods. The new generation makes every
 * flow that counts on the slot notice.
 * @param gen only if this is still its generation
 * @returns false where it is gone, changing, or freed already
 */
export function tombstone(
  slots: HashTable<SlotKey, Slot>,
  key: SlotKey,
  gen: number | undefined,
  now: bigint,
): boolean {
  const slot = slots.get(key);
  if (slot === undefined || slot.state === SlotState.TOMBSTONE || slot.lock !== 0 || (slot.gen & 1) !== 0) return false;
  if (gen !== undefined && slot.gen !== gen) return false;
  const freed = { ...slot, state: SlotState.TOMBSTONE, freedAt: now, gen: foreignGeneration(slot.gen) };
  try {
    slots.set(key, freed, 'update');
    return true;
  } catch {
    // It went in between.
    return false;
  }
}

/** What an end of a flow changes. */
export type EndFlowTables = Pick<Tables, 'flows' | 'slots' | 'translated'>;

/**
 * Ends a flow as the programs do: its slot becomes a tombstone, its entry goes. In this order: as long as there is an
 * entry, no program claims the slot anew.
 */
export function endFlow(
  tables: EndFlowTables,
  key: FlowKey,
  flow: Flow,
  now: bigint,
): { readonly flow: boolean; readonly slot: boolean } {
  const slot = isKeyed(flow) && tombstone(tables.slots, slotKeyOf(flow), flow.slotGen, now);
  if ((flow.flags & (FlowFlag.SERVICE | FlowFlag.LOCAL)) === FlowFlag.SERVICE) {
    tables.translated.delete({ ...flow.out, proto: flow.proto, ifindex: key.ifindex });
  }
  return { flow: tables.flows.delete(key), slot };
}
