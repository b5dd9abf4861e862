/**
 * Traffic between two places of a lab, with numbers back: request/response rates and latencies, stream rates, and
 * verified transfers. Each call starts a server of its own on a fresh port and stops it.
 */
import { LabError } from './errors.ts';
import { addressOf } from './lab.ts';
import type { Family, Place, Proc, Toolbox } from './lab.ts';
import { execTimed, processorSeconds } from './processor-time.ts';

/** Who talks to whom: the client's and the server's place. */
export interface Pair {
  readonly from: Place;
  readonly to: Place;
  /** Default: that of `to.address`. */
  readonly family?: Family;
  /** What the client connects to: default the server's address. */
  readonly via?: string;
}

export interface RequestResponseOptions {
  readonly proto: 'tcp' | 'udp';
  /** Length of the measured phase. Default 1. */
  readonly seconds?: number;
  /** Uncounted phase before it, on the same connections. Default 0. */
  readonly warmupSeconds?: number;
  /** End after this many transactions. */
  readonly count?: number;
  /** Bytes in each direction. Default 1. */
  readonly size?: number;
  /** Default 1. */
  readonly flows?: number;
  /** A new TCP connection for each transaction; with `flows`, so many at a time. */
  readonly crr?: boolean;
  /** With `crr`: a transaction lasts until its connection is closed. Default: until its answer. */
  readonly whole?: boolean;
  /** With `whole`: so many requests on each connection, one after the other's answer, are one transaction. Default 1. */
  readonly requests?: number;
  /** Client port of the first flow (with crr: of the first connection, counting up). */
  readonly sport?: number;
  /** Server port; default a fresh one. */
  readonly port?: number;
  /** Least time from one request of a flow to the next. */
  readonly intervalUs?: number;
  /** When a transaction counts as lost. Default 1000. */
  readonly timeoutMs?: number;
  /** Measure processor time, too. Default false. */
  readonly processorTime?: boolean;
}

/** Rates are per second, latencies of a whole transaction in microseconds. */
export interface RequestResponseResult {
  readonly transactions: number;
  readonly seconds: number;
  readonly rate: number;
  readonly meanUs: number;
  readonly p50Us: number;
  readonly p90Us: number;
  readonly p99Us: number;
  readonly p999Us: number;
  readonly maxUs: number;
  readonly timeouts: number;
  readonly errors: number;
  /** Answers that were not ours. */
  readonly corrupt: number;
  readonly lastError: string;
  /** Processor time that client and server together took for a transaction, microseconds; 0 if it was not measured. */
  readonly processorUs: number;
}

/** Request/response with the `rr` tool. Errors and timeouts are in the result, not thrown. */
export async function requestResponse(
  lab: Toolbox,
  pair: Pair,
  options: RequestResponseOptions,
): Promise<RequestResponseResult> {
  const port = options.port ?? freshPort();
  const size = options.size ?? 1;
  const common = [`--${options.proto}`, '--port', String(port), '--size', String(size)];
  const args = [
    ...common,
    '--to',
    clientTarget(pair),
    '--json',
    ...flag('--seconds', options.seconds),
    ...flag('--warmup', options.warmupSeconds),
    ...flag('--count', options.count),
    ...flag('--flows', options.flows),
    ...flag('--sport', options.sport),
    ...flag('--interval-us', options.intervalUs),
    ...flag('--timeout-ms', options.timeoutMs),
    ...(options.crr === true ? ['--crr'] : []),
    ...(options.whole === true ? ['--whole'] : []),
    ...flag('--requests', options.requests),
  ];
  const limitS = (options.seconds ?? (options.count === undefined ? 1 : 60)) + (options.warmupSeconds ?? 0) + 15;
  const server = [lab.tool('rr'), 'server', ...common, '--bind', serverAddress(pair)];
  return withServer(pair.to, server, async ({ pid }) => {
    const timed = options.processorTime === true;
    const before = timed ? processorSeconds(pid) : 0;
    const report = await runTool(pair.from, [lab.tool('rr'), 'client', ...args], limitS, timed);
    const seconds = timed ? numeric(report, 'processorSeconds') + processorSeconds(pid) - before : 0;
    // The processes worked for the warm-up, too.
    const all = numeric(report, 'transactions') + numeric(report, 'warmupTransactions');
    return {
      processorUs: all === 0 ? 0 : (seconds / all) * 1e6,
      transactions: numeric(report, 'transactions'),
      seconds: numeric(report, 'seconds'),
      rate: numeric(report, 'rate'),
      meanUs: numeric(report, 'meanUs'),
      p50Us: numeric(report, 'p50Us'),
      p90Us: numeric(report, 'p90Us'),
      p99Us: numeric(report, 'p99Us'),
      p999Us: numeric(report, 'p999Us'),
      maxUs: numeric(report, 'maxUs'),
      timeouts: numeric(report, 'timeouts'),
      errors: numeric(report, 'errors'),
      corrupt: numeric(report, 'corrupt'),
      lastError: String(report['lastError']),
    };
  });
}

