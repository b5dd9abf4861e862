/**
 * A node in a network namespace of its own, for BPF_PROG_TEST_RUN: devices, maps, conntrack entries; runs one program on
 * one packet and tells everything that came of it.
 *
 *   pods 10.10.0.0/24 (this node 192.0.2.1) | 10.10.1.0/24 (peer 192.0.2.2) | 10.10.2.0/24 (peer 192.0.2.3)
 *   | 10.10.3.0/24 (node 192.0.2.4, not capable)
 *
 * and the same with fd00:10:N::/64 and 2001:db8::N.
 */
import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { release } from 'node:os';
import { join } from 'node:path';
import { makeCodec } from '../../src/bpf/codec.ts';
import { u32Codec } from '../../src/bpf/codec.ts';
import { addressCodec } from '../../src/bpf/address.ts';
import { ArrayMap, HashMap } from '../../src/bpf/map.ts';
import { BpfObject } from '../../src/bpf/object.ts';
import { RingBuffer } from '../../src/bpf/ringbuf.ts';
import { testRun, testRunXdp, type SkBuffInput, type SkBuffOutput } from '../../src/bpf/testrun.ts';
import { PerCpuArray } from '../../src/bpf/percpu.ts';
import { LAYOUT_VERSION } from '../../src/dataplane/layout.ts';
import { UNHEARD, UNKNOWN_PATH } from '../../src/dataplane/paths.ts';
import { probeKernel } from '../../src/dataplane/probe.ts';
import {
  ConfigFlag,
  counterNames,
  DestKind,
  EndpointFlag,
  eventCodec,
  maps,
  PathClass,
  PeerFlag,
  Reason,
  reasonNames,
  type Config,
  type Event,
  type Flow,
  type FlowKey,
  type Path,
  type PeerState,
  type Slot,
  type SlotKey,
} from '../../src/gen/layouts.ts';
import { CtStatus, Ctnetlink, CtTcpState, type CtEntry, type CtTuple } from '../../src/netlink/ctnetlink.ts';
import { linkByName } from '../../src/netlink/rtnetlink.ts';
import { CtTable, type CtSpec } from './conntrack.ts';
import { enterPrivateNamespace } from './netns.ts';
import {
  buildFrame,
  macBytes,
  parseFrame,
  Proto,
  withId,
  type Family,
  type FrameSpec,
  type ParsedFrame,
} from './packets.ts';

export { withId };
export const FAMILIES = [4, 6] as const;

/** The checkout. */
export const ROOT = join(import.meta.dirname, '../../..');
/** The object that is shipped. */
export const OBJECT = join(ROOT, 'build/bpf/xmasq.bpf.o');

export const PROGRAMS = ['pod_egress', 'pod_ingress', 'uplink_ingress', 'uplink_egress'] as const;
export type ProgramName = (typeof PROGRAMS)[number];

/** What a program can return. */
export const Verdict = { pass: -1, drop: 2, redirect: 7 } as const;

/** Antrea's main zones, by family. */
export const ZONE = 65520;
export const ZONE6 = 65510;
export const TUNNEL_PORT = 4789;
export const MAGIC = [0x11223344, 0x55667788, 0x99aabbcc, 0xddeeff01] as const;
/** The same for control messages: path.h. */
export const CONTROL_MAGIC = [(MAGIC[0] ^ 0xffff0000) >>> 0, MAGIC[1], MAGIC[2], MAGIC[3]] as const;
export const MS = 1_000_000n;
export const SEC = 1_000_000_000n;

/** Bits of the IP ID of masqueraded and announcing packets. */
export const Id = { marker: 0x8000, flag: 0x4000, keyShift: 6 } as const;
/** XMASQ_PROBE_KEY: never given to a slot. */
export const PROBE_KEY = 0xff;
/** The configuration that every test begins with. */
export const FLAGS = ConfigFlag.ADMIT | ConfigFlag.SEND | ConfigFlag.CT_LOOKUP | ConfigFlag.MASQUERADE;
/** A node that drains, and one whose conntrack lookup takes no zone. */
export const DRAINED = FLAGS & ~(ConfigFlag.ADMIT | ConfigFlag.SEND);
export const NO_LOOKUP = FLAGS & ~ConfigFlag.CT_LOOKUP;

