/** IP addresses between their numeric and text forms. IPv4 addresses are host-order u32 numbers in this program. */
import { isIPv4 } from 'node:net';

/**
 * Parses a dotted IPv4 address to a host-order u32.
 * @throws RangeError for anything else, octal and short forms included
 */
export function parseIpv4(text: string): number {
  if (!isIPv4(text)) throw new RangeError(`"${text}" is not an IPv4 address`);
  return text.split('.').reduce((value, part) => value * 256 + Number(part), 0);
}

/** Formats a host-order u32 as a dotted IPv4 address. */
export function formatIpv4(address: number): string {
  return `${address >>> 24}.${(address >>> 16) & 255}.${(address >>> 8) & 255}.${address & 255}`;
}

/** Finds the first longest run of at least two zero groups: [start, length]. */
function longestZeroRun(groups: readonly number[]): [number, number] {
  let best: [number, number] = [0, 0];
  let start = 0;
  groups.forEach((group, index) => {
    if (group !== 0) start = index + 1;
    else if (index + 1 - start > best[1]) best = [start, index + 1 - start];
  });
  return best[1] >= 2 ? best : [0, 0];
}

/**
 * Formats 16 bytes as an IPv6 address as RFC 5952 recommends (IPv4-mapped addresses in hexadecimal too).
 * @throws RangeError when there are not 16 bytes
 */
export function formatIpv6(address: Uint8Array): string {
  if (address.length !== 16) throw new RangeError(`an IPv6 address has 16 bytes, not ${address.length}`);
  const bytes = Buffer.from(address);
  const groups = Array.from({ length: 8 }, (_, index) => bytes.readUInt16BE(index * 2));
  const text = groups.map((group) => group.toString(16));
  const [start, length] = longestZeroRun(groups);
  if (length === 0) return text.join(':');
  return `${text.slice(0, start).join(':')}::${text.slice(start + length).join(':')}`;
}
