/**
 * The key exchange of the data plane as a pure state machine: one object per node, driven by a simulator. It follows
 * `bpf-src/xmasq.h`; names and times are the ones used there. Times are nanoseconds of the simulated clock.
 *
 * Everything that was found to matter by simulation is a switch in {@link Rules}: {@link FIRST_RULES} is the exchange as
 * first written down, {@link EARLY_RULES} as first implemented, {@link RULES} the one that passes.
 */

// Names of the module's own: a look-up in jest's global object costs more than all the rest.
const { floor, max, min } = Math;

const MS = 1e6;
const SEC = 1e9;

/** Durations and bounds shared with `bpf-src/xmasq.h` (nanoseconds, except the count per second). */
export const TIMES = {
  XMASQ_VERIFY_NS: 100 * MS,
  XMASQ_SEND_LIFE_NS: 5 * SEC,
  XMASQ_INTERPRET_NS: 30 * SEC,
  XMASQ_SILENCE_NS: 500 * MS,
  XMASQ_SILENCE_PACKETS: 2,
  XMASQ_PAUSE_NS: 2 * SEC,
  XMASQ_TOMBSTONE_NS: 120 * SEC,
  XMASQ_CLOSING_NS: SEC,
  XMASQ_REJECT_MIN_NS: SEC,
  XMASQ_REJECT_MAX_NS: 60 * SEC,
  XMASQ_REJECTS_PER_SEC: 100,
  XMASQ_ACK_NS: 150 * MS,
  XMASQ_HEADER_CHANGE_NS: SEC,
} as const;

/** Durations that the model needs and `bpf-src/xmasq.h` may not name yet (nanoseconds; counts are packets). */
export const EXTRA = {
  /** First pause after a black hole, doubling. */
  XMASQ_HOLE_MIN_NS: SEC,
  /** Doublings of that pause: the longest is 64 s. */
  XMASQ_HOLE_LEVELS: 6,
  /** How long a flow must be well afterwards for the first pause to be used again. */
  XMASQ_HOLE_WELL_NS: 60 * SEC,
  /** A slot freed, or state flushed, so recently is not used again: packets under way would meet the new slot. */
  XMASQ_QUIET_NS: 500 * MS,
  /** Fast packets that the peer must have missed before its complaint counts. */
  XMASQ_UNHEARD_PACKETS: 3,
  XMASQ_UNHEARD_NS: 200 * MS,
  /** Separate bursts without any answer that make a black hole, when the packets are too far apart for the clock. */
  XMASQ_SILENT_BURSTS: 3,
} as const;

