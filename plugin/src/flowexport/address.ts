import { formatIpv4, formatIpv6 } from '../netlink/ip.ts';
import { nestedEnd, type Reader } from './protobuf.ts';
import type { Address } from './record.ts';

/**
 * An address as protobuf carries it, a length and 4 or 16 bytes, read where they are: to make a view of them takes longer
 * than to make the text.
 * @param end of the message it is a field of
 * @returns undefined for no bytes, which is how an address is not set
 * @throws RangeError for another number of bytes, or where they leave the message
 */
export function readAddress(reader: Reader, end: number): Address | undefined {
  const next = nestedEnd(reader, end);
  const from = reader.pos;
  reader.pos = next;
  const buffer = reader.buf as Buffer;
  switch (next - from) {
    case 0:
      return undefined;
    case 4:
      return formatIpv4(buffer.readUInt32BE(from));
    case 16:
      return formatIpv6(buffer.subarray(from, next));
    default:
      throw new RangeError(`an address of ${next - from} bytes`);
  }
}
