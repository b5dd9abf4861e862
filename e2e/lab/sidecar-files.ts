/** The files that the lab gives its sidecars: a configuration each, and one cluster state for all. */
import { renameSync, writeFileSync } from 'node:fs';
import { stringify } from 'yaml';
import { PROTOCOL_VERSION } from '../../plugin/src/dataplane/layout.ts';
import type { Capability } from '../../plugin/src/state/cluster.ts';
import { ANTREA } from './lab.ts';
import type { Node } from './lab.ts';

export type { Capability };

/** What of the configuration a test may choose; the rest follows from the lab. */
export interface SidecarSettings {
  /** Seconds. Default 0.2: nothing is queued in a fresh lab. */
  readonly startHold?: number;
  readonly maps?: Partial<Record<'flows' | 'slots' | 'approvals' | 'refusals', number>>;
  readonly approvals?: { readonly pollInterval?: number; readonly lease?: number };
  /**
   * How packets go to peers that are reached by a tunnel. Default masquerade: most specs are about just that, and count what
   * is slow; an administrator's default is auto.
   */
  readonly transmitMode?: 'auto' | 'masquerade' | 'encap';
  /** Restore in XDP: with veth only where no sender leaves checksums to it. Default off. */
  readonly xdp?: 'off' | 'native';
  readonly logLevel?: 'error' | 'warn' | 'info' | 'debug' | 'trace';
  /** Cluster state comes from the API that a node's file names; default: from a file of the lab. */
  readonly kubeconfig?: (node: Node) => string;
  /** Likewise, by a service account as in a cluster; `environment` names the server. */
  readonly serviceAccount?: (node: Node) => string;
  /** Besides XMasq, which is on. */
  readonly featureGates?: Readonly<Record<string, boolean>>;
  /** The configuration's section, below the gate FlowAccounting. */
  readonly flowAccounting?: Readonly<Record<string, unknown>>;
  /** A node's section of the configuration. */
  readonly flowExport?: (node: Node) => { readonly address: string; readonly certificates: string };
  /** `address:port` inside the node. */
  readonly metricsAddress?: string;
  /** The socket of the node's Open vSwitch database, as a source of pods. Default: there is none. */
  readonly ovsdb?: (node: Node) => string;
}

/** Paths of one sidecar. */
export interface SidecarPaths {
  readonly config: string;
  readonly socket: string;
  readonly pins: string;
  readonly cluster: string;
}

/** Writes a node's configuration file. */
export function writeConfig(node: Node, paths: SidecarPaths, settings: SidecarSettings): void {
  const config = {
    nodeName: node.name,
    featureGates: { XMasq: true, ...settings.featureGates },
    uplink: { device: node.device, ...(settings.xdp === undefined ? {} : { xdp: settings.xdp }) },
    bpffs: paths.pins,
    socket: paths.socket,
    clusterState: clusterState(node, paths, settings),
    tunnel: node.tunnel,
    conntrack: { zone: ANTREA.zone },
    transmitMode: settings.transmitMode ?? 'masquerade',
    startHold: settings.startHold ?? 0.2,
    log: { level: settings.logLevel ?? 'info' },
    ...(settings.maps === undefined ? {} : { maps: settings.maps }),
    ...(settings.approvals === undefined ? {} : { approvals: settings.approvals }),
    ...(settings.ovsdb === undefined ? {} : { ovsdb: { socket: settings.ovsdb(node) } }),
    ...(settings.flowAccounting === undefined ? {} : { flowAccounting: settings.flowAccounting }),
    ...(settings.flowExport === undefined ? {} : { flowExport: settings.flowExport(node) }),
    ...(settings.metricsAddress === undefined ? {} : { metrics: { address: settings.metricsAddress } }),
  };
  writeFileSync(paths.config, stringify(config));
}

function clusterState(node: Node, { cluster }: SidecarPaths, { kubeconfig, serviceAccount }: SidecarSettings): object {
  if (kubeconfig !== undefined) return { kubernetes: { kubeconfig: kubeconfig(node) } };
  return serviceAccount === undefined ? { file: cluster } : { kubernetes: { serviceAccount: serviceAccount(node) } };
}

/** What a lab's node declares at first. */
export function initialCapability(node: Node): Capability {
  return { protocol: PROTOCOL_VERSION, incarnation: `${node.name}-1` };
}

/** Writes the cluster state; readers see the old file or the new one. */
export function writeCluster(
  file: string,
  nodes: readonly Node[],
  capabilities: ReadonlyMap<Node, Capability | undefined>,
): void {
  const state = {
    trafficEncapMode: nodes[0]?.encapMode ?? 'encap',
    nodes: nodes.map((node) => {
      const capability = capabilities.get(node);
      return {
        name: node.name,
        addresses: [...new Set([node.address, node.address6 ?? node.address])],
        podCIDRs: [node.podCidr, ...(node.podCidr6 === undefined ? [] : [node.podCidr6])],
        ...(capability === undefined ? {} : { capability }),
      };
    }),
  };
  writeFileSync(`${file}.new`, stringify(state));
  renameSync(`${file}.new`, file);
}
