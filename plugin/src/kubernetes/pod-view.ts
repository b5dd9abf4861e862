import type { PodName } from '../grpc/backend.ts';
import type { KubeObject, LabelSelector } from './objects.ts';

/** Limits of the bandwidth plugin, which Antrea chains by default. */
const BANDWIDTH_ANNOTATIONS = ['kubernetes.io/ingress-bandwidth', 'kubernetes.io/egress-bandwidth'];
/** Of Pods and of Namespaces: addresses come from an IPPool, possibly with a VLAN. */
const IPPOOLS_ANNOTATION = 'ipam.antrea.io/ippools';

type Labels = Readonly<Record<string, string>>;

/** What is kept of a local Pod. */
export interface PodView {
  readonly pod: PodName;
  readonly labels: Labels;
  /** The annotation that limits its bandwidth. */
  readonly bandwidth?: string;
  readonly ippools?: string;
}

/** What is kept of a Namespace. */
export interface NamespaceView {
  readonly labels: Labels;
  readonly ippools?: string;
}

/** What is kept of a TrafficControl. */
export interface TrafficControlView {
  readonly podSelector?: LabelSelector;
  readonly namespaceSelector?: LabelSelector;
}

/** What is kept of a PacketCapture that is not complete: the Pods that it names. */
export interface PacketCaptureView {
  readonly pods: readonly PodName[];
}

/** undefined for Pods in the node's own network: they have no port. */
export function podView(object: KubeObject): PodView | undefined {
  const { spec } = object as { readonly spec?: { readonly hostNetwork?: boolean } };
  const { namespace, name, labels = {}, annotations = {} } = object.metadata ?? {};
  if (namespace === undefined || name === undefined || spec?.hostNetwork === true) return undefined;
  const bandwidth = BANDWIDTH_ANNOTATIONS.find((annotation) => annotations[annotation] !== undefined);
  const ippools = annotations[IPPOOLS_ANNOTATION];
  return {
    pod: { namespace, name },
    labels,
    ...(bandwidth !== undefined && { bandwidth: `${bandwidth}: ${annotations[bandwidth] ?? ''}` }),
    ...(ippools !== undefined && { ippools }),
  };
}

export function namespaceView({ metadata }: KubeObject): NamespaceView {
  const { labels = {}, annotations = {} } = metadata ?? {};
  const ippools = annotations[IPPOOLS_ANNOTATION];
  return { labels, ...(ippools !== undefined && { ippools }) };
}

/** undefined: it selects nothing (as in antrea-agent's controller for TrafficControl). */
export function trafficControlView(object: KubeObject): TrafficControlView | undefined {
  const { spec } = object as { readonly spec?: { readonly appliedTo?: TrafficControlView } };
  const { podSelector, namespaceSelector } = spec?.appliedTo ?? {};
  if (podSelector === undefined && namespaceSelector === undefined) return undefined;
  return {
    ...(podSelector !== undefined && { podSelector }),
    ...(namespaceSelector !== undefined && { namespaceSelector }),
  };
}

interface PacketCaptureObject extends KubeObject {
  readonly spec?: Readonly<Record<'source' | 'destination', { readonly pod?: Partial<PodName> } | undefined>>;
  readonly status?: { readonly conditions?: readonly { readonly type: string; readonly status: string }[] };
}

/** undefined: it is complete. One that has no status yet may begin at any moment. */
export function packetCaptureView(object: PacketCaptureObject): PacketCaptureView | undefined {
  const complete = object.status?.conditions?.some(
    ({ type, status }) => type === 'PacketCaptureComplete' && status === 'True',
  );
  if (complete === true) return undefined;
  const pods = [object.spec?.source?.pod, object.spec?.destination?.pod].flatMap((pod) =>
    pod?.name === undefined ? [] : [{ namespace: pod.namespace ?? 'default', name: pod.name }],
  );
  return { pods };
}

/** What is kept of a Traceflow that has not ended. */
export interface TraceflowView {
  readonly liveTraffic: boolean;
}

/** undefined: it has ended. */
export function traceflowView(object: KubeObject): TraceflowView | undefined {
  const { spec, status } = object as {
    readonly spec?: { readonly liveTraffic?: boolean };
    readonly status?: { readonly phase?: string };
  };
  if (status?.phase === 'Succeeded' || status?.phase === 'Failed') return undefined;
  return { liveTraffic: spec?.liveTraffic === true };
}