export const NODE = { addr: '192.0.2.1', addr6: '2001:db8::1', mac: '02:00:00:00:00:01', device: 'xpu0' } as const;
/** Antrea's virtual MAC: where pods send what leaves the node, and where it comes from. */
export const GATEWAY_MAC = 'aa:bb:cc:dd:ee:ff';
/** id is the index in `peers`; pod is one of its pods. */
export const PEER = {
  id: 1,
  epoch: 11,
  addr: '192.0.2.2',
  addr6: '2001:db8::2',
  mac: '02:00:00:00:00:02',
  pod: '10.10.1.5',
  pod6: 'fd00:10:1::5',
} as const;
export const PEER2 = {
  id: 2,
  epoch: 12,
  addr: '192.0.2.3',
  addr6: '2001:db8::3',
  mac: '02:00:00:00:00:03',
  pod: '10.10.2.5',
  pod6: 'fd00:10:2::5',
} as const;
/** A node without XMasq. */
export const PLAIN_NODE = {
  id: 3,
  epoch: 13,
  addr: '192.0.2.4',
  addr6: '2001:db8::4',
  mac: '02:00:00:00:00:04',
  pod: '10.10.3.5',
  pod6: 'fd00:10:3::5',
} as const;
/** A capable peer whose transport address is on this machine, for real sockets between it and NODE. */
export const LOCAL_PEER = { id: 4, epoch: 14, addr: '192.0.2.9', addr6: '2001:db8::9' } as const;
/** A gateway address inside the peer's pod CIDR. */
export const PEER_GATEWAY = '10.10.1.1';
export const PEER_GATEWAY6 = 'fd00:10:1::1';

let spoken: Family = 4;

/** The family of conversations that name none. */
export function spokenFamily(): Family {
  return spoken;
}

/** Runs something written for either family in one of them. */
export function speaking(family: Family, run: () => void): void {
  const before = spoken;
  spoken = family;
  try {
    run();
  } finally {
    spoken = before;
  }
}

/** Can the kernel give a packet with its sum to a test run? 6.18 can; on older ones the rules about it are left out. */
export const KERNEL_SUMS = /^(?:6\.(?:1[89]|[2-9]\d)|[7-9]|\d\d)/.test(release());

const circumstances = { summed: false, busyFlows: false };

function under(change: Partial<typeof circumstances>, run: () => void): void {
  const before = { ...circumstances };
  Object.assign(circumstances, change);
  try {
    run();
  } finally {
    Object.assign(circumstances, before);
  }
}

/** Runs something with packets whose sum the device has told (CHECKSUM_COMPLETE); the kernel looks whether it is kept right. */
export const withSums = (run: () => void): void => under({ summed: true }, run);

/** Runs something so that flows have sent and received masqueraded packets as soon as they are established. */
export const withBusyFlows = (run: () => void): void => under({ busyFlows: true }, run);

/** Something with addresses of both families, as seen in the spoken one. */
export function spokenEnd(end: { readonly addr: string; readonly addr6?: string; readonly mac: string }): {
  readonly addr: string;
  readonly mac: string;
} {
  return { addr: byFamily(spoken, end.addr, end.addr6 ?? end.addr), mac: end.mac };
}

/** The address of a pod of another node in the spoken family. */
export function podOf({ pod, pod6 }: { readonly pod: string; readonly pod6: string }): string {
  return byFamily(spoken, pod, pod6);
}

/** One of two things that exist for both families. */
export function byFamily<T>(family: Family, four: T, six: T): T {
  return family === 4 ? four : six;
}

/** The transport address of this node in a family, with its MAC address. */
export function nodeOf(family: Family): { readonly addr: string; readonly mac: string } {
  return { addr: byFamily<string>(family, NODE.addr, NODE.addr6), mac: NODE.mac };
}

/** Another node, or a pod's view of it: `addr` and `pod` are of the family that is spoken. */
export interface Remote {
  readonly id: number;
  readonly addr: string;
  readonly mac: string;
  readonly pod: string;
  readonly addr6?: string;
  readonly pod6?: string;
}

/** The same node with the addresses of a family as `addr` and `pod`. */
export function remoteOf(remote: Remote, family: Family): Remote {
  if (family === 4) return remote;
  return { ...remote, addr: remote.addr6 ?? remote.addr, pod: remote.pod6 ?? remote.pod };
}

export interface PodInfo {
  /** Endpoint id. */
  readonly id: number;
  readonly epoch: number;
  readonly addr: string;
  readonly addr6: string;
  readonly mac: string;
  /** Host-side veth. */
  readonly device: string;
}

function podInfo(id: number): PodInfo {
  const last = id + 1;
  return {
    id,
    epoch: 20 + id,
    addr: `10.10.0.${last}`,
    addr6: `fd00:10::${last}`,
    mac: `0a:00:00:00:00:0${last}`,
    device: `xpp${id}`,
  };
}
export const POD = podInfo(1);
export const POD2 = podInfo(2);
export const EXCLUDED_POD = podInfo(3);

