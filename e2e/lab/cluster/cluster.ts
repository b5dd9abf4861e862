/**
 * A kind cluster with Antrea and XMasq (e2e/kind) as a lab: two of its workers with pods of ours, traffic and captures, and
 * what the sidecars say. Underlay, slow path and sidecars are not ours to change: of `Lab` there is what can be had by kubectl
 * and docker.
 *
 *     const lab = await up();
 *     await lab.waitFast({ port: 7000 }, 10_000);
 *     await lab.down();
 */
import { randomBytes } from 'node:crypto';
import { dirname } from 'node:path';
import { encapMode, parseAntreaConf } from '../../../plugin/src/kubernetes/antrea-modes.ts';
import { hostCommand } from '../../vm/command.ts';
import type { FlowFilter, SidecarFlow } from '../admin.ts';
import { LabError, at, eventually } from '../lab.ts';
import type { EncapMode, Lab, Node, OffloadFlags, Place, Pod, ToolName } from '../lab.ts';
import { ProcessTable } from '../native/process.ts';
import { labDir, toolPath } from '../native/state.ts';
import { Kubectl } from './kubectl.ts';
import {
  TOOL_DIRECTORY,
  addressesOf,
  antreaConfOf,
  clusterIpOf,
  namespaceObject,
  nodesOf,
  podObject,
  policyObject,
  runningPodsOf,
  sandboxPidOf,
  serviceObject,
} from './objects.ts';
import type { NodeFacts, PodFacts, PodPort, ServicePort } from './objects.ts';
import { ClusterPlace, DEVICE } from './place.ts';
import type { ClusterContext, PlaceEntries, PlaceFacts } from './place.ts';
import { RemoteProcesses, execIn } from './remote.ts';
import type { Entry } from './remote.ts';
import { clusterSettings } from './settings.ts';
import { ClusterSidecar } from './sidecar.ts';

/** Workers that take part. */
const NODES = 2;
/** Of Antrea, and of XMasq's chart as test.sh installs it. */
const SYSTEM = ['--namespace', 'kube-system'] as const;
/** Their pods run Debian without the library that `sctp` needs; `raw` needs capabilities. */
const TOOLS: readonly ToolName[] = ['rr', 'stream'];
const POD_READY_S = 180;
const DELETE_S = 120;

export interface ClusterOptions {
  /** Default 1. */
  readonly podsPerNode?: number;
}

/** A pod; commands run in its container, captures in its network. */
export class ClusterPod extends ClusterPlace implements Pick<Pod, keyof Place> {
  readonly node: ClusterNode;
  readonly namespace: string;

  constructor(node: ClusterNode, namespace: string, context: ClusterContext, facts: PlaceFacts, entries: PlaceEntries) {
    super(context, facts, entries);
    this.node = node;
    this.namespace = namespace;
  }

  /** Of the device in the pod and of its other end. */
  override async offload(flags: OffloadFlags): Promise<void> {
    const endpoints = await this.node.sidecar.endpoints();
    const endpoint = endpoints.find(({ pod, namespace }) => pod === this.name && namespace === this.namespace);
    if (endpoint === undefined) throw new LabError(`the sidecar of ${this.node.name} does not know ${this.name}`);
    await Promise.all([super.offload(flags), this.node.offload(flags, endpoint.ifName)]);
  }
}

/** A worker: a container of Docker's. */
export class ClusterNode extends ClusterPlace implements Pick<Node, keyof Place | 'index' | 'encapMode'> {
  readonly index: number;
  readonly encapMode: EncapMode;
  readonly podCidrs: readonly string[];
  readonly sidecar: ClusterSidecar;
  readonly pods: readonly ClusterPod[];

  constructor(context: ClusterContext, plan: NodePlan, podsOf: (node: ClusterNode) => readonly ClusterPod[]) {
    super(context, plan.facts, { commands: plan.entry, network: plan.entry });
    this.index = plan.index;
    this.encapMode = plan.encapMode;
    this.podCidrs = plan.podCidrs;
    this.sidecar = new ClusterSidecar(this, plan.sidecar);
    this.pods = podsOf(this);
  }

  /** The i-th pod (0-based); throws a LabError if there is none. */
  pod(i: number): ClusterPod {
    return at(this.pods, i, `pod of ${this.name}`);
  }
}

/** What a node is made of. */
interface NodePlan {
  readonly index: number;
  readonly facts: PlaceFacts;
  readonly entry: Entry;
  /** Into the container of its sidecar. */
  readonly sidecar: Entry;
  readonly encapMode: EncapMode;
  readonly podCidrs: readonly string[];
}

/** NetworkPolicies of the lab's pods; Antrea has taken notice of one a moment after the call. */
class ClusterPolicy {
  readonly #kubectl: Kubectl;
  readonly #namespace: string;

  constructor(kubectl: Kubectl, namespace: string) {
    this.#kubectl = kubectl;
    this.#namespace = namespace;
  }

