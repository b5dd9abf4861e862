import { check, ClosedError } from './errors.ts';
import { openPinned, OwnedFd } from './fd.ts';
import { mapInfo, MapType, type MapInfo } from './info.ts';
import { libbpf } from './libbpf.ts';
import type { MapSource } from './map.ts';

/** CPUs the kernel has room for, which is how many values a per-CPU entry has; may exceed those online. */
export function possibleCpus(): number {
  return check('number of possible CPUs', libbpf().libbpf_num_possible_cpus());
}

/** A per-CPU array of unsigned 64-bit counters, or of structs made of nothing else. */
export class PerCpuArray {
  readonly info: MapInfo;
  readonly #where: string;
  readonly #owned: OwnedFd | undefined;
  readonly #borrowed: number;
  readonly #cpus: number;
  #closed = false;

  /**
   * @param source a descriptor given here stays the caller's and must outlive this object
   * @throws TypeError for another kind of map
   * @throws RangeError where values are no multiple of 8 bytes
   */
  constructor(source: MapSource) {
    this.#owned = 'path' in source ? openPinned(source.path) : undefined;
    this.#borrowed = 'path' in source ? -1 : source.fd;
    this.#where = 'path' in source ? `map ${source.path}` : `map descriptor ${source.fd}`;
    try {
      this.info = mapInfo(this.#fd());
      if (this.info.type !== MapType.PERCPU_ARRAY) {
        throw new TypeError(`${this.#where}: map type ${this.info.type} is no per-CPU array`);
      }
      if (this.info.valueSize % 8 !== 0) {
        throw new RangeError(`${this.#where}: ${this.info.valueSize}-byte values are no 64-bit counters`);
      }
      this.#cpus = possibleCpus();
    } catch (error) {
      this.#owned?.close();
      throw error;
    }
  }

  get length(): number {
    return this.info.maxEntries;
  }

  /** The counters of one entry (one, or one per struct member), each summed over the CPUs modulo 2^64. */
  sums(index: number): bigint[] {
    const words = this.info.valueSize / 8;
    const values = this.#lookup(index);
    return Array.from({ length: words }, (_, word) => {
      let sum = 0n;
      for (let cpu = 0; cpu < this.#cpus; cpu++) sum += values.readBigUInt64LE((cpu * words + word) * 8);
      return BigInt.asUintN(64, sum);
    });
  }

  /** The first counter of an entry summed over the CPUs. */
  sum(index: number): bigint {
    return this.sums(index)[0] ?? 0n;
  }

  /** The first counter of every entry. */
  allSums(): bigint[] {
    return Array.from({ length: this.length }, (_, index) => this.sum(index));
  }

  /** The first counter of an entry on each possible CPU. */
  perCpu(index: number): bigint[] {
    const values = this.#lookup(index);
    return Array.from({ length: this.#cpus }, (_, cpu) => values.readBigUInt64LE(cpu * this.info.valueSize));
  }

  /** Sets an entry to zero on all CPUs; increments that happen meanwhile may be lost. */
  reset(index: number): void {
    const rc = libbpf().bpf_map_update_elem(this.#fd(), this.#key(index), Buffer.alloc(this.#bytes()), 0);
    check(`reset entry ${index} of ${this.#where}`, rc);
  }

  /** Drops the descriptor if it is our own; a second call does nothing. */
  close(): void {
    this.#closed = true;
    this.#owned?.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #fd(): number {
    if (this.#closed) throw new ClosedError(this.#where);
    return this.#owned?.fd ?? this.#borrowed;
  }

  /** The kernel copies every possible CPU's value, each rounded up to 8 bytes. */
  #bytes(): number {
    return this.#cpus * this.info.valueSize;
  }

  #key(index: number): Buffer {
    if (!Number.isInteger(index) || index < 0 || index >= this.length) {
      throw new RangeError(`${this.#where}: index ${index} is not in 0..${this.length - 1}`);
    }
    const key = Buffer.alloc(4);
    key.writeUInt32LE(index);
    return key;
  }

  #lookup(index: number): Buffer {
    const values = Buffer.alloc(this.#bytes());
    check(`read entry ${index} of ${this.#where}`, libbpf().bpf_map_lookup_elem(this.#fd(), this.#key(index), values));
    return values;
  }
}
