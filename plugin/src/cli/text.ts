/** How values look in tables. */
import { joinHostPort } from '../util/host-port.ts';

const UNITS = ['', 'k', 'M', 'G', 'T', 'P', 'E'];

/** A count or byte count in decimal units with about three digits: 999, 1.5k, 26.0M. */
export function compact(value: number): string {
  let scaled = value;
  let unit = 0;
  while (scaled >= 999.5 && unit < UNITS.length - 1) {
    scaled /= 1000;
    unit++;
  }
  const digits = unit === 0 || scaled >= 99.95 ? 0 : 1;
  return `${scaled.toFixed(digits)}${UNITS[unit] ?? ''}`;
}

/** A duration in its two largest units: 15ms, 3.2s, 1m1s, 2h5m, 3d4h. */
export function duration(ms: number): string {
  if (ms < 1000) return `${ms}ms`;
  if (ms < 60_000) return `${(Math.floor(ms / 100) / 10).toFixed(1)}s`;
  const seconds = Math.floor(ms / 1000);
  const pairs: [number, string, number, string][] = [
    [86_400, 'd', 3600, 'h'],
    [3600, 'h', 60, 'm'],
    [60, 'm', 1, 's'],
  ];
  for (const [large, largeUnit, small, smallUnit] of pairs) {
    if (seconds >= large) {
      return `${Math.floor(seconds / large)}${largeUnit}${Math.floor((seconds % large) / small)}${smallUnit}`;
    }
  }
  return `${seconds}s`;
}

/** Keeps what other programs named from writing escape sequences to the terminal. */
export function printable(text: string): string {
  return text.replace(/[\x00-\x1f\x7f-\x9f]/g, '?');
}

const PROTOCOLS: readonly (readonly [number, string])[] = [
  [1, 'icmp'],
  [6, 'tcp'],
  [17, 'udp'],
  [47, 'gre'],
  [58, 'icmpv6'],
  [132, 'sctp'],
];
/** Protocols that have a name here. */
export const PROTOCOL_NAMES: readonly string[] = PROTOCOLS.map(([, name]) => name);
const protocolNames = new Map(PROTOCOLS);
const protocolNumbers = new Map(PROTOCOLS.map(([number, name]) => [name, number]));

/** `tcp`, or the number if it has no name here. */
export function protocolName(protocol: number): string {
  return protocolNames.get(protocol) ?? String(protocol);
}

/** Number of a protocol given by name or number; undefined: neither. */
export function protocolNumber(text: string): number | undefined {
  const named = protocolNumbers.get(text.toLowerCase());
  if (named !== undefined) return named;
  return /^[0-9]{1,3}$/.test(text) && Number(text) <= 255 ? Number(text) : undefined;
}

/** `10.1.2.3:80`, `[fd00::1]:80`; without ports the address alone. */
export function addressAndPort(ip: string, port: number): string {
  return port === 0 ? ip : joinHostPort(ip, port);
}
