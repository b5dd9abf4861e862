/** What happens in one simulated run, drawn from a seed: plain data, so that a failing one can be shrunk and printed. */

// Names of the module's own: a look-up in jest's global object costs more than all the rest.
const { imul, floor, ceil } = Math;

/** Uniform in [0, 1), the same sequence for the same seed (mulberry32). */
export type Random = () => number;

/** A seeded generator; different `stream`s of a seed are independent. */
export function randomOf(seed: number, stream: number): Random {
  let state = (imul(seed + 1, 0x9e3779b1) ^ imul(stream + 1, 0x85ebca6b)) | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let value = imul(state ^ (state >>> 15), state | 1);
    value ^= value + imul(value ^ (value >>> 7), value | 61);
    return ((value ^ (value >>> 14)) >>> 0) / 0x100000000;
  };
}

/** What the pods of a pair do. `gap` is the pause between requests, bursts or datagrams, in milliseconds. */
export interface Traffic {
  /** Request/response and bulk are TCP, the others UDP. */
  readonly kind: 'requests' | 'bulk' | 'sparse' | 'oneway' | 'both';
  readonly gap: number;
}

/** Two pods, the first on node 0 (it opens), the second on node 1. */
export interface Pair {
  /** Pairs with equal ports compete for the slot. */
  readonly ports: number;
  readonly traffic: Traffic;
  readonly start: number;
  /** Share of packets that are slow for a reason of their own. */
  readonly exceptions: number;
}

/** Something that goes wrong; times in milliseconds. */
export type Fault =
  | {
      readonly what: 'hole';
      readonly from: number;
      readonly at: number;
      readonly until: number;
      readonly control: boolean;
    }
  | { readonly what: 'flush'; readonly node: number; readonly at: number; readonly all: boolean }
  | { readonly what: 'forget'; readonly node: number; readonly pair: number; readonly at: number }
  | {
      readonly what: 'header';
      readonly from: number;
      readonly pair: number;
      readonly at: number;
      readonly header: number;
    }
  | {
      readonly what: 'reopen';
      readonly pair: number;
      readonly at: number;
      readonly pause: number;
      readonly reset: boolean;
    }
  | {
      readonly what: 'pause';
      readonly from: number;
      readonly pair: number;
      readonly at: number;
      readonly until: number;
    };

/** The network between the nodes; times in milliseconds. */
export interface Network {
  readonly slow: number;
  readonly fast: number;
  /** Each packet is late by up to this much. */
  readonly jitter: number;
  readonly loss: number;
  readonly duplicates: number;
}

/** One run. */
export interface Scenario {
  readonly seed: number;
  readonly network: Network;
  readonly pairs: readonly Pair[];
  readonly faults: readonly Fault[];
  /** Loss, duplicates and late packets end here, in milliseconds; the last fault may end later. */
  readonly calm: number;
}

function pick<T>(random: Random, of: readonly T[]): T {
  const value = of[floor(random() * of.length)];
  if (value === undefined) throw new Error('pick from an empty list');
  return value;
}

