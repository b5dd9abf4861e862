/** Probes, and whether flows are masqueraded: paths to peers. */
import { expect } from '@jest/globals';
import { ConfigFlag, FlowFlag, Mode } from '../../../src/gen/layouts.ts';
import {
  announcement,
  byFamily,
  Conversation,
  DRAINED,
  FLAGS,
  CONTROL_MAGIC,
  MAGIC,
  masquerade,
  MS,
  now,
  PEER,
  PEER2,
  PLAIN_NODE,
  PROBE_KEY,
  SEC,
  spokenFamily,
  Verdict,
  type Bench,
  type ConversationSpec,
  type Established,
  type Outcome,
} from '../harness.ts';
import { onesSum, parseFrame, Proto, Tcp } from '../packets.ts';
import { routedOut, tunnelledOut } from '../tunnels.ts';
import { expectAnnounced, expectUntouched, inBoth, rule } from './rule.ts';
import type { Rule } from './rule.ts';
import { controlFrame } from './uplink-ingress.ts';

const PROBE = FLAGS | ConfigFlag.PROBE;
const PROBED = 3;
const probeMagic = [(MAGIC[0] ^ 0xffff) >>> 0, MAGIC[1], MAGIC[2], MAGIC[3]];
const KINDS = ['tcp', 'udp', 'icmp', 'sctp', 'raw'] as const;

/** Keys are exchanged; whether the underlay carries masqueraded packets is not known. */
function unproven(bench: Bench, spec: Partial<ConversationSpec> = {}): Established {
  bench.configure({ flags: PROBE });
  return bench.establish({ kind: 'udp', ...spec });
}

function send(bench: Bench, { talk, flowKey }: Established): Outcome {
  return bench.run('pod_egress', talk.sent(), { ifindex: flowKey.ifindex });
}

/** Everything that is looked at from time to time is due. */
function sendLater(bench: Bench, flow: Established): Outcome {
  bench.patchFlow(flow.flowKey, { verifyAt: 0n });
  return send(bench, flow);
}

/** Number of the probe that was sent last. */
function numberOf(bench: Bench, { talk }: Established): number {
  return bench.path(talk).awaited - 1;
}

/** An answer to the probe sent last, or to the one with that number. */
function answer(
  bench: Bench,
  flow: Established,
  from: Parameters<typeof controlFrame>[1] = PEER,
  count = Math.max(0, numberOf(bench, flow)),
): Outcome {
  const { sport, dport, proto } = flow.talk.slotKey();
  // Ports as this node sends.
  const ports = flow.talk.kind === 'icmp' ? { sport, dport: flow.flowKey.dport } : { sport: dport, dport: sport };
  const control = { type: PROBED, proto, ...ports, key: PROBE_KEY, count };
  return bench.run('uplink_ingress', controlFrame(control, from, { ...flow.talk.node, addr6: flow.talk.node.addr }));
}

/** A probe was answered, and the flow is masqueraded. */
function proven(bench: Bench, spec: Partial<ConversationSpec> = {}): Established {
  const flow = unproven(bench, spec);
  send(bench, flow);
  answer(bench, flow);
  if (sendLater(bench, flow).verdict !== Verdict.redirect) throw new Error('the flow is not fast');
  return flow;
}

