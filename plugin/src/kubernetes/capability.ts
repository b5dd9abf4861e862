import type { Log } from '../dataplane/ports.ts';
import type { Capability } from '../state/cluster.ts';
import type { ApiClient } from './api-client.ts';
import { ApiError } from './api-error.ts';
import { Backoff, pause, type BackoffOptions } from './backoff.ts';
import { CAPABILITY_ANNOTATION, capabilityText } from './node-view.ts';

/** Between two patches, also where somebody undoes ours all the time. */
const MIN_INTERVAL_MS = 1000;

export interface CapabilityPublisherOptions {
  readonly api: ApiClient;
  /** Of our Node. */
  readonly path: string;
  readonly log: Log;
  readonly backoff?: BackoffOptions;
  /** A patch failed, or (undefined) went through. */
  trouble(error: unknown): void;
}

/** Keeps one annotation of our Node as it should be, by merge patches of nothing but that annotation. */
export class CapabilityPublisher {
  readonly #o: CapabilityPublisherOptions;
  readonly #stop = new AbortController();
  readonly #backoff: Backoff;
  /** Not yet asked for anything: what an earlier start published is left alone. */
  #wanted: { readonly text: string | undefined } | undefined;
  #present: string | undefined;
  #nodeExists = false;
  #running: Promise<void> | undefined;

  constructor(options: CapabilityPublisherOptions) {
    this.#o = options;
    this.#backoff = new Backoff(options.backoff);
  }

  /** From now on the annotation should say this; undefined: should not be there. */
  want(capability: Capability | undefined): void {
    this.#wanted = { text: capability === undefined ? undefined : capabilityText(capability) };
    this.#check();
  }

  /** The annotation as the API shows it. */
  seen(text: string | undefined, nodeExists: boolean): void {
    this.#present = text;
    this.#nodeExists = nodeExists;
    this.#check();
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }

  #isDue(): boolean {
    return (
      this.#wanted !== undefined &&
      this.#nodeExists &&
      this.#wanted.text !== this.#present &&
      !this.#stop.signal.aborted
    );
  }

  #check(): void {
    if (!this.#isDue()) return;
    this.#running ??= this.#publish().finally(() => {
      this.#running = undefined;
    });
  }

  async #publish(): Promise<void> {
    const { signal } = this.#stop;
    while (this.#isDue()) {
      const text = this.#wanted?.text;
      let wait = MIN_INTERVAL_MS;
      try {
        await this.#o.api.call(this.#o.path, {
          method: 'PATCH',
          contentType: 'application/merge-patch+json',
          body: { metadata: { annotations: { [CAPABILITY_ANNOTATION]: text ?? null } } },
          signal,
        });
        // The watch says so as well, later; if it says otherwise, somebody has changed it since.
        this.#present = text;
        this.#backoff.reset();
        this.#o.log.info({ capability: text ?? 'none' }, "this node's capability is published");
        this.#o.trouble(undefined);
      } catch (error) {
        if (signal.aborted) return;
        this.#o.trouble(error);
        wait = Math.max(wait, this.#backoff.next(), error instanceof ApiError ? (error.retryAfterMs ?? 0) : 0);
      }
      await pause(wait, signal);
    }
  }
}
