/**
 * What the gRPC services need from the rest of the sidecar, in plain types: nothing here knows of protobuf, and nothing
 * behind these interfaces needs to.
 *
 * Counters and byte counts are bigint because the data plane counts in 64 bits. Durations are milliseconds. Addresses are
 * text (`10.1.2.3`), ports and protocol numbers are in host byte order.
 */

/**
 * What a node-level exclusion is about: everything, traffic with other nodes only, or traffic between pods of this node
 * only.
 */
export type NodeScope = 'node' | 'inter-node' | 'same-node';

/** Value of the C enum `xmasq_reason` (bpf-src/xmasq.h), and of the protobuf enum `Reason` made from it. 0: none. */
export type ReasonCode = number;

export type NodeState = 'starting' | 'ready' | 'degraded' | 'draining' | 'drained';
export type AdmissionMode = 'conntrack' | 'approvals';
export type AttachMode = 'tcx' | 'clsact';
export type FlowPath = 'fast' | 'slow';
/** How packets go to the other pod; `local`: within the node. */
export type TransmitMode = 'slow' | 'local' | 'masquerade' | 'encap' | 'direct';
/** What a firewall may judge by rules of its own; `other`: ICMP, SCTP, ... */
export type PathClassName = 'tcp' | 'udp' | 'other';

/** Which build is running. */
export interface VersionInfo {
  readonly version: string;
  /** Source revision; empty if unknown. */
  readonly commit: string;
  /** XMASQ_PROTOCOL_VERSION. */
  readonly protocolVersion: number;
  /** XMASQ_LAYOUT_VERSION. */
  readonly layoutVersion: number;
}

/** Something that does not work as it should. All three are sentences or names for people. */
export interface Degradation {
  readonly what: string;
  readonly where: string;
  readonly action: string;
}

export interface CounterValue {
  /** Name of the C enumerator in lower case without its prefix, e.g. `fast_tx`. */
  readonly name: string;
  readonly value: bigint;
}

export interface ReasonValue {
  readonly reason: ReasonCode;
  readonly packets: bigint;
}

export interface MapFill {
  readonly name: string;
  readonly entries: number;
  readonly capacity: number;
}

/** Why something is not accelerated though conntrack would allow it. */
export interface ExclusionInfo {
  readonly reason: ReasonCode;
  /** The setting or object that is the cause, for people. */
  readonly detail: string;
  /** Absent: of a pod. */
  readonly scope?: NodeScope;
}

/** Something outside that the sidecar follows. */
export interface SourceInfo {
  readonly name: string;
  /** There is a connection now. */
  readonly connected: boolean;
  /** It has told its state once; that stays in force without a connection. */
  readonly synced: boolean;
  /** The node is not ready before that. */
  readonly required: boolean;
  /** For people. */
  readonly detail: string;
}

/** A device with a transport address of the node. */
export interface UplinkInfo {
  readonly device: string;
  readonly ifindex: number;
  readonly address: string;
  readonly mtu: number;
}

/** State of the node. `podEvents` of the protobuf message is added by the gRPC layer, which owns it. */
export interface StatusInfo {
  readonly version: string;
  readonly nodeName: string;
  readonly protocolVersion: number;
  readonly state: NodeState;
  /** Absent until it is known. */
  readonly admission?: AdmissionMode;
  /** Absent until it is known. */
  readonly attach?: AttachMode;
  readonly kernelRelease: string;
  /** Of each family that has one, IPv4 first; empty while none is attached. */
  readonly uplinks: readonly UplinkInfo[];
  readonly degradations: readonly Degradation[];
  /** What holds for the whole node, or for traffic between nodes. */
  readonly exclusions: readonly ExclusionInfo[];
  /** What the sidecar follows, besides pod events. */
  readonly sources: readonly SourceInfo[];
  readonly counters: readonly CounterValue[];
  readonly reasons: readonly ReasonValue[];
  readonly maps: readonly MapFill[];
  readonly endpoints: number;
  readonly peers: number;
  readonly peersAlive: number;
  readonly flows: number;
  readonly uptimeMs: number;
}

