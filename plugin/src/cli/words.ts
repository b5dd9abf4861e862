import type { xmasq } from '../gen/xmasq.js';
import { reasonName } from '../grpc/reasons.ts';

/** An enum value for people: `conntrack` for ADMISSION_MODE_CONNTRACK, `unknown` for unspecified or unknown ones. */
export function enumWord(type: object, prefix: string, value: number): string {
  const name = (type as Readonly<Record<number, string | undefined>>)[value];
  if (name === undefined || value === 0) return 'unknown';
  return name.slice(prefix.length).toLowerCase().replaceAll('_', '-');
}

export function yesNo(value: boolean | null | undefined): string {
  return value === true ? 'yes' : 'no';
}

/** `namespace/name`; empty if there is none. */
export function podText(
  pod: { readonly namespace?: string | null; readonly name?: string | null } | null | undefined,
): string {
  return pod ? `${pod.namespace ?? ''}/${pod.name ?? ''}` : '';
}

/** Why something is excluded, in words. */
export function exclusionText({ reason, detail }: xmasq.v1.Exclusion.$Properties): string {
  return `${reasonName(reason ?? 0)} (${detail ?? ''})`;
}
