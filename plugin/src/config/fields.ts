/** Building blocks for the schemas of files: every message says what is allowed, in the words of the documentation. */
import { isIPv4, isIPv6 } from 'node:net';
import { isAbsolute } from 'node:path';
import { z } from 'zod';

/** A mapping with exactly these keys. */
export function mapping<S extends z.core.$ZodLooseShape>(shape: S): z.ZodObject<S, z.core.$strict> {
  const keys = Object.keys(shape).join(', ');
  return z.strictObject(shape, {
    error: (issue) => (issue.code === 'unrecognized_keys' ? `known here: ${keys}` : `expected a mapping of ${keys}`),
  });
}

/** An integer within bounds. */
export function wholeNumber(min: number, max: number): z.ZodNumber {
  const error = `expected a whole number from ${min} to ${max}`;
  return z.int({ error }).min(min, { error }).max(max, { error });
}

/** Seconds, fractions allowed, within bounds. */
export function seconds(min: number, max: number): z.ZodNumber {
  const error = `expected seconds, from ${min} to ${max}`;
  return z.number({ error }).min(min, { error }).max(max, { error });
}

/** true or false. */
export function yesOrNo(): z.ZodBoolean {
  return z.boolean({ error: 'expected true or false' });
}

/** One of some words. */
export function oneOf<const T extends readonly [string, ...string[]]>(
  words: T,
): z.ZodEnum<z.core.util.ToEnum<T[number]>> {
  return z.enum(words, { error: `expected one of ${words.join(', ')}` });
}

/** Text that passes a test. */
export function text(expected: string, test: (value: string) => boolean): z.ZodString {
  const error = `expected ${expected}`;
  return z.string({ error }).refine(test, { error });
}

/** An absolute path without `..`. */
export function absolutePath(maxBytes: number): z.ZodString {
  return text(
    `an absolute path of at most ${maxBytes} bytes`,
    (value) => isAbsolute(value) && Buffer.byteLength(value) <= maxBytes && !/\0|(^|\/)\.\.(\/|$)/.test(value),
  );
}

/** A name as Kubernetes gives nodes: DNS subdomain of RFC 1123. */
export function nodeName(): z.ZodString {
  return text('a node name (lower-case letters, digits, -, .; up to 253)', (value) =>
    /^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$/.test(value),
  );
}

/** A namespace of Kubernetes: DNS label of RFC 1123. */
export function kubernetesNamespace(): z.ZodString {
  return text('a namespace (lower-case letters, digits, -; up to 63)', (value) =>
    /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/.test(value),
  );
}

/** A certificate, its key, and who may sign the other side's; all or none. */
export function tlsFiles(): z.ZodObject<{ ca: z.ZodString; cert: z.ZodString; key: z.ZodString }, z.core.$strict> {
  return mapping({ ca: absolutePath(4095), cert: absolutePath(4095), key: absolutePath(4095) });
}

/** A network interface's name. */
export function deviceName(): z.ZodString {
  return text('the name of a network interface, 1 to 15 characters', (value) =>
    /^(?!\.{1,2}$)[^\s/:\0]{1,15}$/.test(value),
  );
}

/** The name of a network interface, or a list of one or two. */
export function deviceNames(): z.ZodUnion<readonly [z.ZodString, z.ZodArray<z.ZodString>]> {
  const error = 'expected the name of a network interface, 1 to 15 characters, or a list of two';
  return z.union([deviceName(), z.array(deviceName(), { error }).min(1, { error }).max(2, { error })], { error });
}

/** `address:port` of the loopback device. */
export function loopbackAddress(): z.ZodString {
  return text('a loopback address and a port, as 127.0.0.1:14740 or [::1]:14740', (value) => {
    const match = /^(?:127(?:\.[0-9]{1,3}){3}|\[::1\]):([0-9]{1,5})$/.exec(value);
    return match !== null && Number(match[1]) >= 1 && Number(match[1]) <= 65535;
  });
}

/** `address:port` to listen on; IPv6 in brackets; no address: all. */
export function listenAddress(): z.ZodString {
  return text('an address and a port, as 127.0.0.1:9090, [::1]:9090 or :9090', (value) => {
    const match = /^(?:\[([^\]]*)\]|([^:]*)):([0-9]{1,5})$/.exec(value);
    if (match === null) return false;
    const [, v6, v4, port] = match;
    const hostGood = v6 === undefined ? v4 === '' || isIPv4(v4 ?? '') : isIPv6(v6);
    return hostGood && Number(port) >= 1 && Number(port) <= 65535;
  });
}
