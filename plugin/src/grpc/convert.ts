/** From the plain types of backend.ts to protobuf messages. */
import { xmasq } from '../gen/xmasq.js';
import type {
  AdmissionMode,
  AttachMode,
  DrainResult,
  EndpointInfo,
  ExclusionInfo,
  FlowInfo,
  FlowPath,
  FlushResult,
  NodeScope,
  NodeState,
  PathClassName,
  PathInfo,
  PeerInfo,
  StatusInfo,
  TraceInfo,
  TransmitMode,
  VersionInfo,
} from './backend.ts';
import { toReason } from './reasons.ts';

const v1 = xmasq.v1;

const NODE_STATES: Readonly<Record<NodeState, xmasq.v1.NodeState>> = {
  starting: v1.NodeState.NODE_STATE_STARTING,
  ready: v1.NodeState.NODE_STATE_READY,
  degraded: v1.NodeState.NODE_STATE_DEGRADED,
  draining: v1.NodeState.NODE_STATE_DRAINING,
  drained: v1.NodeState.NODE_STATE_DRAINED,
};
const ADMISSION_MODES: Readonly<Record<AdmissionMode, xmasq.v1.AdmissionMode>> = {
  conntrack: v1.AdmissionMode.ADMISSION_MODE_CONNTRACK,
  approvals: v1.AdmissionMode.ADMISSION_MODE_APPROVALS,
};
const ATTACH_MODES: Readonly<Record<AttachMode, xmasq.v1.AttachMode>> = {
  tcx: v1.AttachMode.ATTACH_MODE_TCX,
  clsact: v1.AttachMode.ATTACH_MODE_CLSACT,
};
const FLOW_PATHS: Readonly<Record<FlowPath, xmasq.v1.FlowPath>> = {
  fast: v1.FlowPath.FLOW_PATH_FAST,
  slow: v1.FlowPath.FLOW_PATH_SLOW,
};

/** Also for what clients ask for. */
export const TRANSMIT_MODES: Readonly<Record<TransmitMode, xmasq.v1.TransmitMode>> = {
  slow: v1.TransmitMode.TRANSMIT_MODE_SLOW,
  local: v1.TransmitMode.TRANSMIT_MODE_LOCAL,
  masquerade: v1.TransmitMode.TRANSMIT_MODE_MASQUERADE,
  encap: v1.TransmitMode.TRANSMIT_MODE_ENCAP,
  direct: v1.TransmitMode.TRANSMIT_MODE_DIRECT,
};
/** Also for tables. */
export const PATH_CLASSES: Readonly<Record<PathClassName, xmasq.v1.PathClass>> = {
  tcp: v1.PathClass.PATH_CLASS_TCP,
  udp: v1.PathClass.PATH_CLASS_UDP,
  other: v1.PathClass.PATH_CLASS_OTHER,
};

const SCOPES: Readonly<Record<NodeScope, xmasq.v1.ExclusionScope>> = {
  node: v1.ExclusionScope.EXCLUSION_SCOPE_NODE,
  'inter-node': v1.ExclusionScope.EXCLUSION_SCOPE_INTER_NODE,
  'same-node': v1.ExclusionScope.EXCLUSION_SCOPE_SAME_NODE,
};

/** What PodEvents adds to the status. */
export interface PodEventsInfo {
  readonly connected: boolean;
  readonly synced: boolean;
  readonly events: number;
  readonly ignored: number;
  readonly rejected: number;
}

/**
 * A count for a uint64 field, which the generated code holds in a double: exact up to 2^53 - 1 (nine petabytes), and
 * standing still there instead of becoming wrong.
 */
export function toUint64(value: bigint): number {
  return value > BigInt(Number.MAX_SAFE_INTEGER) ? Number.MAX_SAFE_INTEGER : Number(value);
}

/** A duration for a field of whole milliseconds, never negative. */
function toMs(value: number): number {
  return Math.max(0, Math.round(value));
}

export function versionResponse(info: VersionInfo): xmasq.v1.VersionResponse {
  return new v1.VersionResponse(info);
}

export function statusResponse(info: StatusInfo, podEvents: PodEventsInfo): xmasq.v1.StatusResponse {
  return new v1.StatusResponse({
    version: info.version,
    nodeName: info.nodeName,
    protocolVersion: info.protocolVersion,
    state: NODE_STATES[info.state],
    ...(info.admission !== undefined && { admissionMode: ADMISSION_MODES[info.admission] }),
    ...(info.attach !== undefined && { attachMode: ATTACH_MODES[info.attach] }),
    kernelRelease: info.kernelRelease,
    uplinks: info.uplinks.map(({ device, ifindex, address, mtu }) => ({ device, ifindex, address, mtu })),
    degradations: [...info.degradations],
    counters: info.counters.map(({ name, value }) => ({ name, value: toUint64(value) })),
    reasons: info.reasons.map(({ reason, packets }) => ({
      reason: toReason(reason),
      packets: toUint64(packets),
    })),
    maps: [...info.maps],
    endpoints: info.endpoints,
    peers: info.peers,
    peersAlive: info.peersAlive,
    flows: info.flows,
    uptimeMs: toMs(info.uptimeMs),
    podEvents,
    exclusions: info.exclusions.map(exclusionMessage),
    sources: [...info.sources],
  });
}

