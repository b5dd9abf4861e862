/** pod_egress: every reason to leave a packet to the slow path. */
import { expect } from '@jest/globals';
import { CtStatus, CtTcpState } from '../../../src/netlink/ctnetlink.ts';
import { ConfigFlag, EventType, Mode, PeerFlag, Reason, SlotState } from '../../../src/gen/layouts.ts';
import type { CtSpec } from '../conntrack.ts';
import {
  announcement,
  byFamily,
  Conversation,
  EXCLUDED_POD,
  LOCAL_PEER,
  MS,
  now,
  PEER,
  PEER_GATEWAY,
  PEER_GATEWAY6,
  PEER2,
  PLAIN_NODE,
  POD,
  POD2,
  SEC,
  spokenFamily,
  STRANGER_MAC,
  TUNNEL_PORT,
  Verdict,
  withId,
  zoneOf,
  type Bench,
  type ConversationSpec,
  DRAINED,
  NO_LOOKUP,
  FLAGS,
} from '../harness.ts';
import { Chunk, Proto, Tcp } from '../packets.ts';
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

type Overrides = Parameters<Conversation['sent']>[0];

/** A packet of an established, fast flow that is slow by itself; and so is the same packet of a flow not yet admitted. */
function slowPacket(name: string, kind: ConversationSpec['kind'], overrides: Overrides, reason: string): Rule[] {
  return [
    rule(`${name}: slow, marker cleared (new flow)`, (bench) => {
      const talk = new Conversation({ kind });
      bench.allow(talk);
      const frame = talk.sent({ id: FORGED_ID, ...overrides });
      expectSlow(bench.run('pod_egress', frame), frame, reason);
      expect(bench.flow(bench.flowKeyOf(talk))).toBeUndefined();
    }),
    rule(`${name}: slow, marker cleared (fast flow)`, (bench) => {
      const flow = bench.establish({ kind });
      requireFast(bench, flow);
      const frame = flow.talk.sent({ id: FORGED_ID, ...overrides });
      expectSlow(bench.run('pod_egress', frame), frame, reason);
    }),
  ];
}

/** A packet that goes slow and, because its flow is admitted, announces. */
function slowAnnouncing(name: string, kind: ConversationSpec['kind'], overrides: Overrides, reason: string): Rule[] {
  return [
    rule(`${name}: slow, marker cleared (new flow)`, (bench) => {
      const talk = new Conversation({ kind });
      bench.allow(talk);
      const frame = talk.sent({ id: FORGED_ID, ...overrides });
      expectSlow(bench.run('pod_egress', frame), frame, reason);
      expect(bench.flow(bench.flowKeyOf(talk))).toBeUndefined();
    }),
    rule(`${name}: slow and announcing (fast flow)`, (bench) => {
      const flow = bench.establish({ kind });
      requireFast(bench, flow);
      const frame = flow.talk.sent({ id: FORGED_ID, ...overrides });
      expectAnnounced(bench.run('pod_egress', frame), frame, announcement(flow.ownKey, true), reason);
    }),
  ];
}

const sackThen = (type: number): { type: number; body: Buffer }[] => [
  { type: Chunk.sack, body: Buffer.alloc(12) },
  { type, body: Buffer.alloc(8) },
];
const ah = { kind: 'raw', proto: Proto.ah, bytes: Buffer.alloc(40, 4) } as const;

const packets: Rule[] = [
  ...slowPacket('IP options', 'tcp', { options: Buffer.from('01010100', 'hex') }, 'ip_options'),
  ...slowPacket('header length below 20', 'udp', { ihl: 4 }, 'ip_options'),
  ...slowPacket('first fragment', 'udp', { mf: true, df: false }, 'fragment'),
  ...slowPacket('last fragment', 'udp', { fragmentOffset: 185, df: false }, 'fragment'),
  ...slowPacket('fragment with DF', 'udp', { mf: true }, 'fragment'),
  ...slowPacket('reserved flag', 'tcp', { evil: true }, 'malformed'),
  ...slowPacket('total length beyond the frame', 'tcp', { totalLength: 500 }, 'malformed'),
  ...slowPacket('bytes after the packet', 'udp', { trailer: Buffer.alloc(4) }, 'malformed'),
  ...slowPacket('TCP data offset below 5', 'tcp', { l4: { dataOffset: 4 } }, 'malformed'),
  ...slowPacket('ESP', 'raw', { proto: Proto.esp }, 'protocol'),
  ...slowPacket('IGMP', 'raw', { proto: Proto.igmp }, 'protocol'),
  ...slowPacket('UDP-Lite', 'raw', { proto: Proto.udplite }, 'protocol'),
  ...slowPacket('DCCP', 'raw', { proto: Proto.dccp }, 'protocol'),
  ...slowPacket('ICMP unreachable', 'icmp', { l4: { type: 3 } }, 'icmp_type'),
  ...slowPacket('ICMP timestamp', 'icmp', { l4: { type: 13 } }, 'icmp_type'),
  ...slowPacket('ICMP echo with a code', 'icmp', { l4: { code: 1 } }, 'icmp_type'),
  ...slowPacket('source port 53 (UDP)', 'udp', { l4: { sport: 53 } }, 'dns_reply'),
  ...slowPacket('source port 53 (TCP)', 'tcp', { l4: { sport: 53 } }, 'dns_reply'),
  ...[4789, 6081, 500, 4500, 51820].flatMap((port) => [
    ...slowPacket(`to port ${port}`, 'udp', { l4: { dport: port } }, 'reserved_port'),
    ...slowPacket(`from port ${port}`, 'tcp', { l4: { sport: port } }, 'reserved_port'),
  ]),
  ...slowAnnouncing(
    'SCTP INIT',
    'sctp',
    { l4: { chunks: [{ type: Chunk.init, body: Buffer.alloc(16) }] } },
    'sctp_control',
  ),
  ...slowAnnouncing('SCTP SACK with SHUTDOWN', 'sctp', { l4: { chunks: sackThen(Chunk.shutdown) } }, 'sctp_control'),
  ...slowAnnouncing(
    'SCTP HEARTBEAT',
    'sctp',
    { l4: { chunks: [{ type: Chunk.heartbeat, body: Buffer.alloc(8) }] } },
    'sctp_control',
  ),
  ...slowAnnouncing('SCTP without a chunk', 'sctp', { l4: { chunks: [] } }, 'sctp_control'),

  rule('a configured tunnel port that is no default: slow', (bench) => {
    bench.configure({ tunnelPort: 12345 });
    const talk = new Conversation({ kind: 'udp', dport: 12345 });
    bench.allow(talk);
    const frame = talk.sent({ id: FORGED_ID });
    expectSlow(bench.run('pod_egress', frame), frame, 'reserved_port');
  }),
  ...(['udp', 'tcp'] as const).map((kind) =>
    rule(`to port 53 (${kind}): no flow, because the replies stay slow`, (bench) => {
      const talk = new Conversation({ kind, dport: 53 });
      bench.allow(talk);
      const frame = talk.sent({ id: FORGED_ID });
      expectSlow(bench.run('pod_egress', frame), frame, 'dns_reply');
      expect(bench.slot(talk.slotKey())).toBeUndefined();
    }),
  ),
  rule('SCTP DATA, SACK and SACK with DATA: no reason', (bench) => {
    const flow = bench.establish({ kind: 'sctp' });
    for (const chunks of [sackThen(Chunk.data), [{ type: Chunk.sack, body: Buffer.alloc(12) }]]) {
      expect(bench.run('pod_egress', flow.talk.sent({ l4: { chunks } })).verdict).toBe(Verdict.redirect);
    }
  }),
  rule('AH: slow, and its ID is left alone', (bench) => {
    const frame = new Conversation({ kind: 'raw' }).sent({ id: FORGED_ID, transport: ah });
    const outcome = bench.run('pod_egress', frame);
    expectUntouched(outcome, frame);
    expect(outcome.reasons).toEqual({ protocol: 1 });
  }),
  rule('VLAN tags in the frame: slow, the marker below them cleared, dropped if there are more than 8', (bench) => {
    const frame = (id: number, tags: number): Buffer => {
      const tagged = new Conversation({ kind: 'tcp' }).sent({ id, vlan: 7 });
      const more = Array.from({ length: tags - 1 }, () => tagged.subarray(12, 16));
      return Buffer.concat([tagged.subarray(0, 12), ...more, tagged.subarray(12)]);
    };
    for (const tags of [1, 2, 8]) {
      const outcome = bench.run('pod_egress', frame(FORGED_ID, tags));
      expectUntouched(outcome, frame(FORGED_ID & 0x7fff, tags));
      expect(outcome.reasons).toEqual({ vlan: 1 });
      expect(outcome.counters).toEqual({ slow_tx: 1, marker_cleared: 1 });
    }
    expect(bench.run('pod_egress', frame(FORGED_ID, 9)).verdict).toBe(Verdict.drop);
  }),
  rule('not IPv4 by its EtherType or its version: nothing is read or written', (bench) => {
    const talk = new Conversation({ kind: 'tcp' });
    for (const frame of [talk.sent({ id: FORGED_ID, etherType: 0x86dd }), talk.sent({ id: FORGED_ID, version: 6 })]) {
      const outcome = bench.run('pod_egress', frame);
      expectUntouched(outcome, frame);
      expect(outcome.counters).toEqual({});
    }
  }),
  rule('a transport header that is cut: slow', (bench) => {
    const heads = [
      [Proto.tcp, 19],
      [Proto.udp, 7],
      [Proto.icmp, 7],
      [Proto.sctp, 11],
    ] as const;
    for (const [proto, length] of heads) {
      const bytes = Buffer.alloc(length, 0x55);
      const frame = new Conversation({ kind: 'raw' }).sent({ id: FORGED_ID, transport: { kind: 'raw', proto, bytes } });
      expectSlow(bench.run('pod_egress', frame), frame, 'malformed');
    }
  }),
];

