/** Tables, clocks and the like without a kernel. */
import type { Attacher, Attachment } from '../../../src/dataplane/attach.ts';
import type { Notes } from '../../../src/dataplane/notes.ts';
import {
  FlowFlag,
  MAX_ENDPOINTS,
  Mode,
  PathClass,
  type DataPlaneConfig,
  type Endpoint,
  type Flow,
  type FlowKey,
  type Peer,
  type Slot,
} from '../../../src/dataplane/layout.ts';
import { UNHEARD, UNKNOWN_PATH } from '../../../src/dataplane/paths.ts';
import type { ArrayTable, HashTable, Log } from '../../../src/dataplane/ports.ts';
import type { TcProgram, TcProgramName } from '../../../src/dataplane/programs.ts';
import type { Tables } from '../../../src/dataplane/tables.ts';
import { reverseTuple, type CtTuple } from '../../../src/netlink/ctnetlink.ts';
import type { Link } from '../../../src/netlink/rtnetlink.ts';

function textOf(key: unknown): string {
  if (typeof key !== 'object' || key === null) return String(key);
  return JSON.stringify(Object.entries(key).sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** A hash table in memory; keys are compared by value. */
export class FakeHash<K, V> implements HashTable<K, V> {
  readonly #entries = new Map<string, [K, V]>();
  get(key: K): V | undefined {
    return this.#entries.get(textOf(key))?.[1];
  }
  set(key: K, value: V, mode: 'any' | 'create' | 'update' = 'any'): void {
    const text = textOf(key);
    if (mode === 'update' && !this.#entries.has(text)) throw new Error('ENOENT');
    this.#entries.set(text, [key, value]);
  }
  delete(key: K): boolean {
    return this.#entries.delete(textOf(key));
  }
  entries(): [K, V][] {
    return [...this.#entries.values()];
  }
  get size(): number {
    return this.#entries.size;
  }
}

/** An array in memory. */
export class FakeArray<V> implements ArrayTable<V> {
  readonly #values: V[];
  /** Every value written, in order. */
  readonly writes: [number, V][] = [];
  readonly length: number;
  constructor(length: number, zero: V) {
    this.length = length;
    this.#values = Array.from({ length }, () => zero);
  }
  get(index: number): V {
    const value = this.#values[index];
    if (value === undefined) throw new RangeError(`index ${index}`);
    return value;
  }
  set(index: number, value: V): void {
    this.#values[index] = value;
    this.writes.push([index, value]);
  }
}

export const zeroEndpoint: Endpoint = {
  addr4: '',
  addr6: '',
  ifindex: 0,
  flags: 0,
  epoch: 0,
  mac: new Uint8Array(6),
  excluded: 0,
};
export const zeroPeer: Peer = { addr4: '', addr6: '', flags: 0, epoch: 0 };
export const zeroConfig: DataPlaneConfig = {
  layoutVersion: 0,
  flags: 0,
  magic: [0, 0, 0, 0],
  uplinkAddr4: '',
  uplinkAddr6: '',
  uplinkIfindex4: 0,
  uplinkIfindex6: 0,
  stateSince: 0n,
  hz: 0,
  ctZone4: 0,
  ctZone6: 0,
  tunnelPort: 0,
  excludedLocal: 0,
  excludedRemote: 0,
  paused: 0,
  xdpVlan: 0,
};

export class FakeTables implements Tables {
  readonly config = new FakeArray(1, zeroConfig);
  readonly endpoints = new FakeArray(MAX_ENDPOINTS, zeroEndpoint);
  readonly endpointByIfindex = new FakeHash<number, number>();
  readonly endpointByAddr = new FakeHash<string, number>();
  readonly peers = new FakeArray(64, zeroPeer);
  readonly peerByAddr = new FakeHash<string, number>();
  readonly peerState = new FakeArray(64, UNHEARD);
  readonly paths = new FakeArray(64 * 2 * PathClass.CLASSES, UNKNOWN_PATH);
  readonly destinations: Tables['destinations'] & { readonly size: number } = new FakeHash();
  readonly flows = new FakeHash<FlowKey, Flow>();
  readonly translated = new FakeHash<FlowKey, FlowKey>();
  readonly slots: Tables['slots'] & { readonly size: number } = new FakeHash();
  readonly approvals: Tables['approvals'] & { readonly size: number } = new FakeHash();
  readonly refusals: Tables['refusals'] & { readonly size: number } = new FakeHash();
  readonly counters = { allSums: (): bigint[] => [] };
  readonly reasons = { allSums: (): bigint[] => [] };
}

/** Notes in memory. */
export function fakeNotes(): Notes {
  const notes = new Map<string, string>();
  return {
    get: (name: string) => notes.get(name),
    set: (name: string, text: string) => void notes.set(name, text),
    delete: (name: string) => void notes.delete(name),
    names: (prefix = '') => [...notes.keys()].filter((name) => name.startsWith(prefix)),
    clear: () => notes.clear(),
  } as unknown as Notes;
}

export const quiet: Log = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
};

/** Attaches in memory and keeps a journal. */
export class FakeAttacher implements Attacher {
  readonly mode = 'tcx';
  readonly attached = new Map<string, TcProgram>();
  readonly journal: string[] = [];
  /** Called before each attachment; may throw. */
  onAttach: (name: TcProgramName, ifindex: number) => void = () => undefined;
  /** Programs that another one runs before. */
  readonly displaced = new Set<TcProgramName>();
  attach(program: TcProgram, ifindex: number): void {
    this.onAttach(program.name, ifindex);
    this.journal.push(`attach ${program.name}-${ifindex}`);
    this.attached.set(`${program.name}-${ifindex}`, program);
  }
  detach(name: TcProgramName, ifindex: number): boolean {
    this.journal.push(`detach ${name}-${ifindex}`);
    return this.attached.delete(`${name}-${ifindex}`);
  }
  list(): Attachment[] {
    return [...this.attached.keys()].map((text) => {
      const [program, ifindex] = text.split('-') as [TcProgramName, string];
      return { program, ifindex: Number(ifindex) };
    });
  }
  has(name: TcProgramName, ifindex: number): boolean {
    return this.attached.has(`${name}-${ifindex}`);
  }
  position(program: TcProgram, ifindex: number): 'first' | 'later' | 'absent' {
    return this.attached.has(`${program.name}-${ifindex}`)
      ? this.displaced.has(program.name)
        ? 'later'
        : 'first'
      : 'absent';
  }
  moveFirst(program: TcProgram, ifindex: number, reload: () => TcProgram): TcProgram {
    this.journal.push(`move ${program.name}-${ifindex}`);
    this.displaced.delete(program.name);
    return reload();
  }
}

export function program(name: TcProgramName): TcProgram {
  return { name, fd: 3, id: 100 };
}

export function link(name: string, ifindex: number): Link {
  return { ifindex, name, mac: '', mtu: 1500, up: true, carrier: true };
}

/** A clock that stands until it is told to go on. */
export class FakeClock {
  time = 1_000_000_000_000n;
  readonly now = (): bigint => this.time;
  seconds(seconds: number): void {
    this.time += BigInt(Math.round(seconds * 1e9));
  }
}

/** The other direction of a tuple that has one. */
export function reversed(tuple: CtTuple): CtTuple {
  const other = reverseTuple(tuple);
  if (other === undefined) throw new Error('no other direction');
  return other;
}

export const key: FlowKey = { saddr: '10.10.1.2', daddr: '10.10.2.2', sport: 1000, dport: 2000, ifindex: 7, proto: 17 };

/** A flow that is on the fast path. */
export function flow(over: Partial<Flow> = {}): Flow {
  return {
    gen: 5,
    flags: FlowFlag.KEYED | FlowFlag.HAVE_KEY | FlowFlag.ANNOUNCED | FlowFlag.PEER_COMPLETE,
    txPackets: 1n,
    txBytes: 100n,
    masqPackets: 1n,
    slowPackets: 0n,
    admittedAt: 1n,
    lastTx: 1n,
    tick: 0n,
    lastRxSlow: 0n,
    verifyAt: 0n,
    recheckAt: 0n,
    fastSince: 1n,
    unansweredSince: 0n,
    unansweredTx: 0,
    unansweredHeard: 0,
    holeUntil: 0n,
    rejectUntil: 0n,
    deviatingSince: 0n,
    rxPackets: 0n,
    rxBytes: 0n,
    lastRx: 0n,
    rxRecheckAt: 0n,
    csumDiff: 0,
    ipSum: 0,
    endpoint: 1,
    endpointEpoch: 1,
    peer: 1,
    peerEpoch: 1,
    slotGen: 10,
    outIfindex: 2,
    nodeSaddr: '172.30.0.1',
    nodeDaddr: '172.30.0.2',
    out: { saddr: key.saddr, daddr: key.daddr, sport: key.sport, dport: key.dport },
    smac: new Uint8Array(6),
    dmac: new Uint8Array(6),
    podMac: new Uint8Array(6),
    viaMac: new Uint8Array(6),
    peerKey: 1,
    ownKey: 2,
    ttl: 64,
    tos: 0,
    blocked: 0,
    rejectKey: 0,
    rejectLevel: 0,
    holeLevel: 0,
    proto: 17,
    outTtl: 0,
    mode: Mode.MASQUERADE,
    encapLen: 0,
    encap: new Uint8Array(70),
    rxDmac: new Uint8Array(6),
    rxSmac: new Uint8Array(6),
    rxTtl: 0,
    rxWireTtl: 0,
    unkeyed: 0,
    txGen: 0,
    mtu: 1500,
    gen2: 5,
    ...over,
  };
}

/** The slot of `key` and `flow()`. */
export function slot(over: Partial<Slot> = {}): Slot {
  return {
    gen: 10,
    lock: 0,
    rxPackets: 3n,
    rxBytes: 300n,
    lastRx: 1n,
    tick: 0n,
    recheckAt: 0n,
    freedAt: 0n,
    ackAt: 0n,
    ackedTx: 0n,
    saddr: key.daddr,
    daddr: key.saddr,
    pod: key.daddr,
    ifindex: key.ifindex,
    endpoint: 1,
    endpointEpoch: 1,
    peer: 1,
    peerEpoch: 1,
    csumDiff: 0,
    ipSum: 0,
    smac: new Uint8Array(6),
    dmac: new Uint8Array(6),
    key: 2,
    state: 1,
    flags: 3,
    ttl: 62,
    tos: 0,
    sport: key.dport,
    acks: 0,
    wireDmac: new Uint8Array(6),
    ...over,
  };
}
