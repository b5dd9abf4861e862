/** A copy of the monitored columns of a database, kept up to date by the server's notifications. */
import { ProtocolError } from './errors.ts';
import { applyDifference, parseColumnType, parseValue, type Atom, type ColumnType, type Value } from './values.ts';

/**
 * A row: its columns by name. Never changed in place: a row that is another object says something else. A column may be
 * missing: it has its default value then.
 */
export type Row = ReadonlyMap<string, Value>;

/** Rows by UUID. */
export type Table = ReadonlyMap<string, Row>;

/** Which columns of which tables. */
export type Columns = Readonly<Record<string, readonly string[]>>;

/** Types of the monitored columns, by table and column. */
export type Types = ReadonlyMap<string, ReadonlyMap<string, ColumnType>>;

/**
 * The types of these columns, of a `get_schema` reply. A column that the schema does not have is left out: older schemas
 * lack some, and asking for one would be an error.
 * @throws ProtocolError if a whole table is missing
 */
export function readTypes(schema: unknown, columns: Columns): Types {
  const tables = object(object(schema, 'schema')['tables'], 'schema');
  return new Map(
    Object.entries(columns).map(([table, names]) => {
      if (tables[table] === undefined) throw new ProtocolError(`the schema has no table ${table}`);
      const known = object(object(tables[table], table)['columns'], table);
      const found = names.filter((name) => known[name] !== undefined);
      return [
        table,
        new Map(found.map((name) => [name, parseColumnType(object(known[name], `${table}.${name}`)['type'])])),
      ];
    }),
  );
}

/** The copy. */
export class Replica {
  readonly #types: Types;
  readonly #tables: ReadonlyMap<string, Map<string, Row>>;

  constructor(types: Types) {
    this.#types = types;
    this.#tables = new Map([...types.keys()].map((table) => [table, new Map<string, Row>()]));
  }

  /** The rows of a table, in the order in which they came; empty if it is not monitored. */
  table(name: string): Table {
    return this.#tables.get(name) ?? new Map<string, Row>();
  }

  /** Takes a `monitor_cond` reply or an `update2` notification in. @throws ProtocolError; the copy is of no use then */
  update2(updates: unknown): void {
    this.#each(updates, (rows, types, uuid, change) => {
      const added = change['initial'] ?? change['insert'];
      if (added !== undefined) {
        rows.set(uuid, parseRow(types, added));
      } else if (change['modify'] !== undefined) {
        const before = rows.get(uuid);
        if (before === undefined) throw new ProtocolError(`row ${uuid} was changed, but never told`);
        const difference = parseRow(types, change['modify']);
        const after = new Map(before);
        for (const [name, value] of difference) {
          after.set(name, applyDifference(typeOf(types, name), before.get(name), value));
        }
        rows.set(uuid, after);
      } else if ('delete' in change) {
        rows.delete(uuid);
      } else {
        throw new ProtocolError('an update without initial, insert, modify or delete');
      }
    });
  }

  /** Takes a `monitor` reply or an `update` notification in. @throws ProtocolError; the copy is of no use then */
  update(updates: unknown): void {
    this.#each(updates, (rows, types, uuid, change) => {
      if (change['new'] === undefined) rows.delete(uuid);
      else rows.set(uuid, parseRow(types, change['new']));
    });
  }

  #each(
    updates: unknown,
    apply: (
      rows: Map<string, Row>,
      types: ReadonlyMap<string, ColumnType>,
      uuid: string,
      change: Record<string, unknown>,
    ) => void,
  ): void {
    for (const [table, changes] of Object.entries(object(updates, 'updates'))) {
      const rows = this.#tables.get(table);
      const types = this.#types.get(table);
      if (rows === undefined || types === undefined) throw new ProtocolError(`table ${table} was not asked for`);
      for (const [uuid, change] of Object.entries(object(changes, table))) {
        apply(rows, types, uuid, object(change, table));
      }
    }
  }
}

/** Text of a column; '' if there is none. */
export function textOf(row: Row, column: string): string {
  const [atom] = atomsOf(row, column);
  return typeof atom === 'string' ? atom : '';
}

/** Number of a column; undefined if there is none. */
export function numberOf(row: Row, column: string): number | undefined {
  const [atom] = atomsOf(row, column);
  return typeof atom === 'number' ? atom : undefined;
}

/** Elements of a column; none if it is a map. */
export function atomsOf(row: Row, column: string): readonly Atom[] {
  const value = row.get(column);
  return Array.isArray(value) ? (value as readonly Atom[]) : [];
}

/** A map of text to text, as `external_ids`; empty if it is none. */
export function mapOf(row: Row, column: string): ReadonlyMap<string, string> {
  const value = row.get(column);
  return value instanceof Map ? (value as ReadonlyMap<string, string>) : new Map<string, string>();
}

function parseRow(types: ReadonlyMap<string, ColumnType>, json: unknown): Row {
  const columns = Object.entries(object(json, 'row'));
  return new Map(columns.map(([name, value]) => [name, parseValue(typeOf(types, name), value)]));
}

function typeOf(types: ReadonlyMap<string, ColumnType>, name: string): ColumnType {
  const type = types.get(name);
  if (type === undefined) throw new ProtocolError(`column ${name} was not asked for`);
  return type;
}

function object(json: unknown, where: string): Record<string, unknown> {
  if (typeof json !== 'object' || json === null || Array.isArray(json)) {
    throw new ProtocolError(`${where}: expected an object`);
  }
  return json as Record<string, unknown>;
}
