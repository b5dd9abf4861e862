/** Traffic of every kind between two pods whose packets the nodes encapsulate, and what left the uplinks meanwhile. */
import { expect } from '@jest/globals';
import type { Lab, Node, Pod } from '../../lab/lab.ts';
import { sleep } from '../../lab/lab.ts';
import { freshPort } from '../../lab/measure.ts';
import { IPPROTO } from '../../lab/packet.ts';
import type { CapturedPacket } from '../../lab/pcap.ts';
import { EMULATED, PATIENCE_MS, stretched } from '../../lab/scale.ts';
import type { Counters, LabSidecars } from '../../lab/sidecar.ts';
import { watchCounters } from './counters.ts';
import { rawInput, udpFrame } from './frames.ts';
import { waitCarried } from './modes.ts';
import { exchange, ping } from './traffic.ts';
import type { Traffic } from './traffic.ts';
import { comparable, innerFrame, tunnelled } from './tunnel.ts';
import type { WireFlow } from './wire.ts';

/** UDP is admitted once conntrack calls it assured: two seconds. */
export const FAST_SECONDS = EMULATED ? 12 : 4;
/** What emulation carries of several flows at once. */
const DATAGRAMS_PER_SECOND = EMULATED ? 20 : 200;
const BYTES_PER_SECOND = EMULATED ? 50_000 : 500_000;
const EXCHANGE_INTERVAL_US = EMULATED ? '50000' : '5000';

/** Traffic that lasts so long. */
export type Make = (seconds: number) => Traffic;

/** Packets that left an uplink in the tunnel while all of this traffic was fast, and the counters of both nodes meanwhile. */
export interface Sample {
  readonly out: readonly (readonly CapturedPacket[])[];
  readonly counters: readonly Counters[];
}

/** Traffic between two pods of the first two nodes. */
export class EncapTraffic {
  readonly #lab: Lab;
  readonly #a: Pod;
  readonly #b: Pod;
  #icmpId = 5000;

  private constructor(lab: Lab) {
    this.#lab = lab;
    this.#a = lab.node(0).pod(0);
    this.#b = lab.node(1).pod(0);
  }

