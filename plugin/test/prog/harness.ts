/**
 * A node in a network namespace of its own, for BPF_PROG_TEST_RUN: devices, maps, conntrack entries; runs one program on
 * one packet and tells everything that came of it.
 *
 *   pods 10.10.0.0/24 (this node 192.0.2.1) | 10.10.1.0/24 (peer 192.0.2.2) | 10.10.2.0/24 (peer 192.0.2.3)
 *   | 10.10.3.0/24 (node 192.0.2.4, not capable)
 */
import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { makeCodec } from '../../src/bpf/codec.ts';
import { ArrayMap } from '../../src/bpf/map.ts';
import { BpfObject } from '../../src/bpf/object.ts';
import { RingBuffer } from '../../src/bpf/ringbuf.ts';
import { testRun, type SkBuffInput, type SkBuffOutput } from '../../src/bpf/testrun.ts';
import { LAYOUT_VERSION } from '../../src/dataplane/layout.ts';
import { probeKernel } from '../../src/dataplane/probe.ts';
import type { HashTable } from '../../src/dataplane/ports.ts';
import { openTables, SIZED_MAPS, type KernelTables } from '../../src/dataplane/tables.ts';
import {
  ConfigFlag,
  counterNames,
  DestKind,
  EndpointFlag,
  eventCodec,
  PeerFlag,
  Reason,
  reasonNames,
  type Config,
  type Event,
  type Flow,
  type FlowKey,
  type Slot,
  type SlotKey,
} from '../../src/gen/layouts.ts';
import { CtStatus, Ctnetlink, CtTcpState, type CtEntry, type CtTuple } from '../../src/netlink/ctnetlink.ts';
import { parseIpv4 } from '../../src/netlink/ip.ts';
import { linkByName } from '../../src/netlink/rtnetlink.ts';
import { CtTable, type CtSpec } from './conntrack.ts';
import { enterPrivateNamespace } from './netns.ts';
import { buildFrame, macBytes, parseFrame, Proto, type FrameSpec, type ParsedFrame } from './packets.ts';

/** The checkout. */
export const ROOT = join(import.meta.dirname, '../../..');
/** The object that is shipped. */
export const OBJECT = join(ROOT, 'build/bpf/xmasq.bpf.o');

export const PROGRAMS = ['pod_egress', 'pod_ingress', 'uplink_ingress', 'uplink_egress'] as const;
export type ProgramName = (typeof PROGRAMS)[number];

/** What a program can return. */
export const Verdict = { pass: -1, drop: 2, redirect: 7 } as const;

/** Antrea's main zone. */
export const ZONE = 65520;
export const TUNNEL_PORT = 4789;
export const MAGIC = [0x11223344, 0x55667788, 0x99aabbcc, 0xddeeff01] as const;
export const MS = 1_000_000n;
export const SEC = 1_000_000_000n;

/** Bits of the IP ID of masqueraded and announcing packets. */
export const Id = { marker: 0x8000, flag: 0x4000, keyShift: 6 } as const;

export const NODE = { addr: '192.0.2.1', mac: '02:00:00:00:00:01', device: 'xpu0' } as const;
/** Antrea's virtual MAC: where pods send what leaves the node, and where it comes from. */
export const GATEWAY_MAC = 'aa:bb:cc:dd:ee:ff';
/** id is the index in `peers`; pod is one of its pods. */
export const PEER = { id: 1, epoch: 11, addr: '192.0.2.2', mac: '02:00:00:00:00:02', pod: '10.10.1.5' } as const;
export const PEER2 = { id: 2, epoch: 12, addr: '192.0.2.3', mac: '02:00:00:00:00:03', pod: '10.10.2.5' } as const;
/** A node without XMasq. */
export const PLAIN_NODE = { id: 3, epoch: 13, addr: '192.0.2.4', mac: '02:00:00:00:00:04', pod: '10.10.3.5' } as const;
/** A capable peer whose transport address is on this machine, for real sockets between it and NODE. */
export const LOCAL_PEER = { id: 4, epoch: 14, addr: '192.0.2.9' } as const;
/** A gateway address inside the peer's pod CIDR. */
export const PEER_GATEWAY = '10.10.1.1';

