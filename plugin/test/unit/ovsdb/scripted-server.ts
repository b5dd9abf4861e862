/** A server that says what a test wants, on a Unix socket: not an OVSDB server, but the right and the wrong words of one. */
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Splitter } from '../../../src/ovsdb/splitter.ts';

const EXTERNAL_IDS = { type: { key: 'string', value: 'string', min: 0, max: 'unlimited' } };
const OPTIONAL_NUMBER = { type: { key: { type: 'integer' }, min: 0, max: 1 } };
const TEXT = { type: 'string' };

/** As much of the Open_vSwitch schema as is asked for. */
export const SCHEMA = {
  name: 'Open_vSwitch',
  version: '8.4.0',
  tables: {
    Open_vSwitch: { columns: { other_config: EXTERNAL_IDS } },
    Bridge: {
      columns: {
        name: TEXT,
        ports: { type: { key: { type: 'uuid', refTable: 'Port' }, min: 0, max: 'unlimited' } },
        external_ids: EXTERNAL_IDS,
      },
    },
    Port: {
      columns: {
        name: TEXT,
        interfaces: { type: { key: { type: 'uuid', refTable: 'Interface' }, min: 1, max: 'unlimited' } },
        external_ids: EXTERNAL_IDS,
        tag: OPTIONAL_NUMBER,
      },
    },
    Interface: {
      columns: {
        name: TEXT,
        type: TEXT,
        options: EXTERNAL_IDS,
        ofport: OPTIONAL_NUMBER,
        ifindex: OPTIONAL_NUMBER,
        mac_in_use: { type: { key: 'string', min: 0, max: 1 } },
      },
    },
  },
};

export interface Request {
  readonly method: string;
  readonly params: readonly unknown[];
  readonly id: unknown;
}

/** What the server does with a request of a method; nothing is said where there is no entry. */
export type Script = Record<string, (peer: Peer, request: Request) => void>;

/** One client's connection, as the server has it. */
export class Peer {
  readonly requests: Request[] = [];
  /** Replies of the client, e.g. to echo. */
  readonly replies: Record<string, unknown>[] = [];
  readonly #socket: Socket;

  constructor(socket: Socket, script: () => Script) {
    this.#socket = socket;
    const splitter = new Splitter(1024 * 1024);
    socket.on('data', (chunk: Buffer) => {
      for (const message of splitter.push(chunk)) {
        if (message['method'] === undefined) {
          this.replies.push(message);
          continue;
        }
        const request = message as unknown as Request;
        this.requests.push(request);
        script()[request.method]?.(this, request);
      }
    });
    socket.on('error', () => undefined);
  }

  /** Methods asked for so far, in order. */
  get methods(): string[] {
    return this.requests.map(({ method }) => method);
  }

  reply(request: Request, result: unknown): void {
    this.raw(JSON.stringify({ id: request.id, result, error: null }));
  }

  refuse(request: Request, error: unknown): void {
    this.raw(JSON.stringify({ id: request.id, result: null, error }));
  }

  /** A change, in the way of `monitor_cond`. */
  update2(updates: object): void {
    this.raw(JSON.stringify({ id: null, method: 'update2', params: ['xmasq', updates] }));
  }

  /** Any bytes. */
  raw(bytes: string | Uint8Array): void {
    this.#socket.write(bytes);
  }

  /** Ends the connection. */
  close(): void {
    this.#socket.destroy();
  }
}

export class ScriptedServer {
  readonly socket: string;
  readonly peers: Peer[] = [];
  script: Script;
  readonly #directory: string;
  readonly #sockets = new Set<Socket>();
  #server: Server | undefined;

  private constructor(directory: string, script: Script) {
    this.#directory = directory;
    this.socket = join(directory, 'db.sock');
    this.script = script;
  }

  static async create(script: Script): Promise<ScriptedServer> {
    const server = new ScriptedServer(await mkdtemp(join(tmpdir(), 'xo-')), script);
    await server.listen();
    return server;
  }

  async listen(): Promise<void> {
    const server = createServer((socket) => {
      this.#sockets.add(socket);
      this.peers.push(new Peer(socket, () => this.script));
    });
    this.#server = server;
    await new Promise<void>((resolve) => server.listen(this.socket, resolve));
  }

  /** The connection made last. */
  get peer(): Peer {
    const peer = this.peers.at(-1);
    if (peer === undefined) throw new Error('nobody has connected');
    return peer;
  }

  /** Ends all connections and serves no more, until `listen`. */
  async down(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    this.#sockets.clear();
    const server = this.#server;
    this.#server = undefined;
    if (server !== undefined) await new Promise((resolve) => server.close(resolve));
  }

  async remove(): Promise<void> {
    await this.down();
    await rm(this.#directory, { recursive: true, force: true });
  }
}

/** Rows of the database, by table and UUID: what a dump tells. */
export type Rows = Record<string, Record<string, object>>;

/** A script that serves the schema and, by `monitor_cond`, the rows that `rows` says then. */
export function serving(rows: () => Rows): Script {
  return {
    get_schema: (peer, request) => {
      peer.reply(request, SCHEMA);
    },
    monitor_cond: (peer, request) => {
      peer.reply(request, dump(rows(), 'initial'));
    },
  };
}

/** Rows as a dump: `initial` of monitor_cond, `new` of monitor. */
export function dump(rows: Rows, word: 'initial' | 'new'): object {
  return Object.fromEntries(
    Object.entries(rows).map(([table, ofTable]) => [
      table,
      Object.fromEntries(Object.entries(ofTable).map(([uuid, row]) => [uuid, { [word]: row }])),
    ]),
  );
}

export function map(values: Record<string, string>): unknown[] {
  return ['map', Object.entries(values)];
}

/** A set of UUIDs. */
export function refs(...uuids: string[]): unknown[] {
  return ['set', uuids.map((uuid) => ['uuid', uuid])];
}

export async function eventually(condition: () => boolean, ms = 3000): Promise<void> {
  const until = performance.now() + ms;
  while (!condition()) {
    if (performance.now() > until) throw new Error(`not within ${ms} ms: ${condition.toString()}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}
