/** Nodes that Antrea routes to: pods' packets cross the uplink as they are, but for MAC addresses and TTL. */
import { expect } from '@jest/globals';
import { ConfigFlag, FlowFlag, Mode, PeerFlag, Reason } from '../../../src/gen/layouts.ts';
import type { CtSpec } from '../conntrack.ts';
import {
  Conversation,
  DRAINED,
  FLAGS,
  MAGIC,
  NODE,
  now,
  PEER,
  POD,
  podOf,
  SEC,
  spokenFamily,
  Verdict,
  zoneOf,
  type Bench,
  type ConversationSpec,
  type Outcome,
} from '../harness.ts';
import { Tcp } from '../packets.ts';
import { expectSlow, expectUntouched, FORGED_ID, inBoth, rule } from './rule.ts';
import type { Rule } from './rule.ts';

type Overrides = NonNullable<Parameters<Conversation['sent']>[0]>;

const DIRECT = FLAGS | ConfigFlag.DIRECT;
const KINDS = ['tcp', 'udp', 'icmp', 'sctp', 'raw'] as const;
const SERVICE = { addr: '10.96.0.10', addr6: 'fd00:96::10', port: 80 };

function routed(bench: Bench, more = PeerFlag.DIRECT4 | PeerFlag.DIRECT6): void {
  bench.configure({ flags: DIRECT });
  const flags = PeerFlag.PRESENT | more;
  bench.tables.peers.set(PEER.id, { ...bench.tables.peers.get(PEER.id), flags });
}

/** A pod's packet as it leaves this node: routed, translated if it is for a Service. */
function leaving(talk: Conversation, { l4, ...overrides }: Overrides = {}): Buffer {
  const ports = talk.kind === 'tcp' || talk.kind === 'udp' ? { dport: talk.dport } : {};
  return talk.sent({
    ...{ smac: NODE.mac, dmac: PEER.mac, dst: podOf(PEER), dst6: podOf(PEER), ttl: talk.ttl - 1 },
    ...overrides,
    l4: { ...ports, ...l4 },
  });
}

/** A packet of the other pod as it arrives. */
function arriving(talk: Conversation, { l4, ...overrides }: Overrides = {}): Buffer {
  const ports = talk.kind === 'tcp' || talk.kind === 'udp' ? { sport: talk.dport } : {};
  return talk.delivered({
    ...{ smac: PEER.mac, dmac: NODE.mac, src: podOf(PEER), src6: podOf(PEER), ttl: 63 },
    ...overrides,
    l4: { ...ports, ...l4 },
  });
}

function admitted(bench: Bench, spec: Partial<ConversationSpec> = {}, ct: Partial<CtSpec> = {}): Conversation {
  routed(bench);
  // The next hop is asked for the pod's address.
  const talk = new Conversation({ kind: 'udp', ...spec });
  bench.allow(talk, ct);
  const { reasons } = bench.run('pod_egress', talk.sent());
  if (bench.flow(bench.flowKeyOf(talk)) === undefined) throw new Error(`not admitted: ${JSON.stringify(reasons)}`);
  return talk;
}

/** Both directions have been seen on the slow path. */
function learned(bench: Bench, spec: Partial<ConversationSpec> = {}): Conversation {
  const talk = admitted(bench, spec);
  if (bench.run('uplink_egress', leaving(talk)).counters['tx_learned'] !== 1) throw new Error('not learned');
  bench.run('uplink_ingress', arriving(talk));
  bench.run('pod_ingress', talk.delivered());
  if (((bench.flow(bench.flowKeyOf(talk))?.flags ?? 0) & FlowFlag.RX_LEARNED) === 0) throw new Error('not learned');
  return talk;
}

function expectSent(bench: Bench, talk: Conversation, sent: Overrides = {}, wire: Overrides = {}): Outcome {
  const outcome = bench.run('pod_egress', talk.sent(sent));
  expect(outcome.reasons).toEqual({});
  expect(outcome.verdict).toBe(Verdict.redirect);
  expect(outcome.frame.toString('hex')).toBe(leaving(talk, { ...sent, ttl: talk.ttl - 1, ...wire }).toString('hex'));
  expect(outcome.counters).toMatchObject({ fast_direct: 1 });
  return outcome;
}

function expectTaken(bench: Bench, talk: Conversation, wire: Overrides = {}): void {
  const outcome = bench.run('uplink_ingress', arriving(talk, wire));
  expect(outcome.counters).toMatchObject({ direct_rx: 1 });
  expect(outcome.verdict).toBe(Verdict.redirect);
  expect(outcome.frame.toString('hex')).toBe(talk.delivered({ ...wire, ttl: 62 }).toString('hex'));
}

