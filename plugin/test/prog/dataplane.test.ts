/** Loading, attaching, taking over and cleaning up on the running kernel, in a network namespace of its own. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { credentials, Client } from '@grpc/grpc-js';
import { execFileSync } from 'node:child_process';
import { cpSync, existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { cleanup, NotDrainedError } from '../../src/agent/cleanup.ts';
import { RequirementError } from '../../src/util/errors.ts';
import { loadOrReplace } from '../../src/agent/replace.ts';
import { startAgent, type RunningAgent } from '../../src/agent/run.ts';
import { attachClsact, ensureClsact } from '../../src/bpf/clsact.ts';
import { openPinned } from '../../src/bpf/fd.ts';
import { programInfo } from '../../src/bpf/info.ts';
import { attachTcx, Link, queryTcx } from '../../src/bpf/link.ts';
import { ArrayMap, HashMap } from '../../src/bpf/map.ts';
import { BpfObject } from '../../src/bpf/object.ts';
import { BPFFS, ensureBpffs } from '../../src/bpf/pins.ts';
import { parseConfig } from '../../src/config/load.ts';
import type { Config } from '../../src/config/config.ts';
import { ClsactAttacher, TcxAttacher } from '../../src/dataplane/attach.ts';
import { Drain } from '../../src/dataplane/drain.ts';
import { ConfigFlag, LAYOUT_VERSION } from '../../src/dataplane/layout.ts';
import {
  IncompatibleStateError,
  loadDataPlane,
  reloadProgram,
  type LoadOptions,
  type LoadedPrograms,
} from '../../src/dataplane/load.ts';
import { Notes } from '../../src/dataplane/notes.ts';
import { PinLayout } from '../../src/dataplane/pins.ts';
import { monotonic } from '../../src/dataplane/ports.ts';
import { probeKernel } from '../../src/dataplane/probe.ts';
import { maps } from '../../src/gen/layouts.ts';
import { xmasq } from '../../src/gen/xmasq.js';
import { AdminDefinition, PodEventsDefinition } from '../../src/grpc/services.ts';
import { filters, linkByName, qdiscs } from '../../src/netlink/rtnetlink.ts';
import { quiet } from '../unit/dataplane/fakes.ts';
import { enterPrivateNamespace, type PrivateNamespace } from './netns.ts';

const v1 = xmasq.v1;
const build = join(import.meta.dirname, '../../../build/bpf');
/** Copies: a build that runs meanwhile must not change the programs between two loads. */
const objects = mkdtempSync(join(tmpdir(), 'xd-bpf-'));
const files = { dataPlane: join(objects, 'xmasq.bpf.o'), probe: join(objects, 'probe.bpf.o') };
const sizes = { flows: 1024, slots: 2048, approvals: 1024, refusals: 1024 };

let namespace: PrivateNamespace;
let directory: string;
let pins: PinLayout;
let load: LoadOptions;
let serial = 0;

const ip = (...args: string[]): void => void execFileSync('ip', args);

function ifindexOf(device: string): number {
  const link = linkByName(device);
  if (link === undefined) throw new Error(`no device ${device}`);
  return link.ifindex;
}

function addVeth(name: string): number {
  ip('link', 'add', name, 'type', 'veth', 'peer', 'name', `${name}-p`);
  ip('link', 'set', name, 'up');
  return ifindexOf(name);
}

