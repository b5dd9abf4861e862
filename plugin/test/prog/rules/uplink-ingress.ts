/** uplink_ingress: what is restored, what is rejected, what passes, and control messages. */
import { expect } from '@jest/globals';
import { PROTOCOL_VERSION } from '../../../src/dataplane/layout.ts';
import { FlowFlag, PeerFlag, Reason, SlotState } from '../../../src/gen/layouts.ts';
import {
  ALLOWED,
  announcement,
  byFamily,
  Conversation,
  CONTROL_MAGIC,
  masquerade,
  MS,
  NODE,
  now,
  PEER,
  PEER2,
  PLAIN_NODE,
  POD,
  SEC,
  spokenEnd,
  spokenFamily,
  STRANGER_MAC,
  TUNNEL_PORT,
  Verdict,
  type Bench,
  type ConversationSpec,
  type Established,
  type Outcome,
  DRAINED,
} from '../harness.ts';
import { buildFrame, Chunk, payloadForZeroSum, Proto, Tcp } from '../packets.ts';
import { expectFast, expectUntouched, inBoth, requireFast, rule } from './rule.ts';
import type { Rule } from './rule.ts';

type Overrides = NonNullable<Parameters<Conversation['sent']>[0]>;

/** What a control message holds; see struct xmasq_ctl. */
export interface Control {
  readonly tag?: number;
  readonly version?: number;
  readonly type: number;
  readonly proto: number;
  readonly sport: number;
  readonly dport: number;
  readonly key: number;
  /** Number of a probe. */
  readonly count?: number;
}
const CONTROL_BYTES = 20;
const REJECT = 1;
const ACK = 2;

/** A control message in a frame. */
export function controlFrame(
  control: Control,
  from: { readonly addr: string; readonly addr6?: string; readonly mac: string },
  to: { readonly addr: string; readonly addr6?: string; readonly mac: string },
  { dst6, ...overrides }: Overrides = {},
): Buffer {
  // IPv6 does not know datagrams without a checksum.
  const noChecksum = spokenFamily() === 4 ? { checksum: 0 } : {};
  const payload = Buffer.alloc(CONTROL_BYTES);
  payload.writeUInt8(control.tag ?? 0xc1, 0);
  payload.writeUInt8(control.version ?? PROTOCOL_VERSION, 1);
  payload.writeUInt8(control.type, 2);
  payload.writeUInt8(control.proto, 3);
  payload.writeUInt16BE(control.sport, 4);
  payload.writeUInt16BE(control.dport, 6);
  payload.writeUInt8(control.key, 12);
  payload.writeUInt8(control.count ?? 0, 13);
  return buildFrame({
    smac: from.mac,
    dmac: to.mac,
    src: spokenEnd(from).addr,
    dst: spokenEnd(to).addr,
    transport: { kind: 'udp', sport: TUNNEL_PORT, dport: TUNNEL_PORT, payload, ...noChecksum },
    ...overrides,
    ...(dst6 !== undefined && spokenFamily() === 6 ? { dst: dst6 } : {}),
  });
}

/** Dropped, and answered with a rejection in its exact form. */
function expectRejected(outcome: Outcome, flow: Pick<Established, 'talk'>, key: number, counter = 'unknown_key'): void {
  const { sport, dport, proto } = flow.talk.slotKey();
  const rejection = controlFrame({ type: REJECT, proto, sport, dport, key }, NODE, flow.talk.remote);
  expect(outcome.counters).toMatchObject({ [counter]: 1, reject_sent: 1 });
  expect(outcome.counters).not.toHaveProperty('restored');
  expect(outcome.verdict).toBe(Verdict.redirect);
  expect(outcome.frame.toString('hex')).toBe(rejection.toString('hex'));
  // uplink_egress lets no other control message pass.
  expect(outcome.skb.cb).toEqual([...CONTROL_MAGIC, 0]);
}

/** The packet goes on to the stack as it came, and nobody counted it. */
function expectPassed(outcome: Outcome, input: Buffer): void {
  expectUntouched(outcome, input);
  expect(outcome.counters).toEqual({});
}

/** Restored in its exact form: as the slow path would have delivered it, with an ID of 0. */
function expectRestored(bench: Bench, flow: Established, overrides: Overrides = {}, delivered: Overrides = {}): void {
  const frame = flow.talk.masqueraded({ id: flow.idIn, ...overrides });
  const outcome = bench.run('uplink_ingress', frame);
  const l4 = overrides.l4 === undefined ? {} : { l4: overrides.l4 };
  expect(outcome.counters).toMatchObject({ restored: 1 });
  expect(outcome.verdict).toBe(Verdict.redirect);
  expect(outcome.frame.toString('hex')).toBe(flow.talk.delivered({ id: 0, ...l4, ...delivered }).toString('hex'));
  expect(outcome.parsed.problems).toEqual([]);
}

