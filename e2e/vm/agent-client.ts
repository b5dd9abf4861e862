/** The host's side of the guest's command agent: starts processes in the guest and collects what they say. */
import { constants } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Duplex } from 'node:stream';
import { getSystemErrorName } from 'node:util';
import { OutputTail } from './output.ts';
import { encodeFrame, encodeStart, FrameReader, FrameType, STDIN_CHUNK, type Frame } from './protocol.ts';

/** How to start a process in the guest. */
export interface SpawnOptions {
  /** Added to the guest's environment (PATH with the project's node first, HOME, LC_ALL). */
  readonly env?: Readonly<Record<string, string>>;
  /** Working directory, by default the checkout. */
  readonly cwd?: string;
  /** Input; its end is always sent. */
  readonly stdin?: string | Buffer;
  /** Bytes kept of standard output and of standard error, the last ones; 4 MiB by default. */
  readonly keepBytes?: number;
}

/** How to run a command to its end. */
export interface ExecOptions extends Omit<SpawnOptions, 'keepBytes'> {
  /** Milliseconds until the command's process group is killed and VmExecError thrown; 60 s by default. */
  readonly timeoutMs?: number;
  /** Bytes of standard output, and of standard error, above which the same happens; 64 MiB by default. */
  readonly maxOutputBytes?: number;
}

/** How a process ended. */
export interface ExitStatus {
  /** The exit code, or 128 + signal. */
  readonly code: number;
  /** The signal that killed it, 0 for none. */
  readonly signal: number;
}

/** A command's result. */
export interface ExecResult extends ExitStatus {
  readonly stdout: string;
  readonly stderr: string;
}

/** A command that did not come to a result (not started, too slow, too much output, machine gone), or failed in check(). */
export class VmExecError extends Error {
  override readonly name = 'VmExecError';
  readonly command: readonly string[];
  readonly stdout: string;
  readonly stderr: string;
  /** What killed it; 0 when nothing did. */
  readonly signal: number;

  constructor(command: readonly string[], reason: string, stdout = '', stderr = '', signal = 0) {
    const said = (stderr.trim() || stdout.trim()).slice(-2000);
    super(`in the micro-VM: ${command.join(' ')}: ${reason}${said === '' ? '' : `\n${said}`}`);
    this.command = command;
    this.stdout = stdout;
    this.stderr = stderr;
    this.signal = signal;
  }
}

/** What a fresh client assumes about the guest. */
export interface GuestDefaults {
  readonly env: Readonly<Record<string, string>>;
  readonly cwd: string;
}

const DEFAULT_KEEP = 4 * 1024 * 1024;
const DEFAULT_MAX_OUTPUT = 64 * 1024 * 1024;
const DEFAULT_TIMEOUT_MS = 60_000;
/** How long a killed process may take to be reported as ended. */
const KILL_GRACE_MS = 10_000;

/** A process of the guest. It ends with the machine at the latest. */
export class GuestProcess {
  readonly command: readonly string[];
  /** Resolves when the process has ended; rejects with VmExecError when it could not start or the machine is gone. */
  readonly exited: Promise<ExitStatus>;
  readonly #id: number;
  readonly #send: (frame: Buffer) => void;
  readonly #stdout: OutputTail;
  readonly #stderr: OutputTail;
  readonly #exit = Promise.withResolvers<ExitStatus>();
  readonly #changed = new Set<() => void>();
  #acknowledged: (() => void) | undefined;
  #ended = false;

  /** For AgentClient only. */
  constructor(id: number, command: readonly string[], keepBytes: number, send: (frame: Buffer) => void) {
    this.#id = id;
    this.command = command;
    this.#send = send;
    this.#stdout = new OutputTail(keepBytes);
    this.#stderr = new OutputTail(keepBytes);
    this.exited = this.#exit.promise;
    // Who does not wait for a background process is not to be surprised by an unhandled rejection.
    this.exited.catch(() => undefined);
  }

  /** True once the process has ended or could not start. */
  get ended(): boolean {
    return this.#ended;
  }

