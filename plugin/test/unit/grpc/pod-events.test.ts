import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { status } from '@grpc/grpc-js';
import type { xmasq } from '../../../src/gen/xmasq.js';
import { eventually, pod, startHarness, type Harness } from './harness.ts';

let harness: Harness;
beforeEach(async () => {
  harness = await startHarness(300);
});
afterEach(() => harness.close());

describe('PodEvents', () => {
  test('hands snapshot and events to the sink in order, and sums them up', async () => {
    const { response, code } = await harness
      .connect()
      .push()
      .send({ snapshot: { pods: [pod('a1')] } })
      .send({ added: pod('a2', { mac: '02:00:00:00:00:AB', ips: ['10.10.1.4', 'FD00::0:1'] }) })
      .send({ changed: pod('a1', { ips: ['10.10.1.9'] }) })
      .send({ removed: { containerId: 'container-a2' } })
      .send({ removed: { containerId: 'unknown' } })
      .end();
    expect(code).toBe(status.OK);
    expect(response).toMatchObject({ snapshotPods: 1, added: 1, changed: 1, removed: 1, ignored: 1 });
    expect(harness.sink.log).toEqual([
      'snapshot a1',
      'added a2 veth2 10.10.1.4,fd00::1 02:00:00:00:00:ab',
      'changed a1 10.10.1.3 -> 10.10.1.9',
      'removed a2',
    ]);
    expect(harness.server.podEvents).toEqual({ connected: false, synced: true, events: 5, ignored: 1, rejected: 0 });
  });

  test('a new stream replaces the old one once its snapshot is valid', async () => {
    const first = harness.connect().push();
    first.send({ snapshot: { pods: [pod('a1')] } });
    await eventually(() => harness.sink.log.length === 1, 'first snapshot');

    const bad = await harness
      .connect()
      .push()
      .send({ snapshot: { pods: [pod('a1', { mac: 'zz' })] } }).outcome;
    expect(bad.code).toBe(status.INVALID_ARGUMENT);
    expect(harness.server.podEvents.connected).toBe(true);

    const second = harness.connect().push();
    second.send({ snapshot: { pods: [pod('a2')] } });
    const ended = await first.outcome;
    expect(ended.code).toBe(status.ABORTED);
    expect(ended.details).toContain('replaced by a newer stream');
    second.send({ added: pod('a1') });
    await eventually(() => harness.sink.log.length === 3, 'event of the second stream');
    expect(harness.sink.log).toEqual(['snapshot a1', 'snapshot a2', expect.stringContaining('added a1')]);
    expect(harness.server.podEvents.connected).toBe(true);
  });

  test('a broken stream keeps the state, and the next one starts over', async () => {
    const first = harness.connect().push();
    first.send({ snapshot: { pods: [pod('a1')] } });
    await eventually(() => harness.server.podEvents.connected, 'connected');
    first.stream.cancel();
    await eventually(() => !harness.server.podEvents.connected, 'disconnected');
    expect(harness.sink.log).toEqual(['snapshot a1']);
    expect(harness.server.podEvents.synced).toBe(true);
    const again = await harness
      .connect()
      .push()
      .send({ snapshot: { pods: [pod('a1')] } })
      .end();
    expect(again.code).toBe(status.OK);
    expect(harness.sink.log).toEqual(['snapshot a1', 'snapshot a1']);
  });

  test('a replaced stream cannot slip an event in', async () => {
    const first = harness.connect().push();
    first.send({ snapshot: { pods: [] } });
    await eventually(() => harness.sink.log.length === 1, 'first snapshot');
    let open = (): void => undefined;
    harness.sink.gate = new Promise((resolve) => (open = resolve));
    const second = harness.connect().push();
    second.send({ snapshot: { pods: [pod('a1')] } });
    await first.outcome;
    first.send({ added: pod('a2') });
    open();
    await eventually(() => harness.sink.log.length === 2, 'second snapshot');
    second.send({ added: pod('a2') });
    await eventually(() => harness.sink.log.length === 3, 'event');
    expect(harness.sink.log[2]).toContain('added a2');
  });

  test('no snapshot in time: DEADLINE_EXCEEDED', async () => {
    const outcome = await harness.connect().push().outcome;
    expect(outcome).toMatchObject({ code: status.DEADLINE_EXCEEDED, details: 'no snapshot within 0.3 s of the start' });
  });

  test('a sink that fails: INTERNAL, with the reason', async () => {
    harness.sink.failure = new Error('map endpoints is gone');
    const outcome = await harness.connect().push().send({ snapshot: {} }).outcome;
    expect(outcome).toMatchObject({ code: status.INTERNAL, details: 'map endpoints is gone' });
  });

  test('a fifth stream at a time: RESOURCE_EXHAUSTED', async () => {
    const client = harness.connect();
    const open = [1, 2, 3, 4].map(() => client.push());
    const outcome = await client.push().outcome;
    expect(outcome.code).toBe(status.RESOURCE_EXHAUSTED);
    for (const push of open) push.stream.cancel();
  });

  test('more pods than the node can have: RESOURCE_EXHAUSTED', async () => {
    const pods = [1, 2, 3, 4].map((n) => pod(`a${n}`));
    const outcome = await harness.connect().push().send({ snapshot: { pods } }).outcome;
    expect(outcome.code).toBe(status.RESOURCE_EXHAUSTED);
    expect(outcome.details).toBe('pod default/a4: this node has 3 pods already, and that is all XMasq can take');
  });

  test('stopping the server ends streams with UNAVAILABLE', async () => {
    const push = harness.connect().push();
    push.send({ snapshot: {} });
    await eventually(() => harness.server.podEvents.connected, 'connected');
    await harness.server.stop();
    expect((await push.outcome).code).toBe(status.UNAVAILABLE);
  });

  const many = Array.from({ length: 5 }, (_, n) => `10.10.1.${n + 1}`);
  const badFields: [string, xmasq.v1.Pod.$Properties, string][] = [
    ['mac', { mac: '02:00:00:00:00' }, 'pod default/a1: field mac is "02:00:00:00:00"; expected a unicast Ethernet'],
    ['multicast mac', { mac: '03:00:00:00:00:01' }, 'field mac is "03:00:00:00:00:01"'],
    ['zero mac', { mac: '00:00:00:00:00:00' }, 'field mac is'],
    ['no mac', { mac: '' }, 'field mac is missing'],
    ['ip', { ips: ['10.10.1.2', '10.10.1.300'] }, 'pod default/a1: field ips[1] is "10.10.1.300"; expected a unicast'],
    ['octal ip', { ips: ['010.1.1.1'] }, 'field ips[0] is "010.1.1.1"'],
    ['prefix', { ips: ['10.10.1.2/24'] }, 'field ips[0]'],
    ['multicast ip', { ips: ['224.0.0.1'] }, 'field ips[0]'],
    ['zoned ip', { ips: ['fe80::1%eth0'] }, 'field ips[0]'],
    ['mapped ip', { ips: ['::ffff:10.1.1.1'] }, 'field ips[0]'],
    ['no ip', { ips: [] }, 'field ips is missing; expected 1 to 4 addresses'],
    ['many ips', { ips: many }, 'field ips is "10.10.1.1,10.10.1.2'],
    ['same ip twice', { ips: ['10.10.1.2', '10.10.1.2'] }, 'expected addresses that differ'],
    ['no if_name', { ifName: '' }, 'field if_name is missing; expected the name of the host-side interface'],
    ['long if_name', { ifName: 'veth012345678901' }, 'field if_name'],
    ['if_name with slash', { ifName: 'a/b' }, 'field if_name is "a/b"'],
    ['no container', { containerId: '' }, 'field container_id is missing'],
    ['namespace', { namespace: 'Default' }, 'field namespace is "Default"'],
    ['no name', { name: '' }, 'pod 1 of the snapshot: field name is missing'],
  ];
  test.each(badFields)('rejects a bad field: %s', async (_what, values, message) => {
    const outcome = await harness
      .connect()
      .push()
      .send({ snapshot: { pods: [pod('a1', values)] } }).outcome;
    expect(outcome.code).toBe(status.INVALID_ARGUMENT);
    expect(outcome.details).toContain(message);
    expect(harness.sink.log).toEqual([]);
    expect(harness.server.podEvents).toMatchObject({ synced: false, rejected: 1 });
  });

  const snapshot = { snapshot: { pods: [pod('a1')] } };
  const badSequences: [string, xmasq.v1.PodEvent.$Properties[], string][] = [
    ['event before snapshot', [{ added: pod('a1') }], 'an event came before the snapshot'],
    ['two snapshots', [snapshot, snapshot], 'a second snapshot on one stream'],
    ['empty message', [snapshot, {}], 'an empty message'],
    ['added twice', [snapshot, { added: pod('a1') }], 'field container_id "container-a1" is that of pod default/a1'],
    [
      'interface taken',
      [snapshot, { added: pod('a2', { ifName: 'veth1' }) }],
      'pod default/a2: field if_name "veth1" belongs to pod default/a1 (container container-a1); expected that to be removed first',
    ],
    ['address taken', [snapshot, { added: pod('a2', { ips: ['10.10.1.3'] }) }], 'field ips "10.10.1.3" belongs to'],
    [
      'changed to a taken address',
      [snapshot, { added: pod('a2') }, { changed: pod('a2', { ips: ['10.10.1.3'] }) }],
      'field ips "10.10.1.3" belongs to',
    ],
    ['changed unknown', [snapshot, { changed: pod('a2') }], 'pod default/a2: changed, but no pod has container_id'],
    [
      'removed without id',
      [snapshot, { removed: { namespace: 'n', name: 'x' } }],
      'pod n/x: field container_id is missing',
    ],
  ];
  test.each(badSequences)('rejects a bad sequence: %s', async (_what, events, message) => {
    const push = harness.connect().push();
    for (const event of events) push.send(event);
    const outcome = await push.outcome;
    expect(outcome.code).toBe(status.INVALID_ARGUMENT);
    expect(outcome.details).toContain(message);
  });

  test('an end without a snapshot is an error', async () => {
    const outcome = await harness.connect().push().end();
    expect(outcome).toMatchObject({ code: status.INVALID_ARGUMENT });
    expect(outcome.details).toContain('without a snapshot');
  });

  test('duplicates within a snapshot change nothing', async () => {
    const pods = [pod('a1'), pod('a2', { ifName: 'veth1' })];
    const outcome = await harness.connect().push().send({ snapshot: { pods } }).outcome;
    expect(outcome.details).toContain('field if_name "veth1" belongs to pod default/a1');
    expect(harness.sink.log).toEqual([]);
  });

  test('an address moves from a removed pod to a new one', async () => {
    const { code } = await harness
      .connect()
      .push()
      .send(snapshot)
      .send({ removed: { containerId: 'container-a1' } })
      .send({ added: pod('a2', { ips: ['10.10.1.3'] }) })
      .end();
    expect(code).toBe(status.OK);
  });
});