/** UDP payload of some segments of 30 bytes, the last of which looks like a control message. */
function controlInSegment(segments: number): { payload: Buffer } {
  const payload = Buffer.alloc(30 * segments, 0x08);
  payload[30 * (segments - 1)] = 0xc1;
  return { payload };
}

/** What looks like a control message to a node's tunnel port. */
function forged(overrides: Overrides = {}, payload = controlInSegment(1).payload): Buffer {
  const transport = { kind: 'udp', sport: 40000, dport: TUNNEL_PORT, payload } as const;
  return new Conversation({ kind: 'udp' }).sent({ dst: PEER.addr, transport, ...overrides });
}

const GSO = { gso_size: 30 } as const;

/** Translated to the node's address, it would be believed. */
const forgery: Rule[] = [
  ...(
    [
      ['to a peer', forged(), {}],
      ['without DF', forged({ df: false }), {}],
      ['from the tunnel port', forged({ l4: { sport: TUNNEL_PORT } }), {}],
      ['from port 53, which may be translated', forged({ l4: { sport: 53 } }), {}],
      ['in a later segment', forged({}, controlInSegment(9).payload), { ...GSO, gso_segs: 9 }],
      ['in the last segment that is looked at', forged({}, controlInSegment(120).payload), { ...GSO, gso_segs: 120 }],
      ['in more segments than are looked at', forged({}, Buffer.alloc(200)), { gso_size: 1, gso_segs: 200 }],
      ['below nested tags, segmented', forged({ vlan: 0 }), { ...GSO, gso_segs: 2 }],
    ] as const
  ).map(([name, frame, skb]) =>
    rule(`forged control message ${name}: dropped`, (bench) => {
      expect(bench.run('pod_egress', frame, skb).verdict).toBe(Verdict.drop);
    }),
  ),
  ...(
    [
      ['to somebody who is no peer', forged({ dst: '198.51.100.7' })],
      ['to another port', forged({ l4: { dport: 4790 } })],
      ['with another first byte', forged({}, Buffer.alloc(30, 8))],
      ['in a fragment', forged({ mf: true })],
      ['by TCP', forged({ transport: { kind: 'tcp', sport: 1, dport: TUNNEL_PORT, payload: Buffer.from([0xc1]) } })],
    ] as const
  ).map(([name, frame]) =>
    rule(`no forged control message ${name}: slow`, (bench) => {
      expectUntouched(bench.run('pod_egress', frame), frame);
    }),
  ),
];

/** TTL and DSCP: the flow is bound to what it was admitted with; a packet that differs goes slow and does not announce. */
const headers: Rule[] = [
  ...[0, 1].map((ttl) =>
    rule(`TTL ${ttl}: slow`, (bench) => {
      const talk = new Conversation({ kind: 'udp', ttl });
      bench.allow(talk);
      const frame = talk.sent({ id: FORGED_ID });
      expectSlow(bench.run('pod_egress', frame), frame, 'ttl');
    }),
  ),
  ...[0x0c, 0x1f, 0xff].map((tos) =>
    rule(`Traceflow DSCP (TOS 0x${tos.toString(16)}): slow`, (bench) => {
      const talk = new Conversation({ kind: 'udp', tos });
      bench.allow(talk);
      const frame = talk.sent({ id: FORGED_ID });
      expectSlow(bench.run('pod_egress', frame), frame, 'traceflow');
    }),
  ),
  ...[
    ['TTL 1', { ttl: 1 }, 'ttl'],
    ['Traceflow DSCP', { tos: 0x0c }, 'traceflow'],
    ['another TTL', { ttl: 63 }, 'header_changed'],
    ['another DSCP', { tos: 0x20 }, 'header_changed'],
  ].map(([name, overrides, reason]) =>
    rule(`${name as string} in a fast flow: slow, does not announce`, (bench) => {
      const flow = bench.establish({ kind: 'udp' });
      requireFast(bench, flow);
      const frame = flow.talk.sent({ id: FORGED_ID, ...(overrides as Overrides) });
      expectSlow(bench.run('pod_egress', frame), frame, reason as string);
      expectFast(bench, flow);
    }),
  ),
  rule('another header for more than a second: the flow begins anew with another key', (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    requireFast(bench, flow);
    bench.run('pod_egress', flow.talk.sent({ ttl: 32 }));
    if (bench.flow(flow.flowKey)?.deviatingSince === 0n) throw new Error('the deviation was not noted');
    bench.patchFlow(flow.flowKey, { deviatingSince: now() - SEC - 50n * MS });
    const frame = flow.talk.sent({ id: FORGED_ID, ttl: 32 });
    expectSlow(bench.run('pod_egress', frame), frame, 'header_changed');
    expect(bench.flow(flow.flowKey)).toBeUndefined();
    bench.patchSlot(flow.slotKey, { freedAt: now() - 500n * MS });
    const again = bench.run('pod_egress', flow.talk.sent({ ttl: 32 })).parsed.id;
    expect((again >> 6) & 0xff).not.toBe(flow.ownKey);
    expect(bench.flow(flow.flowKey)).toMatchObject({ ttl: 32 });
  }),
  rule('a header that changes back starts no clock', (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    requireFast(bench, flow);
    bench.run('pod_egress', flow.talk.sent({ ttl: 32 }));
    bench.run('pod_egress', flow.talk.sent());
    expect(bench.flow(flow.flowKey)).toMatchObject({ deviatingSince: 0n });
  }),
];

