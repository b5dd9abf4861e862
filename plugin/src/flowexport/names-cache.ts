import { decodeNames } from './decode-names.ts';
import { Interner } from './interner.ts';
import type { Reader } from './protobuf.ts';
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

  /** Reads the message `Kubernetes` that begins where the reader stands. @param end where it ends. @throws Error as decodeNames() */
  read(reader: Reader, end: number): RecordNames {
    const from = reader.pos;
    const key = end - from <= MAX_KEY ? (reader.buf as Buffer).toString('latin1', from, end) : undefined;
    const known = key === undefined ? undefined : this.#names.get(key);
    if (known !== undefined) {
      reader.pos = end;
      return known;
    }
    const names = decodeNames(reader, end, this.interner);
    if (key !== undefined) {
      if (this.#names.size >= this.#limit) this.#names.clear();
      this.#names.set(key, names);
    }
    return names;
  }
}
