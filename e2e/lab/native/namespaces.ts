/** Network namespaces by name: enter, list, find their processes, remove. */
import { readdirSync, readlinkSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { LabError, sleep } from '../lab.ts';
import { run } from './process.ts';

const DIRECTORY = '/run/netns';

/**
 * The command that runs `argv` inside a namespace. nsenter and not `ip netns exec`, which mounts a fresh /sys and so
 * hides everything pinned below /sys/fs/bpf.
 */
export function inNamespace(name: string, argv: readonly string[]): string[] {
  return ['nsenter', `--net=${join(DIRECTORY, name)}`, '--', ...argv];
}

/** Names of the namespaces that start with this prefix. */
export function listNamespaces(prefix: string): string[] {
  try {
    return readdirSync(DIRECTORY).filter((name) => name.startsWith(prefix));
  } catch {
    return []; // No namespace was ever made on this machine.
  }
}

/** Ids of the processes whose main thread is inside one of these namespaces. */
export function processesIn(names: readonly string[]): number[] {
  const wanted = new Set<string>();
  for (const name of names) {
    try {
      wanted.add(`net:[${statSync(join(DIRECTORY, name)).ino}]`);
    } catch {
      // Removed meanwhile.
    }
  }
  if (wanted.size === 0) return [];
  return readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry))
    .map(Number)
    .filter((pid) => {
      if (pid === process.pid) return false;
      try {
        return wanted.has(readlinkSync(`/proc/${pid}/ns/net`));
      } catch {
        return false; // Ended meanwhile.
      }
    });
}

/**
 * Kills what runs inside these namespaces and waits (2 s at most) until it is gone, then removes the namespaces. A
 * LabError if one is still there; that somebody else removed one meanwhile is no error.
 */
export async function removeNamespaces(names: readonly string[]): Promise<void> {
  if (names.length === 0) return;
  for (let round = 0; round < 40; round++) {
    const pids = processesIn(names);
    if (pids.length === 0) break;
    for (const pid of pids) {
      try {
        process.kill(pid, 'SIGKILL');
      } catch {
        // Ended meanwhile.
      }
    }
    await sleep(50);
  }
  const { stderr } = await run(['ip', '-force', '-batch', '-'], 'namespaces', {
    input: names.map((name) => `netns del ${name}\n`).join(''),
    check: false,
  });
  const left = names.filter((name) => listNamespaces(name).includes(name));
  if (left.length > 0) throw new LabError(`cannot remove namespaces ${left.join(' ')}: ${stderr.trim()}`);
}