const restored: Rule[] = [
  ...(['tcp', 'udp', 'icmp', 'sctp', 'raw'] as const).map((kind) =>
    rule(`${kind}: every byte of the restored packet`, (bench) => expectRestored(bench, bench.establish({ kind }))),
  ),
  ...[0, 1, 2, 3].map((ecn) =>
    rule(`restored: ECN ${ecn} is copied, DSCP is the learned one`, (bench) =>
      expectRestored(bench, bench.establish({ kind: 'udp' }), { tos: ecn }, { tos: 0x28 | ecn }),
    ),
  ),
  rule('DSCP and TTL of the underlay mean nothing', (bench) =>
    expectRestored(bench, bench.establish({ kind: 'udp' }), { tos: 0xfc, ttl: 1 }),
  ),
  rule('N: DF is taken away and the ID is fresh, without the marker', (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    const ids = new Set<number>();
    for (let i = 0; i < 16; i++) {
      const frame = flow.talk.masqueraded({ id: masquerade(flow.ownKey, true) });
      const { frame: out, parsed, verdict } = bench.run('uplink_ingress', frame);
      expect(verdict).toBe(Verdict.redirect);
      expect(parsed.id).toBeLessThan(0x8000);
      expect(out.toString('hex')).toBe(flow.talk.delivered({ id: parsed.id, df: false }).toString('hex'));
      ids.add(parsed.id);
    }
    expect(ids.size).toBeGreaterThan(8);
  }),
  rule('the segment count in the ID does not matter', (bench) => {
    const flow = bench.establish({ kind: 'tcp' });
    for (const count of [1, 31, 63]) expectRestored(bench, flow, { id: masquerade(flow.ownKey, false, count) });
  }),
  rule('Ethernet padding is let be', (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    const short = { l4: { payload: Buffer.from('x') }, trailer: Buffer.alloc(17) };
    expectRestored(bench, flow, short, { trailer: short.trailer });
  }),
  rule('restored: a UDP checksum of zero stays zero', (bench) =>
    expectRestored(bench, bench.establish({ kind: 'udp' }), { l4: { checksum: 0 } }),
  ),
  rule('restored: a UDP checksum that becomes zero is written as 0xffff', (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    const payload = payloadForZeroSum((bytes) => flow.talk.delivered({ id: 0, l4: { payload: bytes } }));
    expectRestored(bench, flow, { l4: { payload } });
  }),
  rule('the mark is cleared, cb is empty', (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    const { skb } = bench.run('uplink_ingress', flow.talk.masqueraded({ id: flow.idIn }), { mark: 0x99 });
    expect(skb).toMatchObject({ mark: 0, cb: [0, 0, 0, 0, 0] });
  }),
  rule('counts packets and bytes per segment, and is a sign of life of the peer', (bench) => {
    const flow = bench.establish({ kind: 'tcp' });
    bench.heard(flow.talk.remote, now() - 3n * SEC);
    const frame = flow.talk.masqueraded({ id: flow.idIn, l4: { payload: Buffer.alloc(300) } });
    bench.run('uplink_ingress', frame, { gso_size: 100, gso_segs: 3 });
    const slot = bench.slot(flow.slotKey);
    expect(slot).toMatchObject({ rxPackets: 3n, rxBytes: 3n * byFamily(spokenFamily(), 140n, 160n) });
    const { lastLife, lastConfirmed } = bench.tables.peerState.get(flow.talk.remote.id);
    expect(now() - lastLife < 100n * MS && now() - lastConfirmed < 100n * MS).toBe(true);
    expect(now() - (slot?.lastRx ?? 0n) < 100n * MS).toBe(true);
  }),
  rule('a single packet is a sign of life of the peer, too, once in a tick', (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    expectRestored(bench, flow);
    bench.heard(flow.talk.remote, now() - 3n * SEC);
    bench.patchSlot(flow.slotKey, { tick: 0n, lastRx: now() - 50n * MS });
    expectRestored(bench, flow);
    const { lastLife, lastConfirmed } = bench.tables.peerState.get(flow.talk.remote.id);
    expect(now() - lastLife < 40n * MS && now() - lastConfirmed < 40n * MS).toBe(true);
    expect(now() - (bench.slot(flow.slotKey)?.lastRx ?? 0n) < 40n * MS).toBe(true);
  }),
  rule('after a pause of the peer the slot is looked at, whenever its last packet was', (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    expectRestored(bench, flow);
    bench.tables.flows.delete(flow.flowKey);
    bench.patchSlot(flow.slotKey, { tick: 0n, lastRx: now() - 500n * MS });
    const { counters } = bench.run('uplink_ingress', flow.talk.masqueraded({ id: flow.idIn }));
    expect(counters).toMatchObject({ unknown_key: 1 });
  }),
  rule('what receive offload merged beyond 64 segments is restored, too', (bench) => {
    const flow = bench.establish({ kind: 'tcp' });
    const frame = flow.talk.masqueraded({ id: flow.idIn, l4: { payload: Buffer.alloc(2000) } });
    const outcome = bench.run('uplink_ingress', frame, { gso_size: 20, gso_segs: 100 });
    expect(outcome.counters).toMatchObject({ restored: 1 });
  }),
  rule('a slot that matches is proof enough: the peer need not have been heard of', (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    bench.heard(flow.talk.remote, 0n);
    expectRestored(bench, flow);
  }),
  rule('within a second after a FIN', (bench) => {
    const flow = bench.establish({ kind: 'tcp' });
    bench.run('pod_egress', flow.talk.sent({ l4: { flags: Tcp.fin } }));
    if (bench.slot(flow.slotKey)?.state !== SlotState.CLOSING) throw new Error('the slot is not closing');
    bench.patchSlot(flow.slotKey, { freedAt: now() - 900n * MS });
    expectRestored(bench, flow);
  }),
  rule('masqueraded packets prove that the peer can restore: PEER_COMPLETE', (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    const flags = FlowFlag.KEYED | FlowFlag.HAVE_KEY | FlowFlag.ANNOUNCED;
    bench.patchFlow(flow.flowKey, { flags });
    expectRestored(bench, flow);
    expect(bench.flow(flow.flowKey)?.flags).toBe(flags | FlowFlag.PEER_COMPLETE);
  }),
  rule('RST: delivered; ends the flow, the slot and the conntrack entry', (bench) => {
    const flow = bench.establish({ kind: 'tcp' });
    expectRestored(bench, flow, { l4: { flags: Tcp.rst } });
    expect(bench.flow(flow.flowKey)).toBeUndefined();
    expect(bench.slot(flow.slotKey)).toMatchObject({ state: SlotState.TOMBSTONE });
    expect(bench.entry(flow.talk)).toBeUndefined();
  }),
];

