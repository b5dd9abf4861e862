/** From samples to what `bench-modes` tells. */
import { expect, test } from '@jest/globals';
import { PATHS, rowsOf, tableOf } from '../../../../e2e/bench/modes/modes.ts';
import type { ModePath } from '../../../../e2e/bench/modes/modes.ts';
import { FACTS, modeTests } from '../../../../e2e/bench/modes/tests.ts';

const FACT = { rate: { title: 'Rate', unit: '1/s', digits: 1 } };

/** So many of each way, in three rounds that are a little apart. */
function samplesOf(of: Readonly<Record<ModePath, number>>, apart = 1): Parameters<typeof rowsOf>[0] {
  return new Map(
    PATHS.map((path) => [path, new Map([['rate', [of[path] - apart, of[path], of[path] + apart]]])] as const),
  );
}

const RATES = { host: 200, overlay: 100, masquerade: 180, encap: 150, direct: 175, written: 190, xdp: 90 };

test('each way is told with its spread and the gap that it closes', () => {
  const rows = rowsOf(samplesOf(RATES), FACT);
  expect(rows).toEqual([
    {
      metric: 'rate',
      unit: '1/s',
      medians: RATES,
      spread: Object.fromEntries(PATHS.map((path) => [path, 1.483])),
      gapClosedByMode: { masquerade: 80, encap: 50, direct: 75, written: 90, xdp: -10 },
      gapClosedPct: 80,
    },
  ]);
  const [head, , line] = tableOf(rows, FACT).split('\n');
  expect(head?.split(' | ')).toHaveLength(2 + PATHS.length);
  expect(line).toContain('| Rate | 1/s | 200.0 ± 1.5 | 100.0 ± 1.5 | 180.0 ± 1.5 (80 %) |');
});

test('where overlay and host network are not distinguishable there is no gap', () => {
  const rows = rowsOf(samplesOf(RATES, 50), FACT);
  expect(rows[0]).toMatchObject({ gapClosedPct: null, gapClosedByMode: { masquerade: null, xdp: null } });
  expect(tableOf(rows, FACT)).not.toContain('%');
});

test('a way that was not measured is an error', () => {
  const { xdp, ...others } = Object.fromEntries(samplesOf(RATES));
  expect(xdp).toBeDefined();
  expect(() => rowsOf(new Map(Object.entries(others)) as Parameters<typeof rowsOf>[0], FACT)).toThrow(RangeError);
});

test('what is measured is what bench-micro measures', () => {
  expect(modeTests(1).map(({ title }) => title)).toEqual([
    'TCP stream, 1 flow',
    'TCP request/response, 1 flow',
    'TCP request/response, 8 flows',
    'UDP request/response, 1 flow',
    'UDP request/response, 8 flows',
  ]);
  expect(Object.keys(FACTS)).toHaveLength(10);
});
