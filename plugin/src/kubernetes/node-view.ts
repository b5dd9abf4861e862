import { oneOfEach, podCidr, transportAddress } from '../state/addresses.ts';
import type { Capability, ClusterNode } from '../state/cluster.ts';
import type { KubeObject } from './objects.ts';

/** What a node declares once it can receive masqueraded packets: `{"protocol":1,"incarnation":"..."}`. */
export const CAPABILITY_ANNOTATION = 'node.xmasq.antrea.io/capability';
/** Written by antrea-agent where the transport interface is not that of the node's address; comma-separated. */
const TRANSPORT_ANNOTATION = 'node.antrea.io/transport-addresses';

/** The parts of a Node that are read. */
export interface NodeObject extends KubeObject {
  readonly spec?: { readonly podCIDR?: string; readonly podCIDRs?: readonly string[] };
  readonly status?: { readonly addresses?: readonly { readonly type: string; readonly address: string }[] };
}

/** What is kept of a Node. */
export interface NodeView {
  readonly node: ClusterNode;
  /** As it stands on the object; our own one is compared with what we published. */
  readonly capabilityText?: string;
}

/**
 * A Node as antrea-agent sees it (its node route controller): the first pod CIDR of each family, the transport
 * addresses of the annotation, else InternalIPs, else ExternalIPs. undefined: it has no name or no address (yet).
 */
export function nodeView(object: NodeObject): NodeView | undefined {
  const { name, annotations = {} } = object.metadata ?? {};
  const addresses = addressesOf(object);
  if (name === undefined || addresses.length === 0) return undefined;
  const capabilityText = annotations[CAPABILITY_ANNOTATION];
  const capability = parseCapability(capabilityText);
  return {
    node: { name, addresses, podCIDRs: podCidrsOf(object), ...(capability !== undefined && { capability }) },
    ...(capabilityText !== undefined && { capabilityText }),
  };
}

function addressesOf({ metadata, status }: NodeObject): string[] {
  const usable = (texts: readonly string[]): string[] =>
    oneOfEach(texts.flatMap((text) => transportAddress(text) ?? []));
  const annotation = metadata?.annotations?.[TRANSPORT_ANNOTATION];
  // Where the annotation is, antrea-agent takes nothing else.
  if (annotation !== undefined) return usable(annotation.split(',').map((text) => text.trim()));
  const ofType = (type: string): string[] =>
    usable((status?.addresses ?? []).filter((entry) => entry.type === type).map(({ address }) => address));
  const internal = ofType('InternalIP');
  return internal.length > 0 ? internal : ofType('ExternalIP');
}

/** At most one of each family, as Antrea. */
function podCidrsOf({ spec }: NodeObject): string[] {
  const listed = spec?.podCIDRs ?? [];
  const all = listed.length > 0 ? listed : spec?.podCIDR === undefined ? [] : [spec.podCIDR];
  return oneOfEach(all.flatMap((text) => podCidr(text) ?? []));
}

/** undefined: absent, or nothing that this version understands; the node is then none that receives. */
export function parseCapability(text: string | undefined): Capability | undefined {
  if (text === undefined) return undefined;
  try {
    const { protocol, incarnation } = JSON.parse(text) as { readonly [key in keyof Capability]?: unknown };
    if (!Number.isInteger(protocol) || Number(protocol) < 1 || Number(protocol) > 255) return undefined;
    if (typeof incarnation !== 'string' || !/^[\x21-\x7e]{1,128}$/.test(incarnation)) return undefined;
    return { protocol: Number(protocol), incarnation };
  } catch {
    return undefined;
  }
}

/** The annotation's value. */
export function capabilityText({ protocol, incarnation }: Capability): string {
  return JSON.stringify({ protocol, incarnation });
}