  /** New connections to this pod may go to these ports only; none: there can be none. */
  async allowOnly(pod: ClusterPod, ports: readonly PodPort[]): Promise<void> {
    await this.#kubectl.apply([policyObject(this.#namespace, `only-${pod.name}`, pod.name, ports)]);
  }

  /** Removes every policy. */
  async clear(): Promise<void> {
    await this.#kubectl.run(['delete', 'networkpolicy', '--all', '--namespace', this.#namespace], {
      timeoutMs: 30_000,
    });
  }
}

/** The part of a lab that a cluster has. */
export class ClusterLab implements Pick<Lab, 'id' | 'dir' | 'tool' | 'down'> {
  readonly id: string;
  readonly dir: string;
  /** Of everything that the lab makes. */
  readonly namespace: string;
  readonly nodes: readonly ClusterNode[];
  /** How many nodes the cluster has besides each one, the control plane included. */
  readonly otherNodes: number;
  readonly encapMode: EncapMode;
  readonly policy: ClusterPolicy;
  readonly #kubectl: Kubectl;
  readonly #processes: RemoteProcesses;
  #services = 0;

  constructor(base: LabBase, nodes: readonly ClusterNode[], otherNodes: number, mode: EncapMode) {
    this.id = base.id;
    this.dir = base.context.dir;
    this.namespace = base.namespace;
    this.nodes = nodes;
    this.otherNodes = otherNodes;
    this.encapMode = mode;
    this.policy = new ClusterPolicy(base.kubectl, base.namespace);
    this.#kubectl = base.kubectl;
    this.#processes = base.context.processes;
  }

  /** The i-th node (0-based); throws a LabError if there is none. */
  node(i: number): ClusterNode {
    return at(this.nodes, i, 'node');
  }

  /** Path of a traffic tool as the lab's pods see it. Nodes have none. */
  tool(name: ToolName): string {
    if (!TOOLS.includes(name)) throw new LabError(`pods have no tool ${name}; they have ${TOOLS.join(', ')}`);
    return `${TOOL_DIRECTORY}/${name}`;
  }

