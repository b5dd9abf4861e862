import { isIPv4 } from 'node:net';
import type { Capability, ClusterNode } from '../state/cluster.ts';
import { formatPrefix4, parsePrefix4 } from '../state/prefix4.ts';
import type { KubeObject } from './objects.ts';

/** What a node declares once it can receive masqueraded packets: `{"protocol":1,"incarnation":"..."}`. */
export const CAPABILITY_ANNOTATION = 'node.xmasq.antrea.io/capability';
/** Written by antrea-agent where the transport interface is not that of the node's address; comma-separated. */
const TRANSPORT_ANNOTATION = 'node.antrea.io/transport-addresses';
/** As for the static file: the data plane's destinations are between /8 and /32. */
const MIN_PREFIX = 8;

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
 * A Node as antrea-agent sees it (its node route controller): the first IPv4 pod CIDR, the transport address of the
 * annotation, else InternalIP, else ExternalIP. undefined: it has no name or no IPv4 address (yet).
 */
export function nodeView(object: NodeObject): NodeView | undefined {
  const { name, annotations = {} } = object.metadata ?? {};
  const address = addressOf(object);
  if (name === undefined || address === undefined) return undefined;
  const capabilityText = annotations[CAPABILITY_ANNOTATION];
  const capability = parseCapability(capabilityText);
  return {
    node: { name, address, podCIDRs: podCidrsOf(object), ...(capability !== undefined && { capability }) },
    ...(capabilityText !== undefined && { capabilityText }),
  };
}

function addressOf({ metadata, status }: NodeObject): string | undefined {
  const annotation = metadata?.annotations?.[TRANSPORT_ANNOTATION];
  const transport = annotation?.split(',').map((text) => text.trim());
  // Where the annotation is, antrea-agent takes nothing else.
  if (transport !== undefined) return transport.find(isIPv4);
  const ofType = (type: string): string | undefined =>
    status?.addresses?.find((entry) => entry.type === type && isIPv4(entry.address))?.address;
  return ofType('InternalIP') ?? ofType('ExternalIP');
}

/** None or one: Antrea uses at most one of each family. */
function podCidrsOf({ spec }: NodeObject): string[] {
  const listed = spec?.podCIDRs ?? [];
  const all = listed.length > 0 ? listed : spec?.podCIDR === undefined ? [] : [spec.podCIDR];
  for (const text of all) {
    const prefix = parsePrefix4(text);
    if (prefix !== undefined && prefix.length >= MIN_PREFIX) return [formatPrefix4(prefix)];
  }
  return [];
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