const markers: Rule[] = [
  ...(
    [
      ['one segment', 0xffff, true, 1, 0x7fff],
      ['segments that end below the marker', 0xffc0, true, 64, 0x7fc0],
      ['segments that would count into the marker', 0xffc1, true, 64, 0],
      ['segments, marker not set but in reach', 0x7ffe, true, 4, 0],
      ['segments without DF: the ID stays unique', 0xfffe, false, 4, 0x3ffe],
      ['more than 64 segments', 0xff00, true, 257, 0],
    ] as const
  ).map(([name, id, df, segments, expected]) =>
    rule(`marker: ${name}`, (bench) => {
      const frame = new Conversation({ kind: 'tcp' }).sent({ id, df });
      const skb = segments > 1 ? { gso_size: 1000, gso_segs: segments } : {};
      const outcome = bench.run('pod_egress', frame, skb);
      expect(outcome.frame.toString('hex')).toBe(withId(frame, expected).toString('hex'));
      expect(outcome.counters).toMatchObject({ marker_cleared: 1 });
    }),
  ),
  rule('marker: an ID without it is left alone', (bench) => {
    const frame = new Conversation({ kind: 'tcp' }).sent({ id: 0x7fff });
    const outcome = bench.run('pod_egress', frame);
    expectUntouched(outcome, frame);
    expect(outcome.counters).not.toHaveProperty('marker_cleared');
  }),
  rule('marker: all fragments of a datagram keep one ID', (bench) => {
    const talk = new Conversation({ kind: 'udp' });
    const ids = [
      { mf: true, df: false },
      { mf: true, df: false, fragmentOffset: 185 },
      { df: false, fragmentOffset: 370 },
    ].map((part) => bench.run('pod_egress', talk.sent({ id: 0xffff, ...part })).parsed.id);
    expect(ids).toEqual([0x7fff, 0x7fff, 0x7fff]);
  }),
  rule('GSO without a count: segments are computed', (bench) => {
    const frame = new Conversation({ kind: 'tcp' }).sent({ id: 0x7ff0, l4: { payload: Buffer.alloc(3000) } });
    expect(bench.run('pod_egress', frame, { gso_size: 100, gso_segs: 0 }).parsed.id).toBe(0);
  }),
  rule('more than 64 segments: slow, does not announce', (bench) => {
    const flow = bench.establish({ kind: 'tcp' });
    requireFast(bench, flow);
    const frame = flow.talk.sent({ id: FORGED_ID });
    expectSlow(bench.run('pod_egress', frame, { gso_size: 1000, gso_segs: 65 }), frame, 'gso_segments');
    expect(bench.run('pod_egress', frame, { gso_size: 1000, gso_segs: 64 }).verdict).toBe(Verdict.redirect);
  }),
];

/** A first packet that may not be admitted; no flow, no slot. */
function refused(name: string, reason: string, prepare: (bench: Bench) => { frame: Buffer; ifindex?: number }): Rule {
  return rule(`${name}: refused`, (bench) => {
    const { frame, ifindex = bench.node.ifindex.pod } = prepare(bench);
    expectSlow(bench.run('pod_egress', frame, { ifindex }), frame, reason);
    expect([...bench.tables.flows.entries()]).toEqual([]);
    expect([...bench.tables.slots.entries()]).toEqual([]);
  });
}

function allowed(bench: Bench, spec: ConversationSpec, overrides: Overrides = {}, ct: Partial<CtSpec> = {}): Buffer {
  const talk = new Conversation(spec);
  bench.allow(talk, ct);
  return talk.sent({ id: FORGED_ID, ...overrides });
}

const senders: Rule[] = [
  refused('a device without an endpoint', 'unknown_endpoint', (bench) => ({
    frame: allowed(bench, { kind: 'udp' }),
    ifindex: bench.node.ifindex.stranger,
  })),
  refused('an endpoint that is gone', 'unknown_endpoint', (bench) => {
    bench.tables.endpoints.set(POD.id, { ...bench.tables.endpoints.get(POD.id), flags: 0 });
    return { frame: allowed(bench, { kind: 'udp' }) };
  }),
  refused('an endpoint whose id belongs to another device', 'unknown_endpoint', (bench) => {
    bench.tables.endpointByIfindex.set(bench.node.ifindex.pod, POD2.id);
    return { frame: allowed(bench, { kind: 'udp' }) };
  }),
  refused('an excluded pod', 'bandwidth', (bench) => ({
    frame: allowed(bench, { kind: 'udp', local: EXCLUDED_POD }),
    ifindex: bench.node.ifindex.excluded,
  })),
  refused('traffic with other nodes is excluded', 'encryption', (bench) => {
    bench.configure({ excludedRemote: Reason.ENCRYPTION });
    return { frame: allowed(bench, { kind: 'udp' }) };
  }),
  refused('traffic with other nodes is excluded, and the peer is not capable either', 'encryption', (bench) => {
    bench.configure({ excludedRemote: Reason.ENCRYPTION });
    bench.tables.peers.set(PEER.id, { ...bench.tables.peers.get(PEER.id), flags: PeerFlag.PRESENT });
    return { frame: allowed(bench, { kind: 'udp' }) };
  }),
  refused('no new flows are admitted', 'flow_restore', (bench) => {
    bench.configure({ paused: Reason.FLOW_RESTORE });
    return { frame: allowed(bench, { kind: 'udp' }) };
  }),
  rule('the refusal of an excluded pod is remembered, and why', (bench) => {
    const talk = new Conversation({ kind: 'udp', local: EXCLUDED_POD });
    bench.run('pod_egress', allowed(bench, { kind: 'udp', local: EXCLUDED_POD }), {
      ifindex: bench.node.ifindex.excluded,
    });
    expect(bench.tables.refusals.get(bench.flowKeyOf(talk))).toMatchObject({ reason: Reason.BANDWIDTH });
  }),
  refused('a source MAC that is not the pod’s', 'spoof', (bench) => ({
    frame: allowed(bench, { kind: 'udp' }, { smac: STRANGER_MAC }),
  })),
  refused('a source address that is not the pod’s', 'spoof', (bench) => ({
    frame: allowed(bench, { kind: 'udp', local: { ...POD, addr: '10.10.0.77', addr6: 'fd00:10::77' } }),
  })),
  refused('the addresses of another pod of the node', 'spoof', (bench) => ({
    frame: allowed(bench, { kind: 'udp', local: POD2 }),
  })),
  refused('a node that does not admit', 'draining', (bench) => {
    bench.configure({ flags: FLAGS & ~ConfigFlag.ADMIT });
    return { frame: allowed(bench, { kind: 'udp' }) };
  }),
  refused('a destination outside of the cluster', 'not_pod', (bench) => ({
    frame: allowed(bench, { kind: 'udp', remote: { ...PEER2, pod: '203.0.113.9', pod6: '2001:db8:1::9' } }),
  })),
  refused('a gateway address inside a peer’s pod CIDR', 'not_pod', (bench) => ({
    frame: allowed(bench, { kind: 'udp', remote: { ...PEER2, pod: PEER_GATEWAY, pod6: PEER_GATEWAY6 } }),
  })),
  refused('a pod on a node without XMasq', 'peer_not_capable', (bench) => ({
    frame: allowed(bench, { kind: 'udp', remote: PLAIN_NODE }),
  })),
  refused('a RST without a flow', 'closed', (bench) => ({
    frame: allowed(bench, { kind: 'tcp' }, { l4: { flags: Tcp.rst } }),
  })),
  rule('the flow of another pod on the node: spoofing it gets nothing through', (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    requireFast(bench, flow);
    const frame = flow.talk.sent({ id: FORGED_ID });
    expectSlow(bench.run('pod_egress', frame, { ifindex: bench.node.ifindex.pod2 }), frame, 'spoof');
  }),
  rule('a fast flow with another source MAC: slow, does not announce', (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    requireFast(bench, flow);
    const frame = flow.talk.sent({ id: FORGED_ID, smac: STRANGER_MAC });
    expectSlow(bench.run('pod_egress', frame), frame, 'spoof');
  }),
];

