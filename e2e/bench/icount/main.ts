/**
 * Counts instructions: `node e2e/bench/icount/main.ts` (`make bench-icount`). A micro-VM with one processor whose clock is
 * the number of instructions executed (QEMU's icount) measures every path; nothing else the host does plays a part. Writes build/bench-icount.json and compares with the record that is committed.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { ovsBinaries } from '../../lab/openvswitch.ts';
import { bundleForGuest } from '../../vm/bundle.ts';
import { hostCommand } from '../../vm/command.ts';
import { PROJECT_ROOT } from '../../vm/kernels.ts';
import { OVS_MODULES } from '../../vm/ovs.ts';
import { runCounting } from './machine.ts';
import { dearer, METRICS, MODES, ofOneKind, PATHS, recordText, rowsOf, withRows } from './paths.ts';
import type { Figure, Kept, Versions } from './paths.ts';

const GUEST = path.join(import.meta.dirname, 'guest.ts');
const RECORD = path.join(import.meta.dirname, 'record.json');
const RESULT = path.join(PROJECT_ROOT, 'build/bench-icount.json');
const LIMIT_MS = 120 * 60_000;

/** What to measure: comma-separated names, all where it is empty. */
interface Only {
  readonly paths: string;
  readonly metrics: string;
  /** Of each connection of tcp_connection. */
  readonly requests: string;
}

interface Measured {
  readonly versions: Versions;
  readonly figures: readonly Figure[];
}

async function firstLine(program: string): Promise<string> {
  return (await hostCommand(program, ['--version'])).toString().split('\n')[0] ?? '';
}

async function measure(only: Only): Promise<Measured> {
  const program = await bundleForGuest(GUEST, `import ${JSON.stringify(GUEST)};`);
  await ovsBinaries();
  const { release, figures } = await runCounting<Figure>({
    program,
    env: {
      XMASQ_BENCH_PATHS: only.paths,
      XMASQ_BENCH_METRICS: only.metrics,
      XMASQ_BENCH_REQUESTS: only.requests,
    },
    modules: OVS_MODULES,
    limitMs: LIMIT_MS,
  });
  const [qemu, compiler] = await Promise.all([firstLine('qemu-system-x86_64'), firstLine('clang')]);
  return { versions: { kernel: release, qemu, compiler }, figures };
}

/** @throws Error naming what is not known: nothing would be measured */
function requireNames(list: string, known: readonly string[]): void {
  const unknown = list.split(',').filter((name) => name !== '' && !known.includes(name));
  if (unknown.length > 0) throw new Error(`unknown: ${unknown.join(', ')}; known: ${known.join(', ')}`);
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      record: { type: 'boolean', default: false },
      paths: { type: 'string', default: '' },
      metrics: { type: 'string', default: '' },
      requests: { type: 'string', default: '' },
    },
  });
  requireNames(values.paths, [...PATHS, ...MODES]);
  requireNames(values.metrics, Object.keys(METRICS));
  if (!/^([1-9]\d{0,3})?$/.test(values.requests))
    throw new Error(`--requests ${values.requests}: 1 to 9999 is possible`);
  if (values.record && (values.paths !== '' || values.requests !== '')) {
    throw new Error(
      '--record keeps all ways of a metric, with as many requests as ever: not with --paths or --requests',
    );
  }
  const { versions, figures } = await measure(values);
  // Of some ways only there is nothing to compare or to keep: the figures were told while they were measured.
  if (values.paths !== '' || values.requests !== '') return 0;
  const whole = values.metrics === '';
  const now: Kept = { versions, rows: rowsOf(figures, whole ? undefined : values.metrics.split(',')) };
  if (whole) writeFileSync(RESULT, `${JSON.stringify(now.rows, undefined, 2)}\n`);
  console.log(`${recordText(now)}\n`);
  const kept = existsSync(RECORD) ? (JSON.parse(readFileSync(RECORD, 'utf8')) as Kept) : undefined;
  if (values.record || kept === undefined) {
    writeFileSync(RECORD, `${JSON.stringify(whole ? now : withRows(kept, now), undefined, 2)}\n`);
    console.log(`recorded in ${path.relative(PROJECT_ROOT, RECORD)}`);
    return 0;
  }
  if (!ofOneKind(kept, now)) {
    console.log('not compared: the record is of other versions (make bench-icount RECORD=1 makes a new one)');
    return 0;
  }
  const complaints = dearer(kept, now);
  for (const complaint of complaints) console.error(`dearer: ${complaint}`);
  return complaints.length === 0 ? 0 : 1;
}

main().then(
  (code) => {
    process.exitCode = code;
  },
  (error: unknown) => {
    console.error(`bench-icount: ${error instanceof Error ? error.message : String(error)}`);
    process.exitCode = 1;
  },
);
