/** Names and addresses of the native lab: pure functions of the node's and the pod's number. */
import { createHash, randomBytes } from 'node:crypto';
import { LabError, TUNNEL_OVERHEAD } from '../lab.ts';

/** Every namespace of every native lab starts with this. */
export const PREFIX = 'xl';

/** All pod CIDRs are inside this one. */
export const CLUSTER_CIDR = '10.10.0.0/16';

/** VXLAN network identifier of the slow path. */
export const VNI = 1;

/** Bytes that an IPv6 header has more than an IPv4 header. */
const IPV6_EXTRA = 20;

export const UPLINK = 'eth0';
export const GATEWAY_DEVICE = 'br0';
export const TUNNEL_DEVICE = 'vx0';
export const POD_DEVICE = 'eth0';

/** A new lab id: the prefix and four random letters or digits. */
export function newLabId(): string {
  const alphabet = 'abcdefghijklmnopqrstuvwxyz0123456789';
  return PREFIX + [...randomBytes(4)].map((byte) => alphabet.charAt(byte % alphabet.length)).join('');
}

/** Addresses of node `index` (1-based). */
export interface NodePlan {
  readonly index: number;
  readonly name: string;
  readonly namespace: string;
  readonly address: string;
  readonly prefixLength: number;
  /** The router's address on this node's segment; undefined if the nodes share one segment. */
  readonly router: string | undefined;
  readonly uplinkMac: string;
  /** Unique per node: a VXLAN device ignores frames that come from its own address. */
  readonly tunnelMac: string;
  readonly podCidr: string;
  readonly gateway: string;
  readonly mtu: number;
  readonly podMtu: number;
  /** Undefined without IPv6. */
  readonly ipv6: NodeIpv6 | undefined;
}

/** IPv6 addresses of a node. */
export interface NodeIpv6 {
  /** Of the uplink, /64. */
  readonly address: string;
  readonly podCidr: string;
  readonly gateway: string;
}

/** Plans node `index`; with a router each node has a /24 of its own. With IPv6 the tunnel's outer header may be one of 40 bytes. */
export function planNode(id: string, index: number, mtu: number, routed: boolean, ipv6 = false): NodePlan {
  return {
    index,
    name: `n${index}`,
    namespace: `${id}-n${index}`,
    address: routed ? `172.30.${index}.2` : `172.30.0.${index}`,
    prefixLength: 24,
    router: routed ? `172.30.${index}.1` : undefined,
    uplinkMac: `0a:58:ac:1e:00:${hex(index)}`,
    tunnelMac: `0a:58:0a:0a:${hex(index)}:01`,
    podCidr: `10.10.${index}.0/24`,
    gateway: `10.10.${index}.1`,
    mtu,
    podMtu: mtu - TUNNEL_OVERHEAD - (ipv6 ? IPV6_EXTRA : 0),
    ipv6: ipv6 ? planIpv6(index) : undefined,
  };
}

function planIpv6(index: number): NodeIpv6 {
  const group = index.toString(16);
  return { address: `fd30::${group}`, podCidr: `fd10:${group}::/64`, gateway: `fd10:${group}::1` };
}

/** Name and addresses of one pod sandbox. */
export interface PodPlan {
  readonly name: string;
  readonly podNamespace: string;
  readonly namespace: string;
  readonly containerId: string;
  readonly hostDevice: string;
  readonly address: string;
  /** Undefined without IPv6. */
  readonly address6: string | undefined;
  readonly mac: string;
}

/** Plans a sandbox: new container id and namespace, and a new MAC unless one is given. */
export function planPod(
  node: NodePlan,
  sandbox: number,
  pod: { name: string; ip: string; mac?: string | undefined; namespace?: string | undefined },
): PodPlan {
  if (!pod.ip.startsWith(`10.10.${node.index}.`)) throw new LabError(`pod address ${pod.ip} is not in ${node.podCidr}`);
  const containerId = randomBytes(32).toString('hex');
  return {
    name: pod.name,
    podNamespace: pod.namespace ?? 'default',
    namespace: `${node.namespace}p${sandbox}`,
    containerId,
    hostDevice: hostDeviceName(pod.name, containerId),
    address: pod.ip,
    address6: node.ipv6 === undefined ? undefined : pod.ip.replace(/^.*\./, node.ipv6.podCidr.replace('/64', '')),
    mac: pod.mac ?? randomMac(),
  };
}

/** Antrea's name for the host side of a pod's veth pair (pkg/agent/util/net.go). */
export function hostDeviceName(podName: string, containerId: string): string {
  const digest = createHash('sha1').update(containerId).digest('hex').slice(0, 6);
  return `${podName.slice(0, 8).replace(/^-+/, '')}-${digest}`;
}

/** A random unicast, locally administered MAC address. */
export function randomMac(): string {
  const bytes = randomBytes(6);
  bytes.writeUInt8((bytes.readUInt8(0) & 0xfc) | 0x02, 0);
  return [...bytes].map(hex).join(':');
}

function hex(byte: number): string {
  return byte.toString(16).padStart(2, '0');
}
