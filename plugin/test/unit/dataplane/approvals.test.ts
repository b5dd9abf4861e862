import { beforeEach, describe, expect, test } from '@jest/globals';
import { BpfError } from '../../../src/bpf/errors.ts';
import { Approvals, pauseAfter, timeoutName } from '../../../src/dataplane/approvals.ts';
import { Degradations } from '../../../src/dataplane/degradations.ts';
import { slotKeyOf, tupleOf } from '../../../src/dataplane/flow-key.ts';
import { SlotState, type FlowKey } from '../../../src/dataplane/layout.ts';
import { CtStatus, type CtEntry, type CtTuple } from '../../../src/netlink/ctnetlink.ts';
import { NetlinkError } from '../../../src/netlink/errors.ts';
import { FakeClock, FakeTables, flow, key, quiet, reversed, slot } from './fakes.ts';

const LEASE = 5_000_000_000n;
const slotKey = slotKeyOf(flow());

class FakeConntrack {
  entry: CtEntry | undefined;
  error: Error | undefined;
  gets = 0;
  timeouts: number[] = [];
  deleted: (number | undefined)[] = [];
  /** Of the last request. */
  zone: number | undefined;
  get(_tuple: CtTuple, zone: number): CtEntry | undefined {
    this.gets++;
    this.zone = zone;
    if (this.error !== undefined) throw this.error;
    return this.entry;
  }
  setTimeout(_tuple: CtTuple, _zone: number, seconds: number): boolean {
    this.timeouts.push(seconds);
    return true;
  }
  delete(_tuple: CtTuple, _zone: number, id?: number): boolean {
    this.deleted.push(id);
    return true;
  }
}

let tables: FakeTables;
let conntrack: FakeConntrack;
let clock: FakeClock;
let degradations: Degradations;

function entry(over: Partial<CtEntry> = {}): CtEntry {
  const origin = tupleOf(key);
  return {
    origin,
    reply: reversed(origin),
    protocol: key.proto,
    zone: 65520,
    status: CtStatus.confirmed | CtStatus.seenReply | CtStatus.assured,
    mark: 3,
    timeoutSeconds: 100,
    id: 77,
    ...over,
  };
}

let routed: boolean;

function make(): Approvals {
  return new Approvals({
    tables,
    conntrack,
    zones: { 4: 65520, 6: 65510 },
    isRouted: (address) => routed && address === key.daddr,
    timeout: () => 120,
    leaseNs: LEASE,
    deviceOf: (address) => (address === key.saddr ? key.ifindex : undefined),
    degradations,
    log: quiet,
    now: clock.now,
  });
}

/** An admitted flow with its slot, last used now. */
function admit(): void {
  tables.flows.set(key, flow({ lastTx: clock.time, admittedAt: clock.time }));
  tables.slots.set(slotKey, slot());
}

beforeEach(() => {
  routed = false;
  tables = new FakeTables();
  conntrack = new FakeConntrack();
  clock = new FakeClock();
  degradations = new Degradations(quiet);
});

