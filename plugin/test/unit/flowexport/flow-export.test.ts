/** All parts together, between an agent and a collector: real TLS sockets on the loopback device. */
import type { AddressInfo } from 'node:net';
import { createServer } from 'node:tls';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { FlowAgent } from '../../../../e2e/flowgen/agent.ts';
import { flowsOf, numbered, record, request, type Flow } from '../../../../e2e/flowgen/records.ts';
import type { FlowKey } from '../../../src/dataplane/layout.ts';
import { monotonic } from '../../../src/dataplane/ports.ts';
import { ExportClient, type ExportClientOptions } from '../../../src/flowexport/export-client.ts';
import { FlowExport, type FlowExportOptions, type TlsProblem } from '../../../src/flowexport/index.ts';
import { exportRequest } from '../../../src/flowexport/patch.ts';
import { FlowExportServer } from '../../../src/flowexport/server.ts';
import { quiet } from '../dataplane/fakes.ts';
import { HandTls, TestCa, until } from './tls.ts';

const authority = await TestCa.make();
const clientTls = await authority.client();
const serverTls = await authority.server();
const foreignTls = await (await TestCa.make()).client();

/** A collector that keeps what it gets. */
class Collector {
  readonly flows: Flow[] = [];
  server: FlowExportServer | undefined;

  async start(port = 0): Promise<number> {
    this.server = await FlowExportServer.start({
      port,
      tls: new HandTls(serverTls),
      onFlow: (...[, raw]) => this.flows.push(...flowsOf(exportRequest(raw))),
    });
    return this.server.port;
  }

  async stop(): Promise<void> {
    await this.server?.stop();
    this.server = undefined;
  }
}

let collector: Collector;
beforeEach(() => {
  collector = new Collector();
});
afterEach(() => collector.stop());

describe('the flow export', () => {
  let flowExport: FlowExport | undefined;
  let agent: FlowAgent | undefined;
  const start = async (more: Partial<FlowExportOptions> = {}): Promise<FlowExport> => {
    flowExport = await FlowExport.start({ port: 0, tls: new HandTls(serverTls), log: quiet, ...more });
    agent = new FlowAgent({ port: flowExport.port, tls: clientTls });
    return flowExport;
  };
  afterEach(async () => {
    agent?.close();
    await flowExport?.stop();
  });

  test('names flows, proposes approvals, and passes records on with what was bypassed', async () => {
    const wanted: FlowKey[] = [];
    const one = await start({
      allowed: {
        deviceOf: (address) => (address === '10.244.1.3' ? 7 : undefined),
        isApproved: () => false,
        want: (key) => wanted.push(key),
        now: monotonic,
      },
      accounting: {
        address: `127.0.0.1:${await collector.start()}`,
        tls: { current: clientTls },
        onProblem: () => undefined,
        readBypass: ({ sourcePort }) =>
          sourcePort === 1024 ? { forward: [{ of: 'flow', era: '1', packets: 90n, bytes: 9000n }] } : undefined,
      },
    });
    const stream = agent?.open();
    const message = request(record(numbered(1)));
    await stream?.send(message);
    await stream?.send(message);
    await until(() => collector.flows.length === 1);
    expect(collector.flows[0]).toMatchObject({ stats: { packetTotalCount: 100, octetTotalCount: 10_000 } });
    const key = { saddr: '10.244.1.3', daddr: '10.244.2.2', sport: 1024, dport: 8080, proto: 17 };
    expect(one.names.lookup(key)).toMatchObject({ flowType: 'inter-node', sourceNode: 'node-1' });
    expect(wanted).toEqual([{ ...key, ifindex: 7 }]);
    await until(() => one.counts.store.duplicate === 1);
    expect(one.counts).toMatchObject({
      records: 1,
      failed: 0,
      open: { connections: 1, streams: 1 },
      store: { new: 1 },
      allowed: { wanted: 1 },
      accounting: { corrected: 1 },
      client: { sent: 1, dropped: 0, connects: 1 },
    });
  });

  test('outlives trouble with a record', async () => {
    const one = await start({
      allowed: {
        deviceOf: () => {
          throw new Error('no map');
        },
        isApproved: () => false,
        want: () => undefined,
        now: monotonic,
      },
    });
    const stream = agent?.open();
    for (const number of [0, 1]) await stream?.send(request(record(numbered(number))));
    await until(() => one.counts.failed === 2);
    expect(one.counts.records).toBe(2);
  });
});

