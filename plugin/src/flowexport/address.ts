import type { Address } from './record.ts';
import { formatIpv4, formatIpv6 } from '../netlink/ip.ts';

/**
 * An address as protobuf carries it: 4 or 16 bytes.
 * @throws RangeError for another number of bytes
 */
export function decodeAddress(bytes: Uint8Array): Address {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (buffer.length === 4) return buffer.readUInt32BE(0);
  if (buffer.length === 16) return buffer.toString('hex');
  throw new RangeError(`an address of ${buffer.length} bytes`);
}

/** For people. */
export function addressText(address: Address): string {
  return typeof address === 'number' ? formatIpv4(address) : formatIpv6(Buffer.from(address, 'hex'));
}
