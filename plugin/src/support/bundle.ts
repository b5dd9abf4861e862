/** One archive of some texts, of bounded size. */
import { gzipSync } from 'node:zlib';
import { createTar } from 'nanotar';
import { errorMessage } from '../util/errors.ts';
import { redact } from './redact.ts';

/** Bytes of one part, and of all; compressed it is about a tenth. */
export const MAX_PART_BYTES = 4 * 1024 * 1024;
export const MAX_BUNDLE_BYTES = 24 * 1024 * 1024;

/** What became of a part. */
interface Entry {
  readonly name: string;
  readonly bytes: number;
  /** Bytes that were cut off at the end. */
  readonly cut?: number;
  /** Why it is missing. */
  readonly error?: string;
}

/** Collects texts; what cannot be had is noted down, and is no reason to do without the rest. */
export class Bundle {
  readonly #directory: string;
  readonly #parts: { readonly name: string; readonly data: Buffer }[] = [];
  readonly #entries: Entry[] = [];
  #bytes = 0;

  /** @param directory that all files of the archive are in */
  constructor(directory: string) {
    this.#directory = directory;
  }

  /** What was collected, and what could not be. */
  get entries(): readonly Entry[] {
    return this.#entries;
  }

  /** Adds what `read` gives. Secrets are taken out, and what is too long is cut off. */
  async add(name: string, read: () => string | Promise<string>): Promise<void> {
    let whole: Buffer;
    try {
      whole = Buffer.from(redact(await read()));
    } catch (error) {
      this.#entries.push({ name, bytes: 0, error: redact(errorMessage(error)) });
      return;
    }
    const data = whole.subarray(0, Math.min(MAX_PART_BYTES, MAX_BUNDLE_BYTES - this.#bytes));
    this.#bytes += data.length;
    this.#parts.push({ name, data });
    const cut = whole.length - data.length;
    this.#entries.push({ name, bytes: data.length, ...(cut === 0 ? {} : { cut }) });
  }

  /** As `add`, of a value as JSON. */
  addJson(name: string, read: () => unknown): Promise<void> {
    return this.add(name, async () => `${JSON.stringify(await read(), bigintsAsText, 2)}\n`);
  }

  /** The archive, gzipped; its first file says what is in it. */
  archive(about: Readonly<Record<string, unknown>>): Buffer {
    const contents = {
      name: 'contents.json',
      data: Buffer.from(`${JSON.stringify({ ...about, parts: this.#entries }, undefined, 2)}\n`),
    };
    const files = [contents, ...this.#parts].map(({ name, data }) => ({ name: `${this.#directory}/${name}`, data }));
    return gzipSync(createTar(files, { attrs: { mode: '600', uid: 0, gid: 0 } }));
  }
}

function bigintsAsText(_key: string, value: unknown): unknown {
  return typeof value === 'bigint' ? String(value) : value;
}
