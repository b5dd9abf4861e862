/** A client of the Admin service that gives plain values: enums by name, counters as numbers. */
import { credentials, Client } from '@grpc/grpc-js';
import type { ServiceError } from '@grpc/grpc-js';
import { Counter, Reason, reasonNames } from '../../plugin/src/gen/layouts.ts';
import { xmasq } from '../../plugin/src/gen/xmasq.js';
import { AdminDefinition } from '../../plugin/src/grpc/services.ts';
import { LabError } from './errors.ts';
import { TIME_FACTOR } from './lab.ts';

const v1 = xmasq.v1;

/** A decision of the programs, as `xmasq status` names it, e.g. `fast_tx`. */
export type CounterName = Lowercase<keyof typeof Counter>;
/** Why a packet or flow is slow, e.g. `ct_missing`; `none`: it is not. */
export type ReasonName = Lowercase<keyof typeof Reason>;

/** Every counter; 0 where nothing was counted. */
export type Counters = Readonly<Record<CounterName, number>>;
/** Packets left to the slow path, by every reason. */
export type Reasons = Readonly<Record<ReasonName, number>>;

export type SidecarState = 'starting' | 'ready' | 'degraded' | 'draining' | 'drained' | 'unspecified';

/** What `xmasq status` says. */
export interface SidecarStatus {
  readonly state: SidecarState;
  readonly nodeName: string;
  readonly admissionMode: 'conntrack' | 'approvals' | 'unspecified';
  readonly attachMode: 'tcx' | 'clsact' | 'unspecified';
  readonly degradations: readonly { readonly what: string; readonly where: string; readonly action: string }[];
  readonly counters: Counters;
  readonly reasons: Reasons;
  /** Filled entries by name of the map. */
  readonly maps: Readonly<Record<string, number>>;
  readonly endpoints: number;
  readonly peers: number;
  readonly peersAlive: number;
  readonly flows: number;
  readonly uptimeMs: number;
  readonly podEvents: {
    readonly connected: boolean;
    readonly synced: boolean;
    readonly events: number;
    readonly ignored: number;
    readonly rejected: number;
  };
}

/** What `xmasq flows` says of a flow. */
export interface SidecarFlow {
  readonly sourceIp: string;
  readonly destinationIp: string;
  readonly sourcePort: number;
  readonly destinationPort: number;
  /** IP protocol number. */
  readonly protocol: number;
  readonly icmpId: number | undefined;
  readonly icmpType: number | undefined;
  readonly sourcePod: string | undefined;
  readonly destinationPod: string | undefined;
  readonly peer: string;
  readonly sameNode: boolean;
  readonly path: 'fast' | 'slow';
  /** How its packets go now. */
  readonly mode: 'slow' | 'local' | 'masquerade' | 'encap' | 'direct' | 'unspecified';
  readonly reason: ReasonName;
  readonly admitted: boolean;
  readonly approved: boolean;
  readonly blocked: boolean;
  readonly keys: { readonly announced: boolean; readonly received: boolean; readonly peerComplete: boolean };
  readonly txPackets: number;
  readonly txBytes: number;
  readonly rxPackets: number;
  readonly rxBytes: number;
  readonly slowPackets: number;
  readonly ageMs: number | undefined;
  readonly idleMs: number | undefined;
}

/** What `xmasq endpoints` says of a pod. */
export interface SidecarEndpoint {
  readonly pod: string;
  readonly namespace: string;
  readonly containerId: string;
  readonly ifName: string;
  readonly ips: readonly string[];
  readonly attached: boolean;
  /** Name of the reason why it is never accelerated; undefined: it is. */
  readonly exclusion: ReasonName | undefined;
  readonly problem: string;
  readonly flows: number;
  readonly id: number;
  readonly epoch: number;
}

/** What `xmasq peers` says of a node. */
export interface SidecarPeer {
  readonly nodeName: string;
  readonly address: string;
  readonly capable: boolean;
  readonly alive: boolean;
  readonly incarnation: string;
  readonly flows: number;
  readonly id: number;
  readonly epoch: number;
  readonly paths: readonly SidecarPath[];
}

