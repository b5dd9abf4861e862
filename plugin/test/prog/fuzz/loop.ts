/** The fuzz loop: what is generated, run and judged for each program. */
import { CONTROL_MAGIC, MAGIC, PROGRAMS, type Node } from '../harness.ts';
import { generate } from './generate.ts';
import {
  judgePodEgress,
  judgePodIngress,
  judgeUplinkEgress,
  judgeUplinkIngress,
  judgeUplinkXdp,
  type Judged,
  type Run,
} from './oracle.ts';
import { Random } from './random.ts';
import { isSix, l4Of } from './view.ts';
import { MAX_FRAME, Runner, type SkbFields } from './runner.ts';
import type { Known, World } from './world.ts';

/** Peers are heard of again after so many packets, i.e. several times a second. */
const REFRESH = 1000;
const NO_CB = [0, 0, 0, 0];

/** What is fuzzed. */
export const FUZZED = [...PROGRAMS, 'uplink_xdp'] as const;
export type Fuzzed = (typeof FUZZED)[number];

interface Plan {
  readonly base: (known: Known, random: Random) => Buffer;
  readonly device: (node: Node, known: Known, random: Random) => number;
  readonly judge: (world: World, run: Run) => Judged;
  /** Runs before each packet, on what the programs know. */
  readonly prepare?: (world: World, runner: Runner, known: Known) => void;
  readonly decorate?: (skb: SkbFields, node: Node, known: Known, random: Random) => void;
}

/** The known connection's own device, mostly. */
function podDevice({ ifindex }: Node, known: Known, random: Random): number {
  const { pod, pod2, excluded, stranger } = ifindex;
  return random.chance(95) ? known.ifindex : random.pick([pod, pod2, excluded, stranger]);
}

const plans: Readonly<Record<Fuzzed, Plan>> = {
  pod_egress: { base: ({ sent }) => sent, device: podDevice, judge: judgePodEgress },
  pod_ingress: {
    base: ({ delivered, sent }, random) => (random.chance(95) ? delivered : sent),
    device: podDevice,
    judge: judgePodIngress,
  },
  uplink_ingress: {
    base: ({ masqueraded, arriving, tunnel, sent }, random) => {
      if (random.chance(5)) return sent;
      return random.chance(tunnel === undefined ? 5 : 95) ? arriving : masqueraded;
    },
    device: ({ ifindex }) => ifindex.uplink,
    judge: judgeUplinkIngress,
  },
  uplink_egress: {
    // What leaves has the addresses of both nodes, as what comes has.
    base: ({ masqueraded, leaving, sent }, random) => {
      if (random.chance(20)) return leaving;
      const frame = Buffer.from(random.chance(80) ? masqueraded : sent);
      const [at, bytes] = isSix(frame) ? [22, 16] : [26, 4];
      const ends = [frame.subarray(at + bytes, at + 2 * bytes), frame.subarray(at, at + bytes)];
      Buffer.concat(ends).copy(frame, at);
      return frame;
    },
    device: ({ ifindex }) => ifindex.uplink,
    judge: judgeUplinkEgress,
    decorate: (skb, { ifindex }, known, random) => {
      const ours = [...MAGIC];
      const probe = [(MAGIC[0] ^ 0xffff) >>> 0, MAGIC[1], MAGIC[2], MAGIC[3]];
      const ack = [~MAGIC[0] >>> 0, MAGIC[1], MAGIC[2], MAGIC[3]];
      const broken = ours.map((word, i) => (i === 2 ? (word ^ 1) >>> 0 : word));
      const others = [
        [MAGIC[0], 0, 0, 0],
        [7, MAGIC[1], MAGIC[2], MAGIC[3]],
      ];
      skb.cb = random.pick([NO_CB, NO_CB, ours, CONTROL_MAGIC, ack, probe, broken, ...others]);
      skb.ingressIfindex = random.pick([0, known.ifindex, known.ifindex, ifindex.excluded, ifindex.stranger, 1]);
    },
  },
  uplink_xdp: {
    base: ({ masqueraded, sent }, random) => (random.chance(95) ? masqueraded : sent),
    device: ({ ifindex }) => ifindex.uplink,
    judge: judgeUplinkXdp,
    // Restored is what uplink_ingress has restored another packet of within 100 ms.
    prepare: ({ bench }, runner, { masqueraded }) => {
      const skb = { ifindex: bench.node.ifindex.uplink, ingressIfindex: 0, cb: NO_CB, gsoSize: 0, gsoSegs: 0 };
      masqueraded.copy(runner.input);
      runner.run(bench.fd('uplink_ingress'), masqueraded.length, skb);
    },
  },
};

