/**
 * A real ovsdb-server with the Open_vSwitch schema, and rows as antrea-agent writes them. There is no ovs-vswitchd: what that
 * would fill in (ofport, ifindex, mac_in_use) a test writes itself where it matters.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { Splitter } from '../../plugin/src/ovsdb/splitter.ts';
import { hostCommand } from '../vm/command.ts';
import { LabError, eventually } from './lab.ts';
import type { Endpoint } from './lab.ts';
import { ovsBinaries } from './openvswitch.ts';

const START_MS = 10_000;
const REPLY_MS = 5000;
const MAX_MESSAGE = 16 * 1024 * 1024;

export type Json = string | number | boolean | null | readonly Json[] | { readonly [key: string]: Json };

/** How a port is written, besides its pod. */
export interface PortOptions {
  /** Default `br-int`. */
  readonly bridge?: string;
  /** VLAN of the port. */
  readonly tag?: number;
  /** Added to or put over the keys of `external_ids`; undefined: left out. */
  readonly externalIds?: Readonly<Record<string, string | undefined>>;
  /** Columns of the Interface row, e.g. `{ type: 'geneve' }`. */
  readonly interface?: Readonly<Record<string, Json>>;
}

/** The value of a map column. */
export function ovsMap(values: Readonly<Record<string, string | undefined>>): Json {
  const pairs = Object.entries(values).flatMap(([key, value]) => (value === undefined ? [] : [[key, value]]));
  return ['map', pairs];
}

/** The database of one node. */
export class AntreaDatabase {
  /** The Unix socket, `db.sock` as on a node. */
  readonly socket: string;
  readonly #directory: string;
  #server: ChildProcess | undefined;
  #writer: Writer | undefined;

  private constructor(directory: string) {
    this.#directory = directory;
    this.socket = join(directory, 'db.sock');
  }

  /** A fresh database with an empty br-int, served from this directory (which is made). */
  static async create(directory: string): Promise<AntreaDatabase> {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    const database = new AntreaDatabase(directory);
    await database.start();
    await database.transact([{ op: 'insert', table: 'Open_vSwitch', row: {} }]);
    await database.addBridge('br-int', { roundNum: '1' });
    return database;
  }

