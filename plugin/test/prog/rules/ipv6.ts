/** What only IPv6 has: extension headers, neighbour discovery, the flow label; and what IPv4 has in another form. */
import { expect } from '@jest/globals';
import {
  announcement,
  Conversation,
  CONTROL_MAGIC,
  MAGIC,
  masquerade,
  NODE,
  PEER,
  PEER2,
  POD2,
  TUNNEL_PORT,
  Verdict,
  withId,
  ZONE,
  ZONE6,
  type Bench,
  type ConversationSpec,
  type Established,
  type Outcome,
} from '../harness.ts';
import { PROTOCOL_VERSION } from '../../../src/dataplane/layout.ts';
import { FlowFlag, SlotState } from '../../../src/gen/layouts.ts';
import { addressBytes, buildFrame, frameId, parseFrame, Proto, Tcp } from '../packets.ts';
import { expectSlow, expectUntouched, FORGED_ID, requireFast, rule as anyRule } from './rule.ts';
import type { Rule } from './rule.ts';

type Overrides = NonNullable<Parameters<Conversation['sent']>[0]>;

const SERVICE = { addr: 'fd00:96::10', port: 80 };
/** Solicited-node multicast. */
const MULTICAST = { addr: 'ff02::1:ff00:1', mac: '33:33:ff:00:00:01' };
const ND = { kind: 'icmp', type: 135, id: 0, payload: Buffer.alloc(16) } as const;

function rule(name: string, check: (bench: Bench) => void, families: Rule['families'] = [6]): Rule {
  return anyRule(`IPv6: ${name}`, check, families);
}

function conversation(spec: ConversationSpec): Conversation {
  return new Conversation({ ...spec, family: 6 });
}

function establish(bench: Bench, spec: ConversationSpec): Established {
  return bench.establish({ ...spec, family: 6 });
}

const extension = (type: number): Overrides => ({ extension: { type, body: Buffer.from('00010400000000', 'hex') } });

/** Slow by itself; the same for a packet of a fast flow and of one that is not admitted. */
function slow(name: string, kind: ConversationSpec['kind'], overrides: Overrides, reason: string): Rule {
  return rule(`${name}: slow, marker cleared`, (bench) => {
    const fresh = conversation({ kind });
    bench.allow(fresh);
    const frame = fresh.sent({ id: FORGED_ID, ...overrides });
    expectSlow(bench.run('pod_egress', frame), frame, reason);
    expect(bench.flow(bench.flowKeyOf(fresh))).toBeUndefined();
    bench.reset();
    requireFast(bench, establish(bench, { kind }));
    expectSlow(bench.run('pod_egress', frame), frame, reason);
  });
}