describe('the client of a collector', () => {
  let client: ExportClient | undefined;
  let problem: TlsProblem | undefined;
  const message = request(record(numbered(1)));
  const start = (port: number, more: Partial<ExportClientOptions> = {}): ExportClient => {
    client = new ExportClient({
      address: `127.0.0.1:${port}`,
      tls: { current: clientTls },
      onProblem: (next) => (problem = next),
      backoffMs: 20,
      ...more,
    });
    return client;
  };
  afterEach(() => client?.stop());

  test('comes back when the collector does, with what waits', async () => {
    const port = await collector.start();
    const one = start(port);
    one.send(message);
    await until(() => collector.flows.length === 1);
    await collector.stop();
    await until(() => one.counts.breaks === 1);
    expect(problem?.what).toMatch(/^flow records cannot be exported, they wait and the oldest are dropped: /);
    for (let count = 0; count < 5; count++) one.send(message);
    await collector.start(port);
    one.send(message);
    // What was handed to a connection that broke is lost; the rest arrives.
    await until(() => {
      one.send(message);
      return collector.flows.length > 3;
    });
    expect(one.counts.connects).toBeGreaterThan(1);
  });

  test('keeps no more than its queue holds', () => {
    const one = start(1, { queue: 100, backoffMs: 60_000 });
    for (let count = 0; count < 1000; count++) one.send(message);
    const { queued, dropped, sent } = one.counts;
    expect(queued).toBe(100);
    expect(sent).toBeLessThan(100);
    expect(queued + dropped + sent).toBe(1000);
  });

  test('a slow collector fills the queue, not the memory', async () => {
    const port = await collector.start();
    const one = start(port, { queue: 50 });
    // Nothing is read meanwhile: this is one turn of the event loop.
    for (let count = 0; count < 20_000; count++) one.send(message);
    expect(one.counts.dropped).toBeGreaterThan(19_000);
    await until(() => one.counts.queued === 0);
    await until(() => collector.flows.length === one.counts.sent);
  });

  test.each<[string, ExportClientOptions['tls']['current']]>([
    ['another CA', foreignTls],
    ['no certificate', { ca: authority.ca.cert }],
  ])('is refused with %s, and says so', async (...[, current]) => {
    const one = start(await collector.start(), { tls: { current } });
    one.send(message);
    await until(() => one.counts.breaks > 0);
    expect(problem?.where).toMatch(/^127\.0\.0\.1:/);
    expect(collector.flows).toEqual([]);
  });

  test.each<[string, string | undefined, string | false]>([
    ['an address sends no name that a server could have', undefined, 'no-name.invalid'],
    ['a name is sent', 'localhost', 'localhost'],
  ])('%s', async (...[, serverName, expected]) => {
    const { ca, ...own } = serverTls;
    const seen: (string | false | null)[] = [];
    const server = createServer({ ...own, ca, ALPNProtocols: ['h2'] }, (socket) => {
      seen.push(socket.servername);
      socket.destroy();
    });
    await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve));
    try {
      start((server.address() as AddressInfo).port, serverName === undefined ? {} : { serverName }).send(message);
      await until(() => seen.length > 0);
      expect(seen[0]).toBe(expected);
    } finally {
      server.close();
    }
  });

  test('checks the address of the collector', async () => {
    const server = await FlowExportServer.start({
      port: 0,
      tls: new HandTls(await authority.server({ dns: ['no-name.invalid'] })),
      onFlow: () => undefined,
    });
    try {
      const other = start(server.port);
      other.send(message);
      await until(() => other.counts.breaks > 0);
      expect(problem?.what).toMatch(/127\.0\.0\.1/);
    } finally {
      await server.stop();
    }
  });

  test('checks the name of the collector', async () => {
    const port = await collector.start();
    const other = start(port, { serverName: 'other.test' });
    other.send(message);
    await until(() => other.counts.breaks > 0);
    other.stop();
    start(port, { serverName: 'localhost' }).send(message);
    await until(() => collector.flows.length === 1);
  });
});
