/** What a running sidecar is told: pods on streams that break, events, calls and configurations that are wrong. */
import { readFileSync, writeFileSync } from 'node:fs';
import { status } from '@grpc/grpc-js';
import type { ServiceError } from '@grpc/grpc-js';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { xmasq } from '../../plugin/src/gen/xmasq.js';
import { AdminDefinition, PodEventsDefinition } from '../../plugin/src/grpc/services.ts';
import { eventually } from '../lab/lab.ts';
import type { Pod } from '../lab/lab.ts';
import { PodEventsStream } from '../lab/pod-events.ts';
import { up } from '../lab/native/native.ts';
import type { NativeLab } from '../lab/native/native.ts';
import { startSidecars } from '../lab/sidecar.ts';
import type { LabSidecars, Sidecar } from '../lab/sidecar.ts';
import { attachments, footprintOf, ifindexOf, remaining } from './support/footprint.ts';
import { withTransfer } from './support/streams.ts';

const { v1 } = xmasq;

describe('what a sidecar is told', () => {
  let lab: NativeLab;
  let sidecars: LabSidecars;
  let sidecar: Sidecar;
  let a: Pod;
  let b: Pod;
  /** Another pod of a's node. */
  let other: Pod;

  beforeAll(async () => {
    lab = await up();
    sidecars = await startSidecars(lab);
    sidecar = sidecars.node(0);
    a = lab.node(0).pod(0);
    other = lab.node(0).pod(1);
    b = lab.node(1).pod(0);
  });
  afterAll(async () => {
    await sidecars.down();
    await lab.down();
  });

  const steady = ['--seconds', '30', '--rate', '200000', '--send-size', '2000'];

  /** What must not change by a wrong message. */
  async function state(): Promise<unknown> {
    return {
      endpoints: await sidecar.admin.endpoints(),
      attachments: await attachments(sidecar.node),
      footprint: await footprintOf(sidecar.node),
    };
  }

  describe('pods', () => {
    test('a broken stream changes nothing', async () => {
      await withTransfer(lab, { from: a, to: b }, steady, async ({ port }) => {
        await sidecars.waitFast({ port });
        const before = await state();
        const flow = sidecar.maps.flows().find(([key]) => key.dport === port)?.[1];
        await sidecar.pods.stream.cancel();
        await eventually('stream noticed', async () => !(await sidecar.status()).podEvents.connected);
        const after = (await state()) as { endpoints: { flows: number }[] };
        expect(after).toEqual(before);
        const later = sidecar.maps.flows().find(([key]) => key.dport === port)?.[1];
        expect(later).toMatchObject({ gen: flow?.gen, slowPackets: flow?.slowPackets });
        expect((await sidecar.status()).podEvents.synced).toBe(true);
      });
    }, 40_000);

    test('a new stream replaces what the one before said: pods that it does not name are detached', async () => {
      const known = [a.endpoint, other.endpoint];
      await withTransfer(lab, { from: a, to: b }, steady, async ({ port }) => {
        sidecar.pods.snapshot(known);
        await sidecars.waitFast({ port });
        const first = sidecar.pods.stream;
        const before = await footprintOf(sidecar.node);
        sidecar.pods.snapshot([other.endpoint]);
        // The stream before is told why it ends.
        expect(await first.ended).toMatchObject({
          code: status.ABORTED,
          details: expect.stringContaining('newer stream'),
        });
        const [gone, kept] = [
          `-${await ifindexOf(a.node, a.endpoint.ifName)} `,
          `-${await ifindexOf(a.node, other.endpoint.ifName)} `,
        ];
        const hooks = (): Promise<string[]> => attachments(sidecar.node);
        await eventually('pod detached', async () => (await hooks()).every((hook) => !hook.includes(gone)));
        expect((await hooks()).filter((hook) => hook.includes(kept))).toHaveLength(2);
        // The two links are gone indeed, not their pins alone.
        expect((await remaining(sidecar.node, before)).links).toHaveLength(before.links.length - 2);
        expect((await sidecar.admin.endpoints()).map(({ containerId }) => containerId)).toEqual([
          other.endpoint.containerId,
        ]);
        await eventually('flow gone', () => sidecar.maps.flows().every(([key]) => key.dport !== port));

        sidecar.pods.snapshot(known);
        await eventually(
          'pod attached again',
          async () => (await sidecar.admin.endpoints()).every(({ attached }) => attached) && sidecar.pods.stream.open,
        );
        // A new connection: the old one's ports are kept for a while, as for a new pod.
        await withTransfer(lab, { from: a, to: b }, steady, ({ port: next }) => sidecars.waitFast({ port: next }));
      });
    }, 40_000);

    test('a pod without its interface waits for it, and the state says so', async () => {
      const ghost = {
        ...a.endpoint,
        name: 'ghost',
        containerId: 'f'.repeat(64),
        ifName: 'ghost-0',
        ips: ['10.10.1.99'],
      };
      sidecar.pods.snapshot([a.endpoint, other.endpoint]);
      sidecar.pods.stream.added(ghost);
      const found = await eventually('ghost known', async () =>
        (await sidecar.admin.endpoints()).find(({ containerId }) => containerId === ghost.containerId),
      );
      expect(found).toMatchObject({ attached: false, problem: 'interface ghost-0 does not exist' });
      await eventually('degraded', async () => (await sidecar.status()).state === 'degraded', 10_000);
      expect((await sidecar.status()).degradations).toEqual([
        {
          what: expect.stringContaining('pod default/ghost is not accelerated'),
          where: 'interface ghost-0',
          action: expect.any(String),
        },
      ]);
      sidecar.pods.stream.removed(ghost);
      await eventually('ready again', async () => (await sidecar.status()).state === 'ready', 10_000);
    }, 30_000);

    const pod = (change: xmasq.v1.Pod.$Properties): xmasq.v1.Pod.$Properties => ({
      namespace: 'default',
      name: 'new',
      containerId: 'e'.repeat(64),
      ifName: 'new-0',
      ips: ['10.10.1.77'],
      mac: '02:00:00:00:00:77',
      ...change,
    });
    const wrong: [what: string, event: () => xmasq.v1.PodEvent.$Properties, details: RegExp][] = [
      ['an empty message', () => ({}), /empty message/],
      ['a second snapshot', () => ({ snapshot: {} }), /second snapshot/],
      ['no namespace', () => ({ added: pod({ namespace: '' }) }), /namespace is missing/],
      ['a wrong name', () => ({ added: pod({ name: 'No_Name' }) }), /name is "No_Name"; expected a pod name/],
      ['no container ID', () => ({ added: pod({ containerId: '' }) }), /container_id is missing/],
      ['a path as interface', () => ({ added: pod({ ifName: '../etc' }) }), /if_name is "\.\.\/etc"/],
      ['an interface name too long', () => ({ added: pod({ ifName: 'x'.repeat(16) }) }), /if_name/],
      ['no address', () => ({ added: pod({ ips: [] }) }), /ips is missing/],
      [
        'an address with a prefix',
        () => ({ added: pod({ ips: ['10.10.1.77/24'] }) }),
        /ips\[0\] is "10\.10\.1\.77\/24"/,
      ],
      ['a multicast address', () => ({ added: pod({ ips: ['224.0.0.1'] }) }), /ips\[0\]/],
      ['a group MAC address', () => ({ added: pod({ mac: '01:00:5e:00:00:01' }) }), /mac is/],
      ['a known container', () => ({ added: a.endpoint as xmasq.v1.Pod.$Properties }), /already; expected one per pod/],
      [
        "another pod's address",
        () => ({ added: pod({ ips: [...a.endpoint.ips] }) }),
        /belongs to pod default\/pod-1-2/,
      ],
      ["another pod's interface", () => ({ added: pod({ ifName: a.endpoint.ifName }) }), /belongs to pod default\//],
      ['a change of nobody', () => ({ changed: pod({}) }), /no pod has container_id/],
      ['a removal without ID', () => ({ removed: { name: 'x' } }), /container_id is missing/],
    ];

    test('wrong events end the stream with a clear error and change nothing', async () => {
      sidecar.pods.snapshot([a.endpoint, other.endpoint]);
      await eventually(
        'both attached',
        async () => (await sidecar.admin.endpoints()).every(({ attached }) => attached) && sidecar.pods.stream.open,
      );
      const before = await state();
      for (const [what, event, details] of wrong) {
        const stream = PodEventsStream.open(sidecar.admin.client, [a.endpoint, other.endpoint]);
        stream.send(event());
        const { code, details: said } = await stream.ended;
        expect({ what, code }).toEqual({ what, code: status.INVALID_ARGUMENT });
        expect(said).toMatch(details);
        expect(said.length).toBeLessThan(500);
      }
      expect(await state()).toEqual(before);
      // What is removed twice was gone already: no error, and counted.
      const stream = PodEventsStream.open(sidecar.admin.client, [a.endpoint, other.endpoint]);
      stream.send({ removed: { namespace: 'default', name: 'x', containerId: 'nobody' } });
      expect(await stream.close()).toMatchObject({ code: status.OK, summary: { ignored: 1, snapshotPods: 2 } });
      expect((await sidecar.status()).podEvents.rejected).toBe(wrong.length);
      expect(await state()).toEqual(before);
    }, 40_000);

    test('an event before the snapshot, a wrong snapshot and bytes that are no message change nothing', async () => {
      const before = await state();
      const { path, responseDeserialize } = PodEventsDefinition.push;
      const push = (messages: readonly Buffer[]): Promise<{ code: number; details: string }> =>
        new Promise((resolve) => {
          const call = sidecar.admin.client.makeClientStreamRequest(
            path,
            (bytes: Buffer) => bytes,
            responseDeserialize,
            (error: ServiceError | null) => resolve({ code: error?.code ?? 0, details: error?.details ?? '' }),
          );
          call.on('error', () => undefined);
          for (const message of messages) call.write(message);
        });
      const encode = (event: xmasq.v1.PodEvent.$Properties): Buffer =>
        Buffer.from(v1.PodEvent.encode(new v1.PodEvent(event)).finish());
      expect(await push([encode({ added: pod({}) })])).toMatchObject({
        code: status.INVALID_ARGUMENT,
        details: expect.stringContaining('before the snapshot'),
      });
      expect(await push([encode({ snapshot: { pods: [pod({}), pod({})] } })])).toMatchObject({
        code: status.INVALID_ARGUMENT,
        details: expect.stringContaining('already'),
      });
      expect(await push([encode({ snapshot: { pods: [pod({ mac: 'x' })] } })])).toMatchObject({
        code: status.INVALID_ARGUMENT,
        details: expect.stringMatching(/pod default\/new: field mac/),
      });
      for (const bytes of ['ff', '0a05', '0affffffff0f', '00'.repeat(64)]) {
        expect([status.INTERNAL, status.INVALID_ARGUMENT]).toContain((await push([Buffer.from(bytes, 'hex')])).code);
      }
      expect(await state()).toEqual(before);
      expect(await sidecar.status()).toMatchObject({ state: 'ready' });
    }, 30_000);
  });

  test('wrong calls of the Admin service get a clear error and change nothing', async () => {
    const { admin } = sidecar;
    const before = await state();
    await expect(admin.call('flush', new v1.FlushRequest())).rejects.toThrow(/INVALID_ARGUMENT: nothing to flush/);
    await expect(admin.call('flush', new v1.FlushRequest({ pod: { namespace: 'default' } }))).rejects.toThrow(
      /INVALID_ARGUMENT: field pod.name is missing/,
    );
    await expect(
      admin.call('flush', new v1.FlushRequest({ pod: { namespace: 'default', name: 'nobody' } })),
    ).rejects.toThrow(/NOT_FOUND: no pod default\/nobody on this node/);
    await expect(admin.call('flush', new v1.FlushRequest({ peer: 'nowhere' }))).rejects.toThrow(
      /NOT_FOUND: no peer nowhere/,
    );
    await expect(admin.flows({ ip: '10.10.1' })).rejects.toThrow(/INVALID_ARGUMENT: field ip is "10.10.1"/);
    await expect(admin.flows({ proto: 256 })).rejects.toThrow(/INVALID_ARGUMENT: field protocol is 256/);
    await expect(admin.flows({ port: 65536 })).rejects.toThrow(/INVALID_ARGUMENT: field port is 65536/);
    const raw = (path: string, bytes: string): Promise<number> =>
      new Promise((resolve) => {
        admin.client.makeUnaryRequest(
          path,
          (request: Buffer) => request,
          (response: Buffer) => response,
          Buffer.from(bytes, 'hex'),
          (error: ServiceError | null) => resolve(error?.code ?? status.OK),
        );
      });
    expect(await raw(AdminDefinition.flush.path, 'ffff')).toBe(status.INTERNAL);
    expect(await raw('/xmasq.v1.Admin/Destroy', '')).toBe(status.UNIMPLEMENTED);
    // What such errors look like to a person: the command's exit codes are 1 and 2.
    const flush = await sidecar.cli(['flush', '--peer', 'nowhere']);
    expect(flush).toMatchObject({ code: 1, stderr: expect.stringContaining('no peer nowhere') });
    expect((await sidecar.cli(['flows', '--port', 'http'])).code).toBe(2);
    expect(await state()).toEqual(before);
  }, 40_000);

  test('a wrong configuration is refused with file, line and field, while the data plane runs', async () => {
    const before = await state();
    const good = readFileSync(sidecar.configFile, 'utf8');
    const file = `${sidecar.configFile}.wrong`;
    const lineOf = (text: string, key: string): number =>
      text.split('\n').findIndex((line) => line.trim().startsWith(`${key}:`)) + 1;
    const cases: [change: (text: string) => string, key: string, message: string][] = [
      [(text) => text.replace(/startHold: .*/, 'startHold: never'), 'startHold', 'startHold: is "never"'],
      [(text) => text.replace(/port: 4789/, 'port: 70000'), 'port', 'tunnel.port: is 70000'],
      [(text) => text.replace(/zone: 65520/, 'zone: -1'), 'zone', 'conntrack.zone: is -1'],
      [(text) => `${text}speed: fast\n`, 'speed', 'speed: is not a known key'],
      [(text) => text.replace(/^bpffs: .*/m, 'bpffs: relative/path'), 'bpffs', 'bpffs: is "relative/path"'],
      [(text) => text.replace(/level: .*/, 'level: loud'), 'level', 'log.level: is "loud"'],
    ];
    for (const [change, key, message] of cases) {
      const text = change(good);
      writeFileSync(file, text);
      for (const command of ['run', 'cleanup']) {
        const { code, stderr } = await sidecar.agent([command, '--config', file]);
        expect({ message, code }).toEqual({ message, code: 1 });
        expect(stderr).toContain(`${file}:${lineOf(text, key)}: ${message}`);
        expect(stderr).not.toMatch(/\n {4}at /);
      }
    }
    // More than one at once: all are told.
    writeFileSync(file, good.replace(/startHold: .*/, 'startHold: never').replace(/level: .*/, 'level: loud'));
    const { stderr } = await sidecar.agent(['run', '--config', file]);
    expect(stderr).toMatch(/startHold: is "never"[^]*log\.level: is "loud"/);
    writeFileSync(file, 'nodeName: [');
    expect(await sidecar.agent(['run', '--config', file])).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/xmasq-agent\.yaml\.wrong:\d+: is not valid YAML/),
    });
    expect(await sidecar.agent(['run', '--config', `${file}.none`])).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('no such file'),
    });
    expect(await state()).toEqual(before);
    expect(await sidecar.status()).toMatchObject({ state: 'ready' });
  }, 90_000);
});
