import { beforeEach, describe, expect, test } from '@jest/globals';
import { Events } from '../../../src/dataplane/events.ts';
import { EventType, FlowFlag, Reason, type Event } from '../../../src/dataplane/layout.ts';
import { flowKeyOf, Trace, type TraceOptions } from '../../../src/dataplane/trace.ts';
import { entryText } from '../../../src/dataplane/verdict.ts';
import type { PeerInfo } from '../../../src/grpc/backend.ts';
import { CtSctpState, CtStatus, CtTcpState, type CtEntry, type CtTuple } from '../../../src/netlink/ctnetlink.ts';
import { FakeClock, FakeTables, flow, key, quiet, reversed } from './fakes.ts';

const ORIGIN: CtTuple = { family: 4, src: key.saddr, dst: key.daddr, sport: key.sport, dport: key.dport, proto: 17 };
const ASSURED = CtStatus.confirmed | CtStatus.seenReply | CtStatus.assured;

let tables: FakeTables;
let clock: FakeClock;
let events: Events;
let entry: CtEntry | undefined;
let zones: number[];
let asked: [string, number][];
let failure: Error | undefined;
let lookup: boolean;

function ctEntry(values: Partial<CtEntry> = {}): CtEntry {
  return {
    origin: ORIGIN,
    reply: reversed(ORIGIN),
    protocol: 17,
    zone: 65520,
    status: ASSURED,
    mark: 3,
    ...values,
  } as CtEntry;
}

function event(values: Partial<Event> = {}): Event {
  return { time: clock.time, type: EventType.DEMOTED, reason: Reason.CT_MISSING, flow: key, peer: 0, ...values };
}

function trace(over: Partial<TraceOptions> = {}): Trace {
  return new Trace(
    {
      tables,
      conntrack: {
        get: (_, zone) => {
          zones.push(zone);
          if (failure !== undefined) throw failure;
          return entry;
        },
        setTimeout: () => false,
        delete: () => false,
      },
      zones: { 4: 65520, 6: 65510 },
      isRouted: () => false,
      lookup: () => lookup,
      events,
      names: () => ({ nodeName: 'n1', podsByIfindex: new Map(), addresses: new Map(), peers: new Map() }),
      nodeState: () => 'ready',
      peerOf: (address, protocol) => {
        asked.push([address, protocol]);
        return { nodeName: 'n2' } as PeerInfo;
      },
      exclusionsOf: (ifindex, destination) => [{ reason: Reason.BANDWIDTH, detail: `${ifindex} ${destination}` }],
      now: clock.now,
      ...over,
    },
    key,
  );
}

beforeEach(() => {
  tables = new FakeTables();
  clock = new FakeClock();
  events = new Events(
    { wantApproval: () => undefined, reset: () => undefined, peerName: () => undefined },
    quiet,
    clock.now,
  );
  [entry, zones, asked, failure, lookup] = [ctEntry(), [], [], undefined, true];
});

