/** pod_egress: what is sent fast, byte for byte, and what becomes of the flow. */
import { expect } from '@jest/globals';
import { CtStatus } from '../../../src/netlink/ctnetlink.ts';
import { EndpointFlag, EventType, FlowFlag, Reason, SlotState } from '../../../src/gen/layouts.ts';
import {
  ALLOWED,
  announcement,
  byFamily,
  Conversation,
  EXCLUDED_POD,
  GATEWAY_MAC,
  MAGIC,
  masquerade,
  MS,
  neighbour,
  now,
  POD,
  POD2,
  SEC,
  Verdict,
  type Bench,
  type Established,
  type PodInfo,
  DRAINED,
  NO_LOOKUP,
} from '../harness.ts';
import { parseFrame, payloadForZeroSum, Tcp } from '../packets.ts';
import {
  expectAnnounced,
  expectFast,
  expectSlow,
  expectUntouched,
  FORGED_ID,
  inBoth,
  requireFast,
  rule,
} from './rule.ts';
import type { Rule } from './rule.ts';

type Overrides = NonNullable<Parameters<Conversation['sent']>[0]>;

/** The masqueraded form of a packet, built from nothing: so every checksum in it is right. */
function masqueraded(flow: Established, overrides: Overrides = {}): Buffer {
  const { talk } = flow;
  const { node, remote } = talk;
  const underlay = { dmac: remote.mac, smac: node.mac, src: node.addr, dst: remote.addr, ttl: 64, tos: 0 };
  return talk.sent({ ...underlay, id: flow.idOut, ...overrides });
}

/** Both forms of one packet: what the pod sends, and what must be on the wire. */
function expectMasqueraded(bench: Bench, flow: Established, sent: Overrides, wire: Overrides = {}): void {
  const outcome = bench.run('pod_egress', flow.talk.sent(sent));
  expect(outcome.verdict).toBe(Verdict.redirect);
  const l4 = sent.l4 === undefined ? {} : { l4: sent.l4 };
  expect(outcome.frame.toString('hex')).toBe(masqueraded(flow, { ...l4, ...wire }).toString('hex'));
  expect(outcome.parsed.problems).toEqual([]);
}

