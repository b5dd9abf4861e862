/** Runs commands: to their end (`run`), or as processes of the lab that go on (`ProcessTable`). */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { closeSync, fstatSync, mkdirSync, openSync, readSync } from 'node:fs';
import { basename, join } from 'node:path';
import { LabError, TIME_FACTOR, sleep } from '../lab.ts';
import type { ExecOptions, ExecResult, Proc } from '../lab.ts';

const OUTPUT_LIMIT = 16 * 1024 * 1024;
const DEFAULT_EXEC_TIMEOUT_MS = 15_000;
const POLL_MS = 10;

/** Runs a command to its end; see ExecOptions for bounds and errors. `where` names the place in errors. */
export function run(argv: readonly string[], where: string, options: ExecOptions = {}): Promise<ExecResult> {
  const [program, ...args] = argv;
  if (program === undefined) return Promise.reject(new LabError(`${where}: empty command`));
  const timeoutMs = (options.timeoutMs ?? DEFAULT_EXEC_TIMEOUT_MS) * TIME_FACTOR;
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { detached: true, stdio: ['pipe', 'pipe', 'pipe'] });
    const out = collect(child.stdout);
    const err = collect(child.stderr);
    let timedOut = false;
    const timer = setTimeout(() => {
      timedOut = true;
      signalGroup(child, 'SIGKILL');
    }, timeoutMs);
    // A command that does not read its input closes the pipe early: that is no error of the command.
    child.stdin.on('error', () => undefined);
    child.stdin.end(options.input ?? '');
    child.on('error', (error) => {
      clearTimeout(timer);
      reject(new LabError(`${where}: cannot run ${program}: ${error.message}`));
    });
    child.on('close', (code, signal) => {
      clearTimeout(timer);
      const result = { code, stdout: out(), stderr: err() };
      const check = options.check ?? true;
      if (timedOut) {
        reject(new LabError(`${where}: ${describe(argv)}: killed after ${timeoutMs} ms\n${tail(result)}`));
      } else if (check && code !== 0) {
        const ending = code === null ? `signal ${String(signal)}` : `exit code ${code}`;
        reject(new LabError(`${where}: ${describe(argv)}: ${ending}\n${tail(result)}`));
      } else {
        resolve(result);
      }
    });
  });
}

function collect(stream: NodeJS.ReadableStream): () => string {
  const chunks: Buffer[] = [];
  let size = 0;
  stream.on('data', (chunk: Buffer) => {
    if (size < OUTPUT_LIMIT) chunks.push(chunk);
    size += chunk.length;
  });
  return () => Buffer.concat(chunks).subarray(0, OUTPUT_LIMIT).toString('utf8');
}

function describe(argv: readonly string[]): string {
  const text = argv.join(' ');
  return text.length > 300 ? `${text.slice(0, 300)}...` : text;
}

function tail(result: ExecResult): string {
  return `${result.stderr}${result.stdout}`.slice(-2000).trim();
}

function signalGroup(child: ChildProcess, signal: NodeJS.Signals): void {
  if (child.pid === undefined) return;
  try {
    process.kill(-child.pid, signal);
  } catch {
    // The group is gone already.
  }
}

/** The running processes of one lab, with their logs in one directory. */
export class ProcessTable {
  readonly #dir: string;
  readonly #running = new Set<TrackedProcess>();
  readonly #names = new Map<string, number>();

  constructor(dir: string) {
    this.#dir = dir;
    mkdirSync(dir, { recursive: true });
  }

