/** Encapsulation past the tunnel device: what is learned at uplink_egress, sent by pod_egress, taken by uplink_ingress. */
import { expect } from '@jest/globals';
import { ConfigFlag, EndpointFlag, FlowFlag, Mode, Reason, SlotState } from '../../../src/gen/layouts.ts';
import {
  announcement,
  byFamily,
  Conversation,
  DRAINED,
  FLAGS,
  MAGIC,
  MS,
  NODE,
  now,
  PEER,
  PEER2,
  PLAIN_NODE,
  POD,
  POD2,
  SEC,
  Verdict,
  type Bench,
  type ConversationSpec,
  type Outcome,
} from '../harness.ts';
import type { Flow } from '../../../src/gen/layouts.ts';
import { addressBytes, buildFrame, parseFrame, Proto, Tcp, type Family } from '../packets.ts';
import {
  INNER_MACS,
  routedIn,
  routedOut,
  tunnelHeader,
  tunnelledIn,
  tunnelledOut,
  tunnelName,
  TUNNELS,
  type OuterSpec,
  type Tunnel,
} from '../tunnels.ts';
import { both, expectSlow, expectUntouched, FORGED_ID, rule } from './rule.ts';
import type { Rule } from './rule.ts';

type Overrides = NonNullable<Parameters<Conversation['sent']>[0]>;

const ENCAP = FLAGS | ConfigFlag.ENCAP;
const VXLAN: Tunnel = { type: 'vxlan', outer: 4 };
const SUMMED: Tunnel = { type: 'geneve', outer: 4, checksum: true };
const SERVICE = { addr: '10.96.0.10', port: 80 };
const [ROUTER, ROUTER6] = ['192.0.2.254', 'fd00:c0::fe'];
const SERVICE6 = { addr: 'fd00:96::10', port: 80 };
const KINDS = ['tcp', 'udp', 'icmp', 'sctp', 'raw'] as const;

/** A connection that is admitted, and its packets in the tunnel. */
interface Tunnelled {
  readonly talk: Conversation;
  readonly tunnel: Tunnel;
}

/** The slow path's form of a pod's packet. `id` is that of the pod's, as pod_egress leaves it. */
function outgoing({ talk, tunnel }: Tunnelled, inner: Overrides = {}, outer: OuterSpec = {}): Buffer {
  return tunnelledOut(tunnel, talk.peer, routedOut(talk, inner), outer);
}

/** A router's error about a tunnel packet, as if that had been sent to this peer. */
function routersError(
  family: Family,
  wire: Buffer,
  what: 'too big' | 'unreachable' = 'too big',
  { addr, addr6 }: { readonly addr: string; readonly addr6: string } = PLAIN_NODE,
): Buffer {
  const payload = Buffer.from(wire.subarray(0, (family === 4 ? 20 : 40) + 8));
  const tooBig = what === 'too big';
  const ends = { dmac: NODE.mac, smac: PEER.mac, ttl: 61 };
  if (family === 6) {
    addressBytes(addr6).copy(payload, 24);
    const [type, code, seq] = tooBig ? [2, 0, 1400] : [1, 0, 0];
    return buildFrame({
      ...{ ...ends, src: ROUTER6, dst: NODE.addr6 },
      transport: { kind: 'icmp', type, code, id: 0, seq, payload },
    });
  }
  addressBytes(addr).copy(payload, 16);
  const [code, seq] = tooBig ? [4, 1400] : [1, 0];
  return buildFrame({
    ...{ ...ends, src: ROUTER, dst: NODE.addr },
    transport: { kind: 'icmp', type: 3, code, id: 0, seq, payload },
  });
}

/** A packet of the other pod, from its node's slow path. */
function incoming({ talk, tunnel }: Tunnelled, inner: Overrides = {}, outer: OuterSpec = {}): Buffer {
  return tunnelledIn(tunnel, talk.peer, routedIn(talk, inner), outer);
}

interface Spec extends Partial<ConversationSpec> {
  readonly tunnel?: Tunnel;
}

/** A flow that conntrack allows, after its first packet; by default to a node without XMasq. */
function admitted(bench: Bench, { tunnel = VXLAN, ...spec }: Spec = {}): Tunnelled {
  bench.configure({ flags: ENCAP });
  const talk = new Conversation({ kind: 'udp', remote: PLAIN_NODE, ...spec });
  bench.allow(talk);
  const { reasons } = bench.run('pod_egress', talk.sent());
  if (bench.flow(bench.flowKeyOf(talk)) === undefined) throw new Error(`not admitted: ${JSON.stringify(reasons)}`);
  return { talk, tunnel };
}

/** The tunnel's header has been learned from a packet of the slow path. */
function learned(bench: Bench, spec: Spec = {}, outer: OuterSpec = {}): Tunnelled {
  const flow = admitted(bench, spec);
  const { counters } = bench.run('uplink_egress', outgoing(flow, {}, outer));
  if (counters['tx_learned'] !== 1) throw new Error('the header was not learned');
  return flow;
}

function isLearned(bench: Bench, { talk }: Tunnelled): boolean {
  const flow = bench.flow(bench.flowKeyOf(talk));
  return flow !== undefined && flow.txGen === flow.gen;
}

/** What the pod sends leaves in this form. */
function expectSent(bench: Bench, flow: Tunnelled, sent: Overrides = {}, inner: Overrides = {}, outer: OuterSpec = {}) {
  const outcome = bench.run('pod_egress', flow.talk.sent(sent));
  expect(outcome.reasons).toEqual({});
  expect(outcome.verdict).toBe(Verdict.redirect);
  expect(outcome.frame.toString('hex')).toBe(outgoing(flow, { ...sent, ...inner }, outer).toString('hex'));
  expect(outcome.counters).toMatchObject({ fast_encap: 1 });
  return outcome;
}

const SENT_INNER = { ttl: 63, ...INNER_MACS } as const;

function send(bench: Bench, { talk }: Tunnelled, overrides: Overrides = {}): Outcome {
  return bench.run('pod_egress', talk.sent(overrides));
}

