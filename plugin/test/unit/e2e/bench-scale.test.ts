/** What `bench-scale` puts into the maps, and what is made of its samples. */
import { describe, expect, test } from '@jest/globals';
import { countedMetric, FACTS, POPULATIONS, rowsOf, scaleLine, tableOf } from '../../../../e2e/bench/scale/figures.ts';
import type { ScaleRow, ScaleRun } from '../../../../e2e/bench/scale/figures.ts';
import { PORTS, addressDiff, counting, flowOf, peerOf } from '../../../../e2e/bench/scale/flows.ts';

/** Three samples around a median. */
function around(value: number, distance = 1): number[] {
  return [value + distance, value - distance, value];
}

function rowOf(metric: string, samples: Readonly<Record<string, readonly number[]>>): ScaleRow | undefined {
  return rowsOf(new Map(Object.entries(samples))).find((row) => row.metric === metric);
}

describe('flows', () => {
  test.each(POPULATIONS)('$title: no two have the same peer and ports', ({ flows, peers }) => {
    // All of the smaller ones, and a part of the others in which ports come round.
    const seen = new Set<string>();
    const first = Math.max(0, flows - 45_000);
    for (let i = first; i < flows; i++) {
      const { peer, local, remote } = flowOf(i, peers);
      seen.add(`${peer.id} ${local} ${remote}`);
    }
    expect(seen.size).toBe(flows - first);
    expect(flowOf(flows - 1, peers).remote).toBeLessThan(65_536);
  });

  test('a million of them reach no port that is never masqueraded', () => {
    const last = flowOf(999_999, 1);
    for (const reserved of [500, 4500, 4789, 6081, 51_820]) {
      const isLocal = reserved >= PORTS.firstLocal && reserved < PORTS.firstLocal + PORTS.locals;
      const isRemote = reserved >= PORTS.firstRemote && reserved <= last.remote;
      expect({ reserved, isLocal, isRemote }).toEqual({ reserved, isLocal: false, isRemote: false });
    }
  });

  test('peers are counted as the driver counts them', () => {
    const last = peerOf(4999);
    expect(last).toEqual({ id: 5015, epoch: 5999, address: '172.16.19.136', pod: '10.83.135.5' });
    for (const [of, address] of [
      ['nodes', last.address],
      ['pods', last.pod],
    ] as const) {
      const { first, step } = counting(of);
      expect(Buffer.from(address.split('.').map(Number)).readUInt32BE()).toBe(first + 4999 * step);
    }
  });

  test("what a checksum changes by is the one's complement sum of what comes and what goes", () => {
    const sum = (addresses: readonly string[]): number =>
      addresses
        .flatMap((address) => {
          const [a = 0, b = 0, c = 0, d = 0] = address.split('.').map(Number);
          return [a + b * 256, c + d * 256];
        })
        .reduce((total, half) => total + half, 0) % 0xffff;
    const [from, to] = [
      ['10.10.0.2', '10.83.135.5'],
      ['192.0.2.1', '172.16.19.136'],
    ];
    expect((sum(from) + addressDiff(from, to)) % 0xffff).toBe(sum(to));
    expect(addressDiff(['1.2.3.4'], ['1.2.3.4']) % 0xffff).toBe(0);
  });
});