  /** Starts a process in its own group, output appended to `<dir>/<name>.log`. Rejects if it cannot be executed. */
  async start(
    argv: readonly string[],
    options: { name?: string; env?: Readonly<Record<string, string>> },
  ): Promise<Proc> {
    const [program, ...args] = argv;
    if (program === undefined) throw new LabError('spawn: empty command');
    const name = this.#uniqueName(options.name ?? basename(program));
    const logPath = join(this.#dir, `${name}.log`);
    const log = openSync(logPath, 'a');
    let child: ChildProcess;
    try {
      child = spawn(program, args, {
        detached: true,
        stdio: ['ignore', log, log],
        env: { ...process.env, ...options.env },
      });
      await new Promise<void>((resolve, reject) => {
        child.once('spawn', resolve);
        child.once('error', (error) => {
          reject(new LabError(`cannot start ${describe(argv)}: ${error.message}`));
        });
      });
    } finally {
      closeSync(log);
    }
    const tracked = new TrackedProcess(child, name, logPath);
    this.#running.add(tracked);
    void tracked.exited.then(() => this.#running.delete(tracked));
    return tracked;
  }

  /** Lets the builder's process end while these go on. */
  unref(): void {
    for (const tracked of this.#running) tracked.unref();
  }

  /** Ends all of them: SIGTERM, then SIGKILL after `graceMs`. */
  async stopAll(graceMs = 1000): Promise<void> {
    await Promise.all([...this.#running].map((tracked) => tracked.stop('SIGTERM', graceMs)));
  }

  #uniqueName(name: string): string {
    const count = (this.#names.get(name) ?? 0) + 1;
    this.#names.set(name, count);
    return count === 1 ? name : `${name}.${count}`;
  }
}

class TrackedProcess implements Proc {
  readonly pid: number;
  readonly name: string;
  readonly logPath: string;
  readonly exited: Promise<{ code: number | null; signal: string | null }>;
  readonly #child: ChildProcess;
  #running = true;

  constructor(child: ChildProcess, name: string, logPath: string) {
    if (child.pid === undefined) throw new LabError(`${name}: no process id`);
    this.#child = child;
    this.pid = child.pid;
    this.name = name;
    this.logPath = logPath;
    this.exited = new Promise((resolve) => {
      child.once('exit', (code, signal) => {
        this.#running = false;
        resolve({ code, signal });
      });
    });
  }

  get running(): boolean {
    return this.#running;
  }

  output(): string {
    const file = openSync(this.logPath, 'r');
    try {
      const size = fstatSync(file).size;
      const wanted = Math.min(size, OUTPUT_LIMIT);
      const buffer = Buffer.alloc(wanted);
      const got = readSync(file, buffer, 0, wanted, size - wanted);
      return buffer.subarray(0, got).toString('utf8');
    } finally {
      closeSync(file);
    }
  }

  async waitFor(pattern: RegExp, timeoutMs = 5000): Promise<string> {
    const end = Date.now() + timeoutMs * TIME_FACTOR;
    for (;;) {
      const ended = !this.#running;
      const line = this.output()
        .split('\n')
        .find((candidate) => pattern.test(candidate));
      if (line !== undefined) return line;
      if (ended) throw this.#error(`ended before it printed ${String(pattern)}`);
      if (Date.now() >= end) throw this.#error(`did not print ${String(pattern)} within ${timeoutMs} ms`);
      await sleep(POLL_MS);
    }
  }

  async json(timeoutMs = 30_000): Promise<unknown> {
    await this.#ended(timeoutMs);
    const line = this.output()
      .split('\n')
      .findLast((candidate) => candidate.startsWith('{'));
    if (line === undefined) throw this.#error('printed no JSON object');
    return JSON.parse(line) as unknown;
  }

  async stop(signal: NodeJS.Signals = 'SIGTERM', graceMs = 2000): Promise<void> {
    // The group may outlive its leader: always signal it, and never leave without SIGKILL to the rest.
    signalGroup(this.#child, signal);
    const timer = setTimeout(() => signalGroup(this.#child, 'SIGKILL'), graceMs * TIME_FACTOR);
    await this.exited;
    clearTimeout(timer);
    signalGroup(this.#child, 'SIGKILL');
  }

  unref(): void {
    this.#child.unref();
  }

  async #ended(timeoutMs: number): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        reject(this.#error(`still running after ${timeoutMs * TIME_FACTOR} ms`));
      }, timeoutMs * TIME_FACTOR);
    });
    try {
      await Promise.race([this.exited, late]);
    } finally {
      clearTimeout(timer);
    }
  }

  #error(what: string): LabError {
    return new LabError(
      `process ${this.name} (${this.pid}) ${what}; log ${this.logPath}:\n${this.output().slice(-2000)}`,
    );
  }
}