/** Throws a LabError if nothing was exchanged, or something went wrong. Lost datagrams are nothing wrong. */
export function requireSound(what: string, { from }: Pair, result: RequestResponseResult): void {
  if (result.transactions > 0 && result.errors === 0 && result.corrupt === 0) return;
  throw new LabError(`${what} from ${from.name} went wrong: ${JSON.stringify(result)}`);
}

export interface IperfOptions {
  /** Default tcp. UDP is sent as fast as it goes. */
  readonly proto?: 'tcp' | 'udp';
  /** Client port of the first stream, counting up. Default any. */
  readonly sport?: number;
  /** Length of the measured phase; iperf3 takes whole seconds, fractions are rounded up. Default 1. */
  readonly seconds?: number;
  /** Uncounted phase before it, whole seconds. Default 0. */
  readonly omitSeconds?: number;
  /** Parallel connections. Default 1. */
  readonly streams?: number;
  /** Bytes per send call, of UDP per datagram; default iperf3's (128 KiB, what fits into a packet). */
  readonly sendSize?: number;
  /** TCP maximum segment size. */
  readonly mss?: number;
  /** End after this many bytes instead of `seconds`. */
  readonly bytes?: number;
  /** Server port; default a fresh one. */
  readonly port?: number;
}

export interface IperfResult {
  /** What the receiver got, gigabits (10^9) per second. */
  readonly gbitPerS: number;
  /** 0 with UDP. */
  readonly retransmits: number;
  /** Processor time that client and server together took for a gigabyte that arrived, seconds. */
  readonly processorPerGb: number;
}

/** TCP streams or UDP datagrams with iperf3. Throws a LabError if iperf3 fails. */
export async function iperf(pair: Pair, options: IperfOptions = {}): Promise<IperfResult> {
  const port = String(options.port ?? freshPort());
  const seconds = Math.ceil(options.seconds ?? 1);
  const server = ['iperf3', '--server', '--one-off', '--forceflush', '--port', port, '--bind', serverAddress(pair)];
  const client = [
    ...['iperf3', '--json', '--client', clientTarget(pair), '--port', port],
    ...(options.bytes === undefined ? ['--time', String(seconds)] : ['--bytes', String(options.bytes)]),
    ...flag('--omit', options.omitSeconds),
    ...flag('--parallel', options.streams),
    ...flag('--length', options.sendSize),
    ...flag('--set-mss', options.mss),
    ...flag('--cport', options.sport),
    ...(options.proto === 'udp' ? ['--udp', '--bitrate', '0'] : []),
  ];
  return withServer(
    pair.to,
    server,
    async () => {
      const { stdout } = await pair.from.exec(client, {
        timeoutMs: (seconds + (options.omitSeconds ?? 0) + 15) * 1000,
      });
      const end = object(object(JSON.parse(stdout))['end']);
      const received = object(end['sum_received']);
      const busy = object(end['cpu_utilization_percent']);
      const busySeconds =
        ((numeric(busy, 'host_total') + numeric(busy, 'remote_total')) / 100) * numeric(received, 'seconds');
      return {
        gbitPerS: numeric(received, 'bits_per_second') / 1e9,
        retransmits: options.proto === 'udp' ? 0 : numeric(object(end['sum_sent']), 'retransmits'),
        processorPerGb: busySeconds / (numeric(received, 'bytes') / 1e9),
      };
    },
    /listening/i,
  );
}

