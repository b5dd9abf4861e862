/** What is made of the samples of a benchmark by the clock. */
import { describe, expect, test } from '@jest/globals';
import { gapText, rowsOf, runLine, tableOf } from '../../../../e2e/bench/result.ts';
import type { PathName, Row, Run } from '../../../../e2e/bench/result.ts';
import { slowNodes } from '../../../../e2e/bench/rounds.ts';
import type { Samples } from '../../../../e2e/bench/rounds.ts';

const MEDIANS = { host: 2000, hostK8s: 1600, overlay: 1000 };
const FACTS = { rate: { title: 'Something', unit: '1/s', digits: 0 } } as const;

/** Three rounds around these medians, `distance` apart; XMasq's is the least where the others' are the greatest. */
function samples(values: Record<PathName, number>, distance: number): Samples<PathName, 'rate'> {
  return new Map(
    (Object.entries(values) as [PathName, number][]).map(([path, value]) => [
      path,
      new Map([['rate', (path === 'xmasq' ? [-1, 1, 0] : [1, -1, 0]).map((sign) => value + sign * distance)]]),
    ]),
  );
}

function row(values: Record<PathName, number>, distance: number): Row {
  const [only] = rowsOf(samples(values, distance), FACTS);
  if (only === undefined) throw new Error('no row');
  return only;
}

describe('a row', () => {
  test('has medians, their spread and the gap closed', () => {
    expect(row({ ...MEDIANS, xmasq: 1800 }, 10)).toEqual({
      ...{ metric: 'rate', unit: '1/s', host: 2000, hostK8s: 1600, overlay: 1000, xmasq: 1800 },
      ...{ gapClosedPct: 80, gapClosedK8sPct: 133.3, xmasqLike: [] },
      ...{ gapIntervalPct: [78, 82], gapIntervalK8sPct: [130, 136.7] },
      spread: { host: 14.826, hostK8s: 14.826, overlay: 14.826, xmasq: 14.826 },
    });
  });

  test('has no gap where overlay and host network are closer than three times the spread', () => {
    const none = { gapClosedPct: null, gapIntervalPct: null, gapClosedK8sPct: null, gapIntervalK8sPct: null };
    expect(row({ ...MEDIANS, xmasq: 1800 }, 225)).toMatchObject(none);
    expect(row({ ...MEDIANS, xmasq: 1800 }, 224).gapClosedPct).toBe(80);
  });

  test('tells what XMasq is not distinguishable from', () => {
    expect(row({ ...MEDIANS, xmasq: 1960 }, 10).xmasqLike).toEqual(['host']);
    expect(row({ ...MEDIANS, xmasq: 1040 }, 10).xmasqLike).toEqual(['overlay']);
    expect(row({ ...MEDIANS, xmasq: 1500 }, 200).xmasqLike).toEqual(['host', 'hostK8s', 'overlay']);
  });

  test('needs samples by every way', () => {
    const all = new Map(samples({ ...MEDIANS, xmasq: 3 }, 0));
    all.delete('overlay');
    expect(() => rowsOf(all, FACTS)).toThrow(RangeError);
  });
});

describe('the table', () => {
  test('is Markdown, with medians ± spread', () => {
    const lines = tableOf([row({ ...MEDIANS, xmasq: 1960 }, 10)], FACTS).split('\n');
    expect(lines).toEqual([
      '| measurement | unit | host network | host network, K8s node | overlay | XMasq | gap closed | gap closed, K8s |',
      '| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |',
      '| Something | 1/s | 2,000 ± 15 | 1,600 ± 15 | 1,000 ± 15 | 1,960 ± 15 | 96 % (94 to 98), not distinguishable from host | 160 % (157 to 163) |',
    ]);
  });

  test.each([
    ['host', 80, ['hostK8s'], '80 % (70 to 91)'],
    ['host', 50, ['host', 'overlay'], '50 % (70 to 91), not distinguishable from host or overlay'],
    ['hostK8s', 120, ['hostK8s'], '120 % (70 to 91), not distinguishable from host'],
    ['host', null, ['host', 'overlay'], 'overlay not distinguishable from host'],
  ] as const)('with %s %j, like %j says %s', (host, gap, xmasqLike, expected) => {
    const other = { gapClosedPct: 77, gapClosedK8sPct: 77, gapIntervalPct: [1, 2], gapIntervalK8sPct: [1, 2] } as const;
    const names = host === 'host' ? ['gapClosedPct', 'gapIntervalPct'] : ['gapClosedK8sPct', 'gapIntervalK8sPct'];
    const own = { [names[0] ?? '']: gap, [names[1] ?? '']: gap === null ? null : [70.4, 90.6] };
    expect(gapText({ ...other, ...own, xmasqLike }, host)).toBe(expected);
  });
});

describe('a measurement by XMasq does not count', () => {
  type Status = Parameters<typeof slowNodes>[1][number];
  const status = (nodeName: string, fast_tx: number, slow_tx: number): Status =>
    ({ nodeName, counters: { fast_tx, slow_tx }, reasons: { ct_new: slow_tx } }) as unknown as Status;
  const before = [status('n1', 100, 100), status('n2', 100, 100)];

  test.each([
    [
      'where less than nine tenths are fast on one node',
      [990, 110],
      [960, 200],
      'n2 sent 860 packets fast, 100 slow (ct_new 100)',
    ],
    ['where nothing is', [100, 300], [100, 300], 'n1 sent 0 packets fast, 200 slow (ct_new 200); n2 sent 0'],
    ['where nothing was sent', [100, 100], [100, 100], 'no pod sent anything'],
  ])('%s', (_, [fast1 = 0, slow1 = 0], [fast2 = 0, slow2 = 0], problem) => {
    expect(slowNodes(before, [status('n1', fast1, slow1), status('n2', fast2, slow2)])).toContain(problem);
  });

  test.each([
    ['all but the beginning is fast', [5000, 105], [5000, 105]],
    ['traffic is one-way: what the other node sends is its control connection', [50_000, 110], [100, 120]],
  ])('but does where %s', (_, [fast1 = 0, slow1 = 0], [fast2 = 0, slow2 = 0]) => {
    expect(slowNodes(before, [status('n1', fast1, slow1), status('n2', fast2, slow2)])).toBe('');
  });
});

test('the line of a run says on what machine, under what load, and that a try is one', () => {
  const run: Run = {
    ...{ command: 'make bench-x', machine: '2 processors (Some), 24 GiB, Linux 6.18', rounds: 9, secondsEach: 3 },
    ...{ quick: false, loadBefore: 0.4, loadAfter: 2, elapsedSeconds: 300, repeated: [] },
  };
  expect(runLine(run)).toBe(
    '`make bench-x`: medians of 9 interleaved rounds of 3 s for each measurement, ± their spread; ' +
      '2 processors (Some), 24 GiB, Linux 6.18; load average 0.4 before the run, 2 at its end.',
  );
  expect(runLine({ ...run, quick: true })).toMatch(/only a try/);
  expect(runLine({ ...run, loadBefore: 7.5 })).toMatch(/did other work meanwhile/);
});
