/** Names and addresses of the native lab: pure functions of the node's and the pod's number. */
import { createHash, randomBytes } from 'node:crypto';
import { IPV6_EXTRA, LabError, TUNNEL_OVERHEAD, familyOf } from '../lab.ts';
import type { EncapMode, Family, LabOptions, TunnelOptions, UplinkKind } from '../lab.ts';

/** Every namespace of every native lab starts with this. */
export const PREFIX = 'xl';

/** All pod CIDRs are inside these. */
export const CLUSTER_CIDR = '10.10.0.0/16';
export const CLUSTER_CIDR6 = 'fd10::/16';

export const UPLINK = 'eth0';
/** The VLAN that an uplink of that kind is in. */
export const UPLINK_VLAN = 7;
export const GATEWAY_DEVICE = 'br0';
/** The tunnels of a node, by the family of their outer header. */
export const TUNNEL_DEVICES: Readonly<Record<Family, string>> = { ipv4: 'vx0', ipv6: 'vx6' };
export const POD_DEVICE = 'eth0';

/** A new lab id: the prefix and four random letters or digits. */
export function newLabId(): string {
  const alphabet = 'abcdefghijklmnopqrstuvwxyz0123456789';
  return PREFIX + [...randomBytes(4)].map((byte) => alphabet.charAt(byte % alphabet.length)).join('');
}

/** What the plans of all nodes of a lab have in common. */
export interface LabPlan {
  /** Of the uplinks. */
  readonly mtu: number;
  /** Each node is in subnets of its own, joined by a router. */
  readonly routed: boolean;
  /** Pods have IPv6 addresses, too. */
  readonly ipv6: boolean;
  readonly underlay: Required<LabOptions>['underlay'];
  readonly encapMode: EncapMode;
  /** Family whose subnets are each node's own though they share one segment. */
  readonly apart?: Family | undefined;
  readonly uplink: UplinkKind;
  readonly tunnel: Required<TunnelOptions>;
}

/** Addresses of node `index` (1-based). */
export interface NodePlan {
  readonly index: number;
  readonly name: string;
  readonly namespace: string;
  /** Addresses of the uplink; at least one. */
  readonly transport: Readonly<Record<Family, Transport | undefined>>;
  readonly uplinkMac: string;
  /** Unique per node: a VXLAN device ignores frames that come from its own address. */
  readonly tunnelMac: string;
  readonly podCidr: string;
  readonly gateway: string;
  readonly mtu: number;
  readonly podMtu: number;
  /** Of the pods' IPv6 addresses; undefined without. */
  readonly ipv6: PodNetwork | undefined;
  readonly encapMode: EncapMode;
  readonly uplink: UplinkKind;
  readonly tunnel: Required<TunnelOptions>;
}

/** An address of an uplink. */
export interface Transport {
  readonly address: string;
  readonly prefixLength: number;
  /** The router's address on this node's segment; undefined if the nodes share one segment. */
  readonly router: string | undefined;
  /** The segment's addresses, all of them on-link, where the subnet is this node's own; else undefined. */
  readonly segment: string | undefined;
}

/** Addresses of a node's pods in one family. */
export interface PodNetwork {
  readonly podCidr: string;
  readonly gateway: string;
}

