/**
 * `make profile`: where the instructions of a transaction by TCP are, function by function. The micro-VM of bench-icount
 * notes each instruction that it executes while the guest exchanges requests and responses. Writes build/profile.json.
 */
import { createReadStream, statSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { createConnection } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { ovsBinaries } from '../../lab/openvswitch.ts';
import { bundleForGuest } from '../../vm/bundle.ts';
import { PROJECT_ROOT } from '../../vm/kernels.ts';
import { OVS_MODULES } from '../../vm/ovs.ts';
import { bootCounting, programEnvironment } from '../icount/machine.ts';
import { COMPARED, GO, Trace, functionsOf, rowsOf, tableOf } from './functions.ts';
import type { Costs, TraceResult, TracedPath } from './functions.ts';

const GUEST = path.join(import.meta.dirname, 'guest.ts');
const RESULT = path.join(PROJECT_ROOT, 'build/profile.json');
/** Until the guest is ready; a minute where the machine does nothing else. */
const READY_MS = 15 * 60_000;
/** For tracing, which takes some seconds. */
const TRACE_MS = 5 * 60_000;
/** Bytes of a trace: a request takes three to four million, a connection ten times as many. */
const TRACE_BYTES = 900e6;
const LOOK_MS = 100;
const MOST_ROWS = 30;

async function trace(traced: TracedPath, metric: string, program: string, directory: string): Promise<Costs> {
  const [monitor, log] = [path.join(directory, 'monitor'), path.join(directory, 'trace')];
  await using vm = await bootCounting({
    modules: OVS_MODULES,
    qemuArguments: ['-monitor', `unix:${monitor},server=on,wait=off`, '-D', log],
  });
  await vm.check(['sysctl', '-w', 'net.core.bpf_jit_kallsyms=1']);
  const running = vm.spawn(['node', program], {
    env: { ...programEnvironment(vm), XMASQ_TRACE_PATH: traced, XMASQ_TRACE_METRIC: metric },
  });
  const deadline = Date.now() + READY_MS;
  while (!running.stderr.includes(GO)) {
    if (running.ended) throw new Error(`the guest's program has ended: ${running.stderr}`);
    if (Date.now() >= deadline) throw new Error(`not ready within ${READY_MS} ms: ${running.stderr}`);
    await running.nextChange(deadline - Date.now());
  }
  const functions = functionsOf(await vm.check(['cat', '/proc/kallsyms']));
  await record(monitor, log);
  await vm.stop();
  const result = new Trace(functions);
  for await (const line of createInterface({ input: createReadStream(log) })) result.add(line);
  await rm(log);
  return result.costs();
}

/** Has the machine note every instruction until the trace is long enough. */
async function record(monitor: string, log: string): Promise<void> {
  const commands = createConnection(monitor);
  try {
    commands.resume();
    commands.write('singlestep on\nlog exec,nochain\n');
    const deadline = Date.now() + TRACE_MS;
    while (statSync(log).size < TRACE_BYTES) {
      if (Date.now() >= deadline) throw new Error(`no trace of ${TRACE_BYTES} bytes within ${TRACE_MS} ms`);
      await sleep(LOOK_MS);
    }
  } finally {
    commands.destroy();
  }
}

const directory = await mkdtemp(path.join(tmpdir(), 'xmasq-trace-'));
try {
  const program = await bundleForGuest(GUEST, `import ${JSON.stringify(GUEST)};`);
  await ovsBinaries();
  const results: TraceResult[] = [];
  for (const { metric, title, to } of COMPARED) {
    const costs: Costs[] = [];
    for (const traced of [to, 'xmasq'] as const) {
      process.stderr.write(`tracing: ${metric}, ${traced}\n`);
      costs.push(await trace(traced, metric, program, directory));
    }
    const [other = new Map(), xmasq = new Map()] = costs;
    results.push({ metric, title, to, rows: rowsOf(other, xmasq, MOST_ROWS) });
  }
  writeFileSync(RESULT, `${JSON.stringify(results, undefined, 2)}\n`);
  process.stdout.write(`${results.map(tableOf).join('\n\n')}\n`);
} catch (error) {
  process.stderr.write(`profile: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
} finally {
  await rm(directory, { recursive: true, force: true });
}
