/** Two nodes, the network between them, the pods' traffic, and the judge: one seeded run of the key exchange. */
import { Node, type PodPacket, type Rules, type Wire, type Counter } from './protocol.ts';
import { randomOf, type Scenario } from './scenarios.ts';

// Names of the module's own: a look-up in jest's global object costs more than all the rest.
const { max, min } = Math;

const MS = 1e6;
/** A run may take no more events: a loop in the model shall fail, not hang. */
const MAX_EVENTS = 2_000_000;
/** After the last fault: how long a flow may stay slow, in milliseconds. The longest pause is 64 s. */
const PATIENCE = 68_000;
/** Lines of trace kept. */
const MAX_TRACE = 200_000;

/** One direction of one pod pair. Times in milliseconds; -1: never. */
export interface DirectionStats {
  readonly pair: number;
  readonly from: number;
  packets: number;
  fast: number;
  slowBeforeFast: number;
  firstFastAt: number;
  /** Changes between fast and slow. */
  transitions: number;
  lastPath: 'slow' | 'fast' | undefined;
  /** Since when every packet has been fast (those slow for a reason of their own do not count). */
  fastSince: number;
  fastInRow: number;
  lastAt: number;
  /** The longest time in which no packet of those sent arrived, and since when that lasts. */
  longestOutage: number;
  pendingSince: number;
}

/** What one run showed. */
export interface Outcome {
  /** Broken properties, first one first; empty: all well. */
  readonly violations: readonly string[];
  readonly directions: readonly DirectionStats[];
  readonly counters: readonly Record<Counter, number>[];
  /** From the end of the last fault to both directions fast, milliseconds; undefined: not asked or not reached. */
  readonly recovery: number | undefined;
  /** The longest that a request or burst took, milliseconds. */
  readonly longestExchange: number;
  /** Fast packets lost though the network carried them. */
  readonly dropped: number;
  readonly events: number;
  readonly trace: readonly string[];
}

/** How to run it. */
export interface Options {
  readonly rules: Rules;
  readonly trace?: boolean;
  /** Stop here, milliseconds, instead of when all is fast or patience ends. */
  readonly until?: number;
}

interface Event {
  at: number;
  order: number;
  run: () => void;
}

class Schedule {
  now = 0;
  count = 0;
  private readonly heap: Event[] = [];
  private order = 0;

  at(time: number, run: () => void): void {
    const { heap } = this;
    const event = { at: max(time, this.now), order: this.order++, run };
    let index = heap.length;
    heap.push(event);
    while (index > 0) {
      const parent = (index - 1) >> 1;
      const above = heap[parent];
      if (above === undefined || !before(event, above)) break;
      heap[index] = above;
      index = parent;
    }
    heap[index] = event;
  }

  step(): boolean {
    const { heap } = this;
    const first = heap[0];
    const last = heap.pop();
    if (first === undefined || last === undefined) return false;
    if (heap.length > 0) {
      let index = 0;
      for (;;) {
        let child = 2 * index + 1;
        let below = heap[child];
        if (below === undefined) break;
        const other = heap[child + 1];
        if (other !== undefined && before(other, below)) {
          child++;
          below = other;
        }
        if (!before(below, last)) break;
        heap[index] = below;
        index = child;
      }
      heap[index] = last;
    }
    this.now = first.at;
    this.count++;
    first.run();
    return true;
  }
}

function before(left: Event, right: Event): boolean {
  return left.at < right.at || (left.at === right.at && left.order < right.order);
}

/** The two pods of a pair. Payload: exchange number * 8 + position; what the pods send back repeats it. */
interface App {
  connection: number;
  exchange: number;
  begun: number;
  pending: boolean;
  timer: number;
  header: [number, number];
  pausedUntil: [number, number];
  open: boolean;
}

const BURST = 6;