/** How packets to a peer go: of one family and class. */
export interface SidecarPath {
  readonly family: number;
  readonly pathClass: 'tcp' | 'udp' | 'other' | 'unspecified';
  readonly mode: SidecarFlow['mode'];
  /** Why it is not masqueraded. */
  readonly reason: ReasonName;
  readonly changes: number;
  readonly probes: number;
  readonly answers: number;
}

/** Conditions on a flow, all of which must hold. */
export interface FlowFilter {
  readonly proto?: 'tcp' | 'udp' | 'icmp' | 'sctp' | number;
  /** Port of either end. */
  readonly port?: number;
  readonly sourcePort?: number;
  readonly destinationPort?: number;
  readonly sourceIp?: string;
  readonly destinationIp?: string;
  /** Address of either end. */
  readonly ip?: string;
}

/** IP protocol numbers. */
const PROTOCOLS = { icmp: 1, tcp: 6, udp: 17, sctp: 132 } as const;
/** A sidecar answers in milliseconds; on a loaded machine in a second. */
const DEADLINE_MS = 5000 * TIME_FACTOR;
/** A drain ends by itself after 32 s. */
const DRAIN_DEADLINE_MS = 60_000 * TIME_FACTOR;

type UnaryName = Exclude<keyof typeof AdminDefinition, 'flows' | 'trace'>;
type RequestOf<K extends UnaryName> = Parameters<(typeof AdminDefinition)[K]['requestSerialize']>[0];
type ResponseOf<K extends UnaryName> = ReturnType<(typeof AdminDefinition)[K]['responseDeserialize']>;

/** A connection to a sidecar's socket. Each call throws a LabError that names call and status. */
export class AdminClient {
  /** The connection itself, for other services on the same socket. */
  readonly client: Client;
  readonly #where: string;

  /** @param where names the node in errors */
  constructor(socket: string, where: string) {
    this.#where = where;
    this.client = new Client(`unix://${socket}`, credentials.createInsecure(), {
      // A restarted sidecar is to be found at once, not after the usual back-off of seconds.
      'grpc.initial_reconnect_backoff_ms': 50,
      'grpc.max_reconnect_backoff_ms': 200,
      'grpc.use_local_subchannel_pool': 1,
    });
  }

  close(): void {
    this.client.close();
  }

  async status(): Promise<SidecarStatus> {
    return statusOf(await this.call('status', new v1.StatusRequest()));
  }

  async endpoints(): Promise<SidecarEndpoint[]> {
    const { endpoints } = await this.call('endpoints', new v1.EndpointsRequest());
    return endpoints.map(endpointOf);
  }

  async peers(): Promise<SidecarPeer[]> {
    const { peers } = await this.call('peers', new v1.PeersRequest());
    return peers.map((peer) => ({
      nodeName: peer.nodeName ?? '',
      address: peer.addresses?.[0] ?? '',
      capable: peer.capable ?? false,
      alive: peer.alive ?? false,
      incarnation: peer.incarnation ?? '',
      flows: peer.flows ?? 0,
      id: peer.id ?? 0,
      epoch: peer.epoch ?? 0,
      paths: (peer.paths ?? []).map((path) => ({
        family: path.family ?? 0,
        pathClass: enumName(v1.PathClass[path.pathClass ?? 0], 'PATH_CLASS_') as SidecarPath['pathClass'],
        mode: modeName(path.mode),
        reason: nameOf(path.reason),
        changes: path.changes ?? 0,
        probes: path.probes ?? 0,
        answers: path.answers ?? 0,
      })),
    }));
  }

  /** One pass over the flow table. */
  async flows(filter: FlowFilter = {}): Promise<SidecarFlow[]> {
    const protocol = typeof filter.proto === 'string' ? PROTOCOLS[filter.proto] : filter.proto;
    const request = new v1.FlowsRequest({
      ...(protocol !== undefined && { protocol }),
      ...(filter.port !== undefined && { port: filter.port }),
      ...(filter.ip !== undefined && { ip: filter.ip }),
    });
    const { path, requestSerialize, responseDeserialize } = AdminDefinition.flows;
    const stream: AsyncIterable<xmasq.v1.FlowsResponse> = this.client.makeServerStreamRequest(
      path,
      requestSerialize,
      responseDeserialize,
      request,
      { deadline: Date.now() + DEADLINE_MS },
    );
    const flows: SidecarFlow[] = [];
    try {
      for await (const message of stream) flows.push(...message.flows.map(flowOf));
    } catch (error) {
      throw this.#error('flows', error as ServiceError);
    }
    return flows.filter((flow) => isWanted(flow, filter));
  }