describe('a look', () => {
  test('at an admitted flow: its entry, conntrack in its zone, its peer, what excludes it', () => {
    tables.flows.set(key, flow());
    const one = trace();
    clock.seconds(1.5);
    expect(one.look()).toMatchObject({
      timeMs: 1500,
      nodeState: 'ready',
      flow: { sourceIp: key.saddr, admitted: true },
      conntrack: { reason: Reason.NONE, detail: 'replied, assured, mark 0x3' },
      peer: { nodeName: 'n2' },
      exclusions: [{ detail: `${key.ifindex} ${key.daddr}` }],
      events: [],
      eventsLost: 0,
    });
    expect(zones).toEqual([65520]);
  });

  test('at a refused one, at one that is neither, and at one that comes and goes', () => {
    const one = trace();
    expect(one.look().flow).toBeUndefined();
    tables.refusals.set(key, { until: 0n, backoff: 0n, packets: 7n, tries: 1, reason: Reason.CT_STATE });
    expect(one.look().flow).toMatchObject({ admitted: false, reason: Reason.CT_STATE, slowPackets: 7n });
    tables.flows.set(key, flow());
    expect(one.look().flow).toMatchObject({ admitted: true });
    tables.flows.delete(key);
    tables.refusals.delete(key);
    expect(one.look().flow).toBeUndefined();
  });

  test('a flow within the node has no peer', () => {
    tables.flows.set(key, flow({ flags: FlowFlag.LOCAL }));
    expect(trace().look()).not.toHaveProperty('peer');
    expect(asked).toEqual([]);
  });

  test("the peer of a flow to a Service is its endpoint's, which conntrack knows before there is a flow", () => {
    const reply = { ...reversed(ORIGIN), src: '10.10.3.9' };
    entry = ctEntry({ reply });
    trace().look();
    // And where the local pod answers, the other one is who began.
    entry = ctEntry({ origin: { ...reversed(ORIGIN), src: '10.10.4.4' }, reply: ORIGIN });
    trace().look();
    entry = undefined;
    trace().look();
    expect(asked).toEqual([
      ['10.10.3.9', 17],
      ['10.10.4.4', 17],
      [key.daddr, 17],
    ]);
  });

  test('conntrack: no entry, one that does not allow it, and one that cannot be asked for', () => {
    entry = undefined;
    expect(trace().look().conntrack).toEqual({ reason: Reason.CT_MISSING, detail: '' });
    entry = ctEntry({ mark: 0 });
    expect(trace().look().conntrack).toEqual({ reason: Reason.CT_NOT_ALLOWED, detail: 'replied, assured, mark 0x0' });
    failure = new Error('EINVAL');
    expect(trace().look()).not.toHaveProperty('conntrack');
  });

  test('a Service is judged as whoever admits would: the programs, or the sidecar', () => {
    entry = ctEntry({ status: ASSURED | CtStatus.dstNat, mark: 0x13 });
    expect(trace().look().conntrack?.reason).toBe(Reason.NONE);
    lookup = false;
    expect(trace().look().conntrack?.reason).toBe(Reason.CT_SERVICE);
  });

  test('what comes by the gateway counts where Antrea routes and the local pod answers', () => {
    entry = ctEntry({ origin: reversed(ORIGIN), reply: ORIGIN, mark: 2 });
    expect(trace().look().conntrack?.reason).toBe(Reason.CT_SOURCE);
    expect(trace({ isRouted: () => true }).look().conntrack?.reason).toBe(Reason.NONE);
    entry = ctEntry({ mark: 2 });
    expect(trace({ isRouted: () => true }).look().conntrack?.reason).toBe(Reason.CT_SOURCE);
  });
});

describe('events', () => {
  test('of this flow only, each told once, with its time', () => {
    const one = trace();
    clock.seconds(0.3);
    events.handle(event());
    events.handle(event({ flow: { ...key, sport: key.sport + 1 } }));
    events.handle(event({ flow: { ...key, ifindex: key.ifindex + 1 } }));
    expect(one.look().events).toEqual([{ name: 'demoted', reason: Reason.CT_MISSING, timeMs: 300 }]);
    expect(one.look().events).toEqual([]);
  });

  test('64 between two looks; more are counted', () => {
    const one = trace();
    for (let i = 0; i < 70; i++) events.handle(event());
    expect(one.look()).toMatchObject({ events: { length: 64 }, eventsLost: 6 });
    expect(one.look()).toMatchObject({ events: [], eventsLost: 0 });
  });

  test('none after the end', () => {
    const one = trace();
    one.close();
    events.handle(event());
    expect(one.look().events).toEqual([]);
  });
});

test('the key of echo messages has identifier and type for ports', () => {
  const echo = {
    sourceIp: 'a',
    destinationIp: 'b',
    sourcePort: 0,
    destinationPort: 0,
    protocol: 1,
    icmp: { id: 7, type: 8 },
  };
  expect(flowKeyOf(echo, 5)).toEqual({ saddr: 'a', daddr: 'b', sport: 7, dport: 8, ifindex: 5, proto: 1 });
});

test('an entry in words', () => {
  const tcp = ctEntry({ protocol: 6, tcpState: CtTcpState.finWait, status: CtStatus.seenReply, mark: 0x83 });
  expect(entryText(tcp)).toBe('FIN_WAIT, unconfirmed, replied, mark 0x83');
  const sctp = ctEntry({ protocol: 132, sctpState: CtSctpState.shutdownAckSent, status: ASSURED | CtStatus.dying });
  expect(entryText(sctp)).toBe('SHUTDOWN_ACK_SENT, replied, assured, dying, mark 0x3');
});
