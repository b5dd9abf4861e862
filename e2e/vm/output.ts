/** The last bytes of a stream, so that a talkative process cannot fill the host's memory. */
export class OutputTail {
  readonly #limit: number;
  #chunks: Buffer[] = [];
  #kept = 0;
  #total = 0;

  /** @param limit bytes kept; the oldest go first */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Bytes seen, kept or not. */
  get total(): number {
    return this.#total;
  }

  /** True when something had to be dropped. */
  get truncated(): boolean {
    return this.#total > this.#kept;
  }

  /** Adds bytes. */
  push(chunk: Buffer): void {
    this.#chunks.push(chunk);
    this.#kept += chunk.length;
    this.#total += chunk.length;
    if (this.#kept <= this.#limit * 2) return;
    // Trimming at twice the limit makes the copying cheap.
    const tail = this.#tail();
    this.#chunks = [tail];
    this.#kept = tail.length;
  }

  #tail(): Buffer {
    const all = Buffer.concat(this.#chunks);
    return all.subarray(Math.max(0, all.length - this.#limit));
  }

  /** What is kept. */
  bytes(): Buffer {
    return this.#tail();
  }

  /** What is kept, as UTF-8. */
  text(): string {
    return this.#tail().toString();
  }
}
