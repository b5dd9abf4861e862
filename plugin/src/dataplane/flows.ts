/** The flows of this node as people see them: admitted ones, and refused ones with the reason. */
import type { FlowInfo, Pod, PodName, TransmitMode } from '../grpc/backend.ts';
import { inBatches } from './batches.ts';
import { isIcmp, isKeyed, lastUse, later, oppositeKeyOf, slotKeyOf } from './flow-key.ts';
import { FlowFlag, Mode, Reason, SlotState, type Flow, type FlowKey, type Refusal } from './layout.ts';
import type { Clock } from './ports.ts';
import type { Tables } from './tables.ts';

/** Names for what is in the maps, as of one moment. */
export interface FlowNames {
  readonly nodeName: string;
  readonly podsByIfindex: ReadonlyMap<number, Pod>;
  /** Address -> device, for pods of this node. */
  readonly addresses: ReadonlyMap<string, number>;
  readonly peers: Pick<ReadonlyMap<number, { readonly name: string }>, 'get'>;
  /** What flow records say of a flow; absent: there are none. */
  readonly words?: (key: FlowKey) => FlowWords | undefined;
}

/** What flow records say, each only where they do. Pods that this node knows itself count more. */
export type FlowWords = Pick<FlowInfo, 'sourcePod' | 'destinationPod' | 'service' | 'ingressPolicy' | 'egressPolicy'>;

/** A flow is fast when it has all three. */
const READY = FlowFlag.HAVE_KEY | FlowFlag.ANNOUNCED | FlowFlag.PEER_COMPLETE;

/** Why an admitted flow is not masqueraded, or not handed to the other pod of this node; Reason.NONE: it is. */
function heldBack(flow: Flow, now: bigint): number {
  if (flow.blocked !== Reason.NONE) return flow.blocked;
  if ((flow.flags & (READY | FlowFlag.UNLEARNED)) === READY) return Reason.NONE;
  if (flow.unkeyed !== Reason.NONE) return flow.unkeyed;
  return now < flow.rejectUntil ? Reason.KEY_REJECTED : Reason.KEY_EXCHANGE;
}

/** How the flow's packets go now, and why they are not masqueraded. Flows that Antrea routes have no reason while they are fast. */
export function transmission(flow: Flow, now: bigint): { readonly mode: TransmitMode; readonly reason: number } {
  const reason = heldBack(flow, now);
  if (reason === Reason.NONE) return { mode: (flow.flags & FlowFlag.LOCAL) === 0 ? 'masquerade' : 'local', reason };
  // Else the last packet shows it.
  if (flow.mode === Mode.ENCAP) return { mode: 'encap', reason };
  if (flow.mode === Mode.DIRECT) return { mode: 'direct', reason: Reason.NONE };
  return { mode: 'slow', reason };
}

function ms(from: bigint, now: bigint): number {
  return Math.max(0, Number((now - from) / 1_000_000n));
}

function podName(pod: Pod | undefined): PodName | undefined {
  return pod === undefined ? undefined : { namespace: pod.namespace, name: pod.name };
}

function addressing(
  key: FlowKey,
): Pick<FlowInfo, 'sourceIp' | 'destinationIp' | 'sourcePort' | 'destinationPort' | 'protocol' | 'icmp'> {
  const icmp = isIcmp(key.proto);
  return {
    sourceIp: key.saddr,
    destinationIp: key.daddr,
    sourcePort: icmp ? 0 : key.sport,
    destinationPort: icmp ? 0 : key.dport,
    protocol: key.proto,
    ...(icmp ? { icmp: { id: key.sport, type: key.dport } } : {}),
  };
}

/** Where AntreaProxy's translation leads. */
function endpointOf(key: FlowKey, { out }: Flow): Pick<FlowInfo, 'endpoint'> {
  return out.daddr === key.daddr ? {} : { endpoint: { ip: out.daddr, port: out.dport } };
}

/** @param key of the pods, whatever the sender takes the other one for */
function words(key: FlowKey, names: FlowNames): FlowWords {
  const sourcePod = podName(names.podsByIfindex.get(key.ifindex));
  const destination = names.addresses.get(key.daddr);
  const destinationPod = destination === undefined ? undefined : podName(names.podsByIfindex.get(destination));
  return { ...names.words?.(key), ...(sourcePod ? { sourcePod } : {}), ...(destinationPod ? { destinationPod } : {}) };
}

