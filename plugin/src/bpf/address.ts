/** struct xmasq_addr of bpf-src/xmasq.h: an address of either family, text here, 16 bytes in the maps. */
import { isIPv4 } from 'node:net';
import { formatIpv6, parseIpv6 } from '../netlink/ip.ts';
import { makeCodec, type Codec } from './codec.ts';

/** Bytes of struct xmasq_addr. */
export const ADDRESS_BYTES = 16;
/** What an address is that nobody has set. */
export const NO_ADDRESS = '';

/** The first 12 bytes of IPv4 addresses (RFC 4291 2.5.5.2). */
const MAPPED = Buffer.from('00000000000000000000ffff', 'hex');

/**
 * Writes an address as the programs have it.
 * @param field "struct.field" for the message
 * @throws RangeError for what is no address
 */
export function writeAddress(to: Buffer, at: number, field: string, value: string): void {
  if (value === NO_ADDRESS) {
    to.fill(0, at, at + ADDRESS_BYTES);
  } else if (isIPv4(value)) {
    MAPPED.copy(to, at);
    value.split('.').forEach((part, index) => to.writeUInt8(Number(part), at + 12 + index));
  } else {
    try {
      to.set(parseIpv6(value), at);
    } catch {
      throw new RangeError(`${field}: "${value}" is not an IP address`);
    }
  }
}

/** Reads an address; IPv6 as RFC 5952 recommends, so that equal addresses are equal texts. */
export function readAddress(from: Buffer, at: number): string {
  if (from.compare(MAPPED, 0, MAPPED.length, at, at + MAPPED.length) === 0) {
    return `${from.readUInt8(at + 12)}.${from.readUInt8(at + 13)}.${from.readUInt8(at + 14)}.${from.readUInt8(at + 15)}`;
  }
  const bytes = from.subarray(at, at + ADDRESS_BYTES);
  return bytes.every((byte) => byte === 0) ? NO_ADDRESS : formatIpv6(bytes);
}

/** A key or value that is one address. */
export const addressCodec: Codec<string> = makeCodec<string>(
  'address',
  ADDRESS_BYTES,
  (to, at, value) => writeAddress(to, at, 'address', value),
  readAddress,
);
