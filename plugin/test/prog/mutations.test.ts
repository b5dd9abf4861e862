/** Does a test fail when its guard is taken out? Each mutant is compiled and must break the rule that proves the guard. */
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { compileBpf, INSTRUMENTED } from './compile.ts';
import { fuzz, type Fuzzed } from './fuzz/loop.ts';
import { World } from './fuzz/world.ts';
import { Bench, FAMILIES, Node, PROGRAMS, ROOT } from './harness.ts';
import { instrumentedMutations, mutations, type Edit, type Mutation } from './mutations.ts';
import type { Family } from './packets.ts';
import type { Rule } from './rules/rule.ts';
import { apply, ruleOf } from './mutants.ts';

/** Compilations that run ahead of the tests. */
const AHEAD = 2;

/** How to compile an object. */
interface Build {
  readonly instruments: boolean;
  readonly families: readonly Family[];
  readonly edits: readonly Edit[];
}

/** Half of the programs compiles and loads in half of the time: those for the families that a rule needs. */
function withoutFamilies(families: readonly Family[]): Edit[] {
  const unused = FAMILIES.filter((family) => !families.includes(family));
  return unused.flatMap((family) =>
    PROGRAMS.map((program) => ({ file: `${program}.h`, search: `${program}${family}(skb, cfg)`, replace: 'PASS' })),
  );
}

function buildOf(mutation: Mutation, instruments: boolean): Build {
  return { instruments, families: ruleOf(mutation).families, edits: mutation.edits };
}

/** Copies the sources, changed. @throws Error where a searched text is not there exactly once */
function change(edits: readonly Edit[], target: string): void {
  cpSync(sources, target, { recursive: true });
  for (const edit of edits) {
    const path = join(target, edit.file);
    writeFileSync(path, apply(edit, readFileSync(path, 'utf8')));
  }
}

const all = [
  ...mutations.map((mutation) => ({ mutation, build: buildOf(mutation, false) })),
  ...instrumentedMutations.map((mutation) => ({ mutation, build: buildOf(mutation, true) })),
];

let directory: string;
/** A copy, so that all mutants are of one state of the sources. */
let sources: string;
let node: Node;
/** Without a mutation, by JSON of the build. */
const originals = new Map<string, Bench>();
/** Objects by JSON of the build: several rules may prove one guard. */
const objects = new Map<string, Promise<string>>();
let compilations = 0;

async function compile({ instruments, families, edits }: Build): Promise<string> {
  compilations += 1;
  const target = join(directory, String(compilations));
  change([...withoutFamilies(families), ...edits], target);
  const source = instruments ? INSTRUMENTED : join(target, 'xmasq.bpf.c');
  return compileBpf(source, join(target, 'mutant.bpf.o'), target);
}

function compiled(build: Build): Promise<string> {
  const key = JSON.stringify(build);
  const known = objects.get(key);
  if (known !== undefined) return known;
  const object = compile(build);
  // Whoever waits for it gets the error, too; whoever tries again, a compilation of its own.
  object.catch(() => objects.delete(key));
  objects.set(key, object);
  return object;
}

/** The object of an entry of `all`; compiles it, and begins with the next ones. */
function objectOf(index: number): Promise<string> | undefined {
  const [first] = all.slice(index, index + 1 + AHEAD).map(({ build }) => compiled(build));
  return first;
}

/** The programs with all of their guards, and nothing more than the build has. */
async function original(build: Build): Promise<Bench> {
  const key = JSON.stringify({ ...build, edits: [] });
  const bench = originals.get(key) ?? new Bench(node, await compiled({ ...build, edits: [] }));
  originals.set(key, bench);
  return bench;
}

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'xp-mutants-'));
  sources = join(directory, 'sources');
  cpSync(join(ROOT, 'bpf-src'), sources, { recursive: true });
  node = await Node.create();
});

afterAll(async () => {
  await Promise.allSettled(objects.values());
  for (const bench of originals.values()) bench.close();
  node.close();
  rmSync(directory, { recursive: true, force: true });
});

/** The judgement of a rule: undefined if it holds. Whatever is no judgement is thrown. */
function verdictOf(rule: Rule, bench: Bench): unknown {
  bench.reset();
  try {
    rule.check(bench);
    return undefined;
  } catch (error) {
    if (error instanceof Error && 'matcherResult' in error) return error;
    throw error;
  }
}

describe('without its guard the rule fails', () => {
  test.each(all.map(({ mutation }, index) => [mutation.guard, index] as const))('%s', async (_guard, index) => {
    const { mutation, build } = all[index] ?? {};
    if (mutation === undefined || build === undefined) throw new Error('not reached: the table has this entry');
    const object = objectOf(index);
    const rule = ruleOf(mutation);
    expect(verdictOf(rule, await original(build))).toBeUndefined();
    const mutant = new Bench(node, await object);
    try {
      expect(verdictOf(rule, mutant)).toBeInstanceOf(Error);
    } finally {
      mutant.close();
    }
  });
});

/** Guards whose absence the fuzz test must notice, too, and in which program. */
const FOUND_BY_FUZZING: readonly (readonly [guard: string, program: Fuzzed])[] = [
  ['fragments', 'pod_egress'],
  ['lengths', 'pod_egress'],
  ['IP options', 'pod_egress'],
  ['SYN', 'pod_egress'],
  ['64 segments', 'pod_egress'],
  ['SCTP control chunks', 'pod_egress'],
  ['the marker is cleared', 'pod_egress'],
  ['segments must not count into the marker', 'pod_egress'],
  ['TTL and DSCP are bound', 'pod_egress'],
  ['the sender’s MAC in a flow', 'pod_egress'],
  ['keys do not reach pods', 'pod_ingress'],
  ['only capable peers have keys', 'pod_ingress'],
  ['the slot’s key', 'uplink_ingress'],
  ['COMPLETE', 'uplink_ingress'],
  ['endpoint epoch at the restore', 'uplink_ingress'],
  ['DF is judged', 'uplink_ingress'],
  ['pkt_type is judged', 'uplink_ingress'],
  ['the destination is judged', 'uplink_ingress'],
  ['the node’s own marker', 'uplink_egress'],
  ['every kind has its magic', 'uplink_egress'],
  ['AH of the node', 'uplink_egress'],
  ['XDP: the key', 'uplink_xdp'],
  ['XDP: the marker', 'uplink_xdp'],
  ['XDP: SYN', 'uplink_xdp'],
  ['XDP: RST', 'uplink_xdp'],
  ['XDP: DF and fragments', 'uplink_xdp'],
  ['XDP: the node’s address', 'uplink_xdp'],
  ['XDP: the frame’s MAC address', 'uplink_xdp'],
  ['XDP: the length of TCP’s header', 'uplink_xdp'],
  ['XDP: ICMP codes', 'uplink_xdp'],
];
/** Packets within which it must be noticed, from a seed that does not change. */
const FUZZ = { seed: 1, count: 20_000 } as const;

describe('without its guard fuzzing finds a packet', () => {
  test.each(FOUND_BY_FUZZING)('%s (%s)', async (guard, program) => {
    const found = mutations.find((mutation) => mutation.guard === guard);
    if (found === undefined) throw new Error(`there is no guard "${guard}"`);
    // Its packets are of both families.
    const mutant = new Bench(node, await compiled({ ...buildOf(found, false), families: FAMILIES }));
    try {
      expect(fuzz(new World(mutant), program, FUZZ.seed, FUZZ.count).complaint).toMatch(/^\w+: /);
    } finally {
      mutant.close();
    }
  });
});