/** Each condition of the admission predicate: refuses a new flow, and ends one when it fails at a recheck. */
const predicates: readonly (readonly [name: string, reason: string, kind: 'tcp' | 'udp', spec: Partial<CtSpec>])[] = [
  ['not replied', 'ct_unreplied', 'udp', { status: CtStatus.assured }],
  ['mark nibble 0', 'ct_not_allowed', 'udp', { mark: 0x100 }],
  ['mark nibble 2 (gateway)', 'ct_source', 'udp', { mark: 0x2 }],
  ['mark nibble 4 (uplink)', 'ct_source', 'udp', { mark: 0x4 }],
  ['mark bit 5 (SNAT)', 'ct_snat', 'udp', { mark: 0x23 }],
  ['mark bit 6 (hairpin)', 'ct_hairpin', 'udp', { mark: 0x43 }],
  ['mark bit 7 (L7)', 'ct_l7', 'udp', { mark: 0x83 }],
  ['mark bit 4 (Service)', 'ct_service', 'udp', { mark: 0x13 }],
  ['translated destination', 'ct_service', 'udp', { dnatTo: '10.10.1.77' }],
  ['translated source', 'ct_status', 'udp', { snatTo: '10.10.0.77' }],
  ['helper', 'ct_status', 'udp', { status: CtStatus.seenReply | CtStatus.assured | CtStatus.helper }],
  ['sequence adjustment', 'ct_status', 'tcp', { seqAdjust: true, tcpState: CtTcpState.established }],
  ['another zone', 'ct_missing', 'udp', { zone: 65519 }],
  ['zone 0', 'ct_missing', 'tcp', { zone: 0, tcpState: CtTcpState.established }],
  ['UDP not assured', 'ct_state', 'udp', { status: CtStatus.seenReply }],
  ...(['synSent', 'synReceived', 'finWait', 'closeWait', 'lastAck', 'timeWait', 'close'] as const).map(
    (state) => [`TCP ${state}`, 'ct_state', 'tcp', { tcpState: CtTcpState[state] }] as const,
  ),
];

const conntrack: Rule[] = [
  refused('conntrack: no entry', 'ct_missing', () => ({
    frame: new Conversation({ kind: 'tcp' }).sent({ id: FORGED_ID }),
  })),
  ...predicates.map(([name, reason, kind, spec]) =>
    refused(`conntrack: ${name}`, reason, (bench) => ({ frame: allowed(bench, { kind }, {}, spec) })),
  ),
  ...predicates.map(([name, reason, kind, spec]) =>
    rule(`conntrack at the recheck: ${name}: demoted`, (bench) => {
      const flow = bench.establish({ kind });
      requireFast(bench, flow);
      bench.node.ct.flush();
      bench.allow(flow.talk, spec);
      bench.patchFlow(flow.flowKey, { verifyAt: 0n, recheckAt: 0n });
      const frame = flow.talk.sent({ id: FORGED_ID });
      expectSlow(bench.run('pod_egress', frame), frame, reason);
      expect(bench.flow(flow.flowKey)).toBeUndefined();
      expect(bench.slot(flow.slotKey)).toMatchObject({ state: SlotState.TOMBSTONE });
    }),
  ),
  ...[0x1, 0x3, 0x103, 0xffffff03].map((mark) =>
    rule(`conntrack: mark 0x${mark.toString(16)} is admitted`, (bench) => {
      const talk = new Conversation({ kind: 'udp' });
      bench.allow(talk, { mark });
      expect(bench.run('pod_egress', talk.sent()).counters).toMatchObject({ flow_admitted: 1, announced: 1 });
    }),
  ),
  rule('conntrack: an entry opened by the other side is admitted', (bench) => {
    const talk = new Conversation({ kind: 'tcp' });
    const reply = { family: talk.family, src: talk.remote.pod, dst: talk.local.addr };
    const tuple = { ...reply, proto: talk.proto, sport: talk.dport, dport: talk.sport };
    bench.node.ct.insert(tuple, {
      zone: zoneOf(talk),
      mark: 1,
      status: CtStatus.seenReply | CtStatus.assured,
      timeoutSeconds: 100,
      tcpState: CtTcpState.established,
    });
    expect(bench.run('pod_egress', talk.sent()).counters).toMatchObject({ flow_admitted: 1 });
  }),
  rule('conntrack: the configured zone counts', (bench) => {
    bench.configure(spokenFamily() === 4 ? { ctZone4: 4242 } : { ctZone6: 4242 });
    const talk = new Conversation({ kind: 'udp' });
    bench.allow(talk, { zone: 4242 });
    expect(bench.run('pod_egress', talk.sent()).counters).toMatchObject({ flow_admitted: 1 });
  }),
  ...(['icmp', 'sctp', 'raw'] as const).flatMap((kind) => [
    refused(`${kind} without an approval`, 'no_approval', () => ({
      frame: new Conversation({ kind }).sent({ id: FORGED_ID }),
    })),
    refused(`${kind} with an approval that has expired`, 'no_approval', (bench) => {
      const talk = new Conversation({ kind });
      bench.tables.approvals.set(bench.flowKeyOf(talk), { expires: now() - 50n * MS });
      return { frame: talk.sent({ id: FORGED_ID }) };
    }),
    rule(`${kind} whose approval expires: demoted`, (bench) => {
      const flow = bench.establish({ kind });
      requireFast(bench, flow);
      bench.tables.approvals.set(flow.flowKey, { expires: now() - 50n * MS });
      bench.patchFlow(flow.flowKey, { verifyAt: 0n, recheckAt: 0n });
      const frame = flow.talk.sent({ id: FORGED_ID });
      expectSlow(bench.run('pod_egress', frame), frame, 'no_approval');
      expect(bench.flow(flow.flowKey)).toBeUndefined();
    }),
  ]),
  refused('TCP on a kernel without the zone option needs an approval', 'no_approval', (bench) => {
    const frame = allowed(bench, { kind: 'tcp' });
    bench.configure({ flags: NO_LOOKUP });
    return { frame };
  }),
  rule('a refused flow asks four times at once, then pauses', (bench) => {
    const talk = new Conversation({ kind: 'udp' });
    const key = bench.flowKeyOf(talk);
    const asks = (): number => bench.run('pod_egress', talk.sent()).counters['ct_lookup'] ?? 0;
    expect([asks(), asks(), asks(), asks()]).toEqual([1, 1, 1, 1]);
    expect(bench.tables.refusals.get(key)).toMatchObject({ until: 0n, tries: 4 });
    expect(asks()).toBe(1);
    const refusal = bench.tables.refusals.get(key);
    if (refusal === undefined) throw new Error('the refusal was not remembered');
    expect(refusal).toMatchObject({ packets: 5n, backoff: 10n * MS, tries: 4 });
    // On a busy machine 10 ms may be over by now.
    bench.tables.refusals.set(key, { ...refusal, until: now() + SEC });
    expect([asks(), asks()]).toEqual([0, 0]);
    bench.tables.refusals.set(key, { ...refusal, until: now() });
    expect(asks()).toBe(1);
    expect(bench.tables.refusals.get(key)).toMatchObject({ backoff: 20n * MS });
  }),
  rule('the pause of a refused flow ends at a second', (bench) => {
    const talk = new Conversation({ kind: 'udp' });
    const key = bench.flowKeyOf(talk);
    bench.tables.refusals.set(key, { until: 1n, backoff: 900n * MS, packets: 9n, tries: 4, reason: 30 });
    bench.run('pod_egress', talk.sent());
    expect(bench.tables.refusals.get(key)?.backoff).toBe(SEC);
  }),
];

