/** What the tables of rules are made of. */
import { expect } from '@jest/globals';
import { BpfError, Errno } from '../../../src/bpf/errors.ts';
import {
  FAMILIES,
  KERNEL_SUMS,
  speaking,
  Verdict,
  withBusyFlows,
  withId,
  withSums,
  type Bench,
  type Established,
  type Outcome,
} from '../harness.ts';
import { frameId, type Family } from '../packets.ts';

/**
 * One rule of the data plane. `check` brings about the situation and judges with `expect`; whatever goes wrong before
 * the judgement is an ordinary Error. That is how the mutation checks tell a broken rule from a broken test.
 */
export interface Rule {
  readonly name: string;
  /** Of the packets: whatever is for other families may be left out of the programs. */
  readonly families: readonly Family[];
  readonly check: (bench: Bench) => void;
}

export function rule(name: string, check: (bench: Bench) => void, families: readonly Family[] = [4]): Rule {
  return { name, check, families };
}

/** A rule for each family; the name of IPv6's says so. */
export function both(name: string, check: (bench: Bench, family: Family) => void): Rule[] {
  return FAMILIES.map((family) =>
    rule(family === 4 ? name : `${name} (IPv6)`, (bench) => check(bench, family), [family]),
  );
}

/** The same rules for IPv6, too. They name no family. @param except rules about what only IPv4 has, by name */
export function inBoth(rules: readonly Rule[], except?: RegExp): Rule[] {
  const six = rules.filter(({ name }) => except?.test(name) !== true);
  return [
    ...rules,
    ...six.map(({ name, check }) => rule(`${name} (IPv6)`, (bench) => speaking(6, () => check(bench)), [6])),
  ];
}

/**
 * The same rules for flows that have sent and received masqueraded packets before, too: their usual packets take another way
 * through the programs. @param except rules about the first packets of a flow, by name
 */
export function busyToo(rules: readonly Rule[], except?: RegExp): Rule[] {
  const busy = rules.filter(({ name }) => except?.test(name) !== true);
  return [
    ...rules,
    ...busy.map(({ name, check, families }) => ({
      name: `${name} (busy flow)`,
      families,
      check: (bench: Bench) => withBusyFlows(() => check(bench)),
    })),
  ];
}

/** That a sum is wrong after a run is a judgement, too. */
function judgingSums(check: () => void): void {
  try {
    withSums(check);
  } catch (error) {
    if (error instanceof BpfError && error.errno === Errno.EBADMSG) expect('a wrong sum').toBe('a right sum');
    throw error;
  }
}

/**
 * Besides, those about every byte of what a pod gets with packets that a device has summed up: the kernel looks whether the sum
 * is right afterwards, which is not in the packet. To what leaves the node it does not matter.
 */
export function summedToo(rules: readonly Rule[]): Rule[] {
  const summed = rules.filter(
    ({ name }) => KERNEL_SUMS && /every byte of the restored packet|out of .*: every byte/.test(name),
  );
  return [
    ...rules,
    ...summed.map(({ name, check, families }) => ({
      name: `${name} (summed up)`,
      families,
      check: (bench: Bench) => judgingSums(() => check(bench)),
    })),
  ];
}

/** An ID with the marker, as a pod that forges keys would write it; it stays below the marker when cleared. */
export const FORGED_ID = 0xd6a5;

/** The packet went to the slow path with its marker cleared and nothing else changed, for this one reason. */
export function expectSlow(outcome: Outcome, input: Buffer, reason: string): void {
  expect(outcome.reasons).toEqual({ [reason]: 1 });
  expect(outcome.verdict).toBe(Verdict.pass);
  expect(outcome.counters).toMatchObject({ slow_tx: 1, marker_cleared: 1 });
  expect(outcome.counters).not.toHaveProperty('announced');
  expect(outcome.frame.toString('hex')).toBe(withId(input, frameId(input) & 0x7fff).toString('hex'));
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
