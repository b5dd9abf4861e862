/**
 * `make demo`: host network, standard overlay and XMasq compared on two nodes, in at most two minutes. Prints a table,
 * writes build/demo.json, and removes what it built, also when interrupted.
 */
import { writeFileSync } from 'node:fs';
import { relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Removal } from '../bench/labs.ts';
import { runMeasurement } from '../bench/program.ts';
import type { Progress } from '../bench/progress.ts';
import { measureRounds } from '../bench/rounds.ts';
import type { Rounds } from '../bench/rounds.ts';
import { LabError } from '../lab/lab.ts';
import { establish } from './established.ts';
import { demoResult, demoTable } from './report.ts';
import type { Figure, PathName } from './report.ts';
import { TESTS } from './tests.ts';
import { buildLabs, waysOf } from './ways.ts';
import { lookAtWire } from './wire.ts';
import type { WireReport } from './wire.ts';

const RESULT = fileURLToPath(new URL('../../build/demo.json', import.meta.url));
const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const ROUNDS = { least: 3, most: 5 };
/** The last round must be over by then: what follows takes about ten seconds, and two minutes are the limit. */
const LAST_ROUND_ENDS_MS = 100_000;
async function demo(removal: Removal, progress: Progress): Promise<void> {
  progress.step('bringing up two labs of two nodes, one with XMasq');
  const labs = await buildLabs(removal);
  const { fast, sidecars } = labs;

  progress.step('waiting until a TCP and a UDP flow are on the fast path (UDP needs 2 s of traffic)');
  await (await establish(fast, sidecars)).stop();

  const measured = await measureRounds(waysOf(labs), TESTS, {
    most: ROUNDS.most,
    goOn: (rounds, longestMs) => rounds < ROUNDS.least || progress.elapsedMs + longestMs < LAST_ROUND_ENDS_MS,
    progress: (round, what) => progress.step(`measuring, round ${round} of up to ${ROUNDS.most}`, what),
  });

  progress.step('capturing the underlay');
  const wire = await lookAtWire(fast, sidecars);

  progress.step('removing the labs');
  await removal.run();
  progress.end();
  report(measured, wire, progress.elapsedMs);
}

function report({ samples, rounds, repeated }: Rounds<PathName, Figure>, wire: WireReport, elapsedMs: number): void {
  const { masqueraded, encapsulated, unmarked } = wire.count;
  const result = demoResult(samples, wire.count);
  writeFileSync(RESULT, `${JSON.stringify(result, null, 2)}\n`);
  print(`
Median of ${rounds} interleaved rounds (least-greatest); gap closed: 0 % = overlay, 100 % = host network

${demoTable(samples)}
On the underlay, packets of an established TCP transfer and of UDP requests between pods:
  ${masqueraded} masqueraded (node addresses, marker, no tunnel header), ${encapsulated} encapsulated (VXLAN)
  capture: ${relative(ROOT, wire.capture)}${wire.dropped > 0 ? ` (it lost ${wire.dropped} packets)` : ''}

Path of the TCP flow on node n1 (${wire.command}):
${indent(wire.flowTable)}

${repeated.map((what) => `Measured again, as it was not on the fast path: ${what}\n`).join('')}Written to ${relative(ROOT, RESULT)} in ${Math.round(elapsedMs / 1000)} s.`);
  if (unmarked > 0) throw new LabError(`${unmarked} packets of the flows were neither masqueraded nor encapsulated`);
  if (masqueraded === 0) throw new LabError('no packet of the established flows was masqueraded');
}

function indent(text: string): string {
  return text.replace(/^(?=.)/gm, '  ').trimEnd();
}

function print(text: string): void {
  process.stdout.write(`${text}\n`);
}

process.exitCode = await runMeasurement('demo', demo);
