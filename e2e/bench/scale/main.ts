/**
 * `make bench-scale`: what a packet costs with many flows and many peers, and what a sidecar costs in a large cluster. Writes
 * build/bench-scale.json. With --quick a few rounds, without the million flows, for trying.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { loadavg } from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { Node } from '../../../plugin/test/prog/harness.ts';
import { measure } from '../../flowgen/measure.ts';
import type { Progress } from '../progress.ts';
import { runMeasurement } from '../program.ts';
import { machine } from '../run.ts';
import { countInstructions } from './counted.ts';
import { POPULATIONS, countedMetric, rowsOf, scaleLine, tableOf } from './figures.ts';
import type { NamedPopulation, ScaleRun } from './figures.ts';
import { Crowd, PROGRAMS, compileDriver } from './packets.ts';
import { measureSidecar } from './sidecar.ts';
import type { SidecarEffort } from './sidecar.ts';

const NAME = 'bench-scale';
const BUILD = path.join(import.meta.dirname, '../../../build');
const MB = 1e6;

interface Effort {
  readonly populations: readonly NamedPopulation[];
  readonly packets: { readonly rounds: number; readonly each: number };
  readonly sidecar: SidecarEffort;
  readonly flowExport: { readonly rounds: number; readonly records: number };
}

const FULL: Effort = {
  populations: POPULATIONS,
  packets: { rounds: 15, each: 400_000 },
  sidecar: { rounds: 5, restMs: 20_000 },
  flowExport: { rounds: 3, records: 300_000 },
};
const QUICK: Effort = {
  populations: POPULATIONS.filter(({ flows }) => flows <= 100_000),
  packets: { rounds: 3, each: 100_000 },
  sidecar: { rounds: 1, restMs: 3000 },
  flowExport: { rounds: 1, records: 30_000 },
};
/** As `make bench-flow`: agents, connections that they report about, and what of it is malformed or comes twice. */
const FLOW_LOAD = { streams: 100, flows: 60_000, rate: 0, malformedEvery: 1000, duplicateEvery: 100 } as const;

const { values } = parseArgs({ options: { quick: { type: 'boolean', default: false } } });
const effort = values.quick ? QUICK : FULL;
const samples = new Map<string, number[]>();
const late: Record<string, number> = {};

function add(metric: string, value: number): void {
  const list = samples.get(metric);
  if (list === undefined) samples.set(metric, [value]);
  else list.push(value);
}

/** Cost per packet; time and memory of the maps. */
async function measurePackets(progress: Progress): Promise<void> {
  progress.step('compiling the driver');
  const driver = await compileDriver();
  const node = await Node.create();
  const crowds: { readonly crowd: Crowd; readonly name: string }[] = [];
  try {
    for (const { name, title, flows, peers } of effort.populations) {
      progress.step('filling maps', title);
      const crowd = new Crowd(node, driver, { flows, peers });
      crowds.push({ crowd, name });
      add(`fill_${name}`, crowd.filling.seconds * 1000);
      add(`memory_${name}`, crowd.filling.bytes / MB);
    }
    const { rounds, each } = effort.packets;
    for (let round = 0; round < rounds; round++) {
      progress.step('packets', `round ${round + 1} of ${rounds}`);
      const first = round % crowds.length;
      for (const program of PROGRAMS) {
        for (const { crowd, name } of [...crowds.slice(first), ...crowds.slice(0, first)]) {
          const metric = `${program}_${name}`;
          const sample = crowd.sample(program, each);
          add(metric, sample.ns);
          if (sample.late) late[metric] = (late[metric] ?? 0) + 1;
        }
      }
    }
  } finally {
    for (const { crowd } of crowds) crowd.close();
    node.close();
  }
}

/** Minutes, most of them for a million flows: not in a try. */
async function countPackets(progress: Progress): Promise<void> {
  if (values.quick) return;
  progress.step('counting instructions in a micro-VM');
  for (const { program, name, instructions } of await countInstructions(await compileDriver())) {
    add(countedMetric(program, name), instructions);
  }
}

async function measureFlowExport(progress: Progress): Promise<void> {
  const { rounds, records } = effort.flowExport;
  for (let round = 1; round <= rounds; round++) {
    progress.step('flow export', `run ${round} of ${rounds}`);
    const { perCpuSecond } = await measure({ ...FLOW_LOAD, messages: records });
    add('records', perCpuSecond);
  }
}

const [loadBefore = 0] = loadavg();
process.exitCode = await runMeasurement(NAME, async (removal, progress) => {
  await measurePackets(progress);
  await countPackets(progress);
  await measureSidecar(removal, effort.sidecar, (what) => progress.step(what), add);
  progress.step('removing the lab');
  await removal.run();
  await measureFlowExport(progress);
  progress.end();
  const [loadAfter = 0] = loadavg();
  const run: ScaleRun = {
    command: `make ${NAME}${values.quick ? ' QUICK=1' : ''}`,
    machine: machine(),
    rounds: {
      packets: effort.packets.rounds,
      sidecar: effort.sidecar.rounds,
      flowExport: effort.flowExport.rounds,
    },
    quick: values.quick,
    loadBefore: Number(loadBefore.toFixed(1)),
    loadAfter: Number(loadAfter.toFixed(1)),
    elapsedSeconds: Math.round(progress.elapsedMs / 1000),
    late,
  };
  const rows = rowsOf(samples);
  mkdirSync(BUILD, { recursive: true });
  writeFileSync(path.join(BUILD, `${NAME}.json`), `${JSON.stringify(rows, undefined, 2)}\n`);
  writeFileSync(path.join(BUILD, `${NAME}-run.json`), `${JSON.stringify(run, undefined, 2)}\n`);
  const lines = [tableOf(rows), scaleLine(run), `Written to build/${NAME}.json in ${run.elapsedSeconds} s`];
  process.stdout.write(`${lines.join('\n\n')}\n`);
});
