import { xmasq } from '../gen/xmasq.js';

const { Reason } = xmasq.v1;
const PREFIX = 'REASON_';

/** Every reason: its number, and its name for people (`tcp-syn` for REASON_TCP_SYN). */
export const REASONS: readonly { readonly code: number; readonly name: string }[] = Object.entries(Reason)
  .filter((entry): entry is [string, xmasq.v1.Reason] => typeof entry[1] === 'number')
  .map(([key, code]) => ({ code, name: key.slice(PREFIX.length).toLowerCase().replaceAll('_', '-') }));

const namesByCode = new Map(REASONS.map(({ code, name }) => [code, name]));
const codesByName = new Map(REASONS.map(({ code, name }) => [name, code]));

/** Name of a reason for people, e.g. `tcp-syn`; `reason-<number>` for one that this build does not know. */
export function reasonName(code: number): string {
  return namesByCode.get(code) ?? `reason-${code}`;
}

/** Number of a reason given as `tcp-syn`, `tcp_syn`, `REASON_TCP_SYN`, in any case; undefined: there is none. */
export function reasonCode(name: string): number | undefined {
  return codesByName.get(
    name
      .toLowerCase()
      .replaceAll('_', '-')
      .replace(/^reason-/, ''),
  );
}

/** Whether this build knows the number. */
export function isReason(code: number): boolean {
  return namesByCode.has(code);
}

/** The protobuf enum value: the numbers are the same by construction, and unknown ones travel as they are. */
export function toReason(code: number): xmasq.v1.Reason {
  // eslint-disable-next-line @typescript-eslint/no-unsafe-enum-assignment
  return code;
}