/** Runs one scenario. */
export function simulate(scenario: Scenario, options: Options): Outcome {
  const schedule = new Schedule();
  const network = randomOf(scenario.seed, 1);
  const traffic = randomOf(scenario.seed, 2);
  const violations: string[] = [];
  const trace: string[] = [];
  const tracing = options.trace === true;
  let dropped = 0;
  let longestExchange = 0;
  let packetId = 0;

  const ms = (): number => schedule.now / MS;
  const log = (line: string): void => {
    if (tracing && trace.length < MAX_TRACE) trace.push(`${ms().toFixed(3).padStart(11)} ${line}`);
  };
  const violate = (line: string): void => {
    log(`VIOLATION ${line}`);
    violations.push(`${ms().toFixed(1)} ms: ${line}`);
  };

  const tcp = (pair: number): boolean => {
    const kind = scenario.pairs[pair]?.traffic.kind;
    return kind === 'requests' || kind === 'bulk' || kind === 'sparse';
  };
  const nodes = [0, 1].map(
    (id) =>
      new Node(
        options.rules,
        (pair) => scenario.pairs[pair]?.ports ?? -1,
        tcp,
        randomOf(scenario.seed, 3 + id),
        (line) => log(`node ${id}: ${line}`),
      ),
  );
  const directions: DirectionStats[] = scenario.pairs.flatMap((_, pair) =>
    [0, 1].map((from) => ({
      pair,
      from,
      packets: 0,
      fast: 0,
      slowBeforeFast: 0,
      firstFastAt: -1,
      transitions: 0,
      lastPath: undefined,
      fastSince: -1,
      fastInRow: 0,
      lastAt: -1,
      longestOutage: 0,
      pendingSince: -1,
    })),
  );
  const apps: App[] = scenario.pairs.map(() => ({
    connection: 0,
    exchange: 0,
    begun: 0,
    pending: false,
    timer: 0,
    header: [1, 1],
    pausedUntil: [0, 0],
    open: false,
  }));
  const nodeOf = (id: number): Node => {
    const node = nodes[id];
    if (node === undefined) throw new Error(`no node ${id}`);
    return node;
  };
  const appOf = (pair: number): App => {
    const app = apps[pair];
    if (app === undefined) throw new Error(`no pair ${pair}`);
    return app;
  };

  const show = (wire: Wire): string => {
    if (wire.path === 'ctl')
      return `${wire.type} key ${wire.key}${wire.type === 'ack' ? ` held ${wire.held} ready ${wire.ready} sent ${wire.sent}` : ''}`;
    const { packet } = wire;
    const what = `pair ${packet.pair} ${packet.kind} #${packet.id} header ${packet.header}`;
    if (wire.path === 'fast') return `FAST key ${wire.key} ${what}`;
    const { announcement } = wire;
    const says =
      announcement === undefined ? '' : ` announcing key ${announcement.key} A=${announcement.ready ? 1 : 0}`;
    return `slow ${what}${says}`;
  };

  const transmit = (from: number, wire: Wire): void => {
    const calm = ms() >= scenario.calm;
    const { loss, jitter, duplicates } = scenario.network;
    if (!calm && network() < loss) {
      log(`${from} -> ${show(wire)} LOST`);
      return;
    }
    for (const fault of scenario.faults) {
      if (fault.what !== 'hole' || fault.from !== from || ms() < fault.at || ms() >= fault.until) continue;
      if (wire.path === 'fast' || (wire.path === 'ctl' && fault.control)) {
        log(`${from} -> ${show(wire)} BLACK HOLE`);
        return;
      }
    }
    log(`${from} -> ${show(wire)}`);
    const copies = !calm && network() < duplicates ? 2 : 1;
    const base = wire.path === 'slow' ? scenario.network.slow : scenario.network.fast;
    for (let copy = 0; copy < copies; copy++) {
      const late = calm ? 0 : network() * jitter;
      schedule.at(schedule.now + (base + late) * MS, () => arrive(1 - from, wire));
    }
  };

  const send = (from: number, pair: number, kind: PodPacket['kind'], payload: number): void => {
    const app = appOf(pair);
    const side = from === 0 ? 0 : 1;
    if (kind === 'data' && ms() < app.pausedUntil[side]) return;
    const share = scenario.pairs[pair]?.exceptions ?? 0;
    const exception = share > 0 && traffic() < share;
    const { connection } = app;
    const packet: PodPacket = { id: packetId++, pair, connection, header: app.header[side], kind, exception, payload };
    const wire = nodeOf(from).egress(schedule.now, packet);
    const stats = directions[pair * 2 + from];
    if (stats !== undefined && kind === 'data' && !exception)
      count(stats, wire.path === 'fast' ? 'fast' : 'slow', ms());
    if (stats !== undefined && !exception && stats.pendingSince < 0) stats.pendingSince = ms();
    transmit(from, wire);
  };
  const outage = (stats: DirectionStats | undefined): void => {
    if (stats === undefined || stats.pendingSince < 0) return;
    stats.longestOutage = max(stats.longestOutage, ms() - stats.pendingSince);
    stats.pendingSince = -1;
  };

  const arrive = (at: number, wire: Wire): void => {
    const node = nodeOf(at);
    if (wire.path === 'ctl') {
      node.control(schedule.now, wire);
      return;
    }
    const { packet } = wire;
    if (wire.path === 'slow') {
      for (const reply of node.ingressSlow(schedule.now, wire)) transmit(at, reply);
      receive(at, packet);
      return;
    }
    const { verdict, send: replies } = node.ingressFast(schedule.now, wire);
    if (verdict.what === 'deliver') {
      if (verdict.pair !== packet.pair)
        violate(`#${packet.id} of pair ${packet.pair} delivered to pair ${verdict.pair}`);
      else if (verdict.header !== packet.header)
        violate(`#${packet.id}: header ${packet.header} restored as ${verdict.header}`);
    } else if (verdict.what === 'stack') violate(`#${packet.id} passed to the stack of node ${at}`);
    else {
      dropped++;
      log(`node ${at}: dropped #${packet.id} (${verdict.why}): ${node.describe(schedule.now, packet.pair)}`);
    }
    for (const reply of replies) transmit(at, reply);
    if (verdict.what === 'deliver') receive(at, packet);
  };

  // --- the pods -------------------------------------------------------------------------------------------------------

  const kindOf = (pair: number): string => scenario.pairs[pair]?.traffic.kind ?? '';
  const gapOf = (pair: number): number => (scenario.pairs[pair]?.traffic.gap ?? 0) * (0.5 + traffic()) * MS;
  const rto = (tries: number): number => min(200 * 2 ** tries, 5000) * MS;

  const connect = (pair: number, tries: number): void => {
    const app = appOf(pair);
    const { connection } = app;
    send(0, pair, 'syn', 0);
    schedule.at(schedule.now + 1000 * 2 ** min(tries, 2) * MS, () => {
      if (!app.open && app.connection === connection) connect(pair, tries + 1);
    });
  };
  const exchange = (pair: number): void => {
    const app = appOf(pair);
    app.exchange++;
    app.pending = true;
    app.begun = schedule.now;
    const burst = kindOf(pair) === 'bulk' ? BURST : 1;
    for (let position = 0; position < burst; position++) send(0, pair, 'data', app.exchange * 8 + position);
    retry(pair, 0);
  };
  const retry = (pair: number, tries: number): void => {
    const app = appOf(pair);
    const timer = ++app.timer;
    schedule.at(schedule.now + rto(tries), () => {
      if (app.timer !== timer || !app.pending || !app.open) return;
      send(0, pair, 'data', app.exchange * 8 + (kindOf(pair) === 'bulk' ? BURST - 1 : 0));
      retry(pair, tries + 1);
    });
  };
  const receive = (at: number, packet: PodPacket): void => {
    const { pair, payload } = packet;
    if (!packet.exception) outage(directions[pair * 2 + 1 - at]);
    const app = appOf(pair);
    if (!tcp(pair) || packet.connection !== app.connection) return;
    if (packet.kind === 'syn') send(1, pair, 'synack', 0);
    else if (packet.kind === 'synack' && !app.open) {
      app.open = true;
      send(0, pair, 'data', 7);
      exchange(pair);
    } else if (packet.kind === 'data' && payload % 8 !== 7) {
      const position = payload % 8;
      const bulk = kindOf(pair) === 'bulk';
      if (at === 1 && (!bulk || position % 2 === 1)) send(1, pair, 'data', payload);
      if (at === 0 && app.pending && payload === app.exchange * 8 + (bulk ? BURST - 1 : 0)) {
        app.pending = false;
        if (ms() >= min(...app.pausedUntil)) longestExchange = max(longestExchange, ms() - app.begun / MS);
        if (!bulk) send(0, pair, 'data', 7);
        const { connection } = app;
        schedule.at(schedule.now + gapOf(pair), () => {
          if (app.open && app.connection === connection) exchange(pair);
        });
      }
    }
  };
  const datagrams = (from: number, pair: number): void => {
    send(from, pair, 'data', 7);
    schedule.at(schedule.now + gapOf(pair), () => datagrams(from, pair));
  };
  scenario.pairs.forEach((pair, index) => {
    schedule.at(pair.start * MS, () => {
      if (tcp(index)) {
        connect(index, 0);
        return;
      }
      datagrams(0, index);
      if (pair.traffic.kind === 'both') datagrams(1, index);
      // One-way traffic starts with a few datagrams from the other side, too.
      else
        for (let reply = 1; reply <= 4; reply++)
          schedule.at((pair.start + 100 * reply) * MS, () => send(1, index, 'data', 7));
    });
  });

  // --- faults ---------------------------------------------------------------------------------------------------------

  let faultsEnd = scenario.calm;
  for (const fault of scenario.faults) {
    faultsEnd = max(faultsEnd, 'until' in fault ? fault.until : fault.at);
    schedule.at(fault.at * MS, () => {
      if (fault.what === 'flush') nodeOf(fault.node).flush(schedule.now, fault.all);
      else if (fault.what === 'forget') {
        log(`node ${fault.node}: conntrack forgets pair ${fault.pair}`);
        nodeOf(fault.node).forget(schedule.now, fault.pair);
      } else if (fault.what === 'header') {
        log(`pair ${fault.pair}: the pod of node ${fault.from} changes its header to ${fault.header}`);
        appOf(fault.pair).header[fault.from === 0 ? 0 : 1] = fault.header;
      } else if (fault.what === 'pause') {
        log(`pair ${fault.pair}: the pod of node ${fault.from} falls silent`);
        const { pausedUntil } = appOf(fault.pair);
        const side = fault.from === 0 ? 0 : 1;
        pausedUntil[side] = max(pausedUntil[side], fault.until);
      } else if (fault.what === 'reopen' && tcp(fault.pair)) {
        const app = appOf(fault.pair);
        app.open = false;
        app.pending = false;
        send(0, fault.pair, fault.reset ? 'rst' : 'fin', 0);
        if (!fault.reset) send(1, fault.pair, 'fin', 0);
        schedule.at((fault.at + fault.pause) * MS, () => {
          app.connection++;
          app.open = false;
          app.pending = false;
          app.exchange += 2;
          connect(fault.pair, 0);
        });
      }
    });
  }

  // --- the judge ------------------------------------------------------------------------------------------------------

  const portsUsed = new Map<number, number>();
  for (const pair of scenario.pairs) portsUsed.set(pair.ports, (portsUsed.get(pair.ports) ?? 0) + 1);
  const flushes = scenario.faults.filter((fault) => fault.what === 'flush' || fault.what === 'forget').length;
  /** Directions that must become fast: alone on their ports, with traffic dense enough to say so. */
  const expected = directions.filter((each) => {
    const pair = scenario.pairs[each.pair];
    if (
      pair === undefined ||
      pair.traffic.kind === 'sparse' ||
      pair.exceptions > 0.5 ||
      portsUsed.get(pair.ports) !== 1
    )
      return false;
    // Nobody can announce for a pod that says nothing any more.
    const { loss, jitter } = scenario.network;
    const clean = flushes === 0 && scenario.faults.length === 0 && loss === 0 && jitter < 50;
    return pair.traffic.kind !== 'oneway' || (each.from === 0 && clean);
  });
  let recovery: number | undefined;
  let over = false;
  const end = options.until ?? faultsEnd + PATIENCE;
  while (schedule.step()) {
    if (schedule.count > MAX_EVENTS) throw new Error(`seed ${scenario.seed}: more than ${MAX_EVENTS} events`);
    if (violations.length > 0 || ms() > end) break;
    if (ms() > faultsEnd && expected.length > 0) {
      if (!over) {
        over = true;
        for (const each of expected) each.fastInRow = 0;
      }
      const all = expected.every((each) => each.fastInRow >= 3);
      if (!all) recovery = undefined;
      else recovery ??= max(0, max(...expected.map((each) => each.fastSince)) - faultsEnd);
    }
    if (options.until !== undefined) continue;
    // All is well for three more seconds, or nothing was asked and the faults are over.
    if (recovery !== undefined && ms() > faultsEnd + recovery + 3000) break;
    if (expected.length === 0 && ms() > faultsEnd + 3000) break;
  }
  if (violations.length === 0 && options.until === undefined) {
    for (const each of expected) {
      if (each.fastInRow >= 3) continue;
      violate(
        `pair ${each.pair} from node ${each.from} is not fast ${PATIENCE / 1000} s after the last fault; ` +
          `node ${each.from}: ${nodeOf(each.from).describe(schedule.now, each.pair)}; ` +
          `node ${1 - each.from}: ${nodeOf(1 - each.from).describe(schedule.now, each.pair)}`,
      );
    }
  }
  directions.forEach(outage);
  const counters = nodes.map((node) => node.counters);
  return { violations, directions, counters, recovery, longestExchange, dropped, events: schedule.count, trace };
}

