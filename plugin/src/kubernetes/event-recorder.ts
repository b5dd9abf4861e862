import type { Log } from '../dataplane/ports.ts';
import type { ApiClient } from './api-client.ts';
import { ApiError, statusOf } from './api-error.ts';
import { Backoff, pause, type BackoffOptions } from './backoff.ts';

/** What people should know about this node. */
export interface NodeEvent {
  readonly type: 'Normal' | 'Warning';
  /** In UpperCamelCase, at most 128 characters. */
  readonly reason: string;
  /** Cut after 1024 characters. */
  readonly note: string;
}

export interface EventRecorderOptions {
  readonly api: ApiClient;
  readonly nodeName: string;
  readonly log: Log;
  readonly backoff?: BackoffOptions;
  /** Milliseconds; default Date.now. */
  readonly now?: () => number;
  /** Events that may be sent at once; default 20. */
  readonly burst?: number;
  /** Milliseconds until one more may be sent; default 30,000. */
  readonly refillMs?: number;
}

/** Events of a Node are in the namespace `default`, as the kubelet's. */
const PATH = '/apis/events.k8s.io/v1/namespaces/default/events';
const CONTROLLER = 'xmasq.antrea.io/agent';
const MAX_QUEUE = 64;
/** Of what was said before. */
const MAX_KNOWN = 128;
/** The same again within this time is counted in the same Event. */
const SERIES_MS = 30 * 60_000;
const MAX_NOTE = 1024;

interface Known {
  /** Of the Event; undefined: not created yet. */
  name?: string;
  count: number;
  lastMs: number;
  queued: boolean;
}

/**
 * Kubernetes Events about this node's degradations. The same again becomes a series of one Event; there is a limit in rate
 * and in number, and whatever is above it is dropped and counted: Events are a courtesy, the log has everything.
 */
export class EventRecorder {
  readonly counts = { sent: 0, repeated: 0, dropped: 0, failures: 0 };
  readonly #o: EventRecorderOptions;
  readonly #known = new Map<string, Known>();
  readonly #queue: { readonly event: NodeEvent; readonly known: Known }[] = [];
  readonly #stop = new AbortController();
  readonly #backoff: Backoff;
  #tokens: number;
  #refilledMs: number;
  #running: Promise<void> | undefined;

  constructor(options: EventRecorderOptions) {
    this.#o = options;
    this.#backoff = new Backoff(options.backoff);
    this.#tokens = options.burst ?? 20;
    this.#refilledMs = this.#now();
  }

  /** Says it as soon as possible; never throws, never waits. */
  emit(event: NodeEvent): void {
    if (this.#stop.signal.aborted) return;
    const known = this.#find(event);
    known.count++;
    known.lastMs = this.#now();
    // One that waits already will tell the number.
    if (known.queued) {
      this.counts.repeated++;
      return;
    }
    if (this.#queue.length >= MAX_QUEUE || !this.#takeToken()) {
      this.counts.dropped++;
      return;
    }
    known.queued = true;
    this.#queue.push({ event, known });
    this.#running ??= this.#send().finally(() => {
      this.#running = undefined;
    });
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }

  #stopped(): boolean {
    return this.#stop.signal.aborted;
  }

  #now(): number {
    return (this.#o.now ?? Date.now)();
  }

  #find(event: NodeEvent): Known {
    const key = keyOf(event);
    const found = this.#known.get(key);
    if (found !== undefined && this.#now() - found.lastMs < SERIES_MS) {
      // To the end: the oldest is the first to be forgotten.
      this.#known.delete(key);
      this.#known.set(key, found);
      return found;
    }
    const fresh = { count: 0, lastMs: 0, queued: false };
    this.#known.set(key, fresh);
    const [oldest] = this.#known.keys();
    if (this.#known.size > MAX_KNOWN && oldest !== undefined) this.#known.delete(oldest);
    return fresh;
  }

  #takeToken(): boolean {
    const { burst = 20, refillMs = 30_000 } = this.#o;
    const fresh = Math.floor((this.#now() - this.#refilledMs) / refillMs);
    if (fresh > 0) {
      this.#tokens = Math.min(burst, this.#tokens + fresh);
      this.#refilledMs += fresh * refillMs;
    }
    if (this.#tokens < 1) return false;
    this.#tokens--;
    return true;
  }

  async #send(): Promise<void> {
    for (let head = this.#queue[0]; head !== undefined && !this.#stopped(); head = this.#queue[0]) {
      try {
        await this.#put(head.event, head.known);
        this.counts.sent++;
        this.#backoff.reset();
      } catch (error) {
        if (this.#stopped()) return;
        this.counts.failures++;
        if (isTransient(error)) {
          const retryAfterMs = error instanceof ApiError ? (error.retryAfterMs ?? 0) : 0;
          await pause(Math.max(this.#backoff.next(), retryAfterMs), this.#stop.signal);
          continue;
        }
        this.#o.log.debug({ err: error, reason: head.event.reason }, 'the API takes no such Event');
      }
      this.#queue.shift();
      head.known.queued = false;
    }
  }

  async #put(event: NodeEvent, known: Known): Promise<void> {
    const { api } = this.#o;
    const { signal } = this.#stop;
    const at = microTime(known.lastMs);
    if (known.name !== undefined && known.count > 1) {
      try {
        const series = { count: known.count, lastObservedTime: at };
        const contentType = 'application/merge-patch+json';
        await api.call(`${PATH}/${known.name}`, { method: 'PATCH', contentType, body: { series }, signal });
        return;
      } catch (error) {
        // Events live for an hour only.
        if (statusOf(error) !== 404) throw error;
      }
    }
    const name = `${this.#o.nodeName}.${known.lastMs.toString(16)}${crypto.randomUUID().slice(0, 8)}`;
    await api.call(PATH, { method: 'POST', body: this.#object(name, event, at), signal });
    known.name = name;
  }

  #object(name: string, { type, reason, note }: NodeEvent, at: string): object {
    const { nodeName } = this.#o;
    return {
      apiVersion: 'events.k8s.io/v1',
      kind: 'Event',
      metadata: { name, namespace: 'default' },
      type,
      reason,
      note: note.slice(0, MAX_NOTE),
      action: 'Accelerating',
      eventTime: at,
      // As the kubelet does: `kubectl describe node` looks for Events whose uid is the name.
      regarding: { apiVersion: 'v1', kind: 'Node', name: nodeName, uid: nodeName },
      reportingController: CONTROLLER,
      reportingInstance: nodeName,
    };
  }
}

/** Whether it may go through later: no answer, overload, or the server's own trouble. */
function isTransient(error: unknown): boolean {
  const status = statusOf(error);
  return status === undefined || status === 401 || status === 429 || status >= 500;
}

function keyOf({ type, reason, note }: NodeEvent): string {
  return JSON.stringify([type, reason, note]);
}

/** MicroTime of Kubernetes. */
function microTime(ms: number): string {
  return new Date(ms).toISOString().replace(/Z$/, '000Z');
}
