/** uplink_ingress: ICMP errors about masqueraded packets are translated for the pod. */
import { expect } from '@jest/globals';
import { FlowFlag, SlotState } from '../../../src/gen/layouts.ts';
import {
  masquerade,
  NODE,
  PEER,
  PEER2,
  PLAIN_NODE,
  Verdict,
  type Bench,
  type Established,
  type Outcome,
} from '../harness.ts';
import { addressBytes, buildFrame } from '../packets.ts';
import { expectUntouched, requireFast, rule } from './rule.ts';
import type { Rule } from './rule.ts';

const ROUTER = '203.0.113.9';
const SERVICE = { addr: '10.96.0.10', port: 80 };
const UNREACHABLE = 3;
const FRAG_NEEDED = 4;
const TIME_EXCEEDED = 11;

interface ErrorSpec {
  readonly type?: number;
  readonly code?: number;
  readonly mtu?: number;
  readonly dst?: string;
  /** Default: the router. */
  readonly src?: string;
}

/** An error of the router about an IP packet: its header and `quoted` bytes behind it. */
function errorAbout(
  packet: Buffer,
  { type = UNREACHABLE, code = 1, mtu = 0, dst = NODE.addr, src = ROUTER }: ErrorSpec,
  quoted = 8,
): Buffer {
  const payload = packet.subarray(0, 20 + quoted);
  return buildFrame({
    ...{ dmac: NODE.mac, smac: PEER.mac, src, dst, ttl: 61, df: false, id: 7 },
    transport: { kind: 'icmp', type, code, id: 0, seq: mtu, payload },
  });
}

/** The flow's next packet as it is on the wire, without Ethernet header. */
function onWire(bench: Bench, flow: Established, overrides: Parameters<Established['talk']['sent']>[0] = {}): Buffer {
  const { verdict, frame } = bench.run('pod_egress', flow.talk.sent(overrides));
  if (verdict !== Verdict.redirect) throw new Error('the flow is not fast');
  return frame.subarray(14);
}

function run(bench: Bench, frame: Buffer): Outcome {
  return bench.run('uplink_ingress', frame);
}

/** What the pod gets must be an error about its own packet, with right checksums. */
function expectTranslated(bench: Bench, flow: Established, spec: ErrorSpec, mtu = spec.mtu ?? 0, df = true): void {
  const wire = onWire(bench, flow, { df });
  const outcome = run(bench, errorAbout(wire, spec));
  expect(outcome.counters).toEqual({ icmp_error: 1 });
  expect(outcome.verdict).toBe(Verdict.redirect);
  const { talk } = flow;
  const own = talk.sent({ id: 0, df, ttl: wire[8] ?? 0 }).subarray(14);
  // The length is that of the packet, and behind the ports the quotation is the wire's.
  const quotation = Buffer.concat([own.subarray(0, 24), wire.subarray(24, 28)]);
  const expected = buildFrame({
    ...{
      dmac: talk.local.mac,
      smac: 'aa:bb:cc:dd:ee:ff',
      src: spec.src ?? ROUTER,
      dst: talk.local.addr,
      ttl: 61,
      df: false,
      id: 7,
    },
    transport: {
      kind: 'icmp',
      type: spec.type ?? UNREACHABLE,
      code: spec.code ?? 1,
      id: 0,
      seq: mtu,
      payload: quotation,
    },
  });
  expect(outcome.frame.toString('hex')).toBe(expected.toString('hex'));
  expect(outcome.parsed.problems).toEqual([]);
}

function expectDropped(bench: Bench, frame: Buffer): void {
  const outcome = run(bench, frame);
  expect(outcome.verdict).toBe(Verdict.drop);
  expect(outcome.counters).toEqual({ icmp_error_ignored: 1 });
}

/** As a rejection by the peer's data plane: nothing for the pod, and the flow waits for a key. */
function expectTakenForRejection(bench: Bench, spec: ErrorSpec): void {
  const flow = bench.establish({ kind: 'udp' });
  const wire = onWire(bench, flow);
  const outcome = run(bench, errorAbout(wire, spec));
  expect(outcome.verdict).toBe(Verdict.drop);
  expect(outcome.counters).toEqual({ reject_received: 1 });
  const { flags = 0, rejectKey } = bench.flow(flow.flowKey) ?? {};
  expect([flags & (FlowFlag.HAVE_KEY | FlowFlag.PEER_COMPLETE), rejectKey]).toEqual([0, flow.peerKey]);
  expect(bench.run('pod_egress', flow.talk.sent()).reasons).toEqual({ key_exchange: 1 });
}

