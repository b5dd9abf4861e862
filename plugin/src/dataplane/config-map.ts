import { randomBytes } from 'node:crypto';
import { LAYOUT_VERSION, type DataPlaneConfig } from './layout.ts';
import type { ArrayTable, Clock } from './ports.ts';

/** The single element of map `config`: what the sidecar tells the programs. */
export class ConfigMap {
  readonly #table: ArrayTable<DataPlaneConfig>;

  /**
   * Completes what a first start finds empty: layout version, magic, the time since when there are flows. What is there
   * is kept: the magic is on packets that are in queues now.
   */
  constructor(table: ArrayTable<DataPlaneConfig>, now: Clock) {
    this.#table = table;
    const before = table.get(0);
    if (before.layoutVersion === LAYOUT_VERSION && before.magic.every((word) => word !== 0)) return;
    this.update({ layoutVersion: LAYOUT_VERSION, magic: randomMagic(), flags: 0, stateSince: now() });
  }

  get(): DataPlaneConfig {
    return this.#table.get(0);
  }

  /** Changes some fields; writes only if something changes. */
  update(fields: Partial<DataPlaneConfig>): void {
    const before = this.get();
    const after = { ...before, ...fields };
    const changed = (Object.keys(fields) as (keyof DataPlaneConfig)[]).some(
      (field) => String(before[field]) !== String(after[field]),
    );
    if (changed) this.#table.set(0, after);
  }

  /** Sets and clears bits of ConfigFlag. */
  setFlags(set: number, clear = 0): void {
    this.update({ flags: (this.get().flags & ~clear) | set });
  }

  /** True when all of these bits are set. */
  has(flags: number): boolean {
    return (this.get().flags & flags) === flags;
  }
}

/** Four words, none of them zero: zero is what skb->cb holds by itself. */
function randomMagic(): number[] {
  const words = Array.from({ length: 4 }, () => randomBytes(4).readUInt32LE());
  return words.every((word) => word !== 0 && word !== 0xffffffff) ? words : randomMagic();
}