  /** Forgets every flow. */
  async flush(): Promise<{ readonly flows: number; readonly slots: number }> {
    const { flows, slots } = await this.call('flush', new v1.FlushRequest({ all: true }));
    return { flows, slots };
  }

  /** Stops accelerating; by default waits until the node is drained (about 35 s). */
  async drain(wait = true): Promise<SidecarState> {
    const { state } = await this.call('drain', new v1.DrainRequest({ wait }), DRAIN_DEADLINE_MS);
    return stateName(state);
  }

  async undrain(): Promise<SidecarState> {
    const { state } = await this.call('undrain', new v1.UndrainRequest());
    return stateName(state);
  }

  /** Any call, with the message itself. */
  call<K extends UnaryName>(name: K, request: RequestOf<K>, deadlineMs = DEADLINE_MS): Promise<ResponseOf<K>> {
    const { path, requestSerialize, responseDeserialize } = AdminDefinition[name];
    return new Promise((resolve, reject) => {
      this.client.makeUnaryRequest(
        path,
        requestSerialize as (value: RequestOf<K>) => Buffer,
        responseDeserialize as (bytes: Buffer) => ResponseOf<K>,
        request,
        { deadline: Date.now() + deadlineMs },
        (error: ServiceError | null, response?: ResponseOf<K>) => {
          if (response === undefined) reject(this.#error(name, error));
          else resolve(response);
        },
      );
    });
  }

  #error(call: string, error: ServiceError | null): LabError {
    return new LabError(`sidecar of ${this.#where}: ${call}: ${error?.message ?? 'no answer'}`);
  }
}

/** What `xmasq status -o json` printed. @throws Error it is no such message */
export function statusFromJson(json: Record<string, unknown>): SidecarStatus {
  return statusOf(v1.StatusResponse.fromObject(json));
}

/** What `xmasq endpoints -o json` printed. @throws Error it is no such message */
export function endpointsFromJson(json: Record<string, unknown>): SidecarEndpoint[] {
  return v1.EndpointsResponse.fromObject(json).endpoints.map(endpointOf);
}

/** What `xmasq flows -o json` printed, and of that what the filter wants. @throws Error it is no such message */
export function flowsFromJson(json: Record<string, unknown>, filter: FlowFilter = {}): SidecarFlow[] {
  const { flows } = v1.FlowsResponse.fromObject(json);
  return flows.map(flowOf).filter((flow) => isWanted(flow, filter));
}

/** Options by which `xmasq flows` asks for what the server can filter by itself; `flowsFromJson` does the rest. */
export function flowsArguments(filter: FlowFilter): string[] {
  return [
    ...(filter.proto === undefined ? [] : ['--protocol', String(filter.proto)]),
    ...(filter.port === undefined ? [] : ['--port', String(filter.port)]),
    ...(filter.ip === undefined ? [] : ['--ip', filter.ip]),
  ];
}

function endpointOf(endpoint: xmasq.v1.Endpoint.$Properties): SidecarEndpoint {
  return {
    pod: endpoint.pod ?? '',
    namespace: endpoint.namespace ?? '',
    containerId: endpoint.containerId ?? '',
    ifName: endpoint.ifName ?? '',
    ips: endpoint.ips ?? [],
    attached: endpoint.attached ?? false,
    exclusion: endpoint.exclusion ? nameOf(endpoint.exclusion.reason) : undefined,
    problem: endpoint.problem ?? '',
    flows: endpoint.flows ?? 0,
    id: endpoint.id ?? 0,
    epoch: endpoint.epoch ?? 0,
  };
}

function stateName(state: xmasq.v1.NodeState): SidecarState {
  return enumName(v1.NodeState[state], 'NODE_STATE_') as SidecarState;
}

/** Members of protobuf enums are named ENUM_NAME_VALUE. */
function enumName(name: string | undefined, prefix: string): string {
  return (name ?? `${prefix}UNSPECIFIED`).slice(prefix.length).toLowerCase();
}