/** A pod of this node as the other end of a conversation within it. */
export function neighbour(pod: PodInfo): Remote {
  return { id: 0, addr: NODE.addr, addr6: NODE.addr6, mac: pod.mac, pod: pod.addr, pod6: pod.addr6 };
}
/** A device that no endpoint has. */
const STRANGER_DEVICE = 'xps0';
export const STRANGER_MAC = '0a:00:00:00:00:66';

/** More than a tick of the kernel: by so much the programs' clock (CLOCK_MONOTONIC_COARSE) may lag. */
const TICK_NS = 12n * MS;

/** Now on the clock of the programs, or a little before: never in their future. */
export function now(): bigint {
  return process.hrtime.bigint() - TICK_NS;
}

/** Everything that came of one run. */
export interface Outcome {
  readonly verdict: number;
  /** The frame afterwards. */
  readonly frame: Buffer;
  /** The same, taken apart. @throws RangeError if it is no plain IPv4 packet */
  readonly parsed: ParsedFrame;
  readonly skb: SkBuffOutput;
  /** Counters that moved, by name. */
  readonly counters: Readonly<Record<string, number>>;
  /** Reasons that were counted, by name. */
  readonly reasons: Readonly<Record<string, number>>;
}

/** Everything that came of one run of uplink_xdp. */
export interface XdpOutcome {
  readonly verdict: number;
  /** What is in front of the frame. */
  readonly metadata: Buffer;
  readonly frame: Buffer;
  readonly counters: Readonly<Record<string, number>>;
}

/** A transport connection between POD, or another local pod, and a pod elsewhere. */
export interface ConversationSpec {
  readonly kind: 'tcp' | 'udp' | 'icmp' | 'sctp' | 'raw';
  /** Default the one spoken. */
  readonly family?: Family;
  readonly local?: PodInfo;
  readonly remote?: Remote;
  /** Port of the local pod; ICMP: the identifier. */
  readonly sport?: number;
  readonly dport?: number;
  /** A Service's address and port, by which the local pod reaches the remote one. */
  readonly service?: { readonly addr: string; readonly addr6?: string; readonly port: number };
  /** TTL and TOS of the local pod's packets. */
  readonly ttl?: number;
  readonly tos?: number;
}

type Overrides = Partial<Omit<FrameSpec, 'transport'>> & {
  /** Addresses in the place of `src` and `dst` where IPv6 is spoken. */
  readonly src6?: string;
  readonly dst6?: string;
  /** Fields of the transport header, as in the spec of its kind. */
  readonly l4?: Readonly<Record<string, unknown>>;
  /** Another transport in its place. */
  readonly transport?: FrameSpec['transport'];
};

/** The packets of one connection, as they pass this node. */
export class Conversation {
  readonly kind: ConversationSpec['kind'];
  readonly family: Family;
  /** `addr` is of the conversation's family; so is all of `remote`. */
  readonly local: PodInfo;
  readonly remote: Remote;
  /** The other node with the addresses of both families. */
  readonly peer: Remote;
  /** This node. */
  readonly node: { readonly addr: string; readonly mac: string };
  readonly sport: number;
  readonly dport: number;
  readonly ttl: number;
  readonly tos: number;
  readonly proto: number;
  /** What the local pod takes the remote one for. */
  readonly destination: { readonly addr: string; readonly port: number };

  constructor(spec: ConversationSpec) {
    const family = spec.family ?? spoken;
    const local = spec.local ?? POD;
    this.kind = spec.kind;
    this.family = family;
    this.local = { ...local, addr: byFamily(family, local.addr, local.addr6) };
    this.peer = spec.remote ?? PEER;
    this.remote = remoteOf(this.peer, family);
    this.node = nodeOf(family);
    this.sport = spec.sport ?? 40000;
    this.dport = spec.dport ?? 8080;
    this.ttl = spec.ttl ?? 64;
    this.tos = spec.tos ?? 0;
    this.proto = spec.kind === 'raw' ? 253 : Proto[spec.kind === 'icmp' && family === 6 ? 'icmp6' : spec.kind];
    const { service } = spec;
    this.destination =
      service === undefined
        ? { addr: this.remote.pod, port: this.dport }
        : { addr: byFamily(family, service.addr, service.addr6 ?? service.addr), port: service.port };
  }