export const icmpErrorRules: readonly Rule[] = [
  ...(['tcp', 'udp', 'icmp', 'sctp', 'raw'] as const).map((kind) =>
    rule(`ICMP error: unreachable, about a ${kind} packet: for the pod`, (bench) =>
      expectTranslated(bench, bench.establish({ kind }), {}),
    ),
  ),
  ...[
    ['no such port', 3],
    ['no such protocol', 2],
    ['a firewall there', 13],
  ].map(([what, code]) =>
    rule(`ICMP error of the peer’s own stack, ${what}: a rejection`, (bench) =>
      expectTakenForRejection(bench, { code: Number(code), src: PEER.addr }),
    ),
  ),
  rule('ICMP error of the peer’s own stack, too large: for the pod', (bench) =>
    expectTranslated(bench, bench.establish({ kind: 'tcp' }), { code: FRAG_NEEDED, mtu: 1400, src: PEER.addr }, 1350),
  ),
  rule('ICMP error of another peer’s stack: for the pod', (bench) =>
    expectTranslated(bench, bench.establish({ kind: 'udp' }), { code: 3, src: PEER2.addr }),
  ),
  rule('ICMP error: time exceeded', (bench) =>
    expectTranslated(bench, bench.establish({ kind: 'udp' }), { type: TIME_EXCEEDED, code: 0 }),
  ),
  rule('ICMP error: about a packet that had no DF', (bench) =>
    expectTranslated(bench, bench.establish({ kind: 'udp' }), {}, 0, false),
  ),
  rule('ICMP error: about a packet to a Service: about the Service’s address and port', (bench) =>
    expectTranslated(bench, bench.establish({ kind: 'tcp', service: SERVICE }), {}),
  ),
  rule('ICMP error: the path MTU leaves room for the tunnel', (bench) =>
    expectTranslated(bench, bench.establish({ kind: 'tcp' }), { code: FRAG_NEEDED, mtu: 1400 }, 1350),
  ),
  rule('ICMP error: a router that does not say the path MTU', (bench) =>
    expectTranslated(bench, bench.establish({ kind: 'tcp' }), { code: FRAG_NEEDED, mtu: 0 }),
  ),
  rule('ICMP error: a path MTU that no tunnel fits into is told as it is', (bench) =>
    expectTranslated(bench, bench.establish({ kind: 'tcp' }), { code: FRAG_NEEDED, mtu: 117 }),
  ),
  rule('ICMP error: with a long quotation: the rest of it is as it was', (bench) => {
    const flow = bench.establish({ kind: 'tcp' });
    const wire = onWire(bench, flow, { l4: { payload: Buffer.alloc(400, 0x5a) } });
    const outcome = run(bench, errorAbout(wire, {}, 300));
    expect(outcome.verdict).toBe(Verdict.redirect);
    expect(outcome.parsed.problems).toEqual([]);
    expect(outcome.frame.subarray(14 + 20 + 8 + 28).toString('hex')).toBe(wire.subarray(28, 320).toString('hex'));
  }),
  rule('ICMP error: a wrong checksum stays wrong', (bench) => {
    const frame = errorAbout(onWire(bench, bench.establish({ kind: 'udp' })), {});
    frame[36] = (frame[36] ?? 0) ^ 0x55;
    expect(run(bench, frame).parsed.problems).toEqual(['ICMP checksum']);
  }),
  rule('ICMP error: another key than the one we send with: dropped', (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    const wire = Buffer.from(onWire(bench, flow));
    wire.writeUInt16BE(masquerade(flow.peerKey ^ 1), 4);
    expectDropped(bench, errorAbout(wire, {}));
  }),
  rule('ICMP error: about a flow that is not there: dropped', (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    const wire = Buffer.from(onWire(bench, flow));
    wire.writeUInt16BE(9, 20);
    expectDropped(bench, errorAbout(wire, {}));
  }),
  rule('ICMP error: about a flow that has ended: dropped', (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    const wire = onWire(bench, flow);
    bench.patchSlot(flow.slotKey, { state: SlotState.TOMBSTONE });
    expectDropped(bench, errorAbout(wire, {}));
  }),
  rule('ICMP error: about a flow that has never been fast: dropped', (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    requireFast(bench, flow);
    const wire = onWire(bench, flow);
    bench.patchFlow(flow.flowKey, { fastSince: 0n });
    expectDropped(bench, errorAbout(wire, {}));
  }),
  rule('ICMP error: the pod has gone: dropped', (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    const wire = onWire(bench, flow);
    bench.patchSlot(flow.slotKey, { endpointEpoch: 99 });
    expectDropped(bench, errorAbout(wire, {}));
  }),
  ...(
    [
      ['about the node’s own packet to a peer', (wire: Buffer) => void wire.writeUInt16BE(5, 4)],
      ['about a packet to a node that is no peer', (wire: Buffer) => void addressBytes('192.0.2.200').copy(wire, 16)],
      [
        'about a packet that this node has not sent',
        (wire: Buffer) => void addressBytes(PLAIN_NODE.addr).copy(wire, 12),
      ],
      ['about a fragment', (wire: Buffer) => void wire.writeUInt16BE(0x2000, 6)],
      ['about a packet with options', (wire: Buffer) => void wire.writeUInt8(0x46, 0)],
    ] as const
  ).map(([what, change]) =>
    rule(`ICMP error: ${what}: the stack’s`, (bench) => {
      const wire = Buffer.from(onWire(bench, bench.establish({ kind: 'udp' })));
      change(wire);
      const frame = errorAbout(wire, {});
      expectUntouched(run(bench, frame), frame);
    }),
  ),
  rule('ICMP other than errors is the stack’s', (bench) => {
    const wire = onWire(bench, bench.establish({ kind: 'udp' }));
    for (const type of [4, 5, 13, 17]) {
      const frame = errorAbout(wire, { type });
      expectUntouched(run(bench, frame), frame);
    }
  }),
  rule('ICMP error: to another address of the node: the stack’s', (bench) => {
    const frame = errorAbout(onWire(bench, bench.establish({ kind: 'udp' })), { dst: '192.0.2.99' });
    expectUntouched(run(bench, frame), frame);
  }),
];
