/** What Open vSwitch's database says beside the pods: whether and how XMasq may take part. */
import type { PodName } from '../grpc/backend.ts';
import type { BridgePort, BridgeView } from './bridge.ts';
import type { PodPort } from './pod-ports.ts';

/** A tunnel port of Antrea. */
export interface OvsdbTunnel {
  readonly name: string;
  /** `geneve`, `vxlan`, `gre`, `stt`; '' if there is no Interface row. */
  readonly type: string;
  /** UDP or TCP destination port of the tunnel, the type's default included; undefined: none (gre), or not known. */
  readonly port: number | undefined;
  /** Encrypted by IPsec. */
  readonly ipsec: boolean;
}

/** Antrea's gateway port. */
export interface OvsdbGateway {
  readonly name: string;
  readonly ofport: number | undefined;
  readonly ifindex: number | undefined;
  /** '' if not known. */
  readonly mac: string;
}

/** A pod whose port has a VLAN. */
export interface VlanPod extends PodName {
  readonly containerId: string;
  readonly tag: number;
}

/** One consistent state; never changed. Before the first copy of the database nothing is known of all but `connected`. */
export interface OvsdbState {
  readonly connected: boolean;
  /** There was a copy of the database: the rest is what the last one said, also while there is no connection. */
  readonly synced: boolean;
  /** The database has Antrea's bridge. */
  readonly bridgePresent: boolean;
  /** Open vSwitch waits for the agent to give it its flows: nothing new may be learned. */
  readonly flowRestoreWait: boolean;
  /** Flows are offloaded to the NIC. */
  readonly hwOffload: boolean;
  /** Grows when an agent that was restarted has put its flows in force; undefined: not written (yet). */
  readonly roundNum: number | undefined;
  readonly gateway: OvsdbGateway | undefined;
  /** Sorted by name. */
  readonly tunnels: readonly OvsdbTunnel[];
  /** Names of uplink ports: the node's own interface is in the bridge (bridging mode). */
  readonly uplinks: readonly string[];
  readonly vlanPods: readonly VlanPod[];
  /** Container ports that are accelerated unless something else excludes them. */
  readonly pods: number;
}

/** Nothing is known yet. */
export const UNKNOWN_STATE: OvsdbState = {
  connected: false,
  synced: false,
  bridgePresent: false,
  flowRestoreWait: false,
  hwOffload: false,
  roundNum: undefined,
  gateway: undefined,
  tunnels: [],
  uplinks: [],
  vlanPods: [],
  pods: 0,
};

/** Of tunnels without `options:dst_port`. */
const DEFAULT_TUNNEL_PORT: Readonly<Record<string, number>> = { geneve: 6081, vxlan: 4789, stt: 7471 };
/** Keys of `options` by which Open vSwitch's IPsec daemon knows its tunnels. */
const IPSEC_OPTIONS = ['psk', 'remote_cert', 'remote_name'];
const MAX_PORT = 65_535;

/** The state that a view of the bridge makes. */
export function readState(view: BridgeView, pods: ReadonlyMap<string, PodPort>, connected: boolean): OvsdbState {
  const byType = (...types: string[]): BridgePort[] => view.ports.filter(({ type }) => types.includes(type));
  return {
    connected,
    synced: true,
    bridgePresent: view.present,
    flowRestoreWait: isTrue(view.otherConfig.get('flow-restore-wait')),
    hwOffload: isTrue(view.otherConfig.get('hw-offload')),
    roundNum: parseNatural(view.externalIds.get('roundNum')),
    gateway: byType('gateway').map(readGateway)[0],
    tunnels: byType('tunnel', 'ipsec-tunnel').map(readTunnel).sort(byName),
    uplinks: byType('uplink')
      .map(({ name }) => name)
      .sort(),
    vlanPods: [...pods.values()].flatMap(({ pod, tag }) =>
      tag === undefined ? [] : [{ namespace: pod.namespace, name: pod.name, containerId: pod.containerId, tag }],
    ),
    pods: pods.size,
  };
}

/** True if the two say the same. */
export function sameState(a: OvsdbState, b: OvsdbState): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}

function readGateway({ name, interface: device }: BridgePort): OvsdbGateway {
  return { name, ofport: device?.ofport, ifindex: device?.ifindex, mac: device?.mac ?? '' };
}

function readTunnel({ name, type: portType, interface: device }: BridgePort): OvsdbTunnel {
  const type = device?.type ?? '';
  const options = device?.options;
  return {
    name,
    type,
    port: parsePort(options?.get('dst_port')) ?? DEFAULT_TUNNEL_PORT[type],
    ipsec: portType === 'ipsec-tunnel' || IPSEC_OPTIONS.some((option) => options?.has(option) === true),
  };
}

/** As Open vSwitch reads booleans. */
function isTrue(text: string | undefined): boolean {
  return text?.toLowerCase() === 'true';
}

function parseNatural(text: string | undefined): number | undefined {
  return text !== undefined && /^\d{1,15}$/.test(text) ? Number(text) : undefined;
}

function parsePort(text: string | undefined): number | undefined {
  const port = parseNatural(text);
  return port !== undefined && port >= 1 && port <= MAX_PORT ? port : undefined;
}

function byName(a: { readonly name: string }, b: { readonly name: string }): number {
  return a.name < b.name ? -1 : Number(a.name > b.name);
}