const sending: Rule[] = [
  slow('hop-by-hop options', 'tcp', extension(Proto.hopByHop), 'ip_options'),
  slow('a routing header', 'udp', extension(Proto.routing), 'ip_options'),
  slow('destination options', 'udp', extension(Proto.destinationOptions), 'ip_options'),
  slow('a mobility header', 'udp', extension(135), 'ip_options'),
  slow('HIP', 'udp', extension(139), 'ip_options'),
  slow('shim6', 'udp', extension(140), 'ip_options'),
  slow('no next header', 'raw', { proto: Proto.none }, 'ip_options'),
  slow('first fragment', 'udp', { mf: true }, 'fragment'),
  slow('last fragment', 'udp', { fragmentOffset: 185 }, 'fragment'),
  slow('atomic fragment', 'tcp', { fragmentOffset: 0 }, 'fragment'),
  slow('payload length beyond the frame', 'tcp', { totalLength: 500 }, 'malformed'),
  slow('bytes after the packet', 'udp', { trailer: Buffer.alloc(4) }, 'malformed'),
  slow('TCP data offset below 5', 'tcp', { l4: { dataOffset: 4 } }, 'malformed'),
  slow('ESP', 'raw', { proto: Proto.esp }, 'protocol'),
  slow('UDP-Lite', 'raw', { proto: Proto.udplite }, 'protocol'),
  slow('ICMP of IPv4', 'raw', { proto: Proto.icmp }, 'protocol'),
  slow('neighbour solicitation', 'icmp', { l4: { type: 135 } }, 'icmp_type'),
  slow('neighbour advertisement', 'icmp', { l4: { type: 136 } }, 'icmp_type'),
  slow('router solicitation', 'icmp', { l4: { type: 133 } }, 'icmp_type'),
  slow('multicast listener report', 'icmp', { l4: { type: 143 } }, 'icmp_type'),
  slow('packet too big', 'icmp', { l4: { type: 2 } }, 'icmp_type'),
  slow('echo with a code', 'icmp', { l4: { code: 1 } }, 'icmp_type'),
  slow('source port 53', 'udp', { l4: { sport: 53 } }, 'dns_reply'),
  slow('to the tunnel’s port', 'udp', { l4: { dport: TUNNEL_PORT } }, 'reserved_port'),
  rule('neighbour discovery to a multicast address: left alone', (bench) => {
    const frame = conversation({ kind: 'icmp' }).sent({
      dst: MULTICAST.addr,
      dmac: MULTICAST.mac,
      ttl: 255,
      transport: ND,
    });
    expectUntouched(bench.run('pod_egress', frame), frame);
    expectUntouched(bench.run('pod_ingress', frame), frame);
    expectUntouched(bench.run('uplink_egress', frame), frame);
    expectUntouched(bench.run('uplink_ingress', frame), frame);
  }),
  rule('neighbour discovery between the nodes: left alone', (bench) => {
    establish(bench, { kind: 'icmp' });
    const ends = { smac: PEER.mac, dmac: NODE.mac, src: PEER.addr6, dst: NODE.addr6 };
    const frame = buildFrame({ ...ends, ttl: 255, id: 0xffff, transport: { ...ND, type: 136 } });
    expectUntouched(bench.run('uplink_ingress', frame), frame);
  }),
  rule('AH: slow, and its flow label is left alone', (bench) => {
    const ah = { kind: 'raw', proto: Proto.ah, bytes: Buffer.alloc(40, 4) } as const;
    const frame = conversation({ kind: 'raw' }).sent({ id: FORGED_ID, labelLow: 3, transport: ah });
    expectUntouched(bench.run('pod_egress', frame), frame);
  }),
  rule('a label without the marker is left alone', (bench) => {
    const frame = conversation({ kind: 'tcp' }).sent({ id: 0x7abc, labelLow: 0xd });
    expectUntouched(bench.run('pod_egress', frame), frame);
  }),
  rule('not IPv6 by its EtherType or its version: nothing is read or written', (bench) => {
    const talk = conversation({ kind: 'tcp' });
    for (const frame of [
      talk.sent({ id: FORGED_ID, etherType: 0x0800 }),
      talk.sent({ id: FORGED_ID, etherType: 0x0806 }),
      talk.sent({ id: FORGED_ID, version: 4 }),
    ]) {
      const outcome = bench.run('pod_egress', frame);
      expectUntouched(outcome, frame);
      expect(outcome.counters).toEqual({});
    }
  }),
  rule(
    'an IPv4 address in the place of an IPv6 one: nobody’s',
    (bench) => {
      const four = bench.establish({ kind: 'udp', family: 4 });
      const ends = { src: `::ffff:${four.talk.local.addr}`, dst: `::ffff:${four.talk.remote.pod}` };
      const sent = conversation({ kind: 'udp' }).sent({ id: FORGED_ID, ...ends });
      expectSlow(bench.run('pod_egress', sent), sent, 'malformed');
      const back = { src: `::ffff:${PEER.addr}`, dst: NODE.addr6 };
      const masqueraded = conversation({ kind: 'udp' }).masqueraded({ id: four.idIn, ...back });
      expectUntouched(bench.run('uplink_ingress', masqueraded), masqueraded);
    },
    [4, 6],
  ),
  rule('the label does not count up: the marker is cleared, the rest stays, whatever the segments', (bench) => {
    const frame = conversation({ kind: 'tcp' }).sent({ id: 0xffff });
    const outcome = bench.run('pod_egress', frame, { gso_size: 100, gso_segs: 64 });
    expectUntouched(outcome, withId(frame, 0x7fff));
  }),
  rule('VLAN tags in the frame: slow, the marker below them cleared, dropped if there are more than 8', (bench) => {
    const frame = (id: number, tags: number): Buffer => {
      const tagged = conversation({ kind: 'tcp' }).sent({ id, labelLow: 5, vlan: 7 });
      const more = Array.from({ length: tags - 1 }, () => tagged.subarray(12, 16));
      return Buffer.concat([tagged.subarray(0, 12), ...more, tagged.subarray(12)]);
    };
    for (const tags of [1, 2, 8]) {
      const outcome = bench.run('pod_egress', frame(FORGED_ID, tags));
      expectUntouched(outcome, frame(FORGED_ID & 0x7fff, tags));
      expect(outcome.counters).toEqual({ slow_tx: 1, marker_cleared: 1 });
    }
    expect(bench.run('pod_egress', frame(FORGED_ID, 9)).verdict).toBe(Verdict.drop);
  }),
  rule('tagged UDP segments to a peer’s IPv4 address, written as an IPv6 one, are nobody’s: left alone', (bench) => {
    const frame = conversation({ kind: 'udp' }).sent({ dst: `::ffff:${PEER.addr}`, vlan: 0 });
    expectUntouched(bench.run('pod_egress', frame, { gso_size: 30, gso_segs: 2 }), frame);
  }),
  ...(
    [
      ['to a peer', {}, {}, {}],
      [
        'in a later segment',
        {},
        { payload: Buffer.concat([Buffer.alloc(90, 8), Buffer.alloc(30, 0xc1)]) },
        { gso_size: 30, gso_segs: 4 },
      ],
      ['from port 53, which may be translated', {}, { sport: 53 }, {}],
      ['below tags, segmented', { vlan: 0 }, {}, { gso_size: 30, gso_segs: 2 }],
    ] as const
  ).map(([name, overrides, l4, skb]) =>
    rule(`forged control message ${name}: dropped`, (bench) => {
      const transport = { kind: 'udp', sport: 1, dport: TUNNEL_PORT, payload: Buffer.alloc(30, 0xc1), ...l4 } as const;
      const frame = conversation({ kind: 'udp' }).sent({ dst: PEER.addr6, transport, ...overrides });
      expect(bench.run('pod_egress', frame, skb).verdict).toBe(Verdict.drop);
    }),
  ),
  rule('conntrack is asked in the zone of IPv6, not in that of IPv4', (bench) => {
    const talk = conversation({ kind: 'udp' });
    bench.allow(talk, { zone: ZONE });
    expect(bench.run('pod_egress', talk.sent()).reasons).toEqual({ ct_missing: 1 });
    bench.node.ct.flush();
    bench.allow(talk, { zone: ZONE6 });
    expect(bench.run('pod_egress', talk.sent()).counters).toMatchObject({ flow_admitted: 1 });
  }),
  rule(
    'a pod’s address of IPv4 is not checked against IPv6’s: spoofing another pod’s IPv6 address is refused',
    (bench) => {
      const talk = conversation({ kind: 'udp', local: POD2 });
      bench.allow(talk);
      expect(bench.run('pod_egress', talk.sent(), { ifindex: bench.node.ifindex.pod }).reasons).toEqual({ spoof: 1 });
    },
  ),
  rule('a pod or a node without an IPv6 address: refused', (bench) => {
    const talk = conversation({ kind: 'udp' });
    bench.allow(talk);
    bench.configure({ uplinkAddr6: '' });
    expect(bench.run('pod_egress', talk.sent()).reasons).toEqual({ mode: 1 });
    bench.configure({ uplinkAddr6: NODE.addr6 });
    bench.tables.peers.set(PEER.id, { ...bench.tables.peers.get(PEER.id), addr6: '' });
    expect(bench.run('pod_egress', talk.sent()).reasons).toEqual({ mode: 1 });
    const endpoint = bench.tables.endpoints.get(1);
    bench.tables.endpoints.set(1, { ...endpoint, addr6: '' });
    expect(bench.run('pod_egress', talk.sent()).reasons).toEqual({ spoof: 1 });
  }),
  anyRule(
    'IPv6: the same ports in IPv4 are another slot',
    (bench) => {
      const flows = [establish(bench, { kind: 'tcp' }), bench.establish({ kind: 'tcp', family: 4 })];
      for (const flow of flows) requireFast(bench, flow);
    },
    [4, 6],
  ),
];