const wire: Rule[] = [
  ...(['tcp', 'udp', 'icmp', 'sctp', 'raw'] as const).flatMap((kind) => [
    rule(`${kind}: every byte of the masqueraded packet`, (bench) => {
      const flow = bench.establish({ kind });
      expectMasqueraded(bench, flow, { id: 0x1234 });
    }),
    rule(`${kind}: without DF it gets DF and N`, (bench) => {
      const flow = bench.establish({ kind });
      expectMasqueraded(bench, flow, { id: 0x1234, df: false }, { id: masquerade(flow.peerKey, true) });
    }),
  ]),
  rule('an odd number of bytes', (bench) => {
    const flow = bench.establish({ kind: 'tcp' });
    expectMasqueraded(bench, flow, { l4: { payload: Buffer.from('odd') } });
  }),
  rule('no payload at all', (bench) => {
    for (const kind of ['tcp', 'udp', 'icmp'] as const) {
      expectMasqueraded(bench, bench.establish({ kind }), { l4: { payload: Buffer.alloc(0) } });
    }
  }),
  rule('TCP options', (bench) => {
    const flow = bench.establish({ kind: 'tcp' });
    expectMasqueraded(bench, flow, { l4: { options: Buffer.from('0101080a0011223300445566', 'hex') } });
  }),
  rule('TCP flags other than SYN and FIN', (bench) => {
    const flow = bench.establish({ kind: 'tcp' });
    expectMasqueraded(bench, flow, { l4: { flags: Tcp.ack | Tcp.psh | Tcp.urg | 0xc0 } });
  }),
  ...[0, 1, 2, 3].map((ecn) =>
    rule(`ECN ${ecn} is copied, DSCP is not`, (bench) => {
      const flow = bench.establish({ kind: 'udp', tos: 0x68 });
      expectMasqueraded(bench, flow, { tos: 0x68 | ecn }, { tos: ecn });
    }),
  ),
  rule('TTL is 64, whatever the pod’s', (bench) => {
    const flow = bench.establish({ kind: 'udp', ttl: 128 });
    expectMasqueraded(bench, flow, {});
  }),
  rule('a UDP checksum of zero stays zero', (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    expectMasqueraded(bench, flow, { l4: { checksum: 0 } });
  }),
  rule('a UDP checksum that becomes zero is written as 0xffff', (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    const payload = payloadForZeroSum((bytes) => masqueraded(flow, { l4: { payload: bytes } }));
    expectMasqueraded(bench, flow, { l4: { payload } });
  }),
  rule('a UDP checksum of 0xffff', (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    const payload = payloadForZeroSum((bytes) => flow.talk.sent({ l4: { payload: bytes } }));
    expectMasqueraded(bench, flow, { l4: { payload } });
  }),
  rule('a wrong checksum stays wrong by as much', (bench) => {
    const flow = bench.establish({ kind: 'tcp' });
    const good = parseFrame(flow.talk.sent()).checksum ?? 0;
    const outcome = bench.run('pod_egress', flow.talk.sent({ l4: { checksum: good ^ 0x0100 } }));
    expect(outcome.verdict).toBe(Verdict.redirect);
    expect(outcome.parsed.problems).toEqual(['TCP checksum']);
  }),
  rule('the largest packet the uplink takes', (bench) => {
    const flow = bench.establish({ kind: 'tcp' });
    expectMasqueraded(bench, flow, { l4: { payload: Buffer.alloc(byFamily(flow.talk.family, 1460, 1440), 0xa5) } });
  }),
  rule('every key', (bench) => {
    for (const key of [0, 1, 0x7f, 0x80, 0xfe]) {
      bench.reset();
      expectMasqueraded(bench, bench.establish({ kind: 'udp' }, key), {});
    }
  }),
  rule('the magic is in cb, mark and priority are left to others', (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    const { skb } = bench.run('pod_egress', flow.talk.sent(), { mark: 0x1234, priority: 5 });
    expect(skb).toMatchObject({ mark: 0x1234, priority: 5, cb: [...MAGIC, 0] });
  }),
  rule('a slow packet does not carry the magic', (bench) => {
    const talk = new Conversation({ kind: 'udp' });
    bench.allow(talk);
    expect(bench.run('pod_egress', talk.sent()).skb.cb).toEqual([0, 0, 0, 0, 0]);
  }),
  rule('counts packets and bytes per segment', (bench) => {
    const flow = bench.establish({ kind: 'tcp' });
    const headers = byFamily(flow.talk.family, 40n, 60n);
    bench.run('pod_egress', flow.talk.sent({ l4: { payload: Buffer.alloc(60) } }));
    expect(bench.flow(flow.flowKey)).toMatchObject({ txPackets: 1n, txBytes: headers + 60n });
    const gso = flow.talk.sent({ l4: { payload: Buffer.alloc(300) } });
    const outcome = bench.run('pod_egress', gso, { gso_size: 100, gso_segs: 3 });
    expect(outcome.counters).toMatchObject({ fast_tx: 1 });
    expect(bench.flow(flow.flowKey)).toMatchObject({ txPackets: 4n, txBytes: headers + 60n + 3n * (headers + 100n) });
  }),
];

