/** Ethernet frames built by hand, for `raw send`: what no socket would send. */
import { IPPROTO, internetChecksum } from '../../lab/packet.ts';

/** An IPv4 packet with UDP inside. Addresses and MACs as text. */
export interface UdpFrame {
  readonly srcMac: string;
  readonly dstMac: string;
  readonly src: string;
  readonly dst: string;
  readonly sport: number;
  readonly dport: number;
  readonly payload: Buffer;
  /** Default 64. */
  readonly ttl?: number;
  /** Default 0. */
  readonly tos?: number;
  /** Default 0. */
  readonly id?: number;
  /** Default true. */
  readonly df?: boolean;
  /** False: UDP checksum 0, i.e. none. Default true. */
  readonly checksum?: boolean;
  /** IP options, a multiple of 4 bytes. Default none. */
  readonly options?: Buffer;
  /** 16-bit fragment field without DF: offset / 8 and MF (0x2000). Default 0. */
  readonly fragment?: number;
}

/** The frame's bytes. */
export function udpFrame(frame: UdpFrame): Buffer {
  const options = frame.options ?? Buffer.alloc(0);
  const udp = Buffer.alloc(8 + frame.payload.length);
  udp.writeUInt16BE(frame.sport, 0);
  udp.writeUInt16BE(frame.dport, 2);
  udp.writeUInt16BE(udp.length, 4);
  frame.payload.copy(udp, 8);

  const ip = Buffer.alloc(20 + options.length);
  ip.writeUInt8(0x40 | (ip.length / 4), 0);
  ip.writeUInt8(frame.tos ?? 0, 1);
  ip.writeUInt16BE(ip.length + udp.length, 2);
  ip.writeUInt16BE(frame.id ?? 0, 4);
  ip.writeUInt16BE(((frame.df ?? true) ? 0x4000 : 0) | (frame.fragment ?? 0), 6);
  ip.writeUInt8(frame.ttl ?? 64, 8);
  ip.writeUInt8(IPPROTO.udp, 9);
  addressBytes(frame.src).copy(ip, 12);
  addressBytes(frame.dst).copy(ip, 16);
  options.copy(ip, 20);
  ip.writeUInt16BE(internetChecksum(ip), 10);

  if (frame.checksum ?? true) {
    const pseudo = Buffer.concat([
      ip.subarray(12, 20),
      Buffer.from([0, IPPROTO.udp, udp.length >> 8, udp.length & 255]),
    ]);
    // An odd payload is padded behind, so the pseudo header goes in front.
    udp.writeUInt16BE(internetChecksum(Buffer.concat([pseudo, udp])) || 0xffff, 6);
  }
  const ether = Buffer.concat([macBytes(frame.dstMac), macBytes(frame.srcMac), Buffer.from([0x08, 0x00])]);
  return Buffer.concat([ether, ip, udp]);
}

/** Standard input for `raw send`. */
export function rawInput(frames: readonly Buffer[]): string {
  return frames.map((frame) => `${frame.toString('hex')}\n`).join('');
}

function addressBytes(text: string): Buffer {
  return Buffer.from(text.split('.').map(Number));
}

function macBytes(text: string): Buffer {
  return Buffer.from(text.replaceAll(':', ''), 'hex');
}