const asking: Rule[] = [
  rule('path: nothing is masqueraded before a probe is answered; the packet asks', (bench) => {
    const flow = unproven(bench);
    const frame = flow.talk.sent();
    const outcome = bench.run('pod_egress', frame);
    expectAnnounced(outcome, frame, announcement(flow.ownKey, true), 'unproven');
    expect(outcome.counters).toMatchObject({ probe_sent: 1 });
    expect(outcome.skb.cb).toEqual([0, 0, 0, 0, 0]);
    expect(bench.path(flow.talk)).toMatchObject({ probes: 1n, answers: 0n, masquerade: 0, provenAt: 0n });
  }),
  rule('path: an answer proves it, and the flow is masqueraded', (bench) => {
    const flow = unproven(bench);
    send(bench, flow);
    const outcome = answer(bench, flow);
    expect(outcome).toMatchObject({ verdict: Verdict.drop, counters: { probe_answered: 1 } });
    expect(bench.path(flow.talk)).toMatchObject({ answers: 1n, probeWait: 0n });
    const again = bench.path(flow.talk).probeAt - now();
    expect(again > 19n * SEC && again < 21n * SEC).toBe(true);
    expect(send(bench, flow).counters).toMatchObject({ fast_tx: 1, path_changed: 1 });
    expect(bench.path(flow.talk)).toMatchObject({ masquerade: 1, changes: 1 });
  }),
  ...KINDS.map((kind) =>
    rule(`path: an answer about a ${kind} flow finds it`, (bench) => {
      const flow = unproven(bench, { kind });
      send(bench, flow);
      expect(answer(bench, flow).counters).toEqual({ probe_answered: 1 });
    }),
  ),
  rule('path: an answer is a sign that the peer hears us', (bench) => {
    const flow = unproven(bench);
    send(bench, flow);
    bench.heard(PEER, now() - 4n * SEC);
    answer(bench, flow);
    expect(now() - bench.tables.peerState.get(PEER.id).lastConfirmed < 100n * MS).toBe(true);
  }),
  rule('path: an answer that nobody asked for is ignored', (bench) => {
    const flow = unproven(bench);
    expect(answer(bench, flow)).toMatchObject({ verdict: Verdict.drop, counters: { reject_ignored: 1 } });
    send(bench, flow);
    answer(bench, flow);
    expect(answer(bench, flow).counters).toEqual({ reject_ignored: 1 });
    expect(bench.path(flow.talk)).toMatchObject({ probes: 1n, answers: 1n });
  }),
  rule('path: an answer with another number is ignored, and who guesses has one try', (bench) => {
    for (const wrong of [1, 32, 63]) {
      const flow = unproven(bench);
      bench.patchPath(flow.talk, { probeAt: 0n });
      sendLater(bench, flow);
      const number = numberOf(bench, flow);
      expect(answer(bench, flow, PEER, number ^ wrong).counters).toEqual({ reject_ignored: 1 });
      expect(answer(bench, flow, PEER, number).counters).toEqual({ reject_ignored: 1 });
      expect(bench.path(flow.talk)).toMatchObject({ provenAt: 0n, answers: 0n });
    }
  }),
  rule('path: an answer to the probe before the last one is ignored', (bench) => {
    const flow = unproven(bench);
    send(bench, flow);
    const first = numberOf(bench, flow);
    do {
      bench.patchPath(flow.talk, { probeAt: now() });
      expect(sendLater(bench, flow).counters).toMatchObject({ probe_sent: 1 });
    } while (numberOf(bench, flow) === first);
    expect(answer(bench, flow, PEER, first).counters).toEqual({ reject_ignored: 1 });
  }),
  rule('path: the numbers of probes are not to be guessed', (bench) => {
    const flow = unproven(bench);
    const numbers = new Set<number>();
    for (let i = 0; i < 300; i++) {
      bench.patchPath(flow.talk, { probeAt: now() });
      sendLater(bench, flow);
      numbers.add(numberOf(bench, flow));
    }
    // All but a few of 64: of 300 random ones more than 10 are missing less than once in a billion tries.
    expect(numbers.size).toBeGreaterThan(53);
    expect(Math.max(...numbers)).toBeLessThan(64);
  }),
  rule('path: an answer a second after the probe is ignored, one before that is not', (bench) => {
    const flow = unproven(bench);
    send(bench, flow);
    const { awaited, probeWait } = bench.path(flow.talk);
    bench.patchPath(flow.talk, { probeAt: now() + probeWait - SEC });
    expect(answer(bench, flow).counters).toEqual({ reject_ignored: 1 });
    bench.patchPath(flow.talk, { awaited, probeAt: now() + probeWait - SEC + 200n * MS });
    expect(answer(bench, flow).counters).toEqual({ probe_answered: 1 });
  }),
  rule('path: an answer to a probe from before packets were lost is ignored', (bench) => {
    const flow = proven(bench);
    bench.patchPath(flow.talk, { probeAt: now() });
    sendLater(bench, flow);
    const number = numberOf(bench, flow);
    // The peer does not hear what is masqueraded.
    bench.patchFlow(flow.flowKey, { fastSince: now() - SEC });
    bench.run('pod_ingress', flow.talk.delivered({ id: announcement(flow.peerKey, false) }));
    expect(bench.path(flow.talk).holeAt).not.toBe(0n);
    expect(answer(bench, flow, PEER, number).counters).toEqual({ reject_ignored: 1 });
  }),
  rule('path: a peer that does not hear us after a pause of ours says nothing of the path', (bench) => {
    const flow = proven(bench);
    sendLater(bench, flow);
    bench.patchFlow(flow.flowKey, { fastSince: now() - 20n * SEC, lastTx: now() - 5n * SEC });
    bench.run('pod_ingress', flow.talk.delivered({ id: announcement(flow.peerKey, false) }));
    expect(bench.path(flow.talk)).toMatchObject({ holeAt: 0n });
    expect((bench.flow(flow.flowKey)?.flags ?? 0) & FlowFlag.PEER_COMPLETE).toBe(0);
  }),
  rule('path: another peer’s answer is ignored', (bench) => {
    const flow = unproven(bench);
    send(bench, flow);
    expect(answer(bench, flow, PEER2).counters).toEqual({ reject_ignored: 1 });
    expect(bench.path(flow.talk)).toMatchObject({ provenAt: 0n });
  }),
  rule('path: probes come with doubling pauses, from 100 ms to 8 s', (bench) => {
    const flow = unproven(bench);
    const pauses: number[] = [];
    for (let i = 0; i < 9; i++) {
      expect(sendLater(bench, flow).counters).toMatchObject({ probe_sent: 1 });
      pauses.push(Number(bench.path(flow.talk).probeWait / MS));
      expect(sendLater(bench, flow).counters).not.toHaveProperty('probe_sent');
      bench.patchPath(flow.talk, { probeAt: now() });
    }
    expect(pauses).toEqual([100, 200, 400, 800, 1600, 3200, 6400, 8000, 8000]);
  }),
  rule('path: while flows use it, it is probed again', (bench) => {
    const flow = proven(bench);
    expect(sendLater(bench, flow).counters).not.toHaveProperty('probe_sent');
    bench.patchPath(flow.talk, { probeAt: now() });
    expect(sendLater(bench, flow).counters).toMatchObject({ probe_sent: 1, fast_tx: 1 });
  }),
  rule('path: no probe before the peer holds our key, nor without its key', (bench) => {
    const flow = unproven(bench);
    const flags = bench.flow(flow.flowKey)?.flags ?? 0;
    for (const flag of [FlowFlag.PEER_COMPLETE, FlowFlag.HAVE_KEY]) {
      bench.patchFlow(flow.flowKey, { flags: flags & ~flag });
      expect(sendLater(bench, flow).counters).not.toHaveProperty('probe_sent');
    }
  }),
  rule('path: a node that drains does not ask', (bench) => {
    const flow = unproven(bench);
    bench.configure({ flags: DRAINED | ConfigFlag.PROBE });
    expect(sendLater(bench, flow).counters).not.toHaveProperty('probe_sent');
  }),
  rule('path: without the need of a proof nothing is asked', (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    expect(send(bench, flow).counters).toMatchObject({ fast_tx: 1 });
    expect(bench.path(flow.talk)).toMatchObject({ probes: 0n, masquerade: 0 });
  }),
];

