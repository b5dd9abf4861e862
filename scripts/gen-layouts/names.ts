import type { Enum } from './model.ts';

/** Prefix of the project's C names, cut from TypeScript ones. */
const PROJECT = /^xmasq_/;
/** Enumerators that only mark the end. */
const SENTINEL = /^(MAX|COUNT|NR|LAST|END)$/;

/** "xmasq_flow_key" -> "FlowKey". */
export function pascalCase(name: string): string {
  return name
    .replace(PROJECT, '')
    .split('_')
    .filter((part) => part !== '')
    .map((part) => part.charAt(0).toUpperCase() + part.slice(1))
    .join('');
}

/** "src_ip" -> "srcIp". */
export function camelCase(name: string): string {
  const pascal = pascalCase(name);
  return pascal.charAt(0).toLowerCase() + pascal.slice(1);
}

export interface Enumerator {
  /** Without the common prefix, upper case. */
  name: string;
  value: number;
  /** Marks the end, means nothing. */
  sentinel: boolean;
}

/** The values of an enum without their common prefix: that of the enum's name, or what all of them share. */
export function enumerators({ name, values }: Enum): Enumerator[] {
  const names = values.map((value) => value.name.replace(/^_+/, ''));
  const byName = `${name.toUpperCase()}_`;
  const prefix = names.every((candidate) => candidate.startsWith(byName)) ? byName : sharedPrefix(names);
  const last = Math.max(...values.map(({ value }) => value));
  return values.map(({ value }, i) => {
    const short = names[i]?.slice(prefix.length) ?? '';
    return { name: short, value, sentinel: SENTINEL.test(short) && value === last };
  });
}

function sharedPrefix(names: readonly string[]): string {
  const [first = '', ...others] = names;
  // Only whole words, and never all of a name.
  const words = first.split('_').slice(0, -1);
  for (let length = words.length; length > 0; length--) {
    const prefix = `${words.slice(0, length).join('_')}_`;
    if (others.every((name) => name.startsWith(prefix) && name.length > prefix.length)) {
      return prefix;
    }
  }
  return '';
}
