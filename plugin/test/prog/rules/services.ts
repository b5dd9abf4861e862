/** Connections to a ClusterIP, which AntreaProxy translates: on all programs. */
import { expect } from '@jest/globals';
import { CtStatus } from '../../../src/netlink/ctnetlink.ts';
import { PROTOCOL_VERSION } from '../../../src/dataplane/layout.ts';
import { FlowFlag, Reason, SlotState, type Flow } from '../../../src/gen/layouts.ts';
import {
  announcement,
  Conversation,
  GATEWAY_MAC,
  masquerade,
  neighbour,
  NODE,
  now,
  PEER,
  PEER_GATEWAY,
  PEER_GATEWAY6,
  PEER2,
  PLAIN_NODE,
  POD,
  podOf,
  POD2,
  SEC,
  spokenEnd,
  Verdict,
  withId,
  type Bench,
  type ConversationSpec,
  type Established,
  NO_LOOKUP,
} from '../harness.ts';
import { payloadForZeroSum, Tcp } from '../packets.ts';
import { expectSlow, expectUntouched, FORGED_ID, inBoth, requireFast, rule } from './rule.ts';
import type { Rule } from './rule.ts';

type Overrides = NonNullable<Parameters<Conversation['sent']>[0]>;

/** Antrea's mark of a connection from a pod of this node to a Service. */
const MARK = 0x13;
const SERVICE = { addr: '10.96.0.10', addr6: 'fd00:96::10', port: 80 };
const OTHER_SERVICE = { addr: '10.96.0.11', addr6: 'fd00:96::11', port: 80 };
/** Another pod of PEER. */
const SIBLING = { ...PEER, pod: '10.10.1.6', pod6: 'fd00:10:1::6' };
const OUTSIDE = { ...PEER, pod: '198.51.100.7', pod6: '2001:db8:1::7' };
/** POD2 as the endpoint. */
const NEIGHBOUR = neighbour(POD2);

function toService(spec: Partial<ConversationSpec> = {}): ConversationSpec {
  return { kind: 'tcp', service: SERVICE, ...spec };
}

/** The masqueraded form of a packet to the Service, built from nothing: so every checksum in it is right. */
function masqueraded({ talk, idOut }: Established, overrides: Overrides = {}): Buffer {
  const { l4, ...rest } = overrides;
  return talk.sent({
    ...{
      dmac: talk.remote.mac,
      smac: NODE.mac,
      src: talk.node.addr,
      dst: talk.remote.addr,
      ttl: 64,
      tos: 0,
      id: idOut,
    },
    ...rest,
    l4: { dport: talk.dport, ...l4 },
  });
}

function expectMasqueraded(bench: Bench, flow: Established, l4: Overrides['l4'] = {}): void {
  const outcome = bench.run('pod_egress', flow.talk.sent({ l4 }));
  expect(outcome.reasons).toEqual({});
  expect(outcome.verdict).toBe(Verdict.redirect);
  expect(outcome.frame.toString('hex')).toBe(masqueraded(flow, { l4 }).toString('hex'));
  expect(outcome.parsed.problems).toEqual([]);
}

/** A masqueraded packet from the endpoint's node reaches the pod as the Service's. */
function expectRestored(bench: Bench, { talk, idIn }: Established, l4: Overrides['l4'] = {}): void {
  const outcome = bench.run('uplink_ingress', talk.masqueraded({ id: idIn, l4 }));
  expect(outcome.verdict).toBe(Verdict.redirect);
  const restored = talk.delivered({ id: 0, l4: { ...l4, sport: talk.destination.port } });
  expect(outcome.frame.toString('hex')).toBe(restored.toString('hex'));
  expect(outcome.parsed.problems).toEqual([]);
}

