/** `xmasq support-bundle` on a node that has secrets wherever a node can have them: none of them is in the archive. */
import { randomBytes } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { parseTarGzip } from 'nanotar';
import { parse, stringify } from 'yaml';
import { IssuedCertificates } from '../../plugin/src/flowexport/index.ts';
import { AntreaDatabase } from '../lab/antrea-database.ts';
import { eventually } from '../lab/lab.ts';
import { up } from '../lab/native/native.ts';
import type { NativeLab } from '../lab/native/native.ts';
import { startSidecars } from '../lab/sidecar.ts';
import type { LabSidecars, Sidecar } from '../lab/sidecar.ts';
import { LabCluster } from './support/cluster-double.ts';

const METRICS = '127.0.0.1:9108';
const LIMIT_MS = 60_000;
/** By what it is. */
const secrets = new Map<string, string>();

let lab: NativeLab;
let cluster: LabCluster;
let database: AntreaDatabase;
let sidecars: LabSidecars;
let first: Sidecar;
let directory: string;

/** A fresh one, by which it can be found again. */
function secret(what: string): string {
  const value = randomBytes(18).toString('hex');
  secrets.set(what, value);
  return value;
}

/** The body of a private key in PEM: what must not be found anywhere. */
function keyOf(file: string): string {
  const [, line = ''] = readFileSync(file, 'utf8').split('\n');
  expect(line.length).toBeGreaterThan(30);
  return line;
}

beforeAll(async () => {
  lab = await up();
  directory = mkdtempSync(join(tmpdir(), `${lab.id}-`));
  database = await AntreaDatabase.create(join(directory, 'openvswitch'));
  const node = lab.node(0);
  for (const pod of node.pods) await database.addPod(pod.endpoint, { externalIds: { token: secret('a pod port') } });
  const psk = secret('a key of IPsec in the database');
  const options = [
    'map',
    [
      ['psk', psk],
      ['remote_ip', '172.30.0.2'],
    ],
  ] as const;
  await database.addPort('antrea-ipsec0', {
    externalIds: { 'antrea-type': 'ipsec-tunnel' },
    interface: { type: 'geneve', options },
  });
  cluster = await LabCluster.start(lab);
  secrets.set('the token of the API', cluster.double.token);
  const tls = join(directory, 'tls');
  mkdirSync(tls);
  (await IssuedCertificates.open({ directory: tls, onProblem: () => undefined })).close();
  secrets.set('the key of the certificates', keyOf(join(tls, 'server.key')));
  secrets.set("the client's key", keyOf(join(tls, 'client.key')));
  const files = { ca: join(tls, 'ca.crt'), cert: join(tls, 'client.crt'), key: join(tls, 'client.key') };
  sidecars = await startSidecars(lab, {
    ovsdb: (of) => (of.index === 1 ? database.socket : join(directory, 'none.sock')),
    kubeconfig: (of) => cluster.kubeconfig(of),
    metricsAddress: METRICS,
    featureGates: { FlowExport: true, FlowAccounting: true },
    flowExport: (of) => ({ address: '127.0.0.1:14740', certificates: of.index === 1 ? tls : `${tls}-${of.name}` }),
    flowAccounting: { address: '127.0.0.1:14739', files },
    withoutWaiting: true,
  });
  first = sidecars.node(0);
  const config = readFileSync(first.configFile, 'utf8');
  writeFileSync(first.configFile, `# the token of the old registry: ${secret('a comment')}\n${config}`);
  await eventually('endpoints', async () => (await first.admin.endpoints()).length >= node.pods.length, 20_000);
}, 180_000);
afterAll(async () => {
  await sidecars.down();
  await cluster.stop();
  await database.stop();
  rmSync(directory, { recursive: true, force: true });
  await lab.down();
});

interface Result {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
  /** By their names below the archive's directory; undefined: there is no archive. */
  readonly files: ReadonlyMap<string, string> | undefined;
}

/** A path where nothing is yet, at a second try neither. */
const nothingAt = (name: string): string => join(mkdtempSync(join(directory, 'bundle-')), name);