export interface PodInfo {
  /** Endpoint id. */
  readonly id: number;
  readonly epoch: number;
  readonly addr: string;
  readonly mac: string;
  /** Host-side veth. */
  readonly device: string;
}
export const POD: PodInfo = { id: 1, epoch: 21, addr: '10.10.0.2', mac: '0a:00:00:00:00:02', device: 'xpp1' };
export const POD2: PodInfo = { id: 2, epoch: 22, addr: '10.10.0.3', mac: '0a:00:00:00:00:03', device: 'xpp2' };
export const EXCLUDED_POD: PodInfo = { id: 3, epoch: 23, addr: '10.10.0.4', mac: '0a:00:00:00:00:04', device: 'xpp3' };
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

/** A transport connection between POD, or another local pod, and a pod elsewhere. */
export interface ConversationSpec {
  readonly kind: 'tcp' | 'udp' | 'icmp' | 'sctp' | 'raw';
  readonly local?: PodInfo;
  readonly remote?: { readonly addr: string; readonly mac: string; readonly pod: string; readonly id: number };
  /** Port of the local pod; ICMP: the identifier. */
  readonly sport?: number;
  readonly dport?: number;
  /** A Service's address and port, by which the local pod reaches the remote one. */
  readonly service?: { readonly addr: string; readonly port: number };
  /** TTL and TOS of the local pod's packets. */
  readonly ttl?: number;
  readonly tos?: number;
}

type Overrides = Partial<Omit<FrameSpec, 'transport'>> & {
  /** Fields of the transport header, as in the spec of its kind. */
  readonly l4?: Readonly<Record<string, unknown>>;
  /** Another transport in its place. */
  readonly transport?: FrameSpec['transport'];
};

/** The packets of one connection, as they pass this node. */
export class Conversation {
  readonly kind: ConversationSpec['kind'];
  readonly local: PodInfo;
  readonly remote: Required<ConversationSpec>['remote'];
  readonly sport: number;
  readonly dport: number;
  readonly ttl: number;
  readonly tos: number;
  readonly proto: number;
  /** What the local pod takes the remote one for. */
  readonly destination: { readonly addr: string; readonly port: number };

  constructor(spec: ConversationSpec) {
    this.kind = spec.kind;
    this.local = spec.local ?? POD;
    this.remote = spec.remote ?? PEER;
    this.sport = spec.sport ?? 40000;
    this.dport = spec.dport ?? 8080;
    this.ttl = spec.ttl ?? 64;
    this.tos = spec.tos ?? 0;
    this.proto = spec.kind === 'raw' ? 253 : Proto[spec.kind];
    this.destination = spec.service ?? { addr: this.remote.pod, port: this.dport };
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
        dst: NODE.addr,
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
    const saddr = parseIpv4(this.local.addr);
    return { saddr, daddr: parseIpv4(this.destination.addr), sport, dport, ifindex, proto: this.proto };
  }

  /** Its key in `slots`. */
  slotKey(): SlotKey {
    const [sport, dport] = this.#ports(true);
    return { peer: parseIpv4(this.remote.addr), sport, dport, proto: this.proto };
  }

  /** Its tuple in conntrack, opened by the local pod. */
  tuple(): CtTuple {
    const addresses = { family: 4, src: parseIpv4(this.local.addr), dst: parseIpv4(this.destination.addr) } as const;
    if (this.kind === 'icmp') return { ...addresses, proto: this.proto, icmpType: 8, icmpCode: 0, icmpId: this.sport };
    return { ...addresses, proto: this.proto, sport: this.sport, dport: this.destination.port };
  }

  #ports(reverse: boolean, dport = this.dport): [number, number] {
    if (this.kind === 'raw') return [0, 0];
    if (this.kind === 'icmp') return [this.sport, reverse ? 0 : 8];
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