const carrying: Rule[] = [
  ...KINDS.map((kind) =>
    rule(`direct, ${kind}: every byte, both ways`, (bench) => {
      const talk = learned(bench, { kind });
      for (let i = 0; i < 2; i++) {
        expectSent(bench, talk);
        expectTaken(bench, talk);
      }
      const odd = { l4: { payload: Buffer.from('odd') } };
      if (kind === 'sctp' || kind === 'raw') return;
      expectSent(bench, talk, odd);
      expectTaken(bench, talk, odd);
    }),
  ),
  rule('direct: a flow has no keys, and its mode shows', (bench) => {
    const talk = learned(bench);
    expectSent(bench, talk);
    expect(bench.flow(bench.flowKeyOf(talk))).toMatchObject({
      flags: FlowFlag.DIRECT | FlowFlag.RX_LEARNED,
      mode: Mode.DIRECT,
      encapLen: 0,
      masqPackets: 0n,
    });
    expect([...bench.tables.slots.entries()]).toEqual([]);
  }),
  rule('direct: an ID or label with the marker is cleared as on the slow path', (bench) => {
    const talk = learned(bench);
    expectSent(bench, talk, { id: FORGED_ID }, { id: FORGED_ID & 0x7fff });
    expectSent(bench, talk, { id: 0x1234 });
  }),
  rule('direct: the other pod’s ID or label reaches the pod', (bench) => {
    expectTaken(bench, learned(bench), { id: 0x9234 });
  }),
  rule('direct: uplink_egress knows the packet for ours', (bench) => {
    const { frame, skb } = bench.run('pod_egress', learned(bench).sent());
    expect(skb.cb).toEqual([...MAGIC, 0]);
    const passed = bench.run('uplink_egress', frame, { cb: [...MAGIC], ingress_ifindex: bench.node.ifindex.pod });
    expectUntouched(passed, frame);
  }),
  rule('direct: to a Service: translated, and back', (bench) => {
    for (const kind of ['tcp', 'udp'] as const) {
      bench.reset();
      const talk = learned(bench, { kind, service: SERVICE });
      expectSent(bench, talk, { l4: { payload: Buffer.from('odd') } });
      const frame = arriving(talk, { l4: { payload: Buffer.from('odd') } });
      const { frame: taken } = bench.run('uplink_ingress', frame);
      expect(taken.toString('hex')).toBe(
        talk.delivered({ ttl: 62, l4: { payload: Buffer.from('odd') } }).toString('hex'),
      );
    }
  }),
  rule('direct: RST of the pod is sent, and ends flow and entry', (bench) => {
    const talk = learned(bench, { kind: 'tcp' });
    expectSent(bench, talk, { l4: { flags: Tcp.rst } });
    expect([bench.flow(bench.flowKeyOf(talk)), bench.entry(talk)]).toEqual([undefined, undefined]);
  }),
  rule('direct: RST of the other pod is delivered, and ends flow and entry', (bench) => {
    const talk = learned(bench, { kind: 'tcp' });
    expectTaken(bench, talk, { l4: { flags: Tcp.rst } });
    expect([bench.flow(bench.flowKeyOf(talk)), bench.entry(talk)]).toEqual([undefined, undefined]);
  }),
];

/** Slow, as it was before the header was learned. */
function slow(name: string, reason: string, change: (bench: Bench, talk: Conversation) => unknown): Rule {
  return rule(`direct: ${name}: slow`, (bench) => {
    const talk = learned(bench);
    expectSent(bench, talk);
    change(bench, talk);
    bench.patchFlow(bench.flowKeyOf(talk), { verifyAt: 0n });
    const frame = talk.sent({ id: FORGED_ID });
    expectSlow(bench.run('pod_egress', frame), frame, reason);
  });
}

/** On its way to the pod: the slow path's. */
function left(
  name: string,
  wire: Overrides,
  change: (bench: Bench, talk: Conversation) => unknown = () => undefined,
): Rule {
  return rule(`direct, left to the slow path: ${name}`, (bench) => {
    const talk = learned(bench, { kind: 'tcp' });
    expectTaken(bench, talk);
    change(bench, talk);
    const frame = arriving(talk, wire);
    expectUntouched(bench.run('uplink_ingress', frame), frame);
  });
}

