/** One timer for all that is called with one interval. */
import { afterEach, beforeEach, expect, jest, test } from '@jest/globals';
import { repeat } from '../../../src/util/repeat.ts';

beforeEach(() => {
  jest.useFakeTimers();
});
afterEach(() => {
  jest.useRealTimers();
});

test('members of one interval share a timer, which ends with the last of them', () => {
  const calls: string[] = [];
  const endA = repeat(50, () => calls.push('a'), false);
  jest.advanceTimersByTime(20);
  const endB = repeat(50, () => calls.push('b'), true);
  const endC = repeat(80, () => calls.push('c'), false);
  expect(jest.getTimerCount()).toBe(2);
  jest.advanceTimersByTime(30);
  expect(calls).toEqual(['a', 'b']);
  endA();
  endA();
  jest.advanceTimersByTime(50);
  expect(calls).toEqual(['a', 'b', 'c', 'b']);
  endB();
  endC();
  expect(jest.getTimerCount()).toBe(0);
  jest.advanceTimersByTime(500);
  expect(calls).toHaveLength(4);
});

test('the process is kept alive while one of them asks for it', () => {
  const timers = jest.spyOn(globalThis, 'setInterval');
  const endA = repeat(50, () => undefined, false);
  const timer = timers.mock.results[0]?.value as NodeJS.Timeout;
  expect(timer.hasRef()).toBe(false);
  const endB = repeat(50, () => undefined, true);
  expect(timer.hasRef()).toBe(true);
  endB();
  expect(timer.hasRef()).toBe(false);
  endA();
  timers.mockRestore();
});

test('a member may end itself and others from its work', () => {
  const calls: string[] = [];
  const ends: (() => void)[] = [];
  ends.push(
    repeat(
      50,
      () => {
        calls.push('a');
        ends.forEach((end) => end());
      },
      false,
    ),
    repeat(50, () => calls.push('b'), false),
  );
  jest.advanceTimersByTime(200);
  expect(calls).toEqual(['a']);
});