/** The packet passes, and nobody counts it. */
function passes(name: string, kind: ConversationSpec['kind'], overrides: Overrides): Rule {
  return rule(`not masqueraded: ${name}`, (bench) => {
    const flow = establish(bench, { kind });
    const frame = flow.talk.masqueraded({ id: flow.idIn, ...overrides });
    const outcome = bench.run('uplink_ingress', frame);
    expectUntouched(outcome, frame);
    expect(outcome.counters).toEqual({});
  });
}

const restoring: Rule[] = [
  passes('hop-by-hop options', 'udp', extension(Proto.hopByHop)),
  passes('a routing header', 'udp', extension(Proto.routing)),
  passes('destination options', 'tcp', extension(Proto.destinationOptions)),
  passes('an atomic fragment', 'udp', { fragmentOffset: 0 }),
  passes('neighbour advertisement', 'icmp', { l4: { type: 136 } }),
  passes('ICMP of IPv4', 'udp', { proto: Proto.icmp }),
  passes('EtherType of IPv4', 'udp', { etherType: 0x0800 }),
  passes('another version', 'udp', { version: 5 }),
  rule('the lower bits of the label mean nothing to the receiver', (bench) => {
    const flow = establish(bench, { kind: 'tcp' });
    const outcome = bench.run('uplink_ingress', flow.talk.masqueraded({ id: flow.idIn, labelLow: 0xf }));
    expect(outcome.frame.toString('hex')).toBe(flow.talk.delivered({ id: 0 }).toString('hex'));
  }),
  rule('a rejection has a right UDP checksum, never zero', (bench) => {
    bench.heard(PEER, process.hrtime.bigint());
    for (const sport of [1, 2, 3, 40000, 65535]) {
      const { frame, parsed } = bench.run(
        'uplink_ingress',
        conversation({ kind: 'tcp', dport: sport }).masqueraded({ id: masquerade(0x42) }),
      );
      expect(parsed).toMatchObject({ proto: Proto.udp, ttl: 64, tos: 0, id: 0, problems: [] });
      expect(parsed.checksum).not.toBe(0);
      expect(frame[62]).toBe(0xc1);
    }
  }),
];

