/** Traffic between two pods that is checked at its ends, and what the captures of one run of it say. */
import { addressOf } from '../../lab/lab.ts';
import type { Family, Lab, Pod } from '../../lab/lab.ts';
import { withServer } from '../../lab/measure.ts';
import { EMULATED, groups } from '../../lab/scale.ts';
import type { CaptureResult } from '../../lab/pcap.ts';
import { delivery } from './delivery.ts';
import type { Delivery } from './delivery.ts';
import { crossings } from './wire.ts';
import type { Crossing, WireFlow } from './wire.ts';

/** Bytes that hold all headers of a packet in the tunnel. */
const HEADERS = 192;
/** Flows at the same time under emulation, which loses packets of more on either path. */
const TOGETHER = 3;

/** Traffic of one flow. `run` throws if anything was lost or corrupted. */
export interface Traffic {
  readonly name: string;
  readonly flow: WireFlow;
  run(): Promise<void>;
}

/** What happened to one flow. */
export interface Observation {
  readonly name: string;
  readonly flow: WireFlow;
  readonly forward: Delivery;
  readonly backward: Delivery;
  readonly crossings: readonly Crossing[];
}

/** Captures at pods and uplinks around some traffic. */
export interface Captured {
  readonly atPod: ReadonlyMap<Pod, CaptureResult>;
  /** On the uplink of the first node. */
  readonly uplink: CaptureResult;
}

/**
 * Captures at these pods and at the first node's uplink while `use` runs; without pods only headers. Throws if a capture
 * lost packets.
 */
export async function captured(lab: Lab, pods: readonly Pod[], use: () => Promise<unknown>): Promise<Captured> {
  const places = [lab.node(0), ...pods];
  const options = pods.length === 0 ? { snapLength: HEADERS } : {};
  const captures = await Promise.all(places.map((place) => place.capture(options)));
  let results: CaptureResult[] = [];
  try {
    await use();
  } finally {
    results = await Promise.all(captures.map((capture) => capture.stop()));
  }
  results.forEach(({ dropped }, i) => {
    if (dropped > 0) throw new Error(`the capture at ${places[i]?.name ?? ''} lost ${dropped} packets`);
  });
  const [uplink, ...rest] = results;
  if (uplink === undefined) throw new Error('no capture of the uplink');
  return { uplink, atPod: new Map(pods.map((pod, i) => [pod, rest[i] ?? { packets: [], dropped: 0 }])) };
}

/** Runs all traffic, as much as the machine bears at once; throws as its first flow that throws. */
export async function together(traffic: readonly Traffic[]): Promise<void> {
  for (const some of groups(traffic, TOGETHER)) await Promise.all(some.map((each) => each.run()));
}

/** Runs all traffic and compares what the pods sent with what they received. */
export async function observe(lab: Lab, traffic: readonly Traffic[]): Promise<Map<string, Observation>> {
  const pods = [...new Set(traffic.flatMap(({ flow }) => [flow.from, flow.to]))];
  const { atPod, uplink } = await captured(lab, pods, () => together(traffic));
  const at = (pod: Pod): CaptureResult => atPod.get(pod) ?? { packets: [], dropped: 0 };
  return new Map(
    traffic.map(({ name, flow }) => {
      const { from, to, proto, port, family = 'ipv4' } = flow;
      return [
        name,
        {
          name,
          flow,
          forward: delivery(at(from), at(to), { from, to, proto, port, family }),
          backward: delivery(at(to), at(from), { from: to, to: from, proto, port, family }),
          crossings: crossings(uplink, flow),
        },
      ];
    }),
  );
}

/** Runs a client against a server tool and returns the client's JSON report; throws on a non-zero exit code, if checked. */
export async function exchange(
  lab: Lab,
  tool: 'rr' | 'stream' | 'sctp',
  { from, to, family = 'ipv4' }: { readonly from: Pod; readonly to: Pod; readonly family?: Family },
  args: {
    readonly common: readonly string[];
    readonly server?: readonly string[];
    readonly client?: readonly string[];
  },
  check = true,
): Promise<Record<string, unknown>> {
  const path = lab.tool(tool);
  const [here, there] = [addressOf(from, family), addressOf(to, family)];
  const server = [path, 'server', ...args.common, '--bind', there, ...(args.server ?? [])];
  return withServer(to, server, async () => {
    const client = [path, 'client', ...args.common, '--to', there, '--bind', here, ...(args.client ?? [])];
    const { stdout } = await from.exec(client, { timeoutMs: 60_000, check });
    const line = stdout.split('\n').findLast((candidate) => candidate.startsWith('{'));
    return JSON.parse(line ?? '{}') as Record<string, unknown>;
  });
}

/** Pings, some 45 times a second (under emulation less often); throws if more requests than `lost` (default 0) were not answered. */
export async function ping(
  from: Pod,
  to: Pod,
  options: {
    readonly id: number;
    readonly count: number;
    readonly args?: readonly string[];
    readonly lost?: number;
    readonly family?: Family;
  },
): Promise<void> {
  const { id, count, args = [], lost = 0, family = 'ipv4' } = options;
  const argv = [
    'ping',
    '-n',
    '-q',
    '-e',
    String(id),
    '-c',
    String(count),
    '-i',
    EMULATED ? '0.1' : '0.02',
    '-W',
    '2',
    ...args,
  ];
  const { stdout } = await from.exec([...argv, addressOf(to, family)], {
    timeoutMs: count * 40 + 20_000,
    check: false,
  });
  const received = Number(/ (\d+) received/.exec(stdout)?.[1] ?? 0);
  if (received < count - lost) throw new Error(`ping ${from.name} > ${to.name}: ${stdout}`);
}

/** MAC address that frames of this pod to that one carry. */
export async function nextHopMac(from: Pod, to: Pod): Promise<string> {
  const hop = from.node === to.node ? to.address : from.node.gateway;
  await from.exec(['ping', '-c1', '-W1', '-q', to.address], { check: false });
  const { stdout } = await from.exec(['ip', '-j', 'neigh', 'show', hop]);
  const [entry] = JSON.parse(stdout) as { lladdr?: string }[];
  if (entry?.lladdr === undefined) throw new Error(`${from.name} has no neighbour ${hop}`);
  return entry.lladdr;
}
