/** A micro-VM whose clock is the number of instructions executed (QEMU's icount): nothing else the host does plays a part. */
import { chosenKernel } from '../../vm/ovs.ts';
import { LAB_MODULES, MicroVm } from '../../vm/vm.ts';
import { NS_PER_INSTRUCTION, figuresOf } from './counting.ts';

/** Idle time passes as it does here. */
const COUNTING = ['-icount', `shift=${Math.log2(NS_PER_INSTRUCTION)},sleep=on`];
/** Without these, copies are loops of single instructions, not one of them per byte. */
const PLAIN_COPIES = ['-cpu', 'max,-erms,-fsrm'];
const MEMORY_MIB = 3072;

export interface CountingOptions {
  /** A program that is bundled for the guest (e2e/vm/bundle.ts). It prints its figures by counting.ts. */
  readonly program: string;
  readonly env: Readonly<Record<string, string>>;
  /** Kernel modules besides the lab's. */
  readonly modules?: readonly string[];
  /** For all of it, milliseconds of the host. Counting is some three times slower than emulation alone. */
  readonly limitMs: number;
}

export interface Counted<Figure> {
  /** Of the guest's kernel. */
  readonly release: string;
  readonly figures: readonly Figure[];
}

/** Boots such a machine. @throws Error when it does not take commands in time */
export function bootCounting({
  modules = [],
  qemuArguments = [],
}: {
  readonly modules?: readonly string[];
  readonly qemuArguments?: readonly string[];
}): Promise<MicroVm> {
  return MicroVm.boot({
    kernel: chosenKernel(),
    memory: MEMORY_MIB,
    processors: 1,
    modules: [...LAB_MODULES, ...modules],
    qemuArguments: [...COUNTING, ...PLAIN_COPIES, ...qemuArguments],
    timeoutSeconds: 300,
  });
}

/** What programs of the lab have to be told in such a machine. */
export function programEnvironment({ kernel }: MicroVm): Record<string, string> {
  return { XMASQ_TIME_FACTOR: '30', XMASQ_KERNEL: kernel };
}

/**
 * Runs a program in such a machine; what it says on standard error is told while it runs.
 * @throws Error where it fails or takes longer
 */
export async function runCounting<Figure>({
  program,
  env,
  modules = [],
  limitMs,
}: CountingOptions): Promise<Counted<Figure>> {
  await using vm = await bootCounting({ modules });
  const running = vm.spawn(['node', program], { env: { ...programEnvironment(vm), ...env } });
  const deadline = Date.now() + limitMs;
  let told = 0;
  while (!running.ended && Date.now() < deadline) {
    await running.nextChange(deadline - Date.now());
    process.stderr.write(running.stderr.slice(told));
    told = running.stderr.length;
  }
  if (!running.ended) throw new Error(`not done within ${limitMs} ms`);
  const { code } = await running.exited;
  if (code !== 0) throw new Error(`the measurement in the guest ended with ${code}; what it said is above`);
  return { release: vm.release, figures: figuresOf(running.stdout) };
}
