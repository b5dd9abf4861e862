/** Just enough of a shell's grammar to know which commands an example runs. */

/** Words that stand alone, quotes taken off. */
export type Words = readonly string[];

/** What ends a command. */
const OPERATORS = /^(?:&&|\|\||;;|[;&|()\n])/;
/** With or without the number of a descriptor, and with what it leads to unless that is a word of its own. */
const REDIRECTION = /^[0-9]?(?:>>|>&|<&|&>|>|<)[0-9-]?/;
const ASSIGNMENT = /^[A-Za-z_][A-Za-z0-9_]*=/;

/** One script, read from left to right. */
class Reader {
  readonly #text: string;
  readonly commands: Words[] = [];
  #at = 0;
  #words: string[] = [];
  #word: string | undefined;
  /** The next word is where output goes. */
  #target = false;

  constructor(text: string) {
    this.#text = text.replaceAll('\\\n', ' ');
  }

  get #rest(): string {
    return this.#text.slice(this.#at);
  }

  read(): Words[] {
    while (this.#at < this.#text.length) this.#step();
    this.#endCommand();
    return this.commands;
  }

  #step(): void {
    const rest = this.#rest;
    const char = rest.charAt(0);
    if (rest.startsWith('<<')) throw new Error('here documents are not understood');
    const substitution = /^[<$]\(/.exec(rest)?.[0];
    const operator = OPERATORS.exec(rest)?.[0];
    const redirection = this.#word === undefined ? REDIRECTION.exec(rest)?.[0] : /^[<>]/.exec(rest)?.[0];
    if (substitution !== undefined) {
      this.#substitute(substitution);
    } else if (this.#word === undefined && char === '#') {
      this.#at += rest.search(/\n|$/);
    } else if (operator !== undefined) {
      this.#at += operator.length;
      this.#endCommand();
    } else if (redirection !== undefined) {
      this.#endWord();
      this.#at += redirection.length;
      this.#target = !/[0-9-]$/.test(redirection);
    } else if (/\s/.test(char)) {
      this.#at++;
      this.#endWord();
    } else if (char === "'" || char === '"') {
      this.#quoted(char);
    } else {
      const escaped = char === '\\';
      this.#at += escaped ? 2 : 1;
      this.#word = `${this.#word ?? ''}${escaped ? rest.charAt(1) : char}`;
    }
  }

  /** `$(...)` or `<(...)`: commands of their own, and as it stands a part of this one. */
  #substitute(opening: string): void {
    let depth = 0;
    const end = [...this.#rest.matchAll(/[()]/g)].find(({ 0: bracket }) => {
      depth += bracket === '(' ? 1 : -1;
      return depth === 0;
    });
    if (end === undefined) throw new Error(`"${opening}" has no end`);
    const text = this.#rest.slice(0, end.index + 1);
    this.commands.push(...simpleCommands(text.slice(opening.length, -1)));
    this.#word = `${this.#word ?? ''}${text}`;
    this.#at += text.length;
  }

  #quoted(quote: string): void {
    const end = this.#text.indexOf(quote, this.#at + 1);
    if (end < 0) throw new Error(`a quote (${quote}) has no end`);
    this.#word = `${this.#word ?? ''}${this.#text.slice(this.#at + 1, end)}`;
    this.#at = end + 1;
  }

  #endWord(): void {
    const word = this.#word;
    this.#word = undefined;
    if (word === undefined) return;
    if (this.#target) this.#target = false;
    else if (this.#words.length > 0 || !ASSIGNMENT.test(word)) this.#words.push(word);
  }

  #endCommand(): void {
    this.#endWord();
    this.#target = false;
    if (this.#words.length > 0) this.commands.push(this.#words);
    this.#words = [];
  }
}

/**
 * The commands of a script in the order in which they are written, those of substitutions before the one that they are in;
 * without comments, redirections and variables set for a command.
 * @throws Error what is not understood
 */
export function simpleCommands(script: string): Words[] {
  return new Reader(script).read();
}
