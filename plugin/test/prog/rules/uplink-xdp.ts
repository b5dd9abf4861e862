/** uplink_xdp: what is restored before the kernel makes buffers of it, and that everything else is left alone. */
import { expect } from '@jest/globals';
import { EndpointFlag, Reason, SlotFlag, SlotState, type SlotKey } from '../../../src/gen/layouts.ts';
import {
  byFamily,
  MAGIC,
  masquerade,
  MS,
  NODE,
  now,
  PEER,
  POD,
  spokenFamily,
  STRANGER_MAC,
  TUNNEL_PORT,
  type Bench,
  type Conversation,
  type ConversationSpec,
  type Established,
  type XdpOutcome,
} from '../harness.ts';
import { macBytes, payloadForZeroSum, Proto, Tcp } from '../packets.ts';
import { inBoth, rule } from './rule.ts';
import type { Rule } from './rule.ts';

type Overrides = NonNullable<Parameters<Conversation['sent']>[0]>;

const XDP_PASS = 2;
const STEADY = SlotFlag.COMPLETE | SlotFlag.PEER_FAST;
const SERVICE = { addr: '10.96.0.10', addr6: 'fd00:96::10', port: 80 };

/** A connection of which uplink_ingress has just restored a packet. */
function steady(bench: Bench, spec: ConversationSpec): Established {
  const flow = bench.establish(spec);
  bench.run('uplink_ingress', flow.talk.masqueraded({ id: flow.idIn }));
  if (bench.slot(flow.slotKey)?.flags !== STEADY) throw new Error('the slot is not in steady use');
  return flow;
}

/** What uplink_ingress looks for in front of a packet (struct xdp_mark). */
function mark({ flowKey }: Established): Buffer {
  const bytes = Buffer.alloc(16);
  [...MAGIC.slice(1), flowKey.ifindex].forEach((word, i) => bytes.writeUInt32LE(word, 4 * i));
  return bytes;
}

function run(bench: Bench, flow: Established, overrides: Overrides = {}): XdpOutcome {
  return bench.runXdp(flow.talk.masqueraded({ id: flow.idIn, ...overrides }));
}

/** Restored in its exact form: as the slow path would have delivered it, with an ID of 0, and marked for its pod. */
function expectRestored(bench: Bench, flow: Established, overrides: Overrides = {}, delivered: Overrides = {}): void {
  const { verdict, metadata, frame, counters } = run(bench, flow, overrides);
  const l4 = overrides.l4 === undefined ? {} : { l4: overrides.l4 };
  expect(counters).toEqual({ restored: 1, restored_xdp: 1 });
  expect(verdict).toBe(XDP_PASS);
  expect(metadata.toString('hex')).toBe(mark(flow).toString('hex'));
  expect(frame.toString('hex')).toBe(flow.talk.delivered({ id: 0, ...l4, ...delivered }).toString('hex'));
}

/** The kernel gets it as it came, and nobody counted it. */
function expectLeft(outcome: XdpOutcome, input: Buffer): void {
  expect(outcome.frame.toString('hex')).toBe(input.toString('hex'));
  expect([outcome.verdict, outcome.metadata.length]).toEqual([XDP_PASS, 0]);
  expect(outcome.counters).toEqual({});
}