/** Nothing of the tunnel's header is learned from this packet, and it passes as it is. */
function notLearned(
  name: string,
  inner: Overrides,
  outer: OuterSpec = {},
  prepare: (bench: Bench, flow: Tunnelled) => unknown = () => undefined,
  spec: Spec = {},
): Rule {
  return rule(`tunnel header not learned: ${name}`, (bench) => {
    const flow = admitted(bench, spec);
    prepare(bench, flow);
    const frame = outgoing(flow, inner, outer);
    const outcome = bench.run('uplink_egress', frame);
    expectUntouched(outcome, frame);
    expect(outcome.counters).toEqual({});
    expect(isLearned(bench, flow)).toBe(false);
  });
}

const families = (tunnel: Tunnel, family: Family): readonly Family[] =>
  tunnel.outer === family ? [family] : [tunnel.outer, family];

const learning: Rule[] = [
  ...TUNNELS.map((tunnel) =>
    rule(
      `tunnel header learned: ${tunnelName(tunnel)}`,
      (bench) => {
        const flow = admitted(bench, { tunnel });
        const frame = outgoing(flow);
        const outcome = bench.run('uplink_egress', frame);
        expectUntouched(outcome, frame);
        expect(outcome.counters).toEqual({ tx_learned: 1 });
        expect(bench.flow(bench.flowKeyOf(flow.talk))).toMatchObject({
          encapLen: byFamily(tunnel.outer, 50, 70),
          outTtl: 63,
        });
        // Once is enough.
        expect(bench.run('uplink_egress', frame).counters).toEqual({});
      },
      families(tunnel, 4),
    ),
  ),
  rule('tunnel header learned: from a packet with RST, ECN or another virtual network', (bench) => {
    for (const [inner, outer] of [
      [{ l4: { flags: Tcp.rst } }, {}],
      [{ tos: 3 }, {}],
      [{}, { vni: 77 }],
    ] as const) {
      bench.reset();
      const flow = admitted(bench, { kind: 'tcp' });
      expect(bench.run('uplink_egress', outgoing(flow, inner, outer)).counters).toEqual({ tx_learned: 1 });
    }
  }),
  notLearned('the flow was not admitted', {}, {}, (bench, { talk }) =>
    bench.tables.flows.delete(bench.flowKeyOf(talk)),
  ),
  rule('tunnel header not learned: what a pod has sent', (bench) => {
    const flow = admitted(bench);
    const frame = outgoing(flow);
    expectUntouched(bench.run('uplink_egress', frame, { ingress_ifindex: bench.node.ifindex.pod2 }), frame);
    expect(isLearned(bench, flow)).toBe(false);
  }),
  notLearned('another flow’s packet', { l4: { dport: 8081 } }),
  notLearned('a pod that is not of this node', { src: '10.10.0.99' }),
  notLearned('to another peer', {}, { dst: PEER2.addr }),
  notLearned('to somebody who is no peer', {}, { dst: '198.51.100.1' }),
  notLearned('to another port', {}, { dport: 4790 }),
  notLearned('the TTL is higher than the pod’s', { ttl: 65 }),
  notLearned('the TTL is lower than routing makes it', { ttl: 60 }),
  notLearned('another DSCP', { tos: 0x20 }),
  notLearned('SYN', { l4: { flags: Tcp.syn } }, {}, undefined, { kind: 'tcp' }),
  notLearned('FIN', { l4: { flags: Tcp.fin } }, {}, undefined, { kind: 'tcp' }),
  notLearned('a fragment inside', { mf: true, df: false }),
  notLearned('IP options inside', { options: Buffer.alloc(4, 1) }),
  notLearned('no IP packet inside', { etherType: 0x0806 }),
  notLearned('IP options outside', {}, { options: Buffer.alloc(4, 1) }),
  notLearned('no DF outside', {}, { df: false }),
  notLearned('Geneve options', {}, { header: Buffer.of(1, 0, 0x65, 0x58, 0, 0, 0, 0) }),
  notLearned('Geneve of another version', {}, { header: Buffer.of(0x40, 0, 0x65, 0x58, 0, 0, 0, 0) }),
  notLearned('Geneve of a critical kind', {}, { header: Buffer.of(0, 0x40, 0x65, 0x58, 0, 0, 0, 0) }),
  notLearned('Geneve with something else than Ethernet', {}, { header: Buffer.of(0, 0, 8, 0, 0, 0, 0, 0) }),
  notLearned('VXLAN with group policy', {}, { header: Buffer.of(0x88, 0, 0, 0, 0, 0, 0, 0) }),
  notLearned('VXLAN with a reserved byte', {}, { header: Buffer.of(0x08, 0, 0, 0, 0, 0, 0, 1) }),
  notLearned('packets deviate', {}, {}, (bench, { talk }) =>
    bench.patchFlow(bench.flowKeyOf(talk), { deviatingSince: now() }),
  ),
  notLearned('encapsulation is off', {}, {}, (bench) => bench.configure({ flags: FLAGS | ConfigFlag.DIRECT })),
  notLearned(
    'a flow with keys, to another address of the peer',
    {},
    { dst: '192.0.2.55' },
    (bench) => {
      bench.tables.peerByAddr.set('192.0.2.55', PEER.id);
    },
    { remote: PEER },
  ),
  notLearned('a flow with keys, from another address of the node', {}, { src: '192.0.2.55' }, undefined, {
    remote: PEER,
  }),
];

