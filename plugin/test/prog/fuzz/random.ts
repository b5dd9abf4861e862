/** Pseudo-random numbers from a seed, so that every finding can be repeated. */
export class Random {
  #a: number;

  /** @param seed 32 bits */
  constructor(seed: number) {
    this.#a = seed >>> 0;
  }

  /** 32 random bits (mulberry32). */
  u32(): number {
    this.#a = (this.#a + 0x6d2b79f5) >>> 0;
    let t = this.#a;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (t ^ (t >>> 14)) >>> 0;
  }

  /** An integer from 0 to `bound`, exclusive. */
  below(bound: number): number {
    return this.u32() % bound;
  }

  /** True with a probability of `percent`. */
  chance(percent: number): boolean {
    return this.below(100) < percent;
  }

  /** One of the items. */
  pick<T>(items: readonly T[]): T {
    const item = items[this.below(items.length)];
    if (item === undefined) throw new RangeError('nothing to pick from');
    return item;
  }

  /** Fills a range with random bytes. */
  fill(bytes: Buffer, start: number, end: number): void {
    for (let at = start; at < end; at++) bytes[at] = this.u32();
  }
}

/** Seed from XMASQ_FUZZ_SEED, or a new one; number of packets per program from XMASQ_FUZZ_COUNT. */
export function fuzzSettings(): { readonly seed: number; readonly count: number } {
  const { XMASQ_FUZZ_SEED: seed, XMASQ_FUZZ_COUNT: count } = process.env;
  const settings = {
    seed: seed === undefined ? (Date.now() ^ (process.pid << 16)) >>> 0 : Number(seed),
    count: count === undefined ? 100_000 : Number(count),
  };
  for (const [name, value] of Object.entries(settings)) {
    if (!Number.isInteger(value) || value < 0 || value > 0xffffffff) throw new RangeError(`fuzz ${name}: ${value}`);
  }
  return settings;
}