/** Which form of each rule the nodes follow. */
export interface Rules {
  /** Bits of a key; 8 on the wire, fewer to provoke collisions. */
  readonly keyBits: number;
  /** An announcement says "ready" (A) only if the peer gave a sign of life within XMASQ_SEND_LIFE_NS. */
  readonly readyNeedsLife: boolean;
  /** ... and only while the announcing node is not itself in a black hole: its peer then goes slow, too. */
  readonly readyNotInHole: boolean;
  /** Sending needs a sign of life that proves the peer heard us: masqueraded packet, acknowledgement or A=1. */
  readonly confirmedLife: boolean;
  /**
   * Of a peer that was heard before, an announcement is a sign of life only if its key is the one announced before: IDs of
   * foreign packets never repeat.
   * Does not go with ackAnnouncements, whose acknowledgement would prove a life that was not counted.
   */
  readonly lifeNeedsRepeat: boolean;
  /** An acknowledgement is a sign of life. */
  readonly ackIsLife: boolean;
  /** Announcing packets are acknowledged like fast ones when the own pod is silent. */
  readonly ackAnnouncements: boolean;
  /** An acknowledgement carries {A, own key, key held of the peer}: if both keys are right, A counts like an announced one. */
  readonly ackAnnounces: boolean;
  /**
   * An acknowledgement says whether its sender sent fast since the last one; if so it does not count as an answer: those
   * packets would. Otherwise it hides a black hole from its sender to its receiver.
   */
  readonly ackTellsSent: boolean;
  /**
   * A=1 does not say which key the peer holds: it may be one from before we lost our state. The peer is complete only
   * after an exact proof (its masqueraded packet, or an acknowledgement that names our key), which a new key of either
   * side voids; from then on A counts. Whoever learns a key acknowledges at once.
   */
  readonly exactProof: boolean;
  /** Packets of the slow path count as an answer to fast ones. They only prove that the slow path works. */
  readonly slowIsAnswer: boolean;
  /** TTL and DSCP are learned from every announcing packet that differs, not only with a new key. */
  readonly relearnHeader: boolean;
  /** What an announcement of the peer means while we send fast: see {@link Node.complaint}. */
  readonly complaint: 'none' | 'any' | 'incomplete' | 'ready' | 'persistent';
  /**
   * When sending fast without an answer is a black hole. `clock`: after XMASQ_SILENCE_NS. `packets`: and if
   * XMASQ_SILENCE_PACKETS more were sent; a pause of the pod of XMASQ_PAUSE_NS stops the clock. `bursts`: a pause of
   * XMASQ_SILENCE_NS starts the clock anew, but XMASQ_SILENT_BURSTS such bursts without an answer are a black hole, too.
   */
  readonly silence: 'clock' | 'packets' | 'bursts';
  /** A packet that a slot can restore is restored, however long its sender was unheard. */
  readonly slotFirst: boolean;
  /** A packet whose slot has no header yet is rejected like one with an unknown key. */
  readonly incompleteRejected: boolean;
  /** A reset of a fast flow goes slow like any packet if the peer gave no sign of life, and not only in a black hole. */
  readonly resetNeedsLife: boolean;
  /** Control messages are ignored unless the flow has sent fast with the present key. */
  readonly controlNeedsFast: boolean;
  /** After a black hole, fast again only if something was heard within XMASQ_SEND_LIFE_NS. */
  readonly holeNeedsHeard: boolean;
  /** No slot within XMASQ_QUIET_NS of a flush or of freeing it: packets under way would meet the new one. */
  readonly quiet: boolean;
  /** Capable peers are interpreted for XMASQ_INTERPRET_NS after peer state was lost, though nothing was heard yet. */
  readonly interpretAfterStart: boolean;
}

/** The exchange as first written down. */
export const FIRST_RULES: Rules = {
  keyBits: 8,
  readyNeedsLife: false,
  readyNotInHole: false,
  confirmedLife: false,
  lifeNeedsRepeat: false,
  ackIsLife: false,
  ackAnnouncements: false,
  ackAnnounces: false,
  ackTellsSent: false,
  exactProof: false,
  slowIsAnswer: true,
  relearnHeader: false,
  complaint: 'any',
  silence: 'clock',
  slotFirst: false,
  incompleteRejected: false,
  controlNeedsFast: false,
  resetNeedsLife: false,
  holeNeedsHeard: true,
  quiet: false,
  interpretAfterStart: false,
};

/** The exchange that layout version 1 of the data plane began with. */
export const EARLY_RULES: Rules = {
  ...FIRST_RULES,
  ackIsLife: true,
  complaint: 'none',
  silence: 'packets',
  slotFirst: true,
  incompleteRejected: true,
  controlNeedsFast: true,
  holeNeedsHeard: false,
  interpretAfterStart: true,
};

/** The exchange that passes every property in simulation, with the times of `xmasq.h`. */
export const RULES: Rules = {
  ...EARLY_RULES,
  readyNeedsLife: true,
  readyNotInHole: true,
  confirmedLife: true,
  ackAnnouncements: true,
  ackAnnounces: true,
  ackTellsSent: true,
  exactProof: true,
  relearnHeader: true,
  controlNeedsFast: false,
  resetNeedsLife: true,
  quiet: true,
};

/**
 * What the data plane does. It has not the exact proof: an announcement with A=1 may mean a key from before a loss of state.
 * Then a pod's packet can be restored with the TTL or DSCP that its flow had before, until the next announcement; it needs a
 * loss of state, a change of the header and a lost or overtaken announcement at once.
 */
export const BUILT_RULES: Rules = {
  ...RULES,
  exactProof: false,
  ackAnnouncements: false,
  ackAnnounces: false,
  lifeNeedsRepeat: true,
  slowIsAnswer: false,
  controlNeedsFast: true,
};