async function bundle(file: string, ...args: string[]): Promise<Result> {
  const result = await first.cli(['support-bundle', '--config', first.configFile, '--file', file, ...args], LIMIT_MS);
  if (result.code !== 0) return { ...result, files: undefined };
  expect(statSync(file).mode & 0o777).toBe(0o600);
  const parts = await parseTarGzip(readFileSync(file));
  return { ...result, files: new Map(parts.map((part) => [part.name.replace(/^[^/]*\//, ''), part.text])) };
}

function expectNoSecret(files: ReadonlyMap<string, string> | undefined): void {
  expect(secrets.size).toBeGreaterThan(5);
  const found = [...(files ?? [])].flatMap(([name, text]) =>
    [...secrets].flatMap(([what, value]) => (text.includes(value) ? [`${what} in ${name}`] : [])),
  );
  expect(found).toEqual([]);
}

test(
  'has everything that a report needs, and no secret',
  async () => {
    const { files, stdout, stderr } = await bundle(nothingAt('all.tar.gz'), '--flows', '5');
    expect([stderr, stdout]).toEqual(['', expect.stringMatching(/all\.tar\.gz: \d+ bytes\n$/)]);
    const names = [
      ...['contents.json', 'doctor.txt', 'doctor.json', 'version.json', 'status.json', 'peers.json', 'endpoints.json'],
      ...[
        'flows.json',
        'metrics.txt',
        'configuration.json',
        'kernel.json',
        'devices.json',
        'data-plane.json',
        'ovsdb.json',
      ],
    ];
    expect([...(files?.keys() ?? [])]).toEqual(names);
    const json = (name: string): unknown => JSON.parse(files?.get(name) ?? '');
    expect(json('status.json')).toMatchObject({ nodeName: first.node.name });
    expect(json('endpoints.json')).toMatchObject({
      endpoints: expect.arrayContaining([expect.objectContaining({ attached: true })]),
    });
    expect(json('configuration.json')).toMatchObject({
      metrics: { address: METRICS },
      flowAccounting: { files: { key: expect.stringContaining('client.key') } },
    });
    expect(json('data-plane.json')).toMatchObject({
      maps: { flows: { maxEntries: 65536 } },
      programs: { uplink_ingress: {} },
    });
    expect(json('devices.json')).toMatchObject({ uplinks: [{ device: 'eth0' }] });
    expect(json('ovsdb.json')).toMatchObject({ connected: true, tunnels: [{ name: 'antrea-ipsec0', ipsec: true }] });
    expect(json('kernel.json')).toMatchObject({ process: expect.arrayContaining([expect.stringMatching(/^CapEff:/)]) });
    expect(files?.get('metrics.txt')).toMatch(/^xmasq_/m);
    expect(files?.get('doctor.txt')).toMatch(/^ok +programs /m);
    expectNoSecret(files);
  },
  2 * LIMIT_MS,
);

test(
  'another file keeps its place',
  async () => {
    const there = nothingAt('there.tar.gz');
    writeFileSync(there, 'something');
    const { code, stderr } = await bundle(there);
    expect([code, stderr]).toEqual([1, expect.stringMatching(/cannot be written: EEXIST.*see --file/)]);
    expect(readFileSync(there, 'utf8')).toBe('something');
  },
  LIMIT_MS,
);

test(
  'without a sidecar and with a configuration that is wrong, and holds a token where none belongs',
  async () => {
    const config = parse(readFileSync(first.configFile, 'utf8')) as Record<string, unknown>;
    const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url');
    const signature = secret('a token in the configuration');
    await first.stop();
    const token = `${part({ alg: 'RS256' })}.${part({ sub: 'x' })}.${signature}`;
    // Within what an error message quotes.
    expect(token.length).toBeLessThan(100);
    writeFileSync(
      first.configFile,
      stringify({ ...config, startHold: `${signature.slice(0, 4)} token=${signature}`, password: token }),
    );
    const { files, stdout } = await bundle(nothingAt('wrong.tar.gz'));
    expect(stdout).toMatch(/^ {2}without status\.json: cannot reach the sidecar/m);
    expect(stdout).toMatch(/^ {2}without configuration\.json: the configuration cannot be read/m);
    expect(files?.get('doctor.txt')).toMatch(/^failed +configuration .*startHold.*token=\[left out\]/m);
    expect([...(files?.keys() ?? [])]).toEqual(expect.arrayContaining(['kernel.json', 'devices.json']));
    expectNoSecret(files);
  },
  2 * LIMIT_MS,
);