  /** A frame as the local pod sends it. */
  sent(overrides: Overrides = {}): Buffer {
    return this.#frame(
      {
        dmac: GATEWAY_MAC,
        smac: this.local.mac,
        src: this.local.addr,
        dst: this.destination.addr,
        ttl: this.ttl,
        tos: this.tos,
        transport: this.#transport(this.#ports(false, this.destination.port)),
      },
      overrides,
    );
  }

  /** A frame as the slow path delivers it to the local pod. */
  delivered(overrides: Overrides = {}): Buffer {
    return this.#frame(
      {
        dmac: this.local.mac,
        smac: GATEWAY_MAC,
        src: this.destination.addr,
        dst: this.local.addr,
        ttl: 62,
        tos: 0x28,
        transport: this.#transport(this.#ports(true, this.destination.port)),
      },
      overrides,
    );
  }

  /** A frame as it comes masqueraded from the remote node; `id` must be given. */
  masqueraded(overrides: Overrides & { readonly id: number }): Buffer {
    return this.#frame(
      {
        dmac: NODE.mac,
        smac: this.remote.mac,
        src: this.remote.addr,
        dst: this.node.addr,
        ttl: 64,
        tos: 0,
        transport: this.#transport(this.#ports(true)),
      },
      overrides,
    );
  }

  /** Its key in `flows`. */
  flowKey(ifindex: number): FlowKey {
    const [sport, dport] = this.#ports(false, this.destination.port);
    return { saddr: this.local.addr, daddr: this.destination.addr, sport, dport, ifindex, proto: this.proto };
  }

  /** Its key in `slots`. */
  slotKey(): SlotKey {
    const [sport, dport] = this.#ports(true);
    return { peer: this.remote.addr, sport, dport, proto: this.proto };
  }

  /** Its tuple in conntrack, opened by the local pod. */
  tuple(): CtTuple {
    const addresses = { family: this.family, src: this.local.addr, dst: this.destination.addr } as const;
    if (this.kind === 'icmp') {
      return { ...addresses, proto: this.proto, icmpType: this.#echo(false), icmpCode: 0, icmpId: this.sport };
    }
    return { ...addresses, proto: this.proto, sport: this.sport, dport: this.destination.port };
  }

  /** The ICMP type of an echo request, or of a reply. */
  #echo(reply: boolean): number {
    return this.family === 4 ? (reply ? 0 : 8) : reply ? 129 : 128;
  }

  #ports(reverse: boolean, dport = this.dport): [number, number] {
    if (this.kind === 'raw') return [0, 0];
    if (this.kind === 'icmp') return [this.sport, this.#echo(reverse)];
    return reverse ? [dport, this.sport] : [this.sport, dport];
  }

  #transport([sport, dport]: [number, number]): FrameSpec['transport'] {
    switch (this.kind) {
      case 'icmp':
        return { kind: 'icmp', type: dport, id: sport };
      case 'raw':
        return { kind: 'raw', proto: this.proto };
      default:
        return { kind: this.kind, sport, dport };
    }
  }

  #frame(base: FrameSpec, { l4, transport, src6, dst6, ...overrides }: Overrides): Buffer {
    // Whoever overrides a field of the transport header names one of its kind.
    const merged = { ...(transport ?? base.transport), ...l4 };
    const frame = { ...base, ...overrides, transport: merged };
    if (this.family === 4) return buildFrame(frame);
    return buildFrame({ ...frame, src: src6 ?? frame.src, dst: dst6 ?? frame.dst });
  }
}

/** A conversation whose keys are exchanged. */
export interface Established {
  readonly talk: Conversation;
  readonly flowKey: FlowKey;
  readonly slotKey: SlotKey;
  /** What the peer must put into masqueraded packets. */
  readonly ownKey: number;
  /** What we put in. */
  readonly peerKey: number;
  /** The ID of a masqueraded packet for us. */
  readonly idIn: number;
  /** The ID of a masqueraded packet from us. */
  readonly idOut: number;
}

/** An entry as Antrea would leave it for an allowed connection. */
export const ALLOWED: CtSpec = {
  zone: ZONE,
  mark: 0x3,
  status: CtStatus.seenReply | CtStatus.assured,
  timeoutSeconds: 100,
};

/** Antrea's main zone for a conversation. */
export function zoneOf({ family }: Conversation): number {
  return byFamily(family, ZONE, ZONE6);
}

/** struct test_redirect of fixtures/instrumented.bpf.c. */
export interface Redirected {
  readonly kind: 'none' | 'redirect' | 'peer' | 'copy' | 'neighbour';
  readonly ifindex: number;
  readonly flags: number;
  /** Of a copy. */
  readonly cb: readonly number[];
}

const redirectedCodec = makeCodec<Redirected>(
  'test_redirect',
  28,
  () => {
    throw new Error('test_redirect is only read');
  },
  (from, at) => ({
    kind: (['none', 'redirect', 'peer', 'copy', 'neighbour'] as const)[from.readUInt32LE(at)] ?? 'none',
    ifindex: from.readUInt32LE(at + 4),
    flags: from.readUInt32LE(at + 8),
    cb: [0, 1, 2, 3].map((i) => from.readUInt32LE(at + 12 + 4 * i)),
  }),
);