/** Plans node `index`. */
export function planNode(id: string, index: number, lab: LabPlan): NodePlan {
  const group = index.toString(16);
  const apart = (family: Family): boolean => lab.routed || lab.apart === family;
  return {
    index,
    name: `n${index}`,
    namespace: `${id}-n${index}`,
    transport: {
      ipv4:
        lab.underlay === 'ipv6'
          ? undefined
          : {
              address: apart('ipv4') ? `172.30.${index}.2` : `172.30.0.${index}`,
              prefixLength: 24,
              router: lab.routed ? `172.30.${index}.1` : undefined,
              segment: lab.apart === 'ipv4' ? '172.30.0.0/16' : undefined,
            },
      ipv6:
        lab.underlay === 'ipv4'
          ? undefined
          : {
              address: apart('ipv6') ? `fd30:0:0:${group}::2` : `fd30::${group}`,
              prefixLength: 64,
              router: lab.routed ? `fd30:0:0:${group}::1` : undefined,
              segment: lab.apart === 'ipv6' ? 'fd30::/32' : undefined,
            },
    },
    uplinkMac: `0a:58:ac:1e:00:${hex(index)}`,
    tunnelMac: `0a:58:0a:0a:${hex(index)}:01`,
    podCidr: `10.10.${index}.0/24`,
    gateway: `10.10.${index}.1`,
    mtu: lab.mtu,
    podMtu: lab.mtu - overhead(lab),
    ipv6: lab.ipv6 ? { podCidr: `fd10:${group}::/64`, gateway: `fd10:${group}::1` } : undefined,
    encapMode: lab.encapMode,
    uplink: lab.uplink,
    tunnel: lab.tunnel,
  };
}

/** The devices below an uplink, or below what it is connected to. */
export function lowerDevices(device: string, kind: UplinkKind): readonly string[] {
  const suffixes = { plain: [], vlan: ['p'], bond: ['a', 'b'] }[kind];
  return suffixes.map((suffix) => `${device}${suffix}`);
}

/* As Antrea deducts it: on a node with IPv6 for the larger outer header, whatever is inside. */
function overhead(lab: LabPlan): number {
  if (lab.encapMode === 'noEncap') return 0;
  return TUNNEL_OVERHEAD + (lab.ipv6 || lab.underlay !== 'ipv4' ? IPV6_EXTRA : 0);
}

/** The plan of a node whose transport address of this address's family is another one now. */
export function withTransportAddress(node: NodePlan, address: string): NodePlan {
  const family = familyOf(address);
  const old = node.transport[family];
  if (old === undefined) throw new LabError(`${node.name} has no ${family} transport address to change`);
  return { ...node, transport: { ...node.transport, [family]: { ...old, address } } };
}

/** Transport address of a node that has one of this family. */
export function transportAddress(node: NodePlan, family: Family): string {
  const transport = node.transport[family];
  if (transport === undefined) throw new LabError(`${node.name} has no ${family} transport address`);
  return transport.address;
}

/** A node's pod networks, by family. */
export function podNetworks(node: NodePlan): readonly (PodNetwork & { readonly family: Family })[] {
  const { podCidr, gateway, ipv6 } = node;
  return [{ family: 'ipv4', podCidr, gateway }, ...(ipv6 === undefined ? [] : [{ family: 'ipv6', ...ipv6 } as const])];
}

/** Family of the outer header of pod traffic of this family: the same where the nodes have it. */
export function carrier(node: NodePlan, family: Family): Family {
  const other = family === 'ipv4' ? 'ipv6' : 'ipv4';
  return node.transport[family] === undefined ? other : family;
}

/** Does the slow path route to the peer's pods of this family, without a tunnel? */
export function isDirect(node: NodePlan, peer: NodePlan, family: Family): boolean {
  if (node.encapMode !== 'hybrid') return node.encapMode === 'noEncap';
  return subnetOf(node, family) === subnetOf(peer, family);
}

/* All IPv4 subnets of the lab are /24, all IPv6 ones /64; each node's is written out, but for `fd30::`. */
function subnetOf(node: NodePlan, family: Family): string {
  const address = node.transport[family]?.address ?? '';
  return family === 'ipv4' ? address.replace(/\.\d+$/, '') : address.replace(/::[^:]*$/, '');
}

/** Families of the outer headers that a node's slow path writes; none without a tunnel. */
export function carriers(node: NodePlan): readonly Family[] {
  if (node.encapMode === 'noEncap') return [];
  return [...new Set(podNetworks(node).map(({ family }) => carrier(node, family)))];
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
