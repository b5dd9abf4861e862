import { isDeepStrictEqual } from 'node:util';
import type { Log } from '../dataplane/ports.ts';
import type { ApiClient } from './api-client.ts';
import { ApiError, statusOf } from './api-error.ts';
import { Backoff, pause, type BackoffOptions } from './backoff.ts';
import { listPages } from './list.ts';
import { objectKey, type KubeObject, type WatchEvent } from './objects.ts';

/** What became of one object. `before` absent: it is new; `after` absent: it is gone. */
export interface Change<T> {
  readonly key: string;
  readonly before?: T;
  readonly after?: T;
}

/** Times of following; the defaults are for real clusters. */
export interface FollowTimes {
  /** Milliseconds that changes are collected for; default 20. */
  readonly batchMs?: number;
  /** Objects a page; default 500. */
  readonly pageSize?: number;
  /** Milliseconds between looks for a CRD that is not installed; default 60,000. */
  readonly missingMs?: number;
  /** Milliseconds without a byte (bookmarks come once a minute) until a watch is taken for dead; default 150,000. */
  readonly idleMs?: number;
  /** Seconds that the server is asked to hold a watch; random between this and twice as much; default 300. */
  readonly holdSeconds?: number;
  readonly backoff?: BackoffOptions;
}

export interface ReflectorOptions<T> extends FollowTimes {
  readonly api: ApiClient;
  /** E.g. `/api/v1/nodes`. */
  readonly path: string;
  /** Selectors. */
  readonly query?: Readonly<Record<string, string>>;
  /** A CRD that may not be installed: 404 then means that there are no objects, and 403 is no reason to wait (`refused`). */
  readonly optional?: boolean;
  /** Counts go on where another reflector has stopped. */
  readonly counts?: ReflectorCounts;
  /** What is kept of an object; undefined: nothing, as if there were none. May throw: the object is skipped and counted. */
  project(object: KubeObject): T | undefined;
  /**
   * Called once after the first list, also when there is nothing, and then for each batch of changes. Must not throw.
   */
  changed(changes: readonly Change<T>[]): void;
  /** A failure appeared, or (undefined) is over. The first one in a row is not told: servers restart. */
  trouble?(error: unknown): void;
  readonly log: Log;
}

/** Sums of what following one kind took. */
export interface ReflectorCounts {
  lists: number;
  watches: number;
  events: number;
  /** Objects that could not be read. */
  skipped: number;
  /** Answers other than the wanted one, and none at all. */
  failures: number;
  /** ... of these, those that said how long to wait (429 and others). */
  throttled: number;
  /** The server no longer knew our version. */
  gone: number;
  /** Attempts after one of these. */
  retries: number;
}

/** Nothing has happened. */
export function zeroCounts(): ReflectorCounts {
  return { lists: 0, watches: 0, events: 0, skipped: 0, failures: 0, throttled: 0, gone: 0, retries: 0 };
}

/** How one kind is followed, for metrics. */
export interface FollowedKind {
  /** As in paths: `pods`, `trafficcontrols` ... */
  readonly kind: string;
  readonly counts: Readonly<ReflectorCounts>;
  /** Of which something is kept. */
  readonly objects: number;
  /** Whether there was a first list. */
  readonly synced: boolean;
}

/** A watch that ends sooner counts as a failure: a server that hangs up at once must not be called all the time. */
const SHORT_WATCH_MS = 1000;

/**
 * Follows one kind of object: paged lists, then watches with bookmarks from version to version. Of each object only its
 * projection is kept. While the API is away the last state stays in force; after a new list only differences are told.
 */
export class Reflector<T> {
  readonly counts: ReflectorCounts;
  readonly #o: ReflectorOptions<T>;
  readonly #items = new Map<string, T>();
  /** Keys that changed since `changed` was called, with what was told last. */
  readonly #pending = new Map<string, T | undefined>();
  readonly #stop = new AbortController();
  readonly #backoff: Backoff;
  #version: string | undefined;
  #flush: NodeJS.Timeout | undefined;
  #synced = false;
  #missing = false;
  #refused = false;
  #troubled = false;
  #running: Promise<void> | undefined;

  constructor(options: ReflectorOptions<T>) {
    this.#o = options;
    this.counts = options.counts ?? zeroCounts();
    this.#backoff = new Backoff(options.backoff);
  }

  /** Projections by key (`namespace/name`, or name). */
  get items(): ReadonlyMap<string, T> {
    return this.#items;
  }

  /** Whether there was a first list. */
  get synced(): boolean {
    return this.#synced;
  }

  /** Whether the kind is not known to the API server (optional ones only). */
  get missing(): boolean {
    return this.#missing;
  }

  /**
   * Whether the server refuses to say what there is of an optional kind, and has never said it. `changed` is called, without
   * changes, when this begins.
   */
  get refused(): boolean {
    return this.#refused;
  }

