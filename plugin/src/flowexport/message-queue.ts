/** Messages that wait, the oldest dropped when there are too many: a collector wants the present state. */
export class MessageQueue {
  readonly #messages: (Buffer | undefined)[];
  #head = 0;
  #length = 0;
  #dropped = 0;

  /** @param limit messages, at least 1 */
  constructor(limit: number) {
    this.#messages = new Array<Buffer | undefined>(limit).fill(undefined);
  }

  get length(): number {
    return this.#length;
  }

  /** Messages dropped since the start. */
  get dropped(): number {
    return this.#dropped;
  }

  push(message: Buffer): void {
    if (this.#length === this.#messages.length) {
      this.shift();
      this.#dropped++;
    }
    this.#messages[(this.#head + this.#length) % this.#messages.length] = message;
    this.#length++;
  }

  /** Takes the oldest message. */
  shift(): Buffer | undefined {
    if (this.#length === 0) return undefined;
    const message = this.#messages[this.#head];
    this.#messages[this.#head] = undefined;
    this.#head = (this.#head + 1) % this.#messages.length;
    this.#length--;
    return message;
  }
}
