/** Pods, pauses and exclusions that sidecars take from the database of Open vSwitch: real ovsdb-servers, real veths. */
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { PinLayout } from '../../plugin/src/dataplane/pins.ts';
import { AntreaDatabase, ovsMap } from '../lab/antrea-database.ts';
import { at, eventually } from '../lab/lab.ts';
import type { Node, Pod } from '../lab/lab.ts';
import { up } from '../lab/native/native.ts';
import type { NativeLab } from '../lab/native/native.ts';
import { RecordingProxy } from '../lab/ovsdb-proxy.ts';
import { startSidecars } from '../lab/sidecar.ts';
import type { LabSidecars, Sidecar } from '../lab/sidecar.ts';
import { ifindexOf } from './support/footprint.ts';
import { underLoad } from './support/load.ts';
import { withTransfer } from './support/streams.ts';

/** From the transaction to both hooks. */
const LIMIT_MS = 100;
/** Until an exclusion is in force. */
const EXCLUDED_MS = 1000;
const ROUNDS = 10;
/** Of each round; others use this machine, too, and the kernel waits for all of them before a program is in force. */
const TRIES = 3;

describe('sidecars beside the database of Open vSwitch', () => {
  let lab: NativeLab;
  let sidecars: LabSidecars;
  let directory: string;
  let databases: AntreaDatabase[];
  let proxy: RecordingProxy;
  let first: Sidecar;
  let database: AntreaDatabase;
  let a: Pod;
  let b: Pod;

  beforeAll(async () => {
    lab = await up();
    directory = mkdtempSync(join(tmpdir(), `${lab.id}-`));
    databases = await Promise.all(lab.nodes.map((node) => AntreaDatabase.create(join(directory, node.name))));
    for (const node of lab.nodes) for (const pod of node.pods) await databaseOf(node).addPod(pod.endpoint);
    database = at(databases, 0, 'database');
    proxy = await RecordingProxy.listen(proxyPath(), database.socket);
    const ovsdb = (node: Node): string => (node.index === 1 ? proxyPath() : databaseOf(node).socket);
    sidecars = await startSidecars(lab, { withoutPods: true, ovsdb });
    first = sidecars.node(0);
    a = lab.node(0).pod(0);
    b = lab.node(1).pod(0);
  }, 180_000);
  afterAll(async () => {
    await sidecars.down();
    await proxy.close();
    await Promise.all(databases.map((entry) => entry.stop()));
    rmSync(directory, { recursive: true, force: true });
    await lab.down();
  });
  beforeEach(async () => {
    // Also after a test that failed half-way, and is tried again.
    if (!existsSync(proxyPath())) proxy = await RecordingProxy.listen(proxyPath(), database.socket);
    for (const node of lab.nodes) {
      const rows = await databaseOf(node).ports();
      for (const { endpoint } of node.pods) {
        if (!rows.includes(endpoint.ifName)) await databaseOf(node).addPod(endpoint);
      }
    }
    await allAttached();
  });

  const proxyPath = (): string => join(directory, 'proxy.sock');

  function databaseOf(node: Node): AntreaDatabase {
    return at(databases, node.index - 1, 'database');
  }

  /** Every pod of the lab is an endpoint. */
  async function allAttached(): Promise<void> {
    for (const sidecar of sidecars.nodes) {
      const wanted = sidecar.node.pods.map(({ endpoint }) => endpoint.containerId).sort();
      await eventually(`pods of ${sidecar.node.name} attached`, async () => {
        const known = (await sidecar.admin.endpoints()).filter(({ attached }) => attached);
        return JSON.stringify(known.map(({ containerId }) => containerId).sort()) === JSON.stringify(wanted);
      });
    }
  }

  /** Looks at the kernel, not at what the sidecar says: whether the pod has both of its programs. */
  function hooks(node: Node, ifindex: number): 'attached' | 'detached' | 'between' {
    const pinned = new PinLayout(node.pinDir);
    const programs = (['pod_egress', 'pod_ingress'] as const).filter((name) => existsSync(pinned.link(name, ifindex)));
    if (programs.length === 1) return 'between';
    return programs.length === 2 ? 'attached' : 'detached';
  }

  /** True if the programs of the first node know the address as a pod's. */
  function known(address: string): boolean {
    return first.maps.use(({ endpointByAddr }) => endpointByAddr.get(address) !== undefined);
  }

  const steady = ['--seconds', '30', '--rate', '200000', '--send-size', '2000'];

  test(`a pod is attached and detached within ${LIMIT_MS} ms of its row`, async () => {
    const pod = await lab.node(0).addPod();
    const times: string[] = [];
    try {
      const { endpoint } = pod;
      const ifindex = await ifindexOf(pod.node, endpoint.ifName);
      const took = async (state: 'attached' | 'detached', write: () => Promise<void>): Promise<number> => {
        const begun = performance.now();
        await write();
        await eventually(state, () => hooks(pod.node, ifindex) === state, 5000, 1);
        const ended = performance.now();
        // A pod is known between the attachments and the pins, and unknown before they go.
        await eventually('known or not', () => known(pod.address) === (state === 'attached'), LIMIT_MS, 1);
        return ended - begun;
      };
      // The interface alone makes it no pod.
      expect(hooks(pod.node, ifindex)).toBe('detached');
      for (let round = 0; round < ROUNDS; round++) {
        let [attached, detached] = [Infinity, Infinity];
        for (let tries = 0; tries < TRIES && Math.max(attached, detached) >= LIMIT_MS; tries++) {
          attached = Math.min(attached, await took('attached', () => database.addPod(endpoint)));
          detached = Math.min(detached, await took('detached', () => database.removePort(endpoint.ifName)));
        }
        times.push(`${Math.round(attached)}/${Math.round(detached)}`);
        expect(attached).toBeLessThan(LIMIT_MS);
        expect(detached).toBeLessThan(LIMIT_MS);
      }
    } finally {
      console.info(`attached/detached after [ms]: ${times.join(' ')}`);
      await lab.node(0).deletePod(pod);
    }
  }, 30_000);

  test.each(['SIGTERM', 'SIGKILL'] as const)(
    'a restart of ovsdb-server (%s) under load loses nothing and makes nothing slow',
    async (signal) => {
      const load = { datagrams: 1000, bytes: 1_000_000, seconds: 8 };
      const report = await underLoad(lab, sidecars, { from: a, to: b }, load, async () => {
        for (const entry of databases) await entry.stop(signal);
        await eventually('degraded', async () => (await first.status()).state === 'degraded', 5000);
        expect((await first.status()).degradations[0]?.what).toMatch(/^no connection to the database of Open vSwitch/);
        for (const entry of databases) await entry.start();
        await eventually('ready', async () => (await first.status()).state === 'ready', 15_000);
      });
      expect(report.slow).toBe(0);
      for (const { sent, restored } of report.ways) expect(restored).toBe(sent);
      expect(report.udp.echo?.lost).toBe(report.overruns);
      expect(report.tcp).toMatchObject({ complete: true, corrupt: 0, peerCorrupt: 0, error: '' });
    },
    60_000,
  );

  test('what changes while there is no connection is made good after it, and only that', async () => {
    const [gone, kept] = [lab.node(0).pod(1), await lab.node(0).addPod()];
    const flowOf = (port: number): unknown => first.maps.flows().find(([key]) => key.dport === port)?.[1].gen;
    await withTransfer(lab, { from: a, to: b }, steady, async ({ port }) => {
      await sidecars.waitFast({ port });
      const gen = flowOf(port);
      await proxy.close();
      await eventually('disconnected', async () => (await first.status()).state === 'degraded');
      await database.removePort(gone.endpoint.ifName);
      await database.addPod(kept.endpoint);
      const ifindex = await ifindexOf(gone.node, gone.endpoint.ifName);
      expect(hooks(gone.node, ifindex)).toBe('attached');
      proxy = await RecordingProxy.listen(proxyPath(), database.socket);
      await eventually(
        'made good',
        async () => {
          const ids = (await first.admin.endpoints()).map(({ containerId }) => containerId);
          return ids.includes(kept.endpoint.containerId) && !ids.includes(gone.endpoint.containerId);
        },
        15_000,
      );
      await eventually('detached', () => hooks(gone.node, ifindex) === 'detached' && !known(gone.address));
      expect(flowOf(port)).toBe(gen);
    });
    await database.addPod(gone.endpoint);
    await database.removePort(kept.endpoint.ifName);
    await lab.node(0).deletePod(kept);
  }, 60_000);

  test('while Open vSwitch waits for its flows nothing new is learned, and what is known stays fast', async () => {
    await withTransfer(lab, { from: a, to: b }, steady, async ({ port }) => {
      await sidecars.waitFast({ port });
      const slowPackets = (): unknown => first.maps.flows().find(([key]) => key.dport === port)?.[1].slowPackets;
      const before = slowPackets();
      await database.otherConfig('flow-restore-wait', 'true');
      await eventually('paused', () => first.maps.use(({ config }) => config.get(0).paused !== 0));
      await withTransfer(lab, { from: a, to: b }, steady, async ({ port: next }) => {
        const refused = await eventually('refused', async () =>
          (await first.flows({ port: next })).find(({ reason }) => reason === 'flow_restore'),
        );
        expect(refused).toMatchObject({ admitted: false, path: 'slow' });
        expect((await first.flows({ port }))[0]).toMatchObject({ path: 'fast' });
        expect(slowPackets()).toBe(before);
        await database.otherConfig('flow-restore-wait', undefined);
        await sidecars.waitFast({ port: next });
      });
    });
  }, 60_000);

  const IPSEC = {
    externalIds: { 'antrea-type': 'ipsec-tunnel', 'node-name': 'n2' },
    interface: { type: 'geneve', options: ovsMap({ key: 'flow', remote_ip: '192.168.77.2', psk: 'secret' }) },
  };
  const STT = {
    externalIds: { 'antrea-type': 'tunnel' },
    interface: { type: 'stt', options: ovsMap({ key: 'flow', remote_ip: 'flow' }) },
  };
  const UPLINK = { externalIds: { 'antrea-type': 'uplink' } };

  test.each<[string, string, () => Promise<void>, () => Promise<void>]>([
    [
      'hardware offload',
      'hw_offload',
      () => database.otherConfig('hw-offload', 'true'),
      () => database.otherConfig('hw-offload', undefined),
    ],
    ['IPsec tunnel', 'encryption', () => database.addPort('n2-abcdef', IPSEC), () => database.removePort('n2-abcdef')],
    [
      'tunnel type',
      'tunnel_type',
      () => database.addPort('antrea-tun0', STT),
      () => database.removePort('antrea-tun0'),
    ],
    [
      // The name alone tells: the kernel may lack WireGuard.
      "WireGuard's device",
      'encryption',
      async () => {
        await first.node.sh('ip link add antrea-wg0 type veth peer name antrea-wg1');
      },
      async () => {
        await first.node.sh('ip link del antrea-wg0');
      },
    ],
    ['uplink in the bridge', 'bridging', () => database.addPort('eth9', UPLINK), () => database.removePort('eth9')],
    [
      'VLAN of a pod',
      'pod_vlan',
      () => database.updatePort(a.endpoint.ifName, { tag: 7 }),
      () => database.updatePort(a.endpoint.ifName, { tag: ['set', []] }),
    ],
  ])(
    '%s: a flow is slow with the reason %s, and fast again when the cause is gone',
    async (_, reason, set, clear) => {
      await withTransfer(lab, { from: a, to: b }, steady, async ({ port, client }) => {
        await sidecars.waitFast({ port });
        try {
          await set();
          await eventually(
            `slow for ${reason}`,
            async () =>
              (await first.flows({ port })).some((flow) => flow.path === 'slow' && flow.reason === (reason as 'none')),
            EXCLUDED_MS,
          );
        } finally {
          await clear();
        }
        await sidecars.waitFast({ port });
        expect(client.running).toBe(true);
      });
    },
    60_000,
  );

  test('both sources tell of a pod: it goes when the database says so', async () => {
    const pod = lab.node(0).pod(1);
    const [mine, other] = [a.endpoint, pod.endpoint];
    first.pods.snapshot([mine, other]);
    await eventually('stream in force', async () => (await first.status()).podEvents.synced);
    await allAttached();
    await database.removePort(other.ifName);
    await eventually('gone', async () =>
      (await first.admin.endpoints()).every(({ ifName }) => ifName !== other.ifName),
    );
    await first.pods.stream.close();
    await database.addPod(other);
    await allAttached();
  }, 30_000);

  test('a sidecar that is restarted takes nothing away before the database has spoken', async () => {
    await withTransfer(lab, { from: a, to: b }, steady, async ({ port }) => {
      await sidecars.waitFast({ port });
      const gen = first.maps.flows().find(([key]) => key.dport === port)?.[1].gen;
      await proxy.close();
      await first.stop();
      await first.start([]);
      await eventually('degraded', async () => (await first.status()).state === 'degraded');
      const endpoints = await first.admin.endpoints();
      expect(endpoints.filter(({ attached }) => attached)).toHaveLength(lab.node(0).pods.length);
      proxy = await RecordingProxy.listen(proxyPath(), database.socket);
      await eventually('ready', async () => (await first.status()).state === 'ready', 15_000);
      await sidecars.waitFast({ port });
      expect(first.maps.flows().find(([key]) => key.dport === port)?.[1].gen).toBe(gen);
    });
  }, 60_000);

  test('sidecars ask the database for nothing that writes', async () => {
    await eventually('asked', () => proxy.methods.length >= 2);
    expect(proxy.methods.filter((method) => method !== 'echo')).toEqual(['get_schema', 'monitor_cond']);
  });
});