  /** For metrics. */
  get info(): FollowedKind {
    const kind = this.#o.path.slice(this.#o.path.lastIndexOf('/') + 1);
    return { kind, counts: this.counts, objects: this.#items.size, synced: this.#synced };
  }

  /** Begins; never throws. */
  start(): void {
    this.#running ??= this.#run();
  }

  /** Resolves when nothing is called any more. */
  async stop(): Promise<void> {
    this.#stop.abort();
    clearTimeout(this.#flush);
    this.#flush = undefined;
    await this.#running;
  }

  #stopped(): boolean {
    return this.#stop.signal.aborted;
  }

  async #run(): Promise<void> {
    while (!this.#stopped()) {
      try {
        if (this.#version === undefined) await this.#list();
        await this.#watch();
      } catch (error) {
        if (!this.#stopped()) await this.#recover(error);
      }
    }
  }

  async #list(): Promise<void> {
    const { api, path, query = {}, pageSize = 500 } = this.#o;
    const fresh = new Map<string, T>();
    const version = await listPages({ api, path, query, pageSize, signal: this.#stop.signal }, (object) => {
      const value = this.#project(object);
      if (value === undefined) return;
      // What is the same is not kept twice: most of a later list is garbage at once, which costs no memory.
      const known = this.#items.get(objectKey(object));
      fresh.set(objectKey(object), isDeepStrictEqual(known, value) ? (known ?? value) : value);
    });
    this.counts.lists++;
    this.#missing = false;
    this.#refused = false;
    this.#replace(fresh);
    this.#version = version;
  }

  async #watch(): Promise<void> {
    const { api, path, query, idleMs = 150_000, holdSeconds = 300 } = this.#o;
    const begun = Date.now();
    await api.watch(path, {
      query: {
        ...query,
        resourceVersion: this.#version,
        allowWatchBookmarks: 'true',
        timeoutSeconds: String(Math.round(holdSeconds * (1 + Math.random()))),
      },
      idleMs,
      signal: this.#stop.signal,
      opened: () => {
        this.counts.watches++;
        this.#fine();
      },
      event: (event) => this.#event(event),
    });
    if (Date.now() - begun < SHORT_WATCH_MS) throw new Error('the API server ended the watch at once');
    this.#backoff.reset();
  }

  #event({ type, object }: WatchEvent): void {
    if (type === 'ERROR') throw new ApiError(object.code ?? 500, object.message ?? 'the watch failed');
    const version = object.metadata?.resourceVersion;
    if (type !== 'BOOKMARK') {
      this.counts.events++;
      this.#backoff.reset();
      this.#set(objectKey(object), type === 'DELETED' ? undefined : this.#project(object));
    }
    if (version !== undefined) this.#version = version;
  }

  async #recover(error: unknown): Promise<void> {
    const { signal } = this.#stop;
    const status = statusOf(error);
    if (status === 404 && this.#o.optional === true) {
      if (!this.#missing) this.#o.log.info({ path: this.#o.path }, 'not installed; looked for again from time to time');
      this.#missing = true;
      this.#refused = false;
      this.#version = undefined;
      this.#replace(new Map());
      this.#fine();
      await pause(this.#o.missingMs ?? 60_000, signal);
      return;
    }
    if (status === 410) {
      // The state is older than all the server remembers. That of every node in the cluster is: not all at once.
      this.#version = undefined;
      this.counts.gone++;
    } else {
      this.counts.failures++;
      if (this.#backoff.failures > 0) this.#trouble(error);
      if (status === 403) this.#refuse();
    }
    const retryAfterMs = error instanceof ApiError ? error.retryAfterMs : undefined;
    if (retryAfterMs !== undefined) this.counts.throttled++;
    await pause(Math.max(this.#backoff.next(), retryAfterMs ?? 0), signal);
    if (!this.#stopped()) this.counts.retries++;
  }

  #refuse(): void {
    if (this.#o.optional !== true || this.#synced || this.#refused) return;
    this.#refused = true;
    this.#o.changed([]);
  }

  #trouble(error: unknown): void {
    if (!this.#troubled) this.#o.log.warn({ err: error, path: this.#o.path }, 'cannot follow the Kubernetes API');
    this.#troubled = true;
    this.#o.trouble?.(error);
  }

  #fine(): void {
    if (!this.#troubled) return;
    this.#troubled = false;
    this.#o.log.info({ path: this.#o.path }, 'following the Kubernetes API again');
    this.#o.trouble?.(undefined);
  }

  #project(object: KubeObject): T | undefined {
    try {
      return this.#o.project(object);
    } catch (error) {
      this.counts.skipped++;
      this.#o.log.debug({ err: error, key: objectKey(object) }, 'object skipped');
      return undefined;
    }
  }

  /** Makes the items these, by differences. */
  #replace(fresh: ReadonlyMap<string, T>): void {
    for (const key of [...this.#items.keys()]) if (!fresh.has(key)) this.#set(key, undefined);
    for (const [key, value] of fresh) this.#set(key, value);
    if (this.#synced) return;
    this.#synced = true;
    this.#tell();
  }

  #set(key: string, after: T | undefined): void {
    const before = this.#items.get(key);
    if (before === after || isDeepStrictEqual(before, after)) return;
    if (after === undefined) this.#items.delete(key);
    else this.#items.set(key, after);
    if (!this.#pending.has(key)) this.#pending.set(key, before);
    if (this.#synced) this.#flush ??= setTimeout(() => this.#tell(), this.#o.batchMs ?? 20);
  }

  #tell(): void {
    clearTimeout(this.#flush);
    this.#flush = undefined;
    const changes: Change<T>[] = [];
    for (const [key, before] of this.#pending) {
      const after = this.#items.get(key);
      // There and back within a batch is no change.
      if (isDeepStrictEqual(before, after)) continue;
      changes.push({ key, ...(before !== undefined && { before }), ...(after !== undefined && { after }) });
    }
    this.#pending.clear();
    if (!this.#stopped()) this.#o.changed(changes);
  }
}