const life: Rule[] = [
  rule('the first packet announces; nothing of the flow is fast before the peer has answered', (bench) => {
    const talk = new Conversation({ kind: 'udp' });
    bench.allow(talk);
    const key = bench.flowKeyOf(talk);
    const frame = talk.sent({ id: FORGED_ID });
    const outcome = bench.run('pod_egress', frame);
    const ownKey = bench.flow(key)?.ownKey ?? -1;
    expectAnnounced(outcome, frame, masquerade(ownKey));
    expect(outcome.counters).toMatchObject({ flow_admitted: 1 });
    expectAnnounced(bench.run('pod_egress', frame), frame, masquerade(ownKey), 'peer_silent');
  }),
  rule('an announcement of a packet without DF keeps it without', (bench) => {
    const talk = new Conversation({ kind: 'udp' });
    bench.allow(talk);
    const frame = talk.sent({ id: FORGED_ID, df: false });
    const outcome = bench.run('pod_egress', frame);
    expectAnnounced(outcome, frame, masquerade(bench.flow(bench.flowKeyOf(talk))?.ownKey ?? -1));
  }),
  rule('not fast before the peer says that it holds our key', (bench) => {
    const talk = new Conversation({ kind: 'udp' });
    bench.allow(talk);
    bench.heard(talk.remote, now());
    bench.run('pod_egress', talk.sent());
    bench.run('pod_ingress', talk.delivered({ id: masquerade(7) }));
    const { reasons, parsed } = bench.run('pod_egress', talk.sent());
    expect(reasons).toEqual({ key_exchange: 1 });
    // A: we hold the peer's.
    expect(parsed.id & 0x4000).toBe(0x4000);
  }),
  rule('conntrack is asked before the first fast packet after a slow one, then once a second', (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    const lookups = (): number => bench.run('pod_egress', flow.talk.sent()).counters['ct_lookup'] ?? 0;
    expect([lookups(), lookups(), lookups()]).toEqual([1, 0, 0]);
    bench.run('pod_egress', flow.talk.sent({ l4: { payload: Buffer.alloc(1600) } }));
    expect([lookups(), lookups()]).toEqual([1, 0]);
    const flowNow = bench.flow(flow.flowKey);
    const ahead = (flowNow?.recheckAt ?? 0n) - now();
    expect(ahead > 900n * MS && ahead <= SEC + 20n * MS).toBe(true);
    bench.patchFlow(flow.flowKey, { verifyAt: 1n, recheckAt: now() });
    expect(lookups()).toBe(1);
  }),
  rule('conntrack is asked when another program wants it', (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    const lookups = (): number => bench.run('pod_egress', flow.talk.sent()).counters['ct_lookup'] ?? 0;
    lookups();
    bench.patchFlow(flow.flowKey, { recheckAt: 0n });
    expect([lookups(), lookups()]).toEqual([1, 0]);
  }),
  rule('flow and slot are looked at every 100 ms', (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    requireFast(bench, flow);
    const ahead = (bench.flow(flow.flowKey)?.verifyAt ?? 0n) - now();
    expect(ahead > 50n * MS && ahead <= 120n * MS).toBe(true);
  }),
  rule('an entry that is gone at the recheck ends the flow', (bench) => {
    const flow = bench.establish({ kind: 'tcp' });
    requireFast(bench, flow);
    bench.node.ct.flush();
    bench.patchFlow(flow.flowKey, { verifyAt: 1n, recheckAt: 1n });
    const frame = flow.talk.sent({ id: FORGED_ID });
    const outcome = bench.run('pod_egress', frame);
    expectSlow(outcome, frame, 'ct_missing');
    expect(outcome.counters).toMatchObject({ flow_demoted: 1 });
    expect(bench.flow(flow.flowKey)).toBeUndefined();
  }),
  rule('admission alone extends no timeout, the first fast packet does (TCP)', (bench) => {
    const flow = bench.establish({ kind: 'tcp' });
    expect(bench.entry(flow.talk)?.timeoutSeconds).toBeLessThanOrEqual(100);
    requireFast(bench, flow);
    // The kernel's default for ESTABLISHED: 5 days.
    expect(bench.entry(flow.talk)?.timeoutSeconds).toBeGreaterThan(431_000);
  }),
  rule('timeouts are extended to the value for streams (UDP)', (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    requireFast(bench, flow);
    const left = bench.entry(flow.talk)?.timeoutSeconds ?? 0;
    expect(left).toBeGreaterThan(110);
    expect(left).toBeLessThanOrEqual(120);
  }),
  rule('timeouts are never shortened', (bench) => {
    const talk = new Conversation({ kind: 'udp' });
    bench.allow(talk, { timeoutSeconds: 5000 });
    bench.run('pod_egress', talk.sent());
    for (let i = 0; i < 2; i++) bench.run('pod_ingress', talk.delivered({ id: announcement(7, true) }));
    if (bench.run('pod_egress', talk.sent()).verdict !== Verdict.redirect) throw new Error('the flow is not fast');
    expect(bench.entry(talk)?.timeoutSeconds).toBeGreaterThan(4900);
  }),
  rule('an entry with a fixed timeout is left alone', (bench) => {
    const talk = new Conversation({ kind: 'udp' });
    const status = ALLOWED.status | CtStatus.fixedTimeout;
    bench.allow(talk, { status });
    bench.run('pod_egress', talk.sent());
    bench.run('pod_ingress', talk.delivered({ id: masquerade(7, true) }));
    bench.run('pod_egress', talk.sent());
    expect(bench.entry(talk)?.timeoutSeconds).toBeLessThanOrEqual(100);
  }),
];

