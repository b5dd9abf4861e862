/** Just enough of Markdown to compare documents with the code. */

/** A table: its cells row by row, without the heading. */
export type Rows = readonly (readonly string[])[];

/** What stands between a heading and the next one of the same or a higher level. @throws Error there is no such heading */
export function section(markdown: string, heading: string): string {
  const lines = markdown.split('\n');
  const start = lines.indexOf(heading);
  if (start < 0) throw new Error(`no heading "${heading}"`);
  const level = /^#+/.exec(heading)?.[0].length ?? 0;
  let fenced = false;
  const length = lines.slice(start + 1).findIndex((line) => {
    if (/^ *```/.test(line)) fenced = !fenced;
    // A comment in a fence is no heading.
    if (fenced) return false;
    const next = /^(#+) /.exec(line)?.[1];
    return next !== undefined && next.length <= level;
  });
  return lines.slice(start + 1, length < 0 ? undefined : start + 1 + length).join('\n');
}

/** The table whose first heading cell is this. @throws Error there is none */
export function table(markdown: string, firstHeading: string): Rows {
  const rows = markdown.split('\n').map(cells);
  const start = rows.findIndex((row) => row?.[0] === firstHeading);
  if (start < 0) throw new Error(`no table that begins with "${firstHeading}"`);
  const rest = rows.slice(start + 2);
  const end = rest.findIndex((row) => row === undefined);
  return rest.slice(0, end < 0 ? undefined : end).flatMap((row) => (row === undefined ? [] : [row]));
}

/** Cells of a table's line; `\|` is a bar inside a cell. */
function cells(line: string): readonly string[] | undefined {
  if (!line.startsWith('|')) return undefined;
  return line
    .slice(1, line.lastIndexOf('|'))
    .split(/(?<!\\)\|/)
    .map((cell) => cell.trim());
}

/** The text of a cell that holds one piece of inline code; any other cell as it is. */
export function code(cell: string | undefined): string {
  return /^`([^`]*)`$/.exec(cell ?? '')?.[1] ?? cell ?? '';
}

/** Every piece of inline code, outside of fences. */
export function inlineCode(markdown: string): string[] {
  return [...withoutFences(markdown).matchAll(/`([^`\n]+)`/g)].map((match) => match[1] ?? '');
}

/** The text of each fence of a language. */
export function fences(markdown: string, language: string): string[] {
  const matches = markdown.matchAll(new RegExp(`^ *\`\`\`${language}\\n([\\s\\S]*?)^ *\`\`\`$`, 'gm'));
  return [...matches].map((match) => match[1] ?? '');
}

/** A fence with what stands behind its opening backquotes. */
export interface Fence {
  /** Of the opening backquotes, counted from 1. */
  readonly line: number;
  readonly language: string;
  /** Words behind the language, e.g. `not-run`. */
  readonly marks: readonly string[];
  readonly text: string;
}

/** Every fence, in order. */
export function allFences(markdown: string): Fence[] {
  return [...markdown.matchAll(/^ *```(.*)\n([\s\S]*?)^ *```$/gm)].map((match) => {
    const [, info = '', text = ''] = match;
    const [language = '', ...marks] = info.trim().split(/\s+/);
    return { line: markdown.slice(0, match.index).split('\n').length, language, marks, text };
  });
}

/** Targets of links, outside of fences. */
export function links(markdown: string): string[] {
  return [...withoutFences(markdown).matchAll(/\]\(([^()\s]+)\)/g)].map((match) => match[1] ?? '');
}

/** What `#...` can lead to: the headings as GitHub writes them, a second one of the same name with `-1`, and so on. */
export function anchors(markdown: string): string[] {
  const seen = new Map<string, number>();
  return [...withoutFences(markdown).matchAll(/^#+ (.+)$/gm)].map((match) => {
    const name = (match[1] ?? '')
      .toLowerCase()
      .replace(/[^\p{L}\p{N} _-]/gu, '')
      .replaceAll(' ', '-');
    const count = seen.get(name) ?? 0;
    seen.set(name, count + 1);
    return count === 0 ? name : `${name}-${count}`;
  });
}

function withoutFences(markdown: string): string {
  return markdown.replace(/^ *```[\s\S]*?^ *```$/gm, '');
}