function modeName(mode: xmasq.v1.TransmitMode | null | undefined): SidecarFlow['mode'] {
  return enumName(v1.TransmitMode[mode ?? 0], 'TRANSMIT_MODE_') as SidecarFlow['mode'];
}

function statusOf(response: xmasq.v1.StatusResponse): SidecarStatus {
  const { podEvents } = response;
  const counters = new Map(response.counters.map(({ name, value }) => [name ?? '', value ?? 0]));
  const reasons = new Map(response.reasons.map(({ reason, packets }) => [reason ?? 0, packets ?? 0]));
  return {
    state: stateName(response.state),
    nodeName: response.nodeName,
    admissionMode: enumName(
      v1.AdmissionMode[response.admissionMode],
      'ADMISSION_MODE_',
    ) as SidecarStatus['admissionMode'],
    attachMode: enumName(v1.AttachMode[response.attachMode], 'ATTACH_MODE_') as SidecarStatus['attachMode'],
    degradations: response.degradations.map(({ what, where, action }) => ({
      what: what ?? '',
      where: where ?? '',
      action: action ?? '',
    })),
    counters: Object.fromEntries(
      Object.keys(Counter).map((name) => [name.toLowerCase(), counters.get(name.toLowerCase()) ?? 0]),
    ) as Counters,
    reasons: Object.fromEntries(
      Object.entries(Reason).map(([name, value]) => [name.toLowerCase(), reasons.get(value) ?? 0]),
    ) as Reasons,
    maps: Object.fromEntries(response.maps.map(({ name, entries }) => [name ?? '', entries ?? 0])),
    endpoints: response.endpoints,
    peers: response.peers,
    peersAlive: response.peersAlive,
    flows: response.flows,
    uptimeMs: response.uptimeMs,
    podEvents: {
      connected: podEvents?.connected ?? false,
      synced: podEvents?.synced ?? false,
      events: podEvents?.events ?? 0,
      ignored: podEvents?.ignored ?? 0,
      rejected: podEvents?.rejected ?? 0,
    },
  };
}

function flowOf(flow: xmasq.v1.Flow.$Properties): SidecarFlow {
  return {
    sourceIp: flow.sourceIp ?? '',
    destinationIp: flow.destinationIp ?? '',
    sourcePort: flow.sourcePort ?? 0,
    destinationPort: flow.destinationPort ?? 0,
    protocol: flow.protocol ?? 0,
    icmpId: flow.icmpId ?? undefined,
    icmpType: flow.icmpType ?? undefined,
    sourcePod: flow.sourcePod?.name ?? undefined,
    destinationPod: flow.destinationPod?.name ?? undefined,
    peer: flow.peer ?? '',
    sameNode: flow.sameNode ?? false,
    path: flow.path === v1.FlowPath.FLOW_PATH_FAST ? 'fast' : 'slow',
    mode: modeName(flow.mode),
    reason: nameOf(flow.reason),
    admitted: flow.admitted ?? false,
    approved: flow.approved ?? false,
    blocked: flow.blocked ?? false,
    keys: {
      announced: flow.keys?.announced ?? false,
      received: flow.keys?.received ?? false,
      peerComplete: flow.keys?.peerComplete ?? false,
    },
    txPackets: flow.txPackets ?? 0,
    txBytes: flow.txBytes ?? 0,
    rxPackets: flow.rxPackets ?? 0,
    rxBytes: flow.rxBytes ?? 0,
    slowPackets: flow.slowPackets ?? 0,
    ageMs: flow.ageMs ?? undefined,
    idleMs: flow.idleMs ?? undefined,
  };
}

/** What the server's own filters cannot say. */
function isWanted(flow: SidecarFlow, filter: FlowFilter): boolean {
  return (
    (filter.sourcePort === undefined || flow.sourcePort === filter.sourcePort) &&
    (filter.destinationPort === undefined || flow.destinationPort === filter.destinationPort) &&
    (filter.sourceIp === undefined || flow.sourceIp === filter.sourceIp) &&
    (filter.destinationIp === undefined || flow.destinationIp === filter.destinationIp)
  );
}

function nameOf(reason: number | null | undefined): ReasonName {
  return (reasonNames[reason ?? 0] ?? 'none') as ReasonName;
}
