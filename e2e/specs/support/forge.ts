/** Packets that no stack would send, by the raw tool: chosen addresses, ports and IP IDs. */
import type { Lab, Place } from '../../lab/lab.ts';

/** One kind of forged IPv4 packet. */
export interface Forgery {
  /** Default: the sending place's own. */
  readonly srcMac?: string;
  readonly dstMac: string;
  /** Default: the sending place's own. */
  readonly src?: string;
  readonly dst: string;
  /** Name or IP protocol number. */
  readonly proto: 'udp' | 'tcp' | 'icmp' | number;
  /** For ICMP the echo identifier. */
  readonly sport?: number;
  readonly dport?: number;
  /** First and last IP ID; default all 65,536. */
  readonly ids?: readonly [number, number];
  /** How often the whole range is sent. Default 1. */
  readonly repeat?: number;
  /** Transport payload; default none. */
  readonly payload?: string;
  /** Pads the payload with zeros to so many bytes. */
  readonly size?: number;
  /** Packets per second; default as fast as possible. */
  readonly rate?: number;
  /** Further options of `raw sweep`, e.g. `--no-df`, `--mf`, `--gso-size 1000`. */
  readonly options?: readonly string[];
  /** Past the qdisc layer and so past every tc egress program. */
  readonly bypass?: boolean;
  /** Device; default the place's own. */
  readonly device?: string;
}

/** Every IP ID with the marker bit. */
export const MARKED_IDS = [0x8000, 0xffff] as const;

/** All IDs with the marker bit but those that carry this key. */
export function markedIdsWithout(key: number): (readonly [number, number])[] {
  const [low, high] = [0x8000 | (key << 6), 0xc000 | (key << 6)];
  const ranges = [
    [0x8000, low - 1],
    [low + 64, high - 1],
    [high + 64, 0xffff],
  ] as const;
  return ranges.filter(([from, to]) => from <= to);
}

/** Sends the packets and says how many the kernel took. Throws a LabError if it refused one. */
export async function forge(lab: Lab, from: Place, forgery: Forgery): Promise<number> {
  const { ids = [0, 0xffff], proto } = forgery;
  const values: Record<string, string | number | undefined> = {
    '--dev': forgery.device ?? from.device,
    '--src-mac': forgery.srcMac ?? from.mac,
    '--dst-mac': forgery.dstMac,
    '--src': forgery.src ?? from.address,
    '--dst': forgery.dst,
    '--proto': proto,
    '--sport': forgery.sport,
    '--dport': forgery.dport,
    '--from': ids[0],
    '--to': ids[1],
    '--repeat': forgery.repeat,
    '--payload': forgery.payload === undefined ? undefined : Buffer.from(forgery.payload).toString('hex'),
    '--size': forgery.size,
    '--rate': forgery.rate,
  };
  const argv = [
    lab.tool('raw'),
    'sweep',
    ...Object.entries(values).flatMap(([name, value]) => (value === undefined ? [] : [name, String(value)])),
    ...(forgery.bypass === true ? ['--bypass'] : []),
    ...(forgery.options ?? []),
  ];
  const { stdout } = await from.exec(argv, { timeoutMs: 60_000 });
  return (JSON.parse(stdout) as { sent: number }).sent;
}

/** Sends whole Ethernet frames, each `repeat` times, and says how many the kernel took. */
export async function sendFrames(
  lab: Lab,
  from: Place,
  frames: readonly Buffer[],
  options: { readonly device?: string; readonly repeat?: number; readonly rate?: number } = {},
): Promise<number> {
  const argv = [
    ...[lab.tool('raw'), 'send', '--dev', options.device ?? from.device],
    ...(options.repeat === undefined ? [] : ['--repeat', String(options.repeat)]),
    ...(options.rate === undefined ? [] : ['--rate', String(options.rate)]),
  ];
  const input = frames.map((frame) => `${frame.toString('hex')}\n`).join('');
  const { stdout } = await from.exec(argv, { input, timeoutMs: 60_000 });
  return (JSON.parse(stdout) as { sent: number }).sent;
}
