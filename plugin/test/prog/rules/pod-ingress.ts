/** pod_ingress: what is learned from announcements, and that no key reaches a pod. */
import { expect } from '@jest/globals';
import { DestKind, EventType, FlowFlag, SlotFlag, SlotState } from '../../../src/gen/layouts.ts';
import {
  announcement,
  Conversation,
  EXCLUDED_POD,
  GATEWAY_MAC,
  Id,
  MS,
  now,
  PEER,
  PEER2,
  PEER_GATEWAY,
  PEER_GATEWAY6,
  PLAIN_NODE,
  POD,
  POD2,
  podOf,
  spokenEnd,
  SEC,
  STRANGER_MAC,
  Verdict,
  withId,
  type Bench,
  type ConversationSpec,
  type Established,
  NO_LOOKUP,
  prefix,
} from '../harness.ts';
import { frameId, macBytes, Proto, Tcp } from '../packets.ts';
import { expectFast, expectUntouched, inBoth, requireFast, rule } from './rule.ts';
import type { Rule } from './rule.ts';

type Overrides = NonNullable<Parameters<Conversation['sent']>[0]>;

/** A flow that has announced and heard nothing yet. */
function admitted(bench: Bench, spec: ConversationSpec): Omit<Established, 'peerKey' | 'idIn' | 'idOut'> {
  const talk = new Conversation(spec);
  bench.allow(talk);
  const id = bench.run('pod_egress', talk.sent()).parsed.id;
  const flowKey = bench.flowKeyOf(talk);
  if (bench.flow(flowKey) === undefined) throw new Error('the flow was not admitted');
  return { talk, flowKey, slotKey: talk.slotKey(), ownKey: (id >> 6) & 0xff };
}

/** The packet reached the pod with an ID of 0 and is otherwise what it was. */
function expectErased(bench: Bench, input: Buffer, ifindex = bench.node.ifindex.pod): void {
  const outcome = bench.run('pod_ingress', input, { ifindex });
  expectUntouched(outcome, frameId(input) === 0 ? input : withId(input, 0));
}

