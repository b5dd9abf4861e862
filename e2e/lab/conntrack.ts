/** Conntrack entries as `conntrack -L -o id,extended` prints them, and the filters to ask for them. */
import type { Family } from './lab.ts';
import { familyOf } from './lab.ts';

/** One direction of a connection. */
export interface ConntrackTuple {
  readonly src: string;
  readonly dst: string;
  /** Ports; for ICMP echo the identifier in both. Undefined for protocols without. */
  readonly sport: number | undefined;
  readonly dport: number | undefined;
  /** Counters, undefined without nf_conntrack_acct. */
  readonly packets: number | undefined;
  readonly bytes: number | undefined;
}

export interface ConntrackEntry {
  readonly id: number;
  readonly zone: number;
  /** Name as conntrack prints it: tcp, udp, icmp, icmpv6, sctp, unknown, ... */
  readonly proto: string;
  /** Protocol number. */
  readonly protonum: number;
  /** Seconds until the entry expires; undefined for offloaded entries. */
  readonly timeout: number | undefined;
  /** State of protocols that have one (ESTABLISHED, TIME_WAIT, ...). */
  readonly state: string | undefined;
  readonly mark: number;
  readonly assured: boolean;
  /** True once a packet in reply direction was seen. */
  readonly replied: boolean;
  readonly original: ConntrackTuple;
  readonly reply: ConntrackTuple;
}

/** What is left out matches anything. Addresses and ports are those of the original direction. */
export interface ConntrackFilter {
  /** Default: that of the addresses or the protocol, if they tell, and every one if not. */
  readonly family?: Family;
  readonly zone?: number;
  readonly proto?: 'tcp' | 'udp' | 'icmp' | 'icmpv6' | 'sctp';
  readonly src?: string;
  readonly dst?: string;
  readonly sport?: number;
  readonly dport?: number;
  readonly mark?: number;
}

/** Timeouts in seconds. */
export interface ConntrackTimeouts {
  readonly tcpEstablished?: number;
  readonly tcpClose?: number;
  readonly tcpTimeWait?: number;
  readonly tcpUnacknowledged?: number;
  readonly tcpMaxRetrans?: number;
  readonly udp?: number;
  readonly udpStream?: number;
  readonly icmp?: number;
  readonly sctpEstablished?: number;
  readonly generic?: number;
}

const TIMEOUT_SYSCTLS: Readonly<Record<keyof ConntrackTimeouts, string>> = {
  tcpEstablished: 'tcp_timeout_established',
  tcpClose: 'tcp_timeout_close',
  tcpTimeWait: 'tcp_timeout_time_wait',
  tcpUnacknowledged: 'tcp_timeout_unacknowledged',
  tcpMaxRetrans: 'tcp_timeout_max_retrans',
  udp: 'udp_timeout',
  udpStream: 'udp_timeout_stream',
  icmp: 'icmp_timeout',
  sctpEstablished: 'sctp_timeout_established',
  generic: 'generic_timeout',
};

/** The sysctls (paths below /proc/sys) that set these timeouts. */
export function timeoutSysctls(timeouts: ConntrackTimeouts): Record<string, number> {
  const values: Record<string, number> = {};
  for (const [key, name] of Object.entries(TIMEOUT_SYSCTLS)) {
    const seconds = timeouts[key as keyof ConntrackTimeouts];
    if (seconds !== undefined) values[`net/netfilter/nf_conntrack_${name}`] = seconds;
  }
  return values;
}

/** Arguments of conntrack(8) for what it can filter itself; `matches` does the rest. */
export function filterArgs(filter: ConntrackFilter): string[] {
  const args: string[] = [];
  if (filter.zone !== undefined) args.push('--zone', String(filter.zone));
  if (filter.proto !== undefined) args.push('-p', filter.proto);
  if (filter.src !== undefined) args.push('--orig-src', filter.src);
  if (filter.dst !== undefined) args.push('--orig-dst', filter.dst);
  if (filter.mark !== undefined) args.push('--mark', String(filter.mark));
  return args;
}