/** A pod's packet. */
export interface PodPacket {
  readonly id: number;
  /** Pod pair, i.e. flow. */
  readonly pair: number;
  /** Counts the connections of the pod pair: conntrack tells late packets of an earlier one by their sequence numbers. */
  readonly connection: number;
  /** TTL and DSCP as one number. */
  readonly header: number;
  readonly kind: 'data' | 'syn' | 'synack' | 'fin' | 'rst';
  /** Always slow for a reason of its own, e.g. its size. */
  readonly exception: boolean;
  /** For the traffic model; nothing in the exchange reads it. */
  readonly payload: number;
}

/** Key announcement in a slow packet; `ready` is the A bit. */
export interface Announcement {
  readonly ready: boolean;
  readonly key: number;
}

/** What travels between the nodes. */
export type Wire =
  | { readonly path: 'slow'; readonly packet: PodPacket; readonly announcement?: Announcement }
  /** The receiver decides by `ports` and `key` alone; `packet` is what the judge compares with. */
  | { readonly path: 'fast'; readonly ports: number; readonly key: number; readonly packet: PodPacket }
  | { readonly path: 'ctl'; readonly type: 'reject'; readonly ports: number; readonly key: number }
  | {
      readonly path: 'ctl';
      readonly type: 'ack';
      readonly ports: number;
      /** The acknowledging node's own key. */
      readonly key: number;
      /** The key of the receiver of this message that its sender holds; -1: none. */
      readonly held: number;
      readonly ready: boolean;
      /** Its sender has sent fast on this flow since its last acknowledgement. */
      readonly sent: boolean;
    };

/** What became of a packet that arrived at a node. */
export type Verdict =
  | { readonly what: 'deliver'; readonly pair: number; readonly header: number }
  | { readonly what: 'drop'; readonly why: 'unknown' | 'incomplete' }
  | { readonly what: 'stack' };

/** Names of what a node counts. */
export type Counter =
  | 'admitted'
  | 'demoted'
  | 'learned'
  | 'rejectSent'
  | 'rejectReceived'
  | 'ackSent'
  | 'unknown'
  | 'incomplete'
  | 'holeSilence'
  | 'holeComplaint';

interface Flow {
  readonly ownKey: number;
  readonly header: number;
  haveKey: boolean;
  peerKey: number;
  announced: boolean;
  peerComplete: boolean;
  /** The peer has proved that it holds our key. */
  proven: boolean;
  lastTx: number;
  lastRxSlow: number;
  unansweredSince: number;
  unansweredTx: number;
  verifyAt: number;
  /** Another program changed the flow: verify with the next packet. */
  recheck: boolean;
  blocked: boolean;
  silentBursts: number;
  lastFastTx: number;
  fastSince: number;
  txFast: number;
  /** txFast at our last acknowledgement. */
  ackedTx: number;
  unheardSince: number;
  unheardTx: number;
  holeUntil: number;
  holeLevel: number;
  rejectKey: number;
  rejectUntil: number;
  rejectLevel: number;
  deviatingSince: number;
}

interface Slot {
  readonly pair: number;
  readonly key: number;
  state: 'active' | 'closing' | 'tombstone';
  complete: boolean;
  header: number;
  /** Last restored packet or acknowledgement. */
  lastRx: number;
  ackAt: number;
  freedAt: number;
}

interface Conntrack {
  out: boolean;
  in: boolean;
  established: boolean;
  closed: boolean;
  connection: number;
}

const NEVER = -1e15;

/** One node: its egress entries, restore slots, and what it knows of its only peer. */
export class Node {
  readonly counters: Record<Counter, number> = {
    admitted: 0,
    demoted: 0,
    learned: 0,
    rejectSent: 0,
    rejectReceived: 0,
    ackSent: 0,
    unknown: 0,
    incomplete: 0,
    holeSilence: 0,
    holeComplaint: 0,
  };
  private readonly rules: Rules;
  private readonly portsOf: (pair: number) => number;
  private readonly isTcp: (pair: number) => boolean;
  private readonly random: () => number;
  private readonly note: (line: string) => void;
  private readonly flows = new Map<number, Flow>();
  private readonly slots = new Map<number, Slot>();
  private readonly conntrack = new Map<number, Conntrack>();
  private lastLife = NEVER;
  private lastConfirmed = NEVER;
  private stateSince = NEVER;
  private rejectWindow = NEVER;
  private rejectCount = 0;