/** enum test_change of fixtures/instrumented.bpf.c: where slots become another flow's while they are read. */
export const SlotChange = { look: 1, reset: 2, restore: 3, xdp: 4 } as const;

const SMALL_MAP = 4096;

function ip(...args: string[]): void {
  execFileSync('ip', args, { stdio: ['ignore', 'ignore', 'inherit'], timeout: 10_000 });
}

function makeDevices(): void {
  // As on every Kubernetes node; bpf_fib_lookup refuses without it. The files are those of the thread's namespace.
  writeFileSync('/proc/sys/net/ipv4/ip_forward', '1');
  for (const which of ['all', 'default']) writeFileSync(`/proc/sys/net/ipv6/conf/${which}/forwarding`, '1');
  ip('link', 'set', 'lo', 'up');
  ip('link', 'add', NODE.device, 'address', NODE.mac, 'mtu', '1500', 'type', 'veth', 'peer', 'name', 'xpu1');
  ip('address', 'add', `${NODE.addr}/24`, 'dev', NODE.device);
  ip('address', 'add', `${NODE.addr6}/64`, 'dev', NODE.device, 'nodad');
  ip('address', 'add', `${LOCAL_PEER.addr}/32`, 'dev', 'lo');
  ip('address', 'add', `${LOCAL_PEER.addr6}/128`, 'dev', 'lo');
  const pods = [POD.device, POD2.device, EXCLUDED_POD.device, STRANGER_DEVICE];
  for (const device of pods) ip('link', 'add', device, 'type', 'veth', 'peer', 'name', device.replace('xp', 'xq'));
  for (const device of [NODE.device, 'xpu1', ...pods]) ip('link', 'set', device, 'up');
  // As Antrea has them where it needs no tunnel.
  for (const { addr, addr6, pod, pod6 } of [PEER, PEER2, PLAIN_NODE]) {
    ip('route', 'add', pod, 'via', addr, 'dev', NODE.device);
    ip('-6', 'route', 'add', pod6, 'via', addr6, 'dev', NODE.device);
  }
  for (const { addr, addr6, mac } of [PEER, PEER2, PLAIN_NODE]) {
    for (const to of [addr, addr6]) {
      ip('neighbour', 'add', to, 'lladdr', mac, 'dev', NODE.device, 'nud', 'permanent');
    }
  }
}

function ifindexOf(device: string): number {
  const link = linkByName(device);
  if (link === undefined) throw new Error(`device ${device} is not in the namespace of the tests`);
  return link.ifindex;
}

/** What benches share: the namespace with its devices, and conntrack. One at a time in a process. */
export class Node {
  readonly ifindex: Readonly<Record<'uplink' | 'pod' | 'pod2' | 'excluded' | 'stranger', number>>;
  readonly hz: number;
  readonly ct: CtTable;
  readonly conntrack: Ctnetlink;
  readonly #leave: () => void;

  private constructor(hz: number, leave: () => void) {
    this.hz = hz;
    this.#leave = leave;
    makeDevices();
    this.ifindex = {
      uplink: ifindexOf(NODE.device),
      pod: ifindexOf(POD.device),
      pod2: ifindexOf(POD2.device),
      excluded: ifindexOf(EXCLUDED_POD.device),
      stranger: ifindexOf(STRANGER_DEVICE),
    };
    this.ct = new CtTable();
    this.conntrack = new Ctnetlink();
  }

  /** Makes namespace and devices. The calling thread is in the namespace until close(). */
  static async create(): Promise<Node> {
    const { hz } = await probeKernel(join(ROOT, 'build/bpf/probe.bpf.o'));
    const namespace = enterPrivateNamespace();
    try {
      return new Node(hz, () => namespace.leave());
    } catch (error) {
      namespace.leave();
      throw error;
    }
  }

  close(): void {
    this.ct.close();
    this.conntrack.close();
    this.#leave();
  }
}

function clear<K, V>(map: HashMap<K, V>): void {
  for (const key of [...map.keys()]) map.delete(key);
}

