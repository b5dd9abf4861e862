/** The lab as a cluster of Kubernetes: a double of its API, reachable from every node. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { connect, createServer, type Server } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { stringify } from 'yaml';
import { ApiDouble } from '../../double/api-double.ts';
import { clusterObject, nodeObject, numberedNode, podObject } from '../../double/objects.ts';
import type { StoredObject } from '../../double/store.ts';
import type { Lab, Node, Pod, Proc } from '../../lab/lab.ts';

export const NODES = '/api/v1/nodes';
export const PODS = '/api/v1/pods';
export const CONFIG_MAPS = '/api/v1/configmaps';
export const EVENTS = '/apis/events.k8s.io/v1/events';
const CRD = '/apis/crd.antrea.io';
export const TRAFFIC_CONTROLS = `${CRD}/v1alpha2/trafficcontrols`;
export const PACKET_CAPTURES = `${CRD}/v1alpha1/packetcaptures`;

const FORWARD = fileURLToPath(new URL('forward.ts', import.meta.url));
const PORT = 6443;

/** Keys of a namespaced and of a cluster-scoped object in the store. */
export function keyOf({ metadata: { namespace, name } }: StoredObject): string {
  return namespace === undefined ? name : `${namespace}/${name}`;
}

/** Settings of antrea-agent.conf that differ from the lab's. */
export type AntreaConf = Readonly<Record<string, unknown>>;

/** What of a Pod a test may choose. */
export interface PodChange {
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
}

export class LabCluster {
  /** As in every pod. */
  readonly environment = { KUBERNETES_SERVICE_HOST: '127.0.0.1', KUBERNETES_SERVICE_PORT: String(PORT) };
  readonly double: ApiDouble;
  readonly #lab: Lab;
  readonly #socket: Server;
  readonly #forwards: Proc[] = [];

  private constructor(lab: Lab, double: ApiDouble, socket: Server) {
    this.#lab = lab;
    this.double = double;
    this.#socket = socket;
  }

  /** The lab's nodes and pods, Antrea's configuration, and what antrea-agent's CRDs are. */
  static async start(lab: Lab): Promise<LabCluster> {
    const double = await ApiDouble.start();
    double.install(TRAFFIC_CONTROLS, PACKET_CAPTURES, `${CRD}/v1beta1/traceflows`, `${CRD}/v1beta1/antreaagentinfos`);
    const { port } = new URL(double.url);
    const path = join(lab.dir, 'api.sock');
    const socket = createServer((incoming) => {
      const outgoing = connect(Number(port), '127.0.0.1');
      incoming.pipe(outgoing).pipe(incoming);
      incoming.on('error', () => outgoing.destroy());
      outgoing.on('error', () => incoming.destroy());
    });
    await new Promise<void>((resolve) => void socket.listen(path, resolve));
    const cluster = new LabCluster(lab, double, socket);
    for (const node of lab.nodes) {
      double.store.put(NODES, nodeObject({ name: node.name, address: node.address, podCIDR: node.podCidr }));
      for (const pod of node.pods) cluster.pod(pod);
      const argv = [process.execPath, '--disable-warning=ExperimentalWarning', FORWARD, String(PORT), path];
      const proc = await node.spawn(argv, { name: `${node.name}-api` });
      await proc.waitFor(/^forwarding/, 15_000);
      cluster.#forwards.push(proc);
    }
    double.store.put('/api/v1/namespaces', clusterObject('Namespace', 'v1', 'default', {}));
    cluster.antreaConf({});
    return cluster;
  }

  /** A kubeconfig for this node's sidecar. */
  kubeconfig(node: Node): string {
    const path = join(this.#lab.dir, `${node.name}-kubeconfig.yaml`);
    const cluster = {
      server: `https://127.0.0.1:${PORT}`,
      'certificate-authority-data': Buffer.from(this.double.ca).toString('base64'),
    };
    const config = {
      apiVersion: 'v1',
      kind: 'Config',
      clusters: [{ name: 'lab', cluster }],
      users: [{ name: 'xmasq', user: { token: this.double.token } }],
      contexts: [{ name: 'lab', context: { cluster: 'lab', user: 'xmasq' } }],
      'current-context': 'lab',
    };
    writeFileSync(path, stringify(config), { mode: 0o600 });
    return path;
  }

  /** A service account for this node's sidecar, which reaches the server by `environment`. */
  serviceAccount(node: Node): string {
    const directory = join(this.#lab.dir, `${node.name}-service-account`);
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    writeFileSync(join(directory, 'token'), this.double.token, { mode: 0o600 });
    writeFileSync(join(directory, 'ca.crt'), this.double.ca);
    return directory;
  }

  /** Makes the cluster one of so many nodes more, of which there is nothing but their objects of `bytes` each. */
  addNodes(count: number, bytes: number): void {
    for (let n = 1; n <= count; n++) this.double.store.put(NODES, numberedNode(n, { bytes }));
  }

  /** Writes the Pod as the API has it. */
  pod(pod: Pod, change: PodChange = {}): void {
    const { namespace, name } = pod.endpoint;
    this.double.store.put(PODS, podObject({ namespace, name, nodeName: pod.node.name, ...change }));
  }

  /** Writes antrea-agent.conf. */
  antreaConf(change: AntreaConf): void {
    const tunnelType = this.#lab.nodes[0]?.tunnel.type;
    this.double.store.put(CONFIG_MAPS, {
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: { namespace: 'kube-system', name: 'antrea-config', labels: { app: 'antrea' } },
      data: { 'antrea-agent.conf': stringify({ trafficEncapMode: 'encap', tunnelType, ...change }) },
    });
  }

  async stop(): Promise<void> {
    await Promise.all(this.#forwards.map((proc) => proc.stop()));
    this.#socket.close();
    await this.double.stop();
  }
}
