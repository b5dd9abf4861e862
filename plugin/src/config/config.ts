/**
 * The configuration of xmasq-agent, as the rest of the sidecar sees it: every default filled in, every value checked.
 * `schema.ts` says what the file may hold, `load.ts` reads it, docs/configuration.md explains it.
 */
import type { FeatureGates } from './feature-gates.ts';

export type TunnelType = 'vxlan' | 'geneve';
/** auto: masqueraded where the underlay carries that, else in the tunnel's header. */
export type TransmitChoice = 'auto' | 'masquerade' | 'encap';
export type LogLevel = 'fatal' | 'error' | 'warn' | 'info' | 'debug' | 'trace';

export interface KubernetesConfig {
  /** File; undefined: a service account. */
  readonly kubeconfig: string | undefined;
  /** Directory with the service account's `token` and `ca.crt`; undefined: that of every pod. */
  readonly serviceAccount: string | undefined;
  /** Where Antrea runs. */
  readonly antreaNamespace: string;
  /** Where XMasq is installed: of its ConfigMap `xmasq-uninstall`. */
  readonly namespace: string;
}

/** PEM files. */
export interface TlsFiles {
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
}

export interface Config {
  /** This node's name in the cluster state. Default: environment variable NODE_NAME. */
  readonly nodeName: string;
  /** docs/feature-gates.md. */
  readonly featureGates: FeatureGates;
  readonly uplink: {
    /** Devices that carry the node's transport addresses; empty: found by these. */
    readonly devices: readonly string[];
    /** Restore masqueraded packets in XDP, in the driver: for devices that receive whole checksums, which veth does not. */
    readonly xdp: 'off' | 'native';
  };
  /** Directory on a bpf file system where programs, links and maps are pinned. */
  readonly bpffs: string;
  /** Unix socket of the gRPC services. */
  readonly socket: string;
  /** Exactly one of the two. */
  readonly clusterState: {
    /** YAML or JSON file that lists the nodes. */
    readonly file: string | undefined;
    readonly kubernetes: KubernetesConfig | undefined;
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
    /** Antrea's main zone for IPv4. */
    readonly zone: number;
    /** The one for IPv6. */
    readonly zone6: number;
  };
  /** How pod packets are carried to other nodes, where Antrea does not route them. */
  readonly transmitMode: TransmitChoice;
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
  readonly flowExport: {
    /** `host:port` of the loopback device, where antrea-agent is served. */
    readonly address: string;
    /** Directory of the certificates that the sidecar issues. */
    readonly certificates: string;
    /** Certificates from elsewhere; undefined: issued. */
    readonly files: TlsFiles | undefined;
    /** Most records kept. */
    readonly records: number;
  };
  readonly flowAccounting: {
    /** `host:port` that corrected flow records are exported to; undefined: nowhere. */
    readonly address: string | undefined;
    /** Name that its certificate must have; undefined: the host of the address. */
    readonly serverName: string | undefined;
    readonly files: TlsFiles | undefined;
    /** Seconds between two records of a flow. */
    readonly interval: number;
  };
  readonly metrics: {
    /** `host:port` to serve Prometheus metrics on; undefined: do not. */
    readonly address: string | undefined;
  };
  readonly log: {
    readonly level: LogLevel;
  };
}
