/**
 * Everything that decides about one flow, looked up by its key: a handful of lookups, however many flows there are. Nothing in
 * the data plane is switched on for it.
 */
import type {
  ConntrackInfo,
  ExclusionInfo,
  FlowEventInfo,
  FlowInfo,
  FlowTrace,
  NodeState,
  PeerInfo,
  TracedFlow,
  TraceInfo,
} from '../grpc/backend.ts';
import { IpProtocol, type CtEntry } from '../netlink/ctnetlink.ts';
import type { AntreaConntrack } from './approvals.ts';
import type { Events } from './events.ts';
import { flowKeyText, tupleOf } from './flow-key.ts';
import { describeFlow, describeRefusal, type FlowNames } from './flows.ts';
import { eventTypeNames, FlowFlag, Reason, type Event, type Flow, type FlowKey } from './layout.ts';
import { MS, type Clock } from './ports.ts';
import { admission } from './predicate.ts';
import type { Tables } from './tables.ts';
import { entryText } from './verdict.ts';

/** Events kept between two looks; more are counted. */
const MAX_EVENTS = 64;

/** What a trace looks at. */
export interface TraceOptions extends AntreaConntrack {
  readonly tables: Pick<Tables, 'flows' | 'slots' | 'refusals'>;
  /** Whether the programs themselves ask conntrack about TCP and UDP; else everything needs approvals. */
  readonly lookup: () => boolean;
  readonly events: Pick<Events, 'listen'>;
  readonly names: () => FlowNames;
  readonly nodeState: () => NodeState;
  /** The node of the pod with this address, and the one path to it that is the flow's. Undefined: no peer's. */
  readonly peerOf: (address: string, protocol: number) => PeerInfo | undefined;
  /** What excludes the flow between these pods. @param destination address of the other pod */
  readonly exclusionsOf: (ifindex: number, destination: string) => readonly ExclusionInfo[];
  readonly now: Clock;
}

/** @param ifindex of the pod that has the flow's source address */
export function flowKeyOf({ icmp, ...flow }: TracedFlow, ifindex: number): FlowKey {
  return {
    saddr: flow.sourceIp,
    daddr: flow.destinationIp,
    sport: icmp?.id ?? flow.sourcePort,
    dport: icmp?.type ?? flow.destinationPort,
    ifindex,
    proto: flow.protocol,
  };
}

/** Follows one flow until closed. */
export class Trace implements FlowTrace {
  readonly #o: TraceOptions;
  readonly #key: FlowKey;
  readonly #began: bigint;
  readonly #unlisten: () => void;
  #events: FlowEventInfo[] = [];
  #eventsLost = 0;

  constructor(options: TraceOptions, key: FlowKey) {
    this.#o = options;
    this.#key = key;
    this.#began = options.now();
    const text = flowKeyText(key);
    this.#unlisten = options.events.listen((event) => {
      if (flowKeyText(event.flow) === text) this.#heard(event);
    });
  }

  close(): void {
    this.#unlisten();
  }

  look(): TraceInfo {
    const { tables, names, nodeState, peerOf, exclusionsOf, now } = this.#o;
    const key = this.#key;
    const time = now();
    const flow = tables.flows.get(key);
    const entry = this.#entry();
    const destination = flow?.out.daddr ?? (entry.found === undefined ? key.daddr : translated(key, entry.found));
    const [events, eventsLost] = [this.#events, this.#eventsLost];
    this.#events = [];
    this.#eventsLost = 0;
    const local = flow !== undefined && (flow.flags & FlowFlag.LOCAL) !== 0;
    const peer = local ? undefined : peerOf(destination, key.proto);
    const described = this.#describe(flow, names(), time);
    const conntrack = this.#verdict(entry);
    return {
      timeMs: this.#since(time),
      nodeState: nodeState(),
      ...(described === undefined ? {} : { flow: described }),
      ...(conntrack === undefined ? {} : { conntrack }),
      ...(peer === undefined ? {} : { peer }),
      exclusions: exclusionsOf(key.ifindex, destination),
      events,
      eventsLost,
    };
  }

  #since(time: bigint): number {
    return Math.max(0, Number((time - this.#began) / MS));
  }

  #heard({ type, reason, time }: Event): void {
    if (this.#events.length >= MAX_EVENTS) this.#eventsLost++;
    else this.#events.push({ name: eventTypeNames[type] ?? `event-${type}`, reason, timeMs: this.#since(time) });
  }

  #describe(flow: Flow | undefined, names: FlowNames, time: bigint): FlowInfo | undefined {
    const { tables } = this.#o;
    if (flow !== undefined) return describeFlow(tables, this.#key, flow, names, time);
    const refusal = tables.refusals.get(this.#key);
    return refusal && describeRefusal(this.#key, refusal, names);
  }

  /** `asked` is false where conntrack could not be asked, e.g. for protocols that it does not track. */
  #entry(): { readonly asked: boolean; readonly found: CtEntry | undefined } {
    const { conntrack, zones } = this.#o;
    const tuple = tupleOf(this.#key);
    try {
      return { asked: true, found: conntrack.get(tuple, zones[tuple.family]) };
    } catch {
      return { asked: false, found: undefined };
    }
  }

  #verdict({
    asked,
    found,
  }: {
    readonly asked: boolean;
    readonly found: CtEntry | undefined;
  }): ConntrackInfo | undefined {
    if (!asked) return undefined;
    const { saddr, daddr, proto } = this.#key;
    const { isRouted, lookup } = this.#o;
    if (found === undefined) return { reason: Reason.CT_MISSING, detail: '' };
    const byLookup = (proto === IpProtocol.tcp || proto === IpProtocol.udp) && lookup();
    const routed = found.origin.dst === saddr && isRouted(daddr);
    return { reason: admission(found, { routed, services: byLookup }), detail: entryText(found) };
  }
}

/** The other pod's address, whatever the sender takes it for: what a direction's packets become is the reverse of the other's tuple. */
function translated({ saddr }: FlowKey, { origin, reply }: CtEntry): string {
  return origin.src === saddr ? reply.src : origin.src;
}
