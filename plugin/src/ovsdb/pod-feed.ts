import type { Log } from '../dataplane/ports.ts';
import type { Throttle } from '../dataplane/throttle.ts';
import type { Pod, PodEventSink } from '../grpc/backend.ts';

export interface PodFeedOptions {
  readonly sink: PodEventSink;
  readonly log: Log;
  readonly throttle: Throttle;
  /** Milliseconds until a snapshot follows what the sink rejected. */
  readonly retryMs: number;
  /** The sink has taken over all that was wanted. */
  readonly onIdle: () => void;
}

/**
 * Brings a sink to the pods that are wanted, one call at a time. However fast these change and however slow the sink is, only
 * the latest ones are kept.
 */
export class PodFeed {
  readonly #o: PodFeedOptions;
  #wanted: ReadonlyMap<string, Pod> = new Map();
  /** What the sink was told; undefined: a snapshot is needed. */
  #told: Map<string, Pod> | undefined;
  #dirty = false;
  #stopped = false;
  #running: Promise<void> | undefined;
  #retry: NodeJS.Timeout | undefined;

  constructor(options: PodFeedOptions) {
    this.#o = options;
  }

  /** These are all pods from now on, by container ID. */
  want(pods: ReadonlyMap<string, Pod>): void {
    this.#wanted = pods;
    this.#dirty = true;
    this.#wake();
  }

  /** Tells nothing any more; resolves once no call is under way. */
  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#retry);
    await this.#running;
  }

  #wake(): void {
    if (this.#running !== undefined || this.#stopped) return;
    clearTimeout(this.#retry);
    this.#running = this.#run().finally(() => {
      this.#running = undefined;
      if (this.#dirty) this.#wake();
    });
  }

  /** Never rejects. */
  async #run(): Promise<void> {
    const { log, throttle, retryMs, onIdle } = this.#o;
    while (this.#dirty && !this.#stopped) {
      this.#dirty = false;
      try {
        await this.#bring();
      } catch (error) {
        // What it has taken over is not known.
        this.#told = undefined;
        if (throttle.allows('pods')) log.error({ err: error }, 'pods could not be taken over; they are told again');
        this.#retry = setTimeout(() => {
          this.#dirty = true;
          this.#wake();
        }, retryMs);
        this.#retry.unref();
        return;
      }
      if (!this.#isDirty()) onIdle();
    }
  }

  /** May have become so while the sink worked. */
  #isDirty(): boolean {
    return this.#dirty;
  }

  async #bring(): Promise<void> {
    const { sink } = this.#o;
    const wanted = this.#wanted;
    const told = this.#told;
    if (told === undefined) {
      await sink.snapshot([...wanted.values()]);
      this.#told = new Map(wanted);
      return;
    }
    // Removals first: an address or an interface may have gone to another pod.
    for (const [id, pod] of [...told]) {
      if (wanted.has(id)) continue;
      await sink.removed(pod);
      told.delete(id);
    }
    for (const [id, pod] of wanted) {
      const before = told.get(id);
      if (before !== undefined && samePod(before, pod)) continue;
      await (before === undefined ? sink.added(pod) : sink.changed(pod, before));
      told.set(id, pod);
    }
  }
}

/** True if nothing of the pod differs. */
function samePod(a: Pod, b: Pod): boolean {
  return (
    a === b ||
    (a.containerId === b.containerId &&
      a.namespace === b.namespace &&
      a.name === b.name &&
      a.ifName === b.ifName &&
      a.mac === b.mac &&
      a.ips.join() === b.ips.join())
  );
}