/** Every map of the programs. */
function openTables(object: BpfObject) {
  const source = (map: string): { fd: number } => ({ fd: object.mapFd(map) });
  const tables = {
    config: new ArrayMap(source('config'), maps.config.value),
    endpoints: new ArrayMap(source('endpoints'), maps.endpoints.value),
    endpointByIfindex: new HashMap(source('endpoint_by_ifindex'), u32Codec, u32Codec),
    endpointByAddr: new HashMap(source('endpoint_by_addr'), addressCodec, u32Codec),
    peers: new ArrayMap(source('peers'), maps.peers.value),
    peerByAddr: new HashMap(source('peer_by_addr'), addressCodec, u32Codec),
    peerState: new ArrayMap(source('peer_state'), maps.peer_state.value),
    paths: new ArrayMap(source('paths'), maps.paths.value),
    destinations: new HashMap(source('destinations'), maps.destinations.key, maps.destinations.value),
    flows: new HashMap(source('flows'), maps.flows.key, maps.flows.value),
    translated: new HashMap(source('translated'), maps.translated.key, maps.translated.value),
    slots: new HashMap(source('slots'), maps.slots.key, maps.slots.value),
    approvals: new HashMap(source('approvals'), maps.approvals.key, maps.approvals.value),
    refusals: new HashMap(source('refusals'), maps.refusals.key, maps.refusals.value),
    counters: new PerCpuArray(source('counters')),
    reasons: new PerCpuArray(source('reasons')),
  };
  const close = (): void => {
    for (const table of Object.values(tables)) table.close();
  };
  return { ...tables, close };
}
type Tables = ReturnType<typeof openTables>;

/** Maps that need not be as large as they are in earnest. */
const SIZED_MAPS = ['flows', 'slots', 'approvals', 'refusals', 'translated'] as const;

/** Path classes, of either family, of so many peers are in use. */
const USED_PATHS = 6 * (LOCAL_PEER.id + 1);

function named(names: Readonly<Record<number, string>>, before: bigint[], after: bigint[]): Record<string, number> {
  const moved: Record<string, number> = {};
  after.forEach((value, index) => {
    const delta = Number(value - (before[index] ?? 0n));
    if (delta !== 0) moved[names[index] ?? `#${index}`] = delta;
  });
  return moved;
}

/** A key of `destinations`; default one address. */
export function prefix(addr: string, bits = addr.includes(':') ? 128 : 32): { prefixlen: number; addr: string } {
  return { prefixlen: addr.includes(':') ? bits : 96 + bits, addr };
}

/** The index in `paths`. */
function pathIndex({ kind, family, remote }: Conversation): number {
  const { TCP, UDP, OTHER, CLASSES } = PathClass;
  return (remote.id * 2 + (family === 6 ? 1 : 0)) * CLASSES + (kind === 'tcp' ? TCP : kind === 'udp' ? UDP : OTHER);
}

/** One loaded object. */
export class Bench {
  readonly node: Node;
  readonly tables: Tables;
  readonly object: BpfObject;

  /**
   * @param path object with the four programs and their maps; nothing is pinned or attached
   * @param entries of SIZED_MAPS, where SMALL_MAP is too few
   */
  constructor(
    node: Node,
    path: string = OBJECT,
    entries: Readonly<Partial<Record<(typeof SIZED_MAPS)[number], number>>> = {},
  ) {
    this.node = node;
    this.object = BpfObject.open(path);
    try {
      for (const map of SIZED_MAPS) this.object.setMaxEntries(map, entries[map] ?? SMALL_MAP);
      this.object.load();
      this.tables = openTables(this.object);
    } catch (error) {
      this.object.close();
      throw error;
    }
    this.reset();
  }

  close(): void {
    this.tables.close();
    this.object.close();
  }

  fd(program: string): number {
    return this.object.program(program).fd;
  }

  /** The state every test begins with: configured, peers known but not heard of, no flow, no slot, no connection. */
  reset(): void {
    const { tables, node } = this;
    const { ifindex } = node;
    node.ct.flush();
    for (const map of ['flows', 'slots', 'approvals', 'refusals', 'translated'] as const)
      clear<unknown, unknown>(tables[map]);
    for (let index = 6; index < USED_PATHS; index++) tables.paths.set(index, UNKNOWN_PATH);
    this.configure({
      layoutVersion: LAYOUT_VERSION,
      flags: FLAGS,
      magic: MAGIC,
      uplinkIfindex4: ifindex.uplink,
      uplinkIfindex6: ifindex.uplink,
      uplinkAddr4: NODE.addr,
      uplinkAddr6: NODE.addr6,
      // Longer ago than packets of silent peers are interpreted.
      stateSince: 1n,
      hz: node.hz,
      ctZone4: ZONE,
      ctZone6: ZONE6,
      tunnelPort: TUNNEL_PORT,
      xdpVlan: 0,
      excludedLocal: 0,
      excludedRemote: 0,
      paused: 0,
    });
    for (const [pod, device, excluded] of [
      [POD, ifindex.pod, 0],
      [POD2, ifindex.pod2, 0],
      [EXCLUDED_POD, ifindex.excluded, Reason.BANDWIDTH],
    ] as const) {
      const { epoch, mac, addr, addr6 } = pod;
      const flags = EndpointFlag.PRESENT;
      const endpoint = { ifindex: device, addr4: addr, addr6, flags, epoch, mac: macBytes(mac), excluded };
      tables.endpoints.set(pod.id, endpoint);
      tables.endpointByIfindex.set(device, pod.id);
      for (const address of [addr, addr6]) tables.endpointByAddr.set(address, pod.id);
    }
    for (const peer of [PEER, PEER2, PLAIN_NODE, LOCAL_PEER]) {
      const { addr, addr6, epoch } = peer;
      const flags = PeerFlag.PRESENT | (peer === PLAIN_NODE ? 0 : PeerFlag.CAPABLE);
      tables.peers.set(peer.id, { addr4: addr, addr6, flags, epoch });
      for (const address of [addr, addr6]) tables.peerByAddr.set(address, peer.id);
      tables.peerState.set(peer.id, UNHEARD);
      if (!('pod' in peer)) continue;
      const destination = { kind: DestKind.PEER, peer: peer.id };
      tables.destinations.set(prefix(peer.pod.replace(/[0-9]+$/, '0'), 24), destination);
      tables.destinations.set(prefix(peer.pod6.replace(/[0-9]+$/, ''), 64), destination);
    }
    for (const gateway of [PEER_GATEWAY, PEER_GATEWAY6]) {
      tables.destinations.set(prefix(gateway), { kind: DestKind.NONE, peer: PEER.id });
    }
  }

