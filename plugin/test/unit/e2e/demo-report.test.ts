import { describe, expect, test } from '@jest/globals';
import { FIGURES, PATHS, demoResult, demoTable, gapClosedPct } from '../../../../e2e/demo/report.ts';
import type { Samples } from '../../../../e2e/demo/report.ts';

/** Three rounds around these medians, for every figure alike. */
function samples(values: Record<(typeof PATHS)[number], number>): Samples {
  return new Map(
    PATHS.map((path) => {
      const value = values[path];
      return [path, new Map(FIGURES.map((figure) => [figure, [value * 2, value, value / 2]]))];
    }),
  );
}

const WIRE = { masqueraded: 7, encapsulated: 1, unmarked: 0 };

describe('gap closed', () => {
  test.each([
    ['a rate as the overlay', 10, 6, 6, 0],
    ['a rate as the host', 10, 6, 10, 100],
    ['a rate half-way', 10, 6, 8, 50],
    ['a latency half-way: lower is better', 20, 40, 30, 50],
    ['a latency beyond the host', 20, 40, 18, 110],
    ['worse than the overlay', 10, 6, 5, -25],
  ])('%s', (_, host, overlay, xmasq, expected) => expect(gapClosedPct(host, overlay, xmasq)).toBeCloseTo(expected, 9));

  test('is not told where host and overlay are the same', () => expect(gapClosedPct(10, 9.95, 9.97)).toBeNull());
});

describe('report', () => {
  const some = samples({ host: 10, overlay: 5, xmasq: 9, hostBesideXmasq: 9.8 });

  test('has the medians of every figure and XMasq’s cost in rows of its own', () => {
    const { metrics, wire } = demoResult(some, WIRE);
    expect(wire).toEqual({ masqueraded: 7, encapsulated: 1 });
    expect(metrics[0]).toEqual({
      name: 'tcp_stream',
      unit: 'Gbit/s',
      host: 10,
      overlay: 5,
      xmasq: 9,
      gapClosedPct: 80,
    });
    expect(metrics.filter(({ name }) => name.startsWith('node_to_node_'))).toHaveLength(3);
    expect(metrics.at(-1)).toEqual({
      name: 'node_to_node_udp_rr_p50',
      unit: 'us',
      host: 10,
      overlay: null,
      xmasq: 9.8,
      gapClosedPct: null,
    });
  });

  test('is an aligned table', () => {
    const lines = demoTable(some).trimEnd().split('\n');
    expect(lines).toHaveLength(1 + FIGURES.length + 3);
    expect(new Set(lines.map((line) => line.length)).size).toBe(1);
    expect(lines[1]).toMatch(/^TCP stream +Gbit\/s +10\.00 \(5\.00-20\.00\) +5\.00 .* 80 %$/);
    // A rate that falls and a latency that falls: a cost and a gain.
    expect(lines.at(-3)).toMatch(/cost 2\.0 %$/);
    expect(lines.at(-1)).toMatch(/cost -2\.0 %$/);
  });
});
