import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { xmasq } from '../../../src/gen/xmasq.js';
import { GrpcServer } from '../../../src/grpc/server.ts';
import { PrivateSocket, probeSocket } from '../../../src/grpc/unix-socket.ts';
import { FakeBackend, FakeSink } from './fake-backend.ts';
import { TestClient } from './harness.ts';

let directory: string;
let socket: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'xm-'));
  socket = join(directory, 'xmasq.sock');
});
afterEach(() => rm(directory, { recursive: true, force: true }));

function start(): Promise<GrpcServer> {
  return GrpcServer.start({ socket, admin: new FakeBackend(), pods: new FakeSink(), maxPods: 3 });
}

async function answers(): Promise<boolean> {
  const client = new TestClient(socket);
  const { response } = await client.call('version', new xmasq.v1.VersionRequest());
  client.close();
  return response !== undefined;
}

/** A socket file whose process was killed. */
async function leaveStaleSocket(): Promise<void> {
  const script = `require('net').createServer().listen(${JSON.stringify(socket)}, () => console.log('up'))`;
  const child = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] });
  await once(child.stdout, 'data');
  child.kill('SIGKILL');
  await once(child, 'exit');
}

describe('the socket of the gRPC server', () => {
  test('has mode 0600, answers, and is gone after stop with all that was made for it', async () => {
    const server = await start();
    expect((await stat(socket)).mode & 0o777).toBe(0o600);
    expect(await readdir(directory)).toEqual(['xmasq.sock']);
    expect(await answers()).toBe(true);
    await server.stop();
    expect(await readdir(directory)).toEqual([]);
  });

  test('makes the directory for root only', async () => {
    socket = join(directory, 'run', 'xmasq.sock');
    const server = await start();
    expect((await stat(join(directory, 'run'))).mode & 0o777).toBe(0o700);
    await server.stop();
  });

  test('replaces a stale socket', async () => {
    await leaveStaleSocket();
    expect(await probeSocket(socket)).toBe('ECONNREFUSED');
    const server = await start();
    expect(await answers()).toBe(true);
    await server.stop();
  });

  test('refuses a socket that is served, and leaves it alone', async () => {
    const server = await start();
    await expect(start()).rejects.toThrow(/another process serves it; stop that one first/);
    expect(await answers()).toBe(true);
    expect(await readdir(directory)).toEqual(['xmasq.sock']);
    await server.stop();
  });

  test('refuses what is not a socket', async () => {
    await writeFile(socket, 'precious');
    await expect(start()).rejects.toThrow(/something else has that name/);
    await rm(socket);
    await mkdir(socket);
    await expect(start()).rejects.toThrow(/something else has that name/);
  });

  test('of two that start at the same time one wins', async () => {
    const results = await Promise.allSettled([start(), start(), start()]);
    const servers = results.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []));
    expect(servers.length).toBe(1);
    expect(await answers()).toBe(true);
    await servers[0]?.stop();
    expect(await readdir(directory)).toEqual([]);
  });

  test('does not remove a successor', async () => {
    const server = await start();
    await rm(socket);
    const successor = await start();
    await server.stop();
    expect(await answers()).toBe(true);
    await successor.stop();
  });

  test('refuses relative and overlong paths', async () => {
    await expect(PrivateSocket.prepare('xmasq.sock')).rejects.toThrow(/expected an absolute path/);
    await expect(PrivateSocket.prepare(`/${'x'.repeat(90)}`)).rejects.toThrow(/at most 80 bytes/);
  });
});