const slots: Rule[] = [
  rule('a slot of another pod pair: refused', (bench) => {
    const first = bench.establish({ kind: 'udp' });
    const talk = new Conversation({ kind: 'udp', local: POD2 });
    bench.allow(talk);
    const frame = talk.sent({ id: FORGED_ID });
    expectSlow(bench.run('pod_egress', frame, { ifindex: bench.node.ifindex.pod2 }), frame, 'slot_taken');
    expect(bench.slot(first.slotKey)).toMatchObject({ daddr: first.talk.local.addr, key: first.ownKey });
    expectFast(bench, first);
  }),
  rule('a slot that another pod pair freed less than 120 s ago: refused', (bench) => {
    const first = bench.establish({ kind: 'udp' });
    bench.tables.flows.delete(first.flowKey);
    bench.patchSlot(first.slotKey, { state: SlotState.TOMBSTONE, freedAt: now() - 119n * SEC });
    const talk = new Conversation({ kind: 'udp', local: POD2 });
    bench.allow(talk);
    const frame = talk.sent({ id: FORGED_ID });
    expectSlow(bench.run('pod_egress', frame, { ifindex: bench.node.ifindex.pod2 }), frame, 'slot_recent');
    expect(bench.slot(first.slotKey)).toMatchObject({ state: SlotState.TOMBSTONE, key: first.ownKey });
  }),
  rule(
    'a slot that another pod pair freed more than 120 s ago: taken, with another key and nothing learned',
    (bench) => {
      const first = bench.establish({ kind: 'udp' });
      bench.tables.flows.delete(first.flowKey);
      bench.patchSlot(first.slotKey, { state: SlotState.TOMBSTONE, freedAt: now() - 121n * SEC });
      const talk = new Conversation({ kind: 'udp', local: POD2 });
      bench.allow(talk);
      bench.run('pod_egress', talk.sent(), { ifindex: bench.node.ifindex.pod2 });
      const slot = bench.slot(first.slotKey);
      expect(slot).toMatchObject({ state: SlotState.ACTIVE, flags: 0, daddr: talk.local.addr, endpoint: POD2.id });
      expect(slot?.key).not.toBe(first.ownKey);
    },
  ),
  rule('a slot that the same pods freed less than 500 ms ago: refused', (bench) => {
    const first = bench.establish({ kind: 'udp' });
    bench.tables.flows.delete(first.flowKey);
    bench.patchSlot(first.slotKey, { state: SlotState.TOMBSTONE, freedAt: now() - 400n * MS });
    const frame = first.talk.sent({ id: FORGED_ID });
    expectSlow(bench.run('pod_egress', frame), frame, 'slot_recent');
  }),
  rule('in the first 500 ms after a loss of state: nothing is admitted', (bench) => {
    bench.configure({ stateSince: now() - 400n * MS });
    const frame = allowed(bench, { kind: 'udp' });
    expectSlow(bench.run('pod_egress', frame), frame, 'slot_recent');
    bench.configure({ stateSince: now() - 500n * MS });
    expect(bench.run('pod_egress', frame).counters).toMatchObject({ flow_admitted: 1 });
  }),
  rule('a slot that the same pods freed 500 ms ago: taken again, with another key', (bench) => {
    const first = bench.establish({ kind: 'udp' });
    bench.tables.flows.delete(first.flowKey);
    bench.patchSlot(first.slotKey, { state: SlotState.TOMBSTONE, freedAt: now() - 500n * MS });
    bench.run('pod_egress', first.talk.sent());
    const slot = bench.slot(first.slotKey);
    expect(slot).toMatchObject({ state: SlotState.ACTIVE, flags: 0 });
    expect(slot?.key).not.toBe(first.ownKey);
  }),
  rule('a live slot of the same pods whose flow is lost: used again at once, with another key', (bench) => {
    const first = bench.establish({ kind: 'udp' });
    bench.tables.flows.delete(first.flowKey);
    const frame = first.talk.sent();
    const run = bench.run('pod_egress', frame);
    const slot = bench.slot(first.slotKey);
    expect(slot).toMatchObject({ state: SlotState.ACTIVE, flags: 0 });
    expect(slot?.key).not.toBe(first.ownKey);
    expectAnnounced(run, frame, announcement(slot?.key ?? 0, false));
  }),
  rule('a slot whose pod is gone: freed, and refused for now', (bench) => {
    const first = bench.establish({ kind: 'udp' });
    bench.tables.endpoints.set(POD.id, { ...bench.tables.endpoints.get(POD.id), flags: 0 });
    const talk = new Conversation({ kind: 'udp', local: POD2 });
    bench.allow(talk);
    const frame = talk.sent({ id: FORGED_ID });
    expectSlow(bench.run('pod_egress', frame, { ifindex: bench.node.ifindex.pod2 }), frame, 'slot_recent');
    expect(bench.slot(first.slotKey)).toMatchObject({ state: SlotState.TOMBSTONE });
  }),
  rule('a locked slot: refused', (bench) => {
    const first = bench.establish({ kind: 'udp' });
    bench.tables.flows.delete(first.flowKey);
    bench.patchSlot(first.slotKey, { lock: 1 });
    const frame = first.talk.sent({ id: FORGED_ID });
    expectSlow(bench.run('pod_egress', frame), frame, 'slot_taken');
  }),
  rule('protocols without ports have one pod pair per peer', (bench) => {
    bench.establish({ kind: 'raw' });
    const talk = new Conversation({ kind: 'raw', local: POD2 });
    bench.tables.approvals.set(talk.flowKey(bench.node.ifindex.pod2), { expires: now() + 60n * SEC });
    const frame = talk.sent({ id: FORGED_ID });
    expectSlow(bench.run('pod_egress', frame, { ifindex: bench.node.ifindex.pod2 }), frame, 'slot_taken');
  }),
  rule('ICMP echo: request and reply of one identifier are two slots', (bench) => {
    bench.establish({ kind: 'icmp', sport: 9 });
    const reply = new Conversation({ kind: 'icmp', sport: 9, local: POD2 });
    const type = byFamily(reply.family, 0, 129);
    const key = { ...reply.flowKey(bench.node.ifindex.pod2), dport: type };
    bench.tables.approvals.set(key, { expires: now() + 60n * SEC });
    const outcome = bench.run('pod_egress', reply.sent({ l4: { type } }), { ifindex: bench.node.ifindex.pod2 });
    expect(outcome.counters).toMatchObject({ flow_admitted: 1 });
  }),
  rule('the same ports to another peer are another slot', (bench) => {
    bench.establish({ kind: 'udp' });
    const second = bench.establish({ kind: 'udp', local: POD2, remote: PEER2 });
    expectFast(bench, second);
  }),
];