  /**
   * @param rules which form of each rule to follow
   * @param portsOf pod pair -> what its masqueraded packets are looked up by; pairs may share it
   * @param isTcp whether the pod pair needs a handshake before conntrack calls it established
   * @param random uniform in [0, 1)
   * @param note receives a line about every change of state
   */
  constructor(
    rules: Rules,
    portsOf: (pair: number) => number,
    isTcp: (pair: number) => boolean,
    random: () => number,
    note: (line: string) => void,
  ) {
    this.rules = rules;
    this.portsOf = portsOf;
    this.isTcp = isTcp;
    this.random = random;
    this.note = note;
  }

  /** pod_egress: the pod sends a packet; returns what goes on the wire. */
  egress(now: number, packet: PodPacket): Wire {
    const { pair } = packet;
    if (packet.kind !== 'data') {
      const flow = this.flows.get(pair);
      // A reset of a fast flow is carried fast even into a black hole: conntrack may refuse it after so many bypassed bytes.
      const fast = packet.kind === 'rst' && flow?.header === packet.header && this.mayReset(now, flow);
      const wire: Wire = fast
        ? { path: 'fast', ports: this.portsOf(pair), key: flow.peerKey, packet }
        : { path: 'slow', packet };
      this.close(now, pair, packet.kind);
      this.track(packet, 'out');
      return wire;
    }
    let flow = this.flows.get(pair);
    if (flow !== undefined && this.deviates(now, flow, packet)) {
      if (now - flow.deviatingSince <= TIMES.XMASQ_HEADER_CHANGE_NS) {
        this.verify(now, pair, flow, true);
        flow.lastTx = now;
        flow.recheck = true;
        this.track(packet, 'out');
        return { path: 'slow', packet };
      }
      this.note('header changed');
      this.demote(now, pair);
      flow = undefined;
    }
    flow ??= this.admit(now, packet);
    this.track(packet, 'out');
    if (flow === undefined) return { path: 'slow', packet };
    this.verify(now, pair, flow, packet.exception);
    flow.lastTx = now;
    const may = this.maySend(flow);
    if (may && !packet.exception) {
      if (flow.fastSince === NEVER) flow.fastSince = now;
      flow.txFast++;
      flow.lastFastTx = now;
      return { path: 'fast', ports: this.portsOf(pair), key: flow.peerKey, packet };
    }
    flow.recheck = true;
    if (!may && this.rules.complaint !== 'none') flow.fastSince = NEVER;
    flow.announced = true;
    return { path: 'slow', packet, announcement: { ready: this.ready(now, pair, flow), key: flow.ownKey } };
  }

  /** pod_ingress: the slow path delivers a packet to the pod. Returns the control messages to send. */
  ingressSlow(now: number, wire: Extract<Wire, { path: 'slow' }>): Wire[] {
    const { packet, announcement } = wire;
    this.track(packet, 'in');
    if (packet.kind !== 'data') {
      this.close(now, packet.pair, packet.kind);
      return [];
    }
    const flow = this.flows.get(packet.pair);
    if (flow === undefined) return [];
    flow.lastRxSlow = now;
    flow.recheck = true;
    if (announcement === undefined) return [];
    const slot = this.slotOf(packet.pair);
    if (slot === undefined) return [];
    const fresh = !flow.haveKey || flow.peerKey !== announcement.key;
    const lives = !fresh || !this.rules.lifeNeedsRepeat || this.lastLife === NEVER;
    if (lives) this.lastLife = now;
    if (lives && announcement.ready) this.lastConfirmed = now;
    const learned = this.learnKey(now, flow, announcement.key);
    if ((fresh && learned) || !slot.complete || (this.rules.relearnHeader && slot.header !== packet.header)) {
      slot.header = packet.header;
      slot.complete = true;
    }
    this.heardReady(now, flow, announcement.ready);
    this.complaint(now, flow, announcement.ready);
    return this.rules.ackAnnouncements ? this.answer(now, packet.pair, flow, slot, fresh && learned) : [];
  }

