/** Restarts of Open vSwitch under traffic: what is fast stays fast, and nothing new is learned before the flows are there. */
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { eventually, sleep } from '../lab/lab.ts';
import type { Pod, Proc } from '../lab/lab.ts';
import { freshPort, withServer } from '../lab/measure.ts';
import type { OvsNode } from '../lab/ovs/node.ts';
import { flowsRestored, initialSettings } from '../lab/ovs/rows.ts';
import { residue, up } from '../lab/ovs/ovs.ts';
import type { OvsLab } from '../lab/ovs/ovs.ts';
import { startSidecars } from '../lab/sidecar.ts';
import type { LabSidecars } from '../lab/sidecar.ts';

let lab: OvsLab;
let sidecars: LabSidecars;
let a: Pod;
let b: Pod;

beforeAll(async () => {
  lab = await up();
  [a, b] = [lab.node(0).pod(0), lab.node(1).pod(0)];
  const ovsdb = (node: { readonly index: number }): string => lab.node(node.index - 1).ovs.database;
  sidecars = await startSidecars(lab, { withoutPods: true, ovsdb });
  for (const sidecar of sidecars.nodes) {
    await eventually('pods of the database', async () => {
      const { endpoints } = await sidecar.status();
      return endpoints === 2;
    });
  }
}, 180_000);
afterAll(async () => {
  await sidecars.down();
  await lab.down();
  expect(residue(lab)).toEqual([]);
});

/** A client that asks over TCP until it is stopped. */
function asking(port: number): Promise<Proc> {
  const args = ['--to', b.address, '--port', String(port), '--seconds', '600', '--interval-us', '50000', '--json'];
  return a.spawn([lab.tool('rr'), 'client', '--tcp', ...args, '--timeout-ms', '20000']);
}

function rrServer(port: number): string[] {
  return [lab.tool('rr'), 'server', '--tcp', '--port', String(port)];
}

/** Requests over TCP while `use` runs; not one may fail. */
async function withRequests(port: number, use: (client: Proc) => Promise<void>): Promise<void> {
  await withServer(b, rrServer(port), async () => {
    const client = await asking(port);
    try {
      await use(client);
      await client.stop('SIGTERM', 10_000);
      expect(await client.json()).toMatchObject({ errors: 0, corrupt: 0 });
    } finally {
      await client.stop();
    }
  });
}

test.each([[0], [1]])(
  'ovs-vswitchd of node %i: a fast flow goes on, a new one waits for the flows',
  async (index) => {
    const node: OvsNode = lab.node(index);
    const sidecar = sidecars.node(index);
    const [port, later, last] = [freshPort(), freshPort(), freshPort()];
    await withRequests(port, async () => {
      await sidecars.waitFast({ proto: 'tcp', port });
      const before = (await sidecar.flows({ proto: 'tcp', port }))[0]?.txPackets ?? 0;
      await node.restartSwitch(async () => {
        // The database says that Open vSwitch waits: nothing is learned, and what is known stays fast.
        await eventually('still fast', async () => {
          const [flow] = await sidecar.flows({ proto: 'tcp', port });
          return flow?.path === 'fast' && flow.txPackets > before;
        });
        // A new connection may get through by flows that the kernel knows; it is not learned.
        await withServer(b, rrServer(later), async () => {
          const client = await asking(later);
          await sleep(5000);
          const learned = (await sidecar.flows({ proto: 'tcp', port: later })).filter(({ admitted }) => admitted);
          await client.stop();
          expect(learned).toEqual([]);
        });
      });
      expect((await sidecar.flows({ proto: 'tcp', port }))[0]).toMatchObject({ path: 'fast' });
      await withRequests(last, () => sidecars.waitFast({ proto: 'tcp', port: last }, 20_000).then(() => undefined));
      expect(await sidecar.status()).toMatchObject({ state: 'ready', degradations: [], endpoints: 2 });
    });
  },
  120_000,
);

test.each([[0], [1]])(
  'ovsdb-server of node %i: nothing is detached, nothing is lost',
  async (index) => {
    const node: OvsNode = lab.node(index);
    const sidecar = sidecars.node(index);
    const port = freshPort();
    await withRequests(port, async () => {
      await sidecars.waitFast({ proto: 'tcp', port });
      const epochs = (await sidecar.admin.endpoints()).map(({ id, epoch }) => [id, epoch]);
      await node.ovs.stopServer();
      await eventually('the loss is told', async () => (await sidecar.status()).degradations.length > 0);
      await sleep(1000);
      await node.ovs.startServer();
      await eventually('connected again', async () => (await sidecar.status()).degradations.length === 0, 20_000);
      expect((await sidecar.admin.endpoints()).map(({ id, epoch }) => [id, epoch])).toEqual(epochs);
      expect((await sidecar.flows({ proto: 'tcp', port }))[0]).toMatchObject({ path: 'fast' });
    });
  },
  120_000,
);

test('while the database says that Open vSwitch waits for its flows, nothing is learned', async () => {
  const { ovs } = lab.node(0);
  const [old, port] = [freshPort(), freshPort()];
  await withRequests(old, async () => {
    await sidecars.waitFast({ proto: 'tcp', port: old });
    // Open vSwitch reads it when it starts; a connection gets through here.
    await ovs.vsctl(['--no-wait', ...initialSettings()]);
    await withRequests(port, async () => {
      const shown = { proto: 'tcp', port, sourceIp: a.address } as const;
      await eventually('slow for that', async () =>
        (await sidecars.node(0).flows(shown)).some(({ admitted, reason }) => !admitted && reason === 'flow_restore'),
      );
      await sidecars.waitFast({ proto: 'tcp', port: old });
      await ovs.vsctl(['--no-wait', ...flowsRestored()]);
      await sidecars.waitFast({ proto: 'tcp', port }, 20_000);
    });
  });
}, 120_000);
