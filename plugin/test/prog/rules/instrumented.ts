/**
 * What only the instrumented object shows: the devices that packets are redirected to, copies, VLAN tags beside packets, slots that
 * change while they are read.
 */
import { expect } from '@jest/globals';
import { SlotState } from '../../../src/gen/layouts.ts';
import {
  Conversation,
  MAGIC,
  masquerade,
  neighbour,
  now,
  PEER,
  POD2,
  SEC,
  TUNNEL_PORT,
  Verdict,
  withId,
} from '../harness.ts';
import { Tcp } from '../packets.ts';
import { busyToo, expectUntouched, FORGED_ID, inBoth, requireFast, rule } from './rule.ts';
import type { Rule } from './rule.ts';

/** The slot becomes another flow's after the packet's lookup. */
const changingSlots: readonly Rule[] = busyToo(
  [
    rule('uplink_ingress: a slot that changes before the packet is restored by it: dropped as it came', (bench) => {
      const flow = bench.establish({ kind: 'udp' });
      const frame = flow.talk.masqueraded({ id: flow.idIn });
      const outcome = bench.changingSlots('restore', () => bench.run('uplink_ingress', frame));
      expectUntouched(outcome, frame, Verdict.drop);
      expect(outcome.counters).toMatchObject({ unknown_key: 1 });
      expect(outcome.counters).not.toHaveProperty('restored');
    }),
    rule('uplink_ingress: a slot that changes while it is looked at: rejected', (bench) => {
      const flow = bench.establish({ kind: 'udp' });
      const frame = flow.talk.masqueraded({ id: flow.idIn });
      // No recheck is due, which would notice; but an acknowledgement, so that the packet is looked at.
      bench.run('uplink_ingress', frame);
      bench.patchSlot(flow.slotKey, { ackAt: 0n });
      const { verdict, counters } = bench.changingSlots('look', () => bench.run('uplink_ingress', frame));
      expect(verdict).toBe(Verdict.redirect);
      expect(counters).toMatchObject({ unknown_key: 1 });
    }),
    rule('uplink_ingress: a slot that changes before a RST ends its flow: the flow goes on', (bench) => {
      const flow = bench.establish({ kind: 'tcp' });
      const frame = flow.talk.masqueraded({ id: flow.idIn, l4: { flags: Tcp.rst } });
      bench.changingSlots('reset', () => bench.run('uplink_ingress', frame));
      expect(bench.flow(flow.flowKey)).toBeDefined();
      expect(bench.slot(flow.slotKey)).toMatchObject({ state: SlotState.ACTIVE });
    }),
  ],
  // Of a busy flow only the restore looks.
  /while it is looked at/,
);

