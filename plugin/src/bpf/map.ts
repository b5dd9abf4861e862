/** Typed access to maps with one value per key (hash, LRU hash, LPM trie, array). */
import { createMapRef, BPFError, RawMap, type MapRef } from 'bpf';
import { BpfError, check, ClosedError, Errno } from './errors.ts';
import type { Codec } from './codec.ts';
import { openPinned } from './fd.ts';
import { mapInfo, MapType, type MapInfo } from './info.ts';
import { libbpf } from './libbpf.ts';

/** Where a map is: a pin, or a descriptor that stays the caller's. */
export type MapSource = { readonly path: string } | { readonly fd: number };

/** BPF_ANY, BPF_NOEXIST, BPF_EXIST. */
export type UpdateMode = 'any' | 'create' | 'update';
const UPDATE_FLAGS: Readonly<Record<UpdateMode, number>> = { any: 0, create: 1, update: 2 };

/** Per-CPU values have another size than the kernel reports: a lookup would write beyond the buffer. */
const HASH_TYPES: ReadonlySet<number> = new Set([MapType.HASH, MapType.LRU_HASH, MapType.LPM_TRIE]);
const ARRAY_TYPES: ReadonlySet<number> = new Set([MapType.ARRAY]);
/** Entries per batch call. The first one is small: most maps are walked every second, and hold little most of the time. */
const BATCH = 512;
const FIRST_BATCH = 32;
/** ... where a hash bucket holds more than a batch. */
const MAX_BATCH = 1 << 16;
/** The batch cursor is 4 bytes for hash maps, or one key. */
const MIN_CURSOR_BYTES = 4;

function describe(source: MapSource): string {
  return 'path' in source ? source.path : `descriptor ${source.fd}`;
}

/** The parts that hash-like maps and arrays share; owns the map's descriptor. */
abstract class MapBase {
  /** For messages. */
  protected readonly where: string;
  readonly info: MapInfo;
  #ref: MapRef | undefined;
  readonly #raw: RawMap;

  protected constructor(source: MapSource, types: ReadonlySet<number>, keySize: number, valueSize: number) {
    this.where = `map ${describe(source)}`;
    const owned = 'path' in source ? openPinned(source.path) : undefined;
    try {
      const fd = owned?.fd ?? (source as { fd: number }).fd;
      this.info = mapInfo(fd);
      const { type } = this.info;
      if (!types.has(type)) throw new TypeError(`${this.where}: map type ${type} is not usable here`);
      if (this.info.keySize !== keySize || this.info.valueSize !== valueSize) {
        throw new RangeError(
          `${this.where} has ${this.info.keySize}-byte keys and ${this.info.valueSize}-byte values, ` +
            `the codecs have ${keySize} and ${valueSize}: layouts and BPF object are of different builds`,
        );
      }
      // Duplicates the descriptor.
      this.#ref = createMapRef(fd);
    } finally {
      owned?.close();
    }
    this.#raw = new RawMap(this.#ref);
  }

