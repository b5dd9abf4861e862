/** How packets of pods crossed the underlay, of both families: masqueraded, in the tunnel, or as they are. */
import { addressOf, familyOf } from '../../lab/lab.ts';
import type { Pod } from '../../lab/lab.ts';
import { network } from '../../lab/packet.ts';
import type { Packet } from '../../lab/packet.ts';
import type { CapturedPacket, CaptureResult } from '../../lab/pcap.ts';
import { protocolNumber } from './delivery.ts';
import { MARKER, MARKER6 } from './wire.ts';
import type { WireFlow } from './wire.ts';

/** A packet of a flow on the underlay. */
export interface Carriage {
  readonly how: 'masqueraded' | 'tunnel' | 'plain';
  /** True: from client to server. */
  readonly forward: boolean;
  readonly time: number;
  /** What crossed. */
  readonly frame: CapturedPacket;
  /** The pod's packet: inside the tunnel, or what crossed. */
  readonly packet: Packet;
}

/** The packets of the flow among what was captured on an uplink, in their order. */
export function carriages(capture: CaptureResult, flow: WireFlow): Carriage[] {
  return capture.packets.flatMap((frame) => carriage(frame, flow) ?? []);
}

function carriage(frame: CapturedPacket, flow: WireFlow): Carriage | undefined {
  const packet = frame.inner ?? frame;
  for (const forward of [true, false]) {
    const [from, to] = forward ? [flow.from, flow.to] : [flow.to, flow.from];
    const { time } = frame;
    if (!isOf(flow, packet, forward)) continue;
    if (isBetween(packet, from, to, flow)) {
      return { how: frame.inner === undefined ? 'plain' : 'tunnel', forward, time, frame, packet };
    }
    if (frame.inner === undefined && isMasqueraded(frame, from, to, flow)) {
      return { how: 'masqueraded', forward, time, frame, packet };
    }
  }
  return undefined;
}

function isBetween(packet: Packet, from: Pick<Pod, Named>, to: Pick<Pod, Named>, flow: WireFlow): boolean {
  const { family = 'ipv4' } = flow;
  const ip = network(packet);
  return ip?.src === addressOf(from, family) && ip.dst === addressOf(to, family);
}

type Named = 'name' | 'address' | 'address6';

function isMasqueraded(packet: Packet, from: Pod, to: Pod, flow: WireFlow): boolean {
  const marked = ((packet.ip?.id ?? 0) & MARKER) !== 0 || ((packet.ip6?.flowLabel ?? 0) & MARKER6) !== 0;
  const { family = 'ipv4' } = flow;
  const has = ({ address, address6 }: Pod['node']): boolean =>
    family === 'ipv6' ? address6 !== undefined : familyOf(address) === 'ipv4';
  return marked && has(from.node) && has(to.node) && isBetween(packet, from.node, to.node, flow);
}

const ECHO = { ipv4: { request: 8, reply: 0 }, ipv6: { request: 128, reply: 129 } } as const;

function isOf(flow: WireFlow, packet: Packet, forward: boolean): boolean {
  const { l4 } = packet;
  const { family = 'ipv4', proto, port, sport } = flow;
  if (l4 === undefined || network(packet)?.proto !== protocolNumber(proto, family)) return false;
  const [server, client] = forward ? [l4.dport, l4.sport] : [l4.sport, l4.dport];
  if (proto === 'icmp') return server === port && l4.icmpType === ECHO[family][forward ? 'request' : 'reply'];
  return server === port && (sport === undefined || client === sport);
}