describe('wanted flows', () => {
  test.each([
    ['10.10.2.2', 65520],
    ['fd00:2::2', 65510],
  ])('each family has its zone: %s', (daddr, zone) => {
    const saddr = daddr.includes(':') ? 'fd00:1::2' : key.saddr;
    const echo = { ...key, saddr, daddr, proto: daddr.includes(':') ? 58 : 1, sport: 7, dport: 128 };
    conntrack.entry = entry({ origin: tupleOf(echo), reply: tupleOf(echo), protocol: echo.proto });
    make().want(echo);
    expect(tables.approvals.get(echo)).toBeDefined();
    expect(conntrack.zone).toBe(zone);
  });

  test('what came by the gateway is approved where Antrea routes, and only as the answer', () => {
    conntrack.entry = entry({ origin: reversed(tupleOf(key)), reply: tupleOf(key), mark: 2 });
    make().want(key);
    expect(tables.approvals.size).toBe(0);
    routed = true;
    make().want(key);
    expect(tables.approvals.size).toBe(1);
    tables.approvals.delete(key);
    conntrack.entry = entry({ mark: 2 });
    make().want(key);
    expect(tables.approvals.size).toBe(0);
  });

  test('one that conntrack allows is approved at once, and its refusal forgotten', () => {
    conntrack.entry = entry();
    tables.refusals.set(key, { until: 1n, backoff: 1n, packets: 1n, tries: 4, reason: 0 });
    make().want(key);
    expect(tables.approvals.get(key)).toEqual({ expires: clock.time + LEASE });
    expect(tables.refusals.size).toBe(0);
  });

  test('one that is not allowed yet is looked at again, and approved within 2 s of its reply', () => {
    const approvals = make();
    conntrack.entry = entry({ status: CtStatus.confirmed });
    approvals.want(key);
    for (let ms = 0; ms < 10_000; ms += 50) {
      clock.seconds(0.05);
      approvals.tick();
    }
    expect(tables.approvals.size).toBe(0);
    conntrack.entry = entry();
    for (let ms = 0; ms < 1_050; ms += 50) {
      clock.seconds(0.05);
      approvals.tick();
    }
    expect(tables.approvals.size).toBe(1);
    expect(approvals.sizes).toEqual({ granted: 1, wanted: 0 });
  });

  test('patience ends after 30 s; a further packet begins anew', () => {
    const approvals = make();
    approvals.want(key);
    for (let second = 0; second < 40; second++) {
      clock.seconds(1);
      approvals.tick();
    }
    expect(approvals.sizes.wanted).toBe(0);
    expect(conntrack.gets).toBeLessThan(45);
    approvals.want(key);
    expect(approvals.sizes.wanted).toBe(1);
  });

  test('answers that stay are not asked for again', () => {
    const approvals = make();
    conntrack.entry = entry({ mark: 0x83 });
    approvals.want(key);
    expect(approvals.sizes.wanted).toBe(0);
  });

  test('the table is bounded, and so are the looks of one tick', () => {
    const approvals = make();
    for (let port = 0; port < 5000; port++) approvals.want({ ...key, sport: port });
    expect(approvals.sizes.wanted).toBe(4096);
    expect(approvals.counts.lost).toBe(904);
    clock.seconds(1);
    conntrack.gets = 0;
    approvals.tick();
    expect(conntrack.gets).toBe(500);
  });

  test('the pauses grow to a second', () => {
    expect([1, 2, 3, 4, 5, 6, 7, 100].map((looks) => Number(pauseAfter(looks) / 1_000_000n))).toEqual([
      50, 100, 200, 400, 800, 1000, 1000, 1000,
    ]);
  });

  test('trouble with ctnetlink is told; a tuple that it does not know is not', () => {
    const approvals = make();
    conntrack.error = new NetlinkError(22, 'get');
    approvals.want(key);
    expect(degradations.size).toBe(0);
    conntrack.error = new NetlinkError(1, 'get');
    approvals.want(key);
    expect(degradations.list()[0]?.what).toMatch(/^conntrack cannot be read or steered: .*EPERM/);
  });

  test('no room for approvals is told, until there is some', () => {
    const approvals = make();
    conntrack.entry = entry();
    const set = tables.approvals.set.bind(tables.approvals);
    tables.approvals.set = () => {
      throw new BpfError('update', 7);
    };
    approvals.want(key);
    expect(degradations.list()[0]?.what).toMatch(/^there is no room for more approvals/);
    expect(tables.approvals.size).toBe(0);
    tables.approvals.set = set;
    approvals.want({ ...key, sport: key.sport + 1 });
    expect([degradations.size, tables.approvals.size]).toEqual([0, 1]);
  });

  test('renewals that take more than half a lease are told', async () => {
    const approvals = make();
    conntrack.entry = entry();
    approvals.want(key);
    const get = conntrack.get.bind(conntrack);
    conntrack.get = (tuple, zone) => {
      clock.seconds(3);
      return get(tuple, zone);
    };
    clock.seconds(1);
    admit();
    await approvals.renew();
    expect(degradations.list()[0]?.what).toBe('renewing 1 approvals takes 3000 ms, more than half their lease');
    conntrack.get = get;
    await approvals.renew();
    expect(degradations.size).toBe(0);
  });

  test('every protocol has its own timeout', () => {
    expect([6, 17, 1, 132, 47].map(timeoutName)).toEqual([
      'tcpEstablished',
      'udpStream',
      'icmp',
      'sctpEstablished',
      'generic',
    ]);
  });
});

