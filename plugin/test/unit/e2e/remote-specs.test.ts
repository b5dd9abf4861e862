/** The runner that stands for jest inside the micro-VM, here as a process of its own. */
import { execFileSync } from 'node:child_process';
import { existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { bundleSpec } from '../../../../e2e/vm/jest/bundle.ts';
import { decodeEvent } from '../../../../e2e/vm/jest/events.ts';
import type { SpecEvent } from '../../../../e2e/vm/jest/events.ts';

const FIXTURE = join(import.meta.dirname, 'fixtures/remote.ts');
const LAB = join(import.meta.dirname, '../../../../e2e/lab/ovs/ovs.ts');

let bundle: string;

async function run(options: { readonly namePattern?: string } = {}): Promise<{ events: SpecEvent[]; text: string }> {
  bundle = await bundleSpec(FIXTURE, { lab: LAB, defaultLimitMs: 1000, retries: 1, ...options });
  const text = execFileSync(process.execPath, [bundle], {
    encoding: 'utf8',
    env: { PATH: process.env['PATH'], XMASQ_TIME_FACTOR: '2' },
  });
  return { text, events: text.split('\n').flatMap((line) => decodeEvent(line) ?? []) };
}

afterAll(() => {
  if (existsSync(bundle)) rmSync(bundle);
});

describe('a whole file', () => {
  let events: SpecEvent[];
  let text: string;
  beforeAll(async () => ({ events, text } = await run()));

  test('every spec has its result', () => {
    const specs = events.flatMap((event) => (event.type === 'specs' ? event.specs : []));
    const results = events.flatMap((event) =>
      event.type === 'end' ? [[specs[event.index]?.title, event.result.status]] : [],
    );
    expect(results).toEqual([
      ['number 0', 'passed'],
      ['number 1', 'passed'],
      ['cannot pass', 'failed'],
      ['passes at the second attempt', 'passed'],
      ['fails', 'failed'],
      ['takes too long', 'failed'],
      ['is skipped', 'pending'],
      ['is skipped, too', 'pending'],
    ]);
    expect(specs[0]?.blocks).toEqual(['block one']);
    expect(events.at(-1)).toEqual({ type: 'done' });
  });

  test('errors say why, also that of the first attempt', () => {
    const errors = events.flatMap((event) => (event.type === 'end' ? [event.result] : []));
    expect(errors[2]?.errors.join()).toContain('no set-up');
    expect(errors[3]?.earlierErrors.join()).toContain('Expected: 2');
    expect(errors[4]?.errors.join()).toContain('toMatchObject');
    expect(errors[5]?.errors.join()).toContain('not done within 100 ms');
  });

  test('hooks run in the order of jest', () => {
    const [order = ''] = /^order .*$/m.exec(text) ?? [];
    expect(order).toMatch(/^order beforeAll beforeAll-one beforeEach 0 afterEach beforeEach 1 afterEach beforeEach /);
    expect(order).toMatch(/ afterAll$/);
    expect(order).not.toContain('never');
  });
});

test('a name pattern leaves the others pending', async () => {
  const { events } = await run({ namePattern: 'block one number 1' });
  const statuses = events.flatMap((event) => (event.type === 'end' ? [event.result.status] : []));
  expect(statuses).toEqual(['pending', 'passed', ...Array<string>(6).fill('pending')]);
});
