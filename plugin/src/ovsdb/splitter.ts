import { ProtocolError } from './errors.ts';

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;
const SPACES: ReadonlySet<number> = new Set([0x20, 0x09, 0x0a, 0x0d]);

/**
 * Cuts a stream of bytes into JSON objects. OVSDB puts them one after the other with nothing in between, so the only way to
 * find an end is to count braces outside strings. All of these are ASCII, so bytes can be looked at before decoding.
 */
export class Splitter {
  readonly #maxBytes: number;
  /** What has come of an object whose end has not. */
  #parts: Buffer[] = [];
  #bytes = 0;
  #depth = 0;
  #inString = false;
  #escaped = false;

  /** @param maxBytes the longest object that is taken; this much may be kept in memory */
  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** Bytes kept of an object that is not complete. */
  get pending(): number {
    return this.#bytes;
  }

  /**
   * Takes the next bytes and returns the objects that they complete, in order.
   * @throws ProtocolError for what is no JSON object, or too long; the stream is of no use then
   */
  push(chunk: Buffer): Record<string, unknown>[] {
    const objects: Record<string, unknown>[] = [];
    let begin = 0;
    for (let i = 0; i < chunk.length; i++) {
      const ended = this.#look(chunk[i] ?? 0);
      if (this.#depth === 0 && !ended) {
        begin = i + 1; // between two objects
      } else if (ended) {
        objects.push(this.#complete(chunk.subarray(begin, i + 1)));
        begin = i + 1;
      }
    }
    this.#keep(chunk.subarray(begin));
    return objects;
  }

  /** @returns true for the last byte of an object */
  #look(byte: number): boolean {
    if (this.#inString) {
      if (this.#escaped) this.#escaped = false;
      else if (byte === BACKSLASH) this.#escaped = true;
      else if (byte === QUOTE) this.#inString = false;
      return false;
    }
    if (byte === OPEN_BRACE) {
      this.#depth++;
      return false;
    }
    if (this.#depth === 0) {
      if (!SPACES.has(byte)) throw new ProtocolError('something other than a JSON object came from the server');
      return false;
    }
    if (byte === QUOTE) this.#inString = true;
    if (byte !== CLOSE_BRACE) return false;
    this.#depth--;
    return this.#depth === 0;
  }

  #keep(bytes: Buffer): void {
    this.#bytes += bytes.length;
    if (this.#bytes > this.#maxBytes) {
      throw new ProtocolError(`a message is longer than ${this.#maxBytes} bytes, which is more than is taken`);
    }
    if (bytes.length > 0) this.#parts.push(bytes);
  }

  #complete(last: Buffer): Record<string, unknown> {
    this.#keep(last);
    const text = Buffer.concat(this.#parts, this.#bytes).toString('utf8');
    this.#parts = [];
    this.#bytes = 0;
    try {
      return JSON.parse(text) as Record<string, unknown>;
    } catch (error) {
      throw new ProtocolError('a message is not valid JSON', { cause: error });
    }
  }
}