  #frame(base: FrameSpec, { l4, transport, ...overrides }: Overrides): Buffer {
    // Whoever overrides a field of the transport header names one of its kind.
    const merged = { ...(transport ?? base.transport), ...l4 };
    return buildFrame({ ...base, ...overrides, transport: merged });
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

/** struct test_redirect of fixtures/instrumented.bpf.c. */
export interface Redirected {
  readonly kind: 'none' | 'redirect' | 'peer' | 'copy';
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
    kind: (['none', 'redirect', 'peer', 'copy'] as const)[from.readUInt32LE(at)] ?? 'none',
    ifindex: from.readUInt32LE(at + 4),
    flags: from.readUInt32LE(at + 8),
    cb: [0, 1, 2, 3].map((i) => from.readUInt32LE(at + 12 + 4 * i)),
  }),
);

const SMALL_MAP = 4096;

function ip(...args: string[]): void {
  execFileSync('ip', args, { stdio: ['ignore', 'ignore', 'inherit'], timeout: 10_000 });
}

function makeDevices(): void {
  // As on every Kubernetes node; bpf_fib_lookup refuses without it. The file is that of the thread's namespace.
  writeFileSync('/proc/sys/net/ipv4/ip_forward', '1');
  ip('link', 'set', 'lo', 'up');
  ip('link', 'add', NODE.device, 'address', NODE.mac, 'mtu', '1500', 'type', 'veth', 'peer', 'name', 'xpu1');
  ip('address', 'add', `${NODE.addr}/24`, 'dev', NODE.device);
  ip('address', 'add', `${LOCAL_PEER.addr}/32`, 'dev', 'lo');
  const pods = [POD.device, POD2.device, EXCLUDED_POD.device, STRANGER_DEVICE];
  for (const device of pods) ip('link', 'add', device, 'type', 'veth', 'peer', 'name', device.replace('xp', 'xq'));
  for (const device of [NODE.device, 'xpu1', ...pods]) ip('link', 'set', device, 'up');
  for (const { addr, mac } of [PEER, PEER2, PLAIN_NODE]) {
    ip('neighbour', 'add', addr, 'lladdr', mac, 'dev', NODE.device, 'nud', 'permanent');
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

function clear<K>(map: HashTable<K, unknown>): void {
  for (const [key] of [...map.entries()]) map.delete(key);
}

function named(names: Readonly<Record<number, string>>, before: bigint[], after: bigint[]): Record<string, number> {
  const moved: Record<string, number> = {};
  after.forEach((value, index) => {
    const delta = Number(value - (before[index] ?? 0n));
    if (delta !== 0) moved[names[index] ?? `#${index}`] = delta;
  });
  return moved;
}

/** One loaded object. */
export class Bench {
  readonly node: Node;
  readonly tables: KernelTables;
  readonly object: BpfObject;

  /** @param path object with the four programs and their maps; nothing is pinned or attached */
  constructor(node: Node, path: string = OBJECT) {
    this.node = node;
    this.object = BpfObject.open(path);
    try {
      for (const map of SIZED_MAPS) this.object.setMaxEntries(map, SMALL_MAP);
      this.object.load();
      this.tables = openTables((map) => ({ fd: this.object.mapFd(map) }));
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
    clear(tables.flows);
    clear(tables.slots);
    clear(tables.approvals);
    clear(tables.refusals);
    this.configure({
      layoutVersion: LAYOUT_VERSION,
      flags: ConfigFlag.ADMIT | ConfigFlag.SEND | ConfigFlag.CT_LOOKUP,
      magic: MAGIC,
      uplinkIfindex: ifindex.uplink,
      uplinkAddr4: parseIpv4(NODE.addr),
      // Longer ago than packets of silent peers are interpreted.
      stateSince: 1n,
      hz: node.hz,
      ctZone: ZONE,
      tunnelPort: TUNNEL_PORT,
      excludedLocal: 0,
      excludedRemote: 0,
      paused: 0,
    });
    for (const [pod, device, excluded] of [
      [POD, ifindex.pod, 0],
      [POD2, ifindex.pod2, 0],
      [EXCLUDED_POD, ifindex.excluded, Reason.BANDWIDTH],
    ] as const) {
      const addr4 = parseIpv4(pod.addr);
      const { epoch, mac } = pod;
      const flags = EndpointFlag.PRESENT;
      tables.endpoints.set(pod.id, { ifindex: device, addr4, flags, epoch, mac: macBytes(mac), excluded });
      tables.endpointByIfindex.set(device, pod.id);
      tables.endpointByAddr.set(addr4, pod.id);
    }
    for (const peer of [PEER, PEER2, PLAIN_NODE, LOCAL_PEER]) {
      const addr4 = parseIpv4(peer.addr);
      const flags = PeerFlag.PRESENT | (peer === PLAIN_NODE ? 0 : PeerFlag.CAPABLE);
      tables.peers.set(peer.id, { addr4, flags, epoch: peer.epoch });
      tables.peerByAddr.set(addr4, peer.id);
      tables.peerState.set(peer.id, { lastLife: 0n, lastConfirmed: 0n, rejectWindow: 0n, rejectCount: 0n });
      if (!('pod' in peer)) continue;
      const addr = (parseIpv4(peer.pod) & 0xffffff00) >>> 0;
      tables.destinations.set({ prefixlen: 24, addr }, { kind: DestKind.PEER, peer: peer.id });
    }
    tables.destinations.set({ prefixlen: 32, addr: parseIpv4(PEER_GATEWAY) }, { kind: DestKind.NONE, peer: PEER.id });
  }

  configure(change: Partial<Config>): void {
    this.tables.config.set(0, { ...this.tables.config.get(0), ...change });
  }

  /** Says when a peer was last heard of. */
  heard(peer: { readonly id: number }, at: bigint): void {
    this.tables.peerState.set(peer.id, { lastLife: at, lastConfirmed: at, rejectWindow: 0n, rejectCount: 0n });
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
    const result = testRun(this.fd(program), { data, ctx });
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

  /** Gives the connection what admits it: a conntrack entry (TCP, UDP, unless the lookup takes no zone) or an approval. */
  allow(talk: Conversation, spec: Partial<CtSpec> = {}): void {
    const translation = { mark: 0x13, dnatTo: parseIpv4(talk.remote.pod), dnatPort: talk.dport };
    const full = {
      ...ALLOWED,
      ...(talk.kind === 'tcp' ? { tcpState: CtTcpState.established } : {}),
      ...(talk.destination.addr === talk.remote.pod ? {} : translation),
      ...spec,
    };
    const lookup = (this.tables.config.get(0).flags & ConfigFlag.CT_LOOKUP) !== 0;
    if (lookup && (talk.kind === 'tcp' || talk.kind === 'udp')) this.node.ct.insert(talk.tuple(), full);
    else this.tables.approvals.set(this.flowKeyOf(talk), { expires: now() + 3600n * SEC });
  }

  /** The connection's entry in the zone. */
  entry(talk: Conversation, zone = ZONE): CtEntry | undefined {
    return this.node.conntrack.get(talk.tuple(), zone);
  }

  flowKeyOf(talk: Conversation): FlowKey {
    const { ifindex } = this.node;
    const device = talk.local === POD ? ifindex.pod : talk.local === POD2 ? ifindex.pod2 : ifindex.excluded;
    return talk.flowKey(device);
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
    return { talk, flowKey, slotKey: talk.slotKey(), ownKey, peerKey, ...ids };
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

/** A frame with another ID and the right header checksum. */
export function withId(frame: Buffer, id: number): Buffer {
  const copy = Buffer.from(frame);
  copy.writeUInt16BE(id, 18);
  copy.writeUInt16BE(0, 24);
  let sum = 0;
  const end = 14 + Math.max(5, (copy[14] ?? 0) & 0xf) * 4;
  for (let at = 14; at < end; at += 2) sum += copy.readUInt16BE(at);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  copy.writeUInt16BE(~sum & 0xffff, 24);
  return copy;
}