  /** uplink_ingress: a masqueraded packet arrives. Returns its fate and the control messages to send. */
  ingressFast(now: number, wire: Extract<Wire, { path: 'fast' }>): { verdict: Verdict; send: Wire[] } {
    const stack = { verdict: { what: 'stack' }, send: [] } as const;
    const alive =
      now - this.lastLife <= TIMES.XMASQ_INTERPRET_NS ||
      (this.rules.interpretAfterStart && now - this.stateSince <= TIMES.XMASQ_INTERPRET_NS);
    if (!alive && !this.rules.slotFirst) return { ...stack, send: [] };
    const slot = this.slots.get(wire.ports);
    const live =
      slot !== undefined &&
      (slot.state === 'active' || (slot.state === 'closing' && now - slot.freedAt <= TIMES.XMASQ_CLOSING_NS));
    if (!live || slot.key !== wire.key) {
      if (!alive) return { ...stack, send: [] };
      this.counters.unknown++;
      return { verdict: { what: 'drop', why: 'unknown' }, send: this.reject(now, wire) };
    }
    if (!slot.complete) {
      this.counters.incomplete++;
      const send = this.rules.incompleteRejected ? this.reject(now, wire) : [];
      return { verdict: { what: 'drop', why: 'incomplete' }, send };
    }
    slot.lastRx = now;
    this.lastLife = now;
    this.lastConfirmed = now;
    const verdict: Verdict = { what: 'deliver', pair: slot.pair, header: slot.header };
    const flow = slot.state === 'active' ? this.flows.get(slot.pair) : undefined;
    if (wire.packet.kind === 'rst') {
      this.close(now, slot.pair, 'rst');
      this.track(wire.packet, 'in');
      return { verdict, send: [] };
    }
    if (flow === undefined) return { verdict, send: [] };
    // The peer sends with our present key, so it has read an announcement of ours: this proof is exact.
    if (!flow.peerComplete) this.note('peer complete (fast packet)');
    flow.proven = true;
    flow.peerComplete = true;
    flow.unheardSince = NEVER;
    return {
      verdict,
      send: this.acknowledge(now, slot.pair, flow, slot, this.rules.slowIsAnswer ? flow.lastTx : flow.lastFastTx),
    };
  }

  /** A control message arrives. */
  control(now: number, wire: Extract<Wire, { path: 'ctl' }>): void {
    const slot = this.slots.get(wire.ports);
    if (slot?.state !== 'active') return;
    const flow = this.flows.get(slot.pair);
    if (flow === undefined || (this.rules.controlNeedsFast && flow.fastSince === NEVER)) return;
    if (wire.type === 'reject') {
      if (!flow.haveKey || flow.peerKey !== wire.key) return;
      this.counters.rejectReceived++;
      this.note(`key ${wire.key} rejected`);
      flow.haveKey = false;
      flow.fastSince = NEVER;
      flow.recheck = true;
      flow.proven = false;
      flow.peerComplete = false;
      flow.rejectLevel = now - flow.rejectUntil > TIMES.XMASQ_REJECT_MAX_NS ? 0 : flow.rejectLevel + 1;
      flow.rejectKey = wire.key;
      flow.rejectUntil =
        now + min(TIMES.XMASQ_REJECT_MIN_NS * 2 ** min(flow.rejectLevel, 6), TIMES.XMASQ_REJECT_MAX_NS);
      return;
    }
    // It teaches no key: whoever sends fast claims to be able to restore, and no header comes with this message.
    if (!flow.haveKey || flow.peerKey !== wire.key) return;
    if (this.rules.ackAnnounces && wire.held === flow.ownKey) {
      // Exact: it names both keys.
      flow.proven = true;
      if (wire.ready) this.lastConfirmed = now;
      this.heardReady(now, flow, wire.ready);
    }
    if (!this.rules.ackTellsSent || !wire.sent) {
      slot.lastRx = now;
      flow.unheardSince = NEVER;
    }
    if (this.rules.ackIsLife) {
      this.lastLife = now;
      this.lastConfirmed = now;
    }
  }

  /** Flows and slots are lost, tombstones included. @param all the peer's signs of life are lost as well */
  flush(now: number, all: boolean): void {
    this.note(all ? 'restart: everything forgotten' : 'flush');
    this.flows.clear();
    this.slots.clear();
    this.stateSince = now;
    if (!all) return;
    this.lastLife = NEVER;
    this.lastConfirmed = NEVER;
  }

  /** conntrack loses its entry: the flow is demoted and must be seen in both directions again. */
  forget(now: number, pair: number): void {
    this.conntrack.delete(pair);
    this.demote(now, pair);
  }

