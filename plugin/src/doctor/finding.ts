/** What a check of `xmasq doctor` came to. */
import { errorMessage, RequirementError } from '../util/errors.ts';

/** skipped: it could not be made, because of a check before it. */
export const RESULTS = ['ok', 'warning', 'failed', 'skipped'] as const;
export type Result = (typeof RESULTS)[number];

/** Something to see to, as degradations have it. */
export interface Problem {
  readonly what: string;
  readonly where: string;
  readonly action: string;
}

/** One thing that a check has seen. */
export interface Verdict extends Problem {
  readonly result: Result;
}

/** A line of the report. `where` and `action` are empty where nothing is to be done. */
export interface Finding extends Verdict {
  /** Name of the check; several findings may be of one. */
  readonly check: string;
}

/** What a check gives: what it has seen, and for later checks its value, which is absent where they cannot be made. */
export interface Outcome<T = true> {
  readonly verdicts: readonly Verdict[];
  readonly value?: T;
}

export function ok(what: string): Verdict {
  return { result: 'ok', what, where: '', action: '' };
}

/** There was nothing to look at. */
export function skipped(what: string): Verdict {
  return { result: 'skipped', what, where: '', action: '' };
}

/** XMasq works, but not fully or not yet. */
export function warning(problem: Problem): Verdict {
  return { result: 'warning', ...problem };
}

/** XMasq cannot work, or does not as it should. */
export function failed(problem: Problem): Verdict {
  return { result: 'failed', ...problem };
}

/** A check that has seen nothing wrong. */
export function passed(what: string): Outcome {
  return { verdicts: [ok(what)], value: true };
}

/** A check that has failed. */
export function failure(problem: Problem): { readonly verdicts: readonly Verdict[] } {
  return { verdicts: [failed(problem)] };
}

/**
 * What an error says.
 * @param action what to do, where the error does not say that itself
 */
export function problemOf(error: unknown, where: string, action: string): Problem {
  if (error instanceof RequirementError) return { what: error.what, where, action: error.action };
  return { what: errorMessage(error), where, action };
}
