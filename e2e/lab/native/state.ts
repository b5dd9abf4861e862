/**
 * What a lab leaves on disk so that another process can remove it: `build/lab/<id>.json`. Logs and captures are in
 * `build/lab/<id>/` and outlive the lab; only the newest are kept.
 */
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { LabError } from '../lab.ts';
import type { ToolName } from '../lab.ts';
import { PREFIX } from './addressing.ts';

const ROOT = fileURLToPath(new URL('../../..', import.meta.url));
const STATE_DIR = join(ROOT, 'build', 'lab');
const KEPT_DIRECTORIES = 20;

export interface LabState {
  readonly id: string;
  /** The process that built the lab; its start time (clock ticks since boot) tells it from a later one of the same id. */
  readonly owner: { readonly pid: number; readonly startTime: string };
  /** The lab is meant to outlive its owner. */
  readonly kept: boolean;
  /** Directories below the BPF file system. */
  readonly pinDirs: readonly string[];
  readonly created: string;
}

/** Path of a compiled traffic tool; a LabError if it was not built. */
export function toolPath(name: ToolName | 'delay'): string {
  const path = join(ROOT, 'build', 'tools', name);
  if (!existsSync(path)) throw new LabError(`no traffic tool ${path}: run "make -C e2e/tools"`);
  return path;
}

/** Log directory of a lab. */
export function labDir(id: string): string {
  return join(STATE_DIR, id);
}

export function saveState(state: LabState): void {
  mkdirSync(STATE_DIR, { recursive: true });
  writeFileSync(stateFile(state.id), `${JSON.stringify(state, null, 2)}\n`);
}

export function removeState(id: string): void {
  rmSync(stateFile(id), { force: true });
}

/** The labs that were built and not taken down; unreadable files are left out. */
export function listStates(): LabState[] {
  if (!existsSync(STATE_DIR)) return [];
  return readdirSync(STATE_DIR)
    .filter((name) => name.startsWith(PREFIX) && name.endsWith('.json'))
    .flatMap((name) => {
      try {
        return [JSON.parse(readFileSync(join(STATE_DIR, name), 'utf8')) as LabState];
      } catch {
        return [];
      }
    });
}

/** This process as the owner of a lab. */
export function thisOwner(): LabState['owner'] {
  return { pid: process.pid, startTime: startTime(process.pid) ?? '' };
}

/** True while the process that built the lab runs. */
export function ownerAlive(state: LabState): boolean {
  return startTime(state.owner.pid) === state.owner.startTime;
}

/** Removes the oldest log directories of labs that are gone. */
export function pruneLabDirectories(): void {
  if (!existsSync(STATE_DIR)) return;
  const directories = readdirSync(STATE_DIR, { withFileTypes: true })
    .filter((entry) => entry.isDirectory() && entry.name.startsWith(PREFIX) && !existsSync(stateFile(entry.name)))
    .map((entry) => ({ path: labDir(entry.name), changed: statSync(labDir(entry.name)).mtimeMs }))
    .sort((a, b) => b.changed - a.changed);
  for (const { path } of directories.slice(KEPT_DIRECTORIES)) {
    if (dirname(path) === STATE_DIR) rmSync(path, { recursive: true, force: true });
  }
}

function stateFile(id: string): string {
  return join(STATE_DIR, `${id}.json`);
}

/* Field 22 of /proc/<pid>/stat; the command name before it may hold spaces and brackets. */
function startTime(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
  } catch {
    return undefined;
  }
}
