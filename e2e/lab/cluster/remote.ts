/**
 * Commands in containers: to their end, or as processes that go on. Who ends the local half of `kubectl exec` or
 * `docker exec` does not end the command, so each is limited, and told signals, where it runs.
 */
import { LabError, sleep } from '../lab.ts';
import type { ExecOptions, ExecResult, Proc, SpawnOptions } from '../lab.ts';
import { run } from '../native/process.ts';
import type { ProcessTable } from '../native/process.ts';

/** A way into a container. It needs `sh`, `timeout` and `setsid`. */
export interface Entry {
  /** For errors and log files. */
  readonly name: string;
  /** What stands before a command. @param input the command's standard input is given */
  before(input: boolean): readonly string[];
}

const DEFAULT_TIMEOUT_MS = 15_000;
/** For the way there and back, besides the command's own time. */
const MARGIN_MS = 10_000;
/** Exit code of timeout(1). */
const TIMED_OUT = 124;
/** From the end of the command to that of the local half, which has the output to pass on. */
const LAST_OUTPUT_MS = 5000;
/** The first line of a process's output: its number there, which is that of its process group, too. */
const SELF = /^process (\d+)\n/m;

/** Runs a command to its end; see ExecOptions for bounds and errors. */
export async function execIn(entry: Entry, argv: readonly string[], options: ExecOptions = {}): Promise<ExecResult> {
  const timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
  const limit = ['timeout', '-k', '2', String(Math.ceil(timeoutMs / 1000))];
  const command = [...entry.before(options.input !== undefined), ...limit, ...argv];
  const result = await run(command, entry.name, { ...options, timeoutMs: timeoutMs + MARGIN_MS });
  if (result.code === TIMED_OUT)
    throw new LabError(`${entry.name}: ${argv.join(' ')}: not done after ${timeoutMs} ms\n${result.stderr}`);
  return result;
}

/** The processes that one lab has started in containers. */
export class RemoteProcesses {
  readonly #local: ProcessTable;
  readonly #running = new Set<RemoteProcess>();

  /** @param local has the local halves, and so the logs */
  constructor(local: ProcessTable) {
    this.#local = local;
  }

  /** Starts a process in a session of its own. */
  async start(entry: Entry, argv: readonly string[], options: SpawnOptions = {}): Promise<Proc> {
    if (options.outside === true) throw new LabError(`${entry.name}: a process in a container is never outside of it`);
    const env = Object.entries(options.env ?? {}).map(([name, value]) => `${name}=${value}`);
    const command = [
      ...entry.before(false),
      ...['setsid', '--wait', 'sh', '-c', 'echo "process $$"; exec "$@"', 'sh'],
      ...(env.length === 0 ? [] : ['env', ...env]),
      ...argv,
    ];
    const local = await this.#local.start(command, { name: options.name ?? `${entry.name}-${programName(argv)}` });
    const proc = new RemoteProcess(local, entry);
    this.#running.add(proc);
    void proc.exited.then(() => this.#running.delete(proc));
    return proc;
  }

  /** Ends all of them. */
  async stopAll(): Promise<void> {
    await Promise.all([...this.#running].map((proc) => proc.stop()));
  }
}

/** A process in a container, by its local half: that one's exit code and log are the command's. */
class RemoteProcess implements Proc {
  readonly #local: Proc;
  readonly #entry: Entry;

  constructor(local: Proc, entry: Entry) {
    this.#local = local;
    this.#entry = entry;
  }

  /** Of the local half. */
  get pid(): number {
    return this.#local.pid;
  }

  get name(): string {
    return this.#local.name;
  }

  get logPath(): string {
    return this.#local.logPath;
  }

  get exited(): Proc['exited'] {
    return this.#local.exited;
  }

  get running(): boolean {
    return this.#local.running;
  }

  output(): string {
    return this.#local.output().replace(SELF, '');
  }

  /** As every Proc, with 10 s by default: there is a way to go. */
  waitFor(pattern: RegExp, timeoutMs = MARGIN_MS): Promise<string> {
    return this.#local.waitFor(pattern, timeoutMs);
  }

  json(timeoutMs?: number): Promise<unknown> {
    return this.#local.json(timeoutMs);
  }

  async stop(signal: NodeJS.Signals = 'SIGTERM', graceMs = 2000): Promise<void> {
    if (this.#local.running) {
      await this.#signal(signal);
      if (!(await this.#endsWithin(graceMs))) {
        await this.#signal('SIGKILL');
        await this.#endsWithin(LAST_OUTPUT_MS);
      }
    }
    await this.#local.stop();
  }

  /** To the whole process group. One that is gone already, or not there yet, is no error. */
  async #signal(signal: NodeJS.Signals): Promise<void> {
    const pid = SELF.exec(this.#local.output())?.[1];
    if (pid === undefined) return;
    const command = ['sh', '-c', 'kill -s "$1" -- "-$2"', 'sh', signal.replace(/^SIG/, ''), pid];
    await execIn(this.#entry, command, { check: false });
  }

  #endsWithin(ms: number): Promise<boolean> {
    return Promise.race([this.exited.then(() => true), sleep(ms).then(() => false)]);
  }
}

function programName(argv: readonly string[]): string {
  return (argv[0] ?? 'process').replace(/^.*\//, '');
}
