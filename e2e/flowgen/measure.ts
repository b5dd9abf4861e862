/** Runs a collector in a process of its own under load: what it costs per record, and whether its memory stays flat. */
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { CollectorSample } from './collector.ts';
import { load, type LoadOptions, type LoadResult } from './generator.ts';

export interface Measurement {
  readonly load: LoadResult;
  /** One every two seconds, the last one at the end. */
  readonly samples: readonly CollectorSample[];
  readonly last: CollectorSample;
  /**
   * Records per second of the collector's processor time, once the first WARM_PART of them has come and its code is compiled:
   * what one core can take for as long as one likes.
   */
  readonly perCpuSecond: number;
}

const COLLECTOR = fileURLToPath(new URL('./collector.ts', import.meta.url));

/** Of all records, until it counts what they take. */
const WARM_PART = 0.2;
const COLD = { flows: 0, cpuUs: 0 };

/** How long a collector may take for what is under way when the load ends. */
const REST_MS = 10_000;

function certificates(directory: string): LoadOptions['tls'] {
  const text = (name: string): string => readFileSync(join(directory, name), 'utf8');
  return { ca: text('ca.crt'), cert: text('client.crt'), key: text('client.key') };
}

/**
 * @param profile a file for a profile of the collector's processor. Its samples force no collections then, and say nothing of
 *   memory
 * @throws Error where the collector or a stream ends before its time
 */
export async function measure(
  options: Omit<LoadOptions, 'port' | 'tls'>,
  onSample: (sample: CollectorSample) => void = () => undefined,
  profile?: string,
): Promise<Measurement> {
  const directory = mkdtempSync(join(tmpdir(), 'xmasq-flowgen-'));
  const run = profile === undefined ? ['--expose-gc', COLLECTOR, directory] : [COLLECTOR, directory, profile];
  const collector = spawn(process.execPath, run, { stdio: ['pipe', 'pipe', 'inherit'] });
  const exited = new Promise<void>((resolve) => void collector.once('exit', () => resolve()));
  try {
    const samples: CollectorSample[] = [];
    const lines = createInterface(collector.stdout);
    const port = await new Promise<number>((resolve, reject) => {
      lines.once('line', (line) => resolve(Number(line)));
      void exited.then(() => reject(new Error('the collector did not start')));
    });
    lines.on('line', (line) => {
      const sample = JSON.parse(line) as CollectorSample;
      samples.push(sample);
      onSample(sample);
    });
    const result = await load({ ...options, port, tls: certificates(directory) });
    const expected = result.records + result.duplicates;
    for (let waited = 0; (samples.at(-1)?.flows ?? 0) < expected && waited < REST_MS; waited += 100) {
      await new Promise<void>((resolve) => void setTimeout(resolve, 100));
    }
    const quiet = samples.at(-1);
    collector.stdin.end();
    await exited;
    const last = samples.at(-1);
    if (last === undefined || quiet === undefined) throw new Error('the collector said nothing');
    // All of it where it was over before that could be seen.
    const warm = samples.find((one) => one.flows >= expected * WARM_PART && one.flows < expected / 2) ?? COLD;
    const perCpuSecond = (last.flows - warm.flows) / ((last.cpuUs - warm.cpuUs) / 1e6);
    return { load: result, samples, last, perCpuSecond };
  } finally {
    collector.kill('SIGKILL');
    await exited;
    rmSync(directory, { recursive: true, force: true });
  }
}
