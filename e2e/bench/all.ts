/**
 * `make bench`: every benchmark by its own target, one after another, whatever fails before, and a summary. With --quick the tries
 * of those that have one. Exit code 1 if one failed.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { MEMBERS, exitCodeOf, summaryOf } from './summary.ts';
import type { Ended, Member, SummedRow } from './summary.ts';

const ROOT = path.join(import.meta.dirname, '../..');
/** After SIGINT or SIGTERM: nothing more is begun. make itself has this exit code for an interrupted target, too. */
const INTERRUPTED = 130;

const { values } = parseArgs({ options: { quick: { type: 'boolean', default: false } } });

function run({ name, hasTry, hasRows }: Member): Ended {
  if (values.quick && !hasTry) return { name, code: null, seconds: 0 };
  process.stdout.write(`\n=== ${name}\n`);
  const begin = Date.now();
  const argv = ['--no-print-directory', name, ...(values.quick ? ['QUICK=1'] : [])];
  const { status, signal, error } = spawnSync('make', argv, { cwd: ROOT, stdio: ['ignore', 'inherit', 'inherit'] });
  if (error !== undefined) process.stderr.write(`bench: make ${name}: ${error.message}\n`);
  const code = status ?? (signal === null ? 1 : INTERRUPTED);
  const rows = hasRows && code === 0 ? rowsSince(name, begin) : undefined;
  return { name, code, seconds: (Date.now() - begin) / 1000, ...(rows === undefined ? {} : { rows }) };
}

/** The result in build/, if this run has written it. */
function rowsSince(name: string, begin: number): readonly SummedRow[] | undefined {
  const file = path.join(ROOT, 'build', `${name}.json`);
  if (!existsSync(file) || statSync(file).mtimeMs < begin) return undefined;
  return JSON.parse(readFileSync(file, 'utf8')) as SummedRow[];
}

const ended: Ended[] = [];
// What comes from the keyboard reaches make as well, which ends; this program sees it between two benchmarks.
const interrupted = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => interrupted.abort());
for (const member of MEMBERS) {
  ended.push(run(member));
  await new Promise((resolve) => setImmediate(resolve));
  if (interrupted.signal.aborted || ended.at(-1)?.code === INTERRUPTED) break;
}
process.stdout.write(`\n${summaryOf(ended)}\n`);
process.exitCode = interrupted.signal.aborted ? INTERRUPTED : exitCodeOf(ended);
