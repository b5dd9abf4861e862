import { mkdir, mkdtemp, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import type { ClusterDiff, ClusterProblem, ClusterState } from '../../../src/state/cluster.ts';
import { StaticCluster, type StaticClusterOptions } from '../../../src/state/static-cluster.ts';

let directory: string;
let file: string;
let source: StaticCluster | undefined;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'xm-'));
  file = join(directory, 'nodes.yaml');
});
afterEach(async () => {
  await source?.stop();
  source = undefined;
  await rm(directory, { recursive: true, force: true });
});

function nodes(count: number): string {
  const lines = Array.from({ length: count }, (_, n) => `  - { name: node-${n}, address: 192.168.77.${n + 1} }`);
  return `nodes:\n${lines.join('\n')}\n`;
}

/** Records what it is told. */
class Consumer {
  readonly states: { state: ClusterState; diff: ClusterDiff }[] = [];
  readonly problems: (ClusterProblem | undefined)[] = [];
  failure: Error | undefined;
  gate: Promise<void> = Promise.resolve();
  running = 0;
  mostRunning = 0;

  async state(state: ClusterState, diff: ClusterDiff): Promise<void> {
    this.mostRunning = Math.max(this.mostRunning, ++this.running);
    await this.gate;
    this.running--;
    if (this.failure !== undefined) throw this.failure;
    this.states.push({ state, diff });
  }

  problem(problem: ClusterProblem | undefined): void {
    this.problems.push(problem);
  }

  get size(): number | undefined {
    return this.states.at(-1)?.state.nodes.length;
  }
}

async function start(consumer: Consumer, options: Partial<StaticClusterOptions> = {}): Promise<void> {
  source = new StaticCluster({ file, nodeName: 'node-0', debounceMs: 20, pollMs: 60_000, retryMs: 50, ...options });
  await source.start(consumer);
}

async function eventually(condition: () => boolean): Promise<void> {
  const until = performance.now() + 3000;
  while (!condition()) {
    if (performance.now() > until) throw new Error('still not so after 3 s');
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** Longer than debounce and polls of these tests. */
function settle(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 200));
}

describe('following a file of cluster state', () => {
  test('hands over the first state before start() is done', async () => {
    await writeFile(file, nodes(2));
    const consumer = new Consumer();
    await start(consumer);
    expect(consumer.size).toBe(2);
    expect(consumer.states[0]?.diff.added.length).toBe(2);
    expect(consumer.problems).toEqual([]);
  });

  test('start() rejects without a valid first state', async () => {
    await expect(start(new Consumer())).rejects.toThrow('cannot be read: no such file');
    await writeFile(file, 'nodes: []');
    await expect(start(new Consumer())).rejects.toThrow('lack this node');
    await writeFile(file, nodes(1));
    const consumer = new Consumer();
    consumer.failure = new Error('map peers: EPERM');
    await expect(start(consumer)).rejects.toThrow('map peers: EPERM');
  });

  test('follows writes and renames', async () => {
    await writeFile(file, nodes(1));
    const consumer = new Consumer();
    await start(consumer);
    await writeFile(file, nodes(2));
    await eventually(() => consumer.size === 2);
    for (const count of [3, 4]) {
      await writeFile(`${file}.new`, nodes(count));
      await rename(`${file}.new`, file);
      await eventually(() => consumer.size === count);
    }
    expect(consumer.states.at(-1)?.diff.added.map((node) => node.name)).toEqual(['node-3']);
  });

  test('finds by polling what inotify does not see: a link to another directory', async () => {
    await mkdir(join(directory, 'data'));
    const target = join(directory, 'data', 'nodes.yaml');
    await writeFile(target, nodes(1));
    await symlink(target, file);
    const consumer = new Consumer();
    await start(consumer, { pollMs: 30 });
    await settle();
    await writeFile(target, nodes(2));
    await eventually(() => consumer.size === 2);
  });

  test('survives its directory being replaced', async () => {
    file = join(directory, 'sub', 'nodes.yaml');
    await mkdir(join(directory, 'sub'));
    await writeFile(file, nodes(1));
    const consumer = new Consumer();
    await start(consumer, { pollMs: 30 });
    await rename(join(directory, 'sub'), join(directory, 'old'));
    await eventually(() => consumer.problems.length === 1);
    expect(consumer.problems[0]?.what).toContain('no such file');
    await mkdir(join(directory, 'sub'));
    await writeFile(file, nodes(2));
    await eventually(() => consumer.size === 2);
    await eventually(() => consumer.problems.length === 2);
    expect(consumer.problems[1]).toBeUndefined();
  });

  test('keeps the last good state when a new version is wrong', async () => {
    await writeFile(file, nodes(1));
    const consumer = new Consumer();
    await start(consumer);
    await writeFile(file, 'nodes:\n  - { name: node-0, address: 10.0.0.300 }\n');
    await eventually(() => consumer.problems.length === 1);
    expect(consumer.problems[0]).toEqual({
      what: `the new cluster state is not used: ${file}:2: nodes[0].address: is "10.0.0.300"; expected a unicast address, as 192.168.1.2 or fd00::2`,
      where: file,
      action: 'correct the file; the last good version stays in force until then',
    });
    expect(consumer.states.length).toBe(1);
    // Back to what is in force: nothing to hand over, but the problem is gone.
    await writeFile(file, nodes(1));
    await eventually(() => consumer.problems.length === 2);
    expect(consumer.problems[1]).toBeUndefined();
    expect(consumer.states.length).toBe(1);
  });

  test('a new version that means the same is not handed over', async () => {
    await writeFile(file, nodes(1));
    const consumer = new Consumer();
    await start(consumer);
    await writeFile(file, `# a comment\n${nodes(1)}`);
    await settle();
    expect(consumer.states.length).toBe(1);
  });

  test('hands a state over again that the consumer rejected', async () => {
    await writeFile(file, nodes(1));
    const consumer = new Consumer();
    await start(consumer);
    consumer.failure = new Error('map peers: ENOSPC');
    await writeFile(file, nodes(2));
    await eventually(() => consumer.problems.length === 1);
    expect(consumer.problems[0]?.what).toContain('map peers: ENOSPC');
    consumer.failure = undefined;
    await eventually(() => consumer.size === 2);
    await eventually(() => consumer.problems.length === 2);
    expect(consumer.states.at(-1)?.diff.added.length).toBe(1);
  });

  test('never calls the consumer twice at a time, and misses no change meanwhile', async () => {
    await writeFile(file, nodes(1));
    const consumer = new Consumer();
    await start(consumer);
    let open = (): void => undefined;
    consumer.gate = new Promise((resolve) => (open = resolve));
    await writeFile(file, nodes(2));
    await eventually(() => consumer.running === 1);
    await writeFile(file, nodes(3));
    await settle();
    open();
    await eventually(() => consumer.size === 3);
    expect(consumer.mostRunning).toBe(1);
  });

  test('is quiet after stop(), which waits for a call under way', async () => {
    await writeFile(file, nodes(1));
    const consumer = new Consumer();
    await start(consumer, { pollMs: 20 });
    let open = (): void => undefined;
    consumer.gate = new Promise((resolve) => (open = resolve));
    await writeFile(file, nodes(2));
    await eventually(() => consumer.running === 1);
    let stopped = false;
    const stopping = source?.stop().then(() => (stopped = true));
    await settle();
    expect(stopped).toBe(false);
    open();
    await stopping;
    expect(consumer.running).toBe(0);
    await writeFile(file, nodes(3));
    await settle();
    expect(consumer.size).toBe(2);
  });
});