/** Tries one TCP exchange with a server that need not be there; true if it was answered. */
export async function reaches(
  lab: Toolbox,
  from: Place,
  to: { readonly address: string },
  port: number,
  sport?: number,
): Promise<boolean> {
  const common = [
    '--tcp',
    '--to',
    to.address,
    '--port',
    String(port),
    '--count',
    '1',
    '--timeout-ms',
    '2000',
    '--json',
  ];
  const { code } = await from.exec([lab.tool('rr'), 'client', ...common, ...flag('--sport', sport)], { check: false });
  return code === 0;
}

/** What `stream client --tcp` reports; counts of bytes, times in milliseconds. */
export interface TransferResult {
  /** Everything arrived, in both directions, and was right. */
  readonly complete: boolean;
  readonly sent: number;
  readonly peerReceived: number;
  readonly received: number;
  readonly corrupt: number;
  readonly peerCorrupt: number;
  readonly retransmits: number;
  readonly peerRetransmits: number;
  readonly maxGapMs: number;
  readonly peerMaxGapMs: number;
  readonly seconds: number;
  readonly error: string;
}

/** Decodes the last JSON line of `stream client --tcp`. */
export function transferResult(value: unknown): TransferResult {
  const report = object(value);
  return {
    complete: report['complete'] === true,
    sent: numeric(report, 'sent'),
    peerReceived: numeric(report, 'peerReceived'),
    received: numeric(report, 'received'),
    corrupt: numeric(report, 'corrupt'),
    peerCorrupt: numeric(report, 'peerCorrupt'),
    retransmits: numeric(report, 'retransmits'),
    peerRetransmits: numeric(report, 'peerRetransmits'),
    maxGapMs: numeric(report, 'maxGapMs'),
    peerMaxGapMs: numeric(report, 'peerMaxGapMs'),
    seconds: numeric(report, 'seconds'),
    error: String(report['error']),
  };
}

/** A verified TCP transfer; `args` are further options of `stream client --tcp` (`--up`, `--down`, ...). */
export async function transfer(
  lab: Toolbox,
  pair: Pair,
  args: readonly string[],
  options: { readonly port?: number; readonly limitSeconds?: number } = {},
): Promise<TransferResult> {
  const port = String(options.port ?? freshPort());
  const tool = lab.tool('stream');
  return withServer(pair.to, [tool, 'server', '--tcp', '--port', port, '--bind', serverAddress(pair)], async () =>
    transferResult(
      await runTool(
        pair.from,
        [tool, 'client', '--tcp', '--to', clientTarget(pair), '--port', port, ...args],
        options.limitSeconds ?? 60,
      ),
    ),
  );
}

/** What one end of `stream --udp` received of the other's numbered datagrams. */
export interface DatagramCounts {
  readonly received: number;
  readonly lost: number;
  readonly duplicates: number;
  readonly reordered: number;
  readonly corrupt: number;
  readonly maxGapMs: number;
}

export interface DatagramResult {
  readonly sent: number;
  readonly sendErrors: number;
  /** The server told its counts; if false, `peer` means nothing. */
  readonly answered: boolean;
  readonly peer: DatagramCounts;
  /** Echoes, with `--reply` only. */
  readonly echo: DatagramCounts | undefined;
  /** Datagrams at the client that belonged to nobody it knows. */
  readonly foreign: number;
}

/** Decodes the last JSON line of `stream client --udp`. */
export function datagramResult(value: unknown): DatagramResult {
  const report = object(value);
  const counts = (field: unknown): DatagramCounts => {
    const side = object(field);
    return {
      received: numeric(side, 'received'),
      lost: numeric(side, 'lost'),
      duplicates: numeric(side, 'duplicates'),
      reordered: numeric(side, 'reordered'),
      corrupt: numeric(side, 'corrupt'),
      maxGapMs: numeric(side, 'maxGapMs'),
    };
  };
  return {
    sent: numeric(report, 'sent'),
    sendErrors: numeric(report, 'sendErrors'),
    answered: report['answered'] === true,
    peer: counts(report['peer']),
    echo: report['echo'] === undefined ? undefined : counts(report['echo']),
    foreign: numeric(report, 'foreign'),
  };
}

/** Numbered UDP datagrams; `args` are further options of `stream client --udp` (`--rate`, `--seconds`, `--reply`, ...). */
export async function datagrams(
  lab: Toolbox,
  pair: Pair,
  args: readonly string[],
  options: { readonly port?: number; readonly limitSeconds?: number } = {},
): Promise<DatagramResult> {
  const port = String(options.port ?? freshPort());
  const tool = lab.tool('stream');
  return withServer(pair.to, [tool, 'server', '--udp', '--port', port, '--bind', serverAddress(pair)], async () =>
    datagramResult(
      await runTool(
        pair.from,
        [tool, 'client', '--udp', '--to', clientTarget(pair), '--port', port, ...args],
        options.limitSeconds ?? 60,
      ),
    ),
  );
}

