/**
 * The laboratory as a test sees it: nodes, pods, policy, conntrack, captures. Nothing here knows how a provider builds
 * them (network namespaces on the host kernel, Open vSwitch in a micro-VM, ...); providers implement these interfaces.
 *
 * Everything runs through `Place`: a network stack in which commands run and on whose devices packets are captured.
 * Of a real cluster that is had, and little else: e2e/lab/cluster.
 */
import { LabError } from './errors.ts';
import type { CaptureResult } from './pcap.ts';
import type { ConntrackEntry, ConntrackFilter, ConntrackTimeouts } from './conntrack.ts';

export { LabError };

/** An address family. */
export type Family = 'ipv4' | 'ipv6';

/**
 * As Antrea's trafficEncapMode: pod traffic between nodes in a tunnel, routed as it is, or (hybrid) the latter between nodes
 * of one subnet only, for each family by itself.
 */
export type EncapMode = 'encap' | 'noEncap' | 'hybrid';

/** What a node's uplink is: one device, VLAN 7 of one, or a bond of two of which one is in use (active-backup). */
export type UplinkKind = 'plain' | 'vlan' | 'bond';

/** How one command is run to its end. */
export interface ExecOptions {
  /** Killed (SIGKILL, with its process group) after this many milliseconds. Default 15000. */
  readonly timeoutMs?: number;
  /** Written to standard input. */
  readonly input?: string | Uint8Array;
  /** Throw a LabError on a non-zero exit code or a signal. Default true. */
  readonly check?: boolean;
}

