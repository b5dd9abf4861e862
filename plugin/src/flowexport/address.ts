import { formatIpv4, formatIpv6 } from '../netlink/ip.ts';
import type { Address } from './record.ts';

/**
 * An address as protobuf carries it: 4 or 16 bytes.
 * @throws RangeError for another number of bytes
 */
export function decodeAddress(bytes: Uint8Array): Address {
  if (bytes.length === 4) return formatIpv4(Buffer.from(bytes.buffer, bytes.byteOffset, 4).readUInt32BE(0));
  if (bytes.length === 16) return formatIpv6(bytes);
  throw new RangeError(`an address of ${bytes.length} bytes`);
}