const rechecks: Rule[] = [
  rule('conntrack is asked once a second, and the timeout extended', (bench) => {
    const flow = bench.establish({ kind: 'tcp' });
    const run = (): Outcome => bench.run('uplink_ingress', flow.talk.masqueraded({ id: flow.idIn }));
    expect(run().counters).toMatchObject({ ct_lookup: 1, ct_extended: 1 });
    expect(bench.entry(flow.talk)?.timeoutSeconds).toBeGreaterThan(431_000);
    expect(run().counters).not.toHaveProperty('ct_lookup');
    bench.patchSlot(flow.slotKey, { recheckAt: now() });
    expect(run().counters).toMatchObject({ ct_lookup: 1 });
  }),
  ...(
    [
      ['gone', undefined],
      ['not allowed any more', { mark: 0x100 }],
      ['under L7 policy now', { mark: 0x83 }],
      ['in another zone', { zone: 7 }],
    ] as const
  ).map(([name, spec]) =>
    rule(`the conntrack entry is ${name}: demoted and rejected`, (bench) => {
      const flow = bench.establish({ kind: 'udp' });
      bench.node.ct.flush();
      if (spec !== undefined) bench.allow(flow.talk, spec);
      const outcome = bench.run('uplink_ingress', flow.talk.masqueraded({ id: flow.idIn }));
      expectRejected(outcome, flow, flow.ownKey);
      expect(outcome.counters).toMatchObject({ flow_demoted: 1 });
      expect(bench.flow(flow.flowKey)).toBeUndefined();
      expect(bench.slot(flow.slotKey)).toMatchObject({ state: SlotState.TOMBSTONE });
    }),
  ),
  rule('the approval has expired: demoted and rejected', (bench) => {
    const flow = bench.establish({ kind: 'sctp' });
    bench.tables.approvals.set(flow.flowKey, { expires: now() });
    const outcome = bench.run('uplink_ingress', flow.talk.masqueraded({ id: flow.idIn }));
    expectRejected(outcome, flow, flow.ownKey);
    expect(bench.flow(flow.flowKey)).toBeUndefined();
  }),
  rule('the flow of the slot is gone: rejected', (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    bench.tables.flows.delete(flow.flowKey);
    expectRejected(bench.run('uplink_ingress', flow.talk.masqueraded({ id: flow.idIn })), flow, flow.ownKey);
    expect(bench.slot(flow.slotKey)).toMatchObject({ state: SlotState.TOMBSTONE });
  }),
  rule('the flow of the slot has another slot by now: rejected', (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    bench.patchFlow(flow.flowKey, { slotGen: ((bench.flow(flow.flowKey)?.slotGen ?? 0) ^ 2) >>> 0 });
    expectRejected(bench.run('uplink_ingress', flow.talk.masqueraded({ id: flow.idIn })), flow, flow.ownKey);
  }),
];

