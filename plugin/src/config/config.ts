/**
 * The configuration of xmasq-agent, as the rest of the sidecar sees it: every default filled in, every value checked.
 * `schema.ts` says what the file may hold, `load.ts` reads it, docs/configuration.md explains it.
 */
import type { FeatureGates } from './feature-gates.ts';

export type TunnelType = 'vxlan' | 'geneve';
export type LogLevel = 'fatal' | 'error' | 'warn' | 'info' | 'debug' | 'trace';

export interface Config {
  /** This node's name in the cluster state. Default: environment variable NODE_NAME. */
  readonly nodeName: string;
  /** docs/feature-gates.md. */
  readonly featureGates: FeatureGates;
  readonly uplink: {
    /** Device that carries the node's transport address; undefined: found by that address. */
    readonly device: string | undefined;
  };
  /** Directory on a bpf file system where programs, links and maps are pinned. */
  readonly bpffs: string;
  /** Unix socket of the gRPC services. */
  readonly socket: string;
  readonly clusterState: {
    /** YAML or JSON file that lists the nodes. */
    readonly file: string;
  };
  readonly ovsdb: {
    /** Unix socket of Open vSwitch's database; undefined: pods come from PodEvents alone. */
    readonly socket: string | undefined;
    /** Antrea's bridge. */
    readonly bridge: string;
  };
  readonly tunnel: {
    readonly type: TunnelType;
    /** UDP port; default 4789 for VXLAN, 6081 for Geneve. */
    readonly port: number;
  };
  readonly conntrack: {
    /** Antrea's main zone. */
    readonly zone: number;
  };
  /** Most entries of each map. With pinned maps of another size the sidecar refuses to start. */
  readonly maps: {
    readonly flows: number;
    readonly slots: number;
    readonly approvals: number;
    readonly refusals: number;
  };
  /** Seconds between attaching uplink_egress and declaring the capability: packets queued before must have left. */
  readonly startHold: number;
  readonly approvals: {
    /** Seconds between two reads of the conntrack zone. */
    readonly pollInterval: number;
    /** Seconds an approval holds without renewal; at least twice pollInterval. */
    readonly lease: number;
  };
  readonly metrics: {
    /** `host:port` to serve Prometheus metrics on; undefined: do not. */
    readonly address: string | undefined;
  };
  readonly log: {
    readonly level: LogLevel;
  };
}
