import { describe, expect, test } from '@jest/globals';
import { plain, reasonText } from '../../../src/cli/reason-texts.ts';
import { headline, packetReasonsText, TraceStory } from '../../../src/cli/trace-story.ts';
import { Reason } from '../../../src/dataplane/layout.ts';
import type { FlowInfo, PeerInfo, TraceInfo } from '../../../src/grpc/backend.ts';
import { flowMessage, traceResponse } from '../../../src/grpc/convert.ts';
import { REASONS } from '../../../src/grpc/reasons.ts';
import { FakeBackend, flow, traceLook } from '../grpc/fake-backend.ts';

const [peer] = await new FakeBackend().peers();

function refused(reason: number, slowPackets = 0n): FlowInfo {
  return flow({ path: 'slow', mode: 'slow', reason, admitted: false, txPackets: 0n, slowPackets });
}

function withPath(path: Partial<PeerInfo['paths'][number]>, values: Partial<PeerInfo> = {}): PeerInfo {
  if (peer?.paths[0] === undefined) throw new Error('no peer');
  return { ...peer, ...values, paths: [{ ...peer.paths[0], ...path }] };
}

/** A look that lacks something. */
function without(what: 'flow' | 'conntrack', values: Partial<TraceInfo>): TraceInfo {
  return Object.fromEntries(
    Object.entries(traceLook(values)).filter(([name]) => name !== what),
  ) as unknown as TraceInfo;
}

/** Tells the looks in this order; each takes half a second. */
function told(looks: readonly Partial<TraceInfo>[]) {
  const story = new TraceStory();
  const changes = looks.map((values, i) => story.look(traceResponse(traceLook({ timeMs: 500 * i, ...values }))));
  return { changes: changes.map((list) => list.map(({ what, text }) => `${what}: ${text}`)), story };
}

describe('changes', () => {
  test('the first look says everything, the next ones what is new', () => {
    const peerNow = withPath({ mode: 'encap', reason: Reason.UNPROVEN });
    const waiting = flow({ path: 'slow', mode: 'slow', reason: Reason.KEY_EXCHANGE });
    const keys = { announced: true, received: false, peerComplete: false };
    const { changes } = told([
      {
        flow: refused(Reason.CT_STATE),
        conntrack: { reason: Reason.CT_STATE, detail: 'SYN_SENT, mark 0x0' },
        peer: peerNow,
      },
      {
        flow: refused(Reason.CT_STATE, 2n),
        conntrack: { reason: Reason.CT_STATE, detail: 'SYN_SENT, mark 0x0' },
        peer: peerNow,
      },
      { flow: { ...waiting, keys }, peer: peerNow, events: [{ name: 'admitted', reason: 0, timeMs: 900 }] },
      { flow: flow({ mode: 'masquerade' }), peer: withPath({}) },
    ]);
    expect(changes).toEqual([
      [
        'node: ready',
        'path: slow, refused: ct-state',
        'conntrack: ct-state: SYN_SENT, mark 0x0',
        'peer: node node-b, capable, alive',
        'way there: encap, not masqueraded: unproven',
      ],
      [],
      [
        'event: admitted',
        'path: slow, admitted, but not fast yet: key-exchange',
        'keys: ours is announced; nothing has come back',
        'conntrack: allows it: ESTABLISHED, replied, assured, mark 0x3',
      ],
      ['path: fast, masquerade', 'keys: each node knows the key of the other', 'way there: masquerade'],
    ]);
  });

  test('blocked, approved, gone, not to be asked, drained, excluded, and events for which there was no room', () => {
    const blocked = flow({ path: 'slow', mode: 'slow', blocked: true, approved: true, reason: Reason.BLACK_HOLE });
    const unasked = without('conntrack', { flow: blocked });
    const gone = without('flow', { timeMs: 500, nodeState: 'drained' });
    const story = new TraceStory();
    const first = story.look(
      traceResponse({ ...unasked, eventsLost: 3, exclusions: [{ reason: Reason.BANDWIDTH, detail: 'limited' }] }),
    );
    expect(first.map(({ what, text }) => `${what}: ${text}`)).toEqual([
      'event: 3 more, which are not told',
      'node: ready',
      'excluded: bandwidth (limited)',
      'path: slow, admitted, by approval, but blocked: black-hole',
      'keys: each node knows the key of the other',
      'conntrack: cannot be asked',
    ]);
    expect(story.look(traceResponse(gone)).map(({ what, text }) => `${what}: ${text}`)).toEqual([
      'node: drained',
      'excluded: nothing any more',
      'path: not known: neither admitted, nor refused of late',
      'keys: nothing any more',
      'conntrack: allows it: ESTABLISHED, replied, assured, mark 0x3',
    ]);
  });
});

