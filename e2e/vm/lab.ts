/**
 * The lab on Open vSwitch for a person: `node e2e/vm/lab.ts` (`make lab LAB=ovs`). Where this kernel has Open vSwitch's datapath
 * the lab is brought up here and stays; where not, in a micro-VM that lives as long as this program and takes commands from
 * standard input.
 */
import { createInterface } from 'node:readline/promises';
import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { ovsBinaries } from '../lab/openvswitch.ts';
import { hasDatapath } from '../lab/ovs/ovs.ts';
import { chosenKernel, OVS_MODULES } from './ovs.ts';
import { LAB_MODULES, MicroVm } from './vm.ts';

const CLI = path.join(import.meta.dirname, '../lab/cli.ts');
const UP_TIMEOUT_MS = 300_000;
/** A command typed by a person. */
const COMMAND_TIMEOUT_MS = 600_000;
const MEMORY_MIB = 3072;
const HELP = `Each line is run to its end by a shell inside the micro-VM; "exit" or the end of input ends machine and lab.
What is to go on behind: setsid COMMAND >/tmp/log 2>&1 &`;

async function main(): Promise<number> {
  if (await hasDatapath()) {
    const env = { ...process.env, XMASQ_LAB: 'ovs' };
    return spawnSync(process.execPath, [CLI, 'up'], { stdio: 'inherit', env }).status ?? 1;
  }
  const kernel = chosenKernel();
  console.error(`lab: this kernel has no Open vSwitch: booting a micro-VM with ${kernel} (1 to 2 minutes)`);
  // The machine has no network to fetch them by.
  await ovsBinaries();
  await using vm = await MicroVm.boot({ kernel, memory: MEMORY_MIB, modules: [...LAB_MODULES, ...OVS_MODULES] });
  const factor = vm.accelerator === 'kvm' ? '2' : '10';
  const env = { XMASQ_LAB: 'ovs', XMASQ_TIME_FACTOR: factor, NODE_COMPILE_CACHE: '/tmp/node-cache' };
  console.log(await vm.check(['node', CLI, 'up'], { env, timeoutMs: UP_TIMEOUT_MS }));
  console.log(HELP);
  const lines = createInterface({ input: process.stdin });
  // Not readline's own: it throws once the input has ended, and lines may still wait then.
  const prompt = (): boolean => process.stdout.write('microvm# ');
  prompt();
  for await (const line of lines) {
    if (line.trim() === 'exit') break;
    try {
      const { stdout, stderr } = await vm.exec(['sh', '-c', line], { timeoutMs: COMMAND_TIMEOUT_MS });
      process.stdout.write(stdout);
      process.stderr.write(stderr);
    } catch (error) {
      console.error(error instanceof Error ? error.message : String(error));
    }
    if (!vm.running) return 1;
    prompt();
  }
  lines.close();
  return 0;
}

main().then(
  (code) => {
    process.exitCode = code;
  },
  (error: unknown) => {
    console.error(`lab: ${error instanceof Error ? error.message : String(error)}`);
    process.exitCode = 1;
  },
);
