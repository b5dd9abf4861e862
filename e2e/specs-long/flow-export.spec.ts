/** The flow export under load: 300,000 records of 100 agents, one per message, with mutual TLS. */
import { beforeAll, describe, expect, test } from '@jest/globals';
import { memoryGrowth } from '../flowgen/growth.ts';
import { measure, type Measurement } from '../flowgen/measure.ts';

const MESSAGES = 300_000;
/** More than the store keeps: it is full after the first quarter, and every record after that evicts another one. */
const FLOWS = 70_000;
const STORE = 65_536;

describe('flow export', () => {
  let measured: Measurement;
  beforeAll(async () => {
    measured = await measure({
      messages: MESSAGES,
      streams: 100,
      flows: FLOWS,
      malformedEvery: 1000,
      duplicateEvery: 100,
    });
  }, 300_000);

  test('takes every record, and counts what is none or was there before', () => {
    const { last, load } = measured;
    expect(load).toMatchObject({ records: MESSAGES - 300, malformed: 300, duplicates: 2700 });
    expect(last).toMatchObject({ flows: MESSAGES - 300 + 2700, malformed: 300, duplicates: 2700, stale: 0 });
    expect(last.records).toBe(STORE);
  });

  test('10,000 per second of one core', () => {
    expect(measured.perCpuSecond).toBeGreaterThan(10_000);
  });

  test('memory stays flat', () => {
    expect(memoryGrowth(measured.samples)).toBeLessThan(0.15);
    expect(measured.last.rssBytes).toBeLessThan(500e6);
  });
});