  /** What is known of the way to a peer. */
  path(talk: Conversation): Path {
    return this.tables.paths.get(pathIndex(talk));
  }

  patchPath(talk: Conversation, change: Partial<Path>): void {
    this.tables.paths.set(pathIndex(talk), { ...this.path(talk), ...change });
  }

  configure(change: Partial<Config>): void {
    this.tables.config.set(0, { ...this.tables.config.get(0), ...change });
  }

  /** Says when a peer was last heard of, and what else is known of it. */
  heard(peer: { readonly id: number }, at: bigint, more: Partial<PeerState> = {}): void {
    this.tables.peerState.set(peer.id, { ...UNHEARD, lastLife: at, lastConfirmed: at, ...more });
  }

  /** Runs a program on a frame, on the device that it would see it on unless `skb` says otherwise. */
  run(program: ProgramName, data: Buffer, skb: SkBuffInput = {}): Outcome {
    const { uplink, pod } = this.node.ifindex;
    return this.runAny(program, data, { ifindex: program.startsWith('pod') ? pod : uplink, ...skb });
  }

  /** The same for a program of any name. */
  runAny(program: string, data: Buffer, skb: SkBuffInput): Outcome {
    const { counters, reasons } = this.tables;
    const before = [counters.allSums(), reasons.allSums()] as const;
    // wire_len: the kernel wants it with gso_size, at least the packet's length.
    const ctx = skb.gso_size === undefined ? skb : { wire_len: data.length, ...skb };
    const result = testRun(this.fd(program), { data, ctx, summed: circumstances.summed });
    const frame = Buffer.from(result.dataOut);
    return {
      verdict: result.retval,
      frame,
      get parsed() {
        return parseFrame(frame);
      },
      skb: result.ctxOut,
      counters: named(counterNames, before[0], counters.allSums()),
      reasons: named(reasonNames, before[1], reasons.allSums()),
    };
  }

  /** Runs uplink_xdp on a frame. */
  runXdp(data: Buffer): XdpOutcome {
    const { counters } = this.tables;
    const before = counters.allSums();
    const { retval, ...result } = testRunXdp(this.fd('uplink_xdp'), data);
    return { verdict: retval, ...result, counters: named(counterNames, before, counters.allSums()) };
  }

  /** What the programs tell the sidecar while `run` runs. */
  events(run: () => void): Event[] {
    const events: Event[] = [];
    const onError = (error: unknown): never => {
      throw error;
    };
    const onRecord = (record: Buffer): void => void events.push(eventCodec.decode(record));
    using ring = new RingBuffer({ source: { fd: this.object.mapFd('events') }, onRecord, onError });
    while (ring.consume());
    events.length = 0;
    run();
    while (ring.consume());
    return events;
  }

  /** The last redirect (or, with `copy`, the last copy sent) of an instrumented object. */
  redirected(copy = false): Redirected {
    using map = new ArrayMap({ fd: this.object.mapFd('test_redirects') }, redirectedCodec);
    return map.get(copy ? 1 : 0);
  }

  /** Runs something during which slots change there; with an instrumented object. */
  changingSlots<T>(where: keyof typeof SlotChange, run: () => T): T {
    using map = new ArrayMap({ fd: this.object.mapFd('test_change') }, u32Codec);
    map.set(0, SlotChange[where]);
    try {
      return run();
    } finally {
      map.set(0, 0);
    }
  }