async function eventually<T>(what: string, look: () => Promise<T | undefined> | T | undefined, ms = 8000): Promise<T> {
  const end = Date.now() + ms;
  for (;;) {
    const found = await look();
    if (found !== undefined && found !== false) return found;
    if (Date.now() > end) throw new Error(`not within ${ms} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

function pinnedId(path: string): number {
  using fd = openPinned(path);
  return programInfo(fd.fd).id;
}

/** As another version's sidecar would have written it. */
function setLayoutVersion(layoutVersion: number, flags = 0): void {
  using config = new ArrayMap({ path: pins.map('config') }, maps.config.value);
  config.set(0, { ...config.get(0), layoutVersion, flags });
}

beforeAll(() => {
  cpSync(build, objects, { recursive: true });
  ensureBpffs();
  namespace = enterPrivateNamespace();
  ip('link', 'set', 'lo', 'up');
});

afterAll(() => {
  rmSync(objects, { recursive: true, force: true });
  namespace.leave();
});

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'xd-'));
  pins = new PinLayout(join(BPFFS, `xd-${process.pid}-${serial++}`));
  load = { pins, objectPath: files.dataPlane, sizes };
});

afterEach(() => {
  rmSync(directory, { recursive: true, force: true });
  rmSync(pins.root, { recursive: true, force: true });
});

describe('the kernel', () => {
  test('is probed by trying', async () => {
    const probe = await probeKernel(files.probe);
    expect([100, 250, 300, 1000]).toContain(probe.hz);
    expect(typeof probe.conntrackZone).toBe('boolean');
  });
});

describe('notes on the bpf file system', () => {
  test('are written, replaced, listed and removed', () => {
    pins.prepare();
    const notes = new Notes(pins.notes);
    expect(notes.get('a')).toBeUndefined();
    notes.set('a', 'one');
    notes.set('a', '{"two": "x/y"}');
    notes.set('b-1', 'three');
    expect(notes.get('a')).toBe('{"two": "x/y"}');
    expect(notes.names('b-')).toEqual(['b-1']);
    notes.delete('a');
    notes.delete('a');
    expect(notes.names()).toEqual(['b-1']);
    expect(() => notes.set('c', '')).toThrow(RangeError);
    expect(() => notes.set('c', 'x'.repeat(5000))).toThrow(RangeError);
    notes.clear();
    expect(existsSync(pins.notes)).toBe(false);
  });
});

describe('loading', () => {
  test('a second load adopts maps with their contents, and programs', () => {
    const first = loadDataPlane(load);
    first.tables.endpointByIfindex.set(5, 6);
    const ids = Object.values(first.programs).map(({ id }) => id);
    expect(first.adopted).toBe(false);
    first.close();
    const second = loadDataPlane(load);
    expect([second.adopted, second.replaced]).toEqual([true, []]);
    expect(second.tables.endpointByIfindex.get(5)).toBe(6);
    expect(Object.values(second.programs).map(({ id }) => id)).toEqual(ids);
    second.close();
  });

  test('maps of another size are refused, and nothing is touched', () => {
    loadDataPlane(load).close();
    const before = pinnedId(pins.program('pod_egress'));
    const other = { ...load, sizes: { ...sizes, flows: 4096 } };
    expect(() => loadDataPlane(other)).toThrow(IncompatibleStateError);
    expect(() => loadDataPlane(other)).toThrow(/map flows has max_entries 1024.*want 4096/);
    expect(pinnedId(pins.program('pod_egress'))).toBe(before);
    loadDataPlane(load).close();
  });

  test('another layout version is refused', () => {
    loadDataPlane(load).close();
    setLayoutVersion(77);
    expect(() => loadDataPlane(load)).toThrow(`layout version 77, this build has ${LAYOUT_VERSION}`);
  });

  /** A drain that a person began so long ago that it is over. */
  const drained = (): void => new Notes(pins.notes).set(Drain.NOTE, '1');

  test.each([
    ['of another size', () => ({ ...load, sizes: { ...sizes, flows: 4096 } })],
    [
      'of another layout version',
      () => {
        setLayoutVersion(77);
        return load;
      },
    ],
    [
      'with another value',
      () => {
        rmSync(pins.map('refusals'));
        const create = ['type', 'lru_hash', 'key', '20', 'value', '8', 'entries', '1024', 'name', 'refusals'];
        execFileSync('bpftool', ['map', 'create', pins.map('refusals'), ...create]);
        return load;
      },
    ],
  ])('a drained data plane with maps %s is replaced, and stays drained', async (_what, change) => {
    loadDataPlane(load).close();
    drained();
    const before = pinnedId(pins.program('pod_egress'));
    const next = await loadOrReplace(change(), quiet);
    expect(next.adopted).toBe(false);
    expect(pinnedId(pins.program('pod_egress'))).not.toBe(before);
    expect(next.tables.config.get(0)).toMatchObject({ layoutVersion: 0, flags: 0 });
    next.close();
    expect(new Notes(pins.notes).get(Drain.NOTE)).toBe('1');
  });

  test('one that is not drained is taken out, and left where it is while peers may send to it', async () => {
    loadDataPlane(load).close();
    setLayoutVersion(77, ConfigFlag.ADMIT | ConfigFlag.SEND | ConfigFlag.CT_LOOKUP);
    const before = pinnedId(pins.program('pod_egress'));
    const soon = AbortSignal.timeout(300);
    await expect(loadOrReplace(load, quiet, soon)).rejects.toThrow('aborted');
    expect(pinnedId(pins.program('pod_egress'))).toBe(before);
    using config = new ArrayMap({ path: pins.map('config') }, maps.config.value);
    expect(config.get(0)).toMatchObject({ layoutVersion: 77, flags: ConfigFlag.CT_LOOKUP });
    // Else the former version, were it to come back, would stay out.
    expect(new Notes(pins.notes).get(Drain.NOTE)).toBeUndefined();
  });

  test('one whose removal was cut short is removed, without waiting', async () => {
    loadDataPlane(load).close();
    setLayoutVersion(77, ConfigFlag.SEND);
    rmSync(pins.map('config'));
    const next = await loadOrReplace({ ...load, sizes: { ...sizes, flows: 4096 } }, quiet, AbortSignal.timeout(5000));
    expect(next.adopted).toBe(false);
    next.close();
  });

  test('what is no data plane is left alone', async () => {
    loadDataPlane(load).close();
    rmSync(pins.map('config'));
    const create = ['type', 'hash', 'key', '4', 'value', '8', 'entries', '4', 'name', 'config'];
    execFileSync('bpftool', ['map', 'create', pins.map('config'), ...create]);
    drained();
    const before = readdirSync(pins.maps);
    await expect(loadOrReplace(load, quiet)).rejects.toThrow(IncompatibleStateError);
    expect(readdirSync(pins.maps)).toEqual(before);
  });

  test('a program that is another now is replaced', () => {
    loadDataPlane(load).close();
    rmSync(pins.program('pod_egress'));
    {
      using object = BpfObject.open(files.probe);
      for (const name of object.programNames()) object.setAutoload(name, name === 'probe_jiffies');
      object.load();
      object.pinProgram('probe_jiffies', pins.program('pod_egress'));
    }
    const loaded = loadDataPlane(load);
    expect(loaded.replaced).toEqual(['pod_egress']);
    expect(pinnedId(pins.program('pod_egress'))).toBe(loaded.programs.pod_egress.id);
    loaded.close();
  });

  test('a place that is no bpf file system is refused with advice', () => {
    expect(() => new PinLayout(join(directory, 'pins')).prepare()).toThrow(/not on a bpf file system.*mount/);
  });
});

describe('attaching by TCX', () => {
  test('links survive, are adopted, updated, moved first and removed', () => {
    const loaded = loadDataPlane(load);
    const ifindex = addVeth('xd-t0');
    const attacher = new TcxAttacher(pins);
    const { uplink_egress: egress, uplink_ingress: ingress, pod_ingress: foreign } = loaded.programs;
    attacher.attach(ingress, ifindex);
    attacher.attach(egress, ifindex);
    attacher.attach(egress, ifindex);
    expect([queryTcx(ifindex, 'ingress'), queryTcx(ifindex, 'egress')]).toEqual([[ingress.id], [egress.id]]);
    expect(attacher.position(egress, ifindex)).toBe('first');

    using other = attachTcx({ progFd: foreign.fd, ifindex, direction: 'egress', first: true });
    expect(attacher.position(egress, ifindex)).toBe('later');
    const fds: { close(): void }[] = [];
    const moved = attacher.moveFirst(egress, ifindex, () => {
      const { program, fd } = reloadProgram(load, 'uplink_egress');
      fds.push(fd);
      return program;
    });
    expect(queryTcx(ifindex, 'egress')).toEqual([moved.id, foreign.id]);
    expect([attacher.position(moved, ifindex), attacher.position(egress, ifindex)]).toEqual(['first', 'absent']);
    expect(attacher.list()).toHaveLength(2);

    // What a start with another program does.
    attacher.attach(egress, ifindex);
    expect(queryTcx(ifindex, 'egress')).toEqual([egress.id, foreign.id]);
    expect(attacher.detach('uplink_egress', ifindex)).toBe(true);
    expect(attacher.detach('uplink_egress', ifindex)).toBe(false);
    expect(queryTcx(ifindex, 'egress')).toEqual([foreign.id]);
    other.close();
    for (const fd of fds) fd.close();

    // A device that goes leaves a link without one.
    ip('link', 'del', 'xd-t0');
    expect(attacher.position(ingress, ifindex)).toBe('absent');
    expect(() => attacher.attach(ingress, ifindex)).toThrow(/ENODEV/);
    expect(attacher.detach('uplink_ingress', ifindex)).toBe(false);
    expect(attacher.list()).toEqual([]);
    loaded.close();
  });
});

describe('attaching by clsact', () => {
  let programs: LoadedPrograms;
  let attacher: ClsactAttacher;
  let close: () => void;

  beforeEach(() => {
    const loaded = loadDataPlane(load);
    programs = loaded.programs;
    close = () => loaded.close();
    attacher = new ClsactAttacher(new Notes(pins.notes));
  });
  afterEach(() => close());

  test('filters are found again, and our qdisc goes with the last of them', () => {
    const ifindex = addVeth('xd-c0');
    const { pod_egress: egress, pod_ingress: ingress } = programs;
    attacher.attach(egress, ifindex);
    attacher.attach(ingress, ifindex);
    attacher.attach(ingress, ifindex);
    expect(filters(ifindex, 'ingress').filter((filter) => filter.bpfId === egress.id)).toHaveLength(1);
    expect(attacher.position(ingress, ifindex)).toBe('first');
    expect(new ClsactAttacher(new Notes(pins.notes)).list()).toHaveLength(2);
    attacher.detach('pod_egress', ifindex);
    expect(qdiscs(ifindex)).toContain('clsact');
    attacher.detach('pod_ingress', ifindex);
    expect(qdiscs(ifindex)).not.toContain('clsact');
    expect(attacher.list()).toEqual([]);
    ip('link', 'del', 'xd-c0');
  });

  test("other people's qdisc and filters stay; ours comes first again", () => {
    const ifindex = addVeth('xd-c1');
    ensureClsact(ifindex);
    const { uplink_egress: egress, pod_ingress: foreign } = programs;
    attacher.attach(egress, ifindex);
    attachClsact({ ifindex, direction: 'egress', handle: 9, priority: 1, progFd: foreign.fd });
    expect(attacher.position(egress, ifindex)).toBe('later');
    expect(attacher.moveFirst(egress, ifindex)).toBe(egress);
    expect(attacher.position(egress, ifindex)).toBe('first');
    attacher.detach('uplink_egress', ifindex);
    expect(filters(ifindex, 'egress').some((filter) => filter.bpfId === foreign.id)).toBe(true);
    expect(qdiscs(ifindex)).toContain('clsact');
    ip('link', 'del', 'xd-c1');
  });
});

describe('the sidecar', () => {
  const uplinkDevice = 'xd-up';
  let config: Config;
  let agent: RunningAgent | undefined;
  let client: Client | undefined;

  beforeEach(() => {
    const cluster = join(directory, 'cluster.yaml');
    writeFileSync(
      cluster,
      JSON.stringify({
        nodes: [
          { name: 'n1', address: '192.0.2.1', podCIDRs: ['10.10.1.0/24'] },
          {
            name: 'n2',
            address: '192.0.2.2',
            podCIDRs: ['10.10.2.0/24'],
            capability: { protocol: 1, incarnation: 'a' },
          },
        ],
      }),
    );
    config = parseConfig(
      'test',
      JSON.stringify({
        nodeName: 'n1',
        bpffs: pins.root,
        socket: join(directory, 's'),
        clusterState: { file: cluster },
        startHold: 0,
        maps: sizes,
        metrics: { address: '127.0.0.1:9797' },
      }),
    );
    addVeth(uplinkDevice);
    ip('addr', 'add', '192.0.2.1/24', 'dev', uplinkDevice);
  });

  afterEach(async () => {
    await stop();
    ip('link', 'del', uplinkDevice);
  });

  async function start(startConfig: Config = config): Promise<void> {
    agent = await startAgent(startConfig, files, quiet);
    client = new Client(`unix://${config.socket}`, credentials.createInsecure(), {
      'grpc.use_local_subchannel_pool': 1,
    });
  }

  async function stop(): Promise<void> {
    client?.close();
    await agent?.stop();
    agent = client = undefined;
  }

  interface Method<Q, A> {
    readonly path: string;
    readonly requestSerialize: (request: Q) => Buffer;
    readonly responseDeserialize: (bytes: Buffer) => A;
  }

  async function call<Q, A>({ path, requestSerialize, responseDeserialize }: Method<Q, A>, request: Q): Promise<A> {
    return new Promise((resolve, reject) => {
      client?.makeUnaryRequest(path, requestSerialize, responseDeserialize, request, (error, answer) => {
        if (error === null && answer !== undefined) resolve(answer);
        else reject(error ?? new Error(`${path}: no answer`));
      });
    });
  }

  function push(...pods: { name: string; ifName: string; ip: string }[]): void {
    const { path, requestSerialize, responseDeserialize } = PodEventsDefinition.push;
    const stream = client?.makeClientStreamRequest(path, requestSerialize, responseDeserialize, () => undefined);
    stream?.on('error', () => undefined);
    stream?.write(
      new v1.PodEvent({
        snapshot: {
          pods: pods.map(({ name, ifName, ip: address }) => ({
            namespace: 'default',
            name,
            containerId: name.padEnd(64, '0').replace(/[^0-9a-f]/g, 'a'),
            ifName,
            ips: [address],
            mac: '0a:00:00:00:00:01',
          })),
        },
      }),
    );
  }

  const flags = (): number => {
    using map = new ArrayMap({ path: pins.map('config') }, maps.config.value);
    return map.get(0).flags;
  };
  const attached = async (): Promise<string[]> =>
    (await call(AdminDefinition.endpoints, new v1.EndpointsRequest())).endpoints
      .filter((entry) => entry.attached)
      .map((entry) => entry.pod ?? '');

  test('starts, attaches pods, hands over to its successor, and leaves nothing after cleanup', async () => {
    await start();
    const up = ifindexOf(uplinkDevice);
    await eventually('the node takes part', () => (flags() & (ConfigFlag.ADMIT | ConfigFlag.SEND)) === 3 || undefined);
    expect(queryTcx(up, 'egress')).toEqual([pinnedId(pins.program('uplink_egress'))]);
    const pod = addVeth('xd-v1');
    push({ name: 'one', ifName: 'xd-v1', ip: '10.10.1.2' }, { name: 'two', ifName: 'xd-v2', ip: '10.10.1.3' });
    await eventually('the first pod', async () => (await attached()).includes('one') || undefined);
    addVeth('xd-v2');
    await eventually('the pod whose interface came later', async () => (await attached()).includes('two') || undefined);
    const metrics = await fetch('http://127.0.0.1:9797/metrics').then(
      (response) => response.text(),
      // libuv's threads may be in the first namespace, where nobody listens.
      () => undefined,
    );
    if (metrics !== undefined) expect(metrics).toContain('xmasq_endpoints 2');

    await expect(startAgent(config, files, quiet)).rejects.toThrow(RequirementError);
    await expect(cleanup(config, { force: true, wait: false, say: () => undefined })).rejects.toThrow(/is running/);

    await stop();
    const programs = queryTcx(pod, 'ingress');
    expect(programs).toHaveLength(1);
    expect(flags() & 3).toBe(3);

    // The successor finds another program in the pin, as after an upgrade.
    rmSync(pins.program('pod_ingress'));
    {
      const { fd } = reloadProgram(load, 'uplink_egress');
      rmSync(pins.program('uplink_egress'));
      fd.close();
    }
    ip('link', 'del', 'xd-v2');
    await start();
    expect(flags() & 3).toBe(3);
    expect(queryTcx(pod, 'ingress')).toEqual(programs);
    expect(queryTcx(pod, 'egress')).toEqual([pinnedId(pins.program('pod_ingress'))]);
    expect(queryTcx(up, 'egress')).toEqual([pinnedId(pins.program('uplink_egress'))]);
    expect(await attached()).toEqual(['one']);

    // Somebody else attaches before us.
    using probe = BpfObject.open(files.probe);
    for (const name of probe.programNames()) probe.setAutoload(name, name === 'probe_jiffies');
    probe.load();
    const foreign: Link = attachTcx({
      progFd: probe.program('probe_jiffies').fd,
      ifindex: up,
      direction: 'egress',
      first: true,
    });
    await eventually(
      'first again',
      () => queryTcx(up, 'egress')[0] === pinnedId(pins.program('uplink_egress')) || undefined,
    );
    expect(queryTcx(up, 'egress')).toHaveLength(2);
    foreign.close();

    // A pod's interface goes.
    ip('link', 'del', 'xd-v1');
    await eventually('no endpoint', async () => (await attached()).length === 0 || undefined);
    expect(readdirSync(pins.links).filter((name) => name.startsWith('pod_'))).toEqual([]);

    await stop();
    await expect(cleanup(config, { force: false, wait: false, say: () => undefined })).rejects.toThrow(NotDrainedError);
    expect(queryTcx(up, 'ingress')).toHaveLength(1);
    const removed = await cleanup(config, { force: true, wait: false, say: () => undefined });
    expect(removed.attachments).toBe(2);
    expect(existsSync(pins.root)).toBe(false);
    expect([...queryTcx(up, 'ingress'), ...queryTcx(up, 'egress')]).toEqual([]);
    expect(await cleanup(config, { force: false, wait: false, say: () => undefined })).toEqual({
      attachments: 0,
      pins: 0,
    });
  }, 60_000);

  test('flows are forgotten when the tunnel has another port, which may be one of theirs', async () => {
    const tunnel = (port: number): Config => ({ ...config, tunnel: { ...config.tunnel, port } });
    await start(tunnel(6081));
    await stop();
    using flows = new HashMap({ path: pins.map('flows') }, maps.flows.key, maps.flows.value);
    const key = maps.flows.key.decode(Buffer.alloc(maps.flows.key.size));
    const flow = maps.flows.value.decode(Buffer.alloc(maps.flows.value.size));
    flows.set(key, { ...flow, lastTx: monotonic(), lastRxSlow: monotonic() });
    await start(tunnel(6081));
    expect(flows.get(key)).toBeDefined();
    await stop();
    await start(tunnel(6082));
    expect(flows.get(key)).toBeUndefined();
    await stop();
    await cleanup(config, { force: true, wait: false, say: () => undefined });
  }, 30_000);

  test('an uplink that is not there, or goes, is a degradation', async () => {
    ip('addr', 'del', '192.0.2.1/24', 'dev', uplinkDevice);
    await start();
    const status = await call(AdminDefinition.status, new v1.StatusRequest());
    expect(status.degradations[0]?.what).toContain('no device has the node');
    ip('addr', 'add', '192.0.2.1/24', 'dev', uplinkDevice);
    await eventually('the node takes part', () => (flags() & 3) === 3 || undefined);
    ip('addr', 'del', '192.0.2.1/24', 'dev', uplinkDevice);
    await eventually('the node no longer takes part', () => (flags() & 3) === 0 || undefined);
    await stop();
    await cleanup(config, { force: true, wait: false, say: () => undefined });
  }, 30_000);
});
