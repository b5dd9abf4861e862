import { setTimeout as sleep } from 'node:timers/promises';
import { status, type ServerReadableStream, type sendUnaryData } from '@grpc/grpc-js';
import { xmasq } from '../gen/xmasq.js';
import type { PodEventSink } from './backend.ts';
import type { PodEventsInfo } from './convert.ts';
import { RpcError, invalidArgument, toStatus } from './errors.ts';
import { PodRegistry } from './pod-registry.ts';
import { validatePod, validatePodRef } from './pod-validation.ts';
import { Serial } from './serial.ts';

type PushCall = ServerReadableStream<xmasq.v1.PodEvent, xmasq.v1.PodEventsSummary>;

/** A new stream, its predecessor, and one or two that are being refused. */
const MAX_STREAMS = 4;

export interface PodEventsOptions {
  /** How many pods the node can have. */
  readonly maxPods: number;
  /** Milliseconds a new stream has for its snapshot. */
  readonly snapshotTimeoutMs?: number;
}

/** One stream, from its start to its end. */
class Stream {
  readonly summary = { snapshotPods: 0, added: 0, changed: 0, removed: 0, ignored: 0 };
  readonly #ended = new AbortController();
  synced = false;

  /** Aborted with the error that the client is to see. */
  get ended(): AbortSignal {
    return this.#ended.signal;
  }

  end(error: Error): void {
    this.#ended.abort(error);
  }
}

/** The PodEvents service: validates what agents push and hands it to the sink. */
export class PodEventsService {
  readonly #sink: PodEventSink;
  readonly #registry: PodRegistry;
  readonly #snapshotTimeoutMs: number;
  readonly #serial = new Serial();
  readonly #streams = new Set<Stream>();
  readonly #counts = { events: 0, ignored: 0, rejected: 0 };
  /** The stream whose snapshot is in force, while it lasts. */
  #current: Stream | undefined;
  #synced = false;
  #stopping = false;

  constructor(sink: PodEventSink, options: PodEventsOptions) {
    this.#sink = sink;
    this.#registry = new PodRegistry(options.maxPods);
    this.#snapshotTimeoutMs = options.snapshotTimeoutMs ?? 10_000;
  }

  /** For the status. */
  get info(): PodEventsInfo {
    return { connected: this.#current !== undefined, synced: this.#synced, ...this.#counts };
  }

  /** Ends every stream with UNAVAILABLE and takes no more. */
  stop(): void {
    this.#stopping = true;
    for (const stream of this.#streams) stream.end(stopped());
  }

  /** The handler of `Push`. */
  readonly push = (call: PushCall, reply: sendUnaryData<xmasq.v1.PodEventsSummary>): void => {
    const stream = new Stream();
    // Without a listener an error of the transport would end the process; the stream ends through its iterator anyway.
    call.on('error', (error) => stream.end(error));
    call.on('cancelled', () => stream.end(new RpcError(status.CANCELLED, 'cancelled by the client')));
    this.#serve(call, stream).then(
      () => reply(null, new xmasq.v1.PodEventsSummary(stream.summary)),
      (error: unknown) => {
        if (error instanceof RpcError && error.code === status.INVALID_ARGUMENT) this.#counts.rejected++;
        reply(toStatus(error));
        // Whatever is still coming is of no interest, and must not fill the window of the connection.
        call.resume();
      },
    );
  };

  async #serve(call: PushCall, stream: Stream): Promise<void> {
    if (this.#stopping) throw stopped();
    if (this.#streams.size >= MAX_STREAMS) {
      throw new RpcError(status.RESOURCE_EXHAUSTED, `${MAX_STREAMS} streams are open already; close one first`);
    }
    this.#streams.add(stream);
    const timer = this.#limitSnapshotTime(stream);
    try {
      for await (const message of untilEnded<xmasq.v1.PodEvent>(call, stream.ended)) {
        await this.#serial.run(() => this.#take(stream, message));
        timer.abort();
      }
      if (!stream.synced) throw invalidArgument('the stream ended without a snapshot; expected one as first message');
    } finally {
      timer.abort();
      this.#streams.delete(stream);
      if (this.#current === stream) this.#current = undefined;
    }
  }

  #limitSnapshotTime(stream: Stream): AbortController {
    const timer = new AbortController();
    sleep(this.#snapshotTimeoutMs, undefined, { signal: timer.signal, ref: false }).then(
      () =>
        stream.end(
          new RpcError(status.DEADLINE_EXCEEDED, `no snapshot within ${this.#snapshotTimeoutMs / 1000} s of the start`),
        ),
      () => undefined,
    );
    return timer;
  }

  /** Takes one message over. Runs alone; the stream may have been replaced while it waited. */
  async #take(stream: Stream, message: xmasq.v1.PodEvent): Promise<void> {
    stream.ended.throwIfAborted();
    const { snapshot, added, changed, removed } = message;
    if (!stream.synced && !snapshot) {
      throw invalidArgument('an event came before the snapshot; expected the snapshot as first message');
    }
    this.#counts.events++;
    if (snapshot) await this.#takeSnapshot(stream, snapshot);
    else if (added) await this.#takeAdded(stream, added);
    else if (changed) await this.#takeChanged(stream, changed);
    else if (removed) await this.#takeRemoved(stream, removed);
    else throw invalidArgument('an empty message; expected one of snapshot, added, changed, removed');
  }

