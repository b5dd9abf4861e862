/** Messages of one stream in one turn of the event loop. */
const STREAM_TURN = 64;
/** Messages of all streams in one turn: some milliseconds of work. */
const TURN = 512;

/** The part of a stream that is used here. */
interface Pausable {
  pause(): unknown;
  resume(): unknown;
}

/**
 * Shares the event loop between streams, and leaves the rest of the sidecar its turns. Nothing is queued: a paused stream
 * is not read, and HTTP/2 stops its sender once the window is full.
 */
export class Intake {
  readonly #turns = new Map<Pausable, number>();
  readonly #paused = new Set<Pausable>();
  #total = 0;
  #pauses = 0;

  /** Times that a stream had to wait. */
  get pauses(): number {
    return this.#pauses;
  }

  /** Counts a message of the stream; pauses the stream until the next turn where that was enough. */
  count(stream: Pausable): void {
    if (this.#turns.size === 0) setImmediate(() => this.#nextTurn());
    const taken = (this.#turns.get(stream) ?? 0) + 1;
    this.#turns.set(stream, taken);
    this.#total++;
    if ((taken < STREAM_TURN && this.#total < TURN) || this.#paused.has(stream)) return;
    stream.pause();
    this.#paused.add(stream);
    this.#pauses++;
  }

  /** The stream has ended. */
  forget(stream: Pausable): void {
    this.#paused.delete(stream);
  }

  #nextTurn(): void {
    this.#turns.clear();
    this.#total = 0;
    const paused = [...this.#paused];
    this.#paused.clear();
    for (const stream of paused) stream.resume();
  }
}
