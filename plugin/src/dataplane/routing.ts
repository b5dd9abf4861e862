/** Which peers Antrea reaches without a tunnel, and what the programs must know of that. */
import ipaddr from 'ipaddr.js';
import { addressOfFamily, familyOf } from '../netlink/ip.ts';
import type { ClusterNode, TrafficEncapMode } from '../state/cluster.ts';
import type { ConfigMap } from './config-map.ts';
import { ConfigFlag } from './layout.ts';
import type { Peers } from './peers.ts';
import type { Log } from './ports.ts';

/** An address of this node and the subnet that it is in. */
export interface TransportSubnet {
  readonly address: string;
  /** Bits. */
  readonly prefixLength: number;
}

/**
 * Does Antrea route to that node's pods of this family, with no tunnel? As NeedsDirectRoutingToPeer of its pkg/agent/config,
 * but that in noEncap there is no tunnel to the nodes of other subnets either: the underlay knows the way.
 */
export function isRouted(
  mode: TrafficEncapMode,
  subnets: readonly TransportSubnet[],
  { addresses }: Pick<ClusterNode, 'addresses'>,
  family: 4 | 6,
): boolean {
  if (mode !== 'hybrid') return mode === 'noEncap';
  const theirs = addressOfFamily(addresses, family);
  const own = subnets.find(({ address }) => familyOf(address) === family);
  if (theirs === undefined || own === undefined) return false;
  return ipaddr.parse(theirs).match(ipaddr.parse(own.address), own.prefixLength);
}

/** Keeps the programs informed. */
export class Routing {
  readonly #config: ConfigMap;
  readonly #peers: Pick<Peers, 'setRouting'>;
  readonly #log: Log;
  #mode: TrafficEncapMode | undefined;
  #subnets: readonly TransportSubnet[] = [];

  constructor(config: ConfigMap, peers: Pick<Peers, 'setRouting'>, log: Log) {
    this.#config = config;
    this.#peers = peers;
    this.#log = log;
  }

  /** Antrea's mode is this. */
  setMode(mode: TrafficEncapMode): void {
    if (mode === this.#mode) return;
    if (this.#mode !== undefined || mode !== 'encap') this.#log.info({ mode }, 'trafficEncapMode');
    this.#mode = mode;
    this.#apply();
  }

  /** These are the node's transport addresses; none: they are not known now, and what was found out stays. */
  setSubnets(subnets: readonly TransportSubnet[]): void {
    if (subnets.length === 0 || textOf(subnets) === textOf(this.#subnets)) return;
    this.#subnets = subnets;
    if (this.#mode === 'hybrid') this.#apply();
  }

  #apply(): void {
    const mode = this.#mode;
    // Nobody knows yet who is near.
    if (mode === undefined || (mode === 'hybrid' && this.#subnets.length === 0)) return;
    // Flows to routed peers need the flag: it comes first, and goes last.
    if (mode !== 'encap') this.#config.setFlags(ConfigFlag.DIRECT);
    this.#peers.setRouting((node, family) => isRouted(mode, this.#subnets, node, family));
    if (mode === 'encap') this.#config.setFlags(0, ConfigFlag.DIRECT);
  }
}

function textOf(subnets: readonly TransportSubnet[]): string {
  return subnets.map(({ address, prefixLength }) => `${address}/${prefixLength}`).join();
}