export function peersResponse(peers: readonly PeerInfo[]): xmasq.v1.PeersResponse {
  return new v1.PeersResponse({ peers: peers.map(peerMessage) });
}

function peerMessage(peer: PeerInfo): xmasq.v1.Peer.$Properties {
  return {
    nodeName: peer.nodeName,
    addresses: [...peer.addresses],
    podCidrs: [...peer.podCIDRs],
    capable: peer.capable,
    protocolVersion: peer.capability?.protocol ?? 0,
    incarnation: peer.capability?.incarnation ?? '',
    alive: peer.alive,
    ...(peer.lastLifeMs !== undefined && { lastLifeMs: toMs(peer.lastLifeMs) }),
    flows: peer.flows,
    paths: peer.paths.map(pathMessage),
    id: peer.id,
    epoch: peer.epoch,
  };
}

function pathMessage({ family, pathClass, mode, reason, ...path }: PathInfo): xmasq.v1.Path.$Properties {
  return {
    family,
    pathClass: PATH_CLASSES[pathClass],
    mode: TRANSMIT_MODES[mode],
    reason: toReason(reason),
    ...(path.provenMs !== undefined && { provenMs: toMs(path.provenMs) }),
    ...(path.changedMs !== undefined && { changedMs: toMs(path.changedMs) }),
    changes: path.changes,
    probes: toUint64(path.probes),
    answers: toUint64(path.answers),
  };
}

export function endpointsResponse(endpoints: readonly EndpointInfo[]): xmasq.v1.EndpointsResponse {
  return new v1.EndpointsResponse({
    endpoints: endpoints.map(({ exclusion, ips, ...rest }) => ({
      ...rest,
      ips: [...ips],
      ...(exclusion !== undefined && { exclusion: exclusionMessage(exclusion) }),
    })),
  });
}

function exclusionMessage({ reason, detail, scope }: ExclusionInfo): xmasq.v1.Exclusion.$Properties {
  return { reason: toReason(reason), detail, ...(scope !== undefined && { scope: SCOPES[scope] }) };
}

export function flowMessage(flow: FlowInfo): xmasq.v1.Flow.$Properties {
  return {
    sourceIp: flow.sourceIp,
    destinationIp: flow.destinationIp,
    sourcePort: flow.sourcePort,
    destinationPort: flow.destinationPort,
    protocol: flow.protocol,
    ...(flow.endpoint !== undefined && { endpointIp: flow.endpoint.ip, endpointPort: flow.endpoint.port }),
    ...(flow.icmp !== undefined && { icmpId: flow.icmp.id, icmpType: flow.icmp.type }),
    ...(flow.sourcePod !== undefined && { sourcePod: flow.sourcePod }),
    ...(flow.destinationPod !== undefined && { destinationPod: flow.destinationPod }),
    service: flow.service ?? '',
    ingressPolicy: flow.ingressPolicy ?? '',
    egressPolicy: flow.egressPolicy ?? '',
    peer: flow.peer,
    sameNode: flow.sameNode,
    path: FLOW_PATHS[flow.path],
    mode: TRANSMIT_MODES[flow.mode],
    reason: toReason(flow.reason),
    admitted: flow.admitted,
    approved: flow.approved,
    blocked: flow.blocked,
    keys: flow.keys,
    txPackets: toUint64(flow.txPackets),
    txBytes: toUint64(flow.txBytes),
    rxPackets: toUint64(flow.rxPackets),
    rxBytes: toUint64(flow.rxBytes),
    slowPackets: toUint64(flow.slowPackets),
    ...(flow.ageMs !== undefined && { ageMs: toMs(flow.ageMs) }),
    ...(flow.idleMs !== undefined && { idleMs: toMs(flow.idleMs) }),
    ...(flow.lastRxMs !== undefined && { lastRxMs: toMs(flow.lastRxMs) }),
  };
}

export function traceResponse(info: TraceInfo): xmasq.v1.TraceResponse {
  const { conntrack } = info;
  return new v1.TraceResponse({
    timeMs: toMs(info.timeMs),
    nodeState: NODE_STATES[info.nodeState],
    ...(info.flow !== undefined && { flow: flowMessage(info.flow) }),
    ...(conntrack !== undefined && {
      conntrack: { reason: toReason(conntrack.reason), detail: conntrack.detail },
    }),
    ...(info.peer !== undefined && { peer: peerMessage(info.peer) }),
    exclusions: info.exclusions.map(exclusionMessage),
    events: info.events.map(({ name, reason, timeMs }) => ({ name, reason: toReason(reason), timeMs: toMs(timeMs) })),
    eventsLost: info.eventsLost,
  });
}

export function flushResponse(result: FlushResult): xmasq.v1.FlushResponse {
  return new v1.FlushResponse({ flows: toUint64(result.flows), slots: toUint64(result.slots) });
}

export function drainResponse(result: DrainResult): xmasq.v1.DrainResponse {
  return new v1.DrainResponse({ state: NODE_STATES[result.state], remainingMs: toMs(result.remainingMs) });
}
