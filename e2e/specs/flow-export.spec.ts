/** Antrea's flow records at a sidecar at work: they name its flows, and never decide about them. */
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { eventually, type Pod, type Proc } from '../lab/lab.ts';
import { freshPort, withServer } from '../lab/measure.ts';
import { up, type NativeLab } from '../lab/native/native.ts';
import { startSidecars, type LabSidecars } from '../lab/sidecar.ts';

const PLAY = fileURLToPath(new URL('support/play-agent.ts', import.meta.url));
const COLLECT = fileURLToPath(new URL('support/play-collector.ts', import.meta.url));
const NODE = [process.execPath, '--disable-warning=ExperimentalWarning'];
const PORT = 14740;
const COLLECTOR_PORT = 14741;

/** What the collector prints of a record. */
interface Collected {
  readonly forward: { readonly bytes: number };
  readonly reverse: { readonly bytes: number };
}

let lab: NativeLab;
let sidecars: LabSidecars;
let certificates: string;
let collector: Proc;
let a: Pod;
let b: Pod;

beforeAll(async () => {
  lab = await up();
  certificates = join(lab.dir, 'n1-flow-export');
  const tls = (name: string): string => join(lab.dir, 'collector', name);
  const argv = [...NODE, COLLECT, String(COLLECTOR_PORT), tls('')];
  collector = await lab.node(0).spawn(argv, { name: 'n1-collector' });
  await collector.waitFor(/^collecting/, 20_000);
  sidecars = await startSidecars(lab, {
    featureGates: { FlowExport: true, FlowAccounting: true },
    flowAccounting: {
      address: `127.0.0.1:${COLLECTOR_PORT}`,
      serverName: 'localhost',
      interval: 1,
      files: { ca: tls('ca.crt'), cert: tls('client.crt'), key: tls('client.key') },
    },
    flowExport: (node) => ({ address: `127.0.0.1:${PORT}`, certificates: join(lab.dir, `${node.name}-flow-export`) }),
  });
  [a, b] = [lab.node(0).pod(0), lab.node(1).pod(0)];
});
afterAll(async () => {
  await sidecars.down();
  await lab.down();
});

test('a flow gets the names of its record, with mutual TLS by certificates that the sidecar issued', async () => {
  const [port, sport] = [freshPort(), freshPort()];
  const rr = lab.tool('rr');
  const ends = ['--to', b.address, '--port', String(port), '--sport', String(sport)];
  await withServer(b, [rr, 'server', '--tcp', '--port', String(port)], async () => {
    const client = await a.spawn([
      rr,
      'client',
      '--tcp',
      ...ends,
      '--interval-us',
      '5000',
      '--seconds',
      '60',
      '--json',
    ]);
    const connection = { source: a.address, destination: b.address, sourcePort: sport, destinationPort: port };
    const service = { ip: '10.96.0.10', port: 80, name: 'shop/db:http' };
    const argv = [...NODE, PLAY, String(PORT), certificates];
    const agent = await lab.node(0).spawn([...argv, JSON.stringify({ ...connection, service })], { name: 'n1-agent' });
    try {
      await agent.waitFor(/^sent/, 15_000);
      await sidecars.waitFast({ proto: 'tcp', port });
      await eventually('named', async () => {
        const { stdout } = await sidecars.node(0).cli(['flows', '--port', String(port), '-o', 'json']);
        return stdout.includes('shop/db:http') && stdout.includes('ACNP allow-shop:to-db');
      });
      const { stdout } = await sidecars.node(0).cli(['status']);
      expect(stdout).toMatch(/^flow export: +connected; 1 streams, \d+ flows named$/m);

      // The collector is told of the bytes that passed conntrack by: the agent's record says 1,000.
      const sent = async (): Promise<number> => (await sidecars.node(0).flows({ proto: 'tcp', port }))[0]?.txBytes ?? 0;
      const carried = await eventually('much is carried', async () => {
        const bytes = await sent();
        return bytes > 10_000 ? bytes : undefined;
      });
      const last = (): Collected | undefined => {
        const lines = collector
          .output()
          .split('\n')
          .filter((line) => line.includes(`"sourcePort":${sport}`));
        return lines.length === 0 ? undefined : (JSON.parse(lines.at(-1) ?? '') as Collected);
      };
      await eventually('corrected', () => (last()?.forward.bytes ?? 0) >= 1000 + carried, 15_000);
      expect(last()).toMatchObject({ service: 'shop/db:http' });
      expect(last()?.reverse.bytes).toBeGreaterThan(10_000);
      const now = await sent();
      expect(last()?.forward.bytes).toBeLessThanOrEqual(1000 + now);
    } finally {
      await agent.stop();
      await client.stop();
    }
  });
}, 60_000);

test('an agent with another certificate, and one without TLS, are refused; flows go on', async () => {
  const other = join(lab.dir, 'other');
  await sidecars.node(0).agent(['certificates', other]);
  const connection = { source: a.address, destination: b.address, sourcePort: 1, destinationPort: 2 };
  const argv = [...NODE, PLAY, String(PORT), other];
  const agent = await lab.node(0).spawn([...argv, JSON.stringify(connection)], { name: 'n1-stranger' });
  await agent.waitFor(/"code":14/, 20_000);
  await agent.stop();
  const plain = await lab
    .node(0)
    .sh(
      `printf 'PRI * HTTP/2.0\\r\\n\\r\\n' | timeout 5 bash -c 'exec 3<>/dev/tcp/127.0.0.1/${PORT}; cat >&3; cat <&3 | wc -c'`,
      { check: false },
    );
  // At most an alert of TLS, nothing of HTTP/2.
  expect(Number(plain.stdout.trim() || 0)).toBeLessThan(10);
  expect((await sidecars.node(0).status()).state).toBe('ready');

  // The right one is still served.
  const known = await lab.node(0).spawn([...NODE, PLAY, String(PORT), certificates, JSON.stringify(connection)]);
  try {
    await eventually('connected', async () => (await sidecars.node(0).cli(['status'])).stdout.includes('1 streams'));
  } finally {
    await known.stop();
  }
}, 60_000);
