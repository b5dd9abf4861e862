/**
 * Numbers 1..max for endpoints or peers. A freed number is given out again as late as possible: packets and map entries
 * that still carry it then find it unused, not another's.
 */
export class IdPool {
  readonly #free: number[];
  readonly #used = new Set<number>();
  /** Index of the next free number in #free; what is before it was given out. */
  #head = 0;

  /**
   * @param max largest number
   * @param used numbers that are taken already
   * @param order sorts the free numbers: those with the lowest value are given out first
   */
  constructor(max: number, used: Iterable<number> = [], order: (id: number) => number = (id) => id) {
    for (const id of used) this.#used.add(id);
    this.#free = Array.from({ length: max }, (_, i) => i + 1)
      .filter((id) => !this.#used.has(id))
      .sort((a, b) => order(a) - order(b) || a - b);
  }

  /** Numbers in use. */
  get used(): number {
    return this.#used.size;
  }

  /** The number that has been free for longest, or undefined when all are taken. */
  take(): number | undefined {
    const id = this.#free[this.#head];
    if (id === undefined) return undefined;
    this.#head++;
    if (this.#head > 1024) {
      this.#free.splice(0, this.#head);
      this.#head = 0;
    }
    this.#used.add(id);
    return id;
  }

  /** Gives a number back; one that is free already is left alone. */
  release(id: number): void {
    if (this.#used.delete(id)) this.#free.push(id);
  }
}
