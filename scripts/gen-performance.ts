/**
 * Writes the tables and pictures of docs/performance.md from the results of `make bench-apps`, `make bench-micro`,
 * `make bench-modes` and `make bench-scale` in build/, from those of `make profile` and `make bench-flow PROFILE=1` if there are any, and from the record of `make bench-icount`. What has no
 * result stays as it is; the result of a try is refused.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { format, resolveConfig } from 'prettier';
import { FACTS as APPS_FACTS, PLOTS as APPS_PLOTS, latencyNotes } from '../e2e/bench/apps/apps.ts';
import { filled } from '../e2e/bench/document.ts';
import { FACTS as MICRO_FACTS, PLOTS as MICRO_PLOTS } from '../e2e/bench/micro/tests.ts';
import { modesLine, tableOf as modesTableOf } from '../e2e/bench/modes/modes.ts';
import type { ModeRow } from '../e2e/bench/modes/modes.ts';
import { FACTS as MODES_FACTS } from '../e2e/bench/modes/tests.ts';
import { recordText } from '../e2e/bench/icount/paths.ts';
import type { Kept } from '../e2e/bench/icount/paths.ts';
import { plotOf } from '../e2e/bench/plot.ts';
import type { Plot } from '../e2e/bench/plot.ts';
import { runLine, tableOf } from '../e2e/bench/result.ts';
import type { FigureFacts, Row, Run } from '../e2e/bench/result.ts';
import { scaleLine, tableOf as scaleTableOf } from '../e2e/bench/scale/figures.ts';
import type { ScaleRow, ScaleRun } from '../e2e/bench/scale/figures.ts';
import { tableOf as sharesTableOf } from '../e2e/flowgen/profile.ts';
import type { Share } from '../e2e/flowgen/profile.ts';
import { tableOf as traceTableOf } from '../e2e/bench/profile/functions.ts';
import type { TraceResult } from '../e2e/bench/profile/functions.ts';

const DOCUMENT = fileURLToPath(new URL('../docs/performance.md', import.meta.url));
const IMAGES = fileURLToPath(new URL('../docs/images', import.meta.url));

interface Part {
  readonly name: string;
  readonly facts: Readonly<Record<string, FigureFacts>>;
  readonly plots: readonly Plot[];
  readonly notes?: (rows: readonly Row[]) => string;
}

const PARTS: readonly Part[] = [
  { name: 'bench-apps', facts: APPS_FACTS, plots: APPS_PLOTS, notes: latencyNotes },
  { name: 'bench-micro', facts: MICRO_FACTS, plots: MICRO_PLOTS },
];

function resultOf(file: string): unknown {
  const path = fileURLToPath(new URL(`../build/${file}`, import.meta.url));
  return existsSync(path) ? (JSON.parse(readFileSync(path, 'utf8')) as unknown) : undefined;
}

/** Rows and run of a benchmark in build/; undefined, which is told, if there are none or they are only a try's. */
function measured(name: string): { readonly rows: unknown; readonly run: unknown } | undefined {
  const rows = resultOf(`${name}.json`);
  const run = resultOf(`${name}-run.json`) as { readonly quick: boolean } | undefined;
  if (rows !== undefined && run !== undefined && !run.quick) return { rows, run };
  const why = run?.quick === true ? 'is only a try' : 'is not there';
  process.stderr.write(`gen-performance.ts: build/${name}.json ${why}: run make ${name}\n`);
  process.exitCode = 1;
  return undefined;
}

function textOf({ facts, plots, notes }: Part, rows: readonly Row[], run: Run): string {
  const pictures = plots.map(({ name, title }) => `![${title}](images/${name}.svg)`);
  return [runLine(run), ...pictures, tableOf(rows, facts), ...(notes === undefined ? [] : [notes(rows)])].join('\n\n');
}

let document = readFileSync(DOCUMENT, 'utf8');
for (const part of PARTS) {
  const result = measured(part.name);
  if (result === undefined) continue;
  const rows = result.rows as Row[];
  mkdirSync(IMAGES, { recursive: true });
  for (const plot of part.plots) writeFileSync(`${IMAGES}/${plot.name}.svg`, plotOf(plot, rows, part.facts));
  document = filled(document, part.name, textOf(part, rows, result.run as Run));
}
const scale = measured('bench-scale');
if (scale !== undefined) {
  const text = `${scaleLine(scale.run as ScaleRun)}\n\n${scaleTableOf(scale.rows as ScaleRow[])}`;
  document = filled(document, 'bench-scale', text);
}
const modes = measured('bench-modes');
if (modes !== undefined) {
  const text = `${modesLine(modes.run as Run)}\n\n${modesTableOf(modes.rows as ModeRow[], MODES_FACTS)}`;
  document = filled(document, 'bench-modes', text);
}
const traced = resultOf('profile.json');
if (traced !== undefined)
  document = filled(document, 'profile', (traced as TraceResult[]).map(traceTableOf).join('\n\n'));
const shares = resultOf('bench-flow-profile.json');
if (shares !== undefined) document = filled(document, 'bench-flow-profile', sharesTableOf(shares as Share[]));
const record = readFileSync(new URL('../e2e/bench/icount/record.json', import.meta.url), 'utf8');
document = filled(document, 'bench-icount', recordText(JSON.parse(record) as Kept));
writeFileSync(DOCUMENT, await format(document, { ...(await resolveConfig(DOCUMENT)), filepath: DOCUMENT }));