const proof: Rule[] = [
  rule('path: a proof is good for 60 s', (bench) => {
    const flow = proven(bench);
    bench.patchPath(flow.talk, { provenAt: now() - 59n * SEC });
    expect(sendLater(bench, flow).verdict).toBe(Verdict.redirect);
    bench.patchPath(flow.talk, { provenAt: now() - 60n * SEC, changedAt: now() - 5n * SEC });
    expect(sendLater(bench, flow)).toMatchObject({ reasons: { unproven: 1 }, counters: { path_changed: 1 } });
    expect(bench.path(flow.talk)).toMatchObject({ masquerade: 0, changes: 2 });
  }),
  rule('path: lost packets end the proof for the other flows of the class', (bench) => {
    const flow = proven(bench);
    const other = bench.establish({ kind: 'udp', sport: 40001 });
    expect(sendLater(bench, other).counters).toMatchObject({ fast_tx: 1 });
    bench.patchPath(flow.talk, { changedAt: now() - 6n * SEC });
    const silent = { unansweredSince: now() - 550n * MS, unansweredTx: 0, masqPackets: 9n, lastTx: now() };
    bench.patchFlow(flow.flowKey, silent);
    expect(sendLater(bench, flow).reasons).toEqual({ black_hole: 1 });
    expect(bench.path(flow.talk)).toMatchObject({ masquerade: 0, changes: 2 });
    expect(sendLater(bench, other).reasons).toEqual({ unproven: 1 });
  }),
  ...(
    [
      ['class', { kind: 'tcp' }],
      ['peer', { kind: 'udp', remote: PEER2 }],
    ] as const
  ).map(([what, spec]) =>
    rule(`path: what is known of it says nothing of another ${what}`, (bench) => {
      proven(bench);
      const other = bench.establish({ sport: 40001, ...spec });
      expect(send(bench, other).reasons).toEqual({ unproven: 1 });
    }),
  ),
  rule('path: flows of one class share a proof', (bench) => {
    proven(bench);
    const other = bench.establish({ kind: 'udp', sport: 40001 });
    expect(send(bench, other).counters).toMatchObject({ fast_tx: 1 });
  }),
  rule(
    'path: after lost packets an answer to an old probe proves nothing, a new one does, but not for 5 s',
    (bench) => {
      const flow = proven(bench);
      bench.patchPath(flow.talk, { holeAt: now() + SEC, masquerade: 0, changedAt: now() - 6n * SEC });
      expect(sendLater(bench, flow).reasons).toEqual({ unproven: 1 });
      bench.patchPath(flow.talk, { holeAt: now() - 4n * SEC, provenAt: now() });
      expect(sendLater(bench, flow).reasons).toEqual({ unproven: 1 });
      bench.patchPath(flow.talk, { holeAt: now() - 5n * SEC });
      expect(sendLater(bench, flow).counters).toMatchObject({ fast_tx: 1, path_changed: 1 });
    },
  ),
  rule('path: it is not used again within 5 s of a change', (bench) => {
    const flow = proven(bench);
    bench.patchPath(flow.talk, { masquerade: 0, changedAt: now() - 4n * SEC });
    expect(sendLater(bench, flow).reasons).toEqual({ unproven: 1 });
    bench.patchPath(flow.talk, { changedAt: now() - 5n * SEC });
    expect(sendLater(bench, flow).counters).toMatchObject({ fast_tx: 1 });
  }),
  rule(
    'path: packets lost within 5 s of a change: it stays what it is, but nobody uses it, and it is asked',
    (bench) => {
      const flow = proven(bench);
      const other = bench.establish({ kind: 'udp', sport: 40001 });
      const silent = { unansweredSince: now() - 550n * MS, unansweredTx: 0, masqPackets: 9n, lastTx: now() };
      bench.patchFlow(flow.flowKey, silent);
      expect(sendLater(bench, flow).reasons).toEqual({ black_hole: 1 });
      expect(bench.path(flow.talk)).toMatchObject({ masquerade: 1, changes: 1, probes: 2n });
      expect(sendLater(bench, other).reasons).toEqual({ unproven: 1 });
    },
  ),
  rule('path: until it is proven, flows are sent in the tunnel’s header', (bench) => {
    bench.configure({ flags: PROBE | ConfigFlag.ENCAP });
    const flow = bench.establish({ kind: 'udp' });
    const tunnel = { type: 'geneve', outer: spokenFamily() } as const;
    bench.run('uplink_egress', tunnelledOut(tunnel, PEER, routedOut(flow.talk)));
    const outcome = send(bench, flow);
    expect(outcome.counters).toMatchObject({ fast_encap: 1, announced: 1, probe_sent: 1 });
    expect(bench.flow(flow.flowKey)).toMatchObject({ mode: Mode.ENCAP });
    answer(bench, flow);
    expect(send(bench, flow).counters).toMatchObject({ fast_tx: 1 });
    expect(bench.flow(flow.flowKey)).toMatchObject({ mode: Mode.MASQUERADE });
  }),
];