function expectRefused(
  bench: Bench,
  spec: Partial<ConversationSpec>,
  reason: string,
  entry: Parameters<Bench['allow']>[1] = {},
): void {
  const talk = new Conversation(toService(spec));
  bench.allow(talk, entry);
  const frame = talk.sent({ id: FORGED_ID });
  expectSlow(bench.run('pod_egress', frame), frame, reason);
  expect(bench.flow(bench.flowKeyOf(talk))).toBeUndefined();
}

const elsewhere: Rule[] = [
  ...(['tcp', 'udp'] as const).flatMap((kind) => [
    rule(`Service, ${kind}: every byte of the masqueraded packet`, (bench) => {
      const flow = bench.establish(toService({ kind }));
      expectMasqueraded(bench, flow);
      expectMasqueraded(bench, flow, { payload: Buffer.from('odd') });
    }),
    rule(`Service, ${kind}: every byte of the restored packet`, (bench) => {
      const flow = bench.establish(toService({ kind }));
      expectRestored(bench, flow);
      expectRestored(bench, flow, { payload: Buffer.from('odd') });
    }),
    rule(`Service, ${kind}: with the endpoint’s own port`, (bench) => {
      const flow = bench.establish(toService({ kind, dport: SERVICE.port }));
      expectMasqueraded(bench, flow);
      expectRestored(bench, flow);
    }),
  ]),
  rule('Service: a UDP checksum of zero stays zero', (bench) => {
    const flow = bench.establish(toService({ kind: 'udp' }));
    expectMasqueraded(bench, flow, { checksum: 0 });
    expectRestored(bench, flow, { checksum: 0 });
  }),
  rule('Service: a UDP checksum that becomes zero is written as 0xffff', (bench) => {
    const flow = bench.establish(toService({ kind: 'udp' }));
    const out = payloadForZeroSum((payload) => masqueraded(flow, { l4: { payload } }));
    expectMasqueraded(bench, flow, { payload: out });
    const back = payloadForZeroSum((payload) => flow.talk.delivered({ l4: { payload } }));
    expectRestored(bench, flow, { payload: back });
  }),
  rule('Service: the flow knows its endpoint, and the slot the endpoint’s ports', (bench) => {
    const { talk, flowKey, slotKey } = bench.establish(toService());
    const saddr = spokenEnd(POD).addr;
    expect(bench.flow(flowKey)).toMatchObject({
      out: { saddr, daddr: podOf(PEER), sport: 40000, dport: 8080 },
      flags: FlowFlag.KEYED | FlowFlag.SERVICE | FlowFlag.HAVE_KEY | FlowFlag.ANNOUNCED | FlowFlag.PEER_COMPLETE,
    });
    expect(slotKey).toMatchObject({ sport: 8080, dport: 40000 });
    const ofService = { saddr: talk.destination.addr, sport: SERVICE.port };
    expect(bench.slot(slotKey)).toMatchObject({ ...ofService, daddr: saddr, pod: podOf(PEER) });
  }),
  rule('Service: a rejection finds the flow', (bench) => {
    const flow = bench.establish(toService({ kind: 'udp' }));
    requireFast(bench, flow);
    const { talk, peerKey } = flow;
    const ports = Buffer.alloc(4);
    ports.writeUInt16BE(talk.sport, 0);
    ports.writeUInt16BE(talk.dport, 2);
    const message = [
      Buffer.of(0xc1, PROTOCOL_VERSION, 1, 17),
      ports,
      Buffer.alloc(4),
      Buffer.of(peerKey),
      Buffer.alloc(7),
    ];
    const transport = { kind: 'udp', sport: 4789, dport: 4789, payload: Buffer.concat(message) } as const;
    const outcome = bench.run('uplink_ingress', talk.masqueraded({ id: 0, transport }));
    expect(outcome.counters).toMatchObject({ reject_received: 1 });
  }),
];