/** A way to a peer. */
export interface PathInfo {
  /** Of the pods' packets. */
  readonly family: 4 | 6;
  readonly pathClass: PathClassName;
  /** As a packet of an admitted flow goes now. */
  readonly mode: TransmitMode;
  /** Why it is not masqueraded; 0: it is, or Antrea routes to the peer. */
  readonly reason: ReasonCode;
  /** Since masqueraded packets last proved to arrive; absent: they never did. */
  readonly provenMs?: number;
  /** Since the last change between masquerade and other modes; absent: there was none. */
  readonly changedMs?: number;
  /** Such changes so far. */
  readonly changes: number;
  /** Sent. */
  readonly probes: bigint;
  /** Of the peer, to probes. */
  readonly answers: bigint;
}

export interface PeerInfo {
  readonly nodeName: string;
  /** Transport addresses, IPv4 first. */
  readonly addresses: readonly string[];
  readonly podCIDRs: readonly string[];
  readonly capable: boolean;
  /** What it declares; absent: nothing. */
  readonly capability?: { readonly protocol: number; readonly incarnation: string };
  /** A sign of life within XMASQ_SEND_LIFE_NS. */
  readonly alive: boolean;
  /** Absent: no sign of life yet. */
  readonly lastLifeMs?: number;
  readonly flows: number;
  /** For each family of the peer's pods one of each class. */
  readonly paths: readonly PathInfo[];
  readonly id: number;
  readonly epoch: number;
}

export interface EndpointInfo {
  readonly namespace: string;
  readonly pod: string;
  readonly containerId: string;
  readonly ifName: string;
  /** 0: the interface does not exist. */
  readonly ifindex: number;
  readonly ips: readonly string[];
  readonly mac: string;
  readonly attached: boolean;
  /** Why it is never accelerated; absent: it is. */
  readonly exclusion?: ExclusionInfo;
  /** Why it is not attached; empty: no problem. */
  readonly problem: string;
  readonly flows: number;
  readonly id: number;
  readonly epoch: number;
}

export interface PodName {
  readonly namespace: string;
  readonly name: string;
}

/** A flow as the local pod sends it: admitted (map `flows`) or refused (map `refusals`). */
export interface FlowInfo {
  readonly sourceIp: string;
  readonly destinationIp: string;
  /** 0 for protocols without ports and for ICMP. */
  readonly sourcePort: number;
  readonly destinationPort: number;
  readonly protocol: number;
  /** Flows to a Service: the endpoint that AntreaProxy chose. */
  readonly endpoint?: { readonly ip: string; readonly port: number };
  /** ICMP and ICMPv6 echo only. */
  readonly icmp?: { readonly id: number; readonly type: number };
  /** Absent: the pod is gone already. */
  readonly sourcePod?: PodName;
  /** Absent: not known to this node. */
  readonly destinationPod?: PodName;
  /** From flow records, in words; each absent where they do not say. */
  readonly service?: string;
  readonly ingressPolicy?: string;
  readonly egressPolicy?: string;
  /** Node name of the peer, or of this node if sameNode; empty if unknown. */
  readonly peer: string;
  readonly sameNode: boolean;
  readonly path: FlowPath;
  /** How its packets go. */
  readonly mode: TransmitMode;
  /** Why it is slow, or fast but not masqueraded; 0: neither. */
  readonly reason: ReasonCode;
  readonly admitted: boolean;
  readonly approved: boolean;
  /** Admitted, but held on the slow path for `reason`. */
  readonly blocked: boolean;
  readonly keys: { readonly announced: boolean; readonly received: boolean; readonly peerComplete: boolean };
  /** On the fast path, in any mode. */
  readonly txPackets: bigint;
  readonly txBytes: bigint;
  readonly rxPackets: bigint;
  readonly rxBytes: bigint;
  readonly slowPackets: bigint;
  readonly ageMs?: number;
  readonly idleMs?: number;
  readonly lastRxMs?: number;
}

/** A flow as the local pod sends it; it need not be there. */
export type TracedFlow = Pick<
  FlowInfo,
  'sourceIp' | 'destinationIp' | 'sourcePort' | 'destinationPort' | 'protocol' | 'icmp'
>;

/** What conntrack holds of a connection, and what follows from it. */
export interface ConntrackInfo {
  /** Why the flow would not be admitted; 0: it would. */
  readonly reason: ReasonCode;
  /** State, status and mark, for people; empty: there is no entry. */
  readonly detail: string;
}