  /** Process id of the server. */
  get pid(): number {
    if (this.#server?.pid === undefined) throw new LabError('ovsdb-server does not run');
    return this.#server.pid;
  }

  /** Starts the server on the rows that are there. */
  async start(): Promise<void> {
    const { env, schema } = await ovsBinaries();
    const file = join(this.#directory, 'conf.db');
    if (!existsSync(file))
      await hostCommand('env', [
        `PATH=${env.PATH}`,
        `LD_LIBRARY_PATH=${env.LD_LIBRARY_PATH}`,
        'ovsdb-tool',
        'create',
        file,
        schema,
      ]);
    const server = spawn(
      'ovsdb-server',
      [
        file,
        `--remote=punix:${this.socket}`,
        `--unixctl=${join(this.#directory, 'ovsdb-server.ctl')}`,
        `--log-file=${join(this.#directory, 'ovsdb-server.log')}`,
        '-vconsole:off',
      ],
      { env: { ...process.env, ...env }, stdio: 'ignore' },
    );
    this.#server = server;
    await eventually(
      'ovsdb-server serves',
      async () => {
        if (server.exitCode !== null) throw new LabError(`ovsdb-server ended with ${server.exitCode}: see its log`);
        this.#writer = await Writer.open(this.socket).catch(() => undefined);
        return this.#writer;
      },
      START_MS,
      10,
    );
  }

  /** Ends the server; the rows stay. @param signal default SIGTERM */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    this.#writer?.close();
    this.#writer = undefined;
    const server = this.#server;
    this.#server = undefined;
    if (server === undefined || server.exitCode !== null || server.signalCode !== null) return;
    const ended = new Promise((resolve) => server.once('exit', resolve));
    server.kill(signal);
    await ended;
  }

  /** Runs operations as one transaction; resolves when it is in force. @throws LabError if one of them fails */
  async transact(operations: readonly Json[]): Promise<readonly Json[]> {
    if (this.#writer === undefined) throw new LabError('ovsdb-server does not run');
    return this.#writer.transact(operations);
  }

  async addBridge(name: string, externalIds: Readonly<Record<string, string>> = {}): Promise<void> {
    await this.transact([
      { op: 'insert', table: 'Bridge', 'uuid-name': 'bridge', row: { name, external_ids: ovsMap(externalIds) } },
      {
        op: 'mutate',
        table: 'Open_vSwitch',
        where: [],
        mutations: [['bridges', 'insert', ['set', [['named-uuid', 'bridge']]]]],
      },
    ]);
  }

  /** A pod's port, with the keys that antrea-agent writes. */
  async addPod(pod: Endpoint, options: PortOptions = {}): Promise<void> {
    const keys = {
      'antrea-type': 'container',
      'attached-mac': pod.mac,
      'ip-address': pod.ips.join(','),
      'container-id': pod.containerId,
      'pod-name': pod.name,
      'pod-namespace': pod.namespace,
      'net-ns': `/host/var/run/netns/cni-${pod.containerId.slice(0, 8)}`,
    };
    await this.addPort(pod.ifName, { ...options, externalIds: { ...keys, ...options.externalIds } });
  }

  async addPort(name: string, { bridge = 'br-int', tag, externalIds = {}, ...rest }: PortOptions): Promise<void> {
    const port = {
      name,
      interfaces: ['named-uuid', 'interface'],
      external_ids: ovsMap(externalIds),
      ...(tag === undefined ? {} : { tag }),
    };
    await this.transact([
      { op: 'insert', table: 'Interface', 'uuid-name': 'interface', row: { name, ...rest.interface } },
      { op: 'insert', table: 'Port', 'uuid-name': 'port', row: port },
      {
        op: 'mutate',
        table: 'Bridge',
        where: [['name', '==', bridge]],
        mutations: [['ports', 'insert', ['set', [['named-uuid', 'port']]]]],
      },
    ]);
  }

  /** Takes a port off its bridge, whereby its rows go. */
  async removePort(name: string): Promise<void> {
    const [found] = await this.transact([
      { op: 'select', table: 'Port', where: [['name', '==', name]], columns: ['_uuid'] },
    ]);
    const [row] = (found as { rows: { _uuid: Json }[] }).rows;
    if (row === undefined) throw new LabError(`there is no port ${name}`);
    await this.transact([
      { op: 'mutate', table: 'Bridge', where: [], mutations: [['ports', 'delete', ['set', [row._uuid]]]] },
    ]);
  }

  /** Names of all ports, of every bridge. */
  async ports(): Promise<string[]> {
    const [found] = await this.transact([{ op: 'select', table: 'Port', where: [], columns: ['name'] }]);
    return (found as { rows: { name: string }[] }).rows.map(({ name }) => name);
  }

  /** Sets columns of a port. */
  async updatePort(name: string, row: Readonly<Record<string, Json>>): Promise<void> {
    await this.transact([{ op: 'update', table: 'Port', where: [['name', '==', name]], row }]);
  }

  /** Sets or (undefined) removes a key of `Open_vSwitch other_config`. */
  async otherConfig(key: string, value: string | undefined): Promise<void> {
    await this.#setKey('Open_vSwitch', [], 'other_config', key, value);
  }

  /** Sets or (undefined) removes a key of the bridge's `external_ids`. */
  async bridgeKey(key: string, value: string | undefined): Promise<void> {
    await this.#setKey('Bridge', [['name', '==', 'br-int']], 'external_ids', key, value);
  }

  async #setKey(table: string, where: Json, column: string, key: string, value: string | undefined): Promise<void> {
    await this.transact([
      {
        op: 'mutate',
        table,
        where,
        mutations: [
          [column, 'delete', ['set', [key]]],
          ...(value === undefined ? [] : [[column, 'insert', ['map', [[key, value]]]]]),
        ],
      },
    ]);
  }
}

/** A connection that writes, as antrea-agent has one. */
class Writer {
  readonly #socket: Socket;
  readonly #splitter = new Splitter(MAX_MESSAGE);
  readonly #pending = new Map<
    number,
    { resolve: (reply: Record<string, unknown>) => void; reject: (error: Error) => void }
  >();
  #id = 0;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('data', (chunk: Buffer) => {
      for (const message of this.#splitter.push(chunk)) this.#take(message);
    });
    socket.on('error', () => undefined);
    socket.on('close', () => {
      for (const { reject } of this.#pending.values()) reject(new LabError('ovsdb-server closed the connection'));
      this.#pending.clear();
    });
  }

  static async open(path: string): Promise<Writer> {
    const socket = connect(path);
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve);
      socket.once('error', reject);
    });
    return new Writer(socket);
  }

  close(): void {
    this.#socket.destroy();
  }

  async transact(operations: readonly Json[]): Promise<readonly Json[]> {
    const id = ++this.#id;
    const reply = new Promise<Record<string, unknown>>((resolve, reject) => {
      const timer = setTimeout(() => {
        reject(new LabError(`ovsdb-server does not answer within ${REPLY_MS} ms`));
      }, REPLY_MS);
      this.#pending.set(id, {
        resolve: (message) => {
          clearTimeout(timer);
          resolve(message);
        },
        reject: (error) => {
          clearTimeout(timer);
          reject(error);
        },
      });
    });
    this.#socket.write(JSON.stringify({ method: 'transact', params: ['Open_vSwitch', ...operations], id }));
    const { result, error } = await reply;
    const failed = Array.isArray(result)
      ? (result as ({ error?: unknown } | null)[]).find((entry) => entry?.error !== undefined)
      : undefined;
    if (!Array.isArray(result) || failed !== undefined) {
      throw new LabError(`transaction refused: ${JSON.stringify(failed ?? error)}`);
    }
    return result as readonly Json[];
  }

  #take(message: Record<string, unknown>): void {
    if (message['method'] === 'echo') {
      this.#socket.write(JSON.stringify({ result: message['params'], error: null, id: message['id'] }));
    } else if (typeof message['id'] === 'number') {
      this.#pending.get(message['id'])?.resolve(message);
      this.#pending.delete(message['id']);
    }
  }
}
