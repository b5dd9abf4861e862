/** Packets in the tunnel between nodes, as the slow path writes them (RFC 7348, RFC 8926, RFC 6040). */
import { GATEWAY_MAC, nodeOf, remoteOf, TUNNEL_PORT, type Conversation, type Remote } from './harness.ts';
import { buildFrame, isV6, type Family, type FrameSpec } from './packets.ts';

/** Where inner frames go: Antrea's virtual MAC address, the same on every node, and the other node's gateway. */
export const INNER_MACS = { dmac: GATEWAY_MAC, smac: '0e:00:00:00:00:07' } as const;
const ETH_BYTES = 14;

/** A tunnel between this node and another one. */
export interface Tunnel {
  readonly type: 'vxlan' | 'geneve';
  /** Of the underlay. */
  readonly outer: Family;
  /** The UDP checksum is computed; else 0. */
  readonly checksum?: boolean;
}

/** Every kind of tunnel. */
export const TUNNELS: readonly Tunnel[] = (['vxlan', 'geneve'] as const).flatMap((type) =>
  ([4, 6] as const).map((outer) => ({ type, outer })),
);

/** "geneve/6" */
export function tunnelName({ type, outer, checksum }: Tunnel): string {
  return `${type} over IPv${outer}${checksum === true ? ' with checksums' : ''}`;
}

/** What is not as usual in the outer header. */
export interface OuterSpec extends Partial<Omit<FrameSpec, 'transport'>> {
  readonly sport?: number;
  readonly dport?: number;
  readonly vni?: number;
  /** The tunnel's header in the place of a good one. */
  readonly header?: Buffer;
  /** UDP checksum in the place of a right one. */
  readonly udpChecksum?: number;
}

/** The 8 bytes behind the UDP header. */
export function tunnelHeader(type: Tunnel['type'], vni = 0): Buffer {
  const header = type === 'vxlan' ? Buffer.of(0x08, 0, 0, 0, 0, 0, 0, 0) : Buffer.of(0, 0, 0x65, 0x58, 0, 0, 0, 0);
  header.writeUIntBE(vni, 4, 3);
  return header;
}

/** RFC 6040 as the kernel has it: CE is not copied, because the tunnel did not see congestion. */
function outerEcn(inner: Buffer): number {
  const tos = isV6(inner) ? (inner.readUInt16BE(ETH_BYTES) >> 4) & 0xff : (inner[ETH_BYTES + 1] ?? 0);
  return (tos & 3) === 3 ? 2 : tos & 3;
}

function encapsulated(tunnel: Tunnel, inner: Buffer, ends: Partial<FrameSpec>, spec: OuterSpec): Buffer {
  const { sport = 51234, dport = TUNNEL_PORT, vni, header, udpChecksum, ...outer } = spec;
  const payload = Buffer.concat([header ?? tunnelHeader(tunnel.type, vni), inner]);
  const checksum = udpChecksum ?? (tunnel.checksum === true ? undefined : 0);
  const transport = { kind: 'udp', sport, dport, payload, ...(checksum === undefined ? {} : { checksum }) } as const;
  const base = { dmac: '', smac: '', src: '', dst: '', ttl: 64, tos: outerEcn(inner), ...ends };
  return buildFrame({ ...base, ...outer, transport });
}

/** An inner frame on its way from this node to another one. */
export function tunnelledOut(tunnel: Tunnel, remote: Remote, inner: Buffer, spec: OuterSpec = {}): Buffer {
  const [node, peer] = [nodeOf(tunnel.outer), remoteOf(remote, tunnel.outer)];
  const ends = { smac: node.mac, dmac: peer.mac, src: node.addr, dst: peer.addr };
  return encapsulated(tunnel, inner, ends, spec);
}

/** An inner frame on its way from another node to this one. */
export function tunnelledIn(tunnel: Tunnel, remote: Remote, inner: Buffer, spec: OuterSpec = {}): Buffer {
  const [node, peer] = [nodeOf(tunnel.outer), remoteOf(remote, tunnel.outer)];
  const ends = { smac: peer.mac, dmac: node.mac, src: peer.addr, dst: node.addr };
  return encapsulated(tunnel, inner, ends, spec);
}

type Overrides = NonNullable<Parameters<Conversation['sent']>[0]>;

/** A pod's packet as it is on its way between the nodes: routed by this one, translated if it is for a Service. */
export function routedOut(talk: Conversation, { l4, ...overrides }: Overrides = {}): Buffer {
  const ports = talk.kind === 'tcp' || talk.kind === 'udp' || talk.kind === 'sctp' ? { dport: talk.dport } : {};
  return talk.sent({
    ...{ ...INNER_MACS, dst: talk.remote.pod, ttl: talk.ttl - 1 },
    ...overrides,
    l4: { ...ports, ...l4 },
  });
}

/** A packet of the other pod as it arrives at this node: routed by its own. */
export function routedIn(talk: Conversation, { l4, ...overrides }: Overrides = {}): Buffer {
  const ports = talk.kind === 'tcp' || talk.kind === 'udp' || talk.kind === 'sctp' ? { sport: talk.dport } : {};
  return talk.delivered({ ...{ ...INNER_MACS, src: talk.remote.pod, ttl: 63 }, ...overrides, l4: { ...ports, ...l4 } });
}