const learning: Rule[] = [
  ...(['tcp', 'udp', 'icmp', 'sctp', 'raw'] as const).map((kind) =>
    rule(`${kind}: an announcement teaches key, MACs, TTL and DSCP; its ID is erased`, (bench) => {
      const { talk, flowKey, slotKey } = admitted(bench, { kind });
      const frame = talk.delivered({ id: announcement(0xa7, false), ttl: 61, tos: 0x2b });
      const outcome = bench.run('pod_ingress', frame);
      expectUntouched(outcome, withId(frame, 0));
      expect(outcome.counters).toEqual({ slow_rx: 1, key_learned: 1 });
      expect((bench.flow(flowKey)?.flags ?? 0) & ~FlowFlag.APPROVED).toBe(
        FlowFlag.KEYED | FlowFlag.HAVE_KEY | FlowFlag.ANNOUNCED,
      );
      expect(bench.flow(flowKey)).toMatchObject({ peerKey: 0xa7, fastSince: 0n, recheckAt: 0n });
      expect(bench.slot(slotKey)).toMatchObject({
        flags: SlotFlag.COMPLETE,
        ttl: 61,
        tos: 0x28,
        smac: Uint8Array.from(macBytes(GATEWAY_MAC)),
        dmac: Uint8Array.from(macBytes(POD.mac)),
        lock: 0,
      });
    }),
  ),
  rule('A sets PEER_COMPLETE, its absence clears it', (bench) => {
    const { talk, flowKey } = admitted(bench, { kind: 'udp' });
    const complete = (a: boolean): boolean => {
      bench.run('pod_ingress', talk.delivered({ id: announcement(1, a) }));
      return ((bench.flow(flowKey)?.flags ?? 0) & FlowFlag.PEER_COMPLETE) !== 0;
    };
    expect([complete(false), complete(true), complete(false)]).toEqual([false, true, false]);
  }),
  rule('is a sign of life of a peer that was never heard', (bench) => {
    const { talk } = admitted(bench, { kind: 'udp' });
    bench.run('pod_ingress', talk.delivered({ id: announcement(1, false) }));
    const { lastLife, lastConfirmed } = bench.tables.peerState.get(PEER.id);
    expect([now() - lastLife < 100n * MS, lastConfirmed]).toEqual([true, 0n]);
  }),
  rule('is a sign of life of a known peer when it repeats the key', (bench) => {
    bench.heard(PEER, 1n);
    const { talk } = admitted(bench, { kind: 'udp' });
    const lives = (key: number): boolean => {
      bench.run('pod_ingress', talk.delivered({ id: announcement(key, false) }));
      return now() - bench.tables.peerState.get(PEER.id).lastLife < 100n * MS;
    };
    expect([1, 2, 3, 3].map(lives)).toEqual([false, false, false, true]);
    expect(bench.tables.peerState.get(PEER.id).lastConfirmed).toBe(1n);
  }),
  rule('the IDs of a node that has lost its programs are no sign of life', (bench) => {
    bench.heard(PEER, 1n);
    const { talk } = admitted(bench, { kind: 'udp' });
    // As the kernel counts them for a connected socket.
    for (let id = 0x7f00; id < 0x9000; id++) {
      const frame = talk.delivered({ id });
      expect(frameId(bench.run('pod_ingress', frame).frame)).toBe(id & Id.marker ? 0 : id);
    }
    expect(bench.tables.peerState.get(PEER.id)).toMatchObject({ lastLife: 1n, lastConfirmed: 1n });
  }),
  rule('another key: learned anew, with the header that comes with it', (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    requireFast(bench, flow);
    bench.run(
      'pod_ingress',
      flow.talk.delivered({ id: announcement(0x11, true), ttl: 33, tos: 0x40, smac: STRANGER_MAC }),
    );
    expect(bench.flow(flow.flowKey)).toMatchObject({ peerKey: 0x11, fastSince: 0n });
    const smac = Uint8Array.from(macBytes(STRANGER_MAC));
    expect(bench.slot(flow.slotKey)).toMatchObject({ ttl: 33, tos: 0x40, smac });
  }),
  rule('the same key with another header: every announcement means its own', (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    bench.run('pod_ingress', flow.talk.delivered({ id: announcement(flow.peerKey, true), ttl: 33, tos: 0x40 }));
    expect(bench.slot(flow.slotKey)).toMatchObject({ ttl: 33, tos: 0x40 });
  }),
  rule('later segments, which segmentation has counted, teach nothing; they are erased', (bench) => {
    const { talk, flowKey } = admitted(bench, { kind: 'tcp' });
    for (const count of [1, 63]) expectErased(bench, talk.delivered({ id: announcement(0x3c, true) | count }));
    expect(bench.flow(flowKey)).toMatchObject({ flags: FlowFlag.KEYED | FlowFlag.ANNOUNCED });
  }),
  rule('a packet without marker teaches nothing, but is heard', (bench) => {
    const { talk, flowKey, slotKey } = admitted(bench, { kind: 'udp' });
    const frame = talk.delivered({ id: 0x7fc0 });
    expectUntouched(bench.run('pod_ingress', frame), frame);
    expect(bench.flow(flowKey)).toMatchObject({ flags: FlowFlag.KEYED | FlowFlag.ANNOUNCED });
    expect(now() - (bench.flow(flowKey)?.lastRxSlow ?? 0n) < 100n * MS).toBe(true);
    expect(bench.slot(slotKey)).toMatchObject({ flags: 0 });
  }),
  rule('a slow packet of a fast flow: conntrack is asked before the next fast one', (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    requireFast(bench, flow);
    bench.run('pod_ingress', flow.talk.delivered({ id: 0 }));
    expect(bench.run('pod_egress', flow.talk.sent()).counters).toMatchObject({ ct_lookup: 1, fast_tx: 1 });
  }),
  ...(
    [
      ['a slot that is gone', (bench, { slotKey }) => bench.tables.slots.delete(slotKey)],
      ['a tombstone', (bench, { slotKey }) => bench.patchSlot(slotKey, { state: SlotState.TOMBSTONE })],
      ['a slot of another flow', (bench, { flowKey }) => bench.patchFlow(flowKey, { slotGen: 2 })],
    ] as const satisfies readonly (readonly [string, (bench: Bench, flow: ReturnType<typeof admitted>) => unknown])[]
  ).map(([name, change]) =>
    rule(`nothing is learned into ${name}`, (bench) => {
      const flow = admitted(bench, { kind: 'udp' });
      change(bench, flow);
      bench.run('pod_ingress', flow.talk.delivered({ id: announcement(9, true) }));
      expect(bench.flow(flow.flowKey)).toMatchObject({ flags: FlowFlag.KEYED | FlowFlag.ANNOUNCED, peerKey: 0 });
      expect(bench.slot(flow.slotKey)?.flags ?? 0).toBe(0);
    }),
  ),
  rule('nothing is learned while somebody else changes the slot', (bench) => {
    const flow = admitted(bench, { kind: 'udp' });
    bench.patchSlot(flow.slotKey, { lock: 1 });
    bench.run('pod_ingress', flow.talk.delivered({ id: announcement(9, true) }));
    expect(bench.flow(flow.flowKey)).toMatchObject({ flags: FlowFlag.KEYED | FlowFlag.ANNOUNCED });
    expect(bench.slot(flow.slotKey)).toMatchObject({ flags: 0 });
  }),
  rule('nothing is learned after the peer’s epoch has changed', (bench) => {
    const flow = admitted(bench, { kind: 'udp' });
    bench.tables.peers.set(PEER.id, { ...bench.tables.peers.get(PEER.id), epoch: 99 });
    expectErased(bench, flow.talk.delivered({ id: announcement(9, true) }));
    expect(bench.flow(flow.flowKey)).toMatchObject({ flags: FlowFlag.KEYED | FlowFlag.ANNOUNCED });
  }),
  rule('nothing is learned if the pod address belongs to another peer by now', (bench) => {
    const flow = admitted(bench, { kind: 'udp' });
    bench.tables.destinations.set(prefix(podOf(PEER)), { kind: DestKind.PEER, peer: PEER2.id });
    try {
      expectErased(bench, flow.talk.delivered({ id: announcement(9, true) }));
      expect(bench.flow(flow.flowKey)).toMatchObject({ flags: FlowFlag.KEYED | FlowFlag.ANNOUNCED });
    } finally {
      bench.tables.destinations.delete(prefix(podOf(PEER)));
    }
  }),
  rule('a rejected key is not learned before its time', (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    bench.patchFlow(flow.flowKey, {
      flags: FlowFlag.KEYED | FlowFlag.ANNOUNCED,
      rejectKey: flow.peerKey,
      rejectUntil: now() + SEC,
    });
    expectErased(bench, flow.talk.delivered({ id: announcement(flow.peerKey, true) }));
    expectFast(bench, flow, false);
  }),
];

