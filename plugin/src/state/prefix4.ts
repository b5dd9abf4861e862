import { isIPv4 } from 'node:net';

/** An IPv4 prefix; `first` and `last` are its lowest and highest address as unsigned numbers. */
export interface Prefix4 {
  readonly first: number;
  readonly last: number;
  /** 0 to 32. */
  readonly length: number;
}

/** An IPv4 address as an unsigned number; undefined: not one. */
export function parseAddress4(text: string): number | undefined {
  if (!isIPv4(text)) return undefined;
  return text.split('.').reduce((value, part) => value * 256 + Number(part), 0);
}

/** Dotted notation. */
export function formatAddress4(value: number): string {
  return [24, 16, 8, 0].map((shift) => (value >>> shift) & 255).join('.');
}

/** A prefix in CIDR notation, host bits ignored; undefined: not one. */
export function parsePrefix4(text: string): Prefix4 | undefined {
  const match = /^([0-9.]+)\/(0|[1-9][0-9]?)$/.exec(text);
  const address = parseAddress4(match?.[1] ?? '');
  const length = Number(match?.[2]);
  if (address === undefined || !(length <= 32)) return undefined;
  const size = 2 ** (32 - length);
  const first = Math.floor(address / size) * size;
  return { first, last: first + size - 1, length };
}

/** CIDR notation of the prefix itself, no host bits. */
export function formatPrefix4({ first, length }: Prefix4): string {
  return `${formatAddress4(first)}/${length}`;
}
