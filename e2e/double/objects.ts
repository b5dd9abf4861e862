/** Objects as a real cluster has them. */
import type { StoredObject } from './store.ts';

export interface NodeSpec {
  readonly name: string;
  readonly address: string;
  readonly podCIDR?: string;
  readonly annotations?: Readonly<Record<string, string>>;
  /** The least size of the object's JSON; made up by images, as in real Nodes. */
  readonly bytes?: number;
}

export function nodeObject({ name, address, podCIDR, annotations = {}, bytes = 0 }: NodeSpec): StoredObject {
  const object = {
    apiVersion: 'v1',
    kind: 'Node',
    metadata: { name, labels: { 'kubernetes.io/hostname': name, 'kubernetes.io/os': 'linux' }, annotations },
    spec: podCIDR === undefined ? {} : { podCIDR, podCIDRs: [podCIDR] },
    status: {
      addresses: [
        { type: 'InternalIP', address },
        { type: 'Hostname', address: name },
      ],
      conditions: ['MemoryPressure', 'DiskPressure', 'PIDPressure', 'Ready'].map((type) => ({
        type,
        status: type === 'Ready' ? 'True' : 'False',
        lastHeartbeatTime: '2026-11-23T00:00:00Z',
        reason: `Kubelet${type}`,
      })),
      images: [] as object[],
    },
  };
  for (let size = JSON.stringify(object).length, index = 0; size < bytes; index++) {
    const image = {
      names: [
        `registry.example/images/image-${index}@sha256:${'0123456789abcdef'.repeat(4)}`,
        `registry.example/images/image-${index}:v1.${index}`,
      ],
      sizeBytes: 123_456_789 + index,
    };
    object.status.images.push(image);
    size += JSON.stringify(image).length + 1;
  }
  return object;
}

/** The n-th of a cluster of up to 16,384 nodes: 10.N.N.0/24 from 10.64.0.0, addresses from 172.16.0.0. */
export function numberedNode(n: number, rest: Partial<NodeSpec> = {}): StoredObject {
  return nodeObject({
    name: `node-${String(n).padStart(5, '0')}`,
    address: `172.${16 + (n >> 14)}.${(n >> 8) & 63}.${n & 255}`,
    podCIDR: `10.${64 + (n >> 8)}.${n & 255}.0/24`,
    ...rest,
  });
}

export interface PodSpec {
  readonly namespace?: string;
  readonly name: string;
  readonly nodeName: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
  readonly hostNetwork?: boolean;
}

export function podObject({
  namespace = 'default',
  name,
  nodeName,
  labels = {},
  annotations = {},
  ...rest
}: PodSpec): StoredObject {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { namespace, name, labels, annotations },
    spec: {
      nodeName,
      hostNetwork: rest.hostNetwork ?? false,
      containers: [{ name: 'main', image: 'registry.example/app:v1' }],
    },
    status: { phase: 'Running', podIP: '10.64.1.2' },
  };
}

/** An object of a kind without namespace. */
export function clusterObject(
  kind: string,
  apiVersion: string,
  name: string,
  fields: Readonly<Record<string, unknown>>,
): StoredObject {
  return { apiVersion, kind, metadata: { name }, ...fields };
}
