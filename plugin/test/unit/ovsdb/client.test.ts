import { readFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { MONITORED } from '../../../src/ovsdb/bridge.ts';
import { OvsdbClient, type ClientOptions, type DatabaseListener } from '../../../src/ovsdb/client.ts';
import { OvsdbConnection, type Method } from '../../../src/ovsdb/connection.ts';
import { textOf, type Replica } from '../../../src/ovsdb/replica.ts';
import { quiet } from '../dataplane/fakes.ts';
import { dump, eventually, map, SCHEMA, ScriptedServer, serving, type Rows } from './scripted-server.ts';

let server: ScriptedServer;
let client: OvsdbClient | undefined;
let rows: Rows;

beforeEach(async () => {
  rows = { Port: { p1: { name: 'web' } } };
  server = await ScriptedServer.create(serving(() => rows));
});
afterEach(async () => {
  await client?.stop();
  client = undefined;
  await server.remove();
});

/** Records what it is told. */
class Listener implements DatabaseListener {
  copy: Replica | undefined;
  readonly told: string[] = [];

  synced(copy: Replica): void {
    this.copy = copy;
    this.told.push(`synced ${this.names}`);
  }

  changed(): void {
    this.told.push(`changed ${this.names}`);
  }

  disconnected(reason: string): void {
    this.told.push(`disconnected ${reason}`);
  }

  get names(): string {
    return [...(this.copy?.table('Port').values() ?? [])].map((row) => textOf(row, 'name')).join();
  }
}

function start(listener: DatabaseListener, over: Partial<ClientOptions> = {}): OvsdbClient {
  client = new OvsdbClient(
    {
      socket: server.socket,
      database: 'Open_vSwitch',
      columns: MONITORED,
      log: quiet,
      backoffMinMs: 10,
      backoffMaxMs: 40,
      ...over,
    },
    listener,
  );
  client.start();
  return client;
}

describe('a client of the database', () => {
  test('asks for the schema and a copy, and for nothing else', async () => {
    const listener = new Listener();
    start(listener);
    await eventually(() => listener.told.length === 1);
    expect(listener.told).toEqual(['synced web']);
    expect(server.peer.requests).toEqual([
      { method: 'get_schema', params: ['Open_vSwitch'], id: 1 },
      {
        method: 'monitor_cond',
        params: [
          'Open_vSwitch',
          'xmasq',
          Object.fromEntries(Object.entries(MONITORED).map(([table, columns]) => [table, [{ columns }]])),
        ],
        id: 2,
      },
    ]);
  });

  test('can ask for nothing that writes', async () => {
    const connection = await OvsdbConnection.open({ socket: server.socket }, () => undefined);
    for (const method of ['transact', 'lock', 'steal', 'set_db_change_aware', 'convert']) {
      await expect(connection.request(method as Method, [], () => undefined)).rejects.toThrow('not a request');
    }
    connection.close();
    const sources = ['connection.ts', 'client.ts'].map((name) =>
      readFileSync(new URL(`../../../src/ovsdb/${name}`, import.meta.url), 'utf8'),
    );
    expect(sources.join('')).not.toMatch(/['"]transact['"]/);
  });

  test('takes changes that follow the copy in the same packet', async () => {
    server.script['monitor_cond'] = (peer, request) => {
      const copy = JSON.stringify({ id: request.id, result: dump(rows, 'initial'), error: null });
      const change = JSON.stringify({
        id: null,
        method: 'update2',
        params: ['xmasq', { Port: { p2: { insert: { name: 'db' } } } }],
      });
      peer.raw(copy + change);
    };
    const listener = new Listener();
    start(listener);
    await eventually(() => listener.told.length === 2);
    expect(listener.told).toEqual(['synced web', 'changed web,db']);
  });

  test('takes messages in pieces, with braces in their texts', async () => {
    rows = { Port: { p1: { name: 'a}{"b\\', external_ids: map({ '}': '{{"' }) } } };
    server.script['monitor_cond'] = (peer, request) => {
      const text = JSON.stringify({ id: request.id, result: dump(rows, 'initial'), error: null });
      const send = (at: number): void => {
        if (at >= text.length) return;
        peer.raw(text.slice(at, at + 9));
        setTimeout(send, 0, at + 9);
      };
      send(0);
    };
    const listener = new Listener();
    start(listener);
    await eventually(() => listener.told.length === 1);
    expect(listener.told).toEqual(['synced a}{"b\\']);
  });

  test('falls back to monitor where the server knows nothing else', async () => {
    server.script = {
      get_schema: (peer, request) => {
        peer.reply(request, SCHEMA);
      },
      monitor_cond: (peer, request) => {
        peer.refuse(request, 'unknown method');
      },
      monitor: (peer, request) => {
        peer.reply(request, dump(rows, 'new'));
      },
    };
    const listener = new Listener();
    start(listener);
    await eventually(() => listener.told.length === 1);
    expect(server.peer.methods).toEqual(['get_schema', 'monitor_cond', 'monitor']);
    const params = ['xmasq', { Port: { p1: { old: { name: 'web' }, new: { name: 'db' } } } }];
    server.peer.raw(JSON.stringify({ id: null, method: 'update', params }));
    await eventually(() => listener.told.length === 2);
    expect(listener.told).toEqual(['synced web', 'changed db']);
  });

  test('answers echo, and refuses other requests', async () => {
    const listener = new Listener();
    start(listener);
    await eventually(() => listener.told.length === 1);
    server.peer.raw('{"id":"echo","method":"echo","params":["a",{"b":1}]}{"id":5,"method":"transact","params":[]}');
    await eventually(() => server.peer.replies.length === 2);
    expect(server.peer.replies).toEqual([
      { id: 'echo', result: ['a', { b: 1 }], error: null },
      { id: 5, result: null, error: 'unknown method' },
    ]);
    expect(listener.told).toHaveLength(1);
  });

  test('asks a silent server for an echo, stays while it answers, and leaves when it does not', async () => {
    server.script['echo'] = (peer, request) => {
      peer.reply(request, []);
    };
    const listener = new Listener();
    start(listener, { keepAliveMs: 20 });
    const echoes = (): number => server.peers[0]?.methods.filter((method) => method === 'echo').length ?? 0;
    await eventually(() => echoes() >= 3);
    expect(listener.told).toEqual(['synced web']);
    delete server.script['echo'];
    await eventually(() => listener.told.length >= 3);
    expect(listener.told.slice(1, 3)).toEqual(['disconnected the server does not answer', 'synced web']);
  });

  test('comes back after a lost connection with a new copy, and the old one stays until then', async () => {
    const listener = new Listener();
    start(listener);
    await eventually(() => listener.told.length === 1);
    const first = listener.copy;
    rows = { Port: { p2: { name: 'db' } } };
    server.peer.close();
    await eventually(() => listener.told.length === 3);
    expect(listener.told.slice(1)).toEqual(['disconnected the server closed the connection', 'synced db']);
    expect(first?.table('Port').size).toBe(1);
    expect(client?.counts).toEqual({ connected: true, connects: 2, syncs: 2, failures: 1, updates: 0 });
  });

  test('waits for a server that is not there, with pauses that grow, and says so', async () => {
    await server.down();
    const listener = new Listener();
    const begun = performance.now();
    start(listener, { random: () => 1 });
    await eventually(() => listener.told.length === 5);
    // 10 + 20 + 40 + 40: the fifth failure follows these pauses.
    expect(performance.now() - begun).toBeGreaterThan(105);
    expect(listener.told.every((text) => text.includes('ENOENT'))).toBe(true);
    await server.listen();
    await eventually(() => listener.told.at(-1) === 'synced web');
  });

  test('does not hurry back to a server that breaks off after each copy', async () => {
    server.script['monitor_cond'] = (peer, request) => {
      peer.reply(request, dump(rows, 'initial'));
      setTimeout(() => {
        peer.close();
      }, 5);
    };
    const listener = new Listener();
    start(listener, { random: () => 1, backoffMinMs: 20, backoffMaxMs: 1000 });
    await new Promise((resolve) => setTimeout(resolve, 400));
    // 20 + 40 + 80 + 160 ms of pauses.
    expect(server.peers.length).toBeGreaterThanOrEqual(4);
    expect(server.peers.length).toBeLessThanOrEqual(5);
  });

  test.each([
    ['no JSON', '{"a":nothing}', 'not valid JSON'],
    ['no object', '[]', 'other than a JSON object'],
    ['a reply to no request', '{"id":77,"result":{},"error":null}', 'reply to no request'],
    ['a request without parameters', '{"id":null,"method":"update2"}', 'without a method or parameters'],
    [
      'a change of an unknown row',
      '{"id":null,"method":"update2","params":["xmasq",{"Port":{"x":{"modify":{}}}}]}',
      'never told',
    ],
    ['an end of the monitor', '{"id":null,"method":"monitor_canceled","params":["xmasq"]}', 'does not tell of changes'],
    ['more than it takes', `{"a":"${'x'.repeat(3000)}`, 'longer than 2000 bytes'],
  ])('leaves a server that sends %s, and begins anew', async (_what, message, reason) => {
    const listener = new Listener();
    start(listener, { maxMessage: 2000 });
    await eventually(() => listener.told.length === 1);
    server.peer.raw(message);
    await eventually(() => listener.told.length >= 3);
    expect(listener.told[1]).toContain(reason);
    expect(listener.told[2]).toBe('synced web');
  });

  test('does not wait for ever for a reply', async () => {
    server.script = {};
    const listener = new Listener();
    start(listener, { replyTimeoutMs: 30 });
    await eventually(() => listener.told.length >= 1);
    expect(listener.told[0]).toBe('disconnected no reply to get_schema within 30 ms');
  });

  test('says what the server refuses', async () => {
    server.script['get_schema'] = (peer, request) => {
      peer.refuse(request, { error: 'unknown database', details: 'get_schema request specifies unknown database' });
    };
    const listener = new Listener();
    start(listener);
    await eventually(() => listener.told.length >= 1);
    expect(listener.told[0]).toContain('the server refuses get_schema: unknown database: get_schema request');
  });

  test('changes of other monitors and other notifications are nothing to it', async () => {
    const listener = new Listener();
    start(listener);
    await eventually(() => listener.told.length === 1);
    server.peer.raw('{"id":null,"method":"update2","params":["other",{"Nothing":7}]}');
    server.peer.raw('{"id":null,"method":"locked","params":["xmasq"]}');
    server.peer.update2({ Port: { p1: { modify: { name: 'db' } } } });
    await eventually(() => listener.told.length === 2);
    expect(listener.told[1]).toBe('changed db');
  });

  test('tells nothing after it was stopped', async () => {
    const listener = new Listener();
    start(listener);
    await eventually(() => listener.told.length === 1);
    await client?.stop();
    server.peer.update2({ Port: { p1: { modify: { name: 'db' } } } });
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(listener.told).toHaveLength(1);
    expect(server.peers).toHaveLength(1);
  });
});
