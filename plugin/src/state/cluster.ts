/**
 * The nodes of the cluster as XMasq needs them, wherever they come from (a static file, or Kubernetes).
 */

/** What a node declares once its data plane can receive masqueraded packets. */
export interface Capability {
  /** XMASQ_PROTOCOL_VERSION of that node. */
  readonly protocol: number;
  /** Changes whenever the node loses its data plane state (e.g. a reboot). */
  readonly incarnation: string;
}

export interface ClusterNode {
  readonly name: string;
  /** Transport addresses, canonical: one or two, at most one of each family, IPv4 first. */
  readonly addresses: readonly string[];
  /** Prefixes of both families, canonical (`10.10.1.0/24`, `fd00:1::/64`), sorted. No two nodes' prefixes overlap. */
  readonly podCIDRs: readonly string[];
  /** Absent: the node does not run XMasq, or not yet. */
  readonly capability?: Capability;
}

/** How Antrea carries pod traffic between nodes (its trafficEncapMode), as far as XMasq takes part. */
export type TrafficEncapMode = 'encap' | 'noEncap' | 'hybrid';

/** A consistent view of all nodes. */
export interface ClusterState {
  /** This node; also in `nodes`. */
  readonly own: ClusterNode;
  /** All nodes, sorted by name. */
  readonly nodes: readonly ClusterNode[];
  /** Absent: this source does not know. */
  readonly trafficEncapMode?: TrafficEncapMode;
}

/** What is different between two states. Nodes are the same if their name is. */
export interface ClusterDiff {
  readonly added: readonly ClusterNode[];
  readonly changed: readonly { readonly before: ClusterNode; readonly after: ClusterNode }[];
  readonly removed: readonly ClusterNode[];
}

/** Why the present source cannot be used; the last good state stays in force. */
export interface ClusterProblem {
  readonly what: string;
  readonly where: string;
  readonly action: string;
}

/** Receives cluster states. Calls come one at a time; the next one waits for the promise. */
export interface ClusterConsumer {
  /** The first call has every node in `diff.added`. */
  state(state: ClusterState, diff: ClusterDiff): Promise<void> | void;
  /** A problem appeared or changed (undefined: it is gone). */
  problem(problem: ClusterProblem | undefined): void;
}

/** Something that follows the cluster. */
export interface ClusterSource {
  /**
   * Reads the first state, hands it to the consumer and starts following it. Rejects if there is no valid first state, or
   * if the consumer's first `state` call rejects.
   */
  start(consumer: ClusterConsumer): Promise<void>;
  /** Stops following; resolves once no call to the consumer is under way. */
  stop(): Promise<void>;
}
