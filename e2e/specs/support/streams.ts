/** Verified traffic that goes on while a test does things to the nodes. */
import type { Lab, Proc } from '../../lab/lab.ts';
import { clientTarget, datagramResult, freshPort, serverAddress, transferResult } from '../../lab/measure.ts';
import type { DatagramResult, Pair, TransferResult } from '../../lab/measure.ts';

/** Traffic of the `stream` tool that is under way. */
export interface RunningStream<T> {
  /** Server port. */
  readonly port: number;
  readonly client: Proc;
  readonly server: Proc;
  /** Waits for the client's end (default 60 s) and says what it found. */
  readonly result: (limitMs?: number) => Promise<T>;
}

/** What the server says at the end of each connection. */
export interface ServerReport {
  readonly complete: boolean;
  readonly received: number;
  readonly corrupt: number;
  /** Empty, or how the connection ended. */
  readonly error: string;
}

/** Starts a verified TCP transfer, runs `use` during it and ends both sides. `args`: options of `stream client --tcp`. */
export function withTransfer<T>(
  lab: Lab,
  pair: Pair,
  args: readonly string[],
  use: (running: RunningStream<TransferResult>) => Promise<T>,
  port = freshPort(),
): Promise<T> {
  return withStream(lab, pair, ['--tcp'], args, port, transferResult, use);
}

/** The same with numbered UDP datagrams. `args`: options of `stream client --udp`. */
export function withDatagrams<T>(
  lab: Lab,
  pair: Pair,
  args: readonly string[],
  use: (running: RunningStream<DatagramResult>) => Promise<T>,
  port = freshPort(),
): Promise<T> {
  return withStream(lab, pair, ['--udp'], args, port, datagramResult, use);
}

/** Waits for the server's report on the connection that ended last. */
export async function serverReport(server: Proc, timeoutMs = 5000): Promise<ServerReport> {
  return JSON.parse(await server.waitFor(/^\{"role":"server"/, timeoutMs)) as ServerReport;
}

async function withStream<R, T>(
  lab: Lab,
  pair: Pair,
  protocol: readonly string[],
  args: readonly string[],
  port: number,
  decode: (value: unknown) => R,
  use: (running: RunningStream<R>) => Promise<T>,
): Promise<T> {
  const { from, to } = pair;
  const tool = lab.tool('stream');
  const where = ['--port', String(port)];
  const server = await to.spawn([tool, 'server', ...protocol, ...where, '--bind', serverAddress(pair)]);
  try {
    await server.waitFor(/^ready/);
    const client = await from.spawn([tool, 'client', ...protocol, ...where, '--to', clientTarget(pair), ...args]);
    try {
      const result = async (limitMs = 60_000): Promise<R> => decode(await client.json(limitMs));
      return await use({ port, client, server, result });
    } finally {
      await client.stop();
    }
  } finally {
    await server.stop();
  }
}
