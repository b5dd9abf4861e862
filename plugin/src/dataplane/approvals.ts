/**
 * Admissions that the programs cannot find out by themselves: they ask by an event, the answer is an entry of `approvals`
 * with a short lease. Without the sidecar the leases end and the flows go slow.
 */
import { isFull } from '../bpf/errors.ts';
import { IpProtocol, type CtEntry, type CtTuple } from '../netlink/ctnetlink.ts';
import { isNetlinkError } from '../netlink/errors.ts';
import type { ConntrackTimeouts } from '../netlink/sysctl.ts';
import { errorMessage } from '../util/errors.ts';
import { inBatches } from './batches.ts';
import type { Degradations } from './degradations.ts';
import { flowKeyOfTuple, flowKeyText, isKeyed, lastUse, oppositeKeyOf, slotKeyOf, tupleOf } from './flow-key.ts';
import { FlowFlag, Reason, type Flow, type FlowKey } from './layout.ts';
import { MS, SECOND, type Clock, type Conntrack, type Log } from './ports.ts';
import { admission } from './predicate.ts';
import { endFlow } from './slots.ts';
import type { Tables } from './tables.ts';

/** Flows that wait for an approval; more are not remembered, and ask again with a later packet. */
const MAX_WANTED = 4096;
/** Looks at conntrack for a wanted flow in one tick, about 10 us each. */
const MAX_LOOKS = 500;
/** Pauses between two looks in milliseconds; the last one repeats. */
const PAUSES_MS = [50, 100, 200, 400, 800, 1000] as const;
/**
 * A flow that conntrack does not allow for so long is forgotten until it asks again, and so is an approval without a flow.
 * The packets of a flow that is being retransmitted, or just slow, are further apart than a lease.
 */
const PATIENCE_NS = 30n * SECOND;

/** Answers that will not become another one while the connection lives. */
const FINAL: ReadonlySet<number> = new Set([
  Reason.CT_SNAT,
  Reason.CT_HAIRPIN,
  Reason.CT_L7,
  Reason.CT_SERVICE,
  Reason.CT_SOURCE,
]);

/** When to look again at a flow that conntrack does not allow yet. @param looks so far, at least 1 */
export function pauseAfter(looks: number): bigint {
  return BigInt(PAUSES_MS[Math.min(looks, PAUSES_MS.length) - 1] ?? 1000) * MS;
}

/** The kernel's own timeout for a connection in the state that the predicate asks for. */
export function timeoutName(protocol: number): keyof ConntrackTimeouts {
  switch (protocol) {
    case IpProtocol.tcp:
      return 'tcpEstablished';
    case IpProtocol.udp:
      return 'udpStream';
    case IpProtocol.icmp:
      return 'icmp';
    case IpProtocol.icmpv6:
      return 'icmpv6';
    case IpProtocol.sctp:
      return 'sctpEstablished';
    default:
      return 'generic';
  }
}

interface Wanted {
  readonly key: FlowKey;
  readonly since: bigint;
  looks: number;
  due: bigint;
}

interface Grant {
  readonly key: FlowKey;
  /** When conntrack was last asked. */
  checkedAt: bigint;
  /** When the flow was last seen in `flows`, or granted. */
  presentAt: bigint;
}

/** Conntrack, and what of Antrea has to be known to judge by it. */
export interface AntreaConntrack {
  readonly conntrack: Conntrack;
  /** Antrea's zones, by family. */
  readonly zones: Readonly<Record<4 | 6, number>>;
  /** Whether the pod with this address is on a node that Antrea routes to, without a tunnel. */
  readonly isRouted: (address: string) => boolean;
}

export interface ApprovalsOptions extends AntreaConntrack {
  readonly tables: Pick<Tables, 'flows' | 'slots' | 'translated' | 'approvals' | 'refusals'>;
  /** Reads a timeout of conntrack in seconds; may throw where the kernel lacks it. */
  readonly timeout: (name: keyof ConntrackTimeouts) => number;
  /** How long an approval holds. */
  readonly leaseNs: bigint;
  /** Device of a local pod by its address. */
  readonly deviceOf: (address: string) => number | undefined;
  readonly degradations: Degradations;
  readonly log: Log;
  readonly now: Clock;
}

/** Sums since the start. */
export interface ApprovalCounts {
  readonly granted: number;
  readonly revoked: number;
  readonly extended: number;
  /** Wanted flows for which there was no room. */
  readonly lost: number;
}

/** Grants, renews and revokes approvals. */
export class Approvals {
  readonly #o: ApprovalsOptions;
  readonly #wanted = new Map<string, Wanted>();
  readonly #grants = new Map<string, Grant>();
  readonly #counts = { granted: 0, revoked: 0, extended: 0, lost: 0 };
  #renewing = false;