const sending: Rule[] = [
  ...TUNNELS.flatMap((tunnel) =>
    ([4, 6] as const).map((family) =>
      rule(
        `IPv${family} in ${tunnelName(tunnel)}: every byte`,
        (bench) => {
          for (const kind of KINDS) {
            bench.reset();
            const flow = learned(bench, { kind, family, tunnel, sport: 40001 });
            expectSent(bench, flow, {}, SENT_INNER);
            if (kind !== 'sctp' && kind !== 'raw') {
              expectSent(bench, flow, { l4: { payload: Buffer.from('odd') } }, SENT_INNER);
            }
          }
        },
        families(tunnel, family),
      ),
    ),
  ),
  ...(
    [
      [4, 4],
      [6, 4],
      [4, 6],
      [6, 6],
    ] as const
  ).map(([family, outer]) =>
    rule(
      `IPv${family} in a tunnel over IPv${outer} with UDP checksums: every byte`,
      (bench) => {
        for (const kind of ['tcp', 'udp', 'icmp'] as const) {
          bench.reset();
          const flow = learned(bench, { kind, family, tunnel: { type: 'geneve', outer, checksum: true } });
          for (const payload of [Buffer.from('odd'), Buffer.from('even'), Buffer.alloc(0)]) {
            for (const tos of [0, 1, 3]) expectSent(bench, flow, { tos, l4: { payload } }, SENT_INNER);
          }
        }
      },
      family === outer ? [family] : [4, 6],
    ),
  ),
  ...[0, 1, 2, 3].map((ecn) =>
    rule(`tunnel: ECN ${ecn} is treated as RFC 6040 says`, (bench) => {
      const flow = learned(bench);
      const outcome = expectSent(bench, flow, { tos: ecn }, SENT_INNER);
      expect(outcome.parsed.tos).toBe([0, 1, 2, 2][ecn]);
    }),
  ),
  rule('tunnel: the outer TTL, DSCP, source port and network are the learned ones', (bench) => {
    const outer = { ttl: 33, tos: 0xb8, sport: 33333, vni: 0x123456 };
    const flow = learned(bench, {}, outer);
    expectSent(bench, flow, {}, SENT_INNER, outer);
  }),
  rule('tunnel: the inner TTL is lower by as much as was learned', (bench) => {
    const flow = admitted(bench, { ttl: 100 });
    bench.run('uplink_egress', outgoing(flow, { ttl: 98 }));
    expectSent(bench, flow, {}, { ...INNER_MACS, ttl: 98 });
  }),
  rule('tunnel: an ID with the marker is cleared as on the slow path, others are left alone', (bench) => {
    const flow = learned(bench);
    expectSent(bench, flow, { id: FORGED_ID }, { ...SENT_INNER, id: FORGED_ID & 0x7fff });
    expectSent(bench, flow, { id: 0x1234 }, { ...SENT_INNER, id: 0x1234 });
    expectSent(bench, flow, { id: FORGED_ID, df: false }, { ...SENT_INNER, id: FORGED_ID & 0x7fff });
  }),
  rule(
    'tunnel: a flow label with the marker is cleared as on the slow path, others are left alone (IPv6)',
    (bench) => {
      const flow = learned(bench, { family: 6, tunnel: { type: 'geneve', outer: 6 } });
      expectSent(bench, flow, { id: FORGED_ID }, { ...SENT_INNER, id: FORGED_ID & 0x7fff });
      expectSent(bench, flow, { id: 0x1234, labelLow: 9 }, { ...SENT_INNER, id: 0x1234, labelLow: 9 });
    },
    [6],
  ),
  rule(
    'tunnel: the marker in the outer flow label is not learned (IPv6)',
    (bench) => {
      const flow = admitted(bench, { family: 6, tunnel: { type: 'geneve', outer: 6 } });
      const outcome = bench.run('uplink_egress', outgoing(flow, {}, { id: FORGED_ID }));
      expect(outcome.counters).toEqual({ tx_learned: 1, node_cleared: 1 });
      expectSent(bench, flow, {}, SENT_INNER, { id: FORGED_ID & 0x7fff });
    },
    [6],
  ),
  rule('tunnel: cb has the magic, so uplink_egress knows it for ours', (bench) => {
    const flow = learned(bench);
    const { skb, frame } = send(bench, flow);
    expect(skb.cb).toEqual([...MAGIC, 0]);
    const { pod } = bench.node.ifindex;
    const passed = bench.run('uplink_egress', frame, { cb: [...MAGIC], ingress_ifindex: pod });
    expectUntouched(passed, frame);
    expect(passed.counters).toEqual({ own_seen: 1 });
  }),
  rule('tunnel: a flow with keys announces in the inner ID', (bench) => {
    const flow = learned(bench, { remote: PEER });
    const ownKey = bench.flow(bench.flowKeyOf(flow.talk))?.ownKey ?? -1;
    const outcome = expectSent(bench, flow, { id: 0x1111 }, { ...SENT_INNER, id: announcement(ownKey, false) });
    expect(outcome.counters).toMatchObject({ announced: 1 });
  }),
  rule(
    'tunnel: a flow with keys announces in the inner flow label (IPv6)',
    (bench) => {
      const flow = learned(bench, { remote: PEER, family: 6, tunnel: { type: 'geneve', outer: 6 } });
      const ownKey = bench.flow(bench.flowKeyOf(flow.talk))?.ownKey ?? -1;
      expectSent(bench, flow, { id: 0x1111 }, { ...SENT_INNER, id: announcement(ownKey, false) });
    },
    [6],
  ),
  rule('tunnel: a flow with keys is masqueraded as soon as it may be', (bench) => {
    bench.configure({ flags: ENCAP });
    const { talk } = bench.establish({ kind: 'udp' });
    bench.run('uplink_egress', outgoing({ talk, tunnel: VXLAN }));
    expect(bench.run('pod_egress', talk.sent()).counters).toMatchObject({ fast_tx: 1 });
  }),
  rule('tunnel: packets of more than 64 segments do not announce', (bench) => {
    const flow = learned(bench, { remote: PEER, kind: 'tcp' });
    const frame = flow.talk.sent({ id: FORGED_ID, l4: { payload: Buffer.alloc(1300) } });
    const { verdict } = bench.run('pod_egress', frame, { gso_size: 20, gso_segs: 65 });
    expect(verdict).toBe(Verdict.pass);
  }),
  rule(
    'tunnel: the largest packet that fits with the header; a larger one is slow',
    (bench) => {
      for (const [tunnel, most] of [
        [VXLAN, 1450],
        [{ type: 'geneve', outer: 6 }, 1430],
      ] as const) {
        bench.reset();
        const flow = learned(bench, { tunnel });
        const sized = (total: number): Overrides => ({ l4: { payload: Buffer.alloc(total - 28) } });
        expectSent(bench, flow, sized(most), SENT_INNER);
        expect(send(bench, flow, sized(most + 1)).reasons).toEqual({ too_big: 1 });
      }
    },
    [4, 6],
  ),
  ...both('tunnel: a router has told the node of a smaller MTU: the next hop is looked up at once', (bench, family) => {
    const tunnel: Tunnel = { type: 'geneve', outer: family };
    const flow = learned(bench, { tunnel });
    const key = bench.flowKeyOf(flow.talk);
    const verifyAt = now() + 10n * SEC;
    const wire = send(bench, flow).frame.subarray(14);
    const told = routersError(family, wire);
    const expectMtuKept = (): void => {
      bench.patchFlow(key, { mtu: 1400, verifyAt });
      expectSent(bench, flow, {}, SENT_INNER);
      expect(bench.flow(key)?.mtu).toBe(1400);
    };
    expectMtuKept();
    for (const other of [routersError(family, wire, 'unreachable'), routersError(family, wire, 'too big', PEER2)]) {
      expectUntouched(bench.run('uplink_ingress', other), other);
      expectMtuKept();
    }
    expectUntouched(bench.run('uplink_ingress', told), told);
    expectSent(bench, flow, {}, SENT_INNER);
    expect(bench.flow(key)?.mtu).toBe(1500);
    bench.heard(PLAIN_NODE, now(), { mtuTold: now() - 50n * MS });
    expectMtuKept();
  }),
  rule('tunnel: a flow that found no slot asks again when that can be had, and after 30 s at the latest', (bench) => {
    bench.configure({ flags: ENCAP });
    const first = bench.establish({ kind: 'udp' });
    const [own, other] = [first.talk, new Conversation({ kind: 'udp', local: POD2 })];
    bench.allow(other);
    for (const [talk, freed, wait] of [
      [own, 50n * MS, 450n * MS],
      [other, 119n * SEC, SEC],
      [other, 10n * SEC, 30n * SEC],
    ] as const) {
      for (const each of [own, other]) bench.tables.flows.delete(bench.flowKeyOf(each));
      const key = bench.flowKeyOf(talk);
      const ifindex = talk === own ? bench.node.ifindex.pod : bench.node.ifindex.pod2;
      const run = (): Flow | undefined => {
        bench.run('pod_egress', talk.sent(), { ifindex });
        return bench.flow(key);
      };
      const at = now();
      bench.patchSlot(first.slotKey, { state: SlotState.TOMBSTONE, freedAt: at - freed });
      const flow = run();
      expect(flow).toMatchObject({ unkeyed: Reason.SLOT_RECENT });
      const until = (flow?.holeUntil ?? 0n) - at;
      expect(until >= wait - 10n * MS && until <= wait + 100n * MS).toBe(true);
      bench.patchFlow(key, { verifyAt: 0n });
      expect(run()?.gen).toBe(flow?.gen);
      bench.patchFlow(key, { verifyAt: 0n, holeUntil: now() - 5n * MS });
      expect(run()).toBeUndefined();
    }
    bench.tables.refusals.delete(bench.flowKeyOf(own));
    bench.patchSlot(first.slotKey, { freedAt: now() - 600n * MS });
    bench.run('pod_egress', own.sent());
    expect(bench.flow(bench.flowKeyOf(own))).toMatchObject({ unkeyed: 0 });
  }),
  rule('tunnel: a flow that has no keys, as its node had no address, is admitted anew when it has one', (bench) => {
    bench.configure({ flags: ENCAP, uplinkAddr4: '' });
    const talk = new Conversation({ kind: 'udp' });
    const key = bench.flowKeyOf(talk);
    bench.allow(talk);
    const run = (): Flow | undefined => {
      bench.run('pod_egress', talk.sent());
      return bench.flow(key);
    };
    const flow = run();
    expect(flow).toMatchObject({ flags: 0, unkeyed: Reason.MODE });
    bench.patchFlow(key, { verifyAt: 0n });
    expect(run()).toMatchObject({ gen: flow?.gen, unkeyed: Reason.MODE });
    bench.configure({ uplinkAddr4: NODE.addr });
    bench.patchFlow(key, { verifyAt: 0n });
    expect(run()).toBeUndefined();
    expect(run()).toMatchObject({ flags: FlowFlag.KEYED | FlowFlag.ANNOUNCED, unkeyed: 0 });
  }),
  rule('tunnel: a flow that found its slot locked asks again at the next look', (bench) => {
    bench.configure({ flags: ENCAP });
    const { talk, slotKey } = bench.establish({ kind: 'udp' });
    const key = bench.flowKeyOf(talk);
    bench.tables.flows.delete(key);
    bench.patchSlot(slotKey, { lock: 1 });
    const run = (): Flow | undefined => {
      bench.run('pod_egress', talk.sent());
      return bench.flow(key);
    };
    const at = now();
    const flow = run();
    expect(flow).toMatchObject({ flags: 0, unkeyed: Reason.SLOT_TAKEN });
    expect((flow?.holeUntil ?? 0n) - at <= 200n * MS).toBe(true);
    bench.patchSlot(slotKey, { lock: 0 });
    bench.patchFlow(key, { verifyAt: 0n, holeUntil: now() - 5n * MS });
    expect(run()).toBeUndefined();
    expect(run()).toMatchObject({ flags: FlowFlag.KEYED | FlowFlag.ANNOUNCED, unkeyed: 0 });
  }),
  rule('tunnel: segments that do not fit with the header are slow', (bench) => {
    const flow = learned(bench, { kind: 'tcp' });
    const frame = flow.talk.sent({ l4: { payload: Buffer.alloc(3000) } });
    const run = (gso_size: number): Outcome => bench.run('pod_egress', frame, { gso_size, gso_segs: 3 });
    expect(run(1411).reasons).toEqual({ too_big: 1 });
    // A test run cannot say that these are TCP's segments, without which the kernel refuses to make room.
    expect(run(1410)).toMatchObject({ verdict: Verdict.drop, reasons: {} });
  }),
  rule('tunnel with UDP checksums: segments are slow', (bench) => {
    const flow = learned(bench, { kind: 'tcp', tunnel: SUMMED });
    const frame = flow.talk.sent({ l4: { payload: Buffer.alloc(2000) } });
    expect(bench.run('pod_egress', frame, { gso_size: 1000, gso_segs: 2 }).reasons).toEqual({ tunnel_checksum: 1 });
  }),
  rule('tunnel with UDP checksums: what has no checksum over all of itself is slow', (bench) => {
    const flow = learned(bench, { tunnel: SUMMED });
    expect(send(bench, flow, { l4: { checksum: 0 } }).reasons).toEqual({ tunnel_checksum: 1 });
    for (const kind of ['sctp', 'raw'] as const) {
      bench.reset();
      expect(send(bench, learned(bench, { kind, tunnel: SUMMED })).reasons).toEqual({ tunnel_checksum: 1 });
    }
  }),
  rule('tunnel with UDP checksums: one that becomes zero is written as 0xffff', (bench) => {
    const flow = learned(bench, { tunnel: SUMMED });
    // What is missing to a sum of 0xffff is the checksum itself.
    const sport = parseFrame(outgoing(flow, {}, { sport: 0 })).checksum ?? 0;
    expect(parseFrame(outgoing(flow, {}, { sport })).checksum).toBe(0xffff);
    bench.patchFlow(bench.flowKeyOf(flow.talk), { txGen: 0 });
    bench.run('uplink_egress', outgoing(flow, {}, { sport }));
    expectSent(bench, flow, {}, SENT_INNER, { sport });
  }),
  rule('tunnel: counts packets and bytes per segment, none of them masqueraded', (bench) => {
    const flow = learned(bench, { kind: 'tcp' });
    const key = bench.flowKeyOf(flow.talk);
    send(bench, flow, { l4: { payload: Buffer.alloc(60) } });
    expect(bench.flow(key)).toMatchObject({ txPackets: 1n, txBytes: 100n, masqPackets: 0n, mode: Mode.ENCAP });
    const gso = flow.talk.sent({ l4: { payload: Buffer.alloc(300) } });
    bench.run('pod_egress', gso, { gso_size: 100, gso_segs: 3 });
    expect(bench.flow(key)).toMatchObject({ txPackets: 4n, txBytes: 100n + 3n * 140n, fastSince: 0n });
  }),
  ...([4, 6] as const).map((family) =>
    rule(
      `tunnel: to a Service: translated inside${family === 6 ? ' (IPv6)' : ''}`,
      (bench) => {
        const tunnel = { type: 'geneve', outer: family, checksum: true } as const;
        for (const kind of ['tcp', 'udp'] as const) {
          bench.reset();
          const flow = learned(bench, { kind, family, tunnel, service: byFamily(family, SERVICE, SERVICE6) });
          const payload = Buffer.from('odd');
          const outcome = send(bench, flow, { l4: { payload } });
          expect(outcome.frame.toString('hex')).toBe(outgoing(flow, { l4: { payload } }).toString('hex'));
        }
      },
      [family],
    ),
  ),
  rule('tunnel: RST is sent, and ends the flow and conntrack’s entry', (bench) => {
    const flow = learned(bench, { kind: 'tcp' });
    send(bench, flow);
    const outcome = expectSent(bench, flow, { l4: { flags: Tcp.rst } }, SENT_INNER);
    expect(outcome.counters).toMatchObject({ flow_closed: 1, ct_killed: 1 });
    expect([bench.flow(bench.flowKeyOf(flow.talk)), bench.entry(flow.talk)]).toEqual([undefined, undefined]);
  }),
  ...[0, 1, 2].map((which) => {
    const [name, reason, overrides] = (
      [
        ['SYN', 'tcp_syn', { l4: { flags: Tcp.syn } }],
        ['FIN', 'tcp_fin', { l4: { flags: Tcp.fin } }],
        ['another TTL', 'header_changed', { ttl: 32 }],
      ] as const
    )[which] as readonly [string, string, Overrides];
    return rule(`tunnel: ${name}: slow`, (bench) => {
      const flow = learned(bench, { kind: 'tcp' });
      send(bench, flow);
      const frame = flow.talk.sent({ id: FORGED_ID, ...overrides });
      expectSlow(bench.run('pod_egress', frame), frame, reason);
    });
  }),
];