describe('a row', () => {
  test('has the median, its spread, and what it is by the figure it is told in', () => {
    expect(rowOf('pod_egress_10k', { pod_egress_1k: around(200), pod_egress_10k: around(250) })).toEqual({
      ...{ metric: 'pod_egress_10k', unit: 'ns', host: null, hostK8s: null, overlay: null, xmasq: 250 },
      ...{ gapClosedPct: null, gapClosedK8sPct: null, spread: { xmasq: 1.483 }, samples: 3, ratio: 1.25 },
      ...{ goal: null, met: null },
    });
  });

  test.each([
    [260, true],
    [261, false],
  ])('a million flows may cost 1.3 times the instructions that a thousand do: %d by 200', (count, met) => {
    const [metric, base] = [countedMetric('uplink_ingress', '1m'), countedMetric('uplink_ingress', '1k')];
    expect(rowOf(metric, { [base]: [200], [metric]: [count] })).toMatchObject({ goal: 'at most 1.3 ×', met });
    // By the clock it is told, and no goal.
    const row = rowOf('uplink_ingress_1m', { uplink_ingress_1k: around(200), uplink_ingress_1m: around(count) });
    expect(row).toMatchObject({ goal: null, met: null });
  });

  test.each([
    [1004, true],
    [1006, false],
  ])('5,000 peers may cost as many instructions as one, to half a percent: %d by 1000', (count, met) => {
    const [metric, base] = [countedMetric('pod_egress', '100k_peers'), countedMetric('pod_egress', '100k')];
    expect(rowOf(metric, { [base]: [1000], [metric]: [count] })).toMatchObject({ goal: 'nothing measurable', met });
  });

  test('a goal that compares is not judged without what it is compared with', () => {
    const metric = countedMetric('pod_egress', '1m');
    expect(rowOf(metric, { [metric]: [200] })).toMatchObject({ ratio: null, met: null });
    expect(rowOf('pod_egress_100k_peers', { pod_egress_100k_peers: around(1) })).toMatchObject({ met: null });
  });

  test.each([
    ['within the spread', around(202), true],
    ['less', around(150), true],
    ['more', around(210), false],
    ['a single sample', [200], null],
  ])('5,000 peers add nothing measurable: %s', (_, values, met) => {
    const samples = { pod_egress_100k: around(200), pod_egress_100k_peers: values };
    expect(rowOf('pod_egress_100k_peers', samples)).toMatchObject({ goal: 'nothing measurable', met });
  });

  test.each([
    ['attach', 999, 1000],
    ['rss', 199, 200],
    ['cpu', 0.99, 1],
    ['records', 30_000, 29_999],
  ])('%s: %d meets the goal, %d does not', (metric, good, bad) => {
    expect(rowOf(metric, { [metric]: [good] })).toMatchObject({ met: true });
    expect(rowOf(metric, { [metric]: [bad] })).toMatchObject({ met: false });
  });

  test('is there for what was measured only; a figure that nobody knows is an error', () => {
    expect(rowsOf(new Map([['cpu', [1]]])).map(({ metric }) => metric)).toEqual(['cpu']);
    expect(() => rowsOf(new Map([['speed', [1]]]))).toThrow('no figure speed');
  });
});

test('every population has its four figures, and what a figure is told in exists', () => {
  for (const { name } of POPULATIONS) {
    for (const figure of ['pod_egress', 'uplink_ingress', 'fill', 'memory'])
      expect(FACTS).toHaveProperty(`${figure}_${name}`);
  }
  for (const { base } of Object.values(FACTS)) if (base !== undefined) expect(FACTS).toHaveProperty(base);
});

test('the table says what was met, missed and not judged', () => {
  const rows = rowsOf(
    new Map([
      ['pod_egress_1k', around(200)],
      ['pod_egress_1m', around(300)],
      [countedMetric('pod_egress', '1k'), [200]],
      [countedMetric('pod_egress', '1m'), [300]],
      [countedMetric('uplink_ingress', '1m'), [300]],
      ['attach', around(500)],
    ]),
  );
  expect(tableOf(rows).split('\n').slice(2)).toEqual([
    '| `pod_egress`: a packet, 1,000 flows | ns | 200 ± 1 |  |  |',
    '| `pod_egress`: a packet, 1,000,000 flows | ns | 300 ± 1 | 1.50 × 1,000 flows |  |',
    '| `pod_egress`: a packet, 1,000 flows | instructions | 200 ± 0 |  |  |',
    '| `pod_egress`: a packet, 1,000,000 flows | instructions | 300 ± 0 | 1.50 × 1,000 flows | at most 1.3 ×: missed |',
    '| `uplink_ingress`: a packet, 1,000,000 flows | instructions | 300 ± 0 |  | at most 1.3 ×: not judged |',
    '| sidecar: 110 pods attached | ms | 500 ± 1 |  | below 1,000: met |',
  ]);
});

test('the line about a run tells of a try, a busy machine and late samples', () => {
  const run: ScaleRun = {
    ...{ command: 'make bench-scale', machine: '2 processors', quick: false, loadBefore: 0.1, loadAfter: 1 },
    ...{ elapsedSeconds: 500, rounds: { packets: 15, sidecar: 5, flowExport: 3 }, late: {} },
  };
  expect(scaleLine(run)).toBe(
    '`make bench-scale`: medians, ± their spread, of 15 interleaved rounds for packets, of 5 starts of the sidecar and of ' +
      '3 runs of the flow export; 2 processors; load average 0.1 before the run, 1 at its end.',
  );
  const worse = scaleLine({ ...run, quick: true, loadBefore: 3, late: { uplink_ingress_100k: 2 } });
  for (const text of ['only a try', 'did other work', 'idle flows: uplink_ingress_100k 2'])
    expect(worse).toContain(text);
});