const refused: Rule[] = [
  ...(
    [
      ['that came by the tunnel (DSR): refused', 'ct_service', { mark: 0x11 }],
      ['that came by the gateway: refused', 'ct_service', { mark: 0x12 }],
      ['without Antrea’s mark: refused', 'ct_service', { mark: 0x3 }],
      ['not allowed yet: refused', 'ct_not_allowed', { mark: 0x10 }],
      ['with SNAT: refused', 'ct_snat', { mark: MARK | 0x20 }],
      ['with hairpin: refused', 'ct_hairpin', { mark: MARK | 0x40 }],
      ['under an L7 policy: refused', 'ct_l7', { mark: MARK | 0x80 }],
      ['without a reply: refused', 'ct_unreplied', { status: 0 }],
      ['whose source is translated, too: refused', 'ct_status', { snatTo: '192.0.2.77' }],
    ] as const
  ).map(([name, reason, entry]) => rule(`Service ${name}`, (bench) => expectRefused(bench, {}, reason, entry))),
  rule('Service mark without a translation: refused', (bench) => {
    const talk = new Conversation({ kind: 'tcp' });
    bench.allow(talk, { mark: MARK });
    const frame = talk.sent({ id: FORGED_ID });
    expectSlow(bench.run('pod_egress', frame), frame, 'ct_service');
  }),
  ...(
    [
      ['to another pod', { dnatTo: SIBLING.pod }],
      ['to a pod of another node', { dnatTo: PEER2.pod }],
      ['to a pod of this node', { dnatTo: POD2.addr }],
      ['to another port', { dnatTo: PEER.pod, dnatPort: 8081 }],
    ] as const
  ).map(([what, entry]) =>
    rule(`a pod’s address translated ${what} is no Service: refused`, (bench) =>
      expectRefused(bench, { service: { addr: PEER.pod, port: 8080 } }, 'ct_service', { mark: MARK, ...entry }),
    ),
  ),
  rule('a pod of this node whose port is translated is no Service: refused', (bench) => {
    const talk = new Conversation({ kind: 'tcp', remote: NEIGHBOUR });
    bench.allow(talk, { mark: MARK, dnatTo: spokenEnd(POD2).addr, dnatPort: 8081 });
    const frame = talk.sent({ dmac: POD2.mac, id: FORGED_ID });
    expectSlow(bench.run('pod_egress', frame), frame, 'ct_service');
  }),
  rule('Service: an endpoint that is no pod: refused', (bench) => {
    expectRefused(bench, { remote: OUTSIDE }, 'not_pod');
    expectRefused(bench, { remote: { ...PEER, pod: PEER_GATEWAY, pod6: PEER_GATEWAY6 }, sport: 40001 }, 'not_pod');
  }),
  rule('Service: an endpoint on a node without XMasq: refused', (bench) =>
    expectRefused(bench, { remote: PLAIN_NODE }, 'peer_not_capable'),
  ),
  rule('Service: traffic with other nodes is excluded: refused', (bench) => {
    bench.configure({ excludedRemote: Reason.ENCRYPTION });
    expectRefused(bench, {}, 'encryption');
  }),
  rule('Service: its own port or the endpoint’s is DNS’s: refused', (bench) => {
    expectRefused(bench, { dport: 53 }, 'dns_reply');
    expectRefused(bench, { service: { ...SERVICE, port: 53 } }, 'dns_reply');
  }),
  rule('Service: the endpoint’s port is a reserved one: refused', (bench) =>
    expectRefused(bench, { kind: 'udp', dport: 4500 }, 'reserved_port'),
  ),
  rule('Service by SCTP, whose checksum covers the ports: refused', (bench) => {
    const talk = new Conversation(toService({ kind: 'sctp' }));
    const frame = talk.sent({ id: FORGED_ID });
    expectSlow(bench.run('pod_egress', frame), frame, 'not_pod');
  }),
  rule('Service on a kernel without the zone option: refused', (bench) => {
    bench.configure({ flags: NO_LOOKUP });
    const talk = new Conversation(toService());
    bench.tables.approvals.set(bench.flowKeyOf(talk), { expires: 1n << 62n });
    const frame = talk.sent({ id: FORGED_ID });
    expectSlow(bench.run('pod_egress', frame), frame, 'not_pod');
  }),
  rule('connections to the outside are refused and left alone', (bench) => {
    const talk = new Conversation({ kind: 'tcp', remote: OUTSIDE });
    bench.allow(talk);
    const frame = talk.sent({ id: FORGED_ID });
    expectSlow(bench.run('pod_egress', frame), frame, 'not_pod');
    const reply = talk.delivered({ id: masquerade(5) });
    expectUntouched(bench.run('pod_ingress', reply), reply);
    bench.run('pod_egress', talk.sent({ l4: { flags: Tcp.syn } }));
    bench.run('pod_ingress', talk.delivered({ l4: { flags: Tcp.rst } }));
    expect(bench.entry(talk)).toBeDefined();
  }),
];