describe('explanation', () => {
  test('a fast flow, what it was before, and its packets of this trace only', () => {
    const { story } = told([
      { flow: refused(Reason.CT_STATE, 100n) },
      { flow: refused(Reason.CT_STATE, 103n) },
      { flow: flow({ txPackets: 10n, slowPackets: 1n }), peer: withPath({}) },
      { flow: flow({ txPackets: 36n, slowPackets: 1n }), peer: withPath({}) },
    ]);
    const explanation = story.explain(new Map([[Reason.TOO_BIG, 50]]));
    expect(explanation).toMatchObject({ path: 'fast', mode: 'masquerade', reason: '', ms: 1500, causes: [] });
    expect([explanation.fastPackets, explanation.slowPackets]).toEqual([36, 4]);
    expect(explanation.text).toEqual([
      'In 1.5 s the pod sent 36 packets fast and 4 slow (90.0 % fast).',
      'The flow is fast: its packets go by masquerade.',
      'Before that it was slow (ct-state) for 1.0 s.',
      'What the other pod sends is admitted by its own node: trace it on node-b, too.',
    ]);
  });

  test('a refused flow: the reason, what it means, what to do, as docs/admin.md has it', () => {
    const { story } = told([
      { flow: refused(Reason.NOT_POD, 1n), conntrack: { reason: Reason.NOT_POD, detail: 'x' } },
      { flow: refused(Reason.NOT_POD, 9n), conntrack: { reason: Reason.NOT_POD, detail: 'x' } },
    ]);
    const { text, causes } = story.explain(new Map());
    const { meaning = '', action = '' } = reasonText(Reason.NOT_POD) ?? {};
    expect(causes).toEqual([{ reason: 'not-pod', meaning, action }]);
    expect(text).toEqual([
      'In 0.5 s the pod sent 0 packets fast and 8 slow (0.0 % fast).',
      'The flow is slow: it is not admitted.',
      `not-pod: ${meaning}`,
      `  to do: ${action}`,
    ]);
  });

  test('behind an approval that is not given is what conntrack says', () => {
    const { story } = told([
      { flow: refused(Reason.NO_APPROVAL), conntrack: { reason: Reason.CT_NOT_ALLOWED, detail: 'mark 0x0' } },
    ]);
    expect(story.explain(new Map()).causes.map(({ reason }) => reason)).toEqual(['no-approval', 'ct-not-allowed']);
  });

  test('refused when it was last looked at, though conntrack allows it now', () => {
    const { story } = told([{ flow: refused(Reason.CT_STATE) }]);
    expect(story.explain(new Map()).text).toContain(
      'The flow is slow: it was not admitted when it was last looked at. Conntrack allows it now.',
    );
  });

  test('a flow that nobody remembers: why there can be none, and the reasons of the node', () => {
    const gone = without('flow', {
      conntrack: { reason: Reason.CT_STATE, detail: 'x' },
      peer: withPath({ mode: 'slow', reason: Reason.PEER_NOT_CAPABLE }, { capable: false }),
    });
    const story = new TraceStory();
    story.look(traceResponse(gone));
    const { path, text, causes } = story.explain(new Map([[Reason.PEER_NOT_CAPABLE, 9]]));
    expect(path).toBe('unknown');
    expect(causes.map(({ reason }) => reason)).toEqual(['peer-not-capable', 'ct-state']);
    expect(text.join('\n')).toContain('  9 peer-not-capable: ');
  });

  test('a refusal of before tells less than a way that is closed; one that packets would wake tells nothing', () => {
    const closed = withPath({ mode: 'slow', reason: Reason.PEER_NOT_CAPABLE });
    const { story } = told([{ flow: refused(Reason.STALE), peer: closed }]);
    const { causes, text } = story.explain(new Map([[Reason.PEER_NOT_CAPABLE, 9]]));
    expect(causes.map(({ reason }) => reason)).toEqual(['peer-not-capable', 'stale']);
    expect(text.join('\n')).toContain('  9 peer-not-capable: ');
    const silent = withPath({ mode: 'slow', reason: Reason.PEER_SILENT });
    expect(told([{ flow: refused(Reason.CT_SNAT), peer: silent }]).story.explain(new Map()).causes).toMatchObject([
      { reason: 'ct-snat' },
    ]);
  });

  test('the count of slow packets begins anew with admission', () => {
    const { story } = told([
      { flow: refused(Reason.CT_STATE, 2n) },
      { flow: flow({ txPackets: 0n, slowPackets: 5n }) },
    ]);
    expect(story.explain(new Map()).slowPackets).toBe(5);
  });

  test('where the reason is none of conntrack, what that says is no cause', () => {
    const conntrack = { reason: Reason.CT_MISSING, detail: '' };
    const { story } = told([{ flow: refused(Reason.NOT_POD), conntrack }]);
    expect(story.explain(new Map()).causes.map(({ reason }) => reason)).toEqual(['not-pod']);
  });

  test('fast by another mode: why it is not masqueraded', () => {
    const { story } = told([{ flow: flow({ mode: 'encap', reason: Reason.PEER_NOT_CAPABLE }) }]);
    const { text, causes } = story.explain(new Map());
    expect(text).toContain('The flow is fast, by encap, but not masqueraded.');
    expect(causes).toMatchObject([{ reason: 'peer-not-capable' }]);
  });

  test('nothing was sent; an exclusion and a drained node are named', () => {
    const exclusions = [{ reason: Reason.TRAFFIC_CONTROL, detail: 'TrafficControl mirror' }];
    const { story } = told([{ flow: refused(Reason.TRAFFIC_CONTROL), exclusions, nodeState: 'draining' }]);
    const { text } = story.explain(new Map());
    expect(text[0]).toBe('In 0.0 s no packet of this flow was counted: none was sent, or they went slow before that.');
    expect(text).toContain('Excluded: traffic-control (TrafficControl mirror).');
    expect(text).toContain('The node is draining.');
  });

  test('a fast flow most of whose packets are slow: reasons of packets, which the node counts', () => {
    const { story } = told([
      { flow: flow({ txPackets: 0n, slowPackets: 0n }) },
      { flow: flow({ txPackets: 1n, slowPackets: 30n }) },
    ]);
    const { text } = story.explain(new Map([[Reason.GSO_SEGMENTS, 30]]));
    expect(text.join('\n')).toContain('Of all packets of this node these went slow meanwhile:\n  30 gso-segments: ');
  });

  test('the reasons of the node: those that grew, the most first, five at most', () => {
    const grown = new Map(
      [Reason.VLAN, Reason.TTL, Reason.SPOOF, Reason.FRAGMENT, Reason.TOO_BIG, Reason.STALE].map((code, i) => [
        code as number,
        i,
      ]),
    );
    const text = packetReasonsText(new Map([...grown, [Reason.KEY_REJECTED, 1000]]));
    expect(text.filter((line) => /^ {2}\d/.test(line)).map((line) => line.split(':')[0]?.trim())).toEqual([
      '5 stale',
      '4 too-big',
      '3 fragment',
      '2 spoof',
      '1 ttl',
    ]);
    expect(packetReasonsText(new Map())).toEqual(['No pod of this node has sent a packet by the slow path meanwhile.']);
  });
});

test('the headline names the flow, and that others would match', () => {
  expect(headline(flowMessage(flow()), 0)).toBe('tcp default/web-0 10.10.1.2:40000 > 10.10.2.3:80, node node-b');
  expect(
    headline(flowMessage(flow({ icmp: { id: 7, type: 8 }, protocol: 1, sourcePort: 0, destinationPort: 0 })), 2),
  ).toBe(
    'icmp default/web-0 10.10.1.2 id 7 > 10.10.2.3, node node-b (2 more flows match; narrow it down with --source and --destination)',
  );
});

test('every reason has a meaning without Markdown', () => {
  for (const { code, name } of REASONS) {
    const { meaning = '', action = '' } = reasonText(code) ?? {};
    expect({ name, said: meaning !== '' }).toEqual({ name, said: true });
    expect(plain(meaning) + plain(action)).not.toMatch(/[`\]]/);
  }
  expect(plain('see [feature gates](feature-gates.md) or `x`')).toBe('see feature gates (docs/feature-gates.md) or x');
  expect(reasonText(999)).toBeUndefined();
});