/** What uplink_egress makes of the copy of a pod's packet. */
function probeOf(bench: Bench, flow: Established, overrides: Parameters<Conversation['sent']>[0] = {}): Outcome {
  const skb = { cb: probeMagic, ingress_ifindex: flow.flowKey.ifindex };
  return bench.run('uplink_egress', flow.talk.sent(overrides), skb);
}

/** A TCP or UDP segment as the device completes it: the sum over all of it goes where the checksum is. */
function completed(transport: Buffer, at: number): Buffer {
  const copy = Buffer.from(transport);
  copy.writeUInt16BE(~onesSum(copy) & 0xffff, at);
  return copy;
}

const asked: Rule[] = [
  ...KINDS.map((kind) =>
    rule(`probe, ${kind}: a masqueraded packet with a key that nobody has`, (bench) => {
      const flow = unproven(bench, { kind, tos: 0x28 });
      send(bench, flow);
      const outcome = probeOf(bench, flow);
      expect(outcome.verdict).toBe(Verdict.pass);
      const { talk } = flow;
      expect(outcome.parsed).toMatchObject({
        ...{ dmac: talk.remote.mac, smac: talk.node.mac, src: talk.node.addr, dst: talk.remote.addr },
        ...{ proto: talk.proto, id: masquerade(PROBE_KEY, false, numberOf(bench, flow)), df: true, ttl: 64, tos: 0 },
        totalLength: byFamily(talk.family, 40, 60),
      });
      expect(outcome.frame.length).toBe(byFamily(talk.family, 54, 74));
      expect(outcome.skb.cb).toEqual([0, 0, 0, 0, 0]);
      const { transport } = outcome.parsed;
      if (kind !== 'raw')
        expect(transport.subarray(0, 1)).toEqual(
          talk
            .sent()
            .subarray(byFamily(talk.family, 34, 54))
            .subarray(0, 1),
        );
      if (kind === 'tcp' || kind === 'udp') expect(transport.readUInt32BE(0)).toBe(talk.sport * 65536 + talk.dport);
      if (kind === 'tcp') expect(transport.subarray(12, 14)).toEqual(Buffer.of(0x50, Tcp.ack));
      if (kind === 'sctp') return; // nobody looks at the CRC, and no program can compute one
      expect(outcome.parsed.problems).toEqual([]);
    }),
  ),
  ...(['tcp', 'udp'] as const).map((kind) =>
    rule(`probe, ${kind}: its checksum is right, too, if the device has to complete it`, (bench) => {
      const flow = unproven(bench, { kind });
      send(bench, flow);
      for (const payload of [Buffer.alloc(0), Buffer.from('odd'), Buffer.alloc(999, 0x5a)]) {
        const { frame, parsed } = probeOf(bench, flow, { l4: { payload } });
        const at = byFamily(flow.talk.family, 34, 54);
        const device = Buffer.concat([frame.subarray(0, at), completed(parsed.transport, kind === 'tcp' ? 16 : 6)]);
        expect(parsed.problems).toEqual([]);
        expect(parseFrame(device).problems).toEqual([]);
      }
    }),
  ),
  rule('probe: to a Service: with the endpoint’s port', (bench) => {
    const flow = unproven(bench, { kind: 'tcp', service: { addr: '10.96.0.10', addr6: 'fd00:96::10', port: 80 } });
    send(bench, flow);
    const { parsed } = probeOf(bench, flow);
    expect(parsed.transport.readUInt16BE(2)).toBe(flow.talk.dport);
    expect(parsed.problems).toEqual([]);
  }),
  rule('probe made of a SCTP packet that is not carried fast: looks like one that is', (bench) => {
    const flow = unproven(bench, { kind: 'sctp' });
    send(bench, flow);
    const { frame } = probeOf(bench, flow, { l4: { chunks: [{ type: 1, body: Buffer.alloc(16) }] } });
    bench.heard(PEER, now());
    // As if the peer's probe came back, it is taken for a probe.
    const { dmac, smac, src, dst } = parseFrame(frame);
    const back = flow.talk.masqueraded({
      id: masquerade(PROBE_KEY),
      transport: { kind: 'raw', proto: Proto.sctp, bytes: parseFrame(frame).transport },
    });
    expect(bench.run('uplink_ingress', back).counters).toEqual({ probe_received: 1 });
    expect([dmac, smac, src, dst]).toEqual([PEER.mac, flow.talk.node.mac, flow.talk.node.addr, flow.talk.remote.addr]);
  }),
  rule('probe: made of no other packets than those of flows with keys, from their pods', (bench) => {
    const flow = unproven(bench);
    send(bench, flow);
    const dropped = (outcome: Outcome): void => expect(outcome.verdict).toBe(Verdict.drop);
    dropped(bench.run('uplink_egress', flow.talk.sent(), { cb: probeMagic }));
    dropped(probeOf(bench, { ...flow, flowKey: { ...flow.flowKey, ifindex: bench.node.ifindex.pod2 } }));
    dropped(probeOf(bench, flow, { l4: { dport: 9 } }));
    bench.patchFlow(flow.flowKey, { flags: 0 });
    dropped(probeOf(bench, flow));
  }),
  ...KINDS.map((kind) =>
    rule(`a peer’s probe, ${kind}: answered in exact form, delivered to nobody`, (bench) => {
      const flow = bench.establish({ kind });
      const outcome = bench.run('uplink_ingress', flow.talk.masqueraded({ id: masquerade(PROBE_KEY, false, 0x2a) }));
      const { sport, dport, proto } = flow.talk.slotKey();
      const control = { type: PROBED, proto, sport, dport, key: PROBE_KEY, count: 0x2a };
      expect(outcome.verdict).toBe(Verdict.redirect);
      expect(outcome.counters).toEqual({ probe_received: 1 });
      const node = { ...flow.talk.node, addr6: flow.talk.node.addr };
      expect(outcome.frame.toString('hex')).toBe(controlFrame(control, node, PEER).toString('hex'));
      expect(outcome.skb.cb).toEqual([...CONTROL_MAGIC, 0]);
    }),
  ),
  rule('a probe needs no flow here', (bench) => {
    bench.heard(PEER, now());
    const outcome = bench.run(
      'uplink_ingress',
      new Conversation({ kind: 'tcp' }).masqueraded({ id: masquerade(PROBE_KEY) }),
    );
    expect(outcome.counters).toEqual({ probe_received: 1 });
  }),
  ...(
    [
      ['a peer that was not heard of for 30 s', PEER, 30n * SEC],
      ['a node without XMasq', PLAIN_NODE, 0n],
    ] as const
  ).map(([name, remote, ago]) =>
    rule(`a probe of ${name}: a plain packet`, (bench) => {
      if (ago > 0n) bench.heard(PEER, now() - ago);
      const frame = new Conversation({ kind: 'tcp', remote }).masqueraded({ id: masquerade(PROBE_KEY) });
      const outcome = bench.run('uplink_ingress', frame);
      expectUntouched(outcome, frame);
      expect(outcome.counters).toEqual({});
    }),
  ),
  rule('a probe of somebody unknown: a plain packet', (bench) => {
    const from = { src: '198.51.100.1', src6: '2001:db8:1::1' };
    const frame = new Conversation({ kind: 'tcp' }).masqueraded({ id: masquerade(PROBE_KEY), ...from });
    expectUntouched(bench.run('uplink_ingress', frame), frame);
  }),
  rule('a probe on a node that drains: dropped', (bench) => {
    bench.heard(PEER, now());
    bench.configure({ flags: DRAINED });
    const frame = new Conversation({ kind: 'tcp' }).masqueraded({ id: masquerade(PROBE_KEY) });
    expect(bench.run('uplink_ingress', frame)).toMatchObject({ verdict: Verdict.drop, counters: {} });
  }),
  rule('probes are answered at most as often as keys are rejected', (bench) => {
    bench.heard(PEER, now(), { rejectWindow: now(), rejectCount: 99n });
    const frame = new Conversation({ kind: 'tcp' }).masqueraded({ id: masquerade(PROBE_KEY) });
    expect(bench.run('uplink_ingress', frame).counters).toEqual({ probe_received: 1 });
    expect(bench.run('uplink_ingress', frame)).toMatchObject({
      verdict: Verdict.drop,
      counters: { reject_limited: 1 },
    });
  }),
  rule('what looks like a probe, but belongs to a connection of the node itself: passes, counted', (bench) => {
    bench.heard(PEER, now());
    const talk = new Conversation({ kind: 'udp' });
    const tuple = { family: talk.family, src: talk.node.addr, dst: talk.remote.addr };
    const ports = { proto: Proto.udp, sport: talk.sport, dport: talk.dport };
    bench.node.ct.insert({ ...tuple, ...ports }, { zone: 0, mark: 0, status: 2, timeoutSeconds: 100 });
    const frame = talk.masqueraded({ id: masquerade(PROBE_KEY) });
    const outcome = bench.run('uplink_ingress', frame);
    expectUntouched(outcome, frame);
    expect(outcome.counters).toEqual({ unknown_passed: 1 });
  }),
  rule('what looks like a probe, but answers what the node has sent: passes, counted', (bench) => {
    bench.heard(PEER, now());
    const talk = new Conversation({ kind: 'udp' });
    const tuple = { family: talk.family, src: talk.node.addr, dst: talk.remote.addr };
    const ports = { proto: Proto.udp, sport: talk.sport, dport: talk.dport };
    bench.node.ct.insert({ ...tuple, ...ports }, { zone: 0, mark: 0, status: 0, timeoutSeconds: 100 });
    const frame = talk.masqueraded({ id: masquerade(PROBE_KEY) });
    const outcome = bench.run('uplink_ingress', frame);
    expectUntouched(outcome, frame);
    expect(outcome.counters).toEqual({ unknown_passed: 1 });
  }),
  rule('a probe that met this node’s stack before, whose conntrack remembers it, is answered', (bench) => {
    bench.heard(PEER, now());
    const talk = new Conversation({ kind: 'udp' });
    const tuple = { family: talk.family, src: talk.remote.addr, dst: talk.node.addr };
    const ports = { proto: Proto.udp, sport: talk.dport, dport: talk.sport };
    bench.node.ct.insert({ ...tuple, ...ports }, { zone: 0, mark: 0, status: 0, timeoutSeconds: 100 });
    const outcome = bench.run('uplink_ingress', talk.masqueraded({ id: masquerade(PROBE_KEY) }));
    expect(outcome).toMatchObject({ verdict: Verdict.redirect, counters: { probe_received: 1 } });
  }),
  rule('the probes’ key is never given to a slot, nor learned', (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    bench.run('pod_ingress', flow.talk.delivered({ id: announcement(PROBE_KEY, true) }));
    expect(bench.flow(flow.flowKey)).toMatchObject({ peerKey: flow.peerKey });
    // Given to another flow, a slot's next key is 1 to 128 more.
    for (let i = 0; i < 300; i++) {
      bench.tables.flows.delete(flow.flowKey);
      bench.patchSlot(flow.slotKey, { state: 3, freedAt: now() - SEC, key: 0xfe });
      bench.run('pod_egress', flow.talk.sent());
      const key = bench.slot(flow.slotKey)?.key;
      if (key === PROBE_KEY) expect(key).not.toBe(PROBE_KEY);
    }
  }),
];

export const pathRules: readonly Rule[] = inBoth([...asking, ...proof, ...asked]);
