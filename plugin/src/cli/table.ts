import { printable } from './text.ts';

/** A column: its heading, and whether its values are numbers (then they stand right). */
export interface Column {
  readonly name: string;
  readonly right?: boolean;
}

/** Aligned columns, two spaces apart, no borders: easy to read, and to cut by awk. Ends with a line feed. */
export function renderTable(columns: readonly Column[], rows: readonly (readonly string[])[]): string {
  const lines = [
    columns.map(({ name }) => name),
    ...rows.map((row) => row.map((cell) => (cell === '' ? '-' : printable(cell)))),
  ];
  const widths = columns.map((_, index) => lines.reduce((width, line) => Math.max(width, line[index]?.length ?? 0), 0));
  return lines
    .map((line) =>
      columns
        .map(({ right }, index) => {
          const cell = line[index] ?? '-';
          const width = widths[index] ?? 0;
          return right === true ? cell.padStart(width) : cell.padEnd(width);
        })
        .join('  ')
        .trimEnd(),
    )
    .map((line) => `${line}\n`)
    .join('');
}

/** Names and values below each other, the values in one column. Ends with a line feed. */
export function renderFields(fields: readonly (readonly [name: string, value: string])[]): string {
  const width = fields.reduce((most, [name]) => Math.max(most, name.length), 0) + 1;
  return fields.map(([name, value]) => `${`${name}:`.padEnd(width)}  ${printable(value)}\n`).join('');
}
