/** Real TLS sockets on the loopback device. */
import { connect as connectHttp2, type ClientHttp2Stream } from 'node:http2';
import { connect as connectTcp } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { status } from '@grpc/grpc-js';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { FlowAgent, type AgentOptions, type FlowStream } from '../../../../e2e/flowgen/agent.ts';
import { numbered, record, request } from '../../../../e2e/flowgen/records.ts';
import { FlowExportServer } from '../../../src/flowexport/server.ts';
import { FlowExportDefinition } from '../../../src/flowexport/service.ts';
import { HandTls, TestCa, until, days } from './tls.ts';

const authority = await TestCa.make();
const other = await TestCa.make();
const material = await authority.client();
const serverTls = await authority.server();
const message = request(record(numbered(1)));

let tls: HandTls;
let server: FlowExportServer;
let ports: number[];
let agents: FlowAgent[];

beforeEach(async () => {
  tls = new HandTls(serverTls);
  ports = [];
  agents = [];
  server = await FlowExportServer.start({
    port: 0,
    tls,
    onFlow: ({ sourcePort }) => ports.push(sourcePort),
    maxStreams: 110,
  });
});
afterEach(async () => {
  for (const agent of agents) agent.close();
  await server.stop();
});

function agent(tlsOptions: AgentOptions['tls'] = material): FlowAgent {
  const one = new FlowAgent({ port: server.port, tls: tlsOptions });
  agents.push(one);
  return one;
}

async function sendOne(stream: FlowStream): Promise<void> {
  const before = server.counts.flows;
  await stream.send(message);
  await until(() => server.counts.flows > before);
}

describe('an agent', () => {
  test('sends records, one per message, and never ends', async () => {
    const stream = agent().open();
    for (let number = 0; number < 300; number++) await stream.send(request(record(numbered(number))));
    await until(() => ports.length === 300);
    expect(server.counts).toMatchObject({ accepted: 1, streams: 1, messages: 300, flows: 300, malformed: 0 });
    expect(server.open).toEqual({ connections: 1, streams: 1 });
  });

  test('is answered where it ends its stream', async () => {
    const stream = agent().open();
    await sendOne(stream);
    await expect(stream.end()).resolves.toMatchObject({ code: status.OK });
    await until(() => server.open.streams === 0);
  });

  test('may send many records in a message', async () => {
    const stream = agent().open();
    await stream.send(request(...Array.from({ length: 100 }, (...[, number]) => record(numbered(number)))));
    await until(() => ports.length === 100);
    expect(server.counts.messages).toBe(1);
  });

  test('comes back after it broke off', async () => {
    const first = agent();
    const stream = first.open();
    await sendOne(stream);
    stream.cancel();
    await until(() => server.open.streams === 0);
    first.close();
    await until(() => server.open.connections === 0);
    await sendOne(agent().open());
    expect(server.counts).toMatchObject({ accepted: 2, streams: 2, flows: 2 });
  });

  test('learns that the server stops', async () => {
    const stream = agent().open();
    await sendOne(stream);
    await server.stop();
    await expect(stream.ended).resolves.toMatchObject({ code: status.UNAVAILABLE });
  });
});

describe('100 streams at once', () => {
  test.each([
    ['of 100 agents', 100],
    ['on one connection', 1],
  ])('%s', async (...[, connections]) => {
    const all = Array.from({ length: connections }, () => agent());
    const streams = Array.from({ length: 100 }, (...[, index]) => all[index % connections]?.open() as FlowStream);
    const each = async (stream: FlowStream): Promise<void> => {
      for (let count = 0; count < 20; count++) await stream.send(message);
    };
    await Promise.all(streams.map(each));
    await until(() => ports.length === 2000);
    expect(server.open).toEqual({ connections, streams: 100 });
    expect(server.counts.malformed).toBe(0);
  });

  test('but no more than allowed', async () => {
    const one = agent();
    const streams = Array.from({ length: 110 }, () => one.open());
    await Promise.all(streams.map((stream) => stream.send(message)));
    await until(() => server.open.streams === 110);
    const last = agent().open();
    await last.send(message);
    await expect(last.ended).resolves.toMatchObject({ code: status.RESOURCE_EXHAUSTED });
    expect(server.counts.refusedStreams).toBe(1);
    await sendOne(streams[0] as FlowStream);
  });
});