  async #takeSnapshot(stream: Stream, message: xmasq.v1.Snapshot.$Properties): Promise<void> {
    if (stream.synced) throw invalidArgument('a second snapshot on one stream; expected a new stream for it');
    const pods = (message.pods ?? []).map((pod, index) => validatePod(pod, `pod ${index + 1} of the snapshot`));
    this.#registry.replace(pods);
    stream.synced = true;
    stream.summary.snapshotPods = pods.length;
    this.#current?.end(new RpcError(status.ABORTED, 'replaced by a newer stream, whose snapshot is in force now'));
    this.#current = stream;
    this.#synced = true;
    await this.#sink.snapshot(pods);
  }

  async #takeAdded(stream: Stream, message: xmasq.v1.Pod.$Properties): Promise<void> {
    const pod = validatePod(message, 'added pod');
    this.#registry.add(pod);
    stream.summary.added++;
    await this.#sink.added(pod);
  }

  async #takeChanged(stream: Stream, message: xmasq.v1.Pod.$Properties): Promise<void> {
    const pod = validatePod(message, 'changed pod');
    const previous = this.#registry.change(pod);
    stream.summary.changed++;
    await this.#sink.changed(pod, previous);
  }

  async #takeRemoved(stream: Stream, message: xmasq.v1.PodRef.$Properties): Promise<void> {
    const pod = this.#registry.remove(validatePodRef(message));
    if (pod === undefined) {
      stream.summary.ignored++;
      this.#counts.ignored++;
      return;
    }
    stream.summary.removed++;
    await this.#sink.removed(pod);
  }
}

function stopped(): RpcError {
  return new RpcError(status.UNAVAILABLE, 'the sidecar is stopping; connect again and send a snapshot');
}

/** The messages of a stream until the client ends it; throws the signal's reason as soon as it is aborted. */
async function* untilEnded<T>(call: AsyncIterable<T>, ended: AbortSignal): AsyncGenerator<T, void> {
  const iterator = call[Symbol.asyncIterator]();
  const aborted = new Promise<never>((_resolve, reject) => {
    ended.addEventListener('abort', () => reject(ended.reason as Error), { once: true });
  });
  aborted.catch(() => undefined);
  for (;;) {
    ended.throwIfAborted();
    const next = iterator.next();
    next.catch(() => undefined);
    const result = await Promise.race([next, aborted]);
    if (result.done === true) return;
    yield result.value;
  }
}
