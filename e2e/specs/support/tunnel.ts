/** The header in front of what is in the tunnel, and what the slow path's own device makes of the same inner frames. */
import { LabError } from '../../lab/lab.ts';
import type { Node } from '../../lab/lab.ts';
import type { CapturedPacket } from '../../lab/pcap.ts';

const ETHER_HEADER = 14;
const IPV4_HEADER = 20;
const IPV6_HEADER = 40;

/** The inner Ethernet frame, in hexadecimal. */
export function innerFrame({ bytes, innerOffset }: CapturedPacket): string {
  if (innerOffset === undefined) throw new LabError('not a packet of the tunnel');
  return bytes.subarray(innerOffset).toString('hex');
}

/**
 * The whole frame in hexadecimal but for what may differ between two packets of the tunnel with the same in them: UDP source
 * port (and the UDP checksum, if there is one, which covers it), outer IPv4 ID (and the header checksum, likewise). Those
 * checksums are judged by the decoder.
 */
export function comparable(frame: CapturedPacket): string {
  const { ip, bytes } = frame;
  const copy = Buffer.from(bytes);
  const udp = ETHER_HEADER + (ip === undefined ? IPV6_HEADER : IPV4_HEADER);
  if (ip !== undefined) {
    copy.writeUInt16BE(0, ETHER_HEADER + 4);
    copy.writeUInt16BE(0, ETHER_HEADER + 10);
  }
  copy.writeUInt16BE(0, udp);
  if (copy.readUInt16BE(udp + 6) !== 0) copy.writeUInt16BE(1, udp + 6);
  return copy.toString('hex');
}

/** Outer and inner headers without lengths, checksums, IDs, ports and what is inside the inner IP header: of packets cut or not. */
export function headerKind(frame: CapturedPacket): string {
  const { innerOffset = 0 } = frame;
  const copy = Buffer.from(frame.bytes.subarray(0, innerOffset + ETHER_HEADER));
  const udp = ETHER_HEADER + (frame.ip === undefined ? IPV6_HEADER : IPV4_HEADER);
  if (frame.ip === undefined) {
    copy.writeUInt16BE(0, ETHER_HEADER + 4);
  } else {
    copy.writeUInt16BE(0, ETHER_HEADER + 2);
    copy.writeUInt16BE(0, ETHER_HEADER + 4);
    copy.writeUInt16BE(0, ETHER_HEADER + 10);
  }
  copy.writeUInt16BE(0, udp);
  copy.writeUInt16BE(0, udp + 4);
  return copy.toString('hex');
}

/**
 * Gives inner frames to the node's tunnel, which puts its header in front of them, and says what left by the uplink: inner
 * frame -> outer one. Each must fit into a packet.
 */
export async function tunnelled(
  node: Node,
  peer: Node,
  frames: readonly string[],
): Promise<ReadonlyMap<string, CapturedPacket>> {
  const wanted = new Set(frames);
  const capture = await node.capture({ direction: 'out', filter: `udp dst port ${node.tunnel.port}` });
  await node.sendInTunnel([...wanted], peer);
  const { packets, dropped } = await capture.stop();
  if (dropped > 0) throw new LabError(`the capture at ${node.name} lost ${dropped} packets`);
  const found = packets.filter((packet) => packet.inner !== undefined && wanted.has(innerFrame(packet)));
  return new Map(found.map((packet) => [innerFrame(packet), packet]));
}