describe('refused and counted', () => {
  test.each<[string, () => AgentOptions['tls'] | Promise<AgentOptions['tls']>]>([
    ['a certificate of another CA', async () => ({ ...(await other.client()), ca: authority.ca.cert })],
    ['no certificate', () => ({ ca: authority.ca.cert })],
    ['an expired certificate', () => authority.client(days(-2, -1))],
    ["a server's certificate", () => serverTls],
  ])('%s', async (...[, options]) => {
    const stream = agent(await options()).open();
    await stream.send(message);
    await until(() => server.counts.refusedCertificate === 1);
    await expect(stream.ended).resolves.toMatchObject({ code: status.UNAVAILABLE });
    expect(server.counts).toMatchObject({ streams: 0, flows: 0 });
    await sendOne(agent().open());
  });

  test('TLS 1.1', async () => {
    const socket = connectTls({
      port: server.port,
      host: '127.0.0.1',
      ...material,
      minVersion: 'TLSv1',
      maxVersion: 'TLSv1.1',
      ciphers: 'DEFAULT:@SECLEVEL=0',
    });
    await new Promise<void>((resolve) => void socket.once('error', () => resolve()));
    expect(server.counts).toMatchObject({ accepted: 0, refusedHandshake: 1 });
  });

  test('plaintext', async () => {
    const session = connectHttp2(`http://127.0.0.1:${server.port}`);
    session.on('error', () => undefined);
    await new Promise<void>((resolve) => void session.once('close', () => resolve()));
    await until(() => server.counts.refusedHandshake === 1);
    await sendOne(agent().open());
  });

  test('HTTP/1.1', async () => {
    const socket = connectTls({ port: server.port, host: '127.0.0.1', ...material });
    socket.on('error', () => undefined);
    await new Promise<void>((resolve) => void socket.once('close', () => resolve()));
    expect(server.counts).toMatchObject({ accepted: 0, refusedProtocol: 1 });
  });

  test('noise', async () => {
    const socket = connectTcp(server.port, '127.0.0.1', () => socket.write(Buffer.alloc(100_000, 0x16)));
    socket.on('error', () => undefined);
    await new Promise<void>((resolve) => void socket.once('close', () => resolve()));
    expect(server.counts.refusedHandshake).toBe(1);
    await sendOne(agent().open());
  });

  test('other than loopback addresses', async () => {
    const started = FlowExportServer.start({ host: '0.0.0.0', port: 0, tls, onFlow: () => undefined });
    await expect(started).rejects.toThrow('on a loopback address only, not on 0.0.0.0');
  });

  test('a port that is taken', async () => {
    const started = FlowExportServer.start({ port: server.port, tls, onFlow: () => undefined });
    await expect(started).rejects.toThrow(`127.0.0.1, port ${server.port}: EADDRINUSE`);
  });
});

describe('what cannot be read', () => {
  test('is skipped, the stream goes on', async () => {
    const stream = agent().open();
    const broken = [Buffer.from([0xff]), Buffer.from('no protobuf at all'), message.subarray(0, -3), Buffer.alloc(1)];
    for (const one of broken) await stream.send(one);
    await sendOne(stream);
    expect(server.counts).toMatchObject({ messages: 5, flows: 1, malformed: 4, streams: 1 });
  });

  test('a message that is too long ends its stream only', async () => {
    const other = agent().open();
    await sendOne(other);
    const stream = agent().open();
    await stream.send(Buffer.alloc(2 * 1024 * 1024));
    await expect(stream.ended).resolves.toMatchObject({ code: status.RESOURCE_EXHAUSTED });
    await sendOne(other);
  });

  /** A stream below gRPC: frames of any kind. */
  function raw(headers = {}): { readonly stream: ClientHttp2Stream; readonly close: () => void } {
    const session = connectHttp2(`https://127.0.0.1:${server.port}`, { ...material });
    session.on('error', () => undefined);
    const stream = session.request({
      ':method': 'POST',
      ':path': FlowExportDefinition.export.path,
      'content-type': 'application/grpc',
      te: 'trailers',
      ...headers,
    });
    stream.on('error', () => undefined);
    return { stream, close: () => session.destroy() };
  }

  test('a connection that breaks within a message', async () => {
    const { stream, close } = raw();
    const frame = Buffer.concat([Buffer.from([0, 0, 0, message.length >> 8, message.length & 0xff]), message]);
    stream.write(Buffer.concat([frame, frame.subarray(0, 40)]));
    await until(() => ports.length === 1);
    close();
    await until(() => server.open.streams === 0);
    await sendOne(agent().open());
    expect(server.counts.flows).toBe(2);
  });

  test('a stream that ends within a message', async () => {
    const { stream, close } = raw();
    stream.end(Buffer.from([0, 0, 0, 1, 0, 1, 2]));
    await until(() => server.open.streams === 0);
    close();
    await sendOne(agent().open());
  });

  test('a compressed frame that is none', async () => {
    const { stream, close } = raw({ 'grpc-encoding': 'gzip' });
    stream.write(Buffer.concat([Buffer.from([1, 0, 0, 0, 3]), Buffer.from('abc')]));
    await until(() => server.counts.streams === 1 && server.open.streams === 0);
    close();
    await sendOne(agent().open());
  });
});

describe('new certificates', () => {
  test('of two CAs side by side', async () => {
    tls.replace({ ...serverTls, ca: other.ca.cert + authority.ca.cert });
    await sendOne(agent().open());
    await sendOne(agent({ ...(await other.client()), ca: authority.ca.cert }).open());
    expect(server.counts).toMatchObject({ accepted: 2, refusedCertificate: 0 });
  });

  test('hold for new connections, old connections stay', async () => {
    const before = agent().open();
    await sendOne(before);
    tls.replace(await other.server());
    await sendOne(agent(await other.client()).open());
    // It trusts the new CA, which has not signed its certificate.
    const former = agent({ ...material, ca: other.ca.cert }).open();
    await former.send(message);
    await until(() => server.counts.refusedCertificate === 1);
    await expect(former.ended).resolves.toMatchObject({ code: status.UNAVAILABLE });
    await sendOne(before);
  });
});