  /** Takes over the approvals of an earlier start. */
  constructor(options: ApprovalsOptions) {
    this.#o = options;
    const now = options.now();
    for (const [key] of options.tables.approvals.entries()) {
      this.#grants.set(flowKeyText(key), { key, checkedAt: 0n, presentAt: now });
    }
  }

  /** Flows with an approval, and flows that wait for one. */
  get sizes(): { readonly granted: number; readonly wanted: number } {
    return { granted: this.#grants.size, wanted: this.#wanted.size };
  }

  get counts(): ApprovalCounts {
    return { ...this.#counts };
  }

  /** A program wants to know whether conntrack allows the flow. Looks at once, then now and then for 30 s. */
  want(key: FlowKey): void {
    const text = flowKeyText(key);
    if (this.#wanted.has(text)) return;
    if (this.#wanted.size >= MAX_WANTED) {
      this.#counts.lost++;
      return;
    }
    const now = this.#o.now();
    const wanted = { key, since: now, looks: 0, due: now };
    this.#wanted.set(text, wanted);
    this.#look(text, wanted, now);
  }

  /** Looks again at the wanted flows that are due. Every 50 ms or so. */
  tick(): void {
    const now = this.#o.now();
    let looks = 0;
    for (const [text, wanted] of this.#wanted) {
      if (wanted.due > now) continue;
      if (++looks > MAX_LOOKS) return;
      this.#look(text, wanted, now);
    }
  }

  /**
   * Renews the approvals of flows that conntrack still allows, and keeps conntrack's entries of used ones alive, as the
   * packets that pass them by would have. Once a second; a pass that is still under way is left alone.
   */
  async renew(): Promise<void> {
    if (this.#renewing) return;
    this.#renewing = true;
    const { now, leaseNs, degradations } = this.#o;
    const began = now();
    try {
      const timeouts = new Map<string, number>();
      for await (const [text, grant] of inBatches(this.#grants, 128)) this.#renewOne(text, grant, timeouts);
    } finally {
      this.#renewing = false;
    }
    const took = now() - began;
    degradations.put(
      'approvals-slow',
      took < leaseNs / 2n
        ? undefined
        : {
            what: `renewing ${this.#grants.size} approvals takes ${Number(took / MS)} ms, more than half their lease`,
            where: 'approvals',
            action: 'set approvals.lease higher, or give the sidecar more CPU',
          },
    );
  }

  /** Conntrack's entry is gone: its flows on this node end, approved or not. */
  destroyed(entry: CtEntry): void {
    for (const tuple of [entry.origin, entry.reply]) {
      const ifindex = this.#o.deviceOf(tuple.src);
      if (ifindex === undefined) continue;
      const key = flowKeyOfTuple(tuple, ifindex);
      if (key === undefined) continue;
      const flow = this.#o.tables.flows.get(key);
      const text = flowKeyText(key);
      if (flow === undefined && !this.#grants.has(text)) continue;
      // A new connection may have taken the tuple in the meantime.
      if (this.#ask(key) === Reason.NONE) continue;
      this.#revoke(text, key, flow);
    }
  }

  /**
   * A RST passed conntrack by, which would leave its entry ESTABLISHED: a new connection on the same ports would skip
   * policy. The entry is removed.
   */
  reset(key: FlowKey): void {
    const { conntrack, log } = this.#o;
    const tuple = tupleOf(key);
    const zone = this.#zoneOf(tuple);
    try {
      const entry = conntrack.get(tuple, zone);
      if (this.#admission(key, entry) === Reason.NONE) conntrack.delete(tuple, zone, entry?.id);
    } catch (error) {
      log.warn({ err: error, flow: flowKeyText(key) }, 'conntrack entry of a reset connection could not be removed');
    }
    this.#revoke(flowKeyText(key), key, undefined);
  }

  /** Conntrack's events were lost: ask about all approvals with the next renewal. */
  distrust(): void {
    for (const grant of this.#grants.values()) grant.checkedAt = 0n;
  }

  #zoneOf({ family }: CtTuple): number {
    return this.#o.zones[family];
  }

  #entry(key: FlowKey): CtEntry | undefined {
    const tuple = tupleOf(key);
    return this.#o.conntrack.get(tuple, this.#zoneOf(tuple));
  }

  /** @returns why the entry does not allow the flow, or Reason.NONE */
  #admission(key: FlowKey, entry: CtEntry | undefined): number {
    // The local pod answers where the connection began with the other one.
    const routed = entry?.origin.dst === key.saddr && this.#o.isRouted(key.daddr);
    return admission(entry, { routed });
  }

  /** @returns why conntrack does not allow the flow, or Reason.NONE */
  #ask(key: FlowKey): number {
    return this.#admission(key, this.#entry(key));
  }

  #look(text: string, wanted: Wanted, now: bigint): void {
    let reason: number;
    try {
      reason = this.#ask(wanted.key);
    } catch (error) {
      this.#wanted.delete(text);
      // Conntrack has no such tuples (an ICMP type that it does not track): nothing to wait for.
      if (isNetlinkError(error, 'EINVAL', 'EOPNOTSUPP', 'EPROTONOSUPPORT')) return;
      this.#trouble(error);
      return;
    }
    wanted.looks++;
    if (reason === Reason.NONE) {
      this.#wanted.delete(text);
      this.#grant(text, wanted.key, now);
    } else if (FINAL.has(reason) || now - wanted.since > PATIENCE_NS) {
      this.#wanted.delete(text);
    } else {
      wanted.due = now + pauseAfter(wanted.looks);
    }
  }

  #grant(text: string, key: FlowKey, now: bigint): void {
    if (!this.#write(key, now)) return;
    this.#grants.set(text, { key, checkedAt: now, presentAt: now });
    this.#counts.granted++;
    // The programs pause up to a second between two looks at a refused flow: the next packet is to find the approval.
    this.#o.tables.refusals.delete(key);
  }

  #write(key: FlowKey, now: bigint): boolean {
    const { tables, leaseNs, degradations } = this.#o;
    try {
      tables.approvals.set(key, { expires: now + leaseNs });
      degradations.clear('approvals-full');
      return true;
    } catch (error) {
      if (!isFull(error)) throw error;
      degradations.set('approvals-full', {
        what: 'there is no room for more approvals: further flows that need one stay on the slow path',
        where: 'map approvals',
        action: 'raise maps.approvals in the configuration (drain and clean up first)',
      });
      return false;
    }
  }

  #renewOne(text: string, grant: Grant, timeouts: Map<string, number>): void {
    const { tables, now, leaseNs } = this.#o;
    const time = now();
    const flow = tables.flows.get(grant.key);
    if (flow !== undefined) grant.presentAt = time;
    else if (time - grant.presentAt > PATIENCE_NS) {
      this.#forget(text, grant.key);
      return;
    }
    const used = flow !== undefined && this.#usedSince(grant, flow);
    // Conntrack tells of every end by an event; an idle flow is asked after only as often as its lease needs.
    if (!used && time - grant.checkedAt < leaseNs / 2n) return;
    let entry: CtEntry | undefined;
    try {
      entry = this.#entry(grant.key);
    } catch (error) {
      this.#trouble(error);
      return;
    }
    this.#o.degradations.clear('approvals-conntrack');
    if (entry === undefined || this.#admission(grant.key, entry) !== Reason.NONE) {
      if (flow === undefined) this.#forget(text, grant.key);
      else this.#revoke(text, grant.key, flow);
      return;
    }
    grant.checkedAt = time;
    if (used) this.#extend(grant.key, entry, timeouts);
    this.#write(grant.key, time);
  }

  /** Has a packet of the flow, in either direction, passed since conntrack was last asked? */
  #usedSince(grant: Grant, flow: Flow): boolean {
    const { flows, slots } = this.#o.tables;
    const lastRx =
      (flow.flags & FlowFlag.LOCAL) !== 0
        ? flows.get(oppositeKeyOf(flow))?.lastTx
        : isKeyed(flow)
          ? slots.get(slotKeyOf(flow))?.lastRx
          : undefined;
    return lastUse(flow, lastRx) > grant.checkedAt;
  }

  /** Sets conntrack's timeout to what the kernel would have set, had it seen the packets; never shortens it. */
  #extend(key: FlowKey, entry: CtEntry, timeouts: Map<string, number>): void {
    const { conntrack, timeout } = this.#o;
    const name = timeoutName(key.proto);
    let target = timeouts.get(name);
    if (target === undefined) {
      try {
        target = timeout(name);
      } catch (error) {
        this.#trouble(error);
        target = 0;
      }
      timeouts.set(name, target);
    }
    if (target <= 0 || entry.timeoutSeconds === undefined || entry.timeoutSeconds >= target) return;
    try {
      const tuple = tupleOf(key);
      if (conntrack.setTimeout(tuple, this.#zoneOf(tuple), target)) this.#counts.extended++;
    } catch (error) {
      // An entry whose timeout somebody has fixed lives by that.
      if (!isNetlinkError(error, 'EPERM')) this.#trouble(error);
    }
  }

  #forget(text: string, key: FlowKey): void {
    this.#grants.delete(text);
    this.#o.tables.approvals.delete(key);
  }

  #revoke(text: string, key: FlowKey, flow: Flow | undefined): void {
    const { tables, now } = this.#o;
    if (this.#grants.has(text)) this.#counts.revoked++;
    this.#forget(text, key);
    if (flow !== undefined) endFlow(tables, key, flow, now());
  }

  #trouble(error: unknown): void {
    this.#o.degradations.set('approvals-conntrack', {
      what: `conntrack cannot be read or steered: ${errorMessage(error)}`,
      where: 'ctnetlink',
      action: 'check that the sidecar has CAP_NET_ADMIN and that the kernel module nf_conntrack_netlink can be loaded',
    });
  }
}
