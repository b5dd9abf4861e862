import { BpfError, ClosedError } from './errors.ts';
import { openPinned, OwnedFd } from './fd.ts';
import { mapInfo, MapType } from './info.ts';
import { lastErrno, libbpf, readMemory, registerCallback, type Pointer } from './libbpf.ts';
import type { MapSource } from './map.ts';
import { repeat } from '../util/repeat.ts';

export interface RingBufferOptions {
  /** A descriptor given here stays the caller's and must outlive the consumer. */
  readonly source: MapSource;
  /** Gets a copy of each record. */
  readonly onRecord: (record: Buffer) => void;
  /** Gets what onRecord throws; the record counts as consumed. */
  readonly onError: (error: unknown) => void;
  /** Milliseconds between two looks, default 50: the latency of a record. */
  readonly intervalMs?: number;
  /** Records handled at a stretch before the event loop gets its turn, default 1024. */
  readonly maxPerTick?: number;
}

/** Counts since the consumer was made. */
export interface RingBufferCounts {
  readonly records: bigint;
  readonly bytes: bigint;
  /** Exceptions from onRecord. */
  readonly errors: bigint;
}

/** Tells libbpf to stop; any negative number does. It has stepped over the record by then. */
const STOP = -1;

/**
 * Consumes a ring buffer map. A timer looks into the shared memory: no thread waits in the kernel, so process exit is
 * never held up, and the timer does not keep the process alive either. One consumer per ring buffer.
 */
export class RingBuffer {
  readonly #options: RingBufferOptions;
  readonly #where: string;
  readonly #owned: OwnedFd | undefined;
  readonly #maxPerTick: number;
  readonly #end: () => void;
  readonly #releaseCallback: () => void;
  #ring: Pointer | undefined;
  #immediate: NodeJS.Immediate | undefined;
  #consuming = false;
  #closing = false;
  #thisTick = 0;
  #records = 0n;
  #bytes = 0n;
  #errors = 0n;

  /**
   * @throws TypeError for another kind of map
   * @throws BpfError
   */
  constructor(options: RingBufferOptions) {
    const { source, intervalMs = 50, maxPerTick = 1024 } = options;
    this.#options = options;
    this.#maxPerTick = maxPerTick;
    this.#where = 'path' in source ? `ring buffer ${source.path}` : `ring buffer descriptor ${source.fd}`;
    this.#owned = 'path' in source ? openPinned(source.path) : undefined;
    const fd = this.#owned?.fd ?? (source as { fd: number }).fd;
    let release: (() => void) | undefined;
    try {
      const { type } = mapInfo(fd);
      if (type !== MapType.RINGBUF) throw new TypeError(`${this.#where}: map type ${type} is no ring buffer`);
      const callback = registerCallback(this.#sample.bind(this), ['void *', 'void *', 'size_t']);
      release = callback.release;
      const ring = libbpf().ring_buffer__new(fd, callback.pointer, null, null);
      if (ring === null) throw new BpfError(`map ${this.#where}`, lastErrno());
      this.#ring = ring;
    } catch (error) {
      release?.();
      this.#owned?.close();
      throw error;
    }
    this.#releaseCallback = release;
    this.#end = repeat(intervalMs, () => this.#tick(), false);
  }

  counts(): RingBufferCounts {
    return { records: this.#records, bytes: this.#bytes, errors: this.#errors };
  }

  /**
   * Handles what is there now, at most maxPerTick records.
   * @returns true if the bound was reached, so there may be more
   * @throws ClosedError after close()
   */
  consume(): boolean {
    if (this.#ring === undefined) throw new ClosedError(this.#where);
    if (this.#consuming) return false;
    this.#consuming = true;
    this.#thisTick = 0;
    try {
      const rc = libbpf().ring_buffer__consume(this.#ring);
      const stopped = this.#thisTick >= this.#maxPerTick || this.#closing;
      if (rc < 0 && !stopped) throw new BpfError(`consume ${this.#where}`, -rc);
    } finally {
      this.#consuming = false;
      if (this.#closing) this.#free();
    }
    return this.#thisTick >= this.#maxPerTick;
  }

  /** Stops; records left stay in the map. May be called from onRecord. A second call does nothing. */
  close(): void {
    if (this.#closing) return;
    this.#closing = true;
    this.#end();
    clearImmediate(this.#immediate);
    // libbpf is in the middle of a walk: free afterwards.
    if (!this.#consuming) this.#free();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #free(): void {
    const ring = this.#ring;
    this.#ring = undefined;
    if (ring === undefined) return;
    libbpf().ring_buffer__free(ring);
    this.#releaseCallback();
    this.#owned?.close();
  }

  #tick(): void {
    if (this.#closing || this.#immediate !== undefined) return;
    if (!this.#consumeSafely()) return;
    // Between two looks at a busy ring everything else gets its turn.
    this.#immediate = setImmediate(() => {
      this.#immediate = undefined;
      this.#tick();
    });
    this.#immediate.unref();
  }

  /** @returns true if there may be more and nobody closed us meanwhile */
  #consumeSafely(): boolean {
    try {
      return this.consume() && !this.#closing;
    } catch (error) {
      this.#options.onError(error);
      return false;
    }
  }

  /** Runs inside libbpf: must not throw. */
  #sample(_context: Pointer | null, data: Pointer, size: number | bigint): number {
    const bytes = Number(size);
    this.#thisTick++;
    this.#records++;
    this.#bytes += BigInt(bytes);
    try {
      this.#options.onRecord(readMemory(data, bytes));
    } catch (error) {
      this.#errors++;
      try {
        this.#options.onError(error);
      } catch {
        // Counted already; an exception must not cross C frames.
      }
    }
    return this.#closing || this.#thisTick >= this.#maxPerTick ? STOP : 0;
  }
}
