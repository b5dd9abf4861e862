/** Runs a spec file inside a fresh micro-VM and reports to jest as if it had run here. */
import type { AssertionResult, TestResult } from '@jest/test-result';
import { ovsBinaries } from '../../lab/openvswitch.ts';
import { LAB_MODULES, MicroVm } from '../vm.ts';
import { chosenKernel, OVS_MODULES } from '../ovs.ts';
import { bundleSpec } from './bundle.ts';
import { decodeEvent, type SpecEvent, type SpecName, type SpecResult } from './events.ts';

/** What of jest's configuration matters. */
export interface RemoteOptions {
  readonly specFile: string;
  /** The module that stands for the native lab's, absolute. */
  readonly lab: string;
  readonly namePattern: string | undefined;
}

/** How much slower than natively everything is: the emulator, and hardware virtualisation. */
const TIME_FACTOR = { tcg: 10, kvm: 2 } as const;
const SPEC_LIMIT_MS = 60_000;
/** Of a whole file. */
const FILE_LIMIT_MS = 40 * 60_000;
const OUTPUT_KEPT = 32 * 1024 * 1024;
/** Of an error that is told before the file's end; the whole follows then. */
const WHY_KEPT = 1500;
/** A kernel's last words are long. */
const CONSOLE_KEPT = 12_000;
const MEMORY_MIB = 3072;
const RETRIES = 1;

/** What the file's run came to. */
interface Outcome {
  readonly events: readonly SpecEvent[];
  /** Why the run did not come to its end; undefined if it did. */
  readonly failure: string | undefined;
}

/**
 * Boots, runs, and reports.
 * @throws Error when it did not come to the specs; the message ends with what was said
 */
export async function runRemotely(options: RemoteOptions): Promise<TestResult> {
  const started = Date.now();
  const outcome = await runInVm(options);
  // A file without specs is told to jest by throwing only.
  if (!outcome.events.some((event) => event.type === 'specs')) throw new Error(outcome.failure ?? 'no specs');
  return toTestResult(options.specFile, outcome, started);
}

async function runInVm(options: RemoteOptions): Promise<Outcome> {
  const program = await bundleSpec(options.specFile, {
    lab: options.lab,
    defaultLimitMs: SPEC_LIMIT_MS,
    retries: RETRIES,
    ...(options.namePattern === undefined ? {} : { namePattern: options.namePattern }),
  });
  // The machine has no network to fetch them by.
  await ovsBinaries();
  // Only now: the machine must not see files change that it reads.
  await using vm = await MicroVm.boot({
    kernel: chosenKernel(),
    memory: MEMORY_MIB,
    modules: [...LAB_MODULES, ...OVS_MODULES],
  });
  // A processor that the host gives to others for a moment finds thousands of packets when it is back: none is to be dropped.
  await vm.check(['sysctl', '-q', '-w', 'net.core.netdev_max_backlog=100000']);
  // A kernel that patches its code puts a breakpoint there for a moment. QEMU's emulation may hit one that has just been
  // removed, and the kernel dies of it. The first socket with time stamps, as ping has them, patches the path of every packet.
  vm.spawn(['ping', '-q', '-i', '3600', '127.0.0.1']);
  const running = vm.spawn(['node', program], {
    keepBytes: OUTPUT_KEPT,
    env: {
      XMASQ_TIME_FACTOR: String(TIME_FACTOR[vm.accelerator]),
      XMASQ_KERNEL: vm.kernel,
      NODE_COMPILE_CACHE: '/tmp/node-cache',
    },
  });
  const deadline = Date.now() + FILE_LIMIT_MS;
  let told = 0;
  while (!running.ended && Date.now() < deadline) {
    await running.nextChange(deadline - Date.now());
    told = tellProgress(running.stdout, told);
  }
  const late = running.ended ? undefined : `not done within ${FILE_LIMIT_MS} ms`;
  const events = eventsOf(running.stdout);
  const done = events.find((event) => event.type === 'done');
  if (done !== undefined) return { events, failure: done.failure };
  const said = `${running.stdout.slice(-2000)}\n${running.stderr.slice(-6000)}\n${vm.consoleLog.slice(-CONSOLE_KEPT)}`;
  return { events, failure: `${late ?? 'the run broke off'}\n${said}` };
}

