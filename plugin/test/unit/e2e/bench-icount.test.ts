/** What is made of counted instructions. */
import { readFileSync } from 'node:fs';
import { describe, expect, test } from '@jest/globals';
import {
  METRICS,
  MODES,
  MODE_METRICS,
  PATHS,
  dearer,
  modesTableOf,
  recordText,
  rowsOf,
  tableOf,
  withRows,
} from '../../../../e2e/bench/icount/paths.ts';
import type { Figure, Kept, Metric } from '../../../../e2e/bench/icount/paths.ts';

const COSTS = { host: 30_000, overlay: 64_000, xmasq: 36_000, hostK8s: 39_000, overlayK8s: 72_000, xmasqK8s: 36_300 };

const MODE_COSTS = { encap: 40_000, direct: 35_000, tcWritten: 37_000, xdpWritten: 33_000 };

function figures(): Figure[] {
  return [
    ...(Object.keys(METRICS) as Metric[]).flatMap((metric) =>
      PATHS.map((path) => ({ metric, path, instructions: COSTS[path] + 0.4 })),
    ),
    ...MODE_METRICS.flatMap((metric) => MODES.map((path) => ({ metric, path, instructions: MODE_COSTS[path] }))),
  ];
}

function kept(change: Partial<Record<Figure['path'], number>> = {}, kernel = '6.12'): Kept {
  const changed = figures().map((figure) =>
    figure.metric === 'tcp_rr' ? { ...figure, instructions: change[figure.path] ?? figure.instructions } : figure,
  );
  return { versions: { kernel, qemu: '7.2', compiler: '14' }, rows: rowsOf(changed) };
}

test('each metric has a row with rounded costs and both gaps', () => {
  const rows = rowsOf(figures());
  expect(rows.map(({ metric }) => metric)).toEqual(Object.keys(METRICS));
  expect(rows[0]).toEqual({
    ...{ metric: 'tcp_rr', unit: 'instructions per transaction', ...COSTS },
    ...{ gapClosedPct: 82.4, gapClosedK8sPct: 108.2, modes: MODE_COSTS },
  });
  expect(tableOf(rows).split('\n')[2]).toContain('| 36,000 |');
  expect(modesTableOf(rows).split('\n')).toContainEqual(
    '| tcp_rr | instructions per transaction | 36,000 | 40,000 | 35,000 | 37,000 | 33,000 |',
  );
  expect(rows.find(({ metric }) => metric === 'tcp_crr')?.modes).toBeNull();
});

test('a missing figure is an error', () => {
  expect(() => rowsOf(figures().slice(1))).toThrow('no figure for tcp_rr by host');
});

test('more than 1 % more instructions for a request on a path of XMasq is told, and nothing else', () => {
  expect(dearer(kept(), kept({ xmasq: 36_300, overlay: 90_000 }))).toEqual([]);
  expect(dearer(kept(), kept({ xmasq: 36_400, xmasqK8s: 40_000 }))).toEqual([
    'tcp_rr by xmasq: 36400, was 36000 (+1.1 %)',
    'tcp_rr by xmasqK8s: 40000, was 36300 (+10.2 %)',
  ]);
  expect(dearer(kept(), kept({ xdpWritten: 34_000 }))).toEqual(['tcp_rr by xdpWritten: 34000, was 33000 (+3.0 %)']);
});

describe('so it is with every metric and way', () => {
  const dearerBy = (metric: Metric, path: 'xmasq' | 'xdpWritten', factor: number): string[] => {
    const { versions, rows } = kept();
    const changed = rows.map((row) => {
      if (row.metric !== metric) return row;
      if (path === 'xmasq') return { ...row, xmasq: Math.round(row.xmasq * factor) };
      return { ...row, modes: row.modes && { ...row.modes, xdpWritten: Math.round(row.modes.xdpWritten * factor) } };
    });
    return dearer(kept(), { versions, rows: changed });
  };

  test.each([
    ['connections', 'tcp_crr', 'xmasq'],
    ['streams', 'tcp_stream', 'xmasq'],
    ['UDP in XDP', 'udp_rr', 'xdpWritten'],
  ] as const)('%s', (_what, metric, path) => {
    expect(dearerBy(metric, path, 1.009)).toEqual([]);
    expect(dearerBy(metric, path, 1.011)).toHaveLength(1);
  });
});

test('a part of the metrics is kept beside the others, which stay', () => {
  const tcp = { ...kept(), rows: rowsOf(figures(), ['tcp_rr']) };
  expect(tcp.rows.map(({ metric }) => metric)).toEqual(['tcp_rr']);
  const was = kept({ xmasq: 40_000 });
  expect(withRows(was, tcp)).toEqual(kept());
  expect(withRows({ ...was, rows: was.rows.slice(1) }, tcp)).toEqual(kept());
  expect(() => withRows(kept({}, '6.11'), tcp)).toThrow('same versions');
  expect(() => withRows(undefined, tcp)).toThrow('same versions');
});

test('figures of other versions are not compared', () => {
  expect(dearer(kept({}, '6.11'), kept({ xmasq: 99_000 }))).toEqual([]);
});

const read = (file: string): string => readFileSync(new URL(`../../../../${file}`, import.meta.url), 'utf8');

test('the README has figures of the record', () => {
  const { rows } = JSON.parse(read('e2e/bench/icount/record.json')) as Kept;
  const requests = rows.find(({ metric }) => metric === 'tcp_rr');
  for (const path of ['xmasq', 'overlay', 'host', 'hostK8s'] as const) {
    expect(read('README.md')).toContain(requests?.[path].toLocaleString('en'));
  }
});

test('the document has the record that the next run is compared with', () => {
  // Prettier pads the cells.
  const plain = (text: string): string => text.replace(/ {2,}/g, ' ').replace(/-{3,}:?/g, '---');
  const record = JSON.parse(read('e2e/bench/icount/record.json')) as Kept;
  expect(plain(read('docs/performance.md'))).toContain(plain(recordText(record)));
});
