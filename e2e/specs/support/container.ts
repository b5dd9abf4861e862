/** What the chart's container must do, whatever runs it: see the specs that name a runtime. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { configurationOf, grantedCapabilities, podOf } from '../../chart/renderings.ts';
import { AntreaDatabase } from '../../lab/antrea-database.ts';
import { at, eventually, type ExecResult } from '../../lab/lab.ts';
import { ProcessTable, run } from '../../lab/native/process.ts';
import { CAPABILITIES } from '../../lab/programs.ts';
import { mountsOf, type ContainerRuntime, type Mount } from './container-runtime.ts';

const START_MS = 30_000;
/** Drained after 32 s. */
const CLEANUP_MS = 60_000;
/** Of the configuration, when asked of by a command that only reads it. */
const CONFIG = '/etc/xmasq/xmasq.yaml';

/** What a runtime is made from. */
export interface RuntimeParts {
  /** A directory of its own. */
  readonly directory: string;
  readonly mounts: readonly Mount[];
  /** Outlives every container, and is stopped by the specs. */
  readonly processes: ProcessTable;
}

/** A container of the chart, in the specs of one `describe`. */
export interface ChartContainer {
  /** Runs a command in a container of its own, with the chart's capabilities or others. Never throws for an exit code. */
  readonly exec: (
    command: readonly string[],
    capabilities?: readonly string[],
    timeoutMs?: number,
  ) => Promise<ExecResult>;
  readonly processes: ProcessTable;
  readonly runtime: ContainerRuntime;
}

const sidecar = at(podOf('accelerate').containers, 0, 'container');
const cleaner = at(podOf('cleanup').initContainers ?? [], 0, 'init container');
const granted = grantedCapabilities();

/** The command of the chart's container. */
export const SIDECAR_COMMAND: readonly string[] = sidecar.command;

/** Makes a runtime before the specs and removes it after them; what is returned can be used in specs only. */
export function chartContainer(create: (parts: RuntimeParts) => Promise<ContainerRuntime>): () => ChartContainer {
  let directory: string;
  let database: AntreaDatabase | undefined;
  let processes: ProcessTable;
  let runtime: ContainerRuntime | undefined;

  beforeAll(async () => {
    directory = mkdtempSync(join(tmpdir(), 'xmasq-container-'));
    writeFileSync(join(directory, 'xmasq.yaml'), configurationOf('accelerate'));
    mkdirSync(join(directory, 'runtime'));
    database = await AntreaDatabase.create(join(directory, 'openvswitch'));
    processes = new ProcessTable(join(directory, 'logs'));
    const mounts = mountsOf(sidecar, {
      config: join(directory, 'xmasq.yaml'),
      bpffs: 'bpf',
      openvswitch: join(directory, 'openvswitch'),
      run: 'tmpfs',
    });
    runtime = await create({ directory: join(directory, 'runtime'), mounts, processes });
  }, 2 * START_MS);
  afterAll(async () => {
    await processes.stopAll();
    await runtime?.stop();
    await database?.stop();
    rmSync(directory, { recursive: true, force: true });
  });

  return () => {
    if (runtime === undefined) throw new Error('the container is used before the specs');
    const made = runtime;
    return {
      processes,
      runtime: made,
      exec: (command, capabilities = granted, timeoutMs = START_MS) =>
        run(made.argv(command, capabilities), 'container', { check: false, timeoutMs }),
    };
  };
}

/** Writes the specs of what holds wherever the container may do what the chart asks for. */
export function containerSpecs(container: () => ChartContainer): void {
  /** What the sidecar answers a probe, as the kubelet would send it. */
  async function probe(path: string): Promise<string> {
    const { port } = new URL(`http://${/address: "(.*)"/.exec(configurationOf('accelerate'))?.[1] ?? ''}`);
    const ask = `exec 3<>/dev/tcp/127.0.0.1/${port} && printf 'GET ${path} HTTP/1.0\\r\\n\\r\\n' >&3 && cat <&3`;
    return (await container().runtime.network(['bash', '-c', ask])).stdout;
  }

  test.each(granted)(
    'without %s it says what it lacks',
    async (name) => {
      const { code, stderr } = await container().exec(
        sidecar.command,
        granted.filter((other) => other !== name),
      );
      expect({ code, stderr }).toEqual({ code: 1, stderr: expect.stringContaining(`lacks CAP_${name}: `) });
    },
    60_000,
  );

  test('its files cannot be changed', async () => {
    const write = `require('node:fs').writeFileSync('${CONFIG}', '')`;
    expect((await container().exec(['node', '-e', write])).stderr).toContain('EROFS: read-only file system');
  });

  test('it starts, follows the database, and cleans up', async () => {
    const { exec, processes, runtime } = container();
    const agent = await processes.start(runtime.argv(sidecar.command, granted), { name: 'agent' });
    try {
      await eventually('it answers', async () => (await probe('/healthz')).endsWith('\r\n\r\nok\n'), START_MS, 500);
      const status = readFileSync(`/proc/${await runtime.processId(agent)}/status`, 'utf8');
      const mask = granted.reduce((bits, name) => bits | (1n << BigInt(CAPABILITIES[name] ?? NaN)), 0n);
      for (const set of ['CapEff', 'CapPrm', 'CapBnd']) {
        expect(BigInt(`0x${new RegExp(`^${set}:\\s*(\\w+)$`, 'm').exec(status)?.[1] ?? ''}`)).toBe(mask);
      }
      expect(status).toMatch(/^NoNewPrivs:\s*1$/m);
      await eventually('it has read the database', async () => {
        const argv = runtime.inRunning(['xmasq', 'status']);
        const { stdout } = await run(argv, 'container', { check: false, timeoutMs: START_MS });
        return /^ovsdb: +connected/m.test(stdout);
      });
      // Nobody tells it of nodes here.
      expect(await probe('/readyz')).toContain('nothing is known yet from the source kubernetes');
      expect(await runtime.pins()).toContain('xmasq');
    } finally {
      await agent.stop('SIGTERM', START_MS);
    }

    const { code, stdout, stderr } = await exec(cleaner.command, granted, CLEANUP_MS);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toMatch(/removed \d+ attachments and [1-9]\d* pins at \/bpffs\/xmasq/);
    expect(await runtime.pins()).not.toContain('xmasq');
  }, 180_000);
}
