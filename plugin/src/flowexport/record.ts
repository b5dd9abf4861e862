/** A record of antrea-agent's FlowExporter as the sidecar uses it. Field meanings: proto/antrea/flow/v1alpha1. */

/** Canonical text, of either family. */
export type Address = string;

/** Values of `FlowEndReason` that an agent sends. */
export const EndReason = { UNSPECIFIED: 0, IDLE_TIMEOUT: 1, ACTIVE_TIMEOUT: 2, END_OF_FLOW: 3 } as const;

/** Names of `FlowType`; an agent in mode networkPolicyOnly knows the first two only. */
export const FLOW_TYPES = ['', 'intra-node', 'inter-node', 'to-external', 'from-external'] as const;
export type FlowType = (typeof FLOW_TYPES)[number];

/** Names of `NetworkPolicyType`. */
export const POLICY_TYPES = ['', 'K8s', 'ANP', 'ACNP'] as const;
export type PolicyType = (typeof POLICY_TYPES)[number];

/** One direction of a connection: kernel accounting since its beginning, and since the record before. */
export interface Stats {
  readonly packets: number;
  readonly packetsDelta: number;
  /** IP lengths. */
  readonly bytes: number;
  readonly bytesDelta: number;
}

export interface RecordPod {
  readonly namespace: string;
  readonly name: string;
}

/** The Service by which a pod of this node reached the destination. */
export interface RecordService {
  /** `namespace/service:port name`. */
  readonly name: string;
  /** Before DNAT; absent where the record has none. */
  readonly address?: Address;
  readonly port: number;
}

/** The rule that allowed the connection, as the agent knew it when it exported the record. */
export interface RecordPolicy {
  /** '': the record does not say. */
  readonly type: PolicyType;
  /** '' for cluster-scoped ones. */
  readonly namespace: string;
  readonly name: string;
  /** '': the rule has no name. */
  readonly rule: string;
}

/** What a record says of a connection in words; each only if it has it. An agent knows pods of its own node only. */
export interface RecordNames {
  /** '': the record does not say. */
  readonly flowType: FlowType;
  readonly sourcePod?: RecordPod;
  readonly destinationPod?: RecordPod;
  readonly sourceNode?: string;
  readonly destinationNode?: string;
  readonly service?: RecordService;
  readonly ingressPolicy?: RecordPolicy;
  readonly egressPolicy?: RecordPolicy;
}

/** A connection: source is who began it, destination the endpoint after DNAT. Ports are 0 for ICMP. */
export interface RecordTuple {
  readonly protocol: number;
  readonly source: Address;
  readonly destination: Address;
  readonly sourcePort: number;
  readonly destinationPort: number;
}

export interface FlowRecord extends RecordTuple {
  /** Microseconds since 1970; 0: the record has none. With the tuple, the connection's identity. */
  readonly startUs: number;
  /** When the agent looked, microseconds since 1970. */
  readonly endUs: number;
  readonly endReason: number;
  /** In the kernel's spelling, e.g. ESTABLISHED; '' for other protocols. */
  readonly tcpState: string;
  readonly forward: Stats;
  readonly reverse: Stats;
  readonly names: RecordNames;
}

/** A tuple as a text, to use it in a Map. */
export function tupleText({ protocol, source, destination, sourcePort, destinationPort }: RecordTuple): string {
  return `${protocol},${source},${sourcePort},${destination},${destinationPort}`;
}
