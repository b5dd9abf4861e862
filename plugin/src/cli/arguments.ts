/** From words of the command line to values; every failure is a usage error that says what is allowed. */
import { SocketAddress, isIP } from 'node:net';
import { InvalidArgumentError } from 'commander';
import { REASONS, reasonCode } from '../grpc/reasons.ts';
import { PROTOCOL_NAMES, protocolNumber } from './text.ts';

/** What a word may be: one source for errors, docs/cli.md and completion. */
export interface Allowed {
  /** For people, e.g. `seconds, from 0.1 to 3600`. */
  readonly text: string;
  /** The words to choose from, or those worth offering; undefined: there is no list. */
  readonly words?: readonly string[];
}

/** Turns a word into a value. @throws InvalidArgumentError with what is allowed */
export interface ArgumentParser<T> {
  (text: string): T;
  readonly allowed: Allowed;
}

/** @param parse undefined: not allowed; @param expected for the error, where `allowed.text` does not say it all */
function parser<T>(
  allowed: Allowed,
  parse: (text: string) => T | undefined,
  expected = allowed.text,
): ArgumentParser<T> {
  const parseOrThrow = (text: string): T => {
    const value = parse(text);
    if (value === undefined) throw new InvalidArgumentError(`Expected ${expected}.`);
    return value;
  };
  return Object.assign(parseOrThrow, { allowed });
}

/** What the parser of an option or argument says that it takes; undefined: it has none of ours. */
export function allowedBy(parse: unknown): Allowed | undefined {
  return typeof parse === 'function' && 'allowed' in parse ? (parse as ArgumentParser<unknown>).allowed : undefined;
}

/** Seconds, fractions allowed. */
export function secondsArgument(min: number, max: number): ArgumentParser<number> {
  return parser({ text: `seconds, from ${min} to ${max}` }, (text) => {
    const value = Number(text);
    return /^[0-9]+(\.[0-9]+)?$/.test(text) && value >= min && value <= max ? value : undefined;
  });
}

/** An integer. */
export function integerArgument(min: number, max: number): ArgumentParser<number> {
  return parser({ text: `a whole number from ${min} to ${max}` }, (text) => {
    const value = Number(text);
    return /^[0-9]{1,10}$/.test(text) && value >= min && value <= max ? value : undefined;
  });
}

/** A protocol by its name or number. */
export const protocolArgument: ArgumentParser<number> = parser(
  { text: `${PROTOCOL_NAMES.join(', ')}, or a number from 0 to 255`, words: PROTOCOL_NAMES },
  protocolNumber,
);

const REASON_NAMES = REASONS.map(({ name }) => name);

/** A reason by its name. */
export const reasonArgument: ArgumentParser<number> = parser(
  { text: 'the name of a reason', words: REASON_NAMES },
  reasonCode,
  `one of ${REASON_NAMES.join(', ')}`,
);

/** A pod as the command line names it. */
export interface PodArgument {
  /** Undefined: not given. */
  readonly namespace: string | undefined;
  readonly name: string;
}

function toPod(text: string): PodArgument | undefined {
  const match = /^(?:([^/\s]+)\/)?([^/\s]+)$/.exec(text);
  const name = match?.[2];
  return name === undefined ? undefined : { namespace: match?.[1], name };
}

/** `name` or `namespace/name`. */
export const podArgument: ArgumentParser<PodArgument> = parser({ text: 'a pod as name or namespace/name' }, toPod);

/** `namespace/name`. */
export const onePodArgument: ArgumentParser<PodArgument & { readonly namespace: string }> = parser(
  { text: 'a pod as namespace/name' },
  (text) => {
    const { namespace, name } = toPod(text) ?? {};
    return namespace === undefined || name === undefined ? undefined : { namespace, name };
  },
);
/** One end of a flow as the command line names it. */
export interface EndArgument {
  readonly ip: string;
  /** Undefined: any. */
  readonly port: number | undefined;
}

/** An address, with a port if need be, as `xmasq flows` prints it: `10.1.2.3:80`, `fd00::1`, `[fd00::1]:80`. */
export const endArgument: ArgumentParser<EndArgument> = parser(
  { text: 'address or address:port, IPv6 with a port as [address]:port' },
  (text) => {
    const [, bracketed, plain, portText] = /^(?:\[([^\]]*)\]|([0-9.]*))(?::([0-9]{1,5}))?$/.exec(text) ?? [];
    const ip = isIP(text) === 6 ? text : (bracketed ?? plain ?? '');
    const port = isIP(text) === 6 || portText === undefined ? undefined : Number(portText);
    if (isIP(ip) === 0 || (bracketed !== undefined && isIP(ip) !== 6)) return undefined;
    if (port !== undefined && (port < 1 || port > 65535)) return undefined;
    return { ip: isIP(ip) === 6 ? new SocketAddress({ address: ip, family: 'ipv6' }).address : ip, port };
  },
);
