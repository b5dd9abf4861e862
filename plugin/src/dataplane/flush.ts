/** Forgetting flows on demand. They stay on the slow path until conntrack and the key exchange admit them again. */
import type { FlushResult } from '../grpc/backend.ts';
import { inBatches } from './batches.ts';
import { flowKeyOfSlot } from './flow-key.ts';
import { FlowFlag, type Flow, type FlowKey, type Slot } from './layout.ts';
import type { Clock } from './ports.ts';
import { endFlow, tombstone } from './slots.ts';
import type { Tables } from './tables.ts';

/** Which flows, seen as each of the maps knows them. */
export interface FlushSelection {
  readonly flow: (key: FlowKey, flow: Flow) => boolean;
  readonly slot: (slot: Slot) => boolean;
  readonly refusal: (key: FlowKey) => boolean;
}

/** All of them. */
export const EVERYTHING: FlushSelection = { flow: () => true, slot: () => true, refusal: () => true };

/** Flows of the local pod with this number, device and addresses. */
export function flowsOfEndpoint(id: number, ifindex: number, addresses: readonly string[]): FlushSelection {
  return {
    flow: (_key, flow) => flow.endpoint === id || addresses.includes(flow.out.daddr),
    slot: (slot) => slot.endpoint === id,
    refusal: (key) => key.ifindex === ifindex || addresses.includes(key.daddr),
  };
}

/** Flows with the peer of this number. @param isPeerAddress whether a pod address is that peer's */
export function flowsWithPeer(id: number, isPeerAddress: (pod: string) => boolean): FlushSelection {
  return {
    flow: (_key, flow) => (flow.flags & FlowFlag.LOCAL) === 0 && flow.peer === id,
    slot: (slot) => slot.peer === id,
    refusal: (key) => isPeerAddress(key.daddr),
  };
}

/**
 * Ends the selected flows. Slots become tombstones and are not deleted: their keys may be under way, and a slot without a
 * memory could give the same one to other pods.
 */
export async function flush(
  tables: Pick<Tables, 'flows' | 'slots' | 'translated' | 'refusals'>,
  selection: FlushSelection,
  clock: Clock,
): Promise<FlushResult> {
  let flows = 0n;
  let slots = 0n;
  for await (const [key, flow] of inBatches(tables.flows.entries())) {
    if (!selection.flow(key, flow)) continue;
    const ended = endFlow(tables, key, flow, clock());
    if (ended.flow) flows++;
    if (ended.slot) slots++;
  }
  // Slots without a flow: their flow was ended otherwise.
  for await (const [key, slot] of inBatches(tables.slots.entries())) {
    if (!selection.slot(slot) || tables.flows.get(flowKeyOfSlot(key, slot)) !== undefined) continue;
    if (tombstone(tables.slots, key, slot.gen, clock())) slots++;
  }
  for await (const [key] of inBatches(tables.refusals.entries())) {
    if (selection.refusal(key)) tables.refusals.delete(key);
  }
  return { flows, slots };
}
