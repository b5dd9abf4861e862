/** What programs that measure have in common: root, a progress line, removal also when interrupted, the exit code. */
import { LabError } from '../lab/lab.ts';
import { sweep } from '../lab/native/native.ts';
import { Removal } from './labs.ts';
import { Progress } from './progress.ts';

/** Longest time for removing everything. */
const REMOVAL_MS = 20_000;

/** Exit code after SIGINT, as a shell has it. */
const INTERRUPTED = 130;

/**
 * Runs `work` and removes what it began by `removal`, whatever happens.
 * @param name begins what is printed about it
 * @returns the exit code
 */
export async function runMeasurement(
  name: string,
  work: (removal: Removal, progress: Progress) => Promise<void>,
): Promise<number> {
  if (process.getuid?.() !== 0) {
    process.stderr.write(`${name}: network namespaces and eBPF need root: run it as root\n`);
    return 1;
  }
  const removal = new Removal();
  const progress = new Progress(name, process.stderr);
  const interrupted = new AbortController();
  const stop = (signal: NodeJS.Signals): void => {
    interrupted.abort();
    progress.end();
    process.stderr.write(`${name}: ${signal}: removing the labs\n`);
    const late = setTimeout(() => process.exit(INTERRUPTED), REMOVAL_MS);
    late.unref();
    void removal.run().finally(() => process.exit(INTERRUPTED));
  };
  process.once('SIGINT', stop);
  process.once('SIGTERM', stop);
  const failed = (error: unknown): number => {
    // After a signal everything fails, because it is being removed.
    if (interrupted.signal.aborted) return INTERRUPTED;
    progress.end();
    const message = error instanceof LabError ? error.message : error instanceof Error ? error.stack : String(error);
    process.stderr.write(`${name}: failed: ${message ?? ''}\n`);
    return 1;
  };
  let code = 0;
  try {
    await sweep();
    await work(removal, progress);
  } catch (error) {
    code = failed(error);
  }
  progress.end();
  try {
    await removal.run();
  } catch (error) {
    code ||= failed(error);
  }
  return code;
}
