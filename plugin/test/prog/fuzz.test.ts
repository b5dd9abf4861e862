/**
 * Broken packets in great number, judged by predicates that were written from the design and not from the C.
 * XMASQ_FUZZ_SEED repeats a run, XMASQ_FUZZ_COUNT sets the number of packets for each program (default 100,000).
 */
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { generate } from './fuzz/generate.ts';
import {
  judgePodEgress,
  judgePodIngress,
  judgeUplinkEgress,
  judgeUplinkIngress,
  type Judged,
  type Run,
} from './fuzz/oracle.ts';
import { fuzzSettings, Random } from './fuzz/random.ts';
import { MAX_FRAME, Runner, type SkbFields } from './fuzz/runner.ts';
import { World, type Known } from './fuzz/world.ts';
import { Bench, MAGIC, Node, type ProgramName } from './harness.ts';

const settings = fuzzSettings();
/** Peers are heard of again after so many packets, i.e. several times a second. */
const REFRESH = 1000;
const NO_CB = [0, 0, 0, 0];

let node: Node;
let bench: Bench;
let world: World;
const runner = new Runner();

beforeAll(async () => {
  console.log(`XMASQ_FUZZ_SEED=${settings.seed} XMASQ_FUZZ_COUNT=${settings.count}`);
  node = await Node.create();
  bench = new Bench(node);
  world = new World(bench);
});
afterAll(() => {
  bench.close();
  node.close();
});

/** The longest frame that a test run takes. */
function longestFrame(fd: number, skb: SkbFields): number {
  let [low, high] = [60, MAX_FRAME];
  while (low + 1 < high) {
    const middle = (low + high) >> 1;
    if (runner.run(fd, middle, skb)) low = middle;
    else high = middle;
  }
  return low;
}

interface Plan {
  readonly program: ProgramName;
  readonly base: (known: Known, random: Random) => Buffer;
  readonly device: (known: Known, random: Random) => number;
  readonly judge: (world: World, run: Run) => Judged;
  readonly decorate?: (skb: SkbFields, known: Known, random: Random) => void;
}

function fuzz(plan: Plan, salt: number): void {
  const random = new Random(settings.seed ^ salt);
  const fd = bench.fd(plan.program);
  const skb: SkbFields = { ifindex: node.ifindex.pod, ingressIfindex: 0, cb: NO_CB, gsoSize: 0, gsoSegs: 0 };
  const max = longestFrame(fd, skb);
  const verdicts: Record<string, number> = {};
  const input = Buffer.alloc(MAX_FRAME);
  for (let i = 0; i < settings.count; i++) {
    if (i % REFRESH === 0) world.refresh();
    const known = random.pick(world.all);
    known.restore(known.sound && random.chance(15));
    skb.ifindex = plan.device(known, random);
    skb.cb = NO_CB;
    skb.ingressIfindex = 0;
    const gso = random.chance(10);
    skb.gsoSize = gso ? 1 + random.below(1400) : 0;
    skb.gsoSegs = gso ? random.pick([1, 2, 17, 63, 64, 65, 200, 65535]) : 0;
    plan.decorate?.(skb, known, random);
    const length = generate(random, runner.input, plan.base(known, random), max);
    if (!runner.run(fd, length, skb)) {
      verdicts['refused'] = (verdicts['refused'] ?? 0) + 1;
      continue;
    }
    runner.input.copy(input, 0, 0, length);
    const { complaint, touched } = plan.judge(world, {
      input: { bytes: input, length, segments: gso ? skb.gsoSegs : 1 },
      runner,
      skb,
    });
    if (complaint !== undefined) {
      throw new Error(
        `${plan.program}: ${complaint}\nseed ${settings.seed}, packet ${i}, skb ${JSON.stringify(skb)}\n` +
          `in  ${input.toString('hex', 0, Math.min(length, 120))}\n` +
          `out ${runner.output.toString('hex', 0, Math.min(runner.length, 120))} (verdict ${runner.verdict})`,
      );
    }
    verdicts[runner.verdict] = (verdicts[runner.verdict] ?? 0) + 1;
    touched?.restore(false);
    // A RST ends the connection in conntrack, too.
    if (touched?.talk.kind === 'tcp' && (input[47] ?? 0) & 4) touched.allow();
  }
  console.log(`${plan.program}: frames up to ${max} bytes, verdicts ${JSON.stringify(verdicts)}`);
  // Deep paths were reached: not everything was thrown away at once.
  expect(verdicts['-1']).toBeGreaterThan(settings.count / 20);
}

/** The known connection's own device, mostly. */
function podDevice(known: Known, random: Random): number {
  const { pod, pod2, excluded, stranger } = node.ifindex;
  return random.chance(95) ? known.ifindex : random.pick([pod, pod2, excluded, stranger]);
}

const plans: readonly Plan[] = [
  { program: 'pod_egress', base: ({ sent }) => sent, device: podDevice, judge: judgePodEgress },
  {
    program: 'pod_ingress',
    base: ({ delivered, sent }, random) => (random.chance(95) ? delivered : sent),
    device: podDevice,
    judge: judgePodIngress,
  },
  {
    program: 'uplink_ingress',
    base: ({ masqueraded, sent }, random) => (random.chance(95) ? masqueraded : sent),
    device: () => node.ifindex.uplink,
    judge: judgeUplinkIngress,
  },
  {
    program: 'uplink_egress',
    // What leaves has the addresses of both nodes, as what comes has.
    base: ({ masqueraded, sent }, random) => {
      const frame = Buffer.from(random.chance(80) ? masqueraded : sent);
      const [src, dst] = [frame.readUInt32BE(26), frame.readUInt32BE(30)];
      frame.writeUInt32BE(dst, 26);
      frame.writeUInt32BE(src, 30);
      return frame;
    },
    device: () => node.ifindex.uplink,
    judge: judgeUplinkEgress,
    decorate: (skb, known, random) => {
      const ours = [...MAGIC];
      const ack = [~MAGIC[0] >>> 0, MAGIC[1], MAGIC[2], MAGIC[3]];
      const broken = ours.map((word, i) => (i === 2 ? (word ^ 1) >>> 0 : word));
      skb.cb = random.pick([
        NO_CB,
        NO_CB,
        ours,
        ours,
        ack,
        broken,
        [MAGIC[0], 0, 0, 0],
        [7, MAGIC[1], MAGIC[2], MAGIC[3]],
      ]);
      skb.ingressIfindex = random.pick([
        0,
        known.ifindex,
        known.ifindex,
        node.ifindex.excluded,
        node.ifindex.stranger,
        1,
      ]);
    },
  },
];

test.each(plans.map((plan, index) => [plan.program, plan, index] as const))(
  '%s',
  (_program, plan, index) => fuzz(plan, index * 0x9e3779b9),
  300_000,
);