export const instrumentedRules: readonly Rule[] = inBoth([
  ...changingSlots,
  rule('uplink_xdp: a slot that changes before the packet is restored by it: left alone', (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    bench.run('uplink_ingress', flow.talk.masqueraded({ id: flow.idIn }));
    const frame = flow.talk.masqueraded({ id: flow.idIn });
    const before = bench.runXdp(frame);
    if (before.metadata.length === 0) throw new Error('XDP does not restore');
    const outcome = bench.changingSlots('xdp', () => bench.runXdp(frame));
    expect(outcome.counters).toEqual({});
    expect(outcome.metadata.length).toBe(0);
    expect(outcome.frame.toString('hex')).toBe(frame.toString('hex'));
  }),
  rule('pod_egress redirects masqueraded packets to the uplink', (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    requireFast(bench, flow);
    bench.patchFlow(flow.flowKey, { verifyAt: now() + SEC, recheckAt: now() + SEC });
    requireFast(bench, flow);
    expect(bench.redirected()).toMatchObject({ kind: 'redirect', ifindex: bench.node.ifindex.uplink, flags: 0 });
  }),
  rule('pod_egress: a flow that has just looked at its next hop uses the kernel’s entry of it', (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    const kinds = new Set<string>();
    // The clock's tick may be between the look and the packet.
    for (let i = 0; i < 3; i++) {
      bench.patchFlow(flow.flowKey, { verifyAt: now() - SEC });
      requireFast(bench, flow);
      const { kind, ifindex } = bench.redirected();
      expect(ifindex).toBe(bench.node.ifindex.uplink);
      kinds.add(kind);
    }
    expect([...kinds]).toContain('neighbour');
  }),
  rule('pod_egress redirects to the other pod of the node', (bench) => {
    const talk = new Conversation({ kind: 'udp', remote: neighbour(POD2) });
    bench.allow(talk);
    const sent = (): Buffer => talk.sent({ dmac: POD2.mac });
    bench.run('pod_egress', sent());
    expect(bench.run('pod_egress', sent()).verdict).toBe(Verdict.redirect);
    expect(bench.redirected()).toMatchObject({ kind: 'peer', ifindex: bench.node.ifindex.pod2, flags: 0 });
  }),
  ...(['pod', 'pod2'] as const).map((pod) =>
    rule(`uplink_ingress redirects into ${pod}`, (bench) => {
      const flow = bench.establish({ kind: 'udp', ...(pod === 'pod2' ? { local: POD2 } : {}) });
      const outcome = bench.run('uplink_ingress', flow.talk.masqueraded({ id: flow.idIn }));
      expect(outcome.verdict).toBe(Verdict.redirect);
      expect(bench.redirected()).toMatchObject({ kind: 'peer', ifindex: bench.node.ifindex[pod], flags: 0 });
    }),
  ),
  rule('uplink_ingress sends rejections out of the device that the packet came from', (bench) => {
    bench.heard(PEER, now());
    const frame = new Conversation({ kind: 'udp' }).masqueraded({ id: masquerade(9) });
    expect(bench.run('uplink_ingress', frame).verdict).toBe(Verdict.redirect);
    expect(bench.redirected()).toMatchObject({ kind: 'redirect', ifindex: bench.node.ifindex.uplink, flags: 0 });
  }),
  rule('uplink_ingress sends a copy for the acknowledgement, marked as such', (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    bench.run('uplink_ingress', flow.talk.masqueraded({ id: flow.idIn }));
    const cb = [~MAGIC[0] >>> 0, MAGIC[1], MAGIC[2], MAGIC[3]];
    expect(bench.redirected(true)).toEqual({ kind: 'copy', ifindex: bench.node.ifindex.uplink, flags: 0, cb });
  }),
  rule('pod_egress: a VLAN tag beside the packet: slow, marker cleared', (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    requireFast(bench, flow);
    const frame = flow.talk.sent({ id: FORGED_ID });
    const outcome = bench.runAny('pod_egress_vlan', frame, { ifindex: flow.flowKey.ifindex });
    expectUntouched(outcome, withId(frame, FORGED_ID & 0x7fff));
    expect(outcome.reasons).toEqual({ vlan: 1 });
  }),
  rule('pod_egress: a forged control message with a VLAN tag beside the packet: dropped', (bench) => {
    const transport = { kind: 'udp', sport: 1, dport: TUNNEL_PORT, payload: Buffer.alloc(30, 0xc1) } as const;
    const frame = new Conversation({ kind: 'udp' }).sent({ dst: PEER.addr, dst6: PEER.addr6, transport });
    const { pod } = bench.node.ifindex;
    expect(bench.runAny('pod_egress_vlan', frame, { ifindex: pod }).verdict).toBe(Verdict.drop);
  }),
  rule('pod_ingress: a VLAN tag beside the packet: left alone', (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    const frame = flow.talk.delivered({ id: masquerade(9) });
    const outcome = bench.runAny('pod_ingress_vlan', frame, { ifindex: flow.flowKey.ifindex });
    expectUntouched(outcome, frame);
    expect(outcome.counters).not.toHaveProperty('key_learned');
  }),
  rule('uplink_ingress: a VLAN tag beside the packet: not masqueraded', (bench) => {
    const flow = bench.establish({ kind: 'udp' });
    const frame = flow.talk.masqueraded({ id: flow.idIn });
    const outcome = bench.runAny('uplink_ingress_vlan', frame, { ifindex: bench.node.ifindex.uplink });
    expectUntouched(outcome, frame);
    expect(outcome.counters).toEqual({});
  }),
]);
