import type { FlowKey } from '../dataplane/layout.ts';
import { MS, type Clock } from '../dataplane/ports.ts';
import { IpProtocol } from '../netlink/ctnetlink.ts';
import type { FlowRecord, RecordTuple } from './record.ts';
import { beforeNat, isLive } from './store.ts';

export interface AllowedFlowsOptions {
  /** Device of a local pod by its address. */
  readonly deviceOf: (address: string) => number | undefined;
  /** Whether the flow has an approval already. */
  readonly isApproved: (key: FlowKey) => boolean;
  /** Asks conntrack about the flow and approves it if it may be. */
  readonly want: (key: FlowKey) => void;
  readonly now: Clock;
  /** Which protocols need approvals; default TCP, UDP and SCTP. ICMP cannot: its records have no identifier. */
  readonly protocols?: ReadonlySet<number>;
  /** Questions to conntrack per second, some 10 us each; default 200. */
  readonly rate?: number;
}

/** Sums since the start. */
export interface AllowedCounts {
  readonly wanted: number;
  /** Left out for the rate. */
  readonly skipped: number;
}

const PROTOCOLS: ReadonlySet<number> = new Set([IpProtocol.tcp, IpProtocol.udp, IpProtocol.sctp]);

function flowKey({
  protocol,
  source,
  destination,
  sourcePort,
  destinationPort,
}: RecordTuple): Omit<FlowKey, 'ifindex'> {
  return { saddr: source, daddr: destination, sport: sourcePort, dport: destinationPort, proto: protocol };
}

function reversed({ protocol, source, destination, sourcePort, destinationPort }: RecordTuple): RecordTuple {
  return {
    protocol,
    source: destination,
    destination: source,
    sourcePort: destinationPort,
    destinationPort: sourcePort,
  };
}

/**
 * Flows of this node that a live record names, as candidates for approvals: an agent exports only what its conntrack entry
 * says is allowed. It is a hint to look, no more; conntrack decides. No record ever stops a flow.
 */
export class AllowedFlows {
  readonly #o: AllowedFlowsOptions;
  readonly #protocols: ReadonlySet<number>;
  readonly #rate: number;
  readonly #counts = { wanted: 0, skipped: 0 };
  #left: number;
  #refilled: bigint;

  constructor(options: AllowedFlowsOptions) {
    this.#o = options;
    this.#protocols = options.protocols ?? PROTOCOLS;
    this.#rate = options.rate ?? 200;
    this.#left = this.#rate;
    this.#refilled = options.now();
  }

  get counts(): AllowedCounts {
    return { ...this.#counts };
  }

  /** Takes a record that is news. */
  take(record: FlowRecord): void {
    if (!this.#protocols.has(record.protocol) || !isLive(record)) return;
    // A pod sends to a Service, not to its endpoint.
    this.#propose(beforeNat(record) ?? record);
    this.#propose(reversed(record));
  }

  #propose(tuple: RecordTuple): void {
    const { deviceOf, isApproved, want } = this.#o;
    const ends = flowKey(tuple);
    const ifindex = deviceOf(ends.saddr);
    if (ifindex === undefined) return;
    const key = { ...ends, ifindex };
    if (isApproved(key)) return;
    if (!this.#mayAsk()) {
      this.#counts.skipped++;
      return;
    }
    this.#counts.wanted++;
    want(key);
  }

  #mayAsk(): boolean {
    const now = this.#o.now();
    const elapsed = Number((now - this.#refilled) / MS) / 1000;
    if (elapsed > 0) {
      this.#left = Math.min(this.#rate, this.#left + elapsed * this.#rate);
      this.#refilled = now;
    }
    if (this.#left < 1) return false;
    this.#left--;
    return true;
  }
}
