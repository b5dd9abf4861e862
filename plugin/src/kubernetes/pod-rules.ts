import { Reason } from '../dataplane/layout.ts';
import { podText, type PodExclusion } from '../exclusion/exclusions.ts';
import { matchesLabels } from './label-selector.ts';
import type { NamespaceView, PacketCaptureView, PodView, TrafficControlView } from './pod-view.ts';

/** All that decides about pods; each by its key. */
export interface PodFacts {
  readonly pods: ReadonlyMap<string, PodView>;
  readonly namespaces: ReadonlyMap<string, NamespaceView>;
  readonly trafficControls: ReadonlyMap<string, TrafficControlView>;
  readonly packetCaptures: ReadonlyMap<string, PacketCaptureView>;
}

/** Which local pods are excluded and why, in the order of their names; one with several reasons is told with each. */
export function podExclusions(facts: PodFacts): PodExclusion[] {
  const captures = capturedPods(facts.packetCaptures);
  return [...facts.pods]
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .flatMap(([, pod]) => [...exclusionsOfPod(pod, facts, captures)]);
}

function* exclusionsOfPod(
  view: PodView,
  { namespaces, trafficControls }: PodFacts,
  captures: ReadonlyMap<string, string>,
): Generator<PodExclusion> {
  const { pod, bandwidth } = view;
  const namespace = namespaces.get(pod.namespace);
  for (const [name, control] of trafficControls) {
    if (!selectsPod(control, view, namespace)) continue;
    yield { pod, reason: Reason.TRAFFIC_CONTROL, detail: `TrafficControl ${name}` };
    break;
  }
  if (bandwidth !== undefined) yield { pod, reason: Reason.BANDWIDTH, detail: `annotation ${bandwidth}` };
  const capture = captures.get(podText(pod));
  if (capture !== undefined) yield { pod, reason: Reason.PACKET_CAPTURE, detail: `PacketCapture ${capture}` };
  const ippools = view.ippools ?? namespace?.ippools;
  if (ippools !== undefined) {
    const where = view.ippools === undefined ? ` of Namespace ${pod.namespace}` : '';
    yield { pod, reason: Reason.ANTREA_IPAM, detail: `annotation ipam.antrea.io/ippools: ${ippools}${where}` };
  }
}

/** A Namespace that is not known yet may have the labels. */
function selectsPod(
  { podSelector, namespaceSelector }: TrafficControlView,
  { labels }: PodView,
  namespace: NamespaceView | undefined,
): boolean {
  if (podSelector !== undefined && !matchesLabels(podSelector, labels)) return false;
  if (namespaceSelector === undefined || namespace === undefined) return true;
  return matchesLabels(namespaceSelector, namespace.labels);
}

/** Name of a capture by pod. */
function capturedPods(captures: ReadonlyMap<string, PacketCaptureView>): Map<string, string> {
  return new Map([...captures].flatMap(([name, { pods }]) => pods.map((pod) => [podText(pod), name] as const)));
}