/** A flow that is sent in the tunnel's header goes slow after this. */
function slowAfter(
  name: string,
  reason: string,
  change: (bench: Bench, flow: Tunnelled) => unknown,
  gone = false,
  spec: Spec = {},
): Rule {
  return rule(`tunnel: ${name}: slow`, (bench) => {
    const flow = learned(bench, spec);
    const key = bench.flowKeyOf(flow.talk);
    if (send(bench, flow).verdict !== Verdict.redirect) throw new Error('the flow is not fast');
    change(bench, flow);
    bench.patchFlow(key, { verifyAt: 0n });
    const frame = flow.talk.sent({ id: FORGED_ID });
    expectSlow(bench.run('pod_egress', frame), frame, reason);
    expect(bench.flow(key) === undefined).toBe(gone);
  });
}

const slow: Rule[] = [
  slowAfter('the node drains', 'draining', (bench) => bench.configure({ flags: DRAINED | ConfigFlag.ENCAP })),
  slowAfter('encapsulation is turned off', 'peer_not_capable', (bench) => bench.configure({ flags: FLAGS })),
  slowAfter(
    'the peer is gone',
    'stale',
    (bench) => {
      bench.tables.peers.set(PLAIN_NODE.id, { ...bench.tables.peers.get(PLAIN_NODE.id), flags: 0 });
    },
    true,
  ),
  slowAfter(
    'the peer’s epoch changed',
    'stale',
    (bench) => {
      bench.tables.peers.set(PLAIN_NODE.id, { ...bench.tables.peers.get(PLAIN_NODE.id), epoch: 99 });
    },
    true,
  ),
  slowAfter(
    'the endpoint’s epoch changed',
    'stale',
    (bench) => {
      bench.tables.endpoints.set(POD.id, { ...bench.tables.endpoints.get(POD.id), epoch: 99 });
    },
    true,
  ),
  slowAfter('the node’s address changed', 'stale', (bench) => bench.configure({ uplinkAddr4: '192.0.2.250' }), true),
  slowAfter(
    'traffic with other nodes is excluded',
    'encryption',
    (bench) => {
      bench.configure({ excludedRemote: Reason.ENCRYPTION });
    },
    true,
  ),
  slowAfter(
    'conntrack does not allow it any more',
    'ct_l7',
    (bench, { talk }) => {
      bench.node.ct.flush();
      bench.allow(talk, { mark: 0x83 });
      bench.patchFlow(bench.flowKeyOf(talk), { recheckAt: 0n });
    },
    true,
  ),
  slowAfter('the header is unlearned', 'peer_not_capable', (bench, { talk }) =>
    bench.patchFlow(bench.flowKeyOf(talk), { txGen: 0 }),
  ),
  rule('tunnel: the path to the peer has no neighbour: slow', (bench) => {
    const remote = { ...PLAIN_NODE, addr: '192.0.2.77' };
    bench.tables.peerByAddr.set('192.0.2.77', PLAIN_NODE.id);
    try {
      const flow = learned(bench, { remote });
      const frame = flow.talk.sent({ id: FORGED_ID });
      expectSlow(bench.run('pod_egress', frame), frame, 'no_neighbour');
    } finally {
      bench.tables.peerByAddr.delete('192.0.2.77');
    }
  }),
  rule('tunnel: another flow’s entry while it is read: not sent', (bench) => {
    const flow = learned(bench);
    send(bench, flow);
    bench.patchFlow(bench.flowKeyOf(flow.talk), { gen2: 7 });
    expect(send(bench, flow).counters).not.toHaveProperty('fast_encap');
  }),
  rule('without encapsulation a node without XMasq is refused', (bench) => {
    const talk = new Conversation({ kind: 'udp', remote: PLAIN_NODE });
    bench.allow(talk);
    expect(bench.run('pod_egress', talk.sent()).reasons).toEqual({ peer_not_capable: 1 });
    expect(bench.flow(bench.flowKeyOf(talk))).toBeUndefined();
  }),
  rule('tunnel: a slot that another pod pair has keeps a flow from keys, not from the tunnel', (bench) => {
    bench.establish({ kind: 'udp', remote: PEER, local: { ...POD } });
    const slot = bench.slot(new Conversation({ kind: 'udp' }).slotKey());
    if (slot === undefined) throw new Error('there is no slot');
    const remote = { ...PEER, pod: '10.10.1.6' };
    const flow = learned(bench, { remote });
    expect(bench.flow(bench.flowKeyOf(flow.talk))).toMatchObject({ flags: 0, unkeyed: Reason.SLOT_TAKEN });
    expectSent(bench, flow, { id: FORGED_ID }, { ...SENT_INNER, id: FORGED_ID & 0x7fff });
  }),
];