/** A run with everything that may go wrong. */
export function anything(seed: number): Scenario {
  const random = randomOf(seed, 0);
  const between = (low: number, high: number): number => low + random() * (high - low);
  const kinds = ['requests', 'requests', 'bulk', 'sparse', 'oneway', 'both'] as const;
  const pairs: Pair[] = [];
  const competing = random() < 0.3;
  const count = competing ? 2 : random() < 0.8 ? 1 : 2;
  for (let index = 0; index < count; index++) {
    const kind = pick(random, kinds);
    const gap = kind === 'sparse' ? between(2000, 40000) : pick(random, [20, 50, 100, 250]);
    pairs.push({
      ports: competing ? 0 : index,
      traffic: { kind, gap },
      start: between(0, 200),
      exceptions: random() < 0.2 ? between(0, 0.2) : 0,
    });
  }
  const sparse = pairs.some((pair) => pair.traffic.kind === 'sparse');
  const span = sparse ? 150000 : 12000;
  const faults: Fault[] = [];
  const times = random() < 0.15 ? 0 : ceil(between(0, 4));
  for (let index = 0; index < times; index++) {
    const at = between(0, span);
    const node = random() < 0.5 ? 0 : 1;
    const pair = floor(random() * pairs.length);
    const what = pick(random, [
      'hole',
      'hole',
      'flush',
      'flush',
      'forget',
      'header',
      'header',
      'reopen',
      'pause',
    ] as const);
    if (what === 'hole')
      faults.push({ what, from: node, at, until: at + between(100, 15000), control: random() < 0.2 });
    else if (what === 'flush') {
      faults.push({ what, node, at, all: random() < 0.3 });
      if (random() < 0.3) faults.push({ what, node: 1 - node, at: at + between(0, 50), all: false });
    } else if (what === 'forget') faults.push({ what, node, pair, at });
    else if (what === 'header') {
      faults.push({ what, from: node, pair, at, header: 2 });
      if (random() < 0.5) faults.push({ what, from: node, pair, at: at + between(10, 3000), header: 1 });
      if (random() < 0.5) faults.push({ what: 'flush', node, at: at + between(0, 1500), all: false });
    } else if (what === 'reopen') faults.push({ what, pair, at, pause: between(0, 2000), reset: random() < 0.5 });
    else faults.push({ what, from: node, pair, at, until: at + pick(random, [2000, 8000, 35000, 45000]) });
  }
  const rough = random();
  return {
    seed,
    network: {
      slow: between(0.5, 10),
      fast: between(0.1, 5),
      jitter: rough < 0.4 ? 0 : rough < 0.8 ? between(0, 10) : between(0, 300),
      loss: random() < 0.4 ? 0 : between(0, 0.2),
      duplicates: random() < 0.5 ? 0 : between(0, 0.1),
    },
    pairs,
    faults,
    calm: span,
  };
}

/** One flow, nothing goes wrong: how fast does it get fast? */
export function undisturbed(seed: number, kind: Traffic['kind']): Scenario {
  const random = randomOf(seed, 0);
  return {
    seed,
    network: { slow: 0.3 + random() * 10, fast: 0.1 + random() * 5, jitter: 0, loss: 0, duplicates: 0 },
    pairs: [{ ports: 0, traffic: { kind, gap: 1 + random() * 200 }, start: 0, exceptions: 0 }],
    faults: [],
    calm: 20000,
  };
}

/** A fast flow, and from 5 s on one direction of the fast path drops everything, for ever if `minutes` says nothing else. */
export function oneWayHole(seed: number, kind: Traffic['kind'], from: number, minutes: number, gap?: number): Scenario {
  const base = undisturbed(seed, kind);
  const pairs = base.pairs.map((pair) => ({ ...pair, traffic: { kind, gap: gap ?? pair.traffic.gap + 10 } }));
  const until = 5000 + minutes * 60000;
  return { ...base, pairs, faults: [{ what: 'hole', from, at: 5000, until, control: false }], calm: 5000 };
}

/** A fast flow of which one node, or both, forget everything at 5 s. */
export function flushed(seed: number, kind: Traffic['kind'], nodes: readonly number[]): Scenario {
  const base = undisturbed(seed, kind);
  return { ...base, faults: nodes.map((node) => ({ what: 'flush', node, at: 5000, all: false })), calm: 5000 };
}

/**
 * A node that has long heard nothing, because its peer's pods are silent and its own announcements are the only traffic:
 * flow 0 is fast and pauses for 45 s; on flow 1 only node 1 sends, each packet slow for a reason of its own, while for
 * 45 s nothing but the slow path gets through from node 0. Node 1 has lost its slots meanwhile, and flow 0 continues.
 */
export function longUnheard(seed: number): Scenario {
  const random = randomOf(seed, 0);
  const base = undisturbed(seed, 'both');
  const until = 50000 + random() * 2000;
  return {
    ...base,
    pairs: [
      { ports: 0, traffic: { kind: 'both', gap: 50 }, start: 0, exceptions: 0 },
      { ports: 1, traffic: { kind: 'both', gap: 200 }, start: 0, exceptions: 0.99 },
    ],
    faults: [
      { what: 'pause', from: 0, pair: 0, at: 5000, until },
      { what: 'pause', from: 1, pair: 0, at: 5000, until: until + 5000 },
      { what: 'pause', from: 0, pair: 1, at: 5000, until: until + 5000 },
      { what: 'hole', from: 0, at: 5000, until: until - random() * 1000, control: true },
      { what: 'flush', node: 1, at: 6000 + random() * 5000, all: false },
    ],
    calm: 5000,
  };
}