/** Ten packets of a connection that is refused. @returns lookups in conntrack */
function lookups(bench: Bench, spec: Partial<ConversationSpec>, reason: string): number {
  const talk = new Conversation(toService(spec));
  bench.allow(talk);
  let asked = 0;
  for (let i = 0; i < 10; i++) {
    const { counters, reasons } = bench.run('pod_egress', talk.sent());
    expect(reasons).toEqual({ [reason]: 1 });
    asked += counters['ct_lookup'] ?? 0;
  }
  return asked;
}

const cheap: Rule[] = [
  ...(
    [
      [
        'to the outside',
        { service: { addr: OUTSIDE.pod, addr6: OUTSIDE.pod6, port: 8080 }, remote: OUTSIDE },
        'not_pod',
      ],
      ['to a Service on a node without XMasq', { remote: PLAIN_NODE }, 'peer_not_capable'],
      ['to port 53 of an endpoint', { dport: 53 }, 'dns_reply'],
      ['to a reserved port of an endpoint', { kind: 'udp', dport: 4500 }, 'reserved_port'],
    ] as const
  ).map(([what, spec, reason]) =>
    rule(`conntrack is not asked about every packet ${what}`, (bench) =>
      // The first five; then pauses begin, of 10 ms and more.
      expect(lookups(bench, spec, reason)).toBeLessThan(8),
    ),
  ),
  rule('conntrack is not asked about queries to port 53 of a Service', (bench) =>
    expect(lookups(bench, { kind: 'udp', service: { ...SERVICE, port: 53 } }, 'dns_reply')).toBe(0),
  ),
];