  /** Standard output so far (its last part, see SpawnOptions.keepBytes). */
  get stdout(): string {
    return this.#stdout.text();
  }

  /** Standard error so far. */
  get stderr(): string {
    return this.#stderr.text();
  }

  /** Bytes of the larger of both streams, kept or not. */
  get outputBytes(): number {
    return Math.max(this.#stdout.total, this.#stderr.total);
  }

  /** Sends a signal to the process's group; nothing happens when it has ended. */
  kill(signal: NodeJS.Signals = 'SIGTERM'): void {
    if (this.#ended) return;
    this.#send(encodeFrame(FrameType.kill, this.#id, Buffer.from([constants.signals[signal]])));
  }

  /**
   * Stops the process: SIGTERM, then SIGKILL when it has not ended after `graceMs`.
   * @throws VmExecError when it does not even die of that
   */
  async stop(graceMs = 20_000): Promise<ExitStatus> {
    this.kill('SIGTERM');
    if (!(await this.#endsWithin(graceMs))) this.kill('SIGKILL');
    if (!(await this.#endsWithin(KILL_GRACE_MS))) throw this.error('does not die');
    return this.exited;
  }

  /**
   * Waits until standard output or standard error matches.
   * @throws VmExecError after `timeoutMs`, or when the process ends without a match
   */
  async waitForOutput(pattern: RegExp, timeoutMs = DEFAULT_TIMEOUT_MS): Promise<void> {
    const deadline = Date.now() + timeoutMs;
    for (;;) {
      if (pattern.test(this.stdout) || pattern.test(this.stderr)) return;
      if (this.#ended) throw this.error(`ended without saying ${pattern}`);
      const left = deadline - Date.now();
      if (left <= 0) throw this.error(`has not said ${pattern} within ${timeoutMs} ms`);
      await this.nextChange(left);
    }
  }

  /** Waits for output or the end, at most `timeoutMs`. */
  async nextChange(timeoutMs: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<undefined>();
    const wake = (): void => resolve(undefined);
    const timer = setTimeout(wake, timeoutMs);
    this.#changed.add(wake);
    try {
      if (!this.#ended) await promise;
    } finally {
      clearTimeout(timer);
      this.#changed.delete(wake);
    }
  }

  /** An error that carries this process's command and output. */
  error(reason: string): VmExecError {
    return new VmExecError(this.command, reason, this.stdout, this.stderr);
  }

  /** For AgentClient only: sends the input and its end, a piece per acknowledgement. */
  async feed(input: Buffer): Promise<void> {
    for (let offset = 0; offset < input.length && !this.#ended; offset += STDIN_CHUNK) {
      const { promise, resolve } = Promise.withResolvers<undefined>();
      this.#acknowledged = (): void => resolve(undefined);
      this.#send(encodeFrame(FrameType.stdin, this.#id, input.subarray(offset, offset + STDIN_CHUNK)));
      await promise;
    }
    if (!this.#ended) this.#send(encodeFrame(FrameType.stdinEnd, this.#id));
  }

  /** For AgentClient only: takes a frame; true when it was the process's last. */
  accept(frame: Frame): boolean {
    switch (frame.type) {
      case FrameType.out:
        this.#stdout.push(frame.payload);
        break;
      case FrameType.err:
        this.#stderr.push(frame.payload);
        break;
      case FrameType.stdinAck:
        this.#acknowledged?.();
        break;
      case FrameType.exit: {
        const status = frame.payload.readInt32LE(0);
        this.#finish();
        this.#exit.resolve({ code: status & 0xffff, signal: status >> 16 });
        break;
      }
      case FrameType.failed:
        this.fail(`cannot start: ${getSystemErrorName(-frame.payload.readInt32LE(0))}`);
        break;
    }
    for (const wake of this.#changed) wake();
    return this.#ended;
  }

  /** For AgentClient only: the process has no future. */
  fail(reason: string): void {
    this.#finish();
    this.#exit.reject(this.error(reason));
    for (const wake of this.#changed) wake();
  }

  #finish(): void {
    this.#ended = true;
    this.#acknowledged?.();
  }

  async #endsWithin(timeoutMs: number): Promise<boolean> {
    const deadline = Date.now() + timeoutMs;
    while (!this.#ended && Date.now() < deadline) await this.nextChange(deadline - Date.now());
    return this.#ended;
  }
}

/** Speaks to one agent over its port. */
export class AgentClient {
  /** Resolves with the agent's first word; rejects when the port closes before it. */
  readonly ready: Promise<void>;
  readonly #port: Duplex;
  readonly #defaults: GuestDefaults;
  readonly #reader = new FrameReader();
  readonly #processes = new Map<number, GuestProcess>();
  readonly #hello = Promise.withResolvers<undefined>();
  #nextId = 1;
  #closed: string | undefined;

  constructor(port: Duplex, defaults: GuestDefaults) {
    this.#port = port;
    this.#defaults = defaults;
    this.ready = this.#hello.promise;
    this.ready.catch(() => undefined);
    port.on('data', (data: Buffer) => this.#receive(data));
    port.on('error', (error: Error) => this.close(error.message));
    port.on('close', () => this.close('the machine has ended'));
  }

  /** Starts a process and returns at once; a failure to start shows in `exited`. */
  spawn(command: readonly string[], options: SpawnOptions = {}): GuestProcess {
    const id = this.#nextId++;
    const process = new GuestProcess(id, command, options.keepBytes ?? DEFAULT_KEEP, (frame) => {
      if (this.#closed === undefined) this.#port.write(frame);
    });
    if (this.#closed !== undefined) {
      process.fail(this.#closed);
      return process;
    }
    const env = { ...this.#defaults.env, ...options.env };
    const start = encodeFrame(FrameType.start, id, encodeStart(command, env, options.cwd ?? this.#defaults.cwd));
    this.#processes.set(id, process);
    this.#port.write(start);
    void process.feed(Buffer.from(options.stdin ?? ''));
    return process;
  }

  /**
   * Runs a command to its end. Any exit code is a result.
   * @throws VmExecError when it cannot start, takes too long, says too much, or the machine goes
   */
  async exec(command: readonly string[], options: ExecOptions = {}): Promise<ExecResult> {
    const timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
    const maxOutput = options.maxOutputBytes ?? DEFAULT_MAX_OUTPUT;
    const process = this.spawn(command, { ...options, keepBytes: maxOutput });
    const deadline = Date.now() + timeoutMs;
    let reason: string | undefined;
    while (!process.ended && reason === undefined) {
      if (Date.now() >= deadline) reason = `killed, not done after ${timeoutMs} ms`;
      else if (process.outputBytes > maxOutput) reason = `killed, more than ${maxOutput} bytes of output`;
      else await process.nextChange(deadline - Date.now());
    }
    if (reason !== undefined) {
      process.kill('SIGKILL');
      await Promise.race([process.exited.catch(() => undefined), sleep(KILL_GRACE_MS, undefined, { ref: false })]);
      throw process.error(reason);
    }
    const status = await process.exited;
    if (process.outputBytes > maxOutput) throw process.error(`more than ${maxOutput} bytes of output`);
    return { ...status, stdout: process.stdout, stderr: process.stderr };
  }

  /** Ends the client: everything under way fails with `reason`. */
  close(reason: string): void {
    if (this.#closed !== undefined) return;
    this.#closed = reason;
    this.#hello.reject(new Error(reason));
    for (const process of this.#processes.values()) process.fail(reason);
    this.#processes.clear();
    this.#port.destroy();
  }

  #receive(data: Buffer): void {
    try {
      for (const frame of this.#reader.push(data)) {
        if (frame.type === FrameType.hello) this.#hello.resolve(undefined);
        else if (this.#processes.get(frame.id)?.accept(frame) === true) this.#processes.delete(frame.id);
      }
    } catch (error) {
      this.close(error instanceof Error ? error.message : String(error));
    }
  }
}
