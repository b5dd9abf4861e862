/** Transport addresses and pod CIDRs: which ones a node can have, and which of them overlap. */
import ipaddr from 'ipaddr.js';
import { canonicalAddress, familyOf, formatCidr, parseCidr } from '../netlink/ip.ts';

/** Shortest prefix that a pod CIDR can have. */
const MIN_BITS = 8;

/** Addresses from `first` to `last`; IPv4 ones count as ::ffff:a.b.c.d, so that both families are in one order. */
export interface AddressRange {
  readonly first: bigint;
  readonly last: bigint;
}

/** A transport address in its canonical form; undefined: none that a node can have. */
export function transportAddress(text: string): string | undefined {
  const family = familyOf(text);
  if (family === undefined || text.includes('%')) return undefined;
  if (family === 4) {
    const first = Number.parseInt(text, 10);
    return first === 0 || first === 127 || first >= 224 ? undefined : text;
  }
  const address = canonicalAddress(text);
  const range = ipaddr.IPv6.parse(address).range();
  return ['unspecified', 'loopback', 'multicast', 'linkLocal', 'ipv4Mapped'].includes(range) ? undefined : address;
}

/** A pod CIDR in its canonical form, host bits dropped; undefined: none, or shorter than /8. */
export function podCidr(text: string): string | undefined {
  const cidr = parseCidr(text);
  return cidr === undefined || cidr.bits < MIN_BITS ? undefined : formatCidr(cidr);
}

/** The first of each family, IPv4 before IPv6. */
export function oneOfEach(texts: readonly string[]): string[] {
  return ([4, 6] as const).flatMap(
    (family) => texts.find((text) => familyOf(text.split('/')[0] ?? '') === family) ?? [],
  );
}

/**
 * The addresses that an address or prefix stands for.
 * @throws RangeError for what is neither
 */
export function rangeOf(text: string): AddressRange {
  const prefix = text.includes('/') ? text : `${text}/${familyOf(text) === 4 ? 32 : 128}`;
  const cidr = parseCidr(prefix);
  if (cidr === undefined) throw new RangeError(`"${text}" is neither an IP address nor a prefix`);
  const address = ipaddr.parse(cidr.address);
  const mapped = address.kind() === 'ipv4' ? (address as ipaddr.IPv4).toIPv4MappedAddress() : address;
  const first = BigInt(`0x${Buffer.from(mapped.toByteArray()).toString('hex')}`);
  return { first, last: first + (1n << BigInt((cidr.family === 4 ? 32 : 128) - cidr.bits)) - 1n };
}