  /** Gives the connection what admits it: a conntrack entry (TCP, UDP, unless the lookup takes no zone) or an approval. */
  allow(talk: Conversation, spec: Partial<CtSpec> = {}): void {
    const translation = { mark: 0x13, dnatTo: talk.remote.pod, dnatPort: talk.dport };
    const full = {
      ...ALLOWED,
      zone: zoneOf(talk),
      ...(talk.kind === 'tcp' ? { tcpState: CtTcpState.established } : {}),
      ...(talk.destination.addr === talk.remote.pod ? {} : translation),
      ...spec,
    };
    const lookup = (this.tables.config.get(0).flags & ConfigFlag.CT_LOOKUP) !== 0;
    if (lookup && (talk.kind === 'tcp' || talk.kind === 'udp')) this.node.ct.insert(talk.tuple(), full);
    else this.tables.approvals.set(this.flowKeyOf(talk), { expires: now() + 3600n * SEC });
  }

  /** The connection's entry in the zone. */
  entry(talk: Conversation, zone = zoneOf(talk)): CtEntry | undefined {
    return this.node.conntrack.get(talk.tuple(), zone);
  }

  flowKeyOf(talk: Conversation): FlowKey {
    const { ifindex } = this.node;
    const { id } = talk.local;
    return talk.flowKey(id === POD.id ? ifindex.pod : id === POD2.id ? ifindex.pod2 : ifindex.excluded);
  }

  flow(key: FlowKey): Flow | undefined {
    return this.tables.flows.get(key);
  }

  slot(key: SlotKey): Slot | undefined {
    return this.tables.slots.get(key);
  }

  /** Changes fields of an existing flow. */
  patchFlow(key: FlowKey, change: Partial<Flow>): void {
    const flow = this.flow(key);
    if (flow === undefined) throw new Error('there is no flow to patch');
    this.tables.flows.set(key, { ...flow, ...change });
  }

  /** Changes fields of an existing slot. */
  patchSlot(key: SlotKey, change: Partial<Slot>): void {
    const slot = this.slot(key);
    if (slot === undefined) throw new Error('there is no slot to patch');
    this.tables.slots.set(key, { ...slot, ...change });
  }

  /** A masqueraded packet each way, which no counter of the flow shows. */
  #exchange({ talk, flowKey, slotKey, idIn }: Established): void {
    for (const [program, frame, ifindex] of [
      ['pod_egress', talk.sent(), flowKey.ifindex],
      ['uplink_ingress', talk.masqueraded({ id: idIn }), undefined],
    ] as const) {
      const { verdict, reasons } = this.run(program, frame, ifindex === undefined ? {} : { ifindex });
      if (verdict !== Verdict.redirect) throw new Error(`${program}: not fast: ${JSON.stringify(reasons)}`);
    }
    this.patchFlow(flowKey, { txPackets: 0n, txBytes: 0n, masqPackets: 0n, slowPackets: 0n });
    this.patchSlot(slotKey, { rxPackets: 0n, rxBytes: 0n });
  }

  /**
   * Allows a connection and exchanges keys by real packets: the pod sends, the peer announces and says that it holds our key.
   * The pod's next packet is fast, and so is the peer's.
   * @throws Error where the programs do not play along
   */
  establish(spec: ConversationSpec, peerKey = 0x5a): Established {
    const talk = new Conversation(spec);
    this.allow(talk);
    const flowKey = this.flowKeyOf(talk);
    const { ifindex } = flowKey;
    const announced = this.run('pod_egress', talk.sent(), { ifindex });
    const id = announced.parsed.id;
    if ((id & Id.marker) === 0) throw new Error(`not admitted: ${JSON.stringify(announced.reasons)}`);
    const ownKey = (id >> Id.keyShift) & 0xff;
    // The second one proves that the first was no accident: a sign of life.
    for (let i = 0; i < 2; i++) {
      this.run('pod_ingress', talk.delivered({ id: announcement(peerKey, true) }), { ifindex });
    }
    const flow = this.flow(flowKey);
    if (flow?.peerKey !== peerKey) throw new Error('the announcement was not read');
    const ids = { idIn: masquerade(ownKey), idOut: masquerade(peerKey) };
    const established = { talk, flowKey, slotKey: talk.slotKey(), ownKey, peerKey, ...ids };
    // What the pod sends comes from no device.
    if (circumstances.busyFlows) under({ summed: false }, () => this.#exchange(established));
    return established;
  }
}

/** The ID of an announcing packet. `holds`: the sender holds our key. */
export function announcement(key: number, holds: boolean): number {
  return Id.marker | (holds ? Id.flag : 0) | (key << Id.keyShift);
}

/** The ID of a masqueraded packet. `noDf`: the pod's packet had no DF. */
export function masquerade(key: number, noDf = false, count = 0): number {
  return Id.marker | (noDf ? Id.flag : 0) | (key << Id.keyShift) | count;
}
