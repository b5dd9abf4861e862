/** uplink_egress: our own packets pass, the node's own lose the marker towards peers, tampered ones are dropped. */
import { expect } from '@jest/globals';
import type { SkBuffInput } from '../../../src/bpf/testrun.ts';
import {
  CONTROL_MAGIC,
  Conversation,
  MAGIC,
  masquerade,
  NODE,
  PEER,
  TUNNEL_PORT,
  Verdict,
  withId,
  type Bench,
} from '../harness.ts';
import { Proto, Tcp } from '../packets.ts';
import { expectUntouched, FORGED_ID, rule } from './rule.ts';
import type { Rule } from './rule.ts';
import { controlFrame } from './uplink-ingress.ts';

type Overrides = NonNullable<Parameters<Conversation['sent']>[0]>;

/** A packet of the node itself to a peer, as seen on the uplink. */
function nodes(overrides: Overrides = {}, kind: 'tcp' | 'udp' = 'tcp'): Buffer {
  const talk = new Conversation({ kind });
  const underlay = { smac: NODE.mac, dmac: PEER.mac, src: NODE.addr, dst: PEER.addr };
  return talk.sent({ ...underlay, id: FORGED_ID, ...overrides });
}

/** A control message to a peer, whoever has made it. */
function control(overrides: Overrides = {}): Buffer {
  return controlFrame({ type: 1, proto: Proto.udp, sport: 1, dport: 2, key: 3 }, NODE, PEER, overrides);
}

function cleared(name: string, input: Buffer, expected: number, skb: SkBuffInput = {}): Rule {
  return rule(`marker cleared: ${name}`, (bench) => {
    const outcome = bench.run('uplink_egress', input, skb);
    expectUntouched(outcome, withId(input, expected));
    expect(outcome.counters).toEqual({ node_cleared: 1 });
  });
}

function passes(name: string, input: Buffer, skb: SkBuffInput = {}): Rule {
  return rule(`passes as it is: ${name}`, (bench) => {
    const outcome = bench.run('uplink_egress', input, skb);
    expectUntouched(outcome, input);
    expect(outcome.counters).toEqual({});
  });
}

function pod(bench: Bench): number {
  return bench.node.ifindex.pod;
}

const ours = [...MAGIC];
const ackMagic = [~MAGIC[0] >>> 0, MAGIC[1], MAGIC[2], MAGIC[3]];