const life: Rule[] = [
  rule('Service: another endpoint since, seen by the sender: the flow ends', (bench) => {
    const flow = bench.establish(toService());
    requireFast(bench, flow);
    bench.node.ct.flush();
    bench.allow(flow.talk, { dnatTo: podOf(SIBLING) });
    bench.patchFlow(flow.flowKey, { verifyAt: 0n, recheckAt: 0n });
    const frame = flow.talk.sent({ id: FORGED_ID });
    expectSlow(bench.run('pod_egress', frame), frame, 'stale');
    expect(bench.flow(flow.flowKey)).toBeUndefined();
  }),
  rule('Service: another endpoint since, seen by the receiver: not restored', (bench) => {
    const flow = bench.establish(toService());
    expectRestored(bench, flow);
    bench.node.ct.flush();
    bench.allow(flow.talk, { dnatTo: podOf(SIBLING) });
    bench.patchSlot(flow.slotKey, { recheckAt: 0n });
    const outcome = bench.run('uplink_ingress', flow.talk.masqueraded({ id: flow.idIn }));
    expect(outcome.counters).toMatchObject({ unknown_key: 1 });
    expect(bench.slot(flow.slotKey)).toMatchObject({ state: SlotState.TOMBSTONE });
  }),
  ...(
    [
      ['another Service', { service: OTHER_SERVICE }],
      ['another port of the Service', { service: { ...SERVICE, port: 81 } }],
      ['no Service at all', { service: { addr: PEER.pod, addr6: PEER.pod6, port: 8080 } }],
    ] as const
  ).map(([what, change]) =>
    rule(`Service: the same ports between the nodes, but ${what}: the slot is taken`, (bench) => {
      bench.establish(toService());
      // Otherwise conntrack would choose another source port.
      bench.node.ct.flush();
      const talk = new Conversation(toService(change));
      bench.allow(talk);
      const frame = talk.sent({ id: FORGED_ID });
      expectSlow(bench.run('pod_egress', frame), frame, 'slot_taken');
    }),
  ),
  rule('Service: the same ports and Service, but another endpoint: not with a slot freed just now', (bench) => {
    const flow = bench.establish(toService());
    const secondsAgo = now() - 10n * SEC;
    bench.tables.flows.delete(flow.flowKey);
    bench.patchSlot(flow.slotKey, { state: SlotState.TOMBSTONE, freedAt: secondsAgo });
    bench.node.ct.flush();
    expectRefused(bench, { remote: SIBLING }, 'slot_recent');
    bench.node.ct.flush();
    bench.tables.refusals.delete(flow.flowKey);
    bench.allow(flow.talk);
    expect(bench.run('pod_egress', flow.talk.sent()).counters).toMatchObject({ flow_admitted: 1 });
  }),
  rule('Service: RST of the pod: carried, and conntrack’s entry expires', (bench) => {
    const flow = bench.establish(toService());
    requireFast(bench, flow);
    expectMasqueraded(bench, flow, { flags: Tcp.rst });
    expect([bench.flow(flow.flowKey), bench.entry(flow.talk)]).toEqual([undefined, undefined]);
  }),
  rule('Service: RST of the endpoint: restored, and conntrack’s entry expires', (bench) => {
    const flow = bench.establish(toService());
    expectRestored(bench, flow, { flags: Tcp.rst });
    expect([bench.flow(flow.flowKey), bench.entry(flow.talk)]).toEqual([undefined, undefined]);
  }),
  rule('Service: SYN on the ports of an established connection expires it', (bench) => {
    const talk = new Conversation(toService());
    bench.allow(talk);
    bench.run('pod_egress', talk.sent({ l4: { flags: Tcp.syn } }));
    expect(bench.entry(talk)).toBeUndefined();
  }),
  rule('Service: an announcement before the flow is admitted: erased', (bench) => {
    const talk = new Conversation(toService({ kind: 'udp' }));
    bench.allow(talk, { status: CtStatus.seenReply });
    bench.run('pod_egress', talk.sent());
    const frame = talk.delivered({ id: announcement(9, false) });
    expectUntouched(bench.run('pod_ingress', frame), withId(frame, 0));
  }),
  rule('Service: an announcement to a pod whose packets nobody has judged yet: erased', (bench) => {
    const talk = new Conversation(toService());
    bench.allow(talk);
    const frame = talk.delivered({ id: announcement(9, false) });
    expectUntouched(bench.run('pod_ingress', frame), withId(frame, 0));
  }),
  rule(
    'the outside: an ID that looks like an announcement, before anybody has judged the connection: left alone',
    (bench) => {
      const talk = new Conversation({ kind: 'tcp', remote: OUTSIDE });
      bench.allow(talk);
      const frame = talk.delivered({ id: announcement(9, false) });
      expectUntouched(bench.run('pod_ingress', frame), frame);
    },
  ),
  rule('the ID of a packet from a pod of this node is left alone, also after a refusal', (bench) => {
    const talk = new Conversation({ kind: 'udp', remote: NEIGHBOUR });
    bench.run('pod_egress', talk.sent({ dmac: POD2.mac }));
    const frame = talk.delivered({ id: announcement(9, false) });
    expectUntouched(bench.run('pod_ingress', frame), frame);
  }),
  rule('Service: keys come from the endpoint’s node', (bench) => {
    const flow = bench.establish(toService());
    bench.patchFlow(flow.flowKey, { peer: PEER2.id, peerEpoch: PEER2.epoch });
    bench.run('pod_ingress', flow.talk.delivered({ id: announcement(0x77, true) }));
    expect(bench.flow(flow.flowKey)).toMatchObject({ peerKey: flow.peerKey });
  }),
];

