/** Clears away what the programs leave behind, a little at a time, and counts how full the maps are. */
import type { MapFill } from '../grpc/backend.ts';
import { IpProtocol } from '../netlink/ctnetlink.ts';
import { flowKeyOfSlot, flowKeyText, isKeyed, lastUse, slotKeyOf } from './flow-key.ts';
import {
  EndpointFlag,
  FlowFlag,
  PeerFlag,
  SlotState,
  TOMBSTONE_NS,
  type Approval,
  type Flow,
  type FlowKey,
  type Refusal,
  type Slot,
  type SlotKey,
} from './layout.ts';
import { SECOND, type Clock } from './ports.ts';
import { endFlow, tombstone } from './slots.ts';
import { SIZED_MAPS, type SizedMap, type Tables } from './tables.ts';

/** A flow without a packet for so long ends; the next packet begins it anew. */
export const IDLE_NS = 180n * SECOND;
/**
 * ... unless it is a TCP connection that has carried so much past conntrack that its RST, sent after a long silence, would
 * not be recognised on the slow path (every other 2 GiB): its keys are needed for the fast one. Far less than that, because
 * a flow may begin anew several times in the life of a connection.
 */
const FAR_BYTES = 64n * 1024n * 1024n;
/** Such flows are kept while the table is emptier than this part, and as long as conntrack keeps idle connections. */
const KEPT_FILL = 0.5;
const KEPT_NS = 432_000n * SECOND;
/** Approvals that nobody renews go a while after their lease. */
const APPROVAL_GRACE_NS = 10n * SECOND;
/** A refusal without new packets for so long is no longer shown. */
const REFUSAL_AGE_NS = 60n * SECOND;
/** Entries looked at in one tick, of each map: some milliseconds. */
const PER_TICK = 1024;
/** A pass over a map begins at most so often. */
const PASS_NS = SECOND;
/** ... and where the last one found nothing, since the kernel looks into each bucket of an empty map, too. */
const EMPTY_PASS_NS = 4n * SECOND;

/** Walks over a map again and again, a bounded number of entries at a time. */
class Sweep<K, V> {
  readonly #entries: () => Iterable<[K, V]>;
  readonly #visit: (key: K, value: V, now: bigint) => void;
  readonly #onPass: (now: bigint) => void;
  readonly #passNs: bigint;
  #iterator: Iterator<[K, V]> | undefined;
  #seen = 0;
  #began = 0n;
  /** Entries seen in the last whole pass. */
  count = 0;

  constructor(
    entries: () => Iterable<[K, V]>,
    visit: (key: K, value: V, now: bigint) => void,
    onPass: (now: bigint) => void = () => undefined,
    passNs = PASS_NS,
  ) {
    this.#entries = entries;
    this.#visit = visit;
    this.#onPass = onPass;
    this.#passNs = passNs;
  }

  tick(now: bigint, budget: number): void {
    if (this.#iterator === undefined) {
      if (this.#began !== 0n && now - this.#began < this.#pause()) return;
      this.#began = now;
      this.#seen = 0;
      this.#iterator = this.#entries()[Symbol.iterator]();
    }
    for (let left = budget; left > 0; left--) {
      const next = this.#iterator.next();
      if (next.done === true) {
        this.#iterator = undefined;
        this.count = this.#seen;
        this.#onPass(now);
        return;
      }
      this.#seen++;
      this.#visit(next.value[0], next.value[1], now);
    }
  }

  #pause(): bigint {
    return this.count === 0 && this.#passNs < EMPTY_PASS_NS ? EMPTY_PASS_NS : this.#passNs;
  }
}

type JanitorTables = Pick<Tables, 'flows' | 'slots' | 'translated' | 'approvals' | 'refusals' | 'endpoints' | 'peers'>;

/** What the janitor has removed since the start. */
export interface JanitorCounts {
  readonly idleFlows: number;
  readonly staleFlows: number;
  readonly orphanSlots: number;
  readonly oldSlots: number;
  readonly approvals: number;
  readonly refusals: number;
}

/** See the file's comment. Everything it does to a flow that is in use costs that at most a moment on the slow path. */
export class Janitor {
  readonly #tables: JanitorTables;
  readonly #now: Clock;
  readonly #flowCapacity: number;
  readonly #counts = { idleFlows: 0, staleFlows: 0, orphanSlots: 0, oldSlots: 0, approvals: 0, refusals: 0 };
  readonly #sweeps: Readonly<Record<SizedMap, { tick(now: bigint, budget: number): void; readonly count: number }>>;
  /** Slots that had no flow in the last pass, with their generation: a flow is entered just after its slot. */
  #orphans = new Map<string, number>();
  #nextOrphans = new Map<string, number>();
  /** Packets of refusals in the last pass, and when that number was first seen. */
  #refused = new Map<string, { packets: bigint; since: bigint }>();
  #nextRefused = new Map<string, { packets: bigint; since: bigint }>();

