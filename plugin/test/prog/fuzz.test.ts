/**
 * Broken packets in great number, judged by predicates that were written from the design and not from the C.
 * XMASQ_FUZZ_SEED repeats a run, XMASQ_FUZZ_COUNT sets the number of packets for each program (default 100,000).
 */
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { FUZZED, fuzz } from './fuzz/loop.ts';
import { fuzzSettings } from './fuzz/random.ts';
import { World } from './fuzz/world.ts';
import { Bench, Node, Verdict } from './harness.ts';

const { seed, count } = fuzzSettings();
/** So many packets take a second on a busy machine. */
const PACKETS_PER_SECOND = 2000;

let node: Node;
let bench: Bench;
let world: World;

beforeAll(async () => {
  console.log(`XMASQ_FUZZ_SEED=${seed} XMASQ_FUZZ_COUNT=${count}`);
  node = await Node.create();
  bench = new Bench(node);
  world = new World(bench);
});
afterAll(() => {
  bench.close();
  node.close();
});

test.each(FUZZED)(
  '%s',
  (program) => {
    const { longest, verdicts, restored, complaint } = fuzz(world, program, seed, count);
    console.log(`${program}: frames up to ${longest} bytes, verdicts ${JSON.stringify(verdicts)}`);
    if (complaint !== undefined) throw new Error(complaint);
    // Not everything was thrown away at once: each way to go was gone often.
    const expected = {
      pod_egress: [Verdict.pass, Verdict.redirect],
      pod_ingress: [Verdict.pass],
      uplink_ingress: [Verdict.pass, Verdict.redirect, Verdict.drop],
      uplink_egress: [Verdict.pass, Verdict.drop],
      uplink_xdp: [],
    }[program];
    // Rejections are limited by time, and the rest dropped: on a slow machine these are fewer.
    for (const verdict of expected) expect(verdicts[verdict]).toBeGreaterThan(count / 50);
    if (program === 'uplink_xdp') expect(restored).toBeGreaterThan(count / 20);
  },
  60_000 + (count / PACKETS_PER_SECOND) * 1000,
);
