/** Names of the sidecar's flows from the agent's records. */
import { isIcmp } from '../dataplane/flow-key.ts';
import type { RecordNames, RecordTuple } from './record.ts';
import type { RecordStore } from './store.ts';

/** A flow as a pod sends it; a key of the map `flows` will do. */
export interface NamedFlow {
  readonly saddr: string;
  readonly daddr: string;
  readonly sport: number;
  readonly dport: number;
  readonly proto: number;
}

/** Names from the point of view of the flow: its source is the pod that sends it, whoever began the connection. */
export interface FlowNaming extends RecordNames {
  /** The flow's source answers: the destination began the connection, and the policies are from its point of view. */
  readonly reply: boolean;
}

function turned(names: RecordNames): RecordNames {
  const { sourcePod, destinationPod, sourceNode, destinationNode, ...rest } = names;
  return {
    ...rest,
    ...(destinationPod && { sourcePod: destinationPod }),
    ...(sourcePod && { destinationPod: sourcePod }),
    ...(destinationNode !== undefined && { sourceNode: destinationNode }),
    ...(sourceNode !== undefined && { destinationNode: sourceNode }),
  };
}

function tupleOfFlow({ saddr, daddr, sport, dport, proto }: NamedFlow): RecordTuple {
  // Records of ICMP have neither type nor identifier.
  const icmp = isIcmp(proto);
  return {
    protocol: proto,
    source: saddr,
    destination: daddr,
    sourcePort: icmp ? 0 : sport,
    destinationPort: icmp ? 0 : dport,
  };
}

/** Looks flows up in the records. */
export class FlowNames {
  readonly #store: Pick<RecordStore, 'namesOf'>;

  constructor(store: Pick<RecordStore, 'namesOf'>) {
    this.#store = store;
  }

  /** What records say of the flow or of the flow that it answers; undefined: nothing (yet: 5 to 10 s by default). */
  lookup(flow: NamedFlow): FlowNaming | undefined {
    const tuple = tupleOfFlow(flow);
    const names = this.#store.namesOf(tuple);
    if (names !== undefined) return { ...names, reply: false };
    const answered = this.#store.namesOf({
      protocol: tuple.protocol,
      source: tuple.destination,
      destination: tuple.source,
      sourcePort: tuple.destinationPort,
      destinationPort: tuple.sourcePort,
    });
    return answered === undefined ? undefined : { ...turned(answered), reply: true };
  }
}