const erasing: Rule[] = [
  rule('a packet without DF gets a fresh ID without the marker', (bench) => {
    const { talk } = admitted(bench, { kind: 'udp' });
    const ids = new Set<number>();
    for (let i = 0; i < 16; i++) {
      const frame = talk.delivered({ id: announcement(9, true), df: false });
      const outcome = bench.run('pod_ingress', frame);
      expect(outcome.parsed.id).toBeLessThan(0x8000);
      expectUntouched(outcome, withId(frame, outcome.parsed.id));
      ids.add(outcome.parsed.id);
    }
    expect(ids.size).toBeGreaterThan(8);
  }),
  rule('without a flow, too', (bench) => {
    const talk = new Conversation({ kind: 'udp' });
    expectErased(bench, talk.delivered({ id: announcement(9, true) }));
    expect([...bench.tables.flows.entries()]).toEqual([]);
  }),
  rule('of an excluded pod, too', (bench) => {
    const talk = new Conversation({ kind: 'udp', local: EXCLUDED_POD });
    expectErased(bench, talk.delivered({ id: announcement(9, true) }), bench.node.ifindex.excluded);
  }),
  ...(
    [
      ['a SYN', { flags: Tcp.syn }],
      ['a FIN', { flags: Tcp.fin | Tcp.ack }],
    ] as const
  ).map(([name, l4]) =>
    rule(`of ${name}, too`, (bench) => {
      expectErased(bench, new Conversation({ kind: 'tcp' }).delivered({ id: announcement(9, true), l4 }));
    }),
  ),
];

/** Not a packet that a peer's key could be in: it reaches the pod as it came. */
function untouched(name: string, overrides: Overrides, kind: ConversationSpec['kind'] = 'udp'): Rule {
  return rule(`left alone: ${name}`, (bench) => {
    const flow = bench.establish({ kind });
    const before = bench.flow(flow.flowKey);
    const frame = flow.talk.delivered({ id: announcement(9, true), ...overrides });
    expectUntouched(bench.run('pod_ingress', frame), frame);
    expect(bench.flow(flow.flowKey)).toEqual(before);
  });
}

