/** IP addresses between their numeric and text forms. In this program they are canonical text, but on the wire. */
import { isIP, isIPv4, isIPv6 } from 'node:net';
import ipaddr from 'ipaddr.js';

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
  const groups: number[] = [];
  for (let i = 0; i < 16; i += 2) groups.push(((address[i] ?? 0) << 8) | (address[i + 1] ?? 0));
  const text = groups.map((group) => group.toString(16));
  const [start, length] = longestZeroRun(groups);
  if (length === 0) return text.join(':');
  return `${text.slice(0, start).join(':')}::${text.slice(start + length).join(':')}`;
}

/**
 * Parses an IPv6 address, without a zone, to its 16 bytes.
 * @throws RangeError for anything else
 */
export function parseIpv6(text: string): Uint8Array {
  if (!isIPv6(text) || text.includes('%')) throw new RangeError(`"${text}" is not an IPv6 address`);
  return Uint8Array.from(ipaddr.IPv6.parse(text).toByteArray());
}

/** An IP prefix without host bits. */
export interface Cidr {
  readonly family: 4 | 6;
  /** The lowest address, canonical text. */
  readonly address: string;
  /** 0 to 32 or 128. */
  readonly bits: number;
}

/** Parses "10.1.2.0/24" or "fd00:1::/64", dropping host bits; undefined for anything else, short forms included. */
export function parseCidr(text: string): Cidr | undefined {
  const [address = '', bits = '', more] = text.split('/');
  const family = familyOf(address);
  if (family === undefined || address.includes('%') || more !== undefined) return undefined;
  if (!/^(0|[1-9]\d{0,2})$/.test(bits) || Number(bits) > (family === 4 ? 32 : 128)) return undefined;
  const lowest = (family === 4 ? ipaddr.IPv4 : ipaddr.IPv6).networkAddressFromCIDR(text);
  return { family, address: canonicalAddress(lowest.toString()), bits: Number(bits) };
}

/** CIDR notation of a prefix. */
export function formatCidr({ address, bits }: Pick<Cidr, 'address' | 'bits'>): string {
  return `${address}/${bits}`;
}

/** The family of an address in text form: 4 or 6; undefined for anything else. */
export function familyOf(text: string): 4 | 6 | undefined {
  const family = isIP(text);
  return family === 4 || family === 6 ? family : undefined;
}

/** The first address of that family. */
export function addressOfFamily(addresses: readonly string[], family: 4 | 6): string | undefined {
  return addresses.find((address) => familyOf(address) === family);
}

/**
 * An address in the form that equal addresses share: IPv6 as RFC 5952 recommends.
 * @throws RangeError for what is no address
 */
export function canonicalAddress(text: string): string {
  return isIPv4(text) ? text : formatIpv6(parseIpv6(text));
}