  /** One line on a flow for a human. */
  describe(now: number, pair: number): string {
    const flow = this.flows.get(pair);
    const slot = this.slots.get(this.portsOf(pair));
    if (flow === undefined) return `no flow, slot ${slot === undefined ? 'none' : `${slot.state} of ${slot.pair}`}`;
    return (
      `own ${flow.ownKey} peer ${flow.haveKey ? flow.peerKey : '-'}${flow.announced ? ' announced' : ''}` +
      `${flow.peerComplete ? ' peer-complete' : ''}${slot?.complete === true ? ' slot-complete' : ''}` +
      `${now < flow.holeUntil ? ` hole(level ${flow.holeLevel})` : ''}${this.mayLife(now) ? '' : ' no-life'}`
    );
  }

  private track(packet: PodPacket, direction: 'out' | 'in'): void {
    const tcp = this.isTcp(packet.pair);
    let ct = this.conntrack.get(packet.pair);
    if (ct !== undefined && packet.connection < ct.connection) return;
    if (ct === undefined || (packet.connection > ct.connection && packet.kind === 'syn')) {
      ct = { out: false, in: false, established: false, closed: false, connection: packet.connection };
      this.conntrack.set(packet.pair, ct);
    }
    if (packet.kind === 'fin' || packet.kind === 'rst') ct.closed = true;
    // TCP: the packet after SYN and SYN-ACK establishes the connection; it is not yet established when that one leaves.
    if (tcp && ct.out && ct.in && packet.kind === 'data') ct.established = true;
    ct[direction] = true;
    if (!tcp && ct.out && ct.in) ct.established = true;
  }

  private slotOf(pair: number): Slot | undefined {
    const slot = this.slots.get(this.portsOf(pair));
    return slot?.pair === pair && slot.state === 'active' ? slot : undefined;
  }

  private admit(now: number, packet: PodPacket): Flow | undefined {
    const ct = this.conntrack.get(packet.pair);
    if (ct === undefined || !ct.established || ct.closed) return undefined;
    const ports = this.portsOf(packet.pair);
    const old = this.slots.get(ports);
    if (old !== undefined && old.pair !== packet.pair) {
      if (old.state === 'active' || now - old.freedAt <= TIMES.XMASQ_TOMBSTONE_NS) return undefined;
    }
    const recently = max(this.stateSince, old?.freedAt ?? NEVER);
    if (this.rules.quiet && now - recently <= EXTRA.XMASQ_QUIET_NS) return undefined;
    const keys = 2 ** this.rules.keyBits;
    let key = floor(this.random() * keys);
    if (key === old?.key) key = (key + 1 + floor(this.random() * (keys - 1))) % keys;
    const flow: Flow = {
      ownKey: key,
      header: packet.header,
      haveKey: false,
      peerKey: -1,
      announced: false,
      peerComplete: false,
      proven: false,
      lastTx: now,
      lastRxSlow: NEVER,
      unansweredSince: NEVER,
      unansweredTx: 0,
      verifyAt: NEVER,
      recheck: true,
      blocked: false,
      silentBursts: 0,
      lastFastTx: NEVER,
      fastSince: NEVER,
      txFast: 0,
      ackedTx: 0,
      unheardSince: NEVER,
      unheardTx: 0,
      holeUntil: NEVER,
      holeLevel: 0,
      rejectKey: -1,
      rejectUntil: NEVER,
      rejectLevel: 0,
      deviatingSince: NEVER,
    };
    this.flows.set(packet.pair, flow);
    this.slots.set(ports, {
      pair: packet.pair,
      key,
      state: 'active',
      complete: false,
      header: -1,
      lastRx: NEVER,
      ackAt: NEVER,
      freedAt: NEVER,
    });
    this.counters.admitted++;
    this.note(`admitted pair ${packet.pair}, key ${key}`);
    return flow;
  }

  private demote(now: number, pair: number): void {
    const slot = this.slotOf(pair);
    if (this.flows.delete(pair)) this.counters.demoted++;
    if (slot === undefined) return;
    slot.state = 'tombstone';
    slot.freedAt = now;
  }

  private close(now: number, pair: number, kind: PodPacket['kind']): void {
    const slot = this.slotOf(pair);
    this.flows.delete(pair);
    if (slot === undefined) return;
    slot.state = kind === 'fin' ? 'closing' : 'tombstone';
    slot.freedAt = now;
  }

