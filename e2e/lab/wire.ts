/** How the packets of a pod flow cross the underlay: as the nodes' own, or inside the tunnel. Pure functions. */
import type { Place } from './lab.ts';
import { network } from './packet.ts';
import type { Packet } from './packet.ts';

/** One transport connection between two pods of two nodes, in either direction. */
export interface WireFlow {
  /** IP protocol number. */
  readonly proto: number;
  readonly client: End;
  readonly server: End;
}

/** One end of it; the addresses are those of the family that the flow has there. */
export interface End {
  readonly pod: Pick<Place, 'address'>;
  readonly node: Pick<Place, 'address'>;
  readonly port: number;
}

/**
 * masqueraded: node addresses, TTL 64, marker bit (IPv4: and DF), no tunnel header. encapsulated: pod addresses inside
 * VXLAN. unmarked: node addresses and the flow's ports without being masqueraded: nobody would restore it.
 */
export type WirePath = 'masqueraded' | 'encapsulated' | 'unmarked';

/** Number of packets by path. */
export type WireCount = Readonly<Record<WirePath, number>>;

/** Top bit of the IP ID, or of the flow label, of a masqueraded packet (docs/design.md, section 3). */
const MARKER = 0x8000;
const MARKER6 = 0x80000;
const WIRE_TTL = 64;

/** How a packet of the flow crossed the underlay; undefined: it is not of this flow. */
export function wirePath(packet: Packet, flow: WireFlow): WirePath | undefined {
  const { inner } = packet;
  if (inner !== undefined) return isBetween(inner, flow, 'pod') ? 'encapsulated' : undefined;
  if (!isBetween(packet, flow, 'node')) return undefined;
  return isMasqueraded(packet) ? 'masqueraded' : 'unmarked';
}

function isMasqueraded({ ip, ip6 }: Packet): boolean {
  if (ip !== undefined) return ip.df && ip.ttl === WIRE_TTL && (ip.id & MARKER) !== 0;
  return ip6?.hopLimit === WIRE_TTL && (ip6.flowLabel & MARKER6) !== 0;
}

/** Counts the packets of some flows in a capture of the underlay. */
export function countWire(packets: Iterable<Packet>, flows: readonly WireFlow[]): WireCount {
  const count = { masqueraded: 0, encapsulated: 0, unmarked: 0 };
  for (const packet of packets) {
    for (const flow of flows) {
      const path = wirePath(packet, flow);
      if (path !== undefined) count[path] += 1;
    }
  }
  return count;
}

function isBetween(packet: Packet, { proto, client, server }: WireFlow, where: 'pod' | 'node'): boolean {
  const ip = network(packet);
  const { l4 } = packet;
  if (ip?.proto !== proto || l4 === undefined) return false;
  const is = (from: End, to: End): boolean =>
    ip.src === from[where].address && ip.dst === to[where].address && l4.sport === from.port && l4.dport === to.port;
  return is(client, server) || is(server, client);
}