const resets: Rule[] = [
  rule('RST of a fast flow: carried fast, ends the flow, its slot and the conntrack entry', (bench) => {
    const flow = bench.establish({ kind: 'tcp' });
    requireFast(bench, flow);
    const l4 = { flags: Tcp.rst | Tcp.ack };
    const outcome = bench.run('pod_egress', flow.talk.sent({ l4 }));
    expect(outcome.verdict).toBe(Verdict.redirect);
    expect(outcome.frame.toString('hex')).toBe(masqueraded(flow, { l4 }).toString('hex'));
    expect(outcome.counters).toMatchObject({ flow_closed: 1, ct_killed: 1, fast_tx: 1 });
    expect(bench.flow(flow.flowKey)).toBeUndefined();
    expect(bench.slot(flow.slotKey)).toMatchObject({ state: SlotState.TOMBSTONE });
    expect(bench.entry(flow.talk)).toBeUndefined();
  }),
  rule('RST in a black hole: carried fast, because conntrack would not let it pass', (bench) => {
    const flow = bench.establish({ kind: 'tcp' });
    requireFast(bench, flow);
    bench.patchFlow(flow.flowKey, { verifyAt: 0n, holeUntil: now() + SEC });
    expectFast(bench, flow, false);
    expect(bench.run('pod_egress', flow.talk.sent({ l4: { flags: Tcp.rst } })).verdict).toBe(Verdict.redirect);
  }),
  rule('RST while the peer is silent: slow', (bench) => {
    const flow = bench.establish({ kind: 'tcp' });
    requireFast(bench, flow);
    bench.heard(flow.talk.remote, now() - 6n * SEC);
    bench.patchFlow(flow.flowKey, { verifyAt: 0n });
    expectFast(bench, flow, false);
    const frame = flow.talk.sent({ id: FORGED_ID, l4: { flags: Tcp.rst } });
    expectSlow(bench.run('pod_egress', frame), frame, 'closed');
  }),
  rule('RST while the peer is silent, with a number that conntrack would refuse: fast', (bench) => {
    const flow = bench.establish({ kind: 'tcp' });
    requireFast(bench, flow);
    bench.heard(flow.talk.remote, now() - 6n * SEC);
    bench.patchFlow(flow.flowKey, { verifyAt: 0n });
    // Conntrack has seen no acknowledgement here: 0 is the highest, and this number is before it.
    const outcome = bench.run('pod_egress', flow.talk.sent({ l4: { flags: Tcp.rst, seq: 0x90000000 } }));
    expect(outcome).toMatchObject({ verdict: Verdict.redirect, counters: { ct_killed: 1 } });
  }),
  rule('RST of a flow that never sent fast: slow', (bench) => {
    const flow = bench.establish({ kind: 'tcp' });
    bench.heard(flow.talk.remote, now() - 6n * SEC);
    const frame = flow.talk.sent({ id: FORGED_ID, l4: { flags: Tcp.rst } });
    expectSlow(bench.run('pod_egress', frame), frame, 'closed');
  }),
  rule('RST while the node drains: slow', (bench) => {
    const flow = bench.establish({ kind: 'tcp' });
    requireFast(bench, flow);
    bench.configure({ flags: DRAINED });
    bench.patchFlow(flow.flowKey, { verifyAt: 0n });
    const frame = flow.talk.sent({ id: FORGED_ID, l4: { flags: Tcp.rst } });
    expectSlow(bench.run('pod_egress', frame), frame, 'closed');
  }),
  rule('RST while the node drains, with a number that conntrack would refuse: slow, and its entry expires', (bench) => {
    const flow = bench.establish({ kind: 'tcp' });
    requireFast(bench, flow);
    bench.configure({ flags: DRAINED });
    bench.patchFlow(flow.flowKey, { verifyAt: 0n });
    const outcome = bench.run('pod_egress', flow.talk.sent({ l4: { flags: Tcp.rst, seq: 0x90000000 } }));
    expect(outcome).toMatchObject({ verdict: Verdict.pass, counters: { ct_killed: 1 } });
  }),
  rule('RST while the node drains, of a flow that an approval admitted: slow, and the sidecar is told', (bench) => {
    bench.configure({ flags: NO_LOOKUP });
    const flow = bench.establish({ kind: 'tcp' });
    bench.configure({ flags: 0 });
    bench.patchFlow(flow.flowKey, { verifyAt: 0n });
    const told = bench.events(() => {
      expect(bench.run('pod_egress', flow.talk.sent({ l4: { flags: Tcp.rst } })).verdict).toBe(Verdict.pass);
    });
    expect(told).toMatchObject([{ type: EventType.RESET, flow: flow.flowKey }]);
  }),
  rule('RST with a spoofed MAC ends nothing', (bench) => {
    const flow = bench.establish({ kind: 'tcp' });
    requireFast(bench, flow);
    const frame = flow.talk.sent({ id: FORGED_ID, smac: GATEWAY_MAC, l4: { flags: Tcp.rst } });
    expectSlow(bench.run('pod_egress', frame), frame, 'spoof');
    expectFast(bench, flow);
  }),
  rule('RST does not end an entry that is not allowed any more', (bench) => {
    const flow = bench.establish({ kind: 'tcp' });
    requireFast(bench, flow);
    bench.node.ct.flush();
    bench.allow(flow.talk, { mark: 0x100 });
    bench.run('pod_egress', flow.talk.sent({ l4: { flags: Tcp.rst } }));
    expect(bench.entry(flow.talk)).toBeDefined();
  }),
];