const ours = [...MAGIC];

/** A packet of the node itself to a peer. */
function nodes(overrides: Overrides = {}, kind: 'tcp' | 'udp' = 'tcp'): Buffer {
  const underlay = { smac: NODE.mac, dmac: PEER.mac, src: NODE.addr6, dst: PEER.addr6 };
  return conversation({ kind }).sent({ ...underlay, id: FORGED_ID, ...overrides });
}

function leaves(name: string, input: Buffer, id: number | undefined): Rule {
  return rule(`uplink_egress: ${name}`, (bench) => {
    const outcome = bench.run('uplink_egress', input);
    expectUntouched(outcome, id === undefined ? input : withId(input, id));
    expect(outcome.counters).toEqual(id === undefined ? {} : { node_cleared: 1 });
  });
}

const leaving: Rule[] = [
  leaves('the label’s marker of the node’s packets to peers is cleared', nodes(), FORGED_ID & 0x7fff),
  leaves('UDP, too', nodes({}, 'udp'), FORGED_ID & 0x7fff),
  leaves('below extension headers, too', nodes(extension(Proto.hopByHop)), FORGED_ID & 0x7fff),
  leaves('of fragments, too', nodes({ mf: true }), FORGED_ID & 0x7fff),
  leaves('a label without the marker is left alone', nodes({ id: 0x7fff, labelLow: 9 }), undefined),
  leaves('to somebody who is no peer: left alone', nodes({ dst: '2001:db8:1::1' }), undefined),
  leaves('AH is left alone', nodes({ transport: { kind: 'raw', proto: Proto.ah } }), undefined),
  leaves('not IPv6 by its version: left alone', nodes({ version: 4 }), undefined),
  rule('uplink_egress: ours passes as it is, cb is wiped', (bench) => {
    const frame = nodes({ id: masquerade(0xfe) });
    const outcome = bench.run('uplink_egress', frame, { cb: ours, ingress_ifindex: bench.node.ifindex.pod });
    expectUntouched(outcome, frame);
    expect(outcome.counters).toEqual({ own_seen: 1 });
    expect(outcome.skb.cb).toEqual([0, 0, 0, 0, 0]);
  }),
  rule('uplink_egress: a pod’s packet with a marker and without the magic: dropped', (bench) => {
    const outcome = bench.run('uplink_egress', nodes(), { ingress_ifindex: bench.node.ifindex.pod });
    expect(outcome).toMatchObject({ verdict: Verdict.drop, counters: { own_lost: 1 } });
  }),
  rule('uplink_egress: a control message that the data plane has not made: dropped', (bench) => {
    const transport = { kind: 'udp', sport: 1, dport: TUNNEL_PORT, payload: Buffer.alloc(20, 0xc1) } as const;
    const outcome = bench.run('uplink_egress', nodes({ transport }));
    expect(outcome).toMatchObject({ verdict: Verdict.drop, counters: { reject_ignored: 1 } });
    expectUntouched(bench.run('uplink_egress', nodes({ transport }), { cb: [...CONTROL_MAGIC] }), nodes({ transport }));
  }),
  rule('uplink_egress: an acknowledgement has a right UDP checksum', (bench) => {
    const flow = establish(bench, { kind: 'tcp' });
    const cb = [~MAGIC[0] >>> 0, MAGIC[1], MAGIC[2], MAGIC[3]];
    const outcome = bench.run('uplink_egress', flow.talk.masqueraded({ id: flow.idIn }), { cb });
    expect(outcome.verdict).toBe(Verdict.pass);
    expect(outcome.parsed).toMatchObject({ src: NODE.addr6, dst: PEER.addr6, proto: Proto.udp, problems: [] });
    expect(outcome.parsed.checksum).not.toBe(0);
    expect(outcome.parsed.transport.subarray(8, 12)).toEqual(Buffer.of(0xc1, PROTOCOL_VERSION, 2, Proto.tcp));
  }),
];

