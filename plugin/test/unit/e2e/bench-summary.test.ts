/** What `make bench` says at its end. */
import { readFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { MEMBERS, exitCodeOf, figuresOf, summaryOf } from '../../../../e2e/bench/summary.ts';

const MAKEFILE = readFileSync(new URL('../../../../Makefile', import.meta.url), 'utf8');

test('every benchmark of the Makefile is a member, and is known to have a try if it has one', () => {
  const targets = [...MAKEFILE.matchAll(/^(bench-[a-z]+):.*\n((?:\t.*\n)+)/gm)].map(([, name, recipe = '']) => ({
    name,
    hasTry: recipe.includes('$(QUICK)'),
  }));
  expect(MEMBERS.map(({ name, hasTry }) => ({ name, hasTry }))).toEqual(targets);
});

test('gaps and goals are summed up', () => {
  const gaps = [70, null, 80, 96.5].map((gapClosedPct, n) => ({ metric: `m${n}`, gapClosedPct }));
  expect(figuresOf(gaps)).toBe('gap closed: 70 to 96.5 %, median 80 % of 3');
  const goals = [true, false, null].map((met, n) => ({ metric: `m${n}`, gapClosedPct: null, goal: 'below 1', met }));
  expect(figuresOf(goals)).toBe('goals met: 1 of 2 (missed: m1)');
  expect(figuresOf(goals.slice(0, 1))).toBe('goals met: 1 of 1');
  expect(figuresOf([{ metric: 'm', gapClosedPct: null }])).toBe('');
});

test('the summary tells what failed and what was left out; one failure fails all', () => {
  const all = [
    { name: 'a', code: 0, seconds: 61.2, rows: [{ metric: 'm', gapClosedPct: 90 }] },
    { name: 'b', code: 2, seconds: 3 },
    { name: 'c', code: null, seconds: 0 },
  ];
  expect(summaryOf(all).split('\n').slice(2)).toEqual([
    '| a | ok | 61 s | gap closed: 90 to 90 %, median 90 % of 1 |',
    '| b | FAILED (2) | 3 s |  |',
    '| c | left out |  | knows no try |',
  ]);
  expect([exitCodeOf(all), exitCodeOf(all.slice(2)), exitCodeOf(all.slice(0, 1))]).toEqual([1, 0, 0]);
});