/** A connection from POD by the Service to POD2, as both of them see it. */
interface SameNode {
  readonly client: Conversation;
  readonly server: Conversation;
}

function sameNode(kind: 'tcp' | 'udp'): SameNode {
  const remote = neighbour(POD);
  return {
    client: new Conversation(toService({ kind, remote: NEIGHBOUR })),
    server: new Conversation({ kind, local: POD2, remote, sport: 8080, dport: 40000 }),
  };
}

/** What the slow path delivers, by Antrea's rules: the gateway's MAC address, TTL - 1. */
const ROUTED = { smac: GATEWAY_MAC, ttl: 63, tos: 0, id: 0 } as const;
const toClient = ({ client }: SameNode, l4: Overrides['l4'] = {}): Buffer => client.delivered({ ...ROUTED, l4 });
const toServer = ({ server }: SameNode, l4: Overrides['l4'] = {}): Buffer => server.delivered({ ...ROUTED, l4 });
const fromClient = ({ client }: SameNode, l4: Overrides['l4'] = {}): Buffer => client.sent({ id: 0, l4 });
const fromServer = ({ server }: SameNode, l4: Overrides['l4'] = {}): Buffer =>
  server.sent({ dmac: POD.mac, id: 0, l4 });

/** Sends both ways on the slow path. */
function meet(bench: Bench, pair: SameNode): void {
  const { pod, pod2 } = bench.node.ifindex;
  for (let i = 0; i < 2; i++) {
    bench.run('pod_egress', fromClient(pair), { ifindex: pod });
    bench.run('pod_ingress', toServer(pair), { ifindex: pod2 });
    bench.run('pod_egress', fromServer(pair), { ifindex: pod2 });
    bench.run('pod_ingress', toClient(pair), { ifindex: pod });
  }
}

function established(bench: Bench, kind: 'tcp' | 'udp'): SameNode {
  const pair = sameNode(kind);
  bench.allow(pair.client);
  meet(bench, pair);
  return pair;
}

function flowsOf(bench: Bench, { client, server }: SameNode): [Flow | undefined, Flow | undefined] {
  return [bench.flow(bench.flowKeyOf(client)), bench.flow(bench.flowKeyOf(server))];
}

function expectHanded(bench: Bench, input: Buffer, ifindex: number, output: Buffer): void {
  const outcome = bench.run('pod_egress', input, { ifindex });
  expect(outcome.reasons).toEqual({});
  expect(outcome.verdict).toBe(Verdict.redirect);
  expect(outcome.frame.toString('hex')).toBe(output.toString('hex'));
}

