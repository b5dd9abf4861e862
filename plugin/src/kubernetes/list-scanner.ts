/** etcd takes objects of 1.5 MB. */
const MAX_ITEM_BYTES = 4 * 1024 * 1024;
/** What is not an item: some metadata. */
const MAX_REST_BYTES = 64 * 1024;

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;
const OPEN_BRACKET = 0x5b;
const CLOSE_BRACKET = 0x5d;

/** More of a key is not of interest. */
const MAX_KEY = 16;

/** Index of the first quote or backslash from `at` on, or the length. */
function endOfPlain(chunk: Buffer, at: number): number {
  let end = at;
  while (end < chunk.length && chunk[end] !== QUOTE && chunk[end] !== BACKSLASH) end++;
  return end;
}

/**
 * Reads the JSON of a list item by item while it arrives. A page of 500 Nodes takes 4 MB and more as text and several times
 * that as objects; parsed as a whole, ten of them make the process grow by 150 MB, item by item by 30.
 */
export class ListScanner {
  readonly #item: (item: unknown) => void;
  #parts: Buffer[] = [];
  #partBytes = 0;
  #rest: Buffer[] = [];
  #restBytes = 0;
  #depth = 0;
  #inString = false;
  #escaped = false;
  /** Within the brackets of `items`. */
  #inItems = false;
  #inItem = false;
  /** The last string directly within the list: the key of what follows. */
  #key = '';

  /** @param item called for each item */
  constructor(item: (item: unknown) => void) {
    this.#item = item;
  }

  /** @throws SyntaxError for an item that is no JSON; RangeError for one that is too large */
  push(chunk: Buffer): void {
    let from = 0;
    for (let at = 0; at < chunk.length; at++) {
      const byte = chunk[at];
      if (this.#escaped) {
        this.#escaped = false;
      } else if (this.#inString) {
        const end = endOfPlain(chunk, at);
        if (this.#depth === 1 && this.#key.length < MAX_KEY) this.#key += chunk.toString('latin1', at, end);
        at = end;
        this.#escaped = chunk[at] === BACKSLASH;
        this.#inString = chunk[at] !== QUOTE;
      } else if (byte === QUOTE) {
        this.#inString = true;
        if (this.#depth === 1) this.#key = '';
      } else if (byte === OPEN_BRACE || byte === OPEN_BRACKET) {
        if (this.#inItems && this.#depth === 2) {
          from = at;
          this.#inItem = true;
        } else if (byte === OPEN_BRACKET && this.#depth === 1 && this.#key === 'items') {
          this.#keepRest(chunk.subarray(from, at + 1));
          this.#inItems = true;
        }
        this.#depth++;
      } else if (byte === CLOSE_BRACE || byte === CLOSE_BRACKET) {
        this.#depth--;
        if (this.#inItem && this.#depth === 2) {
          this.#keepPart(chunk.subarray(from, at + 1));
          this.#endItem();
        } else if (this.#inItems && this.#depth === 1) {
          from = at;
          this.#inItems = false;
        }
      }
    }
    if (this.#inItem) this.#keepPart(chunk.subarray(from));
    else if (!this.#inItems) this.#keepRest(chunk.subarray(from));
  }

  /** The list without its items. @throws SyntaxError where it is not complete */
  end(): unknown {
    return JSON.parse(Buffer.concat(this.#rest).toString('utf8')) as unknown;
  }

  #endItem(): void {
    const [first] = this.#parts;
    const bytes = this.#parts.length === 1 && first !== undefined ? first : Buffer.concat(this.#parts);
    this.#parts = [];
    this.#partBytes = 0;
    this.#inItem = false;
    this.#item(JSON.parse(bytes.toString('utf8')));
  }

  #keepPart(part: Buffer): void {
    this.#partBytes += part.length;
    if (this.#partBytes > MAX_ITEM_BYTES) throw new RangeError(`an object of more than ${MAX_ITEM_BYTES} bytes`);
    this.#parts.push(part);
  }

  #keepRest(part: Buffer): void {
    this.#restBytes += part.length;
    if (this.#restBytes > MAX_REST_BYTES)
      throw new RangeError(`a list of more than ${MAX_REST_BYTES} bytes besides its items`);
    this.#rest.push(part);
  }
}
