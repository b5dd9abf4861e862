/**
 * Runs one command in a fresh micro-VM: `node e2e/vm/run.ts --kernel 6.12 -- uname -r`.
 * Prints the command's output and exits with its code; 125 when the machine or the command did not start, or took too long.
 */
import { parseArgs } from 'node:util';
import { isKernelLine, KERNELS } from './kernels.ts';
import { MicroVm } from './vm.ts';

const USAGE = `usage: node e2e/vm/run.ts [--kernel ${KERNELS.join('|')}] [--memory MiB] [--processors N] [--modules a,b] \
[--timeout SECONDS] \
[--qemu=ARGUMENT ...] [--times] [--console] -- COMMAND [ARGUMENT...]`;

function positive(name: string, text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value <= 0) throw new Error(`--${name}: ${text} is not a positive number\n${USAGE}`);
  return value;
}

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      kernel: { type: 'string', default: '6.12' },
      memory: { type: 'string', default: '2048' },
      processors: { type: 'string', default: '2' },
      modules: { type: 'string', default: '' },
      timeout: { type: 'string', default: '300' },
      times: { type: 'boolean', default: false },
      console: { type: 'boolean', default: false },
      qemu: { type: 'string', multiple: true, default: [] },
    },
  });
  if (!isKernelLine(values.kernel)) throw new Error(`--kernel: ${values.kernel} is not known\n${USAGE}`);
  if (positionals.length === 0) throw new Error(USAGE);
  const started = performance.now();
  const vm = await MicroVm.boot({
    kernel: values.kernel,
    memory: positive('memory', values.memory),
    processors: positive('processors', values.processors),
    modules: values.modules.split(',').filter((name) => name !== ''),
    qemuArguments: values.qemu,
  });
  try {
    const booted = performance.now();
    const result = await vm.exec(positionals, { timeoutMs: positive('timeout', values.timeout) * 1000 });
    process.stdout.write(result.stdout);
    process.stderr.write(result.stderr);
    if (values.times) {
      const seconds = (from: number, to: number): string => ((to - from) / 1000).toFixed(1);
      console.error(`boot ${seconds(started, booted)} s, command ${seconds(booted, performance.now())} s`);
    }
    return result.code;
  } finally {
    if (values.console) console.error(vm.consoleLog);
    await vm.stop();
  }
}

main().then(
  (code) => {
    process.exitCode = code;
  },
  (error: unknown) => {
    console.error(error instanceof Error ? error.message : String(error));
    process.exitCode = 125;
  },
);