const ROUTER = '2001:db8:ffff::9';
const UNREACHABLE = 1;
const TOO_BIG = 2;
const TIME_EXCEEDED = 3;

/** An error of the router about a packet: its header and `quoted` bytes behind it. */
function errorAbout(
  packet: Buffer,
  { type = UNREACHABLE, code = 0, mtu = 0 },
  quoted = 8,
  dst: string = NODE.addr6,
  src = ROUTER,
): Buffer {
  const payload = packet.subarray(0, 40 + quoted);
  return buildFrame({
    ...{ dmac: NODE.mac, smac: PEER.mac, src, dst, ttl: 61 },
    transport: { kind: 'icmp', type, code, id: mtu >>> 16, seq: mtu & 0xffff, payload },
  });
}

function onWire(bench: Bench, { talk }: Established, overrides: Overrides = {}): Buffer {
  const { verdict, frame } = bench.run('pod_egress', talk.sent(overrides));
  if (verdict !== Verdict.redirect) throw new Error('the flow is not fast');
  return Buffer.from(frame.subarray(14));
}

function run(bench: Bench, frame: Buffer): Outcome {
  return bench.run('uplink_ingress', frame);
}

/** What the pod gets must be an error about its own packet, with right checksums. */
function expectTranslated(
  bench: Bench,
  flow: Established,
  spec: { readonly type?: number; readonly code?: number; readonly mtu?: number },
  mtu = spec.mtu ?? 0,
): void {
  const wire = onWire(bench, flow);
  const outcome = run(bench, errorAbout(wire, spec));
  expect(outcome.counters).toEqual({ icmp_error: 1 });
  expect(outcome.verdict).toBe(Verdict.redirect);
  const { talk } = flow;
  const own = talk.sent({ id: 0, ttl: wire[7] ?? 0 }).subarray(14);
  // The quoted checksum, which an ICMP header begins with, is the wire's.
  const changed = talk.kind === 'icmp' ? 40 : 44;
  const quotation = Buffer.concat([own.subarray(0, changed), wire.subarray(changed, 48)]);
  const { type = UNREACHABLE, code = 0 } = spec;
  const expected = buildFrame({
    ...{ dmac: talk.local.mac, smac: 'aa:bb:cc:dd:ee:ff', src: ROUTER, dst: talk.local.addr, ttl: 61 },
    transport: { kind: 'icmp', type, code, id: mtu >>> 16, seq: mtu & 0xffff, payload: quotation },
  });
  expect(outcome.frame.toString('hex')).toBe(expected.toString('hex'));
}