const restored: Rule[] = [
  ...(['tcp', 'udp', 'icmp'] as const).map((kind) =>
    rule(`XDP, ${kind}: every byte of the restored packet, and the mark`, (bench) =>
      expectRestored(bench, steady(bench, { kind })),
    ),
  ),
  ...(['tcp', 'udp'] as const).map((kind) =>
    rule(`XDP, ${kind} of a Service: its address and port are the source`, (bench) =>
      expectRestored(bench, steady(bench, { kind, service: SERVICE })),
    ),
  ),
  rule('XDP: ECN is copied, DSCP and TTL are the learned ones', (bench) => {
    const flow = steady(bench, { kind: 'udp' });
    for (const ecn of [0, 1, 2, 3]) expectRestored(bench, flow, { tos: 0xfc | ecn, ttl: 1 }, { tos: 0x28 | ecn });
  }),
  rule('XDP: the segment count in the ID does not matter', (bench) => {
    const flow = steady(bench, { kind: 'tcp' });
    for (const count of [1, 63]) expectRestored(bench, flow, { id: masquerade(flow.ownKey, false, count) });
  }),
  rule('XDP: Ethernet padding is let be', (bench) => {
    const short = { l4: { payload: Buffer.from('x') }, trailer: Buffer.alloc(17) };
    expectRestored(bench, steady(bench, { kind: 'udp' }), short, { trailer: short.trailer });
  }),
  rule('XDP: a UDP checksum of zero stays zero', (bench) => {
    expectRestored(bench, steady(bench, { kind: 'udp' }), { l4: { checksum: 0 } });
    expectRestored(bench, steady(bench, { kind: 'udp', service: SERVICE, sport: 40001 }), { l4: { checksum: 0 } });
  }),
  rule('XDP: a UDP checksum that becomes zero is written as 0xffff', (bench) => {
    const flow = steady(bench, { kind: 'udp' });
    const payload = payloadForZeroSum((bytes) => flow.talk.delivered({ id: 0, l4: { payload: bytes } }));
    expectRestored(bench, flow, { l4: { payload } });
  }),
  rule('XDP: counts packets and bytes, and says when the last one came', (bench) => {
    const flow = steady(bench, { kind: 'tcp' });
    const { rxPackets = 0n, rxBytes = 0n } = bench.slot(flow.slotKey) ?? {};
    bench.patchSlot(flow.slotKey, { lastRx: now() - 50n * MS });
    run(bench, flow, { l4: { payload: Buffer.alloc(100) }, trailer: Buffer.alloc(9) });
    const slot = bench.slot(flow.slotKey);
    const bytes = byFamily(spokenFamily(), 140n, 160n);
    expect(slot).toMatchObject({ rxPackets: rxPackets + 1n, rxBytes: rxBytes + bytes });
    expect(now() - (slot?.lastRx ?? 0n) < 40n * MS).toBe(true);
  }),
];

/** Left alone after this change; until then it would have been restored. */
function unlessSteady(name: string, change: (bench: Bench, flow: Established) => void): Rule {
  return rule(`left alone by XDP: ${name}`, (bench) => {
    const flow = steady(bench, { kind: 'udp' });
    if (run(bench, flow).counters['restored_xdp'] !== 1) throw new Error('it would not have been restored');
    change(bench, flow);
    const frame = flow.talk.masqueraded({ id: flow.idIn });
    expectLeft(bench.runXdp(frame), frame);
  });
}

/** Left alone as it is. */
function packet(name: string, kind: ConversationSpec['kind'], overrides: Overrides): Rule {
  return rule(`left alone by XDP: ${name}`, (bench) => {
    const flow = steady(bench, { kind });
    const frame = flow.talk.masqueraded({ id: flow.idIn, ...overrides });
    expectLeft(bench.runXdp(frame), frame);
  });
}

/** Gives the flow's slot a key that no connection has; a packet that matches it is left alone. */
function expectStranger(bench: Bench, flow: Established, key: Partial<SlotKey>, overrides: Overrides): void {
  const slot = bench.slot(flow.slotKey);
  if (slot === undefined) throw new Error('there is no slot');
  bench.tables.slots.set({ ...flow.slotKey, ...key }, slot);
  const frame = flow.talk.masqueraded({ id: flow.idIn, ...overrides });
  expectLeft(bench.runXdp(frame), frame);
}

/** Ports that are never masqueraded. */
function ports(name: string, changed: { readonly sport: number } | { readonly dport: number }): Rule {
  return rule(`left alone by XDP: ${name}`, (bench) =>
    expectStranger(bench, steady(bench, { kind: 'udp' }), changed, { l4: changed }),
  );
}

function patched(change: (slot: { readonly gen: number }) => Parameters<Bench['patchSlot']>[1]) {
  return (bench: Bench, { slotKey }: Established): void => {
    bench.patchSlot(slotKey, change({ gen: bench.slot(slotKey)?.gen ?? 0 }));
  };
}

