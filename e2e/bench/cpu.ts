/** On which CPUs what this process starts may run. */
import { spawnSync } from 'node:child_process';
import { availableParallelism } from 'node:os';
import { LabError } from '../lab/lab.ts';

/**
 * Runs `work` with every process it starts bound to the last CPU. With client and server on one CPU a request/response
 * costs what the code between them costs; otherwise its time depends mostly on where the scheduler puts the two and how
 * long a sleeping CPU takes to wake up, by a factor of three.
 */
export async function onOneCpu<T>(work: () => Promise<T>): Promise<T> {
  const before = affinity();
  bind(String(availableParallelism() - 1));
  try {
    return await work();
  } finally {
    bind(before);
  }
}

/* Children inherit the affinity of the main thread, which taskset without -a is about. */
function affinity(): string {
  const output = taskset(['-cp', String(process.pid)]);
  return output.replace(/^.*: /, '').trim();
}

function bind(cpus: string): void {
  taskset(['-cp', cpus, String(process.pid)]);
}

function taskset(args: readonly string[]): string {
  const { status, stdout, stderr, error } = spawnSync('taskset', args, { encoding: 'utf8' });
  if (status !== 0) throw new LabError(`taskset ${args.join(' ')}: ${error?.message ?? stderr.trim()}`);
  return stdout;
}