export const uplinkEgressRules: readonly Rule[] = [
  cleared('a packet of the node to a peer', nodes(), FORGED_ID & 0x7fff),
  cleared('UDP', nodes({}, 'udp'), FORGED_ID & 0x7fff),
  cleared('the overlay’s own packets', nodes({ l4: { dport: 4789 } }, 'udp'), FORGED_ID & 0x7fff),
  cleared('SYN', nodes({ l4: { flags: Tcp.syn } }), FORGED_ID & 0x7fff),
  cleared('a fragment with DF', nodes({ mf: true }), FORGED_ID & 0x7fff),
  cleared('ESP', nodes({ transport: { kind: 'raw', proto: Proto.esp } }), FORGED_ID & 0x7fff),
  cleared('segments that end below the marker', nodes({ id: 0xffc0 }), 0x7fc0, { gso_size: 100, gso_segs: 64 }),
  cleared('segments that would count into the marker', nodes({ id: 0xffc1 }), 0, { gso_size: 100, gso_segs: 64 }),
  cleared('the marker is only in reach of the segments', nodes({ id: 0x7ff0 }), 0, { gso_size: 100, gso_segs: 17 }),
  cleared('thousands of segments', nodes({ id: 0x0001 }), 0, { gso_size: 1, gso_segs: 0x8000 }),
  cleared('from a device that is no pod’s', nodes(), FORGED_ID & 0x7fff, { ingress_ifindex: 1 }),
  rule('marker cleared: IP options', (bench) => {
    const frame = nodes({ options: Buffer.alloc(4, 1) });
    expectUntouched(bench.run('uplink_egress', frame), withId(frame, FORGED_ID & 0x7fff));
  }),
  passes('no marker', nodes({ id: 0x7fff })),
  passes('segments that end below the marker', nodes({ id: 0x7fc0 }), { gso_size: 100, gso_segs: 64 }),
  passes('no DF: its ID must stay unique, and nobody judges it', nodes({ df: false })),
  passes('AH: its signature covers the ID', nodes({ transport: { kind: 'raw', proto: Proto.ah } })),
  passes('to somebody who is no peer', nodes({ dst: '198.51.100.1' })),
  passes('not IPv4', nodes({ etherType: 0x86dd })),
  passes('another IP version', nodes({ version: 6 })),
  passes('VLAN tag in the frame', nodes({ vlan: 6 })),

  rule('ours: passes as it is, cb is wiped', (bench) => {
    const frame = nodes({ id: masquerade(0xff, true) });
    const outcome = bench.run('uplink_egress', frame, { cb: ours, ingress_ifindex: pod(bench) });
    expectUntouched(outcome, frame);
    expect(outcome.counters).toEqual({ own_seen: 1 });
    expect(outcome.skb.cb).toEqual([0, 0, 0, 0, 0]);
  }),
  rule('ours to any address: passes as it is', (bench) => {
    const frame = nodes({ id: masquerade(1), dst: '198.51.100.1' });
    expectUntouched(bench.run('uplink_egress', frame, { cb: ours, ingress_ifindex: pod(bench) }), frame);
  }),
  ...[0, 1, 2, 3].map((word) =>
    rule(`a pod’s packet with a marker whose magic is broken in word ${word}: dropped`, (bench) => {
      const cb = ours.map((value, i) => (i === word ? (value ^ 1) >>> 0 : value));
      const outcome = bench.run('uplink_egress', nodes(), { cb, ingress_ifindex: pod(bench) });
      expect(outcome.verdict).toBe(Verdict.drop);
      expect(outcome.counters).toEqual({ own_lost: 1 });
    }),
  ),
  rule('a pod’s packet with a marker and without the magic: dropped', (bench) => {
    const outcome = bench.run('uplink_egress', nodes(), { ingress_ifindex: pod(bench) });
    expect(outcome.verdict).toBe(Verdict.drop);
    expect(outcome.counters).toEqual({ own_lost: 1 });
  }),
  rule('a pod’s packet without a marker passes', (bench) => {
    const frame = nodes({ id: 0x1234 });
    expectUntouched(bench.run('uplink_egress', frame, { ingress_ifindex: pod(bench) }), frame);
  }),
  rule('a pod’s packet with a marker to somebody who is no peer passes', (bench) => {
    const frame = nodes({ dst: '198.51.100.1' });
    expectUntouched(bench.run('uplink_egress', frame, { ingress_ifindex: pod(bench) }), frame);
  }),
  ...(
    [
      ['control messages', CONTROL_MAGIC],
      ['nothing that we send', [(MAGIC[0] ^ 1) >>> 0, MAGIC[1], MAGIC[2], MAGIC[3]]],
    ] as const
  ).map(([name, cb]) =>
    rule(`the magic of ${name} on another packet: dropped`, (bench) => {
      const outcome = bench.run('uplink_egress', nodes(), { cb: [...cb] });
      expect(outcome.verdict).toBe(Verdict.drop);
      expect(outcome.counters).toEqual({ own_lost: 1 });
      expect(outcome.skb.cb).toEqual([0, 0, 0, 0, 0]);
    }),
  ),
  ...(['tcp', 'udp', 'icmp', 'sctp', 'raw'] as const).map((kind) =>
    rule(`the copy of a restored packet becomes an acknowledgement (${kind})`, (bench) => {
      const talk = new Conversation({ kind });
      const { sport, dport, proto } = talk.slotKey();
      const frame = talk.masqueraded({ id: masquerade(0x77) });
      const outcome = bench.run('uplink_egress', frame, { cb: ackMagic });
      expect(outcome.verdict).toBe(Verdict.pass);
      const expected = controlFrame({ type: 2, proto, sport, dport, key: 0x77 }, NODE, PEER);
      expect(outcome.frame.toString('hex')).toBe(expected.toString('hex'));
      expect(outcome.skb.cb).toEqual([0, 0, 0, 0, 0]);
    }),
  ),
  rule('the magic of acknowledgements on a pod’s packet: dropped', (bench) => {
    const outcome = bench.run('uplink_egress', nodes(), { cb: ackMagic, ingress_ifindex: pod(bench) });
    expect(outcome.verdict).toBe(Verdict.drop);
    expect(outcome.counters).toEqual({ own_lost: 1 });
  }),
  rule('a rejection that the data plane has made passes, cb is wiped', (bench) => {
    const frame = control();
    const outcome = bench.run('uplink_egress', frame, { cb: [...CONTROL_MAGIC] });
    expectUntouched(outcome, frame);
    expect(outcome.skb.cb).toEqual([0, 0, 0, 0, 0]);
  }),
  ...(
    [
      ['of a process of the node', () => ({})],
      ['of a pod, translated', (bench: Bench) => ({ ingress_ifindex: pod(bench) })],
      ['with a broken magic', () => ({ cb: [MAGIC[0], MAGIC[1], 0, MAGIC[3]] })],
    ] as const
  ).map(([name, skb]) =>
    rule(`a control message ${name}: dropped`, (bench) => {
      for (const frame of [control(), control({ df: false })]) {
        const outcome = bench.run('uplink_egress', frame, skb(bench));
        expect(outcome.verdict).toBe(Verdict.drop);
        expect(outcome.counters).toEqual({ reject_ignored: 1 });
      }
    }),
  ),
  passes('a control message to somebody who is no peer', control({ dst: '198.51.100.1' })),
  passes('the overlay’s packets', nodes({ id: 0, l4: { dport: TUNNEL_PORT, payload: Buffer.alloc(60, 8) } }, 'udp')),
  rule('the first word of the magic alone is nothing', (bench) => {
    const frame = nodes();
    const outcome = bench.run('uplink_egress', frame, { cb: [MAGIC[0], 0, 0, 0] });
    expectUntouched(outcome, withId(frame, FORGED_ID & 0x7fff));
  }),
];
