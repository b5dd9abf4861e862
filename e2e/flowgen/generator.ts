/** Many agents at once: sends numbered records, with duplicates and malformed ones among them. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { TlsMaterial } from '../../plugin/src/flowexport/tls-material.ts';
import { FlowAgent, type FlowStream } from './agent.ts';
import { numbered, record, request } from './records.ts';

export interface LoadOptions {
  readonly port: number;
  readonly tls: TlsMaterial;
  /** Each on a connection of its own, as agents have it. */
  readonly streams: number;
  /** Messages in all; each holds one record. */
  readonly messages: number;
  /** Different connections that the records are of. */
  readonly flows: number;
  /** Messages per second, all streams together; 0: as fast as they are taken. */
  readonly rate?: number;
  /** Every so many-th message is cut off; 0: none. */
  readonly malformedEvery?: number;
  /** Every so many-th message is sent twice; 0: none. */
  readonly duplicateEvery?: number;
}

/** What was sent. */
export interface LoadResult {
  readonly records: number;
  readonly malformed: number;
  readonly duplicates: number;
  readonly seconds: number;
}

/** Messages between two looks at the clock. */
const SLICE = 50;

function isEvery(index: number, every: number | undefined): boolean {
  return every !== undefined && every > 0 && index % every === every - 1;
}

/**
 * Sends all messages and leaves the streams open for `linger` milliseconds, as agents never end them.
 * @throws Error where a stream is ended by the other side
 */
export async function load(options: LoadOptions, linger = 1000): Promise<LoadResult> {
  const { port, tls, streams, messages, flows, rate = 0, malformedEvery, duplicateEvery } = options;
  const agents = Array.from({ length: streams }, () => new FlowAgent({ port, tls }));
  const sent = { records: 0, malformed: 0, duplicates: 0 };
  const began = performance.now();
  let next = 0;

  const send = async (stream: FlowStream, message: Buffer): Promise<void> => {
    if (await stream.send(message)) return;
    const { code, details } = await stream.ended;
    throw new Error(`a stream was ended: ${code} ${details}`);
  };
  const one = async (stream: FlowStream): Promise<void> => {
    const index = next++;
    const message = request(record(numbered(index % flows, Math.floor(index / flows))));
    if (isEvery(index, malformedEvery)) {
      sent.malformed++;
      return send(stream, message.subarray(0, -5));
    }
    await send(stream, message);
    sent.records++;
    if (!isEvery(index, duplicateEvery)) return;
    sent.duplicates++;
    await send(stream, message);
  };
  const each = async (agent: FlowAgent): Promise<void> => {
    const stream = agent.open();
    while (next < messages) {
      for (let count = 0; count < SLICE && next < messages; count++) await one(stream);
      const ahead = rate === 0 ? 0 : (next / rate) * 1000 - (performance.now() - began);
      if (ahead > 0) await sleep(ahead);
    }
  };
  try {
    await Promise.all(agents.map(each));
    const seconds = (performance.now() - began) / 1000;
    await sleep(linger);
    return { ...sent, seconds };
  } finally {
    for (const agent of agents) agent.close();
  }
}