  /** Makes a Service for a port of a pod, and says its ClusterIP. Nodes know of it a moment later. */
  async addService(pod: ClusterPod, to: ServicePort): Promise<string> {
    this.#services += 1;
    const name = `service-${this.#services}`;
    await this.#kubectl.apply([serviceObject(this.namespace, name, pod.name, to)]);
    return clusterIpOf(await this.#kubectl.get(['service', name, '--namespace', this.namespace]));
  }

  /** Waits until every node of the lab sends a matching flow fast, in this mode if one is given; in the order of the nodes. */
  waitFast(filter: FlowFilter, timeoutMs: number, mode?: SidecarFlow['mode']): Promise<SidecarFlow[]> {
    return Promise.all(this.nodes.map(({ sidecar }) => sidecar.waitFast(filter, timeoutMs, mode)));
  }

  /** Ends every process of the lab and removes its namespace. May be called twice. */
  async down(): Promise<void> {
    await this.#processes.stopAll();
    await removeNamespace(this.#kubectl, this.namespace);
  }
}

/** What there is of a lab before its nodes. */
interface LabBase {
  readonly id: string;
  readonly namespace: string;
  readonly kubectl: Kubectl;
  readonly context: ClusterContext;
}

/** Puts pods on two workers of the cluster that the environment names. On failure nothing of it stays. */
export async function up({ podsPerNode = 1 }: ClusterOptions = {}): Promise<ClusterLab> {
  const { name, context } = clusterSettings();
  const kubectl = new Kubectl(context);
  const all = nodesOf(await kubectl.get(['nodes']));
  const workers = all.filter(({ controlPlane }) => !controlPlane).slice(0, NODES);
  if (workers.length < NODES)
    throw new LabError(`cluster ${name} has ${workers.length} workers, ${NODES} are needed (e2e/kind/setup.sh)`);
  const mode = encapMode(parseAntreaConf(antreaConfOf(await kubectl.get([...SYSTEM, 'configmap', 'antrea-config']))));
  if (mode === undefined) throw new LabError(`cluster ${name}: Antrea is in a mode that XMasq takes no part in`);

  const id = `xk${randomBytes(3).toString('hex')}`;
  const dir = labDir(id);
  const processes = new RemoteProcesses(new ProcessTable(dir));
  const base: LabBase = { id, namespace: `xmasq-e2e-${id}`, kubectl, context: { dir, processes } };
  try {
    const pods = await startPods(base, workers, podsPerNode);
    const nodes = await Promise.all(
      workers.map((worker, i) => {
        const own = pods.filter(({ nodeName }) => nodeName === worker.name);
        return buildNode(base, { worker, index: i + 1, mode }, own);
      }),
    );
    return new ClusterLab(base, nodes, all.length - 1, mode);
  } catch (error) {
    await removeNamespace(kubectl, base.namespace);
    throw error;
  }
}

/** Starts the pods and gives them the tools; those of one node in the order of their names. */
async function startPods(base: LabBase, workers: readonly NodeFacts[], podsPerNode: number): Promise<PodFacts[]> {
  const { kubectl, namespace } = base;
  await kubectl.apply([namespaceObject(namespace)]);
  // No pod is taken before its namespace has one.
  const account = ['get', 'serviceaccount', 'default', '--namespace', namespace];
  const isThere = async (): Promise<boolean> => (await kubectl.run(account, { check: false })).code === 0;
  await eventually(`${namespace} has a service account`, isThere, 30_000, 500);
  await kubectl.apply(
    workers.flatMap((worker, i) =>
      Array.from({ length: podsPerNode }, (_, k) => podObject(namespace, `pod-${i + 1}-${k + 1}`, worker.name)),
    ),
  );
  // The image comes from a public registry at the first time.
  await kubectl.run(
    ['wait', '--for=condition=Ready', 'pod', '--all', '--namespace', namespace, `--timeout=${POD_READY_S}s`],
    { timeoutMs: (POD_READY_S + 15) * 1000 },
  );
  const pods = runningPodsOf(await kubectl.get(['pods', '--namespace', namespace]));
  const archive = await hostCommand('tar', ['-C', dirname(toolPath('rr')), '-c', '-f', '-', ...TOOLS]);
  const unpack = ['tar', '-x', '-f', '-', '-C', TOOL_DIRECTORY, '--no-same-owner'];
  await Promise.all(pods.map((pod) => execIn(podEntry(base, pod), unpack, { input: archive })));
  return pods.toSorted((a, b) => (a.name < b.name ? -1 : 1));
}

async function buildNode(
  base: LabBase,
  { worker, index, mode }: { readonly worker: NodeFacts; readonly index: number; readonly mode: EncapMode },
  pods: readonly PodFacts[],
): Promise<ClusterNode> {
  const entry = nodeEntry(worker);
  const sidecars = runningPodsOf(await base.kubectl.get([...SYSTEM, 'pods', '--selector', 'app=xmasq']));
  const sidecar = sidecars.find(({ nodeName }) => nodeName === worker.name);
  if (sidecar === undefined)
    throw new LabError(`no pod of XMasq runs on ${worker.name}: e2e/kind/test.sh --setup-only installs it`);
  const plan: NodePlan = {
    index,
    entry,
    sidecar: sidecarEntry(base.kubectl, sidecar),
    encapMode: mode,
    podCidrs: worker.podCidrs,
    facts: await factsOf(worker, entry),
  };
  const parts = await Promise.all(
    pods.map(async (pod) => {
      const commands = podEntry(base, pod);
      const network = await networkEntry(entry, base.namespace, pod);
      return { facts: await factsOf(pod, commands), entries: { commands, network } };
    }),
  );
  return new ClusterNode(base.context, plan, (node) =>
    parts.map(({ facts, entries }) => new ClusterPod(node, base.namespace, base.context, facts, entries)),
  );
}

async function factsOf(
  { name, addresses }: { readonly name: string; readonly addresses: readonly string[] },
  entry: Entry,
): Promise<PlaceFacts> {
  const files = ['address', 'mtu'].map((file) => `/sys/class/net/${DEVICE}/${file}`);
  const [mac = '', mtu = ''] = (await execIn(entry, ['cat', ...files])).stdout.split('\n');
  return { name, mac, mtu: Number(mtu), ...addressesOf(name, addresses) };
}

/** Into a node. */
function nodeEntry({ name }: NodeFacts): Entry {
  return { name, before: (input) => ['docker', 'exec', ...(input ? ['--interactive'] : []), name] };
}

/** Into a pod of ours. */
function podEntry({ kubectl, namespace }: LabBase, { name }: PodFacts): Entry {
  return {
    name,
    before: (input) => kubectl.command(['exec', ...(input ? ['--stdin'] : []), '--namespace', namespace, name, '--']),
  };
}

/** Into the container of a sidecar, where `xmasq` is. */
function sidecarEntry(kubectl: Kubectl, { name }: PodFacts): Entry {
  const container = [...SYSTEM, name, '--container', 'xmasq-agent', '--'];
  return { name, before: (input) => kubectl.command(['exec', ...(input ? ['--stdin'] : []), ...container]) };
}

/** From its node into the network of a pod, with the programs and files of the node. */
async function networkEntry(node: Entry, namespace: string, { name }: PodFacts): Promise<Entry> {
  const only = ['--namespace', `^${namespace}$`, '--name', `^${name}$`, '--state', 'ready'];
  const sandbox = (await execIn(node, ['crictl', 'pods', '--quiet', '--no-trunc', ...only])).stdout.trim();
  const inspected = await execIn(node, ['crictl', 'inspectp', '--output', 'json', sandbox]);
  const pid = sandboxPidOf(JSON.parse(inspected.stdout));
  return { name, before: (input) => [...node.before(input), 'nsenter', `--net=/proc/${pid}/ns/net`] };
}

async function removeNamespace(kubectl: Kubectl, namespace: string): Promise<void> {
  await kubectl.run(['delete', 'namespace', namespace, '--ignore-not-found', `--timeout=${DELETE_S}s`], {
    timeoutMs: (DELETE_S + 15) * 1000,
  });
}
