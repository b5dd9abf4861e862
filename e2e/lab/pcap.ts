/** Reads pcap files (Ethernet link type, as tcpdump -w writes them) and decodes each frame. */
import { LabError } from './errors.ts';
import { TUNNEL_PORTS, decodeFrame } from './packet.ts';
import type { Packet, TunnelPorts } from './packet.ts';

/** A decoded frame with its place in time. */
export interface CapturedPacket extends Packet {
  /** Seconds since the epoch. */
  readonly time: number;
  /** Length on the wire, bytes. */
  readonly wireLength: number;
  /** The captured bytes. */
  readonly bytes: Buffer;
}

/** The bytes of a tunnel packet: all headers before the inner frame, and that frame. Undefined if it is none. */
export function splitTunnel({
  bytes,
  innerOffset,
}: Pick<CapturedPacket, 'bytes' | 'innerOffset'>): { readonly outer: Buffer; readonly inner: Buffer } | undefined {
  if (innerOffset === undefined) return undefined;
  return { outer: bytes.subarray(0, innerOffset), inner: bytes.subarray(innerOffset) };
}

/** Everything a capture saw. */
export interface CaptureResult {
  readonly packets: readonly CapturedPacket[];
  /** Packets the capture itself lost; anything but 0 makes counts unreliable. */
  readonly dropped: number;
}

/* Four magic numbers: microsecond and nanosecond stamps, as seen by a little-endian reader and byte-swapped. */
const MICRO = 0xa1b2c3d4;
const NANO = 0xa1b23c4d;
const LINKTYPE_ETHERNET = 1;
const FILE_HEADER = 24;
const RECORD_HEADER = 16;

/** Decodes a whole pcap file. A truncated last record (the writer was killed) is left out. */
export function readPcap(file: Buffer, ports: TunnelPorts = TUNNEL_PORTS): CapturedPacket[] {
  if (file.length === 0) return [];
  if (file.length < FILE_HEADER) throw new LabError(`not a pcap file: ${file.length} bytes only`);
  const little = [MICRO, NANO].includes(file.readUInt32LE(0));
  const u32 = (offset: number): number => (little ? file.readUInt32LE(offset) : file.readUInt32BE(offset));
  const magic = u32(0);
  if (magic !== MICRO && magic !== NANO) throw new LabError(`not a pcap file: magic 0x${magic.toString(16)}`);
  const linkType = u32(20);
  if (linkType !== LINKTYPE_ETHERNET) throw new LabError(`pcap link type ${linkType}: only Ethernet (1) is read`);
  const fraction = magic === NANO ? 1e-9 : 1e-6;

  const packets: CapturedPacket[] = [];
  let offset = FILE_HEADER;
  while (offset + RECORD_HEADER <= file.length) {
    const captured = u32(offset + 8);
    const start = offset + RECORD_HEADER;
    if (start + captured > file.length) break;
    const bytes = file.subarray(start, start + captured);
    packets.push({
      ...decodeFrame(bytes, ports),
      time: u32(offset) + u32(offset + 4) * fraction,
      wireLength: u32(offset + 12),
      bytes,
    });
    offset = start + captured;
  }
  return packets;
}
