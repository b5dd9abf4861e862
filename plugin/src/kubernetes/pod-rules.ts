import { Reason } from '../dataplane/layout.ts';
import { podText, type PodExclusion } from '../exclusion/exclusions.ts';
import { matchesLabels } from './label-selector.ts';
import type { NamespaceView, PacketCaptureView, PodView, TrafficControlView } from './pod-view.ts';

/** In place of objects that the sidecar may not read: any pod may be concerned. */
export const REFUSED = 'refused';

/** All that decides about pods; each by its key. */
export interface PodFacts {
  readonly pods: ReadonlyMap<string, PodView>;
  readonly namespaces: ReadonlyMap<string, NamespaceView>;
  readonly trafficControls: ReadonlyMap<string, TrafficControlView> | typeof REFUSED;
  readonly packetCaptures: ReadonlyMap<string, PacketCaptureView> | typeof REFUSED;
}

/** Which local pods are excluded and why, in the order of their names; one with several reasons is told with each. */
export function podExclusions(facts: PodFacts): PodExclusion[] {
  const captures = facts.packetCaptures === REFUSED ? REFUSED : capturedPods(facts.packetCaptures);
  return [...facts.pods]
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .flatMap(([, pod]) => [...exclusionsOfPod(pod, facts, captures)]);
}

function* exclusionsOfPod(
  view: PodView,
  { namespaces, trafficControls }: PodFacts,
  captures: ReadonlyMap<string, string> | typeof REFUSED,
): Generator<PodExclusion> {
  const { pod, bandwidth } = view;
  const namespace = namespaces.get(pod.namespace);
  const control =
    trafficControls === REFUSED
      ? 'TrafficControls may not be read'
      : nameOf('TrafficControl', findControl(trafficControls, view, namespace));
  if (control !== undefined) yield { pod, reason: Reason.TRAFFIC_CONTROL, detail: control };
  if (bandwidth !== undefined) yield { pod, reason: Reason.BANDWIDTH, detail: `annotation ${bandwidth}` };
  const capture =
    captures === REFUSED ? 'PacketCaptures may not be read' : nameOf('PacketCapture', captures.get(podText(pod)));
  if (capture !== undefined) yield { pod, reason: Reason.PACKET_CAPTURE, detail: capture };
  const ippools = view.ippools ?? namespace?.ippools;
  if (ippools !== undefined) {
    const where = view.ippools === undefined ? ` of Namespace ${pod.namespace}` : '';
    yield { pod, reason: Reason.ANTREA_IPAM, detail: `annotation ipam.antrea.io/ippools: ${ippools}${where}` };
  }
}

function nameOf(kind: string, name: string | undefined): string | undefined {
  return name === undefined ? undefined : `${kind} ${name}`;
}

/** Name of the first one that selects the pod. */
function findControl(
  controls: ReadonlyMap<string, TrafficControlView>,
  pod: PodView,
  namespace: NamespaceView | undefined,
): string | undefined {
  for (const [name, control] of controls) if (selectsPod(control, pod, namespace)) return name;
  return undefined;
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
