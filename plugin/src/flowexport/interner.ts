/** Strings beyond this are refused: Kubernetes' longest names have 253 characters, `namespace/service:port` 63 * 3 + 2. */
export const MAX_NAME = 512;

/**
 * One copy of each of many equal strings: records name the same few pods and policies again and again. Bounded: when full,
 * it begins anew (what was handed out stays valid).
 */
export class Interner {
  readonly #strings = new Map<string, string>();
  readonly #limit: number;

  constructor(limit = 16384) {
    this.#limit = limit;
  }

  /** @throws RangeError for a string that is too long to be a name */
  of(text: string): string {
    if (text === '') return '';
    const known = this.#strings.get(text);
    if (known !== undefined) return known;
    if (text.length > MAX_NAME) throw new RangeError(`a name of ${text.length} characters`);
    if (this.#strings.size >= this.#limit) this.#strings.clear();
    this.#strings.set(text, text);
    return text;
  }
}