const closing: Rule[] = [
  ...(
    [
      ['SYN', Tcp.syn, 'tcp_syn', SlotState.TOMBSTONE],
      ['SYN+ACK', Tcp.syn | Tcp.ack, 'tcp_syn', SlotState.TOMBSTONE],
      ['FIN', Tcp.fin | Tcp.ack, 'tcp_fin', SlotState.CLOSING],
      ['SYN+FIN', Tcp.syn | Tcp.fin, 'tcp_syn', SlotState.TOMBSTONE],
    ] as const
  ).flatMap(([name, flags, reason, state]) => [
    rule(`${name} of a fast flow: slow, and the flow ends`, (bench) => {
      const flow = bench.establish({ kind: 'tcp' });
      requireFast(bench, flow);
      const frame = flow.talk.sent({ id: FORGED_ID, l4: { flags } });
      const outcome = bench.run('pod_egress', frame);
      expectSlow(outcome, frame, reason);
      expect(outcome.counters).toMatchObject({ flow_closed: 1 });
      expect(bench.flow(flow.flowKey)).toBeUndefined();
      expect(bench.slot(flow.slotKey)).toMatchObject({ state });
    }),
    rule(`${name} without a flow: slow, admits nothing`, (bench) => {
      const talk = new Conversation({ kind: 'tcp' });
      bench.allow(talk);
      const frame = talk.sent({ id: FORGED_ID, l4: { flags } });
      expectSlow(bench.run('pod_egress', frame), frame, reason);
      expect(bench.flow(bench.flowKeyOf(talk))).toBeUndefined();
    }),
  ]),
  // Conntrack may have missed the RST that ended the old connection, and would take the SYN for a part of it.
  rule('SYN on the ports of an established connection: its entry expires', (bench) => {
    const talk = new Conversation({ kind: 'tcp' });
    bench.allow(talk);
    const frame = talk.sent({ id: FORGED_ID, l4: { flags: Tcp.syn } });
    const outcome = bench.run('pod_egress', frame);
    expectSlow(outcome, frame, 'tcp_syn');
    expect(outcome.counters).toMatchObject({ ct_killed: 1 });
    expect(bench.run('pod_egress', talk.sent()).counters).not.toHaveProperty('flow_admitted');
  }),
  rule('SYN+ACK on the ports of an established connection: a late one, its entry stays', (bench) => {
    const talk = new Conversation({ kind: 'tcp' });
    bench.allow(talk);
    const outcome = bench.run('pod_egress', talk.sent({ l4: { flags: Tcp.syn | Tcp.ack } }));
    expect(outcome.counters).not.toHaveProperty('ct_killed');
  }),
  ...(
    [
      ['another MAC', { smac: STRANGER_MAC }, undefined],
      ['another pod’s device', {}, 'pod2'],
    ] as const
  ).map(([what, spec, device]) =>
    rule(`SYN from ${what} on the ports of an established connection: its entry stays`, (bench) => {
      const talk = new Conversation({ kind: 'tcp' });
      bench.allow(talk);
      const frame = talk.sent({ ...spec, l4: { flags: Tcp.syn } });
      const outcome = bench.run('pod_egress', frame, device && { ifindex: bench.node.ifindex[device] });
      expect(outcome.counters).not.toHaveProperty('ct_killed');
    }),
  ),
  // Where approvals answer, the sidecar ends the entry, a moment later.
  rule('SYN while an approval of its ports is left: dropped once, and the sidecar is told', (bench) => {
    const talk = approved(bench);
    const frame = talk.sent({ id: FORGED_ID, l4: { flags: Tcp.syn } });
    const told = bench.events(() => {
      const outcome = bench.run('pod_egress', frame);
      expect(outcome).toMatchObject({ verdict: Verdict.drop, counters: { syn_dropped: 1 } });
    });
    expect(told).toMatchObject([{ type: EventType.RESET, flow: bench.flowKeyOf(talk) }]);
    const again = bench.events(() => expectSlow(bench.run('pod_egress', frame), frame, 'tcp_syn'));
    expect(again).toEqual([]);
  }),
  rule('SYN of a flow that an approval admitted: dropped, and the sidecar is told', (bench) => {
    bench.configure({ flags: NO_LOOKUP });
    const flow = bench.establish({ kind: 'tcp' });
    const told = bench.events(() => {
      expect(bench.run('pod_egress', flow.talk.sent({ l4: { flags: Tcp.syn } })).verdict).toBe(Verdict.drop);
    });
    expect(told).toMatchObject([{ type: EventType.RESET, flow: flow.flowKey }]);
    expect(bench.flow(flow.flowKey)).toBeUndefined();
  }),
  rule('RST without a flow while an approval is left: slow, and the sidecar is told', (bench) => {
    const talk = approved(bench);
    const frame = talk.sent({ id: FORGED_ID, l4: { flags: Tcp.rst } });
    const told = bench.events(() => expectSlow(bench.run('pod_egress', frame), frame, 'closed'));
    expect(told).toMatchObject([{ type: EventType.RESET, flow: bench.flowKeyOf(talk) }]);
    // The SYN that follows it finds the approval until the sidecar has acted.
    expect(bench.run('pod_egress', talk.sent({ l4: { flags: Tcp.syn } })).verdict).toBe(Verdict.drop);
  }),
  rule('RST without a flow or an approval: nobody is told', (bench) => {
    bench.configure({ flags: NO_LOOKUP });
    const talk = new Conversation({ kind: 'tcp' });
    expect(bench.events(() => bench.run('pod_egress', talk.sent({ l4: { flags: Tcp.rst } })))).toEqual([]);
  }),
  rule('FIN ends an approval: the next SYN is a new connection’s', (bench) => {
    const talk = approved(bench);
    bench.run('pod_egress', talk.sent({ l4: { flags: Tcp.fin | Tcp.ack } }));
    expect(bench.tables.approvals.get(bench.flowKeyOf(talk))).toBeUndefined();
    const frame = talk.sent({ id: FORGED_ID, l4: { flags: Tcp.syn } });
    expectSlow(bench.run('pod_egress', frame), frame, 'tcp_syn');
  }),
  ...(
    [
      ['SYN', Tcp.syn],
      ['RST', Tcp.rst],
      ['FIN', Tcp.fin],
    ] as const
  ).map(([name, flags]) =>
    rule(`${name} from another MAC while an approval is left: it stays, and nobody is told`, (bench) => {
      const talk = approved(bench);
      const frame = talk.sent({ smac: STRANGER_MAC, l4: { flags } });
      expect(bench.events(() => expect(bench.run('pod_egress', frame).verdict).toBe(Verdict.pass))).toEqual([]);
      expect(bench.tables.approvals.get(bench.flowKeyOf(talk))).toBeDefined();
    }),
  ),
  rule('RST of a flow that is not fast yet: slow, and the flow ends', (bench) => {
    const talk = new Conversation({ kind: 'tcp' });
    bench.allow(talk);
    bench.run('pod_egress', talk.sent());
    const frame = talk.sent({ id: FORGED_ID, l4: { flags: Tcp.rst } });
    expectSlow(bench.run('pod_egress', frame), frame, 'closed');
    expect(bench.flow(bench.flowKeyOf(talk))).toBeUndefined();
    expect(bench.slot(talk.slotKey())).toMatchObject({ state: SlotState.TOMBSTONE });
  }),
];

/** A TCP connection that has an approval and no flow. */
function approved(bench: Bench): Conversation {
  bench.configure({ flags: NO_LOOKUP });
  const talk = new Conversation({ kind: 'tcp' });
  bench.allow(talk);
  return talk;
}