const within: Rule[] = [
  ...(['tcp', 'udp'] as const).map((kind) =>
    rule(`Service on the same node, ${kind}: every byte, both ways`, (bench) => {
      const pair = established(bench, kind);
      const { pod, pod2 } = bench.node.ifindex;
      for (const l4 of [{}, { payload: Buffer.from('odd') }]) {
        expectHanded(bench, fromClient(pair, l4), pod, toServer(pair, l4));
        expectHanded(bench, fromServer(pair, l4), pod2, toClient(pair, l4));
      }
    }),
  ),
  rule('Service on the same node: both flows know the translation', (bench) => {
    const pair = established(bench, 'tcp');
    const [client, server] = flowsOf(bench, pair);
    const ends = (flow: Flow | undefined): string =>
      flow === undefined ? '' : `${flow.out.saddr}:${flow.out.sport} ${flow.out.daddr}:${flow.out.dport}`;
    expect(ends(client)).toBe(`${spokenEnd(POD).addr}:40000 ${spokenEnd(POD2).addr}:8080`);
    expect(ends(server)).toBe(`${pair.client.destination.addr}:${SERVICE.port} ${spokenEnd(POD).addr}:40000`);
  }),
  rule('Service on the same node: slow until it is known how the slow path delivers', (bench) => {
    const pair = sameNode('tcp');
    bench.allow(pair.client);
    const { pod, pod2 } = bench.node.ifindex;
    for (let i = 0; i < 3; i++) {
      const outcome = bench.run('pod_egress', fromClient(pair), { ifindex: pod });
      expect([outcome.verdict, outcome.reasons]).toEqual([Verdict.pass, { key_exchange: 1 }]);
    }
    bench.run('pod_egress', fromServer(pair), { ifindex: pod2 });
    bench.run('pod_ingress', toServer(pair), { ifindex: pod2 });
    expect(bench.run('pod_egress', fromClient(pair), { ifindex: pod }).verdict).toBe(Verdict.redirect);
  }),
  rule('Service on the same node: a delivered TTL that is not the sender’s teaches nothing', (bench) => {
    const pair = sameNode('tcp');
    bench.allow(pair.client);
    const { pod, pod2 } = bench.node.ifindex;
    bench.run('pod_egress', fromClient(pair), { ifindex: pod });
    bench.run('pod_egress', fromServer(pair), { ifindex: pod2 });
    for (const ttl of [65, 62, 1])
      bench.run('pod_ingress', pair.server.delivered({ ...ROUTED, ttl }), { ifindex: pod2 });
    bench.run('pod_ingress', pair.server.delivered({ ...ROUTED, tos: 0x28 }), { ifindex: pod2 });
    expect((flowsOf(bench, pair)[0]?.flags ?? 0) & FlowFlag.UNLEARNED).toBe(FlowFlag.UNLEARNED);
  }),
  rule('Service on the same node: another TTL goes slow', (bench) => {
    const pair = established(bench, 'tcp');
    const frame = pair.client.sent({ ttl: 63, id: FORGED_ID });
    expectSlow(bench.run('pod_egress', frame), frame, 'header_changed');
  }),
  rule('Service on the same node: a frame that is not for the gateway goes slow', (bench) => {
    const pair = established(bench, 'tcp');
    const frame = pair.client.sent({ dmac: POD2.mac, id: FORGED_ID });
    expectSlow(bench.run('pod_egress', frame), frame, 'not_pod');
  }),
  rule('Service on the same node: the pod itself is the endpoint: refused', (bench) => {
    const remote = neighbour(POD);
    expectRefused(bench, { remote }, 'ct_hairpin');
  }),
  rule('Service on the same node: an answer from port 53 of the Service stays slow', (bench) => {
    const pair = sameNode('udp');
    const client = new Conversation({ kind: 'udp', remote: NEIGHBOUR, service: { ...SERVICE, port: 53 } });
    bench.allow(client);
    const frame = pair.server.sent({ dmac: POD.mac, id: FORGED_ID });
    expectSlow(bench.run('pod_egress', frame, { ifindex: bench.node.ifindex.pod2 }), frame, 'dns_reply');
  }),
  rule('Service on the same node: RST is carried, and conntrack’s entry expires', (bench) => {
    const pair = established(bench, 'tcp');
    const l4 = { flags: Tcp.rst };
    expectHanded(bench, fromServer(pair, l4), bench.node.ifindex.pod2, toClient(pair, l4));
    expect(bench.entry(pair.client)).toBeUndefined();
  }),
];

export const serviceRules: readonly Rule[] = inBoth(
  [...elsewhere, ...refused, ...cheap, ...life, ...within],
  /checksum of zero|translated to|whose source is translated/,
);
