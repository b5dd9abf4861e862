/**
 * The sidecar starts, and cleans up, as the chart's container: with its command, configuration, capabilities and mounts, a
 * root file system that is read-only, and beside a database of Open vSwitch that it sees read-only. There is no image here, no
 * runtime with its seccomp and AppArmor profiles, and no API server.
 */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { configurationOf, podOf, type Container } from '../chart/renderings.ts';
import { AntreaDatabase } from '../lab/antrea-database.ts';
import { at, eventually } from '../lab/lab.ts';
import type { ExecResult, Proc } from '../lab/lab.ts';
import { ProcessTable, run } from '../lab/native/process.ts';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const SCRIPT = fileURLToPath(new URL('support/container-root.sh', import.meta.url));
const START_MS = 30_000;
/** Drained after 32 s. */
const CLEANUP_MS = 60_000;
/** Numbers of linux/capability.h. */
const CAPABILITIES: Readonly<Record<string, number>> = { NET_ADMIN: 12, PERFMON: 38, BPF: 39 };

interface SecurityContext {
  readonly capabilities: { readonly add: readonly string[] };
}

const sidecar = at(podOf('accelerate').containers, 0, 'container');
const cleaner = at(podOf('cleanup').initContainers ?? [], 0, 'init container');
const granted = (sidecar.securityContext as SecurityContext).capabilities.add;

let directory: string;
let database: AntreaDatabase;
let processes: ProcessTable;
let root: Proc;

/** The command line that a container's command is here, with these capabilities. */
function inside(command: readonly string[], capabilities = granted): string[] {
  const [program = '', ...args] = command;
  const bundle = /^xmasq(-agent)?$/.test(program) ? [process.execPath, join(ROOT, `build/${program}.mjs`)] : [program];
  const bounding = ['-all', ...capabilities.map((name) => `+${name.toLowerCase()}`)].join(',');
  return [
    ...['nsenter', `--target=${root.pid}`, '--mount', '--net', 'chroot', join(directory, 'container', 'root')],
    ...['setpriv', `--bounding-set=${bounding}`, '--inh-caps=-all', '--no-new-privs'],
    ...['env', '-i', `PATH=${process.env['PATH'] ?? ''}`, 'NODE_NAME=node-a', ...bundle, ...args],
  ];
}

function exec(command: readonly string[], capabilities = granted, timeoutMs = START_MS): Promise<ExecResult> {
  return run(inside(command, capabilities), 'container', { check: false, timeoutMs });
}

/** What the sidecar answers a probe, as the kubelet would send it. */
async function probe(path: string): Promise<string> {
  const { port } = new URL(`http://${/address: "(.*)"/.exec(configurationOf('accelerate'))?.[1] ?? ''}`);
  const ask = `exec 3<>/dev/tcp/127.0.0.1/${port} && printf 'GET ${path} HTTP/1.0\\r\\n\\r\\n' >&3 && cat <&3`;
  return (await exec(['bash', '-c', ask])).stdout;
}

/** A source for each of the container's mounts. */
function mounts({ volumeMounts = [] }: Container): string[] {
  const sources: Readonly<Record<string, string>> = {
    config: join(directory, 'xmasq.yaml'),
    bpffs: 'bpf',
    openvswitch: join(directory, 'openvswitch'),
    run: 'tmpfs',
  };
  return volumeMounts.map(
    ({ name, mountPath, readOnly }) => `${sources[name] ?? name}:${mountPath}:${readOnly === true ? 'ro' : 'rw'}`,
  );
}

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'xmasq-container-'));
  writeFileSync(join(directory, 'xmasq.yaml'), configurationOf('accelerate'));
  database = await AntreaDatabase.create(join(directory, 'openvswitch'));
  mkdirSync(join(directory, 'container'));
  processes = new ProcessTable(join(directory, 'logs'));
  root = await processes.start(
    [
      ...['unshare', '--mount', '--net', '--propagation=private'],
      SCRIPT,
      join(directory, 'container'),
      ...mounts(sidecar),
    ],
    { name: 'root' },
  );
  await root.waitFor(/^ready$/, START_MS);
}, START_MS);
afterAll(async () => {
  await processes.stopAll();
  await database.stop();
  rmSync(directory, { recursive: true, force: true });
});

test.each(granted)(
  'without %s it says what it lacks',
  async (name) => {
    const { code, stderr } = await exec(
      sidecar.command,
      granted.filter((other) => other !== name),
    );
    expect({ code, stderr }).toEqual({ code: 1, stderr: expect.stringContaining(`lacks CAP_${name}: `) });
  },
  60_000,
);

test('it starts, follows the database, and cleans up', async () => {
  expect((await exec(['touch', '/etc/xmasq/other'])).stderr).toContain('Read-only file system');
  const agent = await processes.start(inside(sidecar.command), { name: 'agent' });
  try {
    await eventually('it answers', async () => (await probe('/healthz')).endsWith('\r\n\r\nok\n'), START_MS, 500);
    const status = readFileSync(`/proc/${agent.pid}/status`, 'utf8');
    const mask = granted.reduce((bits, name) => bits | (1n << BigInt(CAPABILITIES[name] ?? NaN)), 0n);
    for (const set of ['CapEff', 'CapPrm', 'CapBnd']) {
      expect(BigInt(`0x${new RegExp(`^${set}:\\s*(\\w+)$`, 'm').exec(status)?.[1] ?? ''}`)).toBe(mask);
    }
    expect(status).toMatch(/^NoNewPrivs:\s*1$/m);
    await eventually('it has read the database', async () => {
      const { stdout } = await exec(['xmasq', 'status']);
      return /^ovsdb: +connected/m.test(stdout);
    });
    // Nobody tells it of nodes here.
    expect(await probe('/readyz')).toContain('nothing is known yet from the source kubernetes');
  } finally {
    await agent.stop('SIGTERM', START_MS);
  }

  const { code, stdout, stderr } = await exec(cleaner.command, granted, CLEANUP_MS);
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  expect(stdout).toMatch(/removed \d+ attachments and [1-9]\d* pins at \/bpffs\/xmasq/);
  expect((await exec(['ls', '/bpffs'])).stdout).not.toContain('xmasq');
}, 180_000);
