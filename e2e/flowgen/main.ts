/**
 * Measures the flow export: node e2e/flowgen/main.ts [--records N] [--streams N] [--flows N] [--rate N] [--minimum N]
 * [--profile]
 * --profile: tells what the collector spends its time on, too, and writes it to build/bench-flow-profile.json; of memory it tells nothing.
 * Exit code 1: something was lost, memory grew, or one core takes fewer than --minimum records per second.
 */
import { existsSync, rmSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import type { CollectorSample } from './collector.ts';
import { memoryGrowth } from './growth.ts';
import { measure } from './measure.ts';
import { readProfile, sharesOf, tableOf } from './profile.ts';

/** Memory that the last half of a run may take on top of the first one. */
const MAX_GROWTH = 0.15;
const BUILD = fileURLToPath(new URL('../../build', import.meta.url));
/** As the profiler writes it: Chrome's developer tools and others show it. */
const PROFILE = `${BUILD}/bench-flow.cpuprofile`;
const LINE_EVERY = 5;

function numberOf(name: string, text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 0) throw new Error(`--${name} ${text}: expected a whole number`);
  return value;
}

const { values } = parseArgs({
  options: {
    records: { type: 'string', default: '300000' },
    streams: { type: 'string', default: '100' },
    flows: { type: 'string', default: '60000' },
    rate: { type: 'string', default: '0' },
    minimum: { type: 'string', default: '10000' },
    profile: { type: 'boolean', default: false },
  },
});
const messages = numberOf('records', values.records);
// What an earlier run left must not be taken for this one's.
if (values.profile) rmSync(PROFILE, { force: true });
let seconds = 0;
const line = ({ flows, rssBytes, liveBytes, cpuUs, records }: CollectorSample): void => {
  if (seconds++ % LINE_EVERY !== 0) return;
  const mb = (bytes: number): string => `${Math.round(bytes / 1e6)} MB`;
  const memory = `${mb(rssBytes)} RSS, ${mb(liveBytes)} live`;
  console.log(`${flows} records, ${records} kept, ${memory}, ${cpuUs / 1e6} s CPU`);
};
const { load, samples, last, perCpuSecond } = await measure(
  {
    messages,
    streams: numberOf('streams', values.streams),
    flows: numberOf('flows', values.flows),
    rate: numberOf('rate', values.rate),
    malformedEvery: 1000,
    duplicateEvery: 100,
  },
  line,
  values.profile ? PROFILE : undefined,
);
if (values.profile) {
  if (!existsSync(PROFILE)) throw new Error('no profile: with so few records all was over before one could begin');
  const shares = sharesOf(readProfile(PROFILE));
  writeFileSync(`${BUILD}/bench-flow-profile.json`, `${JSON.stringify(shares, undefined, 2)}\n`);
  console.log(tableOf(shares));
}
// Without forced collections nothing can be said of what is live.
const growth = values.profile ? undefined : memoryGrowth(samples);
console.log(
  `${last.flows} records in ${load.seconds.toFixed(1)} s (${Math.round(last.flows / load.seconds)}/s), ` +
    `${Math.round(perCpuSecond)} per second of CPU; ${last.malformed} malformed, ${last.duplicates} duplicates, ` +
    `${last.fresh} new, ${last.updates} updates, ${last.stale} stale, ` +
    `${last.evicted} evicted; memory ${growth === undefined ? 'not judged' : `${(growth * 100).toFixed(1)} %`}`,
);
const problems = [
  ...(last.flows === load.records + load.duplicates
    ? []
    : [`${load.records + load.duplicates - last.flows} are missing`]),
  ...(last.malformed === load.malformed ? [] : [`${last.malformed} malformed, not ${load.malformed}`]),
  ...(growth === undefined || growth <= MAX_GROWTH ? [] : [`memory grew by ${(growth * 100).toFixed(1)} %`]),
  ...(perCpuSecond >= numberOf('minimum', values.minimum) ? [] : [`fewer than ${values.minimum} per second of CPU`]),
];
for (const problem of problems) console.error(problem);
process.exitCode = problems.length === 0 ? 0 : 1;
