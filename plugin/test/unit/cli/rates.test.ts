import { describe, expect, test } from '@jest/globals';
import { flowMessage } from '../../../src/grpc/convert.ts';
import { flowRates, growth, hitRatio, perSecond, sumRates } from '../../../src/cli/rates.ts';
import { flow } from '../grpc/fake-backend.ts';

describe('rates of flows', () => {
  const look = (at: number, ...flows: Parameters<typeof flow>[0][]) => ({
    at,
    flows: flows.map((values) => flowMessage(flow(values))),
  });

  test('each direction for itself, in packets and bits, over the time that has passed', () => {
    const before = look(1000, { txPackets: 100n, txBytes: 1000n, rxPackets: 10n, rxBytes: 400n, slowPackets: 5n });
    const after = look(3000, { txPackets: 300n, txBytes: 3000n, rxPackets: 30n, rxBytes: 800n, slowPackets: 6n });
    expect(flowRates(before, after)).toMatchObject([
      { txPackets: 100, txBits: 8000, rxPackets: 10, rxBits: 1600, slowPackets: 0.5 },
    ]);
  });

  test('a flow that is new, or was admitted anew, counts from 0', () => {
    const before = look(0, { sourcePort: 1, txPackets: 100n }, { sourcePort: 2, txPackets: 100n });
    const after = look(
      2000,
      { sourcePort: 1, txPackets: 150n, ageMs: 1500 },
      { sourcePort: 2, txPackets: 20n },
      { sourcePort: 3, txPackets: 40n },
    );
    expect(flowRates(before, after).map(({ txPackets }) => txPackets)).toEqual([75, 10, 20]);
  });

  test('a refused flow that was admitted does not take over its count of slow packets', () => {
    const before = look(0, { admitted: false, slowPackets: 50n });
    const after = look(1000, { admitted: true, slowPackets: 60n });
    expect(flowRates(before, after)).toMatchObject([{ slowPackets: 60 }]);
  });

  test('flows that differ in one thing are not taken for one', () => {
    const variants: Parameters<typeof flow>[0][] = [
      { sourcePod: { namespace: 'default', name: 'a' } },
      { sourcePod: { namespace: 'default', name: 'b' } },
      { protocol: 17 },
      { icmp: { id: 7, type: 8 } },
      { icmp: { id: 8, type: 8 } },
    ];
    const rates = flowRates(
      look(0, ...variants.map((values, i) => ({ ...values, txPackets: BigInt(i) }))),
      look(1000, ...variants.map((values, i) => ({ ...values, txPackets: BigInt(2 * i) }))),
    );
    expect(rates.map(({ txPackets }) => txPackets)).toEqual([0, 1, 2, 3, 4]);
  });
});

test('growth: what has begun anew is all new', () => {
  expect([growth(undefined, 5), growth(3, 5), growth(9, 5), growth(3, 5, true)]).toEqual([5, 2, 5, 5]);
});

test('no time, no rate', () => {
  expect(perSecond(5, 0)).toBe(0);
  expect([...sumRates(new Map([['a', 1]]), new Map([['a', 3]]), 500)]).toEqual([['a', 4]]);
});

describe('hit ratio', () => {
  test('every way of being fast counts, of all that pods sent', () => {
    const sums = {
      fast_tx: 10,
      fast_local: 20,
      fast_encap: 30,
      fast_direct: 15,
      slow_tx: 25,
      slow_rx: 1000,
      restored: 99,
    };
    expect(hitRatio(new Map(Object.entries(sums)))).toBe(0.75);
  });

  test('nothing was sent: there is none', () => {
    expect(hitRatio(new Map([['slow_rx', 5]]))).toBeUndefined();
  });
});
