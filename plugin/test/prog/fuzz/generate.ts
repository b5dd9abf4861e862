/** Broken packets: random bytes, and valid packets with lies in them. */
import {
  EXCLUDED_POD,
  GATEWAY_MAC,
  NODE,
  PEER,
  PEER2,
  PEER_GATEWAY,
  PEER_GATEWAY6,
  PLAIN_NODE,
  POD,
  POD2,
} from '../harness.ts';
import { addressBytes, macBytes, Proto } from '../packets.ts';
import type { Random } from './random.ts';

const PROTOS = [...Object.values(Proto), 0, 253, 255];
const PORTS = [0, 53, 80, 500, 4500, 4789, 6081, 8080, 40000, 40001, 51820, 65535];
const ADDRESSES = [
  ...[NODE, PEER, PEER2, PLAIN_NODE, POD, POD2, EXCLUDED_POD].map(({ addr }) => addr),
  ...[PEER.pod, PEER2.pod, PLAIN_NODE.pod, PEER_GATEWAY, '192.0.2.99', '203.0.113.1', '127.0.0.1', '0.0.0.0'],
].map(addressBytes);
const ADDRESSES6 = [
  ...[NODE, PEER, PEER2, PLAIN_NODE, POD, POD2, EXCLUDED_POD].map(({ addr6 }) => addr6),
  ...[PEER.pod6, PLAIN_NODE.pod6, PEER_GATEWAY6, '2001:db8::99', '::1', '::', 'ff02::1', '::ffff:192.0.2.2'],
].map(addressBytes);
const MACS = [NODE.mac, PEER.mac, POD.mac, POD2.mac, GATEWAY_MAC, 'ff:ff:ff:ff:ff:ff', '01:00:5e:00:00:01'].map(
  macBytes,
);
const ETHER_TYPES = [0x0800, 0x86dd, 0x8100, 0x88a8, 0x0806, 0x0000, 0x0034];

/** One way to break a frame; returns its new length. */
type Breakage = (random: Random, bytes: Buffer, length: number) => number;

/** Changes one field in place. */
function field(change: (random: Random, bytes: Buffer, length: number) => unknown): Breakage {
  return (random, bytes, length) => {
    change(random, bytes, length);
    return length;
  };
}

