import { readFile, stat } from 'node:fs/promises';
import { LineCounter, isMap, isNode, isPair, parseDocument, type Document } from 'yaml';
import type { z } from 'zod';
import { errorCode, errorMessage } from '../util/errors.ts';

/** One thing that is wrong in a file. */
export interface FileIssue {
  /** From 1; undefined: concerns the whole file. */
  readonly line: number | undefined;
  /** Of the field, e.g. `nodes[2].address`; empty: the whole file. */
  readonly path: string;
  /** What is wrong and what is allowed. */
  readonly message: string;
}

/** A file that cannot be used. The message lists every issue, one per line, as `file:line: path: message`. */
export class FileError extends Error {
  override readonly name = 'FileError';
  readonly file: string;
  readonly issues: readonly FileIssue[];

  constructor(file: string, issues: readonly FileIssue[]) {
    super(issues.map((issue) => formatIssue(file, issue)).join('\n'));
    this.file = file;
    this.issues = issues;
  }
}

function formatIssue(file: string, { line, path, message }: FileIssue): string {
  return [line === undefined ? file : `${file}:${line}`, ...(path === '' ? [] : [path]), message].join(': ');
}

type Path = readonly (string | number)[];

/** Issues beyond these are not listed. */
const MAX_ISSUES = 20;
const MAX_VALUE = 60;

/**
 * The text of a file.
 * @param maxBytes a larger file is refused before it is read
 * @throws FileError
 */
export async function readText(file: string, maxBytes: number): Promise<string> {
  try {
    const { size } = await stat(file);
    if (size > maxBytes) throw new FileError(file, [whole(`has ${size} bytes; at most ${maxBytes} are allowed`)]);
    return await readFile(file, 'utf8');
  } catch (error) {
    if (error instanceof FileError) throw error;
    const reason = errorCode(error) === 'ENOENT' ? 'no such file' : errorMessage(error);
    throw new FileError(file, [whole(`cannot be read: ${reason}`)]);
  }
}

/** A parsed file, which can say where a field stands. */
export class YamlFile {
  readonly file: string;
  /** The content as plain values; undefined for an empty file. */
  readonly content: unknown;
  readonly #document: Document.Parsed;
  readonly #lines: LineCounter;

  /**
   * Parses YAML 1.2, of which JSON is a part: one document, no duplicate keys.
   * @throws FileError
   */
  constructor(file: string, text: string) {
    this.file = file;
    this.#lines = new LineCounter();
    this.#document = parseDocument(text, { lineCounter: this.#lines, prettyErrors: false, uniqueKeys: true });
    const problems = [...this.#document.errors, ...this.#document.warnings];
    if (problems.length > 0) {
      throw this.#error(
        problems.map((problem) => ({
          line: this.#lines.linePos(problem.pos[0]).line,
          path: '',
          message: `is not valid YAML: ${problem.message}`,
        })),
      );
    }
    try {
      this.content = this.#document.toJS({ maxAliasCount: 100 }) as unknown;
    } catch (error) {
      throw this.#error([whole(`is not valid YAML: ${errorMessage(error)}`)]);
    }
  }

  /**
   * The content as the schema sees it; an empty file counts as an empty mapping. Fields of the schema are expected to say
   * in their messages what is allowed.
   * @throws FileError with every issue
   */
  parse<T>(schema: z.ZodType<T>): T {
    const result = schema.safeParse(this.content ?? {});
    if (result.success) return result.data;
    throw this.#error(result.error.issues.flatMap((issue) => this.#describe(issue)));
  }

  /** An error of one's own about some fields. */
  error(issues: readonly { readonly path: Path; readonly message: string }[]): FileError {
    return this.#error(issues.map(({ path, message }) => this.#issue(path, message)));
  }

  #error(issues: readonly FileIssue[]): FileError {
    const shown = issues.toSorted((a, b) => (a.line ?? 0) - (b.line ?? 0)).slice(0, MAX_ISSUES);
    const rest = issues.length - shown.length;
    return new FileError(this.file, rest === 0 ? shown : [...shown, whole(`and ${rest} more problems`)]);
  }

  #describe(issue: z.core.$ZodIssue): FileIssue[] {
    const path = issue.path.map((part) => (typeof part === 'symbol' ? String(part) : part));
    if (issue.code === 'unrecognized_keys') {
      return issue.keys.map((key) => this.#issue([...path, key], `is not a known key; ${issue.message}`));
    }
    const value = valueAt(this.content, path);
    if (value === undefined) return [this.#issue(path, `is missing; ${issue.message}`)];
    return [this.#issue(path, `is ${show(value)}; ${issue.message}`)];
  }

  #issue(path: Path, message: string): FileIssue {
    return { line: this.#lineOf(path), path: formatPath(path), message };
  }

  /** Line of the key or list item; of the nearest one around it if it is missing. */
  #lineOf(path: Path): number | undefined {
    for (let length = path.length; length > 0; length--) {
      const offset = this.#offsetOf(path.slice(0, length));
      if (offset !== undefined) return this.#lines.linePos(offset).line;
    }
    return undefined;
  }

  #offsetOf(path: Path): number | undefined {
    const parent = path.length === 1 ? this.#document.contents : this.#document.getIn(path.slice(0, -1), true);
    const last = path.at(-1);
    if (isMap(parent)) {
      const pair = parent.items.find((item) => isPair(item) && isNode(item.key) && String(item.key) === String(last));
      if (pair !== undefined && isNode(pair.key)) return pair.key.range?.[0];
    }
    const node = this.#document.getIn(path, true);
    return isNode(node) ? node.range?.[0] : undefined;
  }
}

function whole(message: string): FileIssue {
  return { line: undefined, path: '', message };
}

function formatPath(path: Path): string {
  return path.reduce<string>((text, part) => {
    if (typeof part === 'number') return `${text}[${part}]`;
    return text === '' ? part : `${text}.${part}`;
  }, '');
}

function valueAt(content: unknown, path: Path): unknown {
  return path.reduce<unknown>(
    (value, part) =>
      typeof value === 'object' && value !== null ? (value as Record<string | number, unknown>)[part] : undefined,
    content,
  );
}

function show(value: unknown): string {
  if (Array.isArray(value)) return 'a list';
  if (typeof value === 'object' && value !== null) return 'a mapping';
  const text = JSON.stringify(value) as string | undefined;
  if (text === undefined) return 'no plain value';
  return text.length > MAX_VALUE ? `${text.slice(0, MAX_VALUE - 3)}...` : text;
}