function count(stats: DirectionStats, path: 'slow' | 'fast', now: number): void {
  stats.packets++;
  if (path === 'fast') {
    stats.fast++;
    stats.fastInRow++;
    if (stats.firstFastAt < 0) stats.firstFastAt = now;
    if (stats.lastPath !== 'fast') stats.fastSince = now;
  } else {
    stats.fastInRow = 0;
    if (stats.firstFastAt < 0) stats.slowBeforeFast++;
  }
  if (stats.lastPath !== undefined && stats.lastPath !== path) stats.transitions++;
  stats.lastPath = path;
  stats.lastAt = now;
}

/** A smaller scenario that breaks the same kind of property: faults and network trouble are taken away one by one. */
export function shrink(scenario: Scenario, options: Options): Scenario {
  const kind = (outcome: Outcome): string => (outcome.violations[0] ?? '').replace(/^[^:]*: /, '').replace(/\d+/g, 'n');
  const fails = kind(simulate(scenario, options));
  let best = scenario;
  for (let again = true; again;) {
    again = false;
    const calmer = (network: Partial<Scenario['network']>): Scenario => ({
      ...best,
      network: { ...best.network, ...network },
    });
    const candidates: Scenario[] = [
      ...best.faults.map((_, index) => ({ ...best, faults: best.faults.filter((__, other) => other !== index) })),
      ...(best.network.loss > 0 ? [calmer({ loss: 0 })] : []),
      ...(best.network.jitter > 0 ? [calmer({ jitter: 0 })] : []),
      ...(best.network.duplicates > 0 ? [calmer({ duplicates: 0 })] : []),
      ...(best.pairs.some((pair) => pair.exceptions > 0)
        ? [{ ...best, pairs: best.pairs.map((pair) => ({ ...pair, exceptions: 0 })) }]
        : []),
      ...(best.calm > 1000 ? [{ ...best, calm: best.calm / 2 }] : []),
    ];
    for (const candidate of candidates) {
      if (fails === '' || kind(simulate(candidate, options)) !== fails) continue;
      best = candidate;
      again = true;
      break;
    }
  }
  return best;
}
