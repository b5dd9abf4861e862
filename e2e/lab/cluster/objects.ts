/** Kubernetes objects that the cluster's lab makes, and what it reads of those that it is told. Pure functions. */
import { z } from 'zod';
import { LabError } from '../errors.ts';
import { familyOf } from '../lab.ts';
import type { Family } from '../lab.ts';

/** An object to apply. */
export interface Manifest {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: {
    readonly name: string;
    readonly namespace?: string;
    readonly labels?: Readonly<Record<string, string>>;
  };
  readonly spec?: object;
}

/** Where a pod has the traffic tools. */
export const TOOL_DIRECTORY = '/xmasq-tools';
/** The release that the tools are built for; has sh, timeout, setsid and tar. */
const POD_IMAGE = 'debian:12-slim';
/** Its value is the pod's name: by this policies and Services select one pod. */
const POD_LABEL = 'xmasq-e2e/pod';
const CONTROL_PLANE_LABEL = 'node-role.kubernetes.io/control-plane';

/** A namespace for everything else. */
export function namespaceObject(name: string): Manifest {
  return { apiVersion: 'v1', kind: 'Namespace', metadata: { name } };
}

/** A pod on a node of its own choice, which waits for commands. */
export function podObject(namespace: string, name: string, nodeName: string): Manifest {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace, labels: { app: 'xmasq-e2e', [POD_LABEL]: name } },
    spec: {
      nodeName,
      automountServiceAccountToken: false,
      enableServiceLinks: false,
      // It has nothing to bring to an end.
      terminationGracePeriodSeconds: 0,
      containers: [
        {
          name: 'place',
          image: POD_IMAGE,
          command: ['sleep', 'infinity'],
          volumeMounts: [{ name: 'tools', mountPath: TOOL_DIRECTORY }],
        },
      ],
      volumes: [{ name: 'tools', emptyDir: {} }],
    },
  };
}

/** A protocol and a port of a pod. */
export interface PodPort {
  readonly proto: 'tcp' | 'udp';
  readonly port: number;
}

/** A port of a pod by one family. */
export interface ServicePort extends PodPort {
  readonly family: Family;
}

/** A ClusterIP of one family, whose only endpoint is this pod, at the same port. */
export function serviceObject(namespace: string, name: string, pod: string, to: ServicePort): Manifest {
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name, namespace },
    spec: {
      type: 'ClusterIP',
      ipFamilyPolicy: 'SingleStack',
      ipFamilies: [to.family === 'ipv6' ? 'IPv6' : 'IPv4'],
      selector: { [POD_LABEL]: pod },
      ports: [{ protocol: to.proto.toUpperCase(), port: to.port, targetPort: to.port }],
    },
  };
}

/** Lets only connections to these ports into a pod; none: no connection at all. */
export function policyObject(namespace: string, name: string, pod: string, allowed: readonly PodPort[]): Manifest {
  const ports = allowed.map(({ proto, port }) => ({ protocol: proto.toUpperCase(), port }));
  return {
    apiVersion: 'networking.k8s.io/v1',
    kind: 'NetworkPolicy',
    metadata: { name, namespace },
    spec: {
      podSelector: { matchLabels: { [POD_LABEL]: pod } },
      policyTypes: ['Ingress'],
      // A rule without ports would allow every port.
      ingress: ports.length === 0 ? [] : [{ ports }],
    },
  };
}

/** What is known of a node before anything was asked of it. */
export interface NodeFacts {
  readonly name: string;
  readonly controlPlane: boolean;
  /** Its addresses for other nodes, at most one of each family. */
  readonly addresses: readonly string[];
  readonly podCidrs: readonly string[];
}

const nodeList = z.object({
  items: z.array(
    z.object({
      metadata: z.object({ name: z.string(), labels: z.record(z.string(), z.string()).default({}) }),
      spec: z.object({ podCIDRs: z.array(z.string()).default([]) }),
      status: z.object({ addresses: z.array(z.object({ type: z.string(), address: z.string() })).default([]) }),
    }),
  ),
});

/** Reads `kubectl get nodes -o json`; in the order of their names. @throws Error it is no list of Nodes */
export function nodesOf(json: unknown): NodeFacts[] {
  const { items } = nodeList.parse(json);
  const nodes = items.map(({ metadata, spec, status }) => ({
    name: metadata.name,
    controlPlane: CONTROL_PLANE_LABEL in metadata.labels,
    addresses: status.addresses.filter(({ type }) => type === 'InternalIP').map(({ address }) => address),
    podCidrs: spec.podCIDRs,
  }));
  return nodes.toSorted((a, b) => (a.name < b.name ? -1 : 1));
}

/** What is known of a running pod. */
export interface PodFacts {
  readonly name: string;
  readonly nodeName: string;
  readonly addresses: readonly string[];
}

const podList = z.object({
  items: z.array(
    z.object({
      metadata: z.object({ name: z.string(), deletionTimestamp: z.string().optional() }),
      spec: z.object({ nodeName: z.string().optional() }),
      status: z.object({ phase: z.string(), podIPs: z.array(z.object({ ip: z.string() })).default([]) }),
    }),
  ),
});

/** Reads `kubectl get pods -o json`: those that run and are not about to end. @throws Error it is no list of Pods */
export function runningPodsOf(json: unknown): PodFacts[] {
  const { items } = podList.parse(json);
  return items.flatMap(({ metadata, spec, status }) =>
    status.phase === 'Running' && metadata.deletionTimestamp === undefined && spec.nodeName !== undefined
      ? [{ name: metadata.name, nodeName: spec.nodeName, addresses: status.podIPs.map(({ ip }) => ip) }]
      : [],
  );
}

/** The first address and the IPv6 one, as `Place` has them. @throws LabError there is none */
export function addressesOf(where: string, addresses: readonly string[]): { address: string; address6?: string } {
  const ipv4 = addresses.find((address) => familyOf(address) === 'ipv4');
  const ipv6 = addresses.find((address) => familyOf(address) === 'ipv6');
  const address = ipv4 ?? ipv6;
  if (address === undefined) throw new LabError(`${where} has no address`);
  return { address, ...(ipv6 === undefined ? {} : { address6: ipv6 }) };
}

const agentConfig = z.object({ data: z.object({ 'antrea-agent.conf': z.string() }) });

/** antrea-agent's configuration, from Antrea's ConfigMap. @throws Error it is not in there */
export function antreaConfOf(json: unknown): string {
  return agentConfig.parse(json).data['antrea-agent.conf'];
}

const serviceSpec = z.object({ spec: z.object({ clusterIP: z.string() }) });

/** A Service's address. @throws Error it has none */
export function clusterIpOf(json: unknown): string {
  return serviceSpec.parse(json).spec.clusterIP;
}

const sandbox = z.object({ info: z.object({ pid: z.number() }) });

/** A process in the pod's namespaces, from `crictl inspectp`; its number as the node has it. @throws Error it is not said */
export function sandboxPidOf(json: unknown): number {
  return sandbox.parse(json).info.pid;
}
