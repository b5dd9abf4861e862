import { stringify } from 'yaml';
import { toJson } from '../grpc/json.ts';
import type { Io } from './io.ts';

export const OUTPUT_FORMATS = ['table', 'json', 'yaml'] as const;
export type OutputFormat = (typeof OUTPUT_FORMATS)[number];

type MessageType<T> = Parameters<typeof toJson<T>>[0];

/** A message as it is to be printed, in any format. */
export interface Printable<T> {
  readonly type: MessageType<T>;
  readonly message: T;
  /** Text for people; ends with a line feed. */
  readonly table: (message: T) => string;
}

/** Prints a message once. */
export async function print<T>(io: Io, format: OutputFormat, { type, message, table }: Printable<T>): Promise<void> {
  return printPlain(
    io,
    format,
    () => toJson(type, message),
    () => table(message),
  );
}

/** Prints what is no message, once. @param text for people; ends with a line feed */
export async function printPlain(
  io: Io,
  format: OutputFormat,
  value: () => unknown,
  text: () => string,
): Promise<void> {
  switch (format) {
    case 'table':
      return io.out(text());
    case 'json':
      return io.out(`${JSON.stringify(value(), undefined, 2)}\n`);
    case 'yaml':
      return io.out(stringify(value()));
  }
}

/** Prints one of many messages: JSON one per line, YAML as documents, tables in place on a terminal. */
export async function printNext<T>(
  io: Io,
  format: OutputFormat,
  { type, message, table }: Printable<T>,
): Promise<void> {
  return printNextPlain(
    io,
    format,
    () => toJson(type, message),
    () => inPlace(io, table(message)),
  );
}

/** A table that takes the place of the one before on a terminal, and follows after it elsewhere. */
export function inPlace(io: Io, table: string): string {
  // Home, clear, the table.
  return io.terminal ? `\u001b[H\u001b[2J${table}` : `${table}\n`;
}

/** Prints one of many values that are no messages: JSON one per line, YAML as documents. @param text for people, as it is to stand there */
export async function printNextPlain(
  io: Io,
  format: OutputFormat,
  value: () => unknown,
  text: () => string,
): Promise<void> {
  switch (format) {
    case 'table':
      return io.out(text());
    case 'json':
      return io.out(`${JSON.stringify(value())}\n`);
    case 'yaml':
      return io.out(`---\n${stringify(value())}`);
  }
}
