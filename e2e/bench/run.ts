/** A benchmark by the clock from its labs to its result: what `bench-apps` and `bench-micro` have in common. */
import { spawnSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { cpus, loadavg, release, totalmem } from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { LabError } from '../lab/lab.ts';
import type { Lab } from '../lab/lab.ts';
import type { Removal, Way } from './labs.ts';
import { KUBE_PROXY_RULES } from './kube-proxy.ts';
import { nodeToNode, podToPod } from './labs.ts';
import { plotOf } from './plot.ts';
import type { Plot } from './plot.ts';
import { runMeasurement } from './program.ts';
import { NAMES, rowsOf, runLine, tableOf } from './result.ts';
import type { FigureFacts, PathName, Row, Run } from './result.ts';
import { measureRounds } from './rounds.ts';
import type { Rounds, Test } from './rounds.ts';

const ROOT = path.join(import.meta.dirname, '../..');
const BUILD = path.join(ROOT, 'build');
const GIB = 2 ** 30;

/** How much is measured. */
export interface Effort {
  /** Whole seconds of each measurement. */
  readonly seconds: number;
  readonly rounds: number;
  /** No round begins that would probably end later than this after the beginning of the run. */
  readonly limitMs: number;
}

/** A benchmark. */
export interface Benchmark<F extends string> {
  /** `bench-...`: the target, and the name of the files in build/. */
  readonly name: string;
  readonly full: Effort;
  readonly quick: Effort;
  readonly facts: Readonly<Record<F, FigureFacts>>;
  /** Makes ready what the tests need by each way. */
  readonly tests: (
    ways: Readonly<Record<PathName, Way>>,
    seconds: number,
    removal: Removal,
    progress: (what: string) => void,
  ) => Promise<readonly Test<F>[]>;
  /** Lines below the table. */
  readonly notes?: (rows: readonly Row[]) => string;
  readonly plots: readonly Plot[];
}

/** Runs the program of a benchmark: `node MAIN [--quick]`. @returns the exit code */
export function runBenchmark<F extends string>(benchmark: Benchmark<F>): Promise<number> {
  const { name, facts } = benchmark;
  const { values } = parseArgs({ options: { quick: { type: 'boolean', default: false } } });
  const { seconds, rounds: most, limitMs } = values.quick ? benchmark.quick : benchmark.full;
  const [loadBefore = 0] = loadavg();
  return runMeasurement(name, async (removal, progress) => {
    progress.step('bringing up four labs of two nodes, one with XMasq');
    const ways = await buildWays(removal);
    const tests = await benchmark.tests(ways, seconds, removal, (what) => progress.step(what));
    const measured = await measureRounds(ways, tests, {
      most,
      goOn: (rounds, longestMs) => rounds === 0 || progress.elapsedMs + longestMs < limitMs,
      progress: (round, what) => progress.step(`measuring, round ${round} of up to ${most}`, what),
    });
    progress.step('removing the labs');
    await removal.run();
    progress.end();
    const [loadAfter = 0] = loadavg();
    report(
      benchmark,
      measured,
      runOf(name, values.quick, seconds, measured, [loadBefore, loadAfter], progress.elapsedMs),
    );
  });

  function report({ notes, plots }: Benchmark<F>, { samples }: Rounds<PathName, F>, run: Run): void {
    const rows = rowsOf(samples, facts);
    const file = path.join(BUILD, `${name}.json`);
    mkdirSync(BUILD, { recursive: true });
    writeFileSync(file, `${JSON.stringify(rows, undefined, 2)}\n`);
    writeFileSync(path.join(BUILD, `${name}-run.json`), `${JSON.stringify(run, undefined, 2)}\n`);
    const pictures = plots.map((plot) => writePlot(plot.name, plotOf(plot, rows, facts)));
    const lines = [
      tableOf(rows, facts),
      ...(notes === undefined ? [] : [notes(rows)]),
      runLine(run),
      ...run.repeated.map((what) => `Measured again, as it was not on the fast path: ${what}`),
      `Written to ${path.relative(ROOT, file)} in ${run.elapsedSeconds} s; pictures: ${pictures.join(', ')}`,
    ];
    process.stdout.write(`${lines.join('\n\n')}\n`);
  }
}

/** What is told of a run. @param loads averages before and after it */
export function runOf(
  name: string,
  quick: boolean,
  secondsEach: number,
  { rounds, repeated }: Pick<Rounds<string, string>, 'rounds' | 'repeated'>,
  [loadBefore, loadAfter]: readonly [number, number],
  elapsedMs: number,
): Run {
  return {
    command: `make ${name}${quick ? ' QUICK=1' : ''}`,
    machine: machine(),
    rounds,
    secondsEach,
    quick,
    repeated,
    loadBefore: Number(loadBefore.toFixed(1)),
    loadAfter: Number(loadAfter.toFixed(1)),
    elapsedSeconds: Math.round(elapsedMs / 1000),
  };
}

/** Processors, memory and kernel of this machine, for people. */
export function machine(): string {
  const all = cpus();
  const model = all[0]?.model.trim() ?? 'unknown processor';
  return `${all.length} processors (${model}), ${Math.round(totalmem() / GIB)} GiB, Linux ${/^[\d.]+/.exec(release())?.[0] ?? release()}`;
}

/**
 * Host network on nodes that have no pods, without rules and conntrack and with a Kubernetes node's, overlay on nodes without
 * XMasq, and XMasq, each in a lab of its own.
 */
async function buildWays(removal: Removal): Promise<Readonly<Record<PathName, Way>>> {
  const withoutPods = { podsPerNode: 0, hostConntrack: false };
  const [hosts, hostsK8s, bare, fast] = await Promise.all([
    removal.lab(withoutPods),
    removal.lab(withoutPods),
    removal.lab(),
    removal.lab(),
  ]);
  await setRules(hosts, '');
  await setRules(hostsK8s, KUBE_PROXY_RULES);
  return {
    host: { title: NAMES.host, ...nodeToNode(hosts) },
    hostK8s: { title: NAMES.hostK8s, ...nodeToNode(hostsK8s) },
    overlay: { title: NAMES.overlay, ...podToPod(bare) },
    xmasq: { title: NAMES.xmasq, ...podToPod(fast), sidecars: await removal.sidecars(fast) },
  };
}

/** The lab's own rules are those of an overlay; the kernel tracks connections where rules ask for it. */
export async function setRules(lab: Lab, rules: string): Promise<void> {
  await Promise.all(lab.nodes.map((node) => node.exec(['nft', '-f', '-'], { input: `flush ruleset\n${rules}` })));
}

/** Writes a picture as SVG and PNG. @returns the files for people */
function writePlot(name: string, svg: string): string {
  const file = path.join(BUILD, `${name}.svg`);
  writeFileSync(file, svg);
  const png = path.join(BUILD, `${name}.png`);
  const { status, error, stderr } = spawnSync('rsvg-convert', ['-o', png, file], { encoding: 'utf8' });
  if (status !== 0) throw new LabError(`rsvg-convert ${file}: ${error?.message ?? stderr.trim()}`);
  return `${path.relative(ROOT, file)} and .png`;
}
