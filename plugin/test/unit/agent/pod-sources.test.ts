import { beforeEach, describe, expect, test } from '@jest/globals';
import { PodSources } from '../../../src/agent/pod-sources.ts';
import { Degradations } from '../../../src/dataplane/degradations.ts';
import { Endpoints } from '../../../src/dataplane/endpoints.ts';
import type { Pod, PodEventSink } from '../../../src/grpc/backend.ts';
import { FakeAttacher, FakeClock, fakeNotes, FakeTables, link, program, quiet } from '../dataplane/fakes.ts';

function pod(n: number, over: Partial<Pod> = {}): Pod {
  return {
    namespace: 'default',
    name: `p${n}`,
    containerId: `c${n}`,
    ifName: `veth${n}`,
    ips: [`10.10.1.${n}`],
    mac: `02:00:00:00:00:0${n}`,
    ...over,
  };
}

/** Records calls, and that they come one at a time. */
class Recorder implements PodEventSink {
  readonly told: string[] = [];
  failures = 0;
  #running = 0;

  snapshot(pods: readonly Pod[]): Promise<void> {
    return this.#take(`snapshot ${pods.map(({ name }) => name).join()}`);
  }
  added({ name }: Pod): Promise<void> {
    return this.#take(`added ${name}`);
  }
  changed({ name, mac }: Pod): Promise<void> {
    return this.#take(`changed ${name} ${mac}`);
  }
  removed({ name }: Pod): Promise<void> {
    return this.#take(`removed ${name}`);
  }

  async #take(what: string): Promise<void> {
    this.#running++;
    expect(this.#running).toBe(1);
    await new Promise((resolve) => setImmediate(resolve));
    this.#running--;
    this.told.push(what);
    if (this.failures-- > 0) throw new Error('not now');
  }
}

let recorder: Recorder;
let sources: PodSources;
/** Believed before the other one, and required. */
let ovsdb: PodEventSink;
let pushed: PodEventSink;

beforeEach(() => {
  recorder = new Recorder();
  sources = new PodSources(recorder);
  ovsdb = sources.source({ required: true });
  pushed = sources.source();
});

