/** Results as pictures. */
import { expect, test } from '@jest/globals';
import { plotOf } from '../../../../e2e/bench/plot.ts';
import type { Plot } from '../../../../e2e/bench/plot.ts';
import type { Row } from '../../../../e2e/bench/result.ts';

const ALL: Plot = { name: 'a', title: 'A title', shows: () => true };

const FACTS = {
  rate: { title: 'Requests <1 KiB>', unit: '1/s', digits: 0 },
  latency: { title: 'Latency', unit: 'us', digits: 0 },
} as const;

const ROW: Row = {
  ...{ metric: 'rate', unit: '1/s', host: 2000, hostK8s: 1600, overlay: 1000, xmasq: 1800 },
  ...{ gapClosedPct: 80, gapClosedK8sPct: 133.3, xmasqLike: [] },
  ...{ gapIntervalPct: [70, 95], gapIntervalK8sPct: [110, 140] },
  spread: { host: 200, hostK8s: 20, overlay: 0, xmasq: 100 },
};
const LATENCY: Row = { ...ROW, metric: 'latency', unit: 'us', gapClosedPct: null };

function bars(svg: string, colour: string): { x: number; y: number; height: number }[] {
  const pattern = new RegExp(`<rect x="([\\d.]+)" y="([\\d.]+)" width="\\d+" height="([\\d.]+)" fill="${colour}"`, 'g');
  return [...svg.matchAll(pattern)].map(([, x, y, height]) => ({ x: Number(x), y: Number(y), height: Number(height) }));
}

test('heights of bars are shares of the host network’s, and spreads stand on their ends', () => {
  const svg = plotOf(ALL, [ROW], FACTS);
  const [, host] = bars(svg, '#0072b2');
  const [, hostK8s] = bars(svg, '#56b4e9');
  const [, overlay] = bars(svg, '#e69f00');
  const [, xmasq] = bars(svg, '#009e73');
  expect((hostK8s?.height ?? 0) / (host?.height ?? 0)).toBeCloseTo(0.8, 2);
  expect((overlay?.height ?? 0) / (host?.height ?? 0)).toBeCloseTo(0.5, 2);
  expect((xmasq?.height ?? 0) / (host?.height ?? 0)).toBeCloseTo(0.9, 2);
  const whiskers = [...svg.matchAll(/y1="([\d.]+)" y2="([\d.]+)" stroke="#000000"/g)].map(
    ([, a, b]) => Number(b) - Number(a),
  );
  expect(whiskers[0]).toBeCloseTo(0.2 * (host?.height ?? 0), 0);
  expect(whiskers[2]).toBe(0);
});

test('the interval of a gap is a line as long as it is', () => {
  const svg = plotOf(ALL, [ROW], FACTS);
  const [, , gap] = bars(svg, '#009e73');
  const [interval] = [...svg.matchAll(/y1="([\d.]+)" y2="([\d.]+)" stroke="#888888"/g)].map(([, a, b]) => [
    Number(a),
    Number(b),
  ]);
  const [high = 0, low = 0] = interval ?? [];
  // 80 % are the bar's height.
  expect((low - high) / (gap?.height ?? 0)).toBeCloseTo(25 / 80, 1);
  expect(high).toBeLessThan(gap?.y ?? 0);
});

test('each group has its gap closed, or n/d where there is none', () => {
  const svg = plotOf(ALL, [ROW, LATENCY], FACTS);
  // Legend, two bars, one gap.
  expect(bars(svg, '#009e73')).toHaveLength(4);
  expect(svg).toContain('>80</text>');
  expect(svg.match(/>n\/d<\/text>/g)).toHaveLength(1);
  expect(svg).toContain('overlay not distinguishable from host');
});

test('a gap that is not distinguishable is pale, and one beyond the panel is cut', () => {
  const far: Row = { ...ROW, gapClosedPct: 900, gapIntervalPct: [850, 950], xmasqLike: ['host'] };
  const [, , gap] = bars(plotOf(ALL, [far], FACTS), '#009e73');
  expect(gap?.y).toBeGreaterThan(0);
  expect(plotOf(ALL, [far], FACTS)).toContain('fill-opacity');
  expect(plotOf(ALL, [ROW], FACTS)).not.toContain('fill-opacity');
  expect(plotOf(ALL, [{ ...ROW, xmasqLike: ['hostK8s'] }], FACTS)).not.toContain('fill-opacity');
});

test('it is XML: names are escaped, and times are said to be better when less', () => {
  const svg = plotOf({ ...ALL, title: 'A & B' }, [ROW, LATENCY], FACTS);
  expect(svg).toContain('<title>A &amp; B</title>');
  expect(svg).toContain('>Requests &lt;1 KiB&gt;</text>');
  expect(svg).toContain('>Latency (less is better)</text>');
  expect(svg).not.toMatch(/NaN|undefined|Infinity/);
});

test('it shows what it is asked for', () => {
  const some = { ...ALL, shows: (metric: string): boolean => metric === 'latency' };
  expect(plotOf(some, [ROW, LATENCY], FACTS)).not.toContain('Requests');
  expect(() => plotOf(some, [ROW], FACTS)).toThrow(RangeError);
});
