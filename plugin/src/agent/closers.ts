import { monotonic, type Log } from '../dataplane/ports.ts';
import { Throttle } from '../dataplane/throttle.ts';
import { repeat } from '../util/repeat.ts';

/** Everything that has to be ended, in reverse order of its beginning. */
export class Closers {
  readonly #closers: (() => unknown)[] = [];
  readonly #throttle = new Throttle(monotonic);

  add(close: () => unknown): void {
    this.#closers.push(close);
  }

  /** Calls `work` again and again; an exception is logged and does not end it. */
  every(ms: number, log: Log, what: string, work: () => unknown): void {
    const turn = (): void => {
      void Promise.resolve()
        .then(work)
        .catch((error: unknown) => {
          if (this.#throttle.allows(what)) log.error({ err: error }, `${what} failed; it is tried again`);
        });
    };
    this.add(repeat(ms, turn, true));
  }

  async closeAll(log: Log): Promise<void> {
    for (let close = this.#closers.pop(); close !== undefined; close = this.#closers.pop()) {
      try {
        await close();
      } catch (error) {
        log.warn({ err: error }, 'while stopping');
      }
    }
  }
}
