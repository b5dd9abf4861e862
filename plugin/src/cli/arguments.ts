/** From words of the command line to values; every failure is a usage error that says what is allowed. */
import { InvalidArgumentError } from 'commander';
import { REASONS, reasonCode } from '../grpc/reasons.ts';
import { protocolNumber } from './text.ts';

/** Seconds, fractions allowed. */
export function secondsArgument(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!/^[0-9]+(\.[0-9]+)?$/.test(text) || value < min || value > max) {
      throw new InvalidArgumentError(`Expected seconds, from ${min} to ${max}.`);
    }
    return value;
  };
}

/** An integer. */
export function integerArgument(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!/^[0-9]{1,10}$/.test(text) || value < min || value > max) {
      throw new InvalidArgumentError(`Expected a whole number from ${min} to ${max}.`);
    }
    return value;
  };
}

export function protocolArgument(text: string): number {
  const protocol = protocolNumber(text);
  if (protocol === undefined)
    throw new InvalidArgumentError('Expected tcp, udp, icmp, sctp, ... or a number from 0 to 255.');
  return protocol;
}

export function reasonArgument(text: string): number {
  const code = reasonCode(text);
  if (code === undefined) {
    throw new InvalidArgumentError(`Expected one of ${REASONS.map(({ name }) => name).join(', ')}.`);
  }
  return code;
}

/** A pod as the command line names it. */
export interface PodArgument {
  /** Undefined: not given. */
  readonly namespace: string | undefined;
  readonly name: string;
}

/** `name` or `namespace/name`. */
export function podArgument(text: string): PodArgument {
  const match = /^(?:([^/\s]+)\/)?([^/\s]+)$/.exec(text);
  const name = match?.[2];
  if (name === undefined) throw new InvalidArgumentError('Expected a pod as name or namespace/name.');
  return { namespace: match?.[1], name };
}