/** Rejected after this change. @param change may return the key to come with instead of the right one */
function rejected(name: string, change: (bench: Bench, flow: Established) => unknown, counter?: string): Rule {
  return rule(`rejected: ${name}`, (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    // So that the recheck, which would notice, is not due.
    bench.run('uplink_ingress', flow.talk.masqueraded({ id: flow.idIn }));
    const changed = change(bench, flow);
    const key = typeof changed === 'number' ? changed : flow.ownKey;
    const outcome = bench.run('uplink_ingress', flow.talk.masqueraded({ id: masquerade(key) }));
    expectRejected(outcome, flow, key, counter);
  });
}

const rejections: Rule[] = [
  rejected('another key', (_bench, flow) => flow.ownKey ^ 1),
  rejected('no slot', (bench, flow) => {
    bench.tables.slots.delete(flow.slotKey);
  }),
  rejected(
    'a slot that has learned no header',
    (bench, flow) => bench.patchSlot(flow.slotKey, { flags: 0 }),
    'incomplete',
  ),
  rejected('a tombstone', (bench, flow) => bench.patchSlot(flow.slotKey, { state: SlotState.TOMBSTONE })),
  rejected('more than a second after a FIN', (bench, flow) => {
    bench.patchSlot(flow.slotKey, { state: SlotState.CLOSING, freedAt: now() - 1010n * MS });
  }),
  rejected('a slot that is being changed', (bench, flow) => {
    bench.patchSlot(flow.slotKey, { gen: ((bench.slot(flow.slotKey)?.gen ?? 0) | 1) >>> 0 });
  }),
  rejected('endpoint epoch changed', (bench) => {
    bench.tables.endpoints.set(POD.id, { ...bench.tables.endpoints.get(POD.id), epoch: 99 });
  }),
  rejected('endpoint gone', (bench) => {
    bench.tables.endpoints.set(POD.id, { ...bench.tables.endpoints.get(POD.id), flags: 0 });
  }),
  rejected('endpoint excluded', (bench) => {
    bench.tables.endpoints.set(POD.id, { ...bench.tables.endpoints.get(POD.id), excluded: Reason.BANDWIDTH });
  }),
  rejected('peer epoch changed', (bench) => {
    bench.tables.peers.set(PEER.id, { ...bench.tables.peers.get(PEER.id), epoch: 99 });
  }),
  ...(['tcp', 'udp', 'icmp', 'sctp', 'raw'] as const).map((kind) =>
    rule(`the form of a rejection (${kind})`, (bench) => {
      bench.heard(PEER, now());
      const talk = new Conversation({ kind });
      const outcome = bench.run('uplink_ingress', talk.masqueraded({ id: masquerade(0x42) }));
      expectRejected(outcome, { talk }, 0x42);
      expect(outcome.frame.length).toBe(byFamily(spokenFamily(), 62, 82));
      expect(outcome.parsed.problems).toEqual([]);
    }),
  ),
  rule('a rejection is made of the shortest and of a long packet', (bench) => {
    bench.heard(PEER, now());
    const talk = new Conversation({ kind: 'udp' });
    for (const bytes of [0, 1, 1472]) {
      const l4 = { payload: Buffer.alloc(bytes) };
      expectRejected(bench.run('uplink_ingress', talk.masqueraded({ id: masquerade(9), l4 })), { talk }, 9);
    }
  }),
  rule('RST with an unknown key: dropped, not answered', (bench) => {
    bench.heard(PEER, now());
    const frame = new Conversation({ kind: 'tcp' }).masqueraded({ id: masquerade(9), l4: { flags: Tcp.rst } });
    const outcome = bench.run('uplink_ingress', frame);
    expect(outcome.verdict).toBe(Verdict.drop);
    expect(outcome.counters).toEqual(expect.not.objectContaining({ reject_sent: 1 }));
    expect(outcome.counters).toMatchObject({ unknown_key: 1 });
  }),
  rule('at most 100 rejections to a peer in a second, the rest is dropped', (bench) => {
    bench.heard(PEER, now());
    bench.heard(PEER2, now());
    const frame = new Conversation({ kind: 'udp' }).masqueraded({ id: masquerade(9) });
    const seen = { sent: 0, limited: 0 };
    // A window that has begun just now lasts for the whole test.
    bench.heard(PEER, now(), { rejectWindow: now(), rejectCount: 95n });
    for (let i = 0; i < 8; i++) {
      const { counters, verdict } = bench.run('uplink_ingress', frame);
      if (counters['reject_sent'] === 1 && verdict === Verdict.redirect) seen.sent++;
      if (counters['reject_limited'] === 1 && verdict === Verdict.drop) seen.limited++;
    }
    expect(seen).toEqual({ sent: 5, limited: 3 });
    const other = new Conversation({ kind: 'udp', remote: PEER2 }).masqueraded({ id: masquerade(9) });
    expect(bench.run('uplink_ingress', other).counters).toMatchObject({ reject_sent: 1 });
    bench.heard(PEER, now(), { rejectWindow: now() - SEC, rejectCount: 100n });
    expect(bench.run('uplink_ingress', frame).counters).toMatchObject({ reject_sent: 1 });
  }),
  rule('after a loss of state peers that were not heard of are interpreted, too', (bench) => {
    bench.configure({ stateSince: now() - 29n * SEC });
    const talk = new Conversation({ kind: 'udp' });
    expectRejected(bench.run('uplink_ingress', talk.masqueraded({ id: masquerade(9) })), { talk }, 9);
  }),
  rule('the key of another peer’s slot does not count', (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    bench.heard(PEER2, now());
    const talk = new Conversation({ kind: 'udp', remote: { ...PEER2, pod: PEER.pod, pod6: PEER.pod6 } });
    expectRejected(bench.run('uplink_ingress', talk.masqueraded({ id: flow.idIn })), { talk }, flow.ownKey);
  }),
  rule('a zone-0 connection of the node itself: passes, counted', (bench) => {
    bench.heard(PEER, now());
    const talk = new Conversation({ kind: 'udp' });
    const { family, node, remote } = talk;
    const tuple = { family, src: node.addr, dst: remote.addr };
    bench.node.ct.insert(
      { ...tuple, proto: Proto.udp, sport: talk.sport, dport: talk.dport },
      { ...ALLOWED, zone: 0, mark: 0 },
    );
    const frame = talk.masqueraded({ id: masquerade(9) });
    const outcome = bench.run('uplink_ingress', frame);
    expectUntouched(outcome, frame);
    expect(outcome.counters).toEqual({ unknown_passed: 1 });
  }),
  rule('a connection of the same addresses in another zone does not count', (bench) => {
    bench.heard(PEER, now());
    const talk = new Conversation({ kind: 'udp' });
    const { family, node, remote } = talk;
    const tuple = { family, src: node.addr, dst: remote.addr };
    bench.node.ct.insert({ ...tuple, proto: Proto.udp, sport: talk.sport, dport: talk.dport }, ALLOWED);
    expectRejected(bench.run('uplink_ingress', talk.masqueraded({ id: masquerade(9) })), { talk }, 9);
  }),
];