describe('approved flows', () => {
  function granted(): Approvals {
    conntrack.entry = entry();
    const approvals = make();
    approvals.want(key);
    admit();
    return approvals;
  }

  test('a used one keeps its approval and its conntrack entry', async () => {
    const approvals = granted();
    for (let second = 0; second < 20; second++) {
      clock.seconds(1);
      tables.flows.set(key, flow({ lastTx: clock.time }));
      await approvals.renew();
      expect(tables.approvals.get(key)?.expires).toBe(clock.time + LEASE);
    }
    expect(conntrack.timeouts).toEqual(Array.from({ length: 20 }, () => 120));
  });

  test('receiving is use, too', async () => {
    const approvals = granted();
    clock.seconds(1);
    tables.slots.set(slotKey, slot({ lastRx: clock.time }));
    await approvals.renew();
    expect(conntrack.timeouts).toEqual([120]);
  });

  test('a timeout is never shortened', async () => {
    const approvals = granted();
    conntrack.entry = entry({ timeoutSeconds: 500 });
    clock.seconds(1);
    tables.flows.set(key, flow({ lastTx: clock.time }));
    await approvals.renew();
    expect(conntrack.timeouts).toEqual([]);
  });

  test('an idle one keeps its approval, but conntrack is left to expire', async () => {
    const approvals = granted();
    for (let second = 0; second < 20; second++) {
      clock.seconds(1);
      await approvals.renew();
      expect((tables.approvals.get(key)?.expires ?? 0n) > clock.time).toBe(true);
    }
    expect(conntrack.timeouts).toEqual([]);
    conntrack.entry = undefined;
    clock.seconds(3);
    await approvals.renew();
    expect(tables.approvals.size + tables.flows.size).toBe(0);
    expect(tables.slots.get(slotKey)?.state).toBe(SlotState.TOMBSTONE);
  });

  test('one whose packets are further apart than the lease finds its approval, for half a minute', async () => {
    const approvals = granted();
    tables.flows.delete(key);
    for (let second = 0; second < 30; second++) {
      clock.seconds(1);
      await approvals.renew();
      expect((tables.approvals.get(key)?.expires ?? 0n) > clock.time).toBe(true);
    }
    expect(conntrack.timeouts).toEqual([]);
    clock.seconds(1);
    await approvals.renew();
    expect([tables.approvals.size, approvals.sizes.granted]).toEqual([0, 0]);
  });

  test('one that is closed before it comes back loses its approval', async () => {
    const approvals = granted();
    tables.flows.delete(key);
    conntrack.entry = entry({ mark: 0 });
    clock.seconds(3);
    await approvals.renew();
    expect(tables.approvals.size).toBe(0);
    expect(approvals.counts.revoked).toBe(0);
  });

  test('a new start goes on with what is there', async () => {
    granted();
    const approvals = make();
    expect(approvals.sizes.granted).toBe(1);
    clock.seconds(1);
    await approvals.renew();
    expect(tables.approvals.get(key)?.expires).toBe(clock.time + LEASE);
  });

  test('the end of the connection ends the flow, whichever side began it', () => {
    for (const swapped of [false, true]) {
      const approvals = granted();
      conntrack.entry = undefined;
      const gone = entry();
      approvals.destroyed(swapped ? { ...gone, origin: gone.reply, reply: gone.origin } : gone);
      expect(tables.approvals.size + tables.flows.size).toBe(0);
      expect(tables.slots.get(slotKey)).toMatchObject({ state: SlotState.TOMBSTONE, freedAt: clock.time, key: 2 });
    }
  });

  test('the end of an earlier connection does not end the one that took its place', () => {
    const approvals = granted();
    approvals.destroyed(entry({ id: 76 }));
    expect(tables.flows.size).toBe(1);
    expect(tables.approvals.size).toBe(1);
  });

  test('flows without an approval end with their connection, too', () => {
    admit();
    make().destroyed(entry());
    expect(tables.flows.size).toBe(0);
  });

  test('ends of other connections cost nothing', () => {
    const approvals = granted();
    conntrack.gets = 0;
    const other: FlowKey = { ...key, sport: 9 };
    approvals.destroyed(entry({ origin: tupleOf(other), reply: reversed(tupleOf(other)) }));
    expect(conntrack.gets).toBe(0);
  });

  test('after a RST the conntrack entry goes, that very one', () => {
    const approvals = granted();
    approvals.reset(key);
    expect(conntrack.deleted).toEqual([77]);
    expect(tables.approvals.size).toBe(0);
  });

  test('a RST does not remove an entry that the predicate does not pass', () => {
    const approvals = granted();
    conntrack.entry = entry({ mark: 0x22 });
    approvals.reset(key);
    expect(conntrack.deleted).toEqual([]);
  });
});
