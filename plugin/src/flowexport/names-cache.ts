import { decodeNames } from './decode-names.ts';
import { Interner } from './interner.ts';
import { Reader } from './protobuf.ts';
import type { RecordNames } from './record.ts';

/** Longer ones are decoded every time: an agent's have some 300 bytes. */
const MAX_KEY = 1024;

/**
 * The names of many records: all connections between the same pods by the same policies have the same bytes there, and share
 * what is made of them. Saves most of the work of decoding, and most of the memory. Bounded: when full, it begins anew.
 */
export class NamesCache {
  /** Strings of everything else, and of names that are not alike as a whole. */
  readonly interner = new Interner();
  readonly #names = new Map<string, RecordNames>();
  readonly #limit: number;

  constructor(limit = 8192) {
    this.#limit = limit;
  }

  /** @param raw a message `Kubernetes`. @throws Error as decodeNames() */
  of(raw: Buffer): RecordNames {
    const key = raw.length <= MAX_KEY ? raw.toString('latin1') : undefined;
    const known = key === undefined ? undefined : this.#names.get(key);
    if (known !== undefined) return known;
    const names = decodeNames(Reader.create(raw), raw.length, this.interner);
    if (key !== undefined) {
      if (this.#names.size >= this.#limit) this.#names.clear();
      this.#names.set(key, names);
    }
    return names;
  }
}