const left: Rule[] = [
  unlessSteady(
    'a slot that has learned no header',
    patched(() => ({ flags: SlotFlag.PEER_FAST })),
  ),
  unlessSteady(
    'the flow does not know yet that the peer sends fast',
    patched(() => ({ flags: SlotFlag.COMPLETE })),
  ),
  unlessSteady(
    'the nodes have a connection on these ports',
    patched(() => ({ flags: STEADY | SlotFlag.SHARED })),
  ),
  unlessSteady(
    'a closing slot',
    patched(() => ({ state: SlotState.CLOSING, freedAt: now() })),
  ),
  unlessSteady(
    'a tombstone',
    patched(() => ({ state: SlotState.TOMBSTONE, freedAt: now() })),
  ),
  unlessSteady(
    'a slot that is being changed',
    patched(({ gen }) => ({ gen: (gen | 1) >>> 0 })),
  ),
  unlessSteady(
    'conntrack has to be asked',
    patched(() => ({ recheckAt: now() })),
  ),
  unlessSteady(
    'the last packet came more than 100 ms ago',
    patched(() => ({ lastRx: now() - 101n * MS })),
  ),
  unlessSteady(
    'an acknowledgement is due',
    patched(() => ({ ackAt: now() })),
  ),
  unlessSteady('no slot', (bench, { slotKey }) => {
    bench.tables.slots.delete(slotKey);
  }),
  unlessSteady('endpoint epoch changed', (bench) => {
    bench.tables.endpoints.set(POD.id, { ...bench.tables.endpoints.get(POD.id), epoch: 99 });
  }),
  unlessSteady('endpoint excluded', (bench) => {
    bench.tables.endpoints.set(POD.id, { ...bench.tables.endpoints.get(POD.id), excluded: Reason.BANDWIDTH });
  }),
  unlessSteady('endpoint gone', (bench) => {
    const flags = bench.tables.endpoints.get(POD.id).flags & ~EndpointFlag.PRESENT;
    bench.tables.endpoints.set(POD.id, { ...bench.tables.endpoints.get(POD.id), flags });
  }),
  unlessSteady('peer epoch changed', (bench) => {
    bench.tables.peers.set(PEER.id, { ...bench.tables.peers.get(PEER.id), epoch: 99 });
  }),
  packet('a frame for another MAC address', 'udp', { dmac: STRANGER_MAC }),
  rule('XDP: the MAC address is that of the frames which uplink_ingress restores', (bench) => {
    const flow = steady(bench, { kind: 'udp' });
    bench.patchSlot(flow.slotKey, { wireDmac: macBytes(STRANGER_MAC), ackAt: now() });
    const frame = flow.talk.masqueraded({ id: flow.idIn });
    expectLeft(bench.runXdp(frame), frame);
    bench.run('uplink_ingress', frame);
    expectRestored(bench, flow);
  }),
  unlessSteady('the node has another address', (bench) => {
    bench.configure({ uplinkAddr4: '192.0.2.99', uplinkAddr6: '2001:db8::99' });
  }),
  unlessSteady('the uplink is a VLAN, and the frame has no tag', (bench) => bench.configure({ xdpVlan: 7 })),
  rule('left alone by XDP: another key, or no marker', (bench) => {
    const flow = steady(bench, { kind: 'udp' });
    for (const id of [masquerade(flow.ownKey ^ 1), flow.idIn & 0x7fff]) {
      const frame = flow.talk.masqueraded({ id });
      expectLeft(bench.runXdp(frame), frame);
    }
  }),
  packet('SYN', 'tcp', { l4: { flags: Tcp.syn | Tcp.ack } }),
  packet('FIN', 'tcp', { l4: { flags: Tcp.fin | Tcp.ack } }),
  packet('RST', 'tcp', { l4: { flags: Tcp.rst } }),
  packet('a TCP header that is too short', 'tcp', { l4: { dataOffset: 4 } }),
  packet('an ICMP code', 'icmp', { l4: { code: 1 } }),
  packet('SCTP', 'sctp', {}),
  packet('another Ethernet protocol', 'udp', { etherType: 0x88cc }),
  packet('another IP version', 'udp', { version: 5 }),
  packet('a packet longer than its frame', 'udp', { totalLength: 400 }),
  packet('a VLAN tag', 'udp', { vlan: 7 }),
  ports('what comes from port 53', { sport: 53 }),
  ports('what comes from the tunnel’s port', { sport: TUNNEL_PORT }),
  ports('what goes to the tunnel’s port', { dport: TUNNEL_PORT }),
  rule('left alone by XDP: ICMP of the other family', (bench) => {
    const proto = byFamily<number>(spokenFamily(), Proto.icmp6, Proto.icmp);
    expectStranger(bench, steady(bench, { kind: 'icmp' }), { proto }, { proto });
  }),
  rule('left alone by XDP: headers that end too early', (bench) => {
    for (const [kind, bytes] of [
      ['tcp', 19],
      ['udp', 7],
      ['icmp', 7],
    ] as const) {
      const flow = steady(bench, { kind });
      const header = byFamily(spokenFamily(), 20, 40);
      const whole = flow.talk.masqueraded({ id: flow.idIn, totalLength: header + bytes });
      for (const length of [14 + header - 1, 14 + header, 14 + header + bytes]) {
        const frame = whole.subarray(0, length);
        expectLeft(bench.runXdp(frame), frame);
      }
    }
  }),
];