function expectDropped(bench: Bench, frame: Buffer): void {
  expect(run(bench, frame)).toMatchObject({ verdict: Verdict.drop, counters: { icmp_error_ignored: 1 } });
}

const errors: Rule[] = [
  ...(['tcp', 'udp', 'icmp', 'sctp', 'raw'] as const).map((kind) =>
    rule(`ICMP error: unreachable, about a ${kind} packet: for the pod`, (bench) =>
      expectTranslated(bench, establish(bench, { kind, tos: 0x28 }), {}),
    ),
  ),
  ...[
    ['no such port', UNREACHABLE, 4],
    ['no such protocol', 4, 1],
  ].map(([what, type, code]) =>
    rule(`ICMP error of the peer’s own stack, ${what}: a rejection`, (bench) => {
      const flow = establish(bench, { kind: 'udp' });
      const about = { type: Number(type), code: Number(code) };
      const outcome = run(bench, errorAbout(onWire(bench, flow), about, 8, NODE.addr6, PEER.addr6));
      expect(outcome).toMatchObject({ verdict: Verdict.drop, counters: { reject_received: 1 } });
      expect((bench.flow(flow.flowKey)?.flags ?? 0) & FlowFlag.HAVE_KEY).toBe(0);
    }),
  ),
  rule('ICMP error: time exceeded', (bench) =>
    expectTranslated(bench, establish(bench, { kind: 'udp' }), { type: TIME_EXCEEDED }),
  ),
  rule('ICMP error: about a packet to a Service: about the Service’s address and port', (bench) =>
    expectTranslated(bench, establish(bench, { kind: 'tcp', service: SERVICE }), {}),
  ),
  rule('ICMP error: packet too big leaves room for the tunnel', (bench) =>
    expectTranslated(bench, establish(bench, { kind: 'tcp' }), { type: TOO_BIG, mtu: 1450 }, 1380),
  ),
  rule('ICMP error: packet too big is never below IPv6’s least', (bench) => {
    for (const mtu of [1280, 1349, 1000]) {
      bench.reset();
      expectTranslated(bench, establish(bench, { kind: 'tcp' }), { type: TOO_BIG, mtu }, 1280);
    }
  }),
  rule('ICMP error: with a long quotation: the rest of it is as it was', (bench) => {
    const wire = onWire(bench, establish(bench, { kind: 'tcp' }), { l4: { payload: Buffer.alloc(400, 0x5a) } });
    const outcome = run(bench, errorAbout(wire, {}, 300));
    expect(outcome.parsed.problems).toEqual([]);
    expect(outcome.frame.subarray(14 + 40 + 8 + 48).toString('hex')).toBe(wire.subarray(48, 340).toString('hex'));
  }),
  rule('ICMP error: a wrong checksum stays wrong', (bench) => {
    const frame = errorAbout(onWire(bench, establish(bench, { kind: 'udp' })), {});
    frame[56] = (frame[56] ?? 0) ^ 0x55;
    expect(run(bench, frame).parsed.problems).toEqual(['ICMPv6 checksum']);
  }),
  ...(
    [
      ['another key', (wire: Buffer) => void wire.writeUInt16BE(wire.readUInt16BE(2) ^ 0x400, 2)],
      ['other ports', (wire: Buffer) => void wire.writeUInt16BE(9, 40)],
      ['another peer', (wire: Buffer) => void addressBytes(PEER2.addr6).copy(wire, 24)],
    ] as const
  ).map(([what, change]) =>
    rule(`ICMP error: ${what}: dropped`, (bench) => {
      const wire = onWire(bench, establish(bench, { kind: 'udp' }));
      change(wire);
      expectDropped(bench, errorAbout(wire, {}));
    }),
  ),
  ...(
    [
      [
        'the flow has ended',
        (bench: Bench, flow: Established) => bench.patchSlot(flow.slotKey, { state: SlotState.TOMBSTONE }),
      ],
      ['it has never been fast', (bench: Bench, flow: Established) => bench.patchFlow(flow.flowKey, { fastSince: 0n })],
      ['the pod has gone', (bench: Bench, flow: Established) => bench.patchSlot(flow.slotKey, { endpointEpoch: 99 })],
    ] as const
  ).map(([what, change]) =>
    rule(`ICMP error: ${what}: dropped`, (bench) => {
      const flow = establish(bench, { kind: 'udp' });
      const wire = onWire(bench, flow);
      change(bench, flow);
      expectDropped(bench, errorAbout(wire, {}));
    }),
  ),
  ...(
    [
      ['about the node’s own packet to a peer', (wire: Buffer) => void wire.writeUInt32BE(0x60012340, 0)],
      ['about a packet to a node that is no peer', (wire: Buffer) => void addressBytes('2001:db8::200').copy(wire, 24)],
      ['about a packet that this node has not sent', (wire: Buffer) => void addressBytes(PEER2.addr6).copy(wire, 8)],
      ['about a packet of another version', (wire: Buffer) => void wire.writeUInt8(0x46, 0)],
    ] as const
  ).map(([what, change]) =>
    rule(`ICMP error: ${what}: the stack’s`, (bench) => {
      const wire = onWire(bench, establish(bench, { kind: 'udp' }));
      change(wire);
      const frame = errorAbout(wire, {});
      expectUntouched(run(bench, frame), frame);
    }),
  ),
  rule('ICMP other than errors is the stack’s', (bench) => {
    const wire = onWire(bench, establish(bench, { kind: 'udp' }));
    for (const type of [0, 5, 127, 130, 133, 134, 135, 136, 137, 143]) {
      const frame = errorAbout(wire, { type });
      expectUntouched(run(bench, frame), frame);
    }
  }),
  rule('ICMP error: to another address of the node: the stack’s', (bench) => {
    const frame = errorAbout(onWire(bench, establish(bench, { kind: 'udp' })), {}, 8, '2001:db8::99');
    expectUntouched(run(bench, frame), frame);
  }),
];