/** The events of the lines that are whole. */
function eventsOf(output: string): SpecEvent[] {
  return output
    .slice(0, output.lastIndexOf('\n') + 1)
    .split('\n')
    .flatMap((line) => decodeEvent(line) ?? []);
}

/* A file takes minutes, and jest says nothing before its end. Returns how many results have been told. */
function tellProgress(output: string, told: number): number {
  const events = eventsOf(output);
  const specs = events.flatMap((event) => (event.type === 'specs' ? event.specs : []));
  const ends = events.filter((event) => event.type === 'end');
  for (const { index, result } of ends.slice(told)) {
    if (result.status === 'pending') continue;
    const seconds = (result.milliseconds / 1000).toFixed(1);
    process.stderr.write(`  ${result.status}: ${specs[index]?.title ?? ''} (${seconds} s)\n`);
    const [why] = [...result.errors, ...result.earlierErrors];
    if (why !== undefined) process.stderr.write(`${indent(why.slice(0, WHY_KEPT))}\n`);
  }
  return ends.length;
}

function toTestResult(specFile: string, { events, failure }: Outcome, started: number): TestResult {
  const specs = events.flatMap((event) => (event.type === 'specs' ? event.specs : []));
  const results = new Map(events.flatMap((event) => (event.type === 'end' ? [[event.index, event.result]] : [])));
  const unfinished: SpecResult = {
    status: 'failed',
    milliseconds: 0,
    errors: [`no result: ${failure ?? ''}`],
    earlierErrors: [],
  };
  const assertions = specs.map((spec, i) => toAssertion(spec, results.get(i) ?? unfinished));
  const count = (status: AssertionResult['status']): number =>
    assertions.filter((assertion) => assertion.status === status).length;
  const messages = assertions.flatMap(({ status, fullName, failureMessages }) =>
    status === 'failed' ? [`  ● ${fullName}\n\n${indent(failureMessages.join('\n\n'))}\n`] : [],
  );
  if (failure !== undefined) messages.push(`  ● outside of the specs\n\n${indent(failure)}\n`);
  const end = Date.now();
  return {
    leaks: false,
    numFailingTests: count('failed'),
    numPassingTests: count('passed'),
    numPendingTests: count('pending'),
    numTodoTests: 0,
    openHandles: [],
    perfStats: {
      end,
      loadTestEnvironmentEnd: started,
      loadTestEnvironmentStart: started,
      runtime: end - started,
      setupAfterEnvEnd: started,
      setupAfterEnvStart: started,
      setupFilesEnd: started,
      setupFilesStart: started,
      slow: false,
      start: started,
    },
    skipped: false,
    snapshot: {
      added: 0,
      fileDeleted: false,
      matched: 0,
      unchecked: 0,
      uncheckedKeys: [],
      unmatched: 0,
      updated: 0,
    },
    testFilePath: specFile,
    testResults: assertions,
    ...(messages.length === 0 ? {} : { failureMessage: `${messages.join('\n')}\n` }),
    ...(failure === undefined ? {} : { testExecError: { message: failure, stack: failure } }),
  };
}

function toAssertion({ blocks, title }: SpecName, result: SpecResult): AssertionResult {
  return {
    ancestorTitles: [...blocks],
    title,
    fullName: [...blocks, title].join(' '),
    status: result.status,
    duration: result.milliseconds,
    failureMessages: [...result.errors],
    failureDetails: [],
    retryReasons: [...result.earlierErrors],
    invocations: result.earlierErrors.length > 0 ? 2 : 1,
    location: null,
    numPassingAsserts: 0,
  };
}

function indent(text: string): string {
  return text.replaceAll(/^/gm, '    ');
}