/** What has arrived for the flow's pod on the fast path, and when last. */
function received(
  tables: Pick<Tables, 'flows' | 'slots'>,
  flow: Flow,
): { readonly packets: bigint; readonly bytes: bigint; readonly last: bigint } {
  if ((flow.flags & FlowFlag.LOCAL) !== 0) {
    const other = tables.flows.get(oppositeKeyOf(flow));
    return { packets: other?.txPackets ?? 0n, bytes: other?.txBytes ?? 0n, last: other?.lastTx ?? 0n };
  }
  const plain = { packets: flow.rxPackets, bytes: flow.rxBytes, last: flow.lastRx };
  const slot = isKeyed(flow) ? tables.slots.get(slotKeyOf(flow)) : undefined;
  if (slot === undefined || slot.gen !== flow.slotGen || slot.state !== SlotState.ACTIVE) return plain;
  return {
    packets: plain.packets + slot.rxPackets,
    bytes: plain.bytes + slot.rxBytes,
    last: later(plain.last, slot.lastRx),
  };
}

/** An entry of `flows` for people. */
export function describeFlow(
  tables: Pick<Tables, 'flows' | 'slots'>,
  key: FlowKey,
  flow: Flow,
  names: FlowNames,
  now: bigint,
): FlowInfo {
  const sameNode = (flow.flags & FlowFlag.LOCAL) !== 0;
  const has = (flag: number): boolean => (flow.flags & flag) !== 0;
  const { mode, reason } = transmission(flow, now);
  const rx = received(tables, flow);
  const lastRx = later(rx.last, flow.lastRxSlow);
  return {
    ...addressing(key),
    ...endpointOf(key, flow),
    ...words(key.daddr === flow.out.daddr ? key : { ...key, ...flow.out }, names),
    peer: sameNode ? names.nodeName : (names.peers.get(flow.peer)?.name ?? ''),
    sameNode,
    path: mode === 'slow' ? 'slow' : 'fast',
    mode,
    reason,
    admitted: true,
    approved: has(FlowFlag.APPROVED),
    blocked: mode === 'slow' && flow.blocked !== Reason.NONE,
    keys: {
      announced: !sameNode && has(FlowFlag.ANNOUNCED),
      received: !sameNode && has(FlowFlag.HAVE_KEY),
      peerComplete: !sameNode && has(FlowFlag.PEER_COMPLETE),
    },
    txPackets: flow.txPackets,
    txBytes: flow.txBytes,
    rxPackets: rx.packets,
    rxBytes: rx.bytes,
    slowPackets: flow.slowPackets,
    ageMs: ms(flow.admittedAt, now),
    idleMs: ms(lastUse(flow, rx.last), now),
    ...(lastRx === 0n ? {} : { lastRxMs: ms(lastRx, now) }),
  };
}

/** An entry of `refusals` for people. */
export function describeRefusal(key: FlowKey, refusal: Refusal, names: FlowNames): FlowInfo {
  const sameNode = names.addresses.has(key.daddr);
  return {
    ...addressing(key),
    ...words(key, names),
    peer: sameNode ? names.nodeName : '',
    sameNode,
    path: 'slow',
    mode: 'slow',
    reason: refusal.reason,
    admitted: false,
    approved: false,
    blocked: false,
    keys: { announced: false, received: false, peerComplete: false },
    txPackets: 0n,
    txBytes: 0n,
    rxPackets: 0n,
    rxBytes: 0n,
    slowPackets: refusal.packets,
  };
}

/** All flows, lazily: the maps are read in batches as the caller goes on. */
export async function* listFlows(
  tables: Pick<Tables, 'flows' | 'slots' | 'refusals'>,
  names: FlowNames,
  clock: Clock,
): AsyncGenerator<FlowInfo, void, undefined> {
  for await (const [key, flow] of inBatches(tables.flows.entries())) {
    yield describeFlow(tables, key, flow, names, clock());
  }
  for await (const [key, refusal] of inBatches(tables.refusals.entries())) {
    // A program that admits a flow removes its refusal a moment later.
    if (tables.flows.get(key) === undefined) yield describeRefusal(key, refusal, names);
  }
}

/** Numbers of flows. */
export interface FlowCounts {
  readonly total: number;
  readonly byEndpoint: ReadonlyMap<number, number>;
  /** By peer id; flows within the node are not among them. */
  readonly byPeer: ReadonlyMap<number, number>;
}

/** Counts the admitted flows. */
export async function countFlows(tables: Pick<Tables, 'flows'>): Promise<FlowCounts> {
  const byEndpoint = new Map<number, number>();
  const byPeer = new Map<number, number>();
  let total = 0;
  for await (const [, flow] of inBatches(tables.flows.entries())) {
    total++;
    byEndpoint.set(flow.endpoint, (byEndpoint.get(flow.endpoint) ?? 0) + 1);
    if ((flow.flags & FlowFlag.LOCAL) === 0) byPeer.set(flow.peer, (byPeer.get(flow.peer) ?? 0) + 1);
  }
  return { total, byEndpoint, byPeer };
}