/** Packets that are not judged masqueraded, though a slot would fit: none of them may be restored, dropped or changed. */
function passes(name: string, kind: ConversationSpec['kind'], overrides: Overrides): Rule {
  return rule(`not masqueraded: ${name}`, (bench) => {
    const flow = bench.establish({ kind });
    const frame = flow.talk.masqueraded({ id: flow.idIn, ...overrides });
    expectPassed(bench.run('uplink_ingress', frame), frame);
  });
}

const passing: Rule[] = [
  passes('no DF', 'udp', { df: false }),
  passes('no marker', 'udp', { id: 0x7fff }),
  rule('not masqueraded: our key, but no marker', (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    const frame = flow.talk.masqueraded({ id: flow.idIn & 0x7fff });
    expectPassed(bench.run('uplink_ingress', frame), frame);
  }),
  passes('first fragment', 'udp', { mf: true }),
  passes('later fragment', 'udp', { fragmentOffset: 10 }),
  passes('IP options', 'udp', { options: Buffer.alloc(4, 1) }),
  passes('reserved flag', 'udp', { evil: true }),
  passes('SYN', 'tcp', { l4: { flags: Tcp.syn } }),
  passes('SYN+ACK', 'tcp', { l4: { flags: Tcp.syn | Tcp.ack } }),
  passes('FIN', 'tcp', { l4: { flags: Tcp.fin | Tcp.ack } }),
  passes('AH', 'udp', { transport: { kind: 'raw', proto: Proto.ah } }),
  passes('ESP', 'udp', { transport: { kind: 'raw', proto: Proto.esp } }),
  passes('ICMP unreachable', 'icmp', { l4: { type: 3 } }),
  passes('SCTP INIT', 'sctp', { l4: { chunks: [{ type: Chunk.init, body: Buffer.alloc(16) }] } }),
  passes('from port 53', 'udp', { l4: { sport: 53 } }),
  passes('to port 4500', 'udp', { l4: { dport: 4500 } }),
  passes('tunnelled', 'udp', { l4: { dport: TUNNEL_PORT, payload: Buffer.alloc(50, 8) } }),
  passes('another address of the node', 'udp', { dst: '192.0.2.99', dst6: '2001:db8::99' }),
  passes('another host’s frame (pkt_type OTHERHOST)', 'udp', { dmac: STRANGER_MAC }),
  passes('broadcast frame', 'udp', { dmac: 'ff:ff:ff:ff:ff:ff' }),
  passes('total length beyond the frame', 'udp', { totalLength: 900 }),
  passes('VLAN tag in the frame', 'udp', { vlan: 5 }),
  passes('not IPv4', 'udp', { etherType: 0x86dd }),
  passes('from a node without XMasq', 'udp', { src: PLAIN_NODE.addr, src6: PLAIN_NODE.addr6 }),
  passes('from somebody unknown', 'udp', { src: '198.51.100.1', src6: '2001:db8:1::1' }),
  rule('not masqueraded: unknown key from a peer that was not heard of for 30 s', (bench) => {
    const talk = new Conversation({ kind: 'udp' });
    const frame = talk.masqueraded({ id: masquerade(9) });
    bench.heard(PEER, now() - 30n * SEC);
    expectPassed(bench.run('uplink_ingress', frame), frame);
    bench.heard(PEER, now() - 29n * SEC);
    expectRejected(bench.run('uplink_ingress', frame), { talk }, 9);
  }),
  rule('not masqueraded: a slot that does not match, of a peer that was not heard of for 30 s', (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    bench.heard(PEER, now() - 30n * SEC);
    const frame = flow.talk.masqueraded({ id: masquerade(flow.ownKey ^ 1) });
    expectPassed(bench.run('uplink_ingress', frame), frame);
  }),
  rule(
    'not masqueraded: unknown key from a peer that has withdrawn 30 s ago; until then it may still send',
    (bench) => {
      bench.tables.peers.set(PEER.id, { ...bench.tables.peers.get(PEER.id), flags: PeerFlag.PRESENT });
      bench.configure({ stateSince: now() - SEC });
      const talk = new Conversation({ kind: 'udp' });
      const frame = talk.masqueraded({ id: masquerade(9) });
      expectPassed(bench.run('uplink_ingress', frame), frame);
      bench.heard(PEER, now() - 30n * SEC);
      expectPassed(bench.run('uplink_ingress', frame), frame);
      bench.heard(PEER, now() - 29n * SEC);
      expectRejected(bench.run('uplink_ingress', frame), { talk }, 9);
    },
  ),
  rule('not masqueraded: unknown key from a peer that is gone', (bench) => {
    bench.heard(PEER, now());
    bench.tables.peers.set(PEER.id, { ...bench.tables.peers.get(PEER.id), flags: 0 });
    const frame = new Conversation({ kind: 'udp' }).masqueraded({ id: masquerade(9) });
    expectPassed(bench.run('uplink_ingress', frame), frame);
  }),
];