/** The three figures of the demo. */
export interface Performance {
  /** TCP stream, gigabits per second at the receiver. */
  readonly tcpStreamGbit: number;
  readonly tcpRrRate: number;
  readonly tcpRrP50Us: number;
  readonly udpRrRate: number;
  readonly udpRrP50Us: number;
}

/**
 * Measures TCP stream, TCP request/response and UDP request/response, one after the other, `seconds` each.
 * `warmupSeconds` (whole) go before each: a flow needs some packets, UDP two seconds of traffic, to become fast.
 */
export async function measure(
  lab: Toolbox,
  pair: Pair,
  options: { readonly seconds?: number; readonly warmupSeconds?: number } = {},
): Promise<Performance> {
  const seconds = options.seconds ?? 1;
  const warmupSeconds = options.warmupSeconds ?? 0;
  const stream = await iperf(pair, { seconds, omitSeconds: warmupSeconds });
  const tcp = await requestResponse(lab, pair, { proto: 'tcp', seconds, warmupSeconds });
  const udp = await requestResponse(lab, pair, { proto: 'udp', seconds, warmupSeconds });
  for (const [name, result] of Object.entries({ tcp, udp })) {
    if (result.transactions === 0 || result.errors + result.corrupt > 0) {
      throw new LabError(`${name} request/response ${pair.from.name} -> ${pair.to.name}: ${JSON.stringify(result)}`);
    }
  }
  return {
    tcpStreamGbit: stream.gbitPerS,
    tcpRrRate: tcp.rate,
    tcpRrP50Us: tcp.p50Us,
    udpRrRate: udp.rate,
    udpRrP50Us: udp.p50Us,
  };
}

/** Runs `use` while a server runs in a place; the server has printed what `ready` matches. */
export async function withServer<T>(
  place: Place,
  argv: readonly string[],
  use: (server: Proc) => Promise<T>,
  ready: RegExp = /^ready/,
): Promise<T> {
  const server = await place.spawn(argv);
  try {
    await server.waitFor(ready);
    return await use(server);
  } finally {
    await server.stop();
  }
}

/** A server port that no earlier call of this process was given (20000 to 29999, below the ephemeral range). */
export function freshPort(): number {
  const port = 20000 + (nextPort % 10000);
  nextPort += 1;
  return port;
}

let nextPort = 0;

/** What the pair's server listens on. */
export function serverAddress({ to, family }: Pair): string {
  return family === undefined ? to.address : addressOf(to, family);
}

/** What the pair's client connects to. */
export function clientTarget(pair: Pair): string {
  return pair.via ?? serverAddress(pair);
}

/** What a tool reports; `timed` with its `processorSeconds`. */
async function runTool(
  place: Place,
  argv: readonly string[],
  limitSeconds: number,
  timed = false,
): Promise<Record<string, unknown>> {
  const limits = { timeoutMs: limitSeconds * 1000, check: false };
  const { processorSeconds: seconds, ...result } = timed
    ? await execTimed(place, argv, limits)
    : { ...(await place.exec(argv, limits)), processorSeconds: 0 };
  const { stdout, stderr, code } = result;
  const line = stdout.split('\n').findLast((candidate) => candidate.startsWith('{'));
  if (line === undefined) {
    throw new LabError(`${place.name}: ${argv.join(' ')}: no result, exit code ${String(code)}: ${stderr.trim()}`);
  }
  return { ...object(JSON.parse(line)), processorSeconds: seconds };
}

function flag(name: string, value: number | undefined): string[] {
  return value === undefined ? [] : [name, String(value)];
}

function object(value: unknown): Record<string, unknown> {
  if (typeof value !== 'object' || value === null) throw new LabError(`not a JSON object: ${String(value)}`);
  return value as Record<string, unknown>;
}

function numeric(report: Record<string, unknown>, field: string): number {
  const value = report[field];
  if (typeof value !== 'number') throw new LabError(`no number "${field}" in ${JSON.stringify(report).slice(0, 500)}`);
  return value;
}
