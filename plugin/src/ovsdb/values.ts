/** Values of OVSDB columns as JSON, and the differences by which `update2` tells of changes (RFC 7047, ovsdb-server(7)). */
import { ProtocolError } from './errors.ts';

/** UUIDs are text here. */
export type Atom = string | number | boolean;

/** A scalar is a set of one; an optional one that is not there a set of none. */
export type Value = readonly Atom[] | ReadonlyMap<Atom, Atom>;

/** What has to be known of a column. */
export interface ColumnType {
  readonly kind: 'set' | 'map';
  /** It can have more than one element: then changes are told as differences, otherwise as new values. */
  readonly many: boolean;
}

/** @throws ProtocolError */
export function parseColumnType(type: unknown): ColumnType {
  if (typeof type === 'string') return { kind: 'set', many: false };
  if (typeof type !== 'object' || type === null) throw new ProtocolError('a column of the schema has no type');
  const { value, max } = type as { value?: unknown; max?: unknown };
  return {
    kind: value === undefined ? 'set' : 'map',
    many: max === 'unlimited' || (typeof max === 'number' && max > 1),
  };
}

/** @throws ProtocolError */
export function parseValue({ kind }: ColumnType, json: unknown): Value {
  if (kind === 'map') {
    const pairs = tagged(json, 'map');
    if (pairs === undefined) throw new ProtocolError('a value is no map');
    return new Map(pairs.map(parsePair));
  }
  const elements = tagged(json, 'set');
  return elements === undefined ? [parseAtom(json)] : elements.map(parseAtom);
}

/** The value that `difference` makes of `before`. */
export function applyDifference({ many }: ColumnType, before: Value | undefined, difference: Value): Value {
  if (before === undefined || !many) return difference;
  if (isMap(before) && isMap(difference)) {
    const after = new Map(before);
    for (const [key, value] of difference) {
      // A pair that was there before is one to be removed.
      if (before.get(key) === value) after.delete(key);
      else after.set(key, value);
    }
    return after;
  }
  if (isMap(before) || isMap(difference)) throw new ProtocolError('a difference of another type than its column');
  const after = new Set(before);
  for (const atom of difference) if (!after.delete(atom)) after.add(atom);
  return [...after];
}

/** `Array.isArray` does not narrow readonly arrays. */
function isMap(value: Value): value is ReadonlyMap<Atom, Atom> {
  return value instanceof Map;
}

/** The elements of `[tag, [...]]`. */
function tagged(json: unknown, tag: 'map' | 'set'): readonly unknown[] | undefined {
  if (!Array.isArray(json) || json[0] !== tag) return undefined;
  const elements: unknown = json[1];
  if (!Array.isArray(elements)) throw new ProtocolError(`a ${tag} without elements`);
  return elements as readonly unknown[];
}

function parsePair(json: unknown): [Atom, Atom] {
  if (!Array.isArray(json) || json.length !== 2) throw new ProtocolError('an element of a map is no pair');
  return [parseAtom(json[0]), parseAtom(json[1])];
}

function parseAtom(json: unknown): Atom {
  if (typeof json === 'string' || typeof json === 'number' || typeof json === 'boolean') return json;
  if (Array.isArray(json) && json.length === 2 && json[0] === 'uuid' && typeof json[1] === 'string') return json[1];
  throw new ProtocolError('a value is neither text, number, boolean nor UUID');
}