/** Both directions have been seen on the slow path. */
function receiving(bench: Bench, spec: Spec = {}, outer: OuterSpec = {}): Tunnelled {
  const flow = learned(bench, spec, outer);
  const { ifindex } = bench.flowKeyOf(flow.talk);
  const id = spec.remote === PEER ? announcement(0x2a, true) : 0;
  const frame = incoming(flow, { id }, outer);
  expectUntouched(bench.run('uplink_ingress', frame), frame);
  bench.run('pod_ingress', flow.talk.delivered({ id }), { ifindex });
  const flags = bench.flow(bench.flowKeyOf(flow.talk))?.flags ?? 0;
  if ((flags & FlowFlag.RX_LEARNED) === 0) throw new Error('how packets are delivered was not learned');
  return flow;
}

function expectTaken(
  bench: Bench,
  flow: Tunnelled,
  inner: Overrides = {},
  delivered: Overrides = {},
  outer: OuterSpec = {},
) {
  const outcome = bench.run('uplink_ingress', incoming(flow, inner, outer));
  expect(outcome.counters).toMatchObject({ decapsulated: 1 });
  expect(outcome.verdict).toBe(Verdict.redirect);
  const expected = flow.talk.delivered({ ...inner, ttl: 62, ...delivered });
  expect(outcome.frame.toString('hex')).toBe(expected.toString('hex'));
  return outcome;
}