  private deviates(now: number, flow: Flow, packet: PodPacket): boolean {
    if (packet.header === flow.header) {
      flow.deviatingSince = NEVER;
      return false;
    }
    if (flow.deviatingSince === NEVER) flow.deviatingSince = now;
    return true;
  }

  private mayLife(now: number): boolean {
    const life = this.rules.confirmedLife ? this.lastConfirmed : this.lastLife;
    return now - life <= TIMES.XMASQ_SEND_LIFE_NS;
  }

  private maySend(flow: Flow): boolean {
    return flow.haveKey && flow.announced && flow.peerComplete && !flow.blocked;
  }

  private mayReset(now: number, flow: Flow): boolean {
    if (!flow.haveKey || !flow.announced || !flow.peerComplete || flow.fastSince === NEVER) return false;
    return !this.rules.resetNeedsLife || this.mayLife(now);
  }

  /** Every XMASQ_VERIFY_NS and after a change: may the flow be fast? Sets `blocked`, and finds black holes. */
  private verify(now: number, pair: number, flow: Flow, exception: boolean): void {
    if (now < flow.verifyAt && (exception || !flow.recheck)) return;
    flow.verifyAt = now + TIMES.XMASQ_VERIFY_NS;
    flow.recheck = false;
    const heard = max(this.slotOf(pair)?.lastRx ?? NEVER, this.rules.slowIsAnswer ? flow.lastRxSlow : NEVER);
    const { silence, holeNeedsHeard } = this.rules;
    const paused = silence === 'packets' && now - flow.lastTx > TIMES.XMASQ_PAUSE_NS;
    if (flow.fastSince === NEVER || heard > flow.unansweredSince || paused) {
      flow.unansweredSince = NEVER;
      flow.silentBursts = 0;
    }
    const unheard = now - max(heard, flow.lastRxSlow) > TIMES.XMASQ_SEND_LIFE_NS;
    flow.blocked =
      now < flow.holeUntil || (holeNeedsHeard && flow.holeUntil !== NEVER && unheard) || !this.mayLife(now);
    if (this.maySend(flow) && this.silent(now, flow)) {
      flow.blocked = true;
      this.counters.holeSilence++;
      this.hole(now, flow, 'silence');
    }
  }

  /** The A bit of what we announce now. */
  private ready(now: number, pair: number, flow: Flow): boolean {
    if (!flow.haveKey || this.slotOf(pair)?.complete !== true) return false;
    if (this.rules.readyNotInHole && now < flow.holeUntil) return false;
    return !this.rules.readyNeedsLife || now - this.lastLife <= TIMES.XMASQ_SEND_LIFE_NS;
  }

  private heardReady(now: number, flow: Flow, ready: boolean): void {
    const complete = ready && (flow.proven || !this.rules.exactProof);
    if (flow.peerComplete !== complete) this.note(`peer ${complete ? 'complete' : 'not ready'}`);
    flow.peerComplete = complete;
    if (!ready) flow.unheardSince = NEVER;
  }

  /** True if the peer's key is known now. */
  private learnKey(now: number, flow: Flow, key: number): boolean {
    if (flow.haveKey && flow.peerKey === key) return true;
    if (flow.rejectKey === key && now < flow.rejectUntil) return false;
    flow.haveKey = true;
    flow.peerKey = key;
    flow.proven = false;
    flow.peerComplete = false;
    flow.fastSince = NEVER;
    this.counters.learned++;
    this.note(`learned key ${key}`);
    return true;
  }

  /** Sending fast, has nothing come back for too long? */
  private silent(now: number, flow: Flow): boolean {
    if (flow.unansweredSince === NEVER) {
      flow.unansweredSince = now;
      flow.unansweredTx = flow.txFast;
      return false;
    }
    const long = now - flow.unansweredSince > TIMES.XMASQ_SILENCE_NS;
    switch (this.rules.silence) {
      case 'clock':
        return long;
      case 'packets':
        return long && flow.txFast - flow.unansweredTx >= TIMES.XMASQ_SILENCE_PACKETS;
      case 'bursts':
        if (now - flow.lastFastTx <= TIMES.XMASQ_SILENCE_NS) return long;
        // What came back before the pause may have been the answer: a last acknowledgement is never answered.
        flow.unansweredSince = now;
        return ++flow.silentBursts >= EXTRA.XMASQ_SILENT_BURSTS;
    }
  }