const acks: Rule[] = [
  rule('a pod that is silent: the peer is told that its packets arrive, every 150 ms', (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    const frame = flow.talk.masqueraded({ id: flow.idIn });
    bench.run('uplink_ingress', frame);
    bench.patchSlot(flow.slotKey, { ackAt: 0n });
    const first = bench.run('uplink_ingress', frame);
    expect(first.counters).toMatchObject({ ack_sent: 1, restored: 1 });
    expect(first.frame.toString('hex')).toBe(flow.talk.delivered({ id: 0 }).toString('hex'));
    expect(first.skb.cb).toEqual([0, 0, 0, 0, 0]);
    expect(bench.run('uplink_ingress', frame).counters).not.toHaveProperty('ack_sent');
    const ahead = (bench.slot(flow.slotKey)?.ackAt ?? 0n) - now();
    expect(ahead > 100n * MS && ahead <= 170n * MS).toBe(true);
  }),
  rule('a pod that has sent fast since: nothing to tell', (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    requireFast(bench, flow);
    const frame = flow.talk.masqueraded({ id: flow.idIn });
    const outcome = bench.run('uplink_ingress', frame);
    expect(outcome.counters).toMatchObject({ restored: 1 });
    expect(outcome.counters).not.toHaveProperty('ack_sent');
    bench.patchSlot(flow.slotKey, { ackAt: 0n });
    expect(bench.run('uplink_ingress', frame).counters).toMatchObject({ ack_sent: 1 });
  }),
  rule('a node that drains tells nothing', (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    bench.configure({ flags: DRAINED });
    bench.patchSlot(flow.slotKey, { ackAt: 0n });
    const outcome = bench.run('uplink_ingress', flow.talk.masqueraded({ id: flow.idIn }));
    expect(outcome.counters).toMatchObject({ restored: 1 });
    expect(outcome.counters).not.toHaveProperty('ack_sent');
  }),
];