/** Something that the programs told of a flow. */
export interface FlowEventInfo {
  /** Name of the C enumerator in lower case without its prefix, e.g. `demoted`. */
  readonly name: string;
  readonly reason: ReasonCode;
  /** Since the trace began. */
  readonly timeMs: number;
}

/** What is known of a flow at one moment. */
export interface TraceInfo {
  /** Since the trace began. */
  readonly timeMs: number;
  readonly nodeState: NodeState;
  /** Absent: neither admitted, nor refused of late. */
  readonly flow?: FlowInfo;
  /** Absent: it could not be asked. */
  readonly conntrack?: ConntrackInfo;
  /** The other pod's node, with the one path that is the flow's; absent: not known, or this node. */
  readonly peer?: PeerInfo;
  readonly exclusions: readonly ExclusionInfo[];
  /** Since the look before, oldest first. */
  readonly events: readonly FlowEventInfo[];
  /** More of them, for which there was no room. */
  readonly eventsLost: number;
}

/** One flow that is followed. */
export interface FlowTrace {
  /** Costs a few lookups. */
  look(): TraceInfo;
  /** Must be called. */
  close(): void;
}

/** Whose flows to forget. */
export type FlushTarget =
  | { readonly kind: 'all' }
  | { readonly kind: 'pod'; readonly pod: PodName }
  | { readonly kind: 'peer'; readonly peer: string };

export interface FlushResult {
  readonly flows: bigint;
  readonly slots: bigint;
}

export interface DrainResult {
  readonly state: NodeState;
  /** Until drained, as far as known; 0: drained or not draining. */
  readonly remainingMs: number;
}

/** Thrown by a backend when the named pod, peer, ... does not exist; becomes NOT_FOUND. */
export class NotFoundError extends Error {
  override readonly name = 'NotFoundError';
}

/** Thrown by a backend when the request makes no sense in the present state; becomes FAILED_PRECONDITION. */
export class PreconditionError extends Error {
  override readonly name = 'PreconditionError';
}

/** Behind the Admin service. Any other error than the two above becomes INTERNAL, with its message. */
export interface AdminBackend {
  version(): VersionInfo;
  status(): Promise<StatusInfo>;
  peers(): Promise<readonly PeerInfo[]>;
  endpoints(): Promise<readonly EndpointInfo[]>;
  /**
   * One pass over all flows, admitted and refused, in any order; filters are applied by the caller. Must be lazy (read the
   * maps in batches) and stop when the caller stops iterating.
   */
  flows(): AsyncIterable<FlowInfo>;
  /** Begins to follow one flow. Throws NotFoundError where no attached pod has the source address. */
  trace(flow: TracedFlow): FlowTrace;
  /** Throws NotFoundError for an unknown pod or peer. */
  flush(target: FlushTarget): Promise<FlushResult>;
  /**
   * Starts draining (no error if it has started already). With `wait` resolves when drained, or rejects with the signal's
   * reason when it is aborted: the drain then goes on.
   */
  drain(options: { readonly wait: boolean; readonly signal: AbortSignal }): Promise<DrainResult>;
  /** Takes a drain back; no error if there is none. */
  undrain(): Promise<DrainResult>;
}

/** A pod interface as told by PodEvents, validated and normalised: lower-case MAC, canonical addresses. */
export interface Pod {
  readonly namespace: string;
  readonly name: string;
  /** Identifies the pod. */
  readonly containerId: string;
  /** Host-side interface. */
  readonly ifName: string;
  /** 1 to 4, IPv4 or IPv6. */
  readonly ips: readonly string[];
  /** Of the pod's own interface, `aa:bb:cc:dd:ee:ff`. */
  readonly mac: string;
}

/**
 * Takes pod events over. Calls come one at a time, in order; the next one waits for the promise. A sink handles trouble
 * with a single pod (interface missing, attach failed) itself and shows it as a degradation; a rejection ends the stream
 * with INTERNAL, and the agent is expected to come back with a snapshot.
 */
export interface PodEventSink {
  /** All pods of the node: those not among them are gone. */
  snapshot(pods: readonly Pod[]): Promise<void>;
  added(pod: Pod): Promise<void>;
  /** Same containerId, other values. */
  changed(pod: Pod, previous: Pod): Promise<void>;
  removed(pod: Pod): Promise<void>;
}