const foreign: Rule[] = [
  untouched('a fragment', { mf: true, df: false }),
  untouched('a later fragment', { fragmentOffset: 9 }),
  untouched('IP options', { options: Buffer.alloc(4, 1) }),
  untouched('AH', { transport: { kind: 'raw', proto: Proto.ah } }),
  untouched('an ICMP error', { l4: { type: 3 } }, 'icmp'),
  untouched('VLAN tag in the frame', { vlan: 3 }),
  untouched('not IPv4', { etherType: 0x86dd }),
  ...(
    [
      ['outside of the cluster', '203.0.113.7', '2001:db8:1::7'],
      ['a pod of the same node', POD2.addr, POD2.addr6],
      ['a gateway', PEER_GATEWAY, PEER_GATEWAY6],
      ['a pod on a node without XMasq', PLAIN_NODE.pod, PLAIN_NODE.pod6],
    ] as const
  ).map(([name, src, src6]) => untouched(`the ID of packets from ${name} is their business`, { src, src6 })),
  rule('forged keys from outside of the cluster teach nothing', (bench) => {
    const { talk, flowKey } = admitted(bench, { kind: 'udp' });
    bench.tables.destinations.set(prefix(podOf(PEER)), { kind: DestKind.NONE, peer: PEER.id });
    try {
      const frame = talk.delivered({ id: announcement(9, true) });
      expectUntouched(bench.run('pod_ingress', frame), frame);
      expect(bench.flow(flowKey)).toMatchObject({ flags: FlowFlag.KEYED | FlowFlag.ANNOUNCED });
    } finally {
      bench.tables.destinations.delete(prefix(podOf(PEER)));
    }
  }),
  rule('a packet on another pod’s device teaches nothing', (bench) => {
    const { talk, flowKey } = admitted(bench, { kind: 'udp' });
    bench.run('pod_ingress', talk.delivered({ id: announcement(9, true) }), { ifindex: bench.node.ifindex.pod2 });
    expect(bench.flow(flowKey)).toMatchObject({ flags: FlowFlag.KEYED | FlowFlag.ANNOUNCED });
  }),
];

const closing: Rule[] = (
  [
    ['SYN', Tcp.syn, SlotState.TOMBSTONE],
    ['SYN+ACK', Tcp.syn | Tcp.ack, SlotState.TOMBSTONE],
    ['FIN', Tcp.fin | Tcp.ack, SlotState.CLOSING],
    ['RST', Tcp.rst, SlotState.TOMBSTONE],
    ['FIN+RST', Tcp.fin | Tcp.rst, SlotState.TOMBSTONE],
  ] as const
).map(([name, flags, state]) =>
  rule(`${name} on the slow path ends the flow`, (bench) => {
    const flow = bench.establish({ kind: 'tcp' });
    requireFast(bench, flow);
    const frame = flow.talk.delivered({ id: 0, l4: { flags } });
    const outcome = bench.run('pod_ingress', frame);
    expectUntouched(outcome, frame);
    expect(outcome.counters).toMatchObject({ slow_rx: 1, flow_closed: 1 });
    expect(bench.flow(flow.flowKey)).toBeUndefined();
    expect(bench.slot(flow.slotKey)).toMatchObject({ state });
    expect(bench.run('pod_egress', flow.talk.sent({ l4: { flags: Tcp.rst } })).verdict).toBe(Verdict.pass);
  }),
);