/** A message about the flow as this node sends it. */
function about(flow: Established, type: number, change: Partial<Control> = {}): Control {
  const { sport, dport, proto } = flow.flowKey;
  return { type, proto, sport, dport, key: flow.peerKey, ...change };
}

function expectIgnored(bench: Bench, flow: Established, frame: Buffer): void {
  const before = bench.flow(flow.flowKey);
  const slot = bench.slot(flow.slotKey);
  const outcome = bench.run('uplink_ingress', frame);
  expect(outcome.counters).toEqual({ reject_ignored: 1 });
  expect(outcome.verdict).toBe(Verdict.drop);
  expect(bench.flow(flow.flowKey)).toEqual(before);
  expect(bench.slot(flow.slotKey)).toEqual(slot);
}

function ignored(
  name: string,
  build: (flow: Established) => Buffer,
  prepare?: (bench: Bench, flow: Established) => void,
): Rule {
  return rule(`control message ignored: ${name}`, (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    requireFast(bench, flow);
    prepare?.(bench, flow);
    expectIgnored(bench, flow, build(flow));
  });
}

const control: Rule[] = [
  ...(['tcp', 'udp', 'icmp', 'sctp', 'raw'] as const).map((kind) =>
    rule(
      `reject (${kind}): the flow goes slow, announces without A, and does not learn this key for a second`,
      (bench) => {
        const flow = bench.establish({ kind });
        requireFast(bench, flow);
        const outcome = bench.run('uplink_ingress', controlFrame(about(flow, REJECT), flow.talk.remote, NODE));
        expect(outcome.verdict).toBe(Verdict.drop);
        expect(outcome.counters).toEqual({ reject_received: 1 });
        const entry = bench.flow(flow.flowKey);
        expect((entry?.flags ?? 0) & ~FlowFlag.APPROVED).toBe(FlowFlag.KEYED | FlowFlag.ANNOUNCED);
        expect(entry).toMatchObject({ rejectKey: flow.peerKey, fastSince: 0n, recheckAt: 0n });
        const pause = (entry?.rejectUntil ?? 0n) - now();
        expect(pause > 900n * MS && pause <= 1020n * MS).toBe(true);
        expect(bench.run('pod_egress', flow.talk.sent()).parsed.id).toBe(announcement(flow.ownKey, false));
      },
    ),
  ),
  rule('a rejected key is learned again after the pause, another one at once', (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    requireFast(bench, flow);
    bench.run('uplink_ingress', controlFrame(about(flow, REJECT), PEER, NODE));
    const announce = (key: number): void => {
      bench.run('pod_ingress', flow.talk.delivered({ id: announcement(key, true) }));
    };
    announce(flow.peerKey);
    expectFast(bench, flow, false);
    bench.patchFlow(flow.flowKey, { rejectUntil: now() });
    announce(flow.peerKey);
    expectFast(bench, flow);
    bench.run('uplink_ingress', controlFrame(about(flow, REJECT), PEER, NODE));
    announce(flow.peerKey ^ 3);
    expectFast(bench, flow);
  }),
  rule('the pause doubles to a minute, and begins anew after a quiet minute', (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    const pauses: bigint[] = [];
    const reject = (): void => {
      bench.patchFlow(flow.flowKey, {
        flags: FlowFlag.KEYED | FlowFlag.HAVE_KEY | FlowFlag.ANNOUNCED | FlowFlag.PEER_COMPLETE,
        fastSince: now(),
      });
      bench.run('uplink_ingress', controlFrame(about(flow, REJECT), PEER, NODE));
      pauses.push(((bench.flow(flow.flowKey)?.rejectUntil ?? 0n) - now() + SEC / 2n) / SEC);
      bench.patchFlow(flow.flowKey, { rejectUntil: now() });
    };
    for (let i = 0; i < 8; i++) reject();
    expect(pauses.map(Number)).toEqual([1, 2, 4, 8, 16, 32, 60, 60]);
    bench.patchFlow(flow.flowKey, { rejectUntil: now() - 61n * SEC });
    reject();
    expect(pauses.at(-1)).toBe(1n);
  }),
  rule('the pause of a key goes on doubling when another one is rejected within it', (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    requireFast(bench, flow);
    bench.patchFlow(flow.flowKey, { rejectLevel: 3, rejectKey: flow.peerKey ^ 1, rejectUntil: now() + 5n * SEC });
    bench.run('uplink_ingress', controlFrame(about(flow, REJECT), PEER, NODE));
    expect(bench.flow(flow.flowKey)).toMatchObject({ rejectLevel: 4, rejectKey: flow.peerKey });
  }),
  rule('ack: the slot and the peer are heard of', (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    requireFast(bench, flow);
    bench.heard(PEER, now() - 4n * SEC);
    const outcome = bench.run('uplink_ingress', controlFrame(about(flow, ACK), PEER, NODE));
    expect(outcome.verdict).toBe(Verdict.drop);
    expect(outcome.counters).toEqual({ ack_received: 1 });
    expect(now() - (bench.slot(flow.slotKey)?.lastRx ?? 0n) < 100n * MS).toBe(true);
    expect(bench.slot(flow.slotKey)).toMatchObject({ acks: 1 });
    expect(now() - bench.tables.peerState.get(PEER.id).lastLife < 100n * MS).toBe(true);
    expectFast(bench, flow);
  }),
  ignored('another key', (flow) => controlFrame(about(flow, REJECT, { key: flow.peerKey ^ 1 }), PEER, NODE)),
  ignored('other ports', (flow) => controlFrame(about(flow, REJECT, { sport: flow.flowKey.sport + 1 }), PEER, NODE)),
  ignored('another protocol', (flow) => controlFrame(about(flow, REJECT, { proto: Proto.tcp }), PEER, NODE)),
  ignored('another version', (flow) => controlFrame(about(flow, REJECT, { version: 1 }), PEER, NODE)),
  ignored('an unknown type', (flow) => controlFrame(about(flow, 4), PEER, NODE)),
  ignored('another peer', (flow) => controlFrame(about(flow, REJECT), PEER2, NODE)),
  ignored('an ack of another peer', (flow) => controlFrame(about(flow, ACK), PEER2, NODE)),
  ignored('somebody unknown', (flow) =>
    controlFrame(about(flow, REJECT), { addr: '198.51.100.1', addr6: '2001:db8:1::1', mac: PEER.mac }, NODE),
  ),
  ignored(
    'a flow that has not sent with this key',
    (flow) => controlFrame(about(flow, REJECT), PEER, NODE),
    (bench, flow) => bench.patchFlow(flow.flowKey, { fastSince: 0n }),
  ),
  ignored(
    'a flow without the peer’s key',
    (flow) => controlFrame(about(flow, REJECT), PEER, NODE),
    (bench, flow) => bench.patchFlow(flow.flowKey, { flags: FlowFlag.KEYED | FlowFlag.ANNOUNCED }),
  ),
  ignored(
    'a slot that is a tombstone',
    (flow) => controlFrame(about(flow, REJECT), PEER, NODE),
    (bench, flow) => bench.patchSlot(flow.slotKey, { state: SlotState.TOMBSTONE }),
  ),
  ...(
    [
      ['VXLAN', { tag: 0x08 }, {}],
      ['Geneve', { tag: 0x00 }, {}],
      ['another address of the node', {}, { dst: '192.0.2.99', dst6: '2001:db8::99' }],
      ['a fragment', {}, { mf: true }],
      ['another host’s frame', {}, { dmac: STRANGER_MAC }],
    ] as const
  ).map(([name, change, overrides]) =>
    rule(`no control message: ${name}`, (bench) => {
      const flow = bench.establish({ kind: 'udp' });
      requireFast(bench, flow);
      const frame = controlFrame(about(flow, REJECT, change), PEER, NODE, overrides);
      expectPassed(bench.run('uplink_ingress', frame), frame);
      expectFast(bench, flow);
    }),
  ),
  rule('no control message: shorter than one', (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    const transport = { kind: 'udp', sport: 1, dport: TUNNEL_PORT, payload: Buffer.alloc(19, 0xc1) } as const;
    const frame = flow.talk.masqueraded({ id: 0, transport });
    expectPassed(bench.run('uplink_ingress', frame), frame);
  }),
];

export const uplinkIngressRules: readonly Rule[] = inBoth(
  [...restored, ...rechecks, ...rejections, ...passing, ...acks, ...control],
  /^N:|no DF|IP options|reserved flag|segment count|not IPv4/,
);
