/** The lab on the host kernel: nodes and pods are network namespaces, the slow path is a bridge, VXLAN and nftables. */
import { mkdirSync, rmSync, statfsSync } from 'node:fs';
import { join } from 'node:path';
import { ANTREA, LabError, OFFLOADS_OFF, at } from '../lab.ts';
import type { Lab, LabOptions, OffloadFlags, Policy, Provider, ToolName, Tunnel } from '../lab.ts';
import { TUNNEL_PORTS } from '../packet.ts';
import { UPLINK, lowerDevices, newLabId, planNode } from './addressing.ts';
import type { LabPlan, NodePlan } from './addressing.ts';
import { inNamespace, listNamespaces, processesIn, removeNamespaces } from './namespaces.ts';
import { NativeNode } from './node.ts';
import type { NodeOptions } from './node.ts';
import { NativePlace } from './place.ts';
import type { LabContext } from './place.ts';
import { NativePolicy } from './policy.ts';
import { ProcessTable, run } from './process.ts';
import { addNamespace, addVeth, hasIpv6, ipv6ReadyScript, routerScript, switchScript, underlayPort } from './setup.ts';
import {
  toolPath,
  labDir,
  listStates,
  ownerAlive,
  pruneLabDirectories,
  removeState,
  saveState,
  thisOwner,
} from './state.ts';
import { NativeUnderlay } from './underlay.ts';

const BPFFS = '/sys/fs/bpf';
const BPFFS_MAGIC = 0xcafe4a11;
const MAX_NODES = 16;
const MAX_PODS = 200;
/** Below it the kernel switches IPv6 off. */
const IPV6_MIN_MTU = 1280;

/** This provider. Specs that run on Open vSwitch, too, find that one's here. */
export const PROVIDER: Provider = { name: 'native', tunnel: { type: 'vxlan', port: ANTREA.vxlanPort } };

/** What a lab on another slow path makes otherwise: its nodes and its policy. */
export interface SlowPath<N extends NativeNode, P extends Policy> {
  /** The tunnels that it can build, the usual one first. */
  readonly tunnels: readonly [Tunnel['type'], ...Tunnel['type'][]];
  node(context: LabContext, plan: NodePlan, options: NodeOptions): N;
  policy(nodes: readonly N[]): P;
}

const BRIDGE: SlowPath<NativeNode, Policy> = {
  tunnels: ['vxlan'],
  node: (context, plan, options) => new NativeNode(context, plan, options),
  policy: (nodes) => new NativePolicy(nodes),
};

/** Builds a lab; on failure everything made so far is removed. Needs root. Sweeps up after labs that were lost. */
export function up(options: LabOptions = {}): Promise<NativeLab> {
  return upOn(BRIDGE, options);
}

/** As `up`, on another slow path. */
export async function upOn<N extends NativeNode, P extends Policy>(
  slowPath: SlowPath<N, P>,
  options: LabOptions,
): Promise<NativeLab<N, P>> {
  const count = bounded('nodes', options.nodes ?? 2, 1, MAX_NODES);
  const podsPerNode = bounded('podsPerNode', options.podsPerNode ?? 2, 0, MAX_PODS);
  const mtu = bounded('mtu', options.mtu ?? 1500, 600, 65535);
  const routed = options.router ?? false;
  const labPlan = planLab(options, slowPath.tunnels, mtu, routed);
  const id = newLabId();
  await ensureBpffs();
  await sweep();
  pruneLabDirectories();

  const plans = Array.from({ length: count }, (_, i) => planNode(id, i + 1, labPlan));
  const context: LabContext = {
    dir: labDir(id),
    processes: new ProcessTable(labDir(id)),
    tunnelPorts: { ...TUNNEL_PORTS, [labPlan.tunnel.type]: labPlan.tunnel.port },
  };
  const nodes: readonly N[] = plans.map((plan) =>
    slowPath.node(context, plan, {
      pinDir: join(BPFFS, `${id}-${plan.name}`),
      spoofGuard: options.spoofGuard ?? false,
      surroundings: { nodes: () => nodes, router: () => (routed ? between.place : undefined) },
    }),
  );
  const underlayNamespace = routed || count !== 2 ? `${id}-u` : undefined;
  const between = underlay(context, plans, underlayNamespace, {
    routed,
    tunnelPort: at(nodes, 0, 'node').tunnel.port,
  });
  saveState({
    id,
    owner: thisOwner(),
    kept: options.keep ?? false,
    pinDirs: nodes.map((node) => node.pinDir),
    created: new Date().toISOString(),
  });
  const lab = new NativeLab(id, context, {
    nodes,
    policy: slowPath.policy(nodes),
    underlay: between,
  });
  try {
    await build(lab, plans, {
      underlayNamespace,
      routed,
      podsPerNode,
      mtu,
      hostConntrack: options.hostConntrack ?? true,
    });
    if (process.env['XMASQ_OFFLOADS'] === 'off') await lab.offload(OFFLOADS_OFF);
    return lab;
  } catch (error) {
    await lab.down();
    throw error;
  }
}