const guards: Rule[] = [
  slow('direct mode is turned off', 'stale', (bench) => bench.configure({ flags: FLAGS })),
  slow('the node drains', 'draining', (bench) => bench.configure({ flags: DRAINED | ConfigFlag.DIRECT })),
  slow('the peer is gone', 'stale', (bench) => {
    bench.tables.peers.set(PEER.id, { ...bench.tables.peers.get(PEER.id), flags: 0 });
  }),
  slow('conntrack does not allow it any more', 'ct_missing', (bench, talk) => {
    bench.node.ct.flush();
    bench.patchFlow(bench.flowKeyOf(talk), { recheckAt: 0n });
  }),
  rule('direct: larger than the uplink’s MTU: slow', (bench) => {
    const talk = learned(bench);
    expectSent(bench, talk);
    expect(bench.run('pod_egress', talk.sent({ l4: { payload: Buffer.alloc(1500) } })).reasons).toEqual({ too_big: 1 });
  }),
  rule('direct: nothing is sent before the slow path has', (bench) => {
    const talk = admitted(bench);
    for (let i = 0; i < 3; i++) expect(bench.run('pod_egress', talk.sent()).reasons).toEqual({ mode: 1 });
  }),
  rule('direct: a TTL or DSCP that is not the flow’s teaches nothing', (bench) => {
    const talk = admitted(bench);
    for (const wire of [{ ttl: 60 }, { ttl: 65 }, { tos: 0x20 }]) {
      expect(bench.run('uplink_egress', leaving(talk, wire)).counters).not.toHaveProperty('tx_learned');
    }
  }),
  rule('direct: packets in a tunnel teach a flow nothing, nor are they taken', (bench) => {
    const talk = admitted(bench);
    bench.configure({ flags: DIRECT | ConfigFlag.ENCAP });
    bench.patchFlow(bench.flowKeyOf(talk), { flags: 0 });
    expect(bench.run('uplink_egress', leaving(talk)).counters).not.toHaveProperty('tx_learned');
  }),
  left('direct mode is off', {}, (bench) => bench.configure({ flags: FLAGS })),
  left('the node drains', {}, (bench) => bench.configure({ flags: DRAINED | ConfigFlag.DIRECT })),
  left('another host’s frame', { dmac: '0a:00:00:00:00:66' }),
  left('SYN', { l4: { flags: Tcp.syn } }),
  left('FIN', { l4: { flags: Tcp.fin | Tcp.ack } }),
  left('a fragment', { mf: true, df: false }),
  left('TTL that would reach 0', { ttl: 2 }),
  left('Traceflow DSCP', { tos: 0x0c }),
  left('another flow', { l4: { sport: 9 } }),
  left('an excluded pod', {}, (bench) => {
    bench.tables.endpoints.set(POD.id, { ...bench.tables.endpoints.get(POD.id), excluded: Reason.BANDWIDTH });
  }),
  left('a peer that has gone', {}, (bench) => {
    bench.tables.peers.set(PEER.id, { ...bench.tables.peers.get(PEER.id), flags: 0 });
  }),
  left('a flow that is not routed', {}, (bench, talk) =>
    bench.patchFlow(bench.flowKeyOf(talk), { flags: FlowFlag.RX_LEARNED }),
  ),
  left('conntrack does not allow it any more', {}, (bench, talk) => {
    bench.node.ct.flush();
    bench.allow(talk, { mark: 0x100 });
    bench.patchFlow(bench.flowKeyOf(talk), { rxRecheckAt: now() - SEC });
  }),
];

/** The peer's pod has opened the connection: its packets came by the gateway. */
function opened(bench: Bench, talk: Conversation, mark = 2): void {
  const tuple = { family: talk.family, src: talk.remote.pod, dst: talk.local.addr };
  const ports = { proto: talk.proto, sport: talk.dport, dport: talk.sport };
  const entry = { zone: zoneOf(talk), mark, status: 6, timeoutSeconds: 100, tcpState: 3 };
  bench.node.ct.insert({ ...tuple, ...ports }, entry);
}

const gateway: Rule[] = [
  rule('direct: the answers to what came by the gateway are admitted', (bench) => {
    routed(bench);
    const talk = new Conversation({ kind: 'tcp' });
    opened(bench, talk);
    expect(bench.run('pod_egress', talk.sent()).counters).toMatchObject({ flow_admitted: 1 });
  }),
  rule('direct: what the pod itself sends by the gateway is refused', (bench) => {
    routed(bench);
    const talk = new Conversation({ kind: 'tcp' });
    bench.allow(talk, { mark: 2 });
    expect(bench.run('pod_egress', talk.sent()).reasons).toEqual({ ct_source: 1 });
  }),
  rule('direct: answers to what came by the gateway, from a node with a tunnel: refused', (bench) => {
    bench.configure({ flags: DIRECT });
    const talk = new Conversation({ kind: 'tcp' });
    opened(bench, talk);
    expect(bench.run('pod_egress', talk.sent()).reasons).toEqual({ ct_source: 1 });
  }),
  rule('direct: answers to what came by the gateway, of the family with a tunnel: refused', (bench) => {
    const talk = new Conversation({ kind: 'tcp' });
    routed(bench, PeerFlag.CAPABLE | (talk.family === 4 ? PeerFlag.DIRECT6 : PeerFlag.DIRECT4));
    opened(bench, talk);
    expect(bench.run('pod_egress', talk.sent()).reasons).toEqual({ ct_source: 1 });
  }),
  rule('direct mode is off: answers to what came by the gateway are refused', (bench) => {
    routed(bench);
    bench.configure({ flags: FLAGS });
    const talk = new Conversation({ kind: 'tcp' });
    opened(bench, talk);
    expect(bench.run('pod_egress', talk.sent()).reasons).toEqual({ ct_source: 1 });
  }),
  rule('direct: mark 4 (uplink) is refused', (bench) => {
    routed(bench);
    const talk = new Conversation({ kind: 'tcp' });
    opened(bench, talk, 4);
    expect(bench.run('pod_egress', talk.sent()).reasons).toEqual({ ct_source: 1 });
    expect(spokenFamily()).toBe(talk.family);
  }),
];

export const directRules: readonly Rule[] = inBoth([...carrying, ...guards, ...gateway], /a fragment/);
