/** Follows a database: connects, copies, keeps the copy up to date, and begins anew when the connection is lost. */
import type { Log } from '../dataplane/ports.ts';
import { errorMessage } from '../util/errors.ts';
import { OvsdbConnection, type ConnectionOptions } from './connection.ts';
import { ProtocolError, ReplyError } from './errors.ts';
import { readTypes, Replica, type Columns, type Types } from './replica.ts';

const MONITOR_ID = 'xmasq';

/** What is told of the database. Calls come from the event loop, never during another one. */
export interface DatabaseListener {
  /** A complete copy, after each connection; the one before is outdated. */
  synced(copy: Replica): void;
  /** The copy has changed. */
  changed(): void;
  /** There is no connection now (also when the first attempt fails). The last copy stays as it is. */
  disconnected(reason: string): void;
}

export interface ClientOptions extends ConnectionOptions {
  readonly database: string;
  readonly columns: Columns;
  readonly log: Log;
  /** Milliseconds before the first new attempt; doubles from failure to failure. Default 100. */
  readonly backoffMinMs?: number;
  /** Default 10000. */
  readonly backoffMaxMs?: number;
  /** Milliseconds that a connection has to last before the pauses begin with the shortest again. Default 10000. */
  readonly stableMs?: number;
  /** A number from 0 to 1, for the jitter; default Math.random. */
  readonly random?: () => number;
}

/** Numbers for status and metrics; all but `connected` only ever grow. */
export interface ClientCounts {
  readonly connected: boolean;
  /** Connections that were made. */
  readonly connects: number;
  /** Complete copies so far: the first one, and a new one after each lost connection. */
  readonly syncs: number;
  /** Attempts that came to nothing, and connections that were lost. */
  readonly failures: number;
  /** Change notifications. */
  readonly updates: number;
}

/** Reads one database; it can write none (see Method). */
export class OvsdbClient {
  readonly #o: ClientOptions;
  readonly #listener: DatabaseListener;
  readonly #stop = new AbortController();
  #connection: OvsdbConnection | undefined;
  #running: Promise<void> | undefined;
  readonly #counts = { connected: false, connects: 0, syncs: 0, failures: 0, updates: 0 };

  constructor(options: ClientOptions, listener: DatabaseListener) {
    this.#o = options;
    this.#listener = listener;
  }

  get counts(): ClientCounts {
    return { ...this.#counts };
  }

  /** Begins to follow the database, for as long as it takes; returns at once. */
  start(): void {
    this.#running ??= this.#run();
  }

  /** Ends it; nothing is told any more once this is called. */
  async stop(): Promise<void> {
    this.#stop.abort();
    this.#connection?.close();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { backoffMinMs = 100, backoffMaxMs = 10_000, stableMs = 10_000, random = Math.random } = this.#o;
    let pauseMs = backoffMinMs;
    const stopped = (): boolean => this.#stop.signal.aborted;
    while (!stopped()) {
      const begun = performance.now();
      const reason = await this.#follow();
      this.#counts.connected = false;
      if (stopped()) return;
      this.#counts.failures++;
      this.#listener.disconnected(reason);
      if (performance.now() - begun >= stableMs) pauseMs = backoffMinMs;
      // Half of it is left to chance, so that the sidecars of a cluster do not come in step.
      await pause(pauseMs * (0.5 + random() / 2), this.#stop.signal);
      pauseMs = Math.min(pauseMs * 2, backoffMaxMs);
    }
  }

  /** One connection, from its beginning to its end. @returns why it ended; never rejects */
  async #follow(): Promise<string> {
    let connection: OvsdbConnection | undefined;
    try {
      let copy: Replica | undefined;
      connection = await OvsdbConnection.open(this.#o, (method, params) => {
        if (copy !== undefined) this.#notified(copy, method, params);
      });
      this.#counts.connects++;
      if (this.#stop.signal.aborted) return 'stopped';
      this.#connection = connection;
      const { database, columns, log } = this.#o;
      const types = await connection.request('get_schema', [database], (schema) => readTypes(schema, columns));
      // Taken over while the reply is read: the first change may follow in the same packet.
      await monitor(connection, database, types, (first) => {
        copy = first;
        this.#counts.connected = true;
        this.#counts.syncs++;
        this.#listener.synced(first);
      });
      log.info({ socket: this.#o.socket, syncs: this.#counts.syncs }, 'OVSDB is followed');
      return errorMessage(await connection.ended);
    } catch (error) {
      return errorMessage(error);
    } finally {
      connection?.close();
      this.#connection = undefined;
    }
  }

  #notified(copy: Replica, method: string, params: readonly unknown[]): void {
    const [id, updates] = params;
    if (id !== MONITOR_ID) return;
    if (method === 'monitor_canceled') throw new ProtocolError('the server does not tell of changes any more');
    if (method === 'update2') copy.update2(updates);
    else if (method === 'update') copy.update(updates);
    else return;
    this.#counts.updates++;
    this.#listener.changed();
  }
}

/** Asks for a copy and all changes of it: by `monitor_cond`, of servers that do not have that by `monitor`. */
async function monitor(
  connection: OvsdbConnection,
  database: string,
  types: Types,
  take: (copy: Replica) => void,
): Promise<void> {
  const columns = [...types].map(([table, ofTable]) => [table, [...ofTable.keys()]] as const);
  const copy = new Replica(types);
  try {
    const requests = Object.fromEntries(columns.map(([table, names]) => [table, [{ columns: names }]]));
    await connection.request('monitor_cond', [database, MONITOR_ID, requests], (result) => {
      copy.update2(result);
      take(copy);
    });
  } catch (error) {
    if (!(error instanceof ReplyError) || !error.error.includes('unknown method')) throw error;
    const requests = Object.fromEntries(columns.map(([table, names]) => [table, { columns: names }]));
    await connection.request('monitor', [database, MONITOR_ID, requests], (result) => {
      copy.update(result);
      take(copy);
    });
  }
}

async function pause(ms: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return;
  await new Promise<void>((resolve) => {
    const done = (): void => {
      clearTimeout(timer);
      signal.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener('abort', done);
  });
}
