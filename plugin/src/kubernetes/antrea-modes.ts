import { parse } from 'yaml';
import { Reason } from '../dataplane/layout.ts';
import type { NodeExclusion } from '../exclusion/exclusions.ts';
import type { TrafficEncapMode } from '../state/cluster.ts';

/** Settings of antrea-agent that XMasq must know. Texts are lower case: Antrea compares without case. */
export interface AntreaModes {
  /** encap, noencap, hybrid, networkpolicyonly; or what else is written there. */
  readonly trafficEncapMode: string;
  /** none, ipsec, wireguard. */
  readonly trafficEncryptionMode: string;
  /** geneve, vxlan, gre, stt. */
  readonly tunnelType: string;
  /** The tunnel's UDP port; of gre (which has none) undefined. */
  readonly tunnelPort: number | undefined;
  readonly antreaProxy: boolean;
  readonly multiclusterGateway: boolean;
  readonly bridgingMode: boolean;
  /** 0: derived from the uplink. */
  readonly defaultMTU: number;
  /** Only what is written; a gate that is missing has Antrea's default. */
  readonly featureGates: Readonly<Record<string, boolean>>;
}

/** `tunnelPort: 0`. */
const DEFAULT_PORTS: Readonly<Record<string, number>> = { geneve: 6081, vxlan: 4789, stt: 7471 };

/** Those in which XMasq takes part. */
const ENCAP_MODES: readonly TrafficEncapMode[] = ['encap', 'noEncap', 'hybrid'];

/** Antrea's defaults, for settings that are not written. */
const DEFAULTS = { trafficEncapMode: 'encap', trafficEncryptionMode: 'none', tunnelType: 'geneve' };

/**
 * Reads antrea-agent.conf. What is missing has Antrea's default.
 * @throws Error with a message for people when it is no YAML mapping
 */
export function parseAntreaConf(text: string): AntreaModes {
  const raw = (parse(text, { maxAliasCount: 0 }) ?? {}) as unknown;
  if (!isMapping(raw)) throw new Error('antrea-agent.conf is not a YAML mapping');
  const word = (key: keyof typeof DEFAULTS): string => {
    const value = raw[key];
    return (typeof value === 'string' && value !== '' ? value : DEFAULTS[key]).toLowerCase();
  };
  const tunnelType = word('tunnelType');
  const port = Number(raw['tunnelPort'] ?? 0);
  const multicluster = section(raw, 'multicluster');
  return {
    trafficEncapMode: word('trafficEncapMode'),
    trafficEncryptionMode: word('trafficEncryptionMode'),
    tunnelType,
    tunnelPort: port > 0 && tunnelType !== 'gre' ? port : DEFAULT_PORTS[tunnelType],
    antreaProxy: section(raw, 'antreaProxy')['enable'] !== false,
    // `enable` is its name in old releases.
    multiclusterGateway: multicluster['enableGateway'] === true || multicluster['enable'] === true,
    bridgingMode: raw['enableBridgingMode'] === true,
    defaultMTU: Number(raw['defaultMTU'] ?? 0),
    featureGates: Object.fromEntries(
      Object.entries(section(raw, 'featureGates')).filter(
        (entry): entry is [string, boolean] => typeof entry[1] === 'boolean',
      ),
    ),
  };
}

/** How pod traffic goes between nodes; undefined: in a way that XMasq takes no part in. */
export function encapMode({ trafficEncapMode }: Pick<AntreaModes, 'trafficEncapMode'>): TrafficEncapMode | undefined {
  return ENCAP_MODES.find((mode) => mode.toLowerCase() === trafficEncapMode);
}

/** What these settings rule out; empty: nothing. */
export function exclusionsOf(modes: AntreaModes): NodeExclusion[] {
  const { trafficEncapMode, trafficEncryptionMode, tunnelType } = modes;
  const found: NodeExclusion[] = [];
  const mode = encapMode(modes);
  const tunnels = mode === 'encap' || mode === 'hybrid';
  if (mode === undefined) {
    // In networkPolicyOnly the interfaces are another CNI's.
    found.push({ scope: 'node', reason: Reason.ENCAP_MODE, detail: `trafficEncapMode: ${trafficEncapMode}` });
  }
  if (modes.bridgingMode) {
    found.push({ scope: 'node', reason: Reason.BRIDGING, detail: 'enableBridgingMode: true' });
  }
  if (modes.multiclusterGateway) {
    found.push({ scope: 'node', reason: Reason.MULTICLUSTER, detail: 'multicluster.enableGateway: true' });
  }
  if (mayBeOn(modes, 'NodeNetworkPolicy')) {
    // The programs take packets of other nodes before iptables: a rule of such a policy on the tunnel's port would be passed by.
    found.push({
      scope: 'inter-node',
      reason: Reason.FEATURE_GATE,
      detail: 'featureGates.NodeNetworkPolicy of Antrea',
    });
  }
  if (trafficEncryptionMode !== 'none') {
    found.push({
      scope: 'inter-node',
      reason: Reason.ENCRYPTION,
      detail: `trafficEncryptionMode: ${trafficEncryptionMode}`,
    });
  }
  if (tunnels && tunnelType !== 'geneve' && tunnelType !== 'vxlan') {
    found.push({ scope: 'inter-node', reason: Reason.TUNNEL_TYPE, detail: `tunnelType: ${tunnelType}` });
  }
  return found;
}

/** Whether a gate that is off by default may be on; `AllAlpha` and `AllBeta` switch on what is not named. */
function mayBeOn({ featureGates }: AntreaModes, gate: string): boolean {
  return featureGates[gate] ?? (featureGates['AllAlpha'] === true || featureGates['AllBeta'] === true);
}

function section(raw: Readonly<Record<string, unknown>>, key: string): Readonly<Record<string, unknown>> {
  const value = raw[key];
  return isMapping(value) ? value : {};
}

function isMapping(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