const resets: Rule[] = [
  rule('RST without a flow: the entry of the connection expires', (bench) => {
    const talk = new Conversation({ kind: 'tcp' });
    bench.allow(talk);
    const outcome = bench.run('pod_ingress', talk.delivered({ id: 0, l4: { flags: Tcp.rst } }));
    expect(outcome.counters).toEqual({ slow_rx: 1, ct_killed: 1 });
  }),
  rule('RST on another pod’s device ends nothing', (bench) => {
    const talk = new Conversation({ kind: 'tcp' });
    bench.allow(talk);
    const frame = talk.delivered({ id: 0, l4: { flags: Tcp.rst } });
    const outcome = bench.run('pod_ingress', frame, { ifindex: bench.node.ifindex.pod2 });
    expect(outcome.counters).toEqual({ slow_rx: 1 });
  }),
  rule('RST of a flow that an approval admitted: the sidecar is told', (bench) => {
    bench.configure({ flags: NO_LOOKUP });
    const flow = bench.establish({ kind: 'tcp' });
    const told = bench.events(() => {
      bench.run('pod_ingress', flow.talk.delivered({ id: 0, l4: { flags: Tcp.rst } }));
    });
    expect(told).toMatchObject([{ type: EventType.RESET, flow: flow.flowKey }]);
  }),
  rule('RST without a flow while an approval is left: the sidecar is told', (bench) => {
    bench.configure({ flags: NO_LOOKUP });
    const talk = new Conversation({ kind: 'tcp' });
    const frame = talk.delivered({ id: 0, l4: { flags: Tcp.rst } });
    expect(bench.events(() => bench.run('pod_ingress', frame))).toEqual([]);
    bench.allow(talk);
    const told = bench.events(() => expectUntouched(bench.run('pod_ingress', frame), frame));
    expect(told).toMatchObject([{ type: EventType.RESET, flow: bench.flowKeyOf(talk) }]);
  }),
  rule('SYN of a connection that has ended, while its approval is left: dropped once, the sidecar is told', (bench) => {
    bench.configure({ flags: NO_LOOKUP });
    const flow = bench.establish({ kind: 'tcp' });
    bench.tables.flows.delete(flow.flowKey);
    const syn = flow.talk.delivered({ id: 0, l4: { flags: Tcp.syn } });
    const told = bench.events(() => {
      const first = bench.run('pod_ingress', syn);
      expect(first).toMatchObject({ verdict: Verdict.drop, counters: { slow_rx: 1, syn_dropped: 1 } });
    });
    expect(told).toMatchObject([{ type: EventType.RESET, flow: flow.flowKey }]);
    const again = bench.events(() => expectUntouched(bench.run('pod_ingress', syn), syn));
    expect(again).toEqual([]);
  }),
  rule('SYN while an approval is left that never had a slot: delivered, it may be a late one', (bench) => {
    bench.configure({ flags: NO_LOOKUP });
    const talk = new Conversation({ kind: 'tcp' });
    bench.allow(talk);
    const syn = talk.delivered({ id: 0, l4: { flags: Tcp.syn } });
    expect(bench.events(() => expectUntouched(bench.run('pod_ingress', syn), syn))).toEqual([]);
    expect(bench.tables.approvals.get(bench.flowKeyOf(talk))).toBeDefined();
  }),
  rule('FIN on the slow path ends the approval, too', (bench) => {
    bench.configure({ flags: NO_LOOKUP });
    const { talk, flowKey } = bench.establish({ kind: 'tcp' });
    bench.run('pod_ingress', talk.delivered({ id: 0, l4: { flags: Tcp.fin | Tcp.ack } }));
    expect(bench.tables.approvals.get(flowKey)).toBeUndefined();
    const syn = talk.delivered({ id: 0, l4: { flags: Tcp.syn } });
    expectUntouched(bench.run('pod_ingress', syn), syn);
  }),
  rule('SYN of a connection that a RST has ended, passed for a part of it: dropped, its entry expires', (bench) => {
    const flow = bench.establish({ kind: 'tcp' });
    // The keys are forgotten, so the RST goes slow.
    bench.patchFlow(flow.flowKey, { flags: FlowFlag.KEYED | FlowFlag.ANNOUNCED });
    expect(bench.run('pod_egress', flow.talk.sent({ l4: { flags: Tcp.rst } })).verdict).toBe(Verdict.pass);
    const syn = flow.talk.delivered({ id: 0, l4: { flags: Tcp.syn } });
    const first = bench.run('pod_ingress', syn);
    expect(first).toMatchObject({ verdict: Verdict.drop, counters: { slow_rx: 1, syn_dropped: 1, ct_killed: 1 } });
    expectUntouched(bench.run('pod_ingress', syn), syn);
  }),
  ...(
    [
      ['that is judged as new', Tcp.syn, (bench) => bench.node.ct.flush()],
      ['while the connection lives', Tcp.syn, undefined],
      ['with ACK', Tcp.syn | Tcp.ack, (bench, { flowKey }) => bench.tables.flows.delete(flowKey)],
      [
        'on the ports of other pods',
        Tcp.syn,
        (bench, { flowKey, slotKey }) => {
          bench.tables.flows.delete(flowKey);
          bench.patchSlot(slotKey, { daddr: spokenEnd(POD2).addr });
        },
      ],
    ] as const satisfies readonly (readonly [
      string,
      number,
      ((bench: Bench, flow: Established) => unknown) | undefined,
    ])[]
  ).map(([name, flags, change]) =>
    rule(`SYN ${name}: delivered`, (bench) => {
      const flow = bench.establish({ kind: 'tcp' });
      change?.(bench, flow);
      const syn = flow.talk.delivered({ id: 0, l4: { flags } });
      const outcome = bench.run('pod_ingress', syn);
      expectUntouched(outcome, syn);
      expect(outcome.counters).not.toHaveProperty('ct_killed');
    }),
  ),
];

export const podIngressRules: readonly Rule[] = inBoth(
  [...learning, ...erasing, ...foreign, ...closing, ...resets],
  /without DF|IP options|not IPv4/,
);