const tagged: Rule[] = [
  rule('XDP: on a VLAN the frame’s tag stays, and only that VLAN’s packets are restored', (bench) => {
    bench.configure({ xdpVlan: 7 });
    const flow = steady(bench, { kind: 'udp' });
    expectRestored(bench, flow, { vlan: 7 }, { vlan: 7 });
    for (const vlan of [6, 8]) {
      const frame = flow.talk.masqueraded({ id: flow.idIn, vlan });
      expectLeft(bench.runXdp(frame), frame);
    }
    const frame = flow.talk.masqueraded({ id: flow.idIn, vlan: 7 });
    // IEEE 802.1Q: priority and eligibility are beside the number.
    frame.writeUInt16BE(0xf007, 14);
    expect(bench.runXdp(frame).counters).toEqual({ restored: 1, restored_xdp: 1 });
    for (const length of [17, 18]) expectLeft(bench.runXdp(frame.subarray(0, length)), frame.subarray(0, length));
    frame.writeUInt16BE(0x88a8, 12);
    expectLeft(bench.runXdp(frame), frame);
  }),
];

/** What only one family has. */
const single: Rule[] = [
  rule('XDP, N: DF is taken away and the ID is fresh, without the marker', (bench) => {
    const flow = steady(bench, { kind: 'udp' });
    const ids = new Set<number>();
    for (let i = 0; i < 16; i++) {
      const { frame } = run(bench, flow, { id: masquerade(flow.ownKey, true) });
      const id = frame.readUInt16BE(18);
      expect(id).toBeLessThan(0x8000);
      expect(frame.toString('hex')).toBe(flow.talk.delivered({ id, df: false }).toString('hex'));
      ids.add(id);
    }
    expect(ids.size).toBeGreaterThan(8);
  }),
  packet('no DF', 'udp', { df: false }),
  packet('a first fragment', 'udp', { mf: true }),
  packet('a later fragment', 'udp', { fragmentOffset: 1 }),
  packet('the reserved bit of IPv4', 'udp', { evil: true }),
  // Who took them for the transport header would find the connection's ports.
  packet('IP options', 'udp', { options: Buffer.of(0x1f, 0x90, 0x9c, 0x40) }),
  rule(
    'left alone by XDP: IPv6 with an IPv4 address in the place of the peer’s',
    (bench) => {
      const four = steady(bench, { kind: 'udp', family: 4 });
      const six = steady(bench, { kind: 'udp', family: 6 });
      const ends = { src: `::ffff:${PEER.addr}`, dst: NODE.addr6 };
      const frame = six.talk.masqueraded({ id: four.idIn, ...ends });
      expectLeft(bench.runXdp(frame), frame);
    },
    [4, 6],
  ),
  rule(
    'left alone by XDP: an IPv6 extension header',
    (bench) => {
      const flow = steady(bench, { kind: 'udp', family: 6 });
      const extension = { type: Proto.destinationOptions, body: Buffer.alloc(7) };
      const frame = flow.talk.masqueraded({ id: flow.idIn, extension });
      expectLeft(bench.runXdp(frame), frame);
    },
    [6],
  ),
];

export const uplinkXdpRules: readonly Rule[] = [...inBoth([...restored, ...left, ...tagged]), ...single];