/** Runs `use` in a lab that is taken down afterwards, whatever happens; also on SIGINT and SIGTERM. */
export async function withLab<T>(options: LabOptions, use: (lab: NativeLab) => Promise<T>): Promise<T> {
  const lab = await up(options);
  const onSignal = (signal: NodeJS.Signals): void => {
    // The handler is gone by then: the second signal ends this process as if there had been none.
    void lab.down().finally(() => process.kill(process.pid, signal));
  };
  process.once('SIGINT', onSignal).once('SIGTERM', onSignal);
  try {
    return await use(lab);
  } finally {
    process.off('SIGINT', onSignal).off('SIGTERM', onSignal);
    await lab.down();
  }
}

/**
 * Removes labs whose owner has ended without taking them down (with `kept`, also those meant to stay; with `only`, none
 * but these ids). Touches only namespaces and pin directories of labs that have a state file here. Returns the ids of
 * the labs removed.
 */
export async function sweep(
  options: { readonly kept?: boolean; readonly only?: readonly string[] } = {},
): Promise<string[]> {
  const removed: string[] = [];
  for (const state of listStates()) {
    if (options.only !== undefined && !options.only.includes(state.id)) continue;
    if (ownerAlive(state) || (state.kept && options.kept !== true)) continue;
    await removeLab(state.id, state.pinDirs);
    removed.push(state.id);
  }
  return removed;
}

/** What a lab has left on the machine: namespaces, processes, pins. Empty after `down()`. */
export function residue(lab: Pick<NativeLab, 'id' | 'nodes'>): string[] {
  const namespaces = listNamespaces(`${lab.id}-`);
  return [
    ...namespaces.map((name) => `namespace ${name}`),
    ...processesIn(namespaces).map((pid) => `process ${pid}`),
    ...lab.nodes.filter((node) => exists(node.pinDir)).map((node) => `pins ${node.pinDir}`),
  ];
}

export class NativeLab<N extends NativeNode = NativeNode, P extends Policy = Policy> implements Lab {
  readonly id: string;
  readonly dir: string;
  readonly nodes: readonly N[];
  readonly policy: P;
  readonly underlay: NativeUnderlay;
  readonly #context: LabContext;

  constructor(id: string, context: LabContext, parts: Pick<NativeLab<N, P>, 'nodes' | 'policy' | 'underlay'>) {
    this.id = id;
    this.dir = context.dir;
    this.nodes = parts.nodes;
    this.policy = parts.policy;
    this.underlay = parts.underlay;
    this.#context = context;
  }

  node(i: number): N {
    return at(this.nodes, i, 'node');
  }

  tool(name: ToolName): string {
    return toolPath(name);
  }

  async offload(flags: OffloadFlags): Promise<void> {
    const places = this.nodes.flatMap((node) => [node, ...node.pods]);
    await Promise.all([...places.map((place) => place.offload(flags)), this.underlay.offload(flags)]);
  }

  /** Lets this process end while the lab and its processes stay (built with `keep`). */
  release(): void {
    this.#context.processes.unref();
  }

  async down(): Promise<void> {
    await this.#context.processes.stopAll();
    await removeLab(
      this.id,
      this.nodes.map((node) => node.pinDir),
    );
  }
}

async function removeLab(id: string, pinDirs: readonly string[]): Promise<void> {
  for (const dir of pinDirs) {
    if (dir.startsWith(`${BPFFS}/${id}-`)) rmSync(dir, { recursive: true, force: true });
  }
  await removeNamespaces(listNamespaces(`${id}-`));
  removeState(id);
}

interface BuildOptions {
  readonly underlayNamespace: string | undefined;
  readonly routed: boolean;
  readonly podsPerNode: number;
  readonly mtu: number;
  readonly hostConntrack: boolean;
}

async function build(lab: NativeLab, plans: readonly NodePlan[], options: BuildOptions): Promise<void> {
  mkdirSync(lab.dir, { recursive: true });
  const pods = lab.nodes.map((node) => Array.from({ length: options.podsPerNode }, () => node.planPod({})));
  await run(['ip', '-batch', '-'], lab.id, {
    input:
      plans.map((plan) => addNamespace(plan.namespace)).join('') +
      uplinks(plans, options.underlayNamespace, options.mtu) +
      lab.nodes.flatMap((node, i) => (pods[i] ?? []).map((pod) => node.podDevices(pod))).join(''),
    timeoutMs: 60_000,
  });
  const underlayScript = options.routed ? routerScript(plans) : switchScript(plans);
  await Promise.all([
    ...lab.nodes.map((node) =>
      node.start(
        plans.filter((peer) => peer.index !== node.index),
        options.hostConntrack,
      ),
    ),
    ...(options.underlayNamespace === undefined
      ? []
      : [run(inNamespace(options.underlayNamespace, ['sh', '-e']), 'underlay', { input: underlayScript })]),
  ]);
  await Promise.all(lab.nodes.map((node, i) => node.startPods(pods[i] ?? [])));
  if (plans.some(hasIpv6)) await ipv6Ready(lab);
}

