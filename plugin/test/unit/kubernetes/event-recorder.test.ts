import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import type { ApiDouble } from '../../../../e2e/double/api-double.ts';
import { EventRecorder, type EventRecorderOptions, type NodeEvent } from '../../../src/kubernetes/event-recorder.ts';
import { Harness, quiet, sleep, until } from './harness.ts';

const EVENTS = '/apis/events.k8s.io/v1/events';
const WARNING: NodeEvent = { type: 'Warning', reason: 'PeersFull', note: '3 nodes are not peers' };

let harness: Harness;
let double: ApiDouble;
let now: number;

beforeEach(async () => {
  harness = new Harness();
  double = await harness.double();
  now = Date.now();
});
afterEach(() => harness.close());

function make(options: Partial<EventRecorderOptions> = {}): EventRecorder {
  const { api } = harness.client(double);
  const recorder = new EventRecorder({
    api,
    nodeName: 'n1',
    log: quiet,
    backoff: { firstMs: 10, maxMs: 20 },
    now: () => now,
    ...options,
  });
  harness.add(() => recorder.stop());
  return recorder;
}

describe('Events about this node', () => {
  test('are such that kubectl shows them with the Node', async () => {
    const recorder = make();
    recorder.emit(WARNING);
    await until(() => recorder.counts.sent === 1);
    const [event] = double.store.list(EVENTS);
    expect(event).toMatchObject({
      metadata: { namespace: 'default' },
      ...WARNING,
      regarding: { kind: 'Node', name: 'n1' },
      reportingController: 'xmasq.antrea.io/agent',
      reportingInstance: 'n1',
    });
    expect(event?.['eventTime']).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/);
  });

  test('the same again is a series, after a while a new Event', async () => {
    const recorder = make();
    for (let n = 1; n <= 3; n++) {
      recorder.emit(WARNING);
      await until(() => recorder.counts.sent === n);
    }
    expect(double.store.list(EVENTS)).toMatchObject([{ series: { count: 3 } }]);
    now += 60 * 60_000;
    recorder.emit(WARNING);
    await until(() => double.store.list(EVENTS).length === 2);
  });

  test('one that the API has forgotten is made anew', async () => {
    const recorder = make();
    recorder.emit(WARNING);
    await until(() => recorder.counts.sent === 1);
    const name = double.store.list(EVENTS)[0]?.metadata.name ?? '';
    double.store.delete(EVENTS, `default/${name}`);
    recorder.emit(WARNING);
    await until(() => recorder.counts.sent === 2);
    expect(double.store.list(EVENTS)).toHaveLength(1);
  });

  test('there is a limit in rate, which comes back with time', async () => {
    const recorder = make({ burst: 3, refillMs: 1000 });
    for (let n = 0; n < 10; n++) recorder.emit({ ...WARNING, note: `problem ${n}` });
    await until(() => recorder.counts.sent === 3);
    expect(recorder.counts.dropped).toBe(7);
    now += 2000;
    for (let n = 10; n < 20; n++) recorder.emit({ ...WARNING, note: `problem ${n}` });
    await until(() => recorder.counts.sent === 5);
    expect(recorder.counts.dropped).toBe(15);
  });

  test('wait for the API, a limited number of them', async () => {
    await double.outage();
    const recorder = make({ burst: 1000 });
    for (let n = 0; n < 100; n++) recorder.emit({ ...WARNING, note: `problem ${n}` });
    recorder.emit({ ...WARNING, note: 'problem 5' });
    await until(() => recorder.counts.failures > 2);
    expect(recorder.counts).toMatchObject({ sent: 0, dropped: 36, repeated: 1 });
    await double.resume();
    await until(() => recorder.counts.sent === 64);
  });

  test('what the API refuses is not tried again', async () => {
    double.rights = ({ verb }) => verb !== 'create';
    const recorder = make();
    recorder.emit(WARNING);
    await until(() => recorder.counts.failures === 1);
    await sleep(50);
    expect(double.requests('POST', '/apis/events.k8s.io')).toHaveLength(1);
  });

  test('long notes are cut', async () => {
    const recorder = make();
    recorder.emit({ ...WARNING, note: 'x'.repeat(5000) });
    await until(() => recorder.counts.sent === 1);
    expect(double.store.list(EVENTS)[0]?.['note']).toHaveLength(1024);
  });
});
