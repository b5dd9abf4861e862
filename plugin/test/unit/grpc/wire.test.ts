import { Buffer } from 'node:buffer';
import { connect } from 'node:net';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { Client, credentials, status, type ServiceError } from '@grpc/grpc-js';
import { xmasq } from '../../../src/gen/xmasq.js';
import { startHarness, type Harness } from './harness.ts';

let harness: Harness;
let client: Client;
beforeEach(async () => {
  harness = await startHarness();
  client = new Client(`unix://${harness.socket}`, credentials.createInsecure());
});
afterEach(async () => {
  client.close();
  await harness.close();
});

const raw = (bytes: Buffer): Buffer => bytes;

/** Sends bytes as they are. */
function unary(path: string, bytes: Buffer): Promise<ServiceError | null> {
  return new Promise((resolve) => {
    client.makeUnaryRequest(path, raw, raw, bytes, { deadline: Date.now() + 3000 }, (error) => resolve(error));
  });
}

function push(bytes: Buffer): Promise<ServiceError | null> {
  return new Promise((resolve) => {
    const options = { deadline: Date.now() + 3000 };
    const stream = client.makeClientStreamRequest('/xmasq.v1.PodEvents/Push', raw, raw, options, (error) =>
      resolve(error),
    );
    stream.on('error', () => undefined);
    stream.write(bytes);
  });
}

async function stillServes(): Promise<boolean> {
  const { response } = await harness.connect().call('version', new xmasq.v1.VersionRequest());
  return response !== undefined;
}

describe('bytes that no client of ours would send', () => {
  test('malformed messages end the call, not the server', async () => {
    // A length that runs past the end; an end inside a varint; a group that never ends; an unknown wire type.
    for (const hex of ['0aff', '0a', '0b', '0f', 'ffffffffffffffffffffff', '0a020aff']) {
      const bytes = Buffer.from(hex, 'hex');
      expect(await push(bytes)).toMatchObject({ code: expect.any(Number) });
      await unary('/xmasq.v1.Admin/Flush', bytes);
    }
    expect(harness.sink.log).toEqual([]);
    expect(harness.backend.calls).toEqual([]);
    expect(await stillServes()).toBe(true);
  });

  test('random messages end the call, not the server', async () => {
    // A fixed generator (Numerical Recipes): the same bytes in every run.
    let seed = 12345;
    const next = (): number => (seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0) >>> 24;
    for (let round = 0; round < 100; round++) {
      const bytes = Buffer.from(Array.from({ length: next() % 64 }, next));
      expect(await push(bytes)).toMatchObject({ code: expect.any(Number) });
    }
    expect(await stillServes()).toBe(true);
  });

  test('a message over 2 MiB: RESOURCE_EXHAUSTED', async () => {
    expect(await push(Buffer.alloc(2 * 1024 * 1024 + 1))).toMatchObject({ code: status.RESOURCE_EXHAUSTED });
    expect(await stillServes()).toBe(true);
  });

  test('an unknown method: UNIMPLEMENTED', async () => {
    expect(await unary('/xmasq.v1.Admin/Explode', Buffer.alloc(0))).toMatchObject({ code: status.UNIMPLEMENTED });
  });

  test('what is not HTTP/2 at all', async () => {
    for (const text of ['GET / HTTP/1.1\r\n\r\n', '\0\0\0\0', '']) {
      await new Promise<void>((resolve) => {
        const socket = connect(harness.socket, () => socket.end(text));
        socket.on('error', () => undefined);
        socket.on('close', () => resolve());
        socket.resume();
      });
    }
    expect(await stillServes()).toBe(true);
  });
});
