/** What a person sees while measurements run: one line that changes on a terminal, one line per step elsewhere. */

const SPINNER = '|/-\\';
const TICK_MS = 200;

/** Shows what is being done and for how long the program has run. */
export class Progress {
  readonly #name: string;
  readonly #out: NodeJS.WriteStream;
  readonly #start = Date.now();
  readonly #timer: NodeJS.Timeout | undefined;
  #what = '';
  #tick = 0;

  /** @param name begins each line */
  constructor(name: string, out: NodeJS.WriteStream) {
    this.#name = name;
    this.#out = out;
    if (!out.isTTY) return;
    this.#timer = setInterval(() => this.#draw(), TICK_MS);
    this.#timer.unref();
  }

  /** Milliseconds since the beginning. */
  get elapsedMs(): number {
    return Date.now() - this.#start;
  }

  /** A new step; `detail` shows on terminals only, where it does not add lines. */
  step(what: string, detail = ''): void {
    const before = this.#what;
    this.#what = detail === '' ? what : `${what}: ${detail}`;
    if (this.#out.isTTY) this.#draw();
    else if (!before.startsWith(what)) this.#out.write(`${this.#name}: ${this.#seconds()} ${what}\n`);
  }

  /** Takes the line away. */
  end(): void {
    clearInterval(this.#timer);
    if (this.#out.isTTY) this.#out.write('\r\x1b[K');
  }

  #draw(): void {
    this.#tick += 1;
    const line = `${this.#name}: ${this.#seconds()} ${SPINNER.charAt(this.#tick % SPINNER.length)} ${this.#what}`;
    this.#out.write(`\r\x1b[K${line.slice(0, (this.#out.columns || 80) - 1)}`);
  }

  #seconds(): string {
    return `${String(Math.round(this.elapsedMs / 1000)).padStart(3)} s`;
  }
}