const taking: Rule[] = [
  ...TUNNELS.flatMap((tunnel) =>
    ([4, 6] as const).map((family) =>
      rule(
        `IPv${family} out of ${tunnelName(tunnel)}: every byte`,
        (bench) => {
          for (const kind of KINDS) {
            bench.reset();
            const flow = receiving(bench, { kind, family, tunnel });
            expectTaken(bench, flow);
            if (kind !== 'sctp' && kind !== 'raw') expectTaken(bench, flow, { l4: { payload: Buffer.from('odd') } });
          }
        },
        families(tunnel, family),
      ),
    ),
  ),
  ...(
    [
      [0, 0, 0],
      [1, 1, 1],
      [1, 2, 2],
      [2, 2, 2],
      [3, 1, 3],
      [3, 2, 3],
      [3, 3, 3],
      [0, 3, 3],
    ] as const
  ).map(([outer, inner, expected]) =>
    rule(`out of the tunnel: ECN ${outer} outside, ${inner} inside: ${expected}`, (bench) => {
      const flow = receiving(bench);
      expectTaken(bench, flow, { tos: 0x28 | inner }, { tos: 0x28 | expected }, { tos: outer });
    }),
  ),
  rule('out of the tunnel: the ID is left alone', (bench) => {
    const flow = receiving(bench);
    for (const id of [0x1234, 0x9234]) expectTaken(bench, flow, { id });
  }),
  rule('out of the tunnel: a packet without DF keeps its ID', (bench) => {
    expectTaken(bench, receiving(bench), { id: 0x4321, df: false });
  }),
  ...([4, 6] as const).map((family) =>
    rule(
      `out of the tunnel: an announced key is read and erased${family === 6 ? ' (IPv6)' : ''}`,
      (bench) => {
        const tunnel = { type: 'geneve', outer: family } as const;
        const flow = receiving(bench, { remote: PEER, family, tunnel });
        const key = bench.flowKeyOf(flow.talk);
        const outcome = expectTaken(bench, flow, { id: announcement(0x3b, true) }, { id: 0 });
        expect(outcome.counters).toMatchObject({ key_learned: 1 });
        expect(bench.flow(key)).toMatchObject({ peerKey: 0x3b });
        expectTaken(bench, flow, { id: announcement(0x3b, true) | 5 }, { id: 0 });
      },
      [family],
    ),
  ),
  ...([4, 6] as const).map((family) =>
    rule(
      `out of the tunnel: from a Service: translated back${family === 6 ? ' (IPv6)' : ''}`,
      (bench) => {
        const tunnel = { type: 'geneve', outer: family } as const;
        for (const kind of ['tcp', 'udp'] as const) {
          bench.reset();
          const flow = receiving(bench, { kind, family, tunnel, service: byFamily(family, SERVICE, SERVICE6) });
          expectTaken(bench, flow);
          expectTaken(bench, flow, { l4: { payload: Buffer.from('odd') } });
        }
      },
      [family],
    ),
  ),
  rule('out of the tunnel: counted by segment, and a sign that the flow lives', (bench) => {
    const flow = receiving(bench, { kind: 'tcp' });
    const frame = incoming(flow, { l4: { payload: Buffer.alloc(300) } });
    bench.run('uplink_ingress', frame, { gso_size: 100, gso_segs: 3 });
    const entry = bench.flow(bench.flowKeyOf(flow.talk));
    expect(entry).toMatchObject({ rxPackets: 3n, rxBytes: 420n });
    expect(now() - (entry?.lastRx ?? 0n) < 100n * MS).toBe(true);
  }),
  rule('out of the tunnel: RST is delivered, and ends the flow and conntrack’s entry', (bench) => {
    const flow = receiving(bench, { kind: 'tcp' });
    const outcome = expectTaken(bench, flow, { l4: { flags: Tcp.rst } });
    expect(outcome.counters).toMatchObject({ flow_closed: 1, ct_killed: 1 });
    expect([bench.flow(bench.flowKeyOf(flow.talk)), bench.entry(flow.talk)]).toEqual([undefined, undefined]);
  }),
  rule('out of the tunnel: conntrack is asked once a second, and the timeout extended', (bench) => {
    const flow = receiving(bench, { kind: 'tcp' });
    expect(expectTaken(bench, flow).counters).toMatchObject({ ct_lookup: 1, ct_extended: 1 });
    expect(expectTaken(bench, flow).counters).not.toHaveProperty('ct_lookup');
    bench.patchFlow(bench.flowKeyOf(flow.talk), { rxRecheckAt: now() });
    expect(expectTaken(bench, flow).counters).toMatchObject({ ct_lookup: 1 });
  }),
  rule('out of the tunnel: the mark is cleared', (bench) => {
    const { skb } = bench.run('uplink_ingress', incoming(receiving(bench)), { mark: 0x99 });
    expect(skb.mark).toBe(0);
  }),
  rule('out of the tunnel: another MAC address as the slow path delivers: all is learned anew', (bench) => {
    const flow = receiving(bench);
    const { ifindex } = bench.flowKeyOf(flow.talk);
    const smac = '0e:00:00:00:00:77';
    bench.run('pod_ingress', flow.talk.delivered({ smac }), { ifindex });
    const frame = incoming(flow);
    expectUntouched(bench.run('uplink_ingress', frame), frame);
    bench.run('pod_ingress', flow.talk.delivered({ smac, ttl: 61 }), { ifindex });
    expectTaken(bench, flow, {}, { smac, ttl: 61 });
  }),
];

