/** A lab for a person: node e2e/lab/cli.ts up|down|status (`make lab`, `make lab-down`). */
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { basename, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parse } from 'yaml';
import { sweep, up as upNative } from './native/native.ts';
import type { NativeLab } from './native/native.ts';
import { run } from './native/process.ts';
import { labDir, listStates } from './native/state.ts';
import type { LabState } from './native/state.ts';
import { up as upOvs } from './ovs/ovs.ts';
import { startSidecars } from './sidecar.ts';
import type { LabSidecars } from './sidecar.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
/** In the lab's directory: what `up` printed. */
const GUIDE = 'explore.txt';
const USAGE = 'usage: node e2e/lab/cli.ts up|down|status\n';
/** `XMASQ_LAB=ovs`: the slow path is Open vSwitch, and the kernel must have its datapath. */
const up = process.env['XMASQ_LAB'] === 'ovs' ? upOvs : upNative;
/** Exit code after SIGINT, as a shell has it. */
const INTERRUPTED = 130;

/** Builds a lab that stays when this process ends. */
async function bringUp(): Promise<number> {
  const existing = keptLabs();
  if (existing.length > 0) {
    for (const state of existing) print(guideOf(state));
    print('This lab was up already; "make lab-down" removes it.');
    return 0;
  }
  await sweep();
  const pending = up({ keep: true });
  const interrupted = new AbortController();
  const stop = (): void => {
    interrupted.abort();
    process.stderr.write('lab: interrupted: removing it\n');
    void pending.then((lab) => lab.down()).finally(() => process.exit(INTERRUPTED));
  };
  process.once('SIGINT', stop);
  process.once('SIGTERM', stop);
  const lab = await pending;
  try {
    const sidecars = await startSidecars(lab);
    const guide = guideFor(lab, sidecars);
    writeFileSync(join(lab.dir, GUIDE), guide);
    print(guide);
    sidecars.release();
    lab.release();
    return 0;
  } catch (error) {
    // After a signal everything fails, because it is being removed.
    if (interrupted.signal.aborted) return INTERRUPTED;
    await lab.down();
    throw error;
  } finally {
    process.off('SIGINT', stop);
    process.off('SIGTERM', stop);
  }
}

/** Removes every lab that was kept, and what lost labs left. */
async function takeDown(): Promise<number> {
  const states = listStates();
  const sockets = states.flatMap((state) => configsOf(state).map(({ socketDirectory }) => socketDirectory));
  const removed = await sweep({ kept: true });
  for (const directory of sockets) {
    // Only where a long path made the sidecars use a directory outside the lab's own.
    if (removed.some((id) => directory.startsWith(`/run/${id}-`))) rmSync(directory, { recursive: true, force: true });
  }
  print(removed.length === 0 ? 'no lab is up' : `removed: ${removed.join(', ')}`);
  return 0;
}

/** Says which labs are up and what their sidecars say of themselves. */
async function showStatus(): Promise<number> {
  const labs = keptLabs();
  if (labs.length === 0) print('no lab is up; "make lab" brings one up');
  for (const state of labs) {
    print(guideOf(state));
    for (const { node, socket } of configsOf(state)) {
      const argv = [process.execPath, join(ROOT, 'build/xmasq.mjs'), '--socket', socket, 'status'];
      const { stdout, stderr } = await run(argv, node, { check: false });
      print(`--- xmasq status on ${node}\n${stdout}${stderr}`);
    }
  }
  return 0;
}

/** How to look around in a lab. */
function guideFor(lab: NativeLab, sidecars: LabSidecars): string {
  const [n1, n2] = [lab.node(0), lab.node(1)];
  const [client, server] = [n1.pod(0), n2.pod(0)];
  const node = relative(ROOT, process.execPath);
  const enter = (place: { readonly namespace: string }): string => `nsenter --net=/run/netns/${place.namespace}`;
  const xmasq = (i: number): string => `${node} build/xmasq.mjs --socket ${sidecars.node(i).socket}`;
  const line = (name: string, what: string, how: string): string => `  ${name.padEnd(10)}${what.padEnd(13)}${how}`;
  const places = lab.nodes.flatMap((each, i) => [
    line(each.name, each.address, `${enter(each)} bash`),
    ...each.pods.map((pod) => line(pod.name, pod.address, `${enter(pod)} bash`)),
    line('', 'xmasq', `${xmasq(i)} status`),
    line('', 'log', relative(ROOT, sidecars.node(i).proc.logPath)),
    line('', 'pins', each.pinDir),
  ]);
  return `Lab ${lab.id} is up: nodes and pods are network namespaces. Commands are for the root of the checkout.

${places.join('\n')}

Traffic from pod to pod:
  ${enter(server)} build/tools/rr server --tcp --port 7000 &
  ${enter(client)} build/tools/rr client --tcp --to ${server.address} --port 7000 --seconds 30
  ${enter(client)} ping ${server.address}

What becomes of it:
  ${xmasq(0)} flows --watch
  ${enter(n1)} tcpdump -nvi ${n1.device} -c 20 host ${n2.address}
  ${enter(n1)} conntrack -L --zone 65520

Configuration, cluster state, logs and captures are in ${relative(ROOT, lab.dir)}; "make lab-down" removes the lab.
`;
}

function guideOf(state: LabState): string {
  const file = join(labDir(state.id), GUIDE);
  return existsSync(file)
    ? readFileSync(file, 'utf8')
    : `Lab ${state.id} is being built, or its building was cut short.\n`;
}

function keptLabs(): LabState[] {
  return listStates().filter((state) => state.kept);
}

/** The sidecars of a lab by their configuration files. */
function configsOf(state: LabState): { node: string; socket: string; socketDirectory: string }[] {
  return state.pinDirs.flatMap((pinDir) => {
    const node = basename(pinDir).slice(state.id.length + 1);
    const file = join(labDir(state.id), node, 'xmasq-agent.yaml');
    if (!existsSync(file)) return [];
    const { socket } = parse(readFileSync(file, 'utf8')) as { socket: string };
    return [{ node, socket, socketDirectory: socket.replace(/\/[^/]*$/, '') }];
  });
}

function print(text: string): void {
  process.stdout.write(`${text}\n`);
}

const COMMANDS: Readonly<Record<string, () => Promise<number>>> = { up: bringUp, down: takeDown, status: showStatus };

async function main(args: readonly string[]): Promise<number> {
  const command = args.length === 1 ? COMMANDS[args[0] ?? ''] : undefined;
  if (command === undefined) {
    process.stderr.write(USAGE);
    return 2;
  }
  try {
    return await command();
  } catch (error) {
    process.stderr.write(`lab: ${error instanceof Error ? error.message : String(error)}\n`);
    return 1;
  }
}

process.exitCode = await main(process.argv.slice(2));