/** The same node: from POD to POD2. */
function neighbours(
  bench: Bench,
  other: PodInfo = POD2,
): { talk: Conversation; sent: (overrides?: Overrides) => Buffer } {
  // The other side of the conversation is a pod of this node; frames go to it directly.
  const talk = new Conversation({ kind: 'tcp', remote: neighbour(other) });
  bench.allow(talk);
  return { talk, sent: (overrides = {}) => talk.sent({ dmac: other.mac, ...overrides }) };
}

const local: Rule[] = [
  rule('same node: admitted without a slot and without announcing', (bench) => {
    const { talk, sent } = neighbours(bench);
    const frame = sent({ id: FORGED_ID });
    const outcome = bench.run('pod_egress', frame);
    expectSlow(outcome, frame, 'key_exchange');
    expect(bench.flow(bench.flowKeyOf(talk))?.flags).toBe(
      FlowFlag.LOCAL | FlowFlag.HAVE_KEY | FlowFlag.ANNOUNCED | FlowFlag.PEER_COMPLETE,
    );
    expect([...bench.tables.slots.entries()]).toEqual([]);
  }),
  rule('same node: redirected with nothing changed but the mark', (bench) => {
    const { sent } = neighbours(bench);
    bench.run('pod_egress', sent());
    const frame = sent({ id: FORGED_ID, ttl: 9, tos: 0x2b });
    const outcome = bench.run('pod_egress', frame, { mark: 0x77 });
    expectUntouched(outcome, frame, Verdict.redirect);
    expect(outcome.counters).toMatchObject({ fast_local: 1 });
    expect(outcome.skb).toMatchObject({ mark: 0, cb: [0, 0, 0, 0, 0] });
  }),
  rule('same node: a frame for another MAC is not for that pod (new flow)', (bench) => {
    const { sent } = neighbours(bench);
    const frame = sent({ id: FORGED_ID, dmac: GATEWAY_MAC });
    expectSlow(bench.run('pod_egress', frame), frame, 'not_pod');
  }),
  rule('same node: a frame for another MAC is not for that pod (fast flow)', (bench) => {
    const { sent } = neighbours(bench);
    bench.run('pod_egress', sent());
    const frame = sent({ id: FORGED_ID, dmac: GATEWAY_MAC });
    expectSlow(bench.run('pod_egress', frame), frame, 'not_pod');
  }),
  rule('same node: an excluded pod as destination', (bench) => {
    const { sent } = neighbours(bench, EXCLUDED_POD);
    const frame = sent({ id: FORGED_ID });
    expectSlow(bench.run('pod_egress', frame), frame, 'bandwidth');
  }),
  rule('same node: excluded for the node: slow, and the flow ends', (bench) => {
    const { sent } = neighbours(bench);
    bench.run('pod_egress', sent());
    expect(bench.run('pod_egress', sent()).verdict).toBe(Verdict.redirect);
    bench.configure({ excludedLocal: Reason.FEATURE_GATE });
    for (const [key] of [...bench.tables.flows.entries()]) bench.patchFlow(key, { verifyAt: 0n });
    const frame = sent({ id: FORGED_ID });
    expectSlow(bench.run('pod_egress', frame), frame, 'feature_gate');
    expectSlow(bench.run('pod_egress', frame), frame, 'feature_gate');
    expect([...bench.tables.flows.entries()]).toEqual([]);
  }),
  rule('same node: traffic with other nodes is excluded: fast all the same', (bench) => {
    bench.configure({ excludedRemote: Reason.ENCRYPTION });
    const { sent } = neighbours(bench);
    bench.run('pod_egress', sent());
    expect(bench.run('pod_egress', sent()).verdict).toBe(Verdict.redirect);
  }),
  rule('same node: a pod that is gone as destination', (bench) => {
    bench.tables.endpoints.set(POD2.id, { ...bench.tables.endpoints.get(POD2.id), flags: 0 });
    const { sent } = neighbours(bench);
    const frame = sent({ id: FORGED_ID });
    expectSlow(bench.run('pod_egress', frame), frame, 'unknown_endpoint');
  }),
  rule('same node: a pod to itself', (bench) => {
    const { sent } = neighbours(bench, POD);
    const frame = sent({ id: FORGED_ID });
    expectSlow(bench.run('pod_egress', frame), frame, 'not_pod');
  }),
  rule('same node: not without conntrack’s word', (bench) => {
    const { sent } = neighbours(bench);
    bench.node.ct.flush();
    const frame = sent({ id: FORGED_ID });
    expectSlow(bench.run('pod_egress', frame), frame, 'ct_missing');
  }),
  rule('same node: the other pod’s epoch changed: stale', (bench) => {
    const { talk, sent } = neighbours(bench);
    bench.run('pod_egress', sent());
    const endpoint = bench.tables.endpoints.get(POD2.id);
    bench.tables.endpoints.set(POD2.id, { ...endpoint, flags: EndpointFlag.PRESENT, epoch: endpoint.epoch + 1 });
    const frame = sent({ id: FORGED_ID });
    expectSlow(bench.run('pod_egress', frame), frame, 'stale');
    // The address may be a new pod's: for 120 s conntrack's word for the connection does not count.
    for (let i = 0; i < 10; i++) expectSlow(bench.run('pod_egress', frame), frame, 'stale');
    const flow = bench.flow(bench.flowKeyOf(talk));
    expect(flow?.holeUntil).toBeGreaterThan(now() + 118n * SEC);
    bench.patchFlow(bench.flowKeyOf(talk), { verifyAt: 0n, holeUntil: 1n });
    expectSlow(bench.run('pod_egress', frame), frame, 'stale');
    expectSlow(bench.run('pod_egress', frame), frame, 'key_exchange');
  }),
  rule('same node: draining', (bench) => {
    const { talk, sent } = neighbours(bench);
    bench.run('pod_egress', sent());
    bench.configure({ flags: DRAINED });
    const frame = sent({ id: FORGED_ID });
    expectSlow(bench.run('pod_egress', frame), frame, 'draining');
    expect(bench.flow(bench.flowKeyOf(talk))).toBeDefined();
  }),
  rule('same node: RST is carried and ends flow and conntrack entry', (bench) => {
    const { talk, sent } = neighbours(bench);
    bench.run('pod_egress', sent());
    bench.run('pod_egress', sent());
    const frame = sent({ l4: { flags: Tcp.rst } });
    const outcome = bench.run('pod_egress', frame);
    expectUntouched(outcome, frame, Verdict.redirect);
    expect(bench.flow(bench.flowKeyOf(talk))).toBeUndefined();
    expect(bench.entry(talk)).toBeUndefined();
  }),
];

export const podEgressFastRules: readonly Rule[] = inBoth([...wire, ...life, ...resets, ...local], /without DF/);