/** Admitted, but slow for now. */
const blocked: Rule[] = [
  rule('a flow that is slow stays so until the next look', (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    requireFast(bench, flow);
    bench.patchFlow(flow.flowKey, { blocked: Reason.PEER_SILENT });
    expectFast(bench, flow, false);
  }),
  rule('after a pause of the pod the flow is looked at, whenever its last packet was', (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    requireFast(bench, flow);
    bench.tables.endpoints.set(POD.id, { ...bench.tables.endpoints.get(POD.id), epoch: POD.epoch + 1 });
    bench.patchFlow(flow.flowKey, { verifyAt: now() - 50n * MS, lastTx: now() - 500n * MS, tick: 0n });
    const frame = flow.talk.sent({ id: FORGED_ID });
    expectSlow(bench.run('pod_egress', frame), frame, 'stale');
  }),
  rule('a busy flow’s last packet is noted', (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    requireFast(bench, flow);
    bench.patchFlow(flow.flowKey, { lastTx: now() - 500n * MS, tick: 0n });
    expectFast(bench, flow);
    expect(now() - (bench.flow(flow.flowKey)?.lastTx ?? 0n) < 100n * MS).toBe(true);
  }),
  rule('a busy flow that was sent in a tunnel header is masqueraded again', (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    requireFast(bench, flow);
    bench.patchFlow(flow.flowKey, { mode: Mode.ENCAP, fastSince: 0n });
    expectFast(bench, flow);
    expect(bench.flow(flow.flowKey)?.mode).toBe(Mode.MASQUERADE);
    expect(bench.flow(flow.flowKey)?.fastSince).not.toBe(0n);
  }),
  rule('endpoint epoch changed: stale', (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    requireFast(bench, flow);
    bench.tables.endpoints.set(POD.id, { ...bench.tables.endpoints.get(POD.id), epoch: POD.epoch + 1 });
    bench.patchFlow(flow.flowKey, { verifyAt: 0n });
    const frame = flow.talk.sent({ id: FORGED_ID });
    expectSlow(bench.run('pod_egress', frame), frame, 'stale');
    expect(bench.flow(flow.flowKey)).toBeUndefined();
  }),
  rule('endpoint excluded since: stale', (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    requireFast(bench, flow);
    bench.tables.endpoints.set(POD.id, { ...bench.tables.endpoints.get(POD.id), excluded: Reason.BANDWIDTH });
    bench.patchFlow(flow.flowKey, { verifyAt: 0n });
    const frame = flow.talk.sent({ id: FORGED_ID });
    expectSlow(bench.run('pod_egress', frame), frame, 'stale');
  }),
  rule('traffic with other nodes excluded since: slow, and the flow ends', (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    requireFast(bench, flow);
    bench.configure({ excludedRemote: Reason.ENCRYPTION });
    bench.patchFlow(flow.flowKey, { verifyAt: 0n });
    const frame = flow.talk.sent({ id: FORGED_ID });
    expectSlow(bench.run('pod_egress', frame), frame, 'encryption');
    expect(bench.flow(flow.flowKey)).toBeUndefined();
  }),
  rule('while no new flows are admitted, a present one goes on', (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    bench.configure({ paused: Reason.FLOW_RESTORE });
    requireFast(bench, flow);
    bench.patchFlow(flow.flowKey, { verifyAt: 0n, recheckAt: 0n });
    expectFast(bench, flow);
  }),
  rule('peer epoch changed: stale', (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    requireFast(bench, flow);
    const peer = bench.tables.peers.get(flow.talk.remote.id);
    bench.tables.peers.set(flow.talk.remote.id, { ...peer, epoch: peer.epoch + 1 });
    bench.patchFlow(flow.flowKey, { verifyAt: 0n });
    const frame = flow.talk.sent({ id: FORGED_ID });
    expectSlow(bench.run('pod_egress', frame), frame, 'stale');
    expect(bench.flow(flow.flowKey)).toBeUndefined();
  }),
  rule('peer no longer capable: stale', (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    requireFast(bench, flow);
    const peer = bench.tables.peers.get(flow.talk.remote.id);
    bench.tables.peers.set(flow.talk.remote.id, { ...peer, flags: 1 });
    bench.patchFlow(flow.flowKey, { verifyAt: 0n });
    const frame = flow.talk.sent({ id: FORGED_ID });
    expectSlow(bench.run('pod_egress', frame), frame, 'stale');
  }),
  rule('the node’s address changed: stale', (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    requireFast(bench, flow);
    bench.configure({ uplinkAddr4: '192.0.2.250', uplinkAddr6: '2001:db8::250' });
    bench.patchFlow(flow.flowKey, { verifyAt: 0n });
    const frame = flow.talk.sent({ id: FORGED_ID });
    expectSlow(bench.run('pod_egress', frame), frame, 'stale');
  }),
  ...(
    [
      ['gone', (bench, key) => bench.tables.slots.delete(key)],
      ['given to another pair', (bench, key) => bench.patchSlot(key, { gen: ((bench.slot(key)?.gen ?? 0) ^ 2) >>> 0 })],
      ['a tombstone', (bench, key) => bench.patchSlot(key, { state: SlotState.TOMBSTONE })],
      ['closing', (bench, key) => bench.patchSlot(key, { state: SlotState.CLOSING })],
    ] as const satisfies readonly (readonly [
      string,
      (bench: Bench, key: ReturnType<Conversation['slotKey']>) => unknown,
    ])[]
  ).map(([name, change]) =>
    rule(`own slot ${name}: stale`, (bench) => {
      const flow = bench.establish({ kind: 'udp' });
      requireFast(bench, flow);
      change(bench, flow.slotKey);
      bench.patchFlow(flow.flowKey, { verifyAt: 0n });
      const frame = flow.talk.sent({ id: FORGED_ID });
      expectSlow(bench.run('pod_egress', frame), frame, 'stale');
    }),
  ),
  rule('peer silent for 5 s: slow and announcing, without A', (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    requireFast(bench, flow);
    bench.heard(flow.talk.remote, now() - 5n * SEC - 50n * MS);
    bench.patchFlow(flow.flowKey, { verifyAt: 0n });
    const frame = flow.talk.sent();
    expectAnnounced(bench.run('pod_egress', frame), frame, announcement(flow.ownKey, false), 'peer_silent');
    bench.heard(flow.talk.remote, now());
    bench.patchFlow(flow.flowKey, { verifyAt: 0n });
    expectFast(bench, flow);
  }),
  rule('a peer that is heard, but has not proved for 5 s that it hears us: slow and announcing, with A', (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    requireFast(bench, flow);
    const state = bench.tables.peerState.get(flow.talk.remote.id);
    const lastConfirmed = now() - 5n * SEC - 50n * MS;
    bench.tables.peerState.set(flow.talk.remote.id, { ...state, lastLife: now(), lastConfirmed });
    bench.patchFlow(flow.flowKey, { verifyAt: 0n });
    const frame = flow.talk.sent();
    expectAnnounced(bench.run('pod_egress', frame), frame, announcement(flow.ownKey, true), 'peer_silent');
  }),
  rule('nothing sent while the node does not send, and nothing announced while it does not admit', (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    requireFast(bench, flow);
    bench.configure({ flags: DRAINED });
    bench.patchFlow(flow.flowKey, { verifyAt: 0n });
    const frame = flow.talk.sent({ id: FORGED_ID });
    expectSlow(bench.run('pod_egress', frame), frame, 'draining');
  }),
  rule('no neighbour: slow and announcing', (bench) => {
    // These addresses have no neighbour entry.
    const [addr, addr6] = ['192.0.2.77', '2001:db8::77'];
    bench.tables.peers.set(PEER2.id, { ...bench.tables.peers.get(PEER2.id), addr4: addr, addr6 });
    bench.heard(PEER2, now());
    const flow = bench.establish({ kind: 'udp', remote: { ...PEER2, addr, addr6 } });
    const frame = flow.talk.sent();
    expectAnnounced(bench.run('pod_egress', frame), frame, announcement(flow.ownKey, true), 'no_neighbour');
  }),
  rule('a route that does not lead to the uplink: slow', (bench) => {
    // The address of LOCAL_PEER is this machine's own.
    const { addr, addr6 } = LOCAL_PEER;
    bench.tables.peers.set(PEER2.id, { ...bench.tables.peers.get(PEER2.id), addr4: addr, addr6 });
    bench.heard(PEER2, now());
    const flow = bench.establish({ kind: 'udp', remote: { ...PEER2, addr, addr6 } });
    const frame = flow.talk.sent();
    expectAnnounced(bench.run('pod_egress', frame), frame, announcement(flow.ownKey, true), 'no_neighbour');
  }),
  rule('larger than the uplink’s MTU: slow and announcing', (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    requireFast(bench, flow);
    const sized = (total: number): Buffer =>
      flow.talk.sent({ l4: { payload: Buffer.alloc(total - byFamily(flow.talk.family, 28, 48)) } });
    expect(bench.run('pod_egress', sized(1500)).verdict).toBe(Verdict.redirect);
    const frame = sized(1501);
    expectAnnounced(bench.run('pod_egress', frame), frame, announcement(flow.ownKey, true), 'too_big');
  }),
  rule('GSO segments larger than the uplink’s MTU: slow', (bench) => {
    const flow = bench.establish({ kind: 'tcp' });
    requireFast(bench, flow);
    const frame = flow.talk.sent({ l4: { payload: Buffer.alloc(3000) } });
    expect(
      bench.run('pod_egress', frame, { gso_size: byFamily(flow.talk.family, 1461, 1441), gso_segs: 3 }).reasons,
    ).toEqual({ too_big: 1 });
    expect(bench.run('pod_egress', frame, { gso_size: 1400, gso_segs: 3 }).verdict).toBe(Verdict.redirect);
  }),
  rule('sent fast, heard nothing for 500 ms: black hole', (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    requireFast(bench, flow);
    requireFast(bench, flow);
    const since = now() - 550n * MS;
    bench.patchFlow(flow.flowKey, { verifyAt: 0n, unansweredSince: since, lastRxSlow: 0n, lastTx: now() });
    const frame = flow.talk.sent();
    const outcome = bench.run('pod_egress', frame);
    expectAnnounced(outcome, frame, announcement(flow.ownKey, false), 'black_hole');
    expect(outcome.counters).toMatchObject({ black_hole: 1 });
    bench.patchFlow(flow.flowKey, { verifyAt: 0n });
    expectFast(bench, flow, false);
    bench.patchFlow(flow.flowKey, { verifyAt: 0n, holeUntil: now() - 50n * MS });
    expectFast(bench, flow);
  }),
  ...(
    [
      ['one packet has no answer to come', () => ({ unansweredTx: 1 })],
      ['the pod itself paused', () => ({ lastTx: now() - 2n * SEC })],
    ] as const
  ).map(([name, change]) =>
    rule(`no black hole: ${name}`, (bench) => {
      const flow = bench.establish({ kind: 'udp' });
      requireFast(bench, flow);
      requireFast(bench, flow);
      const silent = { verifyAt: 0n, unansweredSince: now() - 550n * MS, lastRxSlow: 0n, lastTx: now() };
      bench.patchFlow(flow.flowKey, { ...silent, ...change() });
      expectFast(bench, flow);
    }),
  ),
  rule('black hole: what comes on the slow path is no answer', (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    requireFast(bench, flow);
    requireFast(bench, flow);
    const silent = { verifyAt: 0n, unansweredSince: now() - 550n * MS, lastTx: now() };
    bench.patchFlow(flow.flowKey, { ...silent, lastRxSlow: now() });
    expectFast(bench, flow, false);
  }),
  rule('black hole: what had come before is no answer', (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    requireFast(bench, flow);
    requireFast(bench, flow);
    bench.patchSlot(flow.slotKey, { rxPackets: 3n, acks: 2 });
    bench.patchFlow(flow.flowKey, { verifyAt: 0n, unansweredSince: 0n, lastTx: now() });
    expectFast(bench, flow);
    bench.patchFlow(flow.flowKey, { verifyAt: 0n, unansweredSince: now() - 550n * MS, unansweredTx: 0 });
    expectFast(bench, flow, false);
  }),
  rule('the silence begins with the packet before this one, if nothing has come since', (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    requireFast(bench, flow);
    requireFast(bench, flow);
    const sentAt = now() - 200n * MS;
    const begun = (lastRx: bigint): bigint => {
      bench.patchSlot(flow.slotKey, { lastRx });
      bench.patchFlow(flow.flowKey, { verifyAt: 0n, unansweredSince: 0n, lastTx: sentAt });
      expectFast(bench, flow);
      return bench.flow(flow.flowKey)?.unansweredSince ?? 0n;
    };
    expect(begun(sentAt - 1n)).toBe(sentAt);
    // Within one tick of the clock nobody knows which came first; what has come is counted all the same.
    expect(begun(sentAt)).toBe(sentAt);
    expect(begun(sentAt + 1n)).toBeGreaterThan(sentAt);
  }),
  ...(
    [
      ['masqueraded packets arrive', { rxPackets: 1n }],
      ['acknowledgements arrive', { acks: 1 }],
    ] as const
  ).map(([name, answer]) =>
    rule(`no black hole: ${name}, within the tick of the clock in which the pod sent`, (bench) => {
      const flow = bench.establish({ kind: 'udp' });
      requireFast(bench, flow);
      requireFast(bench, flow);
      const since = now() - 550n * MS;
      bench.patchFlow(flow.flowKey, { verifyAt: 0n, unansweredSince: since, lastRxSlow: 0n, lastTx: now() });
      bench.patchSlot(flow.slotKey, { ...answer, lastRx: since });
      expectFast(bench, flow);
    }),
  ),
  ...(['HAVE_KEY', 'ANNOUNCED', 'PEER_COMPLETE'] as const).map((flag, index) =>
    rule(`not fast without ${flag}`, (bench) => {
      const flow = bench.establish({ kind: 'udp' });
      requireFast(bench, flow);
      const flags = bench.flow(flow.flowKey)?.flags ?? 0;
      bench.patchFlow(flow.flowKey, { flags: flags & ~(2 << index) });
      const frame = flow.talk.sent();
      expectAnnounced(bench.run('pod_egress', frame), frame, announcement(flow.ownKey, flag !== 'HAVE_KEY'));
    }),
  ),
  rule('a flow entry that another flow took over while it was read: slow', (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    requireFast(bench, flow);
    bench.patchFlow(flow.flowKey, { gen2: ((bench.flow(flow.flowKey)?.gen ?? 0) ^ 1) >>> 0 });
    const frame = flow.talk.sent({ id: FORGED_ID });
    expectSlow(bench.run('pod_egress', frame), frame, 'stale');
  }),
  rule('a flow is valid only on the device it was learned on', (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    const frame = flow.talk.sent({ id: FORGED_ID });
    const outcome = bench.run('pod_egress', frame, { ifindex: bench.node.ifindex.stranger });
    expectSlow(outcome, frame, 'unknown_endpoint');
  }),
];

export const podEgressSlowRules: readonly Rule[] = [
  ...packets,
  ...forgery,
  ...markers,
  ...inBoth(
    [...headers, ...senders, ...conntrack, ...slots, ...closing, ...blocked],
    /translated (destination|source)/,
  ),
];