async function ipv6Ready({ nodes, underlay }: NativeLab): Promise<void> {
  const ready = (place: NativePlace, devices: readonly string[]): Promise<unknown> =>
    place.exec(['sh', '-e'], { input: ipv6ReadyScript(devices) });
  await Promise.all([
    ...nodes.map((node) => ready(node, [UPLINK])),
    ...(underlay.routed && underlay.place !== undefined ? [ready(underlay.place, underlay.ports)] : []),
  ]);
}

/* The veth pairs: of each uplink one, or as many as there are devices below it. */
function uplinks(plans: readonly NodePlan[], underlayNamespace: string | undefined, mtu: number): string {
  const ends = (device: string, namespace: string, plan: NodePlan, mac?: string): CableEnd[] => {
    const lower = lowerDevices(device, plan.uplink);
    const address = mac === undefined || plan.uplink === 'bond' ? {} : { mac };
    return (lower.length === 0 ? [device] : lower).map((each) => ({ device: each, namespace, ...address }));
  };
  const cables = (a: readonly CableEnd[], b: readonly CableEnd[]): string =>
    a.map((end, i) => addVeth(end, at(b, i, 'end of a cable'), mtu)).join('');
  const uplink = (plan: NodePlan): CableEnd[] => ends(UPLINK, plan.namespace, plan, plan.uplinkMac);
  if (underlayNamespace === undefined) return cables(uplink(at(plans, 0, 'node')), uplink(at(plans, 1, 'node')));
  return (
    addNamespace(underlayNamespace) +
    plans.map((plan) => cables(uplink(plan), ends(underlayPort(plan.index), underlayNamespace, plan))).join('')
  );
}

type CableEnd = Parameters<typeof addVeth>[0];

function underlay(
  context: LabContext,
  plans: readonly NodePlan[],
  namespace: string | undefined,
  { routed, tunnelPort }: { readonly routed: boolean; readonly tunnelPort: number },
): NativeUnderlay {
  const first = at(plans, 0, 'node');
  const place =
    namespace === undefined
      ? undefined
      : new NativePlace(context, {
          name: 'underlay',
          namespace,
          address: first.transport.ipv4?.router ?? first.transport.ipv6?.router ?? '',
          address6: first.transport.ipv6?.router,
          device: underlayPort(first.index),
          mtu: first.mtu,
          mac: '',
        });
  const ports = namespace === undefined ? [] : plans.map((plan) => underlayPort(plan.index));
  return new NativeUnderlay(place, routed, {
    ports,
    delayTool: () => toolPath('delay'),
    ipv6: plans.some(hasIpv6),
    tunnelPort,
  });
}

async function ensureBpffs(): Promise<void> {
  if (exists(BPFFS) && statfsSync(BPFFS).type === BPFFS_MAGIC) return;
  await run(['mount', '-t', 'bpf', 'bpf', BPFFS], 'machine');
}

function exists(path: string): boolean {
  try {
    statfsSync(path);
    return true;
  } catch {
    return false;
  }
}

/* What the options say of all nodes, with defaults, checked. */
function planLab(
  options: LabOptions,
  tunnels: SlowPath<NativeNode, Policy>['tunnels'],
  mtu: number,
  routed: boolean,
): LabPlan {
  const { ipv6 = false, encapMode = 'encap', uplink = 'plain', tunnel, apart } = options;
  const underlay = options.underlay ?? (ipv6 ? 'dual' : 'ipv4');
  const type = tunnel?.type ?? tunnels[0];
  if (!tunnels.includes(type))
    throw new LabError(`lab option tunnel.type: ${type}: this lab has ${tunnels.join(', ')}`);
  const plan = {
    ...{ mtu, routed, ipv6, underlay, encapMode, apart, uplink },
    tunnel: {
      type,
      port: bounded('tunnel.port', tunnel?.port ?? TUNNEL_PORTS[type], 1, 65535),
      checksum: tunnel?.checksum ?? false,
      vni: bounded('tunnel.vni', tunnel?.vni ?? 1, 0, 0xffffff),
    },
  };
  if (apart !== undefined && routed) throw new LabError('lab option apart: behind a router all subnets are');
  if (uplink !== 'plain' && underlay !== 'ipv4') {
    throw new LabError(`lab option uplink: ${uplink}: nodes with such uplinks have no IPv6`);
  }
  if (encapMode === 'noEncap' && (underlay === 'ipv6' || (ipv6 && underlay === 'ipv4'))) {
    throw new LabError(`lab option encapMode: pods of a family that the underlay (${underlay}) has not need a tunnel`);
  }
  const least = ipv6 ? planNode('', 1, plan).podMtu : mtu;
  if (underlay !== 'ipv4' || ipv6) bounded('mtu: of the IPv6 devices', least, IPV6_MIN_MTU, 65535);
  return plan;
}

function bounded(name: string, value: number, low: number, high: number): number {
  if (!Number.isInteger(value) || value < low || value > high) {
    throw new LabError(`lab option ${name}: ${value} is not a whole number from ${low} to ${high}`);
  }
  return value;
}