/** What a finished command left. Each stream is cut at 16 MiB. */
export interface ExecResult {
  /** Exit code, or null if a signal ended the command. */
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** How a process that goes on running is started. */
export interface SpawnOptions {
  /** Log file name without extension; unique names are made from it. Default: the program's base name. */
  readonly name?: string;
  /** Added to the environment. */
  readonly env?: Readonly<Record<string, string>>;
  /** Do not enter the place's network namespace (the process still counts as the lab's and dies with it). */
  readonly outside?: boolean;
}

/** A process of the lab. It has its own process group; `lab.down()` kills what is left of it. */
export interface Proc {
  readonly pid: number;
  readonly name: string;
  /** Standard output and standard error, interleaved, in one file. */
  readonly logPath: string;
  /** Resolves when the process has ended; never rejects. */
  readonly exited: Promise<{ readonly code: number | null; readonly signal: string | null }>;
  /** True until the process has ended. */
  readonly running: boolean;
  /** What the log holds now (the last 16 MiB). */
  output(): string;
  /** Resolves with the first log line that matches, rejects with a LabError on time-out (default 5000 ms) or exit. */
  waitFor(pattern: RegExp, timeoutMs?: number): Promise<string>;
  /** Waits for the end and returns the last log line that is a JSON object. Rejects if there is none. */
  json(timeoutMs?: number): Promise<unknown>;
  /** Signals the process group (default SIGTERM), SIGKILL after `graceMs` (default 2000), and waits for the end. */
  stop(signal?: NodeJS.Signals, graceMs?: number): Promise<void>;
}

/** Offload features by their ethtool -K names; what is left out stays as it is. */
export type OffloadFlags = Partial<Record<'tso' | 'gso' | 'gro' | 'tx' | 'rx' | 'sg' | 'tx-udp-segmentation', boolean>>;

/** Everything on, as devices begin. */
export const OFFLOADS_ON: OffloadFlags = {
  ...{ tx: true, sg: true, tso: true, gso: true, gro: true },
  'tx-udp-segmentation': true,
};
/** What can be off, off. */
export const OFFLOADS_OFF: OffloadFlags = {
  ...{ tx: false, tso: false, gso: false, gro: false },
  'tx-udp-segmentation': false,
};

/** What to capture. */
export interface CaptureOptions {
  /** Device name; default the place's own device. `any` is not supported (no Ethernet header). */
  readonly device?: string;
  /** pcap filter expression. */
  readonly filter?: string;
  /** in: received by the device only; out: sent only. Default both. */
  readonly direction?: 'in' | 'out';
  /** Bytes kept of each packet; default all. With little, bursts fit into the buffer that do not otherwise. */
  readonly snapLength?: number;
}

/** A capture that runs. */
export interface Capture {
  readonly path: string;
  /** Ends the capture and decodes what it holds. */
  stop(): Promise<CaptureResult>;
}

/** A network stack of the lab: the inside of a node, of a pod or of the underlay. */
export interface Place {
  /** Unique in the lab, e.g. `n1`, `pod-1-2`. */
  readonly name: string;
  /** The IPv4 address others reach it by; on a node that has none (`LabOptions.underlay`) the IPv6 one. */
  readonly address: string;
  /** The IPv6 address others reach it by; undefined if there is none. */
  readonly address6: string | undefined;
  /** The device that has the address. */
  readonly device: string;
  /** MTU of the device, bytes. */
  readonly mtu: number;
  /** MAC address of the device, lower case with colons. */
  readonly mac: string;
  /** Runs a command to its end. */
  exec(argv: readonly string[], options?: ExecOptions): Promise<ExecResult>;
  /** Runs a shell script (sh -e) to its end. */
  sh(script: string, options?: ExecOptions): Promise<ExecResult>;
  /** Starts a process that goes on. */
  spawn(argv: readonly string[], options?: SpawnOptions): Promise<Proc>;
  /** Starts a capture; resolved once packets are being captured. */
  capture(options?: CaptureOptions): Promise<Capture>;
  /** Switches offloads on all devices that a packet to or from this place passes and that belong to it. */
  offload(flags: OffloadFlags): Promise<void>;
}

/** A pod as the sidecar learns of it (the PodEvents message, same field names). */
export interface Endpoint {
  readonly namespace: string;
  readonly name: string;
  /** 64 hexadecimal digits, new for every sandbox. */
  readonly containerId: string;
  /** Name of the host-side device in the node. */
  readonly ifName: string;
  readonly ips: readonly string[];
  /** MAC address inside the pod. */
  readonly mac: string;
}

/** A pod. `name` is the pod's name; it is unique in the lab. */
export interface Pod extends Place {
  readonly node: Node;
  readonly endpoint: Endpoint;
}

/** How a pod is added. */
export interface AddPodOptions {
  /** Default `pod-<node>-<index>`. */
  readonly name?: string;
  /**
   * IPv4 address in the node's pod CIDR; default the next free one. A deleted pod's address may be given again. The IPv6
   * address has the same last number.
   */
  readonly ip?: string;
  /** Default: a fresh random one, as the CNI does for every sandbox. */
  readonly mac?: string;
  /** Kubernetes namespace. Default `default`. */
  readonly namespace?: string;
}

/** Conntrack of one node's network namespace. */
export interface Conntrack {
  /** The entries that match; an empty filter lists every zone. */
  list(filter?: ConntrackFilter): Promise<ConntrackEntry[]>;
  /** Deletes the entries that match and says how many there were. */
  delete(filter?: ConntrackFilter): Promise<number>;
  /** Sets timeouts in seconds for entries to come (existing entries change at their next packet). */
  setTimeouts(timeouts: ConntrackTimeouts): Promise<void>;
}

/**
 * A Service with an address of its own in SERVICE_CIDR or SERVICE_CIDR6, translated on the node where a connection to it
 * begins. Its endpoints are of the same family.
 */
export interface ClusterIpService {
  readonly clusterIp: string;
  readonly protocol: 'tcp' | 'udp' | 'sctp';
  readonly port: number;
  /** At least one; each new connection gets one of them at random. */
  readonly endpoints: readonly { readonly address: string; readonly port: number }[];
}

/** Encapsulation and UDP port of a slow path. */
export interface Tunnel {
  readonly type: 'vxlan' | 'geneve';
  readonly port: number;
}

/** As Antrea's options of the same meaning, `vni` excepted. */
export interface TunnelOptions {
  /** The native lab has VXLAN only. */
  readonly type: Tunnel['type'];
  /** Destination port of the outer header. Default: that of IANA. */
  readonly port?: number;
  /** The outer header has a UDP checksum. Default false. */
  readonly checksum?: boolean;
  /** Network identifier. Native only, where it is 1 by default; Antrea's is 0. */
  readonly vni?: number;
}

/** What a lab is built of, known before one is up: a provider's module exports it as `PROVIDER`. */
export interface Provider {
  /** native: bridge, VXLAN and nftables. ovs: Open vSwitch, which always guards against spoofing. */
  readonly name: 'native' | 'ovs';
  /** How its slow path encapsulates by default. */
  readonly tunnel: Tunnel;
}

/** A node. `address` is its transport address and `device` the uplink. */
export interface Node extends Place {
  /** 1-based. */
  readonly index: number;
  readonly pods: readonly Pod[];
  readonly podCidr: string;
  /** The gateway address of the pod CIDR, on the gateway bridge. */
  readonly gateway: string;
  /** Of the pods' IPv6 addresses, /64; undefined without. */
  readonly podCidr6: string | undefined;
  readonly gateway6: string | undefined;
  /** Names of the devices of the slow path. */
  readonly gatewayDevice: string;
  readonly tunnelDevices: readonly string[];
  readonly encapMode: EncapMode;
  /** What is below the uplink: the device of a VLAN, those of a bond, the first of which is preferred; none of a plain one. */
  readonly lowerDevices: readonly string[];
  /** How the slow path encapsulates, if it does. */
  readonly tunnel: Tunnel;
  /** Where this node's programs, links and maps are pinned. Not created by the lab, removed by `down()`. */
  readonly pinDir: string;
  /** A directory of its own for sockets and state of this node's processes. */
  readonly socketDir: string;
  readonly conntrack: Conntrack;
  /** The i-th pod (0-based); throws a LabError if there is none. */
  pod(i: number): Pod;
  addPod(options?: AddPodOptions): Promise<Pod>;
  /** Kills the pod's processes and removes its devices and namespace; nothing else forgets it (as with Antrea). */
  deletePod(pod: Pod): Promise<void>;
  /**
   * The Services that there are from now on, for connections from this node's pods. As with AntreaProxy, connections
   * to an endpoint that is no longer there go on, but for UDP ones, whose conntrack entries are deleted.
   */
  setServices(services: readonly ClusterIpService[]): Promise<void>;
  /**
   * Gives the uplink another MAC address while it is up. Neighbours are told by gratuitous ARP and unsolicited
   * advertisements, or (`announce: false`) find out by themselves.
   */
  setUplinkMac(mac: string, options?: { readonly announce?: boolean }): Promise<void>;
  /**
   * Gives the uplink another transport address of the same family and subnet; the old one is gone. The slow path of every
   * node follows. Native only.
   */
  setTransportAddress(address: string): Promise<void>;
  /**
   * Has the slow path's own tunnel send Ethernet frames (hexadecimal) to a peer, whatever is in them. Each must fit into a
   * packet with the tunnel's header.
   */
  sendInTunnel(frames: readonly string[], peer: Node): Promise<void>;
  /** Sets kernel parameters of the node, e.g. `{'net/ipv4/ip_forward': 1}`. */
  sysctl(values: Readonly<Record<string, string | number>>): Promise<void>;
}

export type Protocol = 'tcp' | 'udp' | 'sctp' | 'icmp';

/**
 * A connection to deny, in both families; what is left out matches anything. Applies to new connections only, as Antrea's
 * policies do.
 */
export interface DenyRule {
  readonly srcPod?: Pod;
  readonly dstPod?: Pod;
  readonly proto?: Protocol;
  /** Destination port; needs a protocol with ports. */
  readonly port?: number;
  /** Enforced on these nodes only. Default all. */
  readonly nodes?: readonly Node[];
}

/** What the slow path allows and which marks and zones it gives. Every call acts on new connections. */
export interface Policy {
  deny(rule: DenyRule): Promise<void>;
  /** Removes every deny rule. */
  clear(): Promise<void>;
  /** New connections to this destination port get this ct_mark instead of Antrea's. */
  markPort(port: number, mark: number): Promise<void>;
  /** New connections of this protocol get this ct_mark instead of Antrea's (for protocols without ports; icmp: ICMPv6, too). */
  markProtocol(proto: Protocol, mark: number): Promise<void>;
  clearMarks(): Promise<void>;
  /** Packets from and to this port are tracked in this conntrack zone instead of Antrea's. */
  zonePort(port: number, zone: number): Promise<void>;
  clearZones(): Promise<void>;
}

/** A firewall between the nodes. */
export interface Firewall {
  /**
   * stateful: what its conntrack finds invalid is dropped: TCP whose beginning it has not seen or whose numbers are out of
   * the window, ICMP answers to nothing. tunnelOnly: everything is dropped but UDP to the tunnel's port.
   */
  readonly kind: 'stateful' | 'tunnelOnly';
  /** Concerns only what this node sends. Default: all nodes. */
  readonly from?: Node;
}

/** What carries packets between the nodes. Without a router the fault injection throws a LabError. */
export interface Underlay {
  /** True if a router namespace joins the nodes. */
  readonly routed: boolean;
  /** The router's (or switch's) own network stack, if there is one. */
  readonly place: Place | undefined;
  /** Drops this percentage (0-100) of packets at random, both directions. A GSO packet counts as one. */
  setLoss(percent: number): Promise<void>;
  /** Delays this percentage of packets by this time, so that later ones overtake them. 0 switches it off. */
  setReorder(percent: number, delayMs: number): Promise<void>;
  /**
   * Delays every packet by this time, more or less by up to `jitterMs`, at random: what is sent later may arrive first. Needs
   * the kernel's module sch_netem. 0 switches it off.
   */
  setDelay(delayMs: number, jitterMs: number): Promise<void>;
  /** Adds firewall rules to the forward chain (nftables rule text of either family, one per element), before loss. */
  addRules(rules: readonly string[]): Promise<void>;
  /** Adds a firewall, which knows of no connection yet. */
  addFirewall(firewall: Firewall): Promise<void>;
  /**
   * Forwards nothing larger from now on (IPv6: 1280 or more), towards one node or all; senders are told by ICMP, as if the
   * next link had this MTU.
   */
  setMtu(mtu: number, towards?: Node): Promise<void>;
  /** Removes rules, firewalls, loss, delay and reordering, and restores the MTU. */
  clear(): Promise<void>;
}

/** What lab to build. */
export interface LabOptions {
  /** 1 to 16. Default 2. */
  readonly nodes?: number;
  /** Default 2. */
  readonly podsPerNode?: number;
  /** Join the nodes by an IP router, each in a subnet of its own. Default false: one L2 segment. */
  readonly router?: boolean;
  /** Uplink MTU; pods get 50 bytes less (the tunnel's overhead), 70 with IPv6 (its outer header's). Default 1500. */
  readonly mtu?: number;
  /** Track the node's own traffic in zone 0 as a Kubernetes node does; without, pods reach pods only. Default true. */
  readonly hostConntrack?: boolean;
  /** Drop what a pod sends with a source address or MAC that is not its own, as Antrea's SpoofGuard does. Default false. */
  readonly spoofGuard?: boolean;
  /** Pods have an IPv6 address, too. On Open vSwitch without a router only. Default false. */
  readonly ipv6?: boolean;
  /**
   * Families of the nodes' transport addresses; pod traffic of a family that they do not have is tunnelled over the other.
   * Native only. Default dual with `ipv6`, ipv4 without.
   */
  readonly underlay?: Family | 'dual';
  /** Default encap; others are native only. With noEncap pods have the MTU of the uplink. */
  readonly encapMode?: EncapMode;
  /**
   * On one segment, the nodes' transport addresses of this family are in subnets of their own all the same, and on-link.
   * Native only. Default: none.
   */
  readonly apart?: Family;
  /**
   * Uplinks of every node, and what they are connected to. Others than plain need the kernel's modules 8021q and bonding, and
   * have no IPv6. Default plain.
   */
  readonly uplink?: UplinkKind;
  /** What is otherwise with the tunnel than by default. */
  readonly tunnel?: TunnelOptions;
  /** Survive the process that built it; then only `down()` or `sweep({kept: true})` removes it. Default false. */
  readonly keep?: boolean;
}

/** A lab that is up. */
export interface Lab {
  /** Prefix of everything the lab creates on the machine. */
  readonly id: string;
  /** Working directory: logs, captures, sockets. Kept after `down()` for reading. */
  readonly dir: string;
  readonly nodes: readonly Node[];
  readonly policy: Policy;
  readonly underlay: Underlay;
  /** The i-th node (0-based); throws a LabError if there is none. */
  node(i: number): Node;
  /** Path of a traffic tool (`rr`, `stream`, `raw`, `sctp`) as the lab's places see it. */
  tool(name: ToolName): string;
  /** Switches offloads of every node, pod and underlay device. */
  offload(flags: OffloadFlags): Promise<void>;
  /** Ends every process of the lab and removes everything but the log directory. May be called twice. */
  down(): Promise<void>;
}

export type ToolName = 'rr' | 'stream' | 'raw' | 'sctp';

/** All that traffic between places needs of a lab. */
export type Toolbox = Pick<Lab, 'tool'>;

/** Zones and marks of Antrea's connections (the numbers are Antrea's). */
export const ANTREA = {
  zone: 65520,
  zone6: 65510,
  /** Bit of the mark: translated by AntreaProxy. */
  markService: 0x10,
  markFromPod: 0x03,
  markFromTunnel: 0x01,
  markFromGateway: 0x02,
  virtualMac: 'aa:bb:cc:dd:ee:ff',
  vxlanPort: 4789,
} as const;

/** Addresses of Services. */
export const SERVICE_CIDR = '10.96.0.0/16';
export const SERVICE_CIDR6 = 'fd96::/112';

/**
 * How much slower than natively everything is: environment XMASQ_TIME_FACTOR, default 1. In a micro-VM under software
 * emulation it is about 10. Waits are multiplied by it; limits that a test judges are not, and are judged natively.
 */
export const TIME_FACTOR = Math.max(1, Number(process.env['XMASQ_TIME_FACTOR'] ?? '1') || 1);

/** Overhead of VXLAN, or Geneve without options, over IPv4: IP, UDP and tunnel headers, and the inner Ethernet. */
export const TUNNEL_OVERHEAD = 50;

/** Bytes that an IPv6 header has more than an IPv4 header. */
export const IPV6_EXTRA = 20;

/** The place's address of this family; a LabError if it has none. */
export function addressOf(place: Pick<Place, 'name' | 'address' | 'address6'>, family: Family): string {
  const address = family === 'ipv6' ? place.address6 : place.address;
  if (address === undefined || familyOf(address) !== family)
    throw new LabError(`${place.name} has no ${family} address`);
  return address;
}

/** Family of an address or CIDR in text. */
export function familyOf(address: string): Family {
  return address.includes(':') ? 'ipv6' : 'ipv4';
}

/** The element, or a LabError that says which index of what is missing. */
export function at<T>(list: readonly T[], index: number, what: string): T {
  const element = list[index];
  if (element === undefined) throw new LabError(`no ${what} with index ${index}: there are ${list.length}`);
  return element;
}

/**
 * Waits until `test` gives something other than undefined or false; a LabError naming `what` after `timeoutMs` (times
 * TIME_FACTOR).
 */
export async function eventually<T>(
  what: string,
  test: () => Promise<T | undefined | false> | T | undefined | false,
  timeoutMs = 5000,
  intervalMs = 50,
): Promise<T> {
  const limit = timeoutMs * TIME_FACTOR;
  const end = Date.now() + limit;
  for (;;) {
    const got = await test();
    if (got !== undefined && got !== false) return got;
    if (Date.now() >= end) throw new LabError(`${what}: not within ${limit} ms`);
    await sleep(intervalMs);
  }
}

/** Resolves after `ms` milliseconds. */
export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, ms);
  });
}