function runOf(runner: Runner, program: Fuzzed, fd: number, length: number, skb: SkbFields): boolean {
  return program === 'uplink_xdp' ? runner.runXdp(fd, length) : runner.run(fd, length, skb);
}

/** The longest frame that a test run takes. */
function longestFrame(runs: (length: number) => boolean): number {
  let [low, high] = [60, MAX_FRAME];
  while (low + 1 < high) {
    const middle = (low + high) >> 1;
    if (runs(middle)) low = middle;
    else high = middle;
  }
  return low;
}

/** What came of a fuzz run. */
export interface FuzzReport {
  /** Longest frame in bytes. */
  readonly longest: number;
  /** Packets by what the program returned; `refused` by the kernel before the program. */
  readonly verdicts: Readonly<Record<string, number>>;
  /** Packets that XDP has restored. */
  readonly restored: number;
  /** The first packet that was treated wrongly, and how to see it again. */
  readonly complaint: string | undefined;
}

/** Runs a program on `count` packets, or until one is treated wrongly. */
export function fuzz(world: World, program: Fuzzed, seed: number, count: number): FuzzReport {
  const { base, device, judge, prepare, decorate } = plans[program];
  const { node } = world.bench;
  const random = new Random(seed ^ Math.imul(FUZZED.indexOf(program), 0x9e3779b9));
  const runner = new Runner();
  const fd = world.bench.fd(program);
  const skb: SkbFields = { ifindex: node.ifindex.pod, ingressIfindex: 0, cb: NO_CB, gsoSize: 0, gsoSegs: 0 };
  const longest = longestFrame((length) => runOf(runner, program, fd, length, skb));
  const verdicts: Record<string, number> = {};
  let restored = 0;
  const input = Buffer.alloc(MAX_FRAME);
  for (let i = 0; i < count; i++) {
    if (i % REFRESH === 0) world.refresh();
    const known = random.pick(world.all);
    known.restore(known.sound && random.chance(15));
    skb.ifindex = device(node, known, random);
    skb.cb = NO_CB;
    skb.ingressIfindex = 0;
    const gso = program !== 'uplink_xdp' && random.chance(10);
    skb.gsoSize = gso ? 1 + random.below(random.pick([40, 1400])) : 0;
    skb.gsoSegs = gso ? random.pick([1, 2, 17, 63, 64, 65, 200, 65535]) : 0;
    decorate?.(skb, node, known, random);
    prepare?.(world, runner, known);
    const length = generate(random, runner.input, base(known, random), longest);
    if (!runOf(runner, program, fd, length, skb)) {
      verdicts['refused'] = (verdicts['refused'] ?? 0) + 1;
      continue;
    }
    runner.input.copy(input, 0, 0, length);
    const frame = { bytes: input, length, segments: gso ? skb.gsoSegs : 1 };
    const { complaint, touched } = judge(world, { input: frame, runner, skb });
    if (complaint !== undefined) {
      const hex = (bytes: Buffer, end: number): string => bytes.toString('hex', 0, Math.min(end, 120));
      const lines = [
        `${program}: ${complaint}`,
        `seed ${seed}, packet ${i}, returned ${runner.verdict}, skb ${JSON.stringify(skb)}`,
        `in  ${hex(input, length)} (${length} bytes)`,
        `out ${hex(runner.output, runner.length)} (${runner.length} bytes)`,
      ];
      return { longest, verdicts, restored, complaint: lines.join('\n') };
    }
    if (runner.metadata.length > 0) restored++;
    verdicts[runner.verdict] = (verdicts[runner.verdict] ?? 0) + 1;
    touched?.restore(false);
    // RST and SYN end the connection in conntrack, too.
    if (touched?.talk.kind === 'tcp' && (touched.tunnel !== undefined || ((input[l4Of(input) + 13] ?? 0) & 6) !== 0))
      touched.allow();
  }
  return { longest, verdicts, restored, complaint: undefined };
}