/** The only family that entries of this filter may have; undefined if it tells none. */
export function familyOfFilter(filter: ConntrackFilter): Family | undefined {
  const address = filter.src ?? filter.dst;
  if (filter.family !== undefined) return filter.family;
  if (address !== undefined) return familyOf(address);
  if (filter.proto === 'icmpv6') return 'ipv6';
  return filter.proto === 'icmp' ? 'ipv4' : undefined;
}

/** True if the entry is what the filter asks for. */
export function matches(entry: ConntrackEntry, filter: ConntrackFilter): boolean {
  return (
    (filter.family === undefined || familyOf(entry.original.src) === filter.family) &&
    (filter.zone === undefined || entry.zone === filter.zone) &&
    (filter.proto === undefined || entry.proto === filter.proto) &&
    (filter.src === undefined || entry.original.src === filter.src) &&
    (filter.dst === undefined || entry.original.dst === filter.dst) &&
    (filter.sport === undefined || entry.original.sport === filter.sport) &&
    (filter.dport === undefined || entry.original.dport === filter.dport) &&
    (filter.mark === undefined || entry.mark === filter.mark)
  );
}

/** Parses the output of `conntrack -L -o id,extended`; lines that are no entry are left out. */
export function parseConntrack(output: string): ConntrackEntry[] {
  return output.split('\n').flatMap((line) => {
    const entry = parseLine(line);
    return entry === undefined ? [] : [entry];
  });
}

/* ipv4     2 tcp      6 431999 ESTABLISHED src=.. dst=.. sport=.. dport=.. [packets=.. bytes=..] [UNREPLIED]
   src=.. dst=.. sport=.. dport=.. [ASSURED] mark=3 delta-time=0 zone=65520 use=1 id=123 */
function parseLine(line: string): ConntrackEntry | undefined {
  const head = /^ipv[46]\s+\d+\s+(\S+)\s+(\d+)\s+(?:(\d+)\s+)?(.*)$/.exec(line.trim());
  if (head === null) return undefined;
  const [, proto, protonum, timeout, rest] = head;
  if (proto === undefined || protonum === undefined || rest === undefined) return undefined;
  const tuples: Map<string, string>[] = [];
  const common = new Map<string, string>();
  const flags = new Set<string>();
  let state: string | undefined;
  for (const word of rest.split(/\s+/)) {
    const eq = word.indexOf('=');
    if (word.startsWith('[')) flags.add(word);
    else if (eq < 0) state ??= word;
    else {
      const key = word.slice(0, eq);
      const value = word.slice(eq + 1);
      if (key === 'src') tuples.push(new Map());
      const tuple = tuples.at(-1);
      if (tuple !== undefined && belongsToTuple(key, tuple)) tuple.set(key, value);
      else common.set(key, value);
    }
  }
  const [original, reply] = tuples;
  if (original === undefined || reply === undefined) return undefined;
  return {
    id: Number(common.get('id') ?? 0),
    zone: Number(common.get('zone') ?? common.get('zone-orig') ?? 0),
    proto,
    protonum: Number(protonum),
    timeout: timeout === undefined ? undefined : Number(timeout),
    state,
    mark: Number(common.get('mark') ?? 0),
    assured: flags.has('[ASSURED]'),
    replied: !flags.has('[UNREPLIED]'),
    original: tupleOf(original),
    reply: tupleOf(reply),
  };
}

const TUPLE_KEYS: ReadonlySet<string> = new Set(['src', 'dst', 'sport', 'dport', 'packets', 'bytes', 'type', 'code']);

/* `id` is the ICMP identifier the first time it follows a type, and the entry's own id at the end of the line. */
function belongsToTuple(key: string, tuple: ReadonlyMap<string, string>): boolean {
  return key === 'id' ? tuple.has('type') && !tuple.has('id') : TUPLE_KEYS.has(key);
}

function tupleOf(fields: ReadonlyMap<string, string>): ConntrackTuple {
  const number = (key: string): number | undefined => {
    const value = fields.get(key);
    return value === undefined ? undefined : Number(value);
  };
  return {
    src: fields.get('src') ?? '',
    dst: fields.get('dst') ?? '',
    sport: number('sport') ?? (fields.has('type') ? number('id') : undefined),
    dport: number('dport') ?? (fields.has('type') ? number('id') : undefined),
    packets: number('packets'),
    bytes: number('bytes'),
  };
}