/** Every breakage works on any frame of at least 60 bytes of buffer, whatever it holds. */
const BREAKAGES: readonly Breakage[] = [
  field((r, b, length) => {
    const at = r.below(Math.min(length, 70));
    b[at] = (b[at] ?? 0) ^ (1 << r.below(8));
  }),
  field((r, b, length) => (b[r.below(length)] = r.u32())),
  field((r, b) => b.writeUInt16BE(r.u32() & 0xffff, 18)),
  field((r, b) => b.writeUInt16BE(b.readUInt16BE(18) ^ (1 << r.below(16)), 18)),
  field((r, b) => b.writeUInt16BE(r.pick([0xffff, 0x8000, 0x7fff, 0x7ff0, 0xfff0, 0]), 18)),
  field((r, b) => b.writeUInt16BE(r.pick([0x4000, 0, 0x2000, 0x6000, 0x8000, 0xc000, 0x4001, 0x1fff, 0x00b9]), 20)),
  field((r, b) => (b[22] = r.pick([0, 1, 2, 63, 64, 128, 255]))),
  field((r, b) => (b[15] = r.u32())),
  field((r, b) => (b[15] = (b[15] ?? 0) ^ r.below(4))),
  field((r, b) => b.writeUInt16BE(r.u32() & 0xffff, 16)),
  field((r, b) => b.writeUInt16BE((b.readUInt16BE(16) + r.below(9) - 4) & 0xffff, 16)),
  field((r, b) => (b[23] = r.pick(PROTOS))),
  field((r, b) => (b[14] = r.pick([0x46, 0x4f, 0x44, 0x40, 0x65, 0x05, 0x55]))),
  field((r, b) => b.writeUInt16BE(r.pick(PORTS), 34)),
  field((r, b) => b.writeUInt16BE(r.pick(PORTS), 36)),
  field((r, b) => (b[47] = r.u32())),
  field((r, b) => (b[47] = r.pick([0x01, 0x02, 0x04, 0x10, 0x11, 0x12, 0x14, 0x18]))),
  field((r, b) => (b[46] = r.u32())),
  field((r, b) => (b[34] = r.pick([0, 8, 3, 11, 13]))),
  field((r, b) => b.writeUInt16BE(r.u32() & 0xffff, 48)),
  field((r, b) => r.pick(ADDRESSES).copy(b, 26)),
  field((r, b) => r.pick(ADDRESSES).copy(b, 30)),
  field((r, b) => r.pick(MACS).copy(b, 0)),
  field((r, b) => r.pick(MACS).copy(b, 6)),
  field((r, b) => b.writeUInt16BE(r.pick(ETHER_TYPES), 12)),
  field((r, b) => b.writeUInt16BE(0, r.pick([40, 50]))),
  // The same in IPv6, where other fields are.
  field((r, b) => r.pick(ADDRESSES6).copy(b, 22)),
  field((r, b) => r.pick(ADDRESSES6).copy(b, 38)),
  field((r, b) => b.writeUInt16BE(r.u32() & 0xffff, 16)),
  field((r, b) => (b[15] = r.u32())),
  field((r, b) => (b[14] = r.pick([0x60, 0x61, 0x66, 0x50, 0x40]))),
  field((r, b) => b.writeUInt16BE((b.readUInt16BE(18) + r.below(9) - 4) & 0xffff, 18)),
  field((r, b) => (b[20] = r.pick(PROTOS))),
  field((r, b) => (b[21] = r.pick([0, 1, 2, 63, 64, 128, 255]))),
  field((r, b) => b.writeUInt16BE(r.pick(PORTS), 54)),
  field((r, b) => b.writeUInt16BE(r.pick(PORTS), 56)),
  field((r, b) => (b[54] = r.pick([128, 129, 1, 2, 133, 135, 136]))),
  field((r, b) => (b[66] = r.u32())),
  field((r, b) => (b[67] = r.pick([0x01, 0x02, 0x04, 0x10, 0x11, 0x12, 0x14, 0x18]))),
  // In a tunnel.
  field((r, b, length) => (b[42 + r.below(Math.max(1, Math.min(length - 42, 64)))] = r.u32())),
  // Cut, with and without saying so.
  (r, _bytes, length) => 14 + r.below(length - 13),
  (r, b, length) => {
    const cut = 34 + r.below(Math.max(1, length - 33));
    b.writeUInt16BE(cut - 14, 16);
    return cut;
  },
  // Longer, with and without saying so.
  (r, b, length) => {
    const longer = length + 1 + r.below(40);
    r.fill(b, length, longer);
    return longer;
  },
  (r, b, length) => {
    const longer = length + 1 + r.below(r.pick([40, 1500, 3000]));
    r.fill(b, length, Math.min(longer, length + 64));
    b.writeUInt16BE(longer - 14, 16);
    return longer;
  },
  // What looks like a control message, in the first or a later segment.
  field((r, b, length) => {
    b[23] = Proto.udp;
    b.writeUInt16BE(4789, 36);
    b[42 + (r.chance(70) ? 0 : r.below(Math.max(1, length - 42)))] = 0xc1;
    if (r.chance(80)) r.pick(ADDRESSES.slice(0, 3)).copy(b, 30);
    if (r.chance(20)) b.writeUInt16BE(53, 34);
  }),
  // VLAN tags, one or many.
  (r, b, length) => {
    const tags = r.pick([1, 1, 2, 7, 8, 9]);
    b.copyWithin(12 + 4 * tags, 12, length);
    for (let tag = 0; tag < tags; tag++) b.writeUInt32BE((r.pick([0x8100, 0x88a8]) << 16) >>> 0, 12 + 4 * tag);
    return length + 4 * tags;
  },
  // Everything behind the header is noise.
  field((r, b, length) => r.fill(b, 34, length)),
];

/**
 * Puts a frame into `bytes` and, mostly, breaks it.
 * @param base a valid frame
 * @param max longest frame that the kernel takes
 * @returns its length, at least 14
 */
export function generate(random: Random, bytes: Buffer, base: Buffer, max: number): number {
  if (random.chance(8)) {
    const length = 14 + random.below(random.chance(20) ? max - 13 : 80);
    random.fill(bytes, 0, length);
    if (random.chance(80)) bytes.writeUInt16BE(0x0800, 12);
    if (random.chance(60) && length > 14) bytes[14] = 0x45;
    return length;
  }
  base.copy(bytes);
  let length = base.length;
  // A third stays as it is but for the payload: the deep paths are reached all the time.
  const breakages = random.chance(33) ? 0 : 1 + random.below(3);
  for (let i = 0; i < breakages; i++) length = Math.min(max, random.pick(BREAKAGES)(random, bytes, length));
  return length;
}