  /** @throws ClosedError after close() */
  get fd(): number {
    if (this.#ref === undefined) throw new ClosedError(this.where);
    return this.#ref.fd;
  }

  /** Drops the descriptor; a second call does nothing. */
  close(): void {
    this.#ref?.close();
    this.#ref = undefined;
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /**
   * Entries as bytes, in batches.
   * @param bound entries after which the walk ends
   * @returns false, with nothing yielded, where the kernel has no batches for this map
   */
  protected *batches(bound: number): Generator<[Buffer, Buffer], boolean> {
    if (this.info.type === MapType.LPM_TRIE) return false;
    const { keySize, valueSize } = this.info;
    const operation = `iterate ${this.where}`;
    let size = Math.min(FIRST_BATCH, Math.max(1, this.info.maxEntries));
    let cursor: Buffer | null = null;
    for (let seen = 0; seen < bound;) {
      const next = Buffer.alloc(Math.max(keySize, MIN_CURSOR_BYTES));
      const keys = Buffer.alloc(size * keySize);
      const values = Buffer.alloc(size * valueSize);
      const count = u32(size);
      const rc = libbpf().bpf_map_lookup_batch(this.fd, cursor, next, keys, values, count, null);
      if (cursor === null && isUnsupported(rc)) return false;
      if (rc === -Errno.ENOSPC && size < MAX_BATCH) {
        // One hash bucket holds more than a whole batch; nothing was copied.
        size *= 2;
        continue;
      }
      // ENOENT marks the end and comes with the last entries.
      if (rc !== -Errno.ENOENT) check(operation, rc);
      const got = Math.min(count.readUInt32LE(), size);
      for (let i = 0; i < got; i++) {
        yield [keys.subarray(i * keySize, (i + 1) * keySize), values.subarray(i * valueSize, (i + 1) * valueSize)];
      }
      if (rc === -Errno.ENOENT) return true;
      seen += Math.max(got, 1);
      cursor = next;
      size = Math.max(size, BATCH);
    }
    return true;
  }

  protected call<T>(operation: string, run: (raw: RawMap) => T): T {
    if (this.#ref === undefined) throw new ClosedError(this.where);
    try {
      return run(this.#raw);
    } catch (error) {
      if (error instanceof BPFError) throw new BpfError(`${operation} in ${this.where}`, error.errno);
      throw error;
    }
  }
}

/**
 * A hash, LRU hash or LPM trie map.
 *
 * Iteration sees a consistent entry each time but no snapshot of the map: the data plane changes it meanwhile. Walks
 * are bounded by the map's size, so they end whatever happens.
 */
export class HashMap<K, V> extends MapBase {
  readonly #key: Codec<K>;
  readonly #value: Codec<V>;

  /**
   * @throws BpfError ENOENT where nothing is pinned
   * @throws RangeError where the codecs' sizes are not the map's
   * @throws TypeError for per-CPU and other kinds of maps
   */
  constructor(source: MapSource, key: Codec<K>, value: Codec<V>) {
    super(source, HASH_TYPES, key.size, value.size);
    this.#key = key;
    this.#value = value;
  }

  get(key: K): V | undefined {
    const value = this.call('get', (raw) => raw.get(this.#key.encode(key)));
    return value === undefined ? undefined : this.#value.decode(value);
  }

  has(key: K): boolean {
    return this.call('get', (raw) => raw.has(this.#key.encode(key)));
  }

  /** @throws BpfError full (see isFull); EEXIST for 'create', ENOENT for 'update' */
  set(key: K, value: V, mode: UpdateMode = 'any'): void {
    this.call('set', (raw) => raw.set(this.#key.encode(key), this.#value.encode(value), UPDATE_FLAGS[mode]));
  }

  /** @returns false where there was no such key */
  delete(key: K): boolean {
    return this.call('delete', (raw) => raw.delete(this.#key.encode(key)));
  }

  /** All entries; in batches where the kernel can. An entry that changes place meanwhile may come twice or not at all. */
  *entries(): Generator<[K, V]> {
    for (const [key, value] of this.#rawEntries()) yield [this.#key.decode(key), this.#value.decode(value)];
  }

  /** All keys, as entries() does. */
  *keys(): Generator<K> {
    for (const [key] of this.#rawEntries()) yield this.#key.decode(key);
  }

  /** Number of entries, by walking. */
  count(): number {
    let count = 0;
    const walk = this.#rawEntries();
    while (walk.next().done !== true) count++;
    return count;
  }

  /**
   * Writes many entries; stops at the first that fails.
   * @throws BpfError
   */
  setMany(entries: Iterable<readonly [K, V]>): void {
    for (const chunk of chunks(entries, BATCH)) {
      const keys = Buffer.concat(chunk.map(([key]) => this.#key.encode(key)));
      const values = Buffer.concat(chunk.map(([, value]) => this.#value.encode(value)));
      const rc = libbpf().bpf_map_update_batch(this.fd, keys, values, u32(chunk.length), null);
      if (isUnsupported(rc)) for (const [key, value] of chunk) this.set(key, value);
      else check(`set ${chunk.length} entries in ${this.where}`, rc);
    }
  }

  /** Deletes many keys; those that are not there are skipped. @returns the number deleted */
  deleteMany(keys: Iterable<K>): number {
    // One by one: the batch command stops at the first key that the data plane has evicted meanwhile.
    let deleted = 0;
    for (const key of keys) deleted += this.delete(key) ? 1 : 0;
    return deleted;
  }

  /**
   * Deletes the entries that match. @returns the number deleted
   * The decision may be old by a moment when the deletion happens.
   */
  deleteWhere(match: (key: K, value: V) => boolean): number {
    const keys: K[] = [];
    for (const [key, value] of this.entries()) if (match(key, value)) keys.push(key);
    return this.deleteMany(keys);
  }

  /** Deletes all entries. @returns the number deleted */
  clear(): number {
    return this.deleteWhere(() => true);
  }

  *#rawEntries(): Generator<[Buffer, Buffer]> {
    // Twice the size: growth during the walk is seen, endless churn is not.
    let left = 2 * this.info.maxEntries;
    const seenInBatches = yield* this.batches(left);
    if (seenInBatches) return;
    // A trie, or no batches: the next key of one that is gone is the first again, hence the bound.
    let key = this.call('iterate', (raw) => raw.getNextKey());
    while (key !== undefined && left-- > 0) {
      const current: Buffer = key;
      key = this.call('iterate', (raw) => raw.getNextKey(current));
      const value = this.call('get', (raw) => raw.get(current));
      if (value !== undefined) yield [current, value];
    }
  }
}

/** An array map; values exist for every index from the start. */
export class ArrayMap<V> extends MapBase {
  readonly #value: Codec<V>;

  /** Throws as HashMap's constructor does. */
  constructor(source: MapSource, value: Codec<V>) {
    super(source, ARRAY_TYPES, 4, value.size);
    this.#value = value;
  }

  get length(): number {
    return this.info.maxEntries;
  }

  /** @throws RangeError beyond the end */
  get(index: number): V {
    const value = this.call('get', (raw) => raw.get(this.#index(index)));
    if (value === undefined) throw new RangeError(`${this.where}: no index ${index}`);
    return this.#value.decode(value);
  }

  /** @throws RangeError beyond the end */
  set(index: number, value: V): void {
    this.call('set', (raw) => raw.set(this.#index(index), this.#value.encode(value)));
  }

  /** All entries in order; in batches where the kernel can. */
  *entries(): Generator<[number, V]> {
    const batches = this.batches(this.length);
    let item = batches.next();
    for (; item.done !== true; item = batches.next()) {
      const [index, value] = item.value;
      yield [index.readUInt32LE(), this.#value.decode(value)];
    }
    if (item.value) return;
    for (let index = 0; index < this.length; index++) yield [index, this.get(index)];
  }

  #index(index: number): Buffer {
    if (!Number.isInteger(index) || index < 0 || index >= this.length) {
      throw new RangeError(`${this.where}: index ${index} is not in 0..${this.length - 1}`);
    }
    return u32(index);
  }
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

/** ENOTSUPP is the kernel's answer for a map type without batches; EINVAL that of kernels without the command. */
function isUnsupported(rc: number): boolean {
  return rc === -524 || rc === -Errno.EOPNOTSUPP || rc === -Errno.EINVAL;
}

function* chunks<T>(items: Iterable<T>, size: number): Generator<T[]> {
  let chunk: T[] = [];
  for (const item of items) {
    chunk.push(item);
    if (chunk.length === size) {
      yield chunk;
      chunk = [];
    }
  }
  if (chunk.length > 0) yield chunk;
}