  /** Of a lab's first pods. ECN is in use, and what a TCP server sends has the DSCP of what it is sent from the first packet on. */
  static async between(lab: Lab): Promise<EncapTraffic> {
    const traffic = new EncapTraffic(lab);
    const sysctls = 'echo 1 >/proc/sys/net/ipv4/tcp_ecn; echo 1 >/proc/sys/net/ipv4/tcp_reflect_tos';
    await Promise.all([traffic.#a, traffic.#b].map((pod) => pod.sh(sysctls)));
    await traffic.#a.exec(['ping', '-c', '1', '-w', '10', '-q', traffic.#b.address]);
    return traffic;
  }

  /** A flow of a new port. */
  fresh(proto: WireFlow['proto']): WireFlow {
    return { from: this.#a, to: this.#b, proto, port: freshPort() };
  }

  tcpSmall(tos = '0'): Make {
    return (seconds) => {
      const flow = this.fresh('tcp');
      const common = ['--tcp', '--port', String(flow.port), '--size', '100'];
      const client = [
        ...['--seconds', String(seconds), '--interval-us', EXCHANGE_INTERVAL_US],
        ...['--timeout-ms', PATIENCE_MS, '--json'],
      ];
      const run = async (): Promise<void> =>
        expect(await exchange(this.#lab, 'rr', flow, { common, client })).toMatchObject({ errors: 0, corrupt: 0 });
      return { name: `TCP, small, TOS ${tos}`, flow, run };
    };
  }

  tcpBulk(sendSize: number, tos: string): Make {
    return (seconds) => {
      const flow = this.fresh('tcp');
      const common = ['--tcp', '--port', String(flow.port)];
      const [size, rate] = [seconds * BYTES_PER_SECOND, BYTES_PER_SECOND].map(String);
      const client = [
        ...['--up', size ?? '', '--down', size ?? '', '--rate', rate ?? ''],
        ...['--send-size', String(sendSize), '--tos', tos],
      ];
      const run = async (): Promise<void> =>
        expect(await exchange(this.#lab, 'stream', flow, { common, client })).toMatchObject({
          ...{ complete: true, corrupt: 0, peerCorrupt: 0 },
        });
      return { name: `TCP, sends of ${sendSize} bytes, TOS ${tos}`, flow, run };
    };
  }

  udp(args: readonly string[], server: readonly string[] = []): Make {
    return (seconds) => {
      const flow = this.fresh('udp');
      const common = ['--udp', '--port', String(flow.port)];
      const client = ['--reply', '--rate', String(DATAGRAMS_PER_SECOND), '--seconds', String(seconds), ...args];
      const run = async (): Promise<void> =>
        expect(await exchange(this.#lab, 'stream', flow, { common, server, client })).toMatchObject({
          peer: { lost: 0, corrupt: 0 },
          echo: { lost: 0, corrupt: 0 },
        });
      return { name: `UDP ${args.join(' ')}`, flow, run };
    };
  }

  icmp(args: readonly string[]): Make {
    return (seconds) => {
      this.#icmpId += 1;
      const flow = { from: this.#a, to: this.#b, proto: 'icmp', port: this.#icmpId } as const;
      const count = Math.round(seconds * (EMULATED ? 9 : 45));
      const run = (): Promise<void> => ping(this.#a, this.#b, { id: flow.port, count, args });
      return { name: `ICMP ${args.join(' ')}`, flow, run };
    };
  }

  /** UDP whose packets raw frames can repeat: the client's port, too, is given. */
  udpOnPorts(sport: number, port: number): Make {
    return (seconds) => {
      const flow = { ...this.fresh('udp'), sport, port };
      const common = ['--udp', '--port', String(port)];
      const client = [
        ...['--seconds', String(seconds), '--interval-us', EXCHANGE_INTERVAL_US, '--timeout-ms', PATIENCE_MS],
        ...['--sport', String(sport), '--json'],
      ];
      const run = async (): Promise<void> => {
        await exchange(this.#lab, 'rr', flow, { common, client });
      };
      return { name: 'UDP, raw frames', flow, run };
    };
  }

  allSizes(): Make[] {
    const largest = String(this.#b.mtu - 28);
    return [
      this.tcpSmall(),
      this.tcpBulk(65536, '0xb8'),
      this.udp(['--size', '100']),
      this.udp(['--size', largest, '--df', 'do', '--tos', '0xa2']),
      this.udp(['--size', '333', '--df', 'dont', '--tos', '0x39'], ['--df', 'dont']),
      this.icmp(['-s', '56']),
      this.icmp(['-s', largest, '-M', 'do', '-Q', '0x40', '-t', '33']),
    ];
  }

  /** Packets of a UDP flow that no socket sends: every ECN, no checksum, no DF, with an ID. `hop`: MAC address of the next hop. */
  oddFrames(flow: WireFlow, hop: string): Buffer[] {
    const [a, b] = [this.#a, this.#b];
    const headers = [
      ...[0, 1, 2, 3].map((tos) => ({ tos })),
      { df: false, id: 77 },
      { id: 0x1234 },
      { checksum: false },
      { df: false, id: 9, checksum: false },
    ];
    return headers.flatMap((header, i) =>
      [0, 1, 99, b.mtu - 28].map((size) =>
        udpFrame({
          ...{ srcMac: a.mac, dstMac: hop, src: a.address, dst: b.address },
          ...{ sport: flow.sport ?? 0, dport: flow.port, payload: Buffer.alloc(size, `${i} ${size} odd `) },
          ...header,
        }),
      ),
    );
  }

  /** The client's pod sends these frames. */
  async sendFrames(frames: readonly Buffer[]): Promise<void> {
    const rate = EMULATED ? '100' : '1000';
    await this.#a.exec([this.#lab.tool('raw'), 'send', '--dev', this.#a.device, '--rate', rate], {
      input: rawInput(frames),
    });
  }

  /** Runs the traffic, and captures what leaves each node's uplink for a while once all of it is encapsulated by us. */
  async whileFast(
    sidecars: Pick<LabSidecars, 'nodes'>,
    makes: readonly Make[],
    meanwhile: (traffic: readonly Traffic[]) => Promise<void> = () => sleep(stretched(600)),
  ): Promise<Sample> {
    const traffic = makes.map((make) => make(FAST_SECONDS + (EMULATED ? 15 : 2)));
    const running = Promise.all(traffic.map((each) => each.run()));
    const sampling = (async () => {
      await Promise.all(
        traffic.map(({ flow: { proto, port } }) =>
          waitCarried(sidecars, { proto: IPPROTO[proto], port }, 'encap', 8000),
        ),
      );
      const watch = await watchCounters(sidecars);
      const places: readonly Node[] = sidecars.nodes.map(({ node }) => node);
      const captures = await Promise.all(
        places.map((node) => node.capture({ direction: 'out', filter: `udp dst port ${node.tunnel.port}` })),
      );
      await meanwhile(traffic);
      const results = await Promise.all(captures.map((capture) => capture.stop()));
      const counters = await watch.since();
      expect(results.map(({ dropped }) => dropped)).toEqual(places.map(() => 0));
      return { out: results.map(({ packets }) => packets), counters };
    })();
    const [sample] = await Promise.all([sampling, running]);
    return sample;
  }
}

/** Every kind of packet once: at most `limit` with different lengths, protocols, traffic classes. */
function diverse(packets: readonly CapturedPacket[], limit: number): CapturedPacket[] {
  const kinds = Map.groupBy(packets, ({ inner }) => [inner?.ip?.proto, inner?.ip?.length, inner?.ip?.tos].join());
  const each = Math.max(1, Math.floor(limit / kinds.size));
  return [...kinds.values()].flatMap((same) => same.slice(0, each)).slice(0, 3 * limit);
}

/** Each frame is what the tunnel makes of the same inner frame. Returns how many were compared. */
export async function expectSlowPathsOwn(node: Node, peer: Node, packets: readonly CapturedPacket[]): Promise<number> {
  const chosen = diverse(packets, 100).filter(({ wireLength }) => wireLength <= node.mtu + 14);
  const own = await tunnelled(node, peer, chosen.map(innerFrame));
  for (const frame of chosen) {
    const reference = own.get(innerFrame(frame));
    if (reference === undefined) throw new Error(`the tunnel has not sent ${innerFrame(frame)}`);
    expect(comparable(frame)).toBe(comparable(reference));
    expect([frame.ip?.checksumValid, frame.l4?.checksumValid]).toEqual([true, reference.l4?.checksumValid]);
  }
  return chosen.length;
}