const within: Rule[] = [
  rule('same node: handed over untouched, hop limit and label included', (bench) => {
    const remote = { id: 0, addr: NODE.addr, addr6: NODE.addr6, mac: POD2.mac, pod: POD2.addr, pod6: POD2.addr6 };
    const talk = conversation({ kind: 'tcp', remote });
    bench.allow(talk);
    const frame = talk.sent({ dmac: POD2.mac, id: 0xabcd, labelLow: 7, ttl: 3 });
    bench.run('pod_egress', frame);
    expectUntouched(bench.run('pod_egress', frame), frame, Verdict.redirect);
  }),
  rule('announcements are erased from the whole label', (bench) => {
    const frame = conversation({ kind: 'udp' }).delivered({ id: announcement(9, true), labelLow: 4 });
    const outcome = bench.run('pod_ingress', frame);
    expectUntouched(outcome, withId(frame, 0));
    expect(frameId(outcome.frame)).toBe(0);
    expect(parseFrame(outcome.frame).problems).toEqual([]);
  }),
  rule('RST: ends the entry in the zone of IPv6', (bench) => {
    const flow = establish(bench, { kind: 'tcp' });
    requireFast(bench, flow);
    const outcome = bench.run('pod_egress', flow.talk.sent({ l4: { flags: Tcp.rst } }));
    expect(outcome.counters).toMatchObject({ ct_killed: 1 });
    expect(bench.entry(flow.talk, ZONE6)).toBeUndefined();
  }),
];

export const ipv6Rules: readonly Rule[] = [...sending, ...restoring, ...leaving, ...errors, ...within];