  /**
   * The peer announces although we send fast. With `persistent`: A=0 merely makes us slow (see heardReady); A=1 says that
   * the peer would send fast if it received ours, so if it still says so XMASQ_UNHEARD_NS and XMASQ_UNHEARD_PACKETS of our
   * packets later, ours do not arrive.
   */
  private complaint(now: number, flow: Flow, ready: boolean): void {
    const { complaint } = this.rules;
    if (complaint === 'none' || flow.fastSince === NEVER || now < flow.holeUntil) return;
    const longFast = now - flow.fastSince > EXTRA.XMASQ_UNHEARD_NS;
    if (complaint === 'persistent') {
      if (!ready || !flow.peerComplete) return;
      if (flow.unheardSince === NEVER) {
        flow.unheardSince = now;
        flow.unheardTx = flow.txFast;
        return;
      }
      const missed = flow.txFast - flow.unheardTx >= EXTRA.XMASQ_UNHEARD_PACKETS;
      if (now - flow.unheardSince <= EXTRA.XMASQ_UNHEARD_NS || !missed) return;
    } else {
      if (!longFast) return;
      if (complaint === 'incomplete' && ready) return;
      if (complaint === 'ready' && !ready) return;
    }
    this.counters.holeComplaint++;
    this.hole(now, flow, 'the peer still announces');
  }

  private hole(now: number, flow: Flow, why: string): void {
    if (now - flow.holeUntil > EXTRA.XMASQ_HOLE_WELL_NS) flow.holeLevel = 0;
    const pause = EXTRA.XMASQ_HOLE_MIN_NS * 2 ** flow.holeLevel;
    flow.holeUntil = now + pause;
    flow.blocked = true;
    flow.holeLevel = min(flow.holeLevel + 1, EXTRA.XMASQ_HOLE_LEVELS);
    flow.unansweredSince = NEVER;
    flow.silentBursts = 0;
    flow.unheardSince = NEVER;
    flow.fastSince = NEVER;
    this.note(`black hole (${why}): slow for ${pause / SEC} s`);
  }

  private reject(now: number, { ports, key, packet }: Extract<Wire, { path: 'fast' }>): Wire[] {
    // A reset ends the flow anyway, and nobody must answer one.
    if (packet.kind === 'rst') return [];
    if (now - this.rejectWindow >= SEC) {
      this.rejectWindow = now;
      this.rejectCount = 0;
    }
    if (this.rejectCount >= TIMES.XMASQ_REJECTS_PER_SEC) return [];
    this.rejectCount++;
    this.counters.rejectSent++;
    return [{ path: 'ctl', type: 'reject', ports, key }];
  }

  /** Acknowledges an announcing packet, if that helps. */
  private answer(now: number, pair: number, flow: Flow, slot: Slot, fresh: boolean): Wire[] {
    if (!this.rules.exactProof) return this.acknowledge(now, pair, flow, slot, flow.lastTx);
    if (fresh) slot.ackAt = NEVER;
    // While we send slow, our packets prove nothing; while we send fast, they do.
    const lastTx = this.maySend(flow) ? flow.lastFastTx : NEVER;
    return this.acknowledge(now, pair, flow, slot, lastTx);
  }

  /** @param lastTx when our pod last sent what would make an acknowledgement superfluous */
  private acknowledge(now: number, pair: number, flow: Flow, slot: Slot, lastTx: number): Wire[] {
    if (now < slot.ackAt || now - lastTx < TIMES.XMASQ_ACK_NS) return [];
    // Counted, not timed: the answer to what is acknowledged here often leaves in the same tick of the clock.
    const sent = flow.txFast !== flow.ackedTx;
    flow.ackedTx = flow.txFast;
    slot.ackAt = now + TIMES.XMASQ_ACK_NS;
    this.counters.ackSent++;
    const held = flow.haveKey ? flow.peerKey : -1;
    const ready = this.ready(now, pair, flow);
    return [{ path: 'ctl', type: 'ack', ports: this.portsOf(pair), key: flow.ownKey, held, ready, sent }];
  }
}
