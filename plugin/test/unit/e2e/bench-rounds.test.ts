/** Rounds: whose turn it is when, and that XMasq's figures are of its fast path. */
import { expect, test } from '@jest/globals';
import type { Way } from '../../../../e2e/bench/labs.ts';
import { measureRounds } from '../../../../e2e/bench/rounds.ts';
import type { Test } from '../../../../e2e/bench/rounds.ts';

/** A way whose node has sent so many packets fast and slow after each measurement, from the first one on. */
function way(title: string, sent?: readonly (readonly [fast: number, slow: number])[]): Way {
  let fast = 0;
  let slow = 0;
  let looks = 0;
  const status = (): Promise<unknown> => {
    if (looks % 2 === 1) {
      const [moreFast = 0, moreSlow = 0] = sent?.[(looks - 1) / 2] ?? [];
      fast += moreFast;
      slow += moreSlow;
    }
    looks += 1;
    return Promise.resolve({ nodeName: 'n1', counters: { fast_tx: fast, slow_tx: slow }, reasons: { ct_new: slow } });
  };
  return { title, ...(sent !== undefined && { sidecars: { nodes: [{ status }] } }) } as unknown as Way;
}

function counting(done: string[], more: Partial<Test<'figure'>> = {}): Test<'figure'> {
  return {
    title: 'Test',
    run: ({ title }) => Promise.resolve({ figure: done.push(title) }),
    ...more,
  };
}

const ROUNDS = { goOn: () => true, progress: () => undefined };

test('each way has its turn in each round, and each round begins with another one', async () => {
  const done: string[] = [];
  const ways = { a: way('a'), b: way('b'), c: way('c') };
  const { samples, rounds } = await measureRounds(ways, [counting(done)], { ...ROUNDS, most: 3 });
  expect(done.join('')).toBe('abcbcacab');
  expect(rounds).toBe(3);
  expect(samples.get('a')?.get('figure')).toEqual([1, 6, 8]);
});

test('it ends before a round that there is no time for', async () => {
  const done: string[] = [];
  const goOn = (rounds: number): boolean => rounds < 2;
  await measureRounds({ a: way('a') }, [counting(done)], { ...ROUNDS, goOn, most: 9 });
  expect(done).toHaveLength(2);
});

test('what was slow is measured again, after another preparation; it does not count', async () => {
  const done: string[] = [];
  let prepared = 0;
  const prepare = (): Promise<void> => Promise.resolve(void (prepared += 1));
  const ways = {
    xmasq: way('x', [
      [10, 90],
      [99, 1],
    ]),
  };
  const { samples, repeated } = await measureRounds(ways, [counting(done, { prepare })], { ...ROUNDS, most: 1 });
  expect(samples.get('xmasq')?.get('figure')).toEqual([2]);
  expect(repeated).toEqual(['Test: n1 sent 10 packets fast, 90 slow (ct_new 90)']);
  expect(prepared).toBe(2);
});

test('what stays slow is an error, unless it has to', async () => {
  const slow = [
    [0, 100],
    [0, 100],
    [0, 100],
  ] as const;
  const measured = measureRounds({ xmasq: way('x', slow) }, [counting([])], { ...ROUNDS, most: 1 });
  await expect(measured).rejects.toThrow('Test did not stay on the fast path: n1 sent 0 packets fast, 100 slow');
  const short = counting([], { staysSlow: true });
  const { repeated } = await measureRounds({ xmasq: way('x', slow) }, [short], { ...ROUNDS, most: 1 });
  expect(repeated).toEqual([]);
});
