/** The flows of `bench-scale`: which they are, and their entries in the maps. Pure functions. */
import type { Flow, FlowKey, Slot, SlotKey } from '../../../plugin/src/gen/layouts.ts';

/** Where the numbered peers begin; neither they nor their pods are in use elsewhere in the tests' node. */
const FIRST_NODE = '172.16.0.1';
/** One pod of each: 10.64.0.5, 10.64.1.5 ... */
const FIRST_POD = '10.64.0.5';
const POD_STEP = 256;
/** Ports that nothing treats in a special way; so many local ones before the remote one changes. */
export const PORTS = { firstLocal: 10_000, locals: 40_000, firstRemote: 52_000 } as const;
/** Identifiers of the numbered peers begin here; smaller ones belong to the node that the tests have. */
const FIRST_PEER_ID = 16;

/** A node that flows are with. */
export interface Peer {
  /** Index in the maps. */
  readonly id: number;
  readonly epoch: number;
  readonly address: string;
  /** Its pod's. */
  readonly pod: string;
}

/** The n-th (from 0) of at most 8,000 peers. */
export function peerOf(n: number): Peer {
  return {
    id: FIRST_PEER_ID + n,
    epoch: 1000 + n,
    address: addressOf(numberOf(FIRST_NODE) + n),
    pod: addressOf(numberOf(FIRST_POD) + n * POD_STEP),
  };
}

/** How the addresses of peers, or of their pods, are counted: the first one as a number, and the distance of the next. */
export function counting(of: 'nodes' | 'pods'): { readonly first: number; readonly step: number } {
  return of === 'nodes' ? { first: numberOf(FIRST_NODE), step: 1 } : { first: numberOf(FIRST_POD), step: POD_STEP };
}

/** Who talks by the i-th (from 0) of flows that are dealt out to so many peers. */
export function flowOf(
  i: number,
  peers: number,
): { readonly peer: Peer; readonly local: number; readonly remote: number } {
  const ofPeer = Math.floor(i / peers);
  return {
    peer: peerOf(i % peers),
    local: PORTS.firstLocal + (ofPeer % PORTS.locals),
    remote: PORTS.firstRemote + Math.floor(ofPeer / PORTS.locals),
  };
}

/** Entries of one flow that the programs themselves have made, and of which the others are copies. */
export interface Pattern {
  readonly flowKey: FlowKey;
  readonly flow: Flow;
  readonly slotKey: SlotKey;
  readonly slot: Slot;
}

/** What the programs would have in their maps for a flow. */
export function entriesOf(pattern: Pattern, i: number, peers: number): Pattern {
  const { peer, local, remote } = flowOf(i, peers);
  const { saddr } = pattern.flowKey;
  const { nodeSaddr, nodeDaddr, ipSum } = pattern.flow;
  const diff = addressDiff([saddr, peer.pod], [nodeSaddr, peer.address]);
  return {
    flowKey: { ...pattern.flowKey, daddr: peer.pod, sport: local, dport: remote },
    flow: {
      ...pattern.flow,
      ...{ peer: peer.id, peerEpoch: peer.epoch, nodeDaddr: peer.address, csumDiff: diff },
      ipSum: ipSum - plainSum(nodeDaddr) + plainSum(peer.address),
      out: { ...pattern.flow.out, daddr: peer.pod, sport: local, dport: remote },
    },
    slotKey: { ...pattern.slotKey, peer: peer.address, sport: remote, dport: local },
    slot: {
      ...pattern.slot,
      ...{ peer: peer.id, peerEpoch: peer.epoch, saddr: peer.pod, pod: peer.pod, sport: remote },
      csumDiff: ~diff >>> 0,
      ipSum: pattern.slot.ipSum - plainSum(pattern.slot.saddr) + plainSum(peer.pod),
    },
  };
}

/** What a checksum changes by when addresses do, as bpf_csum_diff has it; 32 bits, native byte order (little endian). */
export function addressDiff(from: readonly string[], to: readonly string[]): number {
  const words = [...from.map((address) => ~wordOf(address) >>> 0), ...to.map(wordOf)];
  // One's complement: what overflows is added below.
  return words.reduce((sum, word) => ((sum + word) % 2 ** 32) + Math.floor((sum + word) / 2 ** 32), 0);
}

/** The two halves of an address in memory added, as in the sum of an IP header. */
function plainSum(address: string): number {
  const word = wordOf(address);
  return (word & 0xffff) + (word >>> 16);
}

function wordOf(address: string): number {
  return Buffer.from(address.split('.').map(Number)).readUInt32LE();
}

function numberOf(address: string): number {
  return Buffer.from(address.split('.').map(Number)).readUInt32BE();
}

function addressOf(number: number): string {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(number);
  return bytes.join('.');
}
