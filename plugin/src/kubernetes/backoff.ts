/** Growing pauses between tries. */
export interface BackoffOptions {
  /** Milliseconds before the second try; default 500. */
  readonly firstMs?: number;
  /** The longest pause in milliseconds; default 30,000. */
  readonly maxMs?: number;
  /** 0 to 1; default Math.random. */
  readonly random?: () => number;
}

/**
 * Doubles from try to try up to a limit. Half of each pause is random: the sidecars of a whole cluster lose an API server
 * at the same time and must not come back at the same time.
 */
export class Backoff {
  readonly #firstMs: number;
  readonly #maxMs: number;
  readonly #random: () => number;
  #failures = 0;

  constructor(options: BackoffOptions = {}) {
    this.#firstMs = options.firstMs ?? 500;
    this.#maxMs = options.maxMs ?? 30_000;
    this.#random = options.random ?? Math.random;
  }

  /** Failures in a row. */
  get failures(): number {
    return this.#failures;
  }

  /** Counts a failure. @returns milliseconds to wait */
  next(): number {
    const full = Math.min(this.#maxMs, this.#firstMs * 2 ** Math.min(this.#failures, 30));
    this.#failures++;
    return Math.round(full * (0.5 + this.#random() / 2));
  }

  /** It works again. */
  reset(): void {
    this.#failures = 0;
  }
}

/** Resolves after `ms`, or at once when `signal` is aborted. Never rejects; does not keep the process alive. */
export function pause(ms: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const done = (): void => {
      clearTimeout(timer);
      signal.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    timer.unref();
    signal.addEventListener('abort', done);
  });
}