  /** @param flowCapacity entries that the flow table has room for */
  constructor(tables: JanitorTables, now: Clock, flowCapacity: number) {
    this.#tables = tables;
    this.#now = now;
    this.#flowCapacity = flowCapacity;
    this.#sweeps = {
      flows: new Sweep(
        () => tables.flows.entries(),
        (key, flow, time) => this.#flow(key, flow, time),
      ),
      slots: new Sweep(
        () => tables.slots.entries(),
        (key, slot, time) => this.#slot(key, slot, time),
        () => {
          this.#orphans = this.#nextOrphans;
          this.#nextOrphans = new Map();
        },
      ),
      approvals: new Sweep(
        () => tables.approvals.entries(),
        (key, approval, time) => this.#approval(key, approval, time),
      ),
      refusals: new Sweep(
        () => tables.refusals.entries(),
        (key, refusal, time) => this.#refusal(key, refusal, time),
        () => {
          this.#refused = this.#nextRefused;
          this.#nextRefused = new Map();
        },
        10n * SECOND,
      ),
    };
  }

  get counts(): JanitorCounts {
    return { ...this.#counts };
  }

  /** Several times a second. */
  tick(): void {
    const now = this.#now();
    for (const name of SIZED_MAPS) this.#sweeps[name].tick(now, PER_TICK);
  }

  /** How full the maps were in their last whole pass. */
  fill(capacity: Readonly<Record<SizedMap, number>>): MapFill[] {
    return SIZED_MAPS.map((name) => ({ name, entries: this.#sweeps[name].count, capacity: capacity[name] }));
  }

  #endpointValid(id: number, epoch: number): boolean {
    const { endpoints } = this.#tables;
    if (id >= endpoints.length) return false;
    const entry = endpoints.get(id);
    return entry.epoch === epoch && (entry.flags & EndpointFlag.PRESENT) !== 0;
  }

  #peerValid(flow: Flow): boolean {
    const { peers } = this.#tables;
    if (flow.peer >= peers.length) return false;
    const { epoch, flags } = peers.get(flow.peer);
    // Flows without keys need nothing of the peer's data plane.
    const needed = isKeyed(flow) ? PeerFlag.CAPABLE : PeerFlag.PRESENT;
    return epoch === flow.peerEpoch && (flags & needed) !== 0;
  }

  #flow(key: FlowKey, flow: Flow, now: bigint): void {
    const local = (flow.flags & FlowFlag.LOCAL) !== 0;
    // A same-node flow whose other pod is gone is kept by the programs for a while, lest it be admitted as a new pod's.
    const valid =
      this.#endpointValid(flow.endpoint, flow.endpointEpoch) &&
      (local ? flow.holeUntil === 0n || now <= flow.holeUntil : this.#peerValid(flow));
    if (!valid) {
      if (endFlow(this.#tables, key, flow, now).flow) this.#counts.staleFlows++;
      return;
    }
    if (!this.#idle(key, flow, now)) return;
    // The entry was read with many others: look once more.
    const current = this.#tables.flows.get(key);
    if (current?.gen !== flow.gen || !this.#idle(key, current, now)) return;
    if (endFlow(this.#tables, key, current, now).flow) this.#counts.idleFlows++;
  }

  #idle(key: FlowKey, flow: Flow, now: bigint): boolean {
    const slot = isKeyed(flow) ? this.#tables.slots.get(slotKeyOf(flow)) : undefined;
    const rxBytes = flow.rxBytes + (slot?.rxBytes ?? 0n);
    const far = key.proto === IpProtocol.tcp && (flow.txBytes >= FAR_BYTES || rxBytes >= FAR_BYTES);
    const kept = far && this.#sweeps.flows.count < this.#flowCapacity * KEPT_FILL;
    return now - lastUse(flow, slot?.lastRx) > (kept ? KEPT_NS : IDLE_NS);
  }

  #slot(key: SlotKey, slot: Slot, now: bigint): void {
    const { slots, flows } = this.#tables;
    if (slot.state !== SlotState.ACTIVE) {
      if (now - slot.freedAt <= TOMBSTONE_NS + SECOND) return;
      const current = slots.get(key);
      const old = current?.gen === slot.gen && current.state !== SlotState.ACTIVE && current.lock === 0;
      if (old && slots.delete(key)) this.#counts.oldSlots++;
      return;
    }
    if (flows.get(flowKeyOfSlot(key, slot))?.slotGen === slot.gen) return;
    const text = `${key.peer},${key.sport},${key.dport},${key.proto}`;
    if (this.#orphans.get(text) !== slot.gen) {
      this.#nextOrphans.set(text, slot.gen);
      return;
    }
    if (tombstone(slots, key, slot.gen, now)) this.#counts.orphanSlots++;
  }

  #approval(key: FlowKey, approval: Approval, now: bigint): void {
    if (now - approval.expires <= APPROVAL_GRACE_NS) return;
    const current = this.#tables.approvals.get(key);
    if (current?.expires !== approval.expires) return;
    if (this.#tables.approvals.delete(key)) this.#counts.approvals++;
  }

  #refusal(key: FlowKey, refusal: Refusal, now: bigint): void {
    const text = flowKeyText(key);
    const before = this.#refused.get(text);
    const since = before?.packets === refusal.packets ? before.since : now;
    if (now - since <= REFUSAL_AGE_NS) this.#nextRefused.set(text, { packets: refusal.packets, since });
    else if (this.#tables.refusals.delete(key)) this.#counts.refusals++;
  }
}