/** A packet in the tunnel is the slow path's. */
function leftAlone(
  name: string,
  inner: Overrides,
  outer: OuterSpec = {},
  prepare: (bench: Bench, flow: Tunnelled) => unknown = () => undefined,
  spec: Spec = {},
): Rule {
  return rule(`out of the tunnel, left to the slow path: ${name}`, (bench) => {
    const flow = receiving(bench, spec);
    // So that no check is due by itself.
    if (bench.run('uplink_ingress', incoming(flow)).verdict !== Verdict.redirect) throw new Error('not fast');
    prepare(bench, flow);
    const frame = incoming(flow, inner, outer);
    expectUntouched(bench.run('uplink_ingress', frame), frame);
  });
}

const left: Rule[] = [
  rule('out of the tunnel: nothing before the slow path has delivered a packet', (bench) => {
    const flow = learned(bench);
    for (let i = 0; i < 3; i++) {
      const frame = incoming(flow);
      expectUntouched(bench.run('uplink_ingress', frame), frame);
    }
  }),
  rule('out of the tunnel: nothing before the own packets’ header is learned', (bench) => {
    const flow = admitted(bench);
    bench.run('uplink_ingress', incoming(flow));
    bench.run('pod_ingress', flow.talk.delivered());
    const frame = incoming(flow);
    expectUntouched(bench.run('uplink_ingress', frame), frame);
  }),
  rule('out of the tunnel: a delivered TTL that routing does not explain teaches nothing', (bench) => {
    const flow = learned(bench);
    bench.run('uplink_ingress', incoming(flow));
    for (const ttl of [59, 64, 1]) bench.run('pod_ingress', flow.talk.delivered({ ttl }));
    const frame = incoming(flow);
    expectUntouched(bench.run('uplink_ingress', frame), frame);
  }),
  rule('out of the tunnel: a TTL that another peer sends teaches nothing', (bench) => {
    const flow = learned(bench);
    const forged = incoming(flow, {}, { src: PEER.addr });
    expectUntouched(bench.run('uplink_ingress', forged), forged);
    bench.run('pod_ingress', flow.talk.delivered());
    const frame = incoming(flow);
    expectUntouched(bench.run('uplink_ingress', frame), frame);
  }),
  rule('out of the tunnel: a packet without a flow', (bench) => {
    const flow = receiving(bench);
    bench.tables.flows.delete(bench.flowKeyOf(flow.talk));
    const frame = incoming(flow);
    expectUntouched(bench.run('uplink_ingress', frame), frame);
  }),
  leftAlone('another network', {}, { vni: 1 }),
  leftAlone('another tunnel', {}, { header: tunnelHeader('geneve') }),
  leftAlone('Geneve options', {}, { header: Buffer.of(1, 0, 0x65, 0x58, 0, 0, 0, 0) }),
  leftAlone('another peer', {}, { src: PEER.addr }),
  leftAlone('somebody unknown', {}, { src: '198.51.100.1' }),
  leftAlone('another address of the node', {}, { dst: '192.0.2.99' }),
  leftAlone('another host’s frame', {}, { dmac: '0a:00:00:00:00:66' }),
  leftAlone('an outer fragment', {}, { mf: true }),
  leftAlone('outer IP options', {}, { options: Buffer.alloc(4, 1) }),
  leftAlone('a fragment', { mf: true, df: false }),
  leftAlone('IP options', { options: Buffer.alloc(4, 1) }),
  leftAlone('SYN', { l4: { flags: Tcp.syn } }, {}, undefined, { kind: 'tcp' }),
  leftAlone('SYN+ACK', { l4: { flags: Tcp.syn | Tcp.ack } }, {}, undefined, { kind: 'tcp' }),
  leftAlone('FIN', { l4: { flags: Tcp.fin | Tcp.ack } }, {}, undefined, { kind: 'tcp' }),
  leftAlone('ESP', { transport: { kind: 'raw', proto: Proto.esp } }),
  leftAlone('another flow', { l4: { sport: 8081 } }),
  leftAlone('TTL that would reach 0', { ttl: 2 }),
  leftAlone('TTL 1', { ttl: 1 }),
  leftAlone('Traceflow DSCP', { tos: 0x0c }),
  leftAlone('CE outside, no ECN inside: the kernel drops it', { tos: 0x28 }, { tos: 3 }),
  leftAlone('ARP inside', { etherType: 0x0806 }),
  leftAlone('encapsulation is off', {}, {}, (bench) => bench.configure({ flags: FLAGS })),
  leftAlone('the node drains', {}, {}, (bench) => bench.configure({ flags: DRAINED | ConfigFlag.ENCAP })),
  leftAlone('traffic with other nodes is excluded', {}, {}, (bench) =>
    bench.configure({ excludedRemote: Reason.ENCRYPTION }),
  ),
  leftAlone('an excluded pod', {}, {}, (bench) => {
    bench.tables.endpoints.set(POD.id, { ...bench.tables.endpoints.get(POD.id), excluded: Reason.BANDWIDTH });
  }),
  leftAlone('a pod that has gone', {}, {}, (bench) => {
    bench.tables.endpoints.set(POD.id, { ...bench.tables.endpoints.get(POD.id), flags: 0 });
  }),
  leftAlone('another pod on the endpoint', {}, {}, (bench) => {
    const endpoint = bench.tables.endpoints.get(POD.id);
    bench.tables.endpoints.set(POD.id, { ...endpoint, flags: EndpointFlag.PRESENT, epoch: 99 });
  }),
  leftAlone('a peer that has gone', {}, {}, (bench) => {
    bench.tables.peers.set(PLAIN_NODE.id, { ...bench.tables.peers.get(PLAIN_NODE.id), flags: 0 });
  }),
  leftAlone('the header is unlearned', {}, {}, (bench, { talk }) =>
    bench.patchFlow(bench.flowKeyOf(talk), { txGen: 0 }),
  ),
  ...(
    [
      ['gone', undefined],
      ['not allowed any more', { mark: 0x100 }],
      ['under L7 policy now', { mark: 0x83 }],
    ] as const
  ).map(([name, spec]) =>
    rule(`out of the tunnel: the conntrack entry is ${name}: demoted, and left to the slow path`, (bench) => {
      const flow = receiving(bench);
      bench.node.ct.flush();
      if (spec !== undefined) bench.allow(flow.talk, spec);
      const frame = incoming(flow);
      const outcome = bench.run('uplink_ingress', frame);
      expectUntouched(outcome, frame);
      expect(outcome.counters).toMatchObject({ flow_demoted: 1 });
      expect(bench.flow(bench.flowKeyOf(flow.talk))).toBeUndefined();
    }),
  ),
  rule('out of the tunnel: another endpoint of the Service since: demoted, and left to the slow path', (bench) => {
    const flow = receiving(bench, { kind: 'tcp', service: SERVICE });
    bench.node.ct.flush();
    bench.allow(flow.talk, { dnatTo: '10.10.3.6' });
    const frame = incoming(flow);
    expectUntouched(bench.run('uplink_ingress', frame), frame);
    expect(bench.flow(bench.flowKeyOf(flow.talk))).toBeUndefined();
  }),
  rule('out of the tunnel: a Service’s endpoint that the pod talks to directly: not mixed up', (bench) => {
    const flow = receiving(bench, { kind: 'tcp', service: SERVICE });
    const direct = new Conversation({ kind: 'tcp', remote: PLAIN_NODE });
    const key = bench.flowKeyOf(direct);
    const entry = bench.flow(bench.flowKeyOf(flow.talk));
    if (entry === undefined) throw new Error('there is no flow');
    // An entry for what the pod sends to the endpoint itself, but translated elsewhere.
    bench.tables.flows.set(key, entry);
    bench.patchFlow(key, { out: { ...entry.out, daddr: '10.10.3.9' }, rxRecheckAt: now() + SEC });
    const frame = incoming(flow);
    expectUntouched(bench.run('uplink_ingress', frame), frame);
  }),
  rule('out of the tunnel: an approval that has expired: demoted', (bench) => {
    const flow = receiving(bench, { kind: 'sctp' });
    bench.tables.approvals.set(bench.flowKeyOf(flow.talk), { expires: now() - SEC });
    const frame = incoming(flow);
    expectUntouched(bench.run('uplink_ingress', frame), frame);
    expect(bench.flow(bench.flowKeyOf(flow.talk))).toBeUndefined();
  }),
  rule(
    'tunnel of the other family than the packet: not on kernels without the zone option',
    (bench) => {
      const flow = receiving(bench, { kind: 'sctp', family: 6 });
      expectTaken(bench, flow);
      bench.configure({ flags: ENCAP & ~ConfigFlag.CT_LOOKUP });
      const frame = incoming(flow);
      expectUntouched(bench.run('uplink_ingress', frame), frame);
    },
    [4, 6],
  ),
];

export const encapRules: readonly Rule[] = [...learning, ...sending, ...slow, ...taking, ...left];