describe('pods of two sources', () => {
  test('are one set', async () => {
    await ovsdb.snapshot([pod(1)]);
    await pushed.snapshot([pod(2)]);
    await pushed.added(pod(3));
    await ovsdb.added(pod(4));
    await pushed.removed(pod(2));
    await ovsdb.removed(pod(1));
    expect(recorder.told).toEqual([
      'snapshot p1',
      'snapshot p1,p2',
      'added p3',
      'added p4',
      'removed p2',
      'removed p1',
    ]);
    expect(sources.pods.map(({ name }) => name)).toEqual(['p3', 'p4']);
  });

  test('a source that nobody uses keeps nothing waiting', async () => {
    await ovsdb.snapshot([pod(1)]);
    await ovsdb.added(pod(2));
    expect(recorder.told).toEqual(['snapshot p1', 'added p2']);
  });

  test('nothing is taken away before the required source has spoken', async () => {
    await pushed.snapshot([pod(1), pod(2)]);
    await pushed.snapshot([pod(2)]);
    await ovsdb.snapshot([pod(3)]);
    expect(recorder.told).toEqual(['added p1', 'added p2', 'removed p1', 'snapshot p2,p3']);
  });

  test('where both tell of a container the first one is believed', async () => {
    const [mine, theirs] = [pod(1, { mac: '02:00:00:00:00:aa' }), pod(1, { mac: '02:00:00:00:00:bb' })];
    await ovsdb.snapshot([]);
    await pushed.snapshot([theirs]);
    await ovsdb.added(mine);
    await pushed.changed(pod(1, { mac: '02:00:00:00:00:cc' }), theirs);
    await pushed.removed(theirs);
    expect(recorder.told).toEqual(['snapshot ', 'snapshot p1', 'changed p1 02:00:00:00:00:aa']);
    await ovsdb.removed(mine);
    expect(recorder.told.at(-1)).toBe('removed p1');
  });

  test('a container that the first source ended is gone, whatever the other one goes on telling', async () => {
    await ovsdb.snapshot([pod(1), pod(2), pod(3)]);
    await pushed.snapshot([pod(1), pod(2), pod(3)]);
    await ovsdb.removed(pod(1));
    await ovsdb.snapshot([pod(3)]);
    await pushed.snapshot([pod(1), pod(2), pod(3)]);
    await pushed.changed(pod(1, { mac: '02:00:00:00:00:cc' }), pod(1));
    expect(sources.pods.map(({ name }) => name)).toEqual(['p3']);
    // It was forgotten by both, or told of by the first again: it counts again.
    await pushed.removed(pod(1));
    await pushed.added(pod(1));
    await ovsdb.added(pod(2));
    expect(sources.pods.map(({ name }) => name).sort()).toEqual(['p1', 'p2', 'p3']);
  });

  test('a snapshot takes away what its source had, not what the other one has', async () => {
    await ovsdb.snapshot([pod(1), pod(2)]);
    await pushed.snapshot([pod(3)]);
    await ovsdb.snapshot([pod(2)]);
    expect(recorder.told.at(-1)).toBe('snapshot p2,p3');
    await pushed.snapshot([]);
    expect(recorder.told.at(-1)).toBe('snapshot p2');
  });

  test('nothing is told where nothing changes', async () => {
    await ovsdb.snapshot([pod(1)]);
    await pushed.added(pod(1));
    await ovsdb.changed(pod(1), pod(1));
    await pushed.removed(pod(7));
    expect(recorder.told).toEqual(['snapshot p1']);
  });

  test('calls of both come one at a time, and a rejection is followed by a snapshot', async () => {
    await ovsdb.snapshot([pod(1)]);
    recorder.failures = 1;
    const results = await Promise.allSettled([ovsdb.added(pod(2)), pushed.added(pod(3)), ovsdb.added(pod(4))]);
    expect(results.map(({ status }) => status)).toEqual(['rejected', 'fulfilled', 'fulfilled']);
    expect(recorder.told).toEqual(['snapshot p1', 'added p2', 'snapshot p1,p2,p3', 'added p4']);
  });
});

describe('containers that claim the same', () => {
  let endpoints: Endpoints;
  let tables: FakeTables;

  beforeEach(() => {
    tables = new FakeTables();
    endpoints = new Endpoints({
      tables,
      attacher: new FakeAttacher(),
      programs: { pod_egress: program('pod_egress'), pod_ingress: program('pod_ingress') },
      links: { byName: (name) => link(name, 100 + Number(name.slice(4))), all: () => [] },
      notes: fakeNotes(),
      degradations: new Degradations(quiet),
      log: quiet,
      now: new FakeClock().now,
    });
    sources = new PodSources(endpoints);
    ovsdb = sources.source({ required: true });
    pushed = sources.source();
  });

  const attached = (): string[] =>
    endpoints
      .list(new Map())
      .filter((entry) => entry.attached)
      .map((entry) => entry.pod);

  test.each([
    ['address', { ips: ['10.10.1.1'] }],
    ['interface', { ifName: 'veth1' }],
  ])(
    '%s: the later one has it, whichever source tells of it, and the earlier one when that is gone',
    async (_what, same) => {
      await ovsdb.snapshot([pod(1)]);
      await pushed.snapshot([pod(2, same)]);
      expect(attached()).toEqual(['p2']);
      // The same again is nothing new.
      await ovsdb.snapshot([pod(1)]);
      expect(attached()).toEqual(['p2']);
      await ovsdb.added(pod(3, same));
      expect(attached()).toEqual(['p3']);
      await ovsdb.removed(pod(3));
      await pushed.removed(pod(2));
      expect(attached()).toEqual(['p1']);
    },
  );
});
