/** What the tables of rules are made of. */
import { expect } from '@jest/globals';
import { Verdict, withId, type Bench, type Established, type Outcome } from '../harness.ts';

/**
 * One rule of the data plane. `check` brings about the situation and judges with `expect`; whatever goes wrong before
 * the judgement is an ordinary Error. That is how the mutation checks tell a broken rule from a broken test.
 */
export interface Rule {
  readonly name: string;
  readonly check: (bench: Bench) => void;
}

export function rule(name: string, check: (bench: Bench) => void): Rule {
  return { name, check };
}

/** An ID with the marker, as a pod that forges keys would write it; it stays below the marker when cleared. */
export const FORGED_ID = 0xd6a5;

/** The packet went to the slow path with its marker cleared and nothing else changed, for this one reason. */
export function expectSlow(outcome: Outcome, input: Buffer, reason: string): void {
  expect(outcome.reasons).toEqual({ [reason]: 1 });
  expect(outcome.verdict).toBe(Verdict.pass);
  expect(outcome.counters).toMatchObject({ slow_tx: 1, marker_cleared: 1 });
  expect(outcome.counters).not.toHaveProperty('announced');
  expect(outcome.frame.toString('hex')).toBe(withId(input, input.readUInt16BE(18) & 0x7fff).toString('hex'));
}

/** The packet left as it came. */
export function expectUntouched(outcome: Outcome, input: Buffer, verdict: number = Verdict.pass): void {
  expect(outcome.verdict).toBe(verdict);
  expect(outcome.frame.toString('hex')).toBe(input.toString('hex'));
}

/** The packet went to the slow path and carries this ID; nothing else has changed. */
export function expectAnnounced(outcome: Outcome, input: Buffer, id: number, reason = 'key_exchange'): void {
  expect(outcome.reasons).toEqual({ [reason]: 1 });
  expect(outcome.verdict).toBe(Verdict.pass);
  expect(outcome.counters).toMatchObject({ slow_tx: 1, announced: 1 });
  expect(outcome.frame.toString('hex')).toBe(withId(input, id).toString('hex'));
}

/** The flow's next packet is masqueraded. For preconditions: throws an ordinary Error. */
export function requireFast(bench: Bench, { talk, flowKey }: Established): void {
  const { verdict, reasons } = bench.run('pod_egress', talk.sent(), { ifindex: flowKey.ifindex });
  if (verdict !== Verdict.redirect) throw new Error(`the flow is not fast: ${JSON.stringify(reasons)}`);
}

/** The flow's next packet is or is not masqueraded. */
export function expectFast(bench: Bench, { talk, flowKey }: Established, fast = true): void {
  const { verdict } = bench.run('pod_egress', talk.sent(), { ifindex: flowKey.ifindex });
  expect(verdict).toBe(fast ? Verdict.redirect : Verdict.pass);
}
