import { ANONYMOUS, type Btf, type BtfType } from './btf.ts';

/** The type of a struct's field, reduced to what a codec needs. */
export type FieldType =
  | { kind: 'int'; bytes: 1 | 2 | 4 | 8; signed: boolean; bigEndian: boolean; bool: boolean }
  | { kind: 'bytes'; length: number }
  /** struct xmasq_addr: text in TypeScript. */
  | { kind: 'address' }
  | { kind: 'array'; element: FieldType; length: number; stride: number }
  | { kind: 'struct'; name: string };

export interface Field {
  /** Name in C, with the names of enclosing members where an anonymous struct was flattened away. */
  name: string;
  /** Bytes. */
  offset: number;
  type: FieldType;
}

export interface Struct {
  /** Name in C without "struct". */
  name: string;
  /** Bytes. */
  size: number;
  fields: Field[];
}

export interface Enum {
  name: string;
  values: { name: string; value: number }[];
}

/** A key or value: a type, or only its size. undefined: the map has none (ring buffers). */
export type Element = FieldType | undefined;

export interface MapLayout {
  name: string;
  /** enum bpf_map_type. */
  type: number;
  maxEntries: number;
  key: Element;
  value: Element;
}

/** Everything that user space has to agree on with the programs. */
export interface Model {
  /** A struct comes after those it contains. */
  structs: Struct[];
  enums: Enum[];
  maps: MapLayout[];
}

/** A type that user space cannot hold. */
class Unsupported extends Error {}

/** Members of these names are padding: written as zero, not part of the interface. */
const PADDING = /^_*(pad|padding|reserved|rsvd)\d*$/;
/** The struct that holds an address of either family. */
const ADDRESS = 'xmasq_addr';
const ADDRESS_BYTES = 16;
const BIG_ENDIAN: ReadonlySet<string> = new Set(['__be16', '__be32', '__be64']);

class Builder {
  readonly #btf: Btf;
  readonly structs = new Map<string, Struct>();

  constructor(btf: Btf) {
    this.#btf = btf;
  }

  /** Describes a type and remembers the structs it is made of. @param where for messages */
  fieldType(id: number | undefined, where: string): FieldType {
    const { type, typedefs } = this.#btf.resolve(id);
    switch (type.kind) {
      case 'INT':
        return {
          kind: 'int',
          bytes: intBytes(type, where),
          signed: type.encoding === 'SIGNED',
          bigEndian: typedefs.some((name) => BIG_ENDIAN.has(name)),
          bool: type.encoding === 'BOOL',
        };
      case 'ENUM':
      case 'ENUM64':
        return {
          kind: 'int',
          bytes: intBytes(type, where),
          signed: type.encoding === 'SIGNED',
          bigEndian: false,
          bool: false,
        };
      case 'ARRAY':
        return this.#array(type, where);
      case 'STRUCT':
        // IPv6 addresses are bytes in network order for everyone.
        if (type.name === 'in6_addr') return { kind: 'bytes', length: 16 };
        if (type.name === ADDRESS) return { kind: 'address' };
        if (type.name === ANONYMOUS) throw new Unsupported(`${where}: give the struct a name`);
        this.struct(type);
        return { kind: 'struct', name: type.name };
      case 'UNION': {
        const first = type.members?.[0];
        if (first === undefined) throw new Unsupported(`${where}: empty union`);
        return this.fieldType(first.type_id, where);
      }
      default:
        throw new Unsupported(`${where}: ${type.kind} is nothing user space can hold`);
    }
  }

  struct(type: BtfType): void {
    if (this.structs.has(type.name)) return;
    const fields = this.#fields(type, type.name, 0);
    this.structs.set(type.name, { name: type.name, size: type.size ?? 0, fields });
  }

  #array(type: BtfType, where: string): FieldType {
    const length = type.nr_elems ?? 0;
    const element = this.fieldType(type.type_id, where);
    if (element.kind === 'int' && element.bytes === 1 && !element.bool) return { kind: 'bytes', length };
    return { kind: 'array', element, length, stride: this.#size(element) };
  }

  #size(type: FieldType): number {
    switch (type.kind) {
      case 'int':
        return type.bytes;
      case 'bytes':
        return type.length;
      case 'address':
        return ADDRESS_BYTES;
      case 'array':
        return type.length * type.stride;
      case 'struct':
        return this.structs.get(type.name)?.size ?? 0;
    }
  }

  /** The members of a struct; those of anonymous structs and first members of anonymous unions in their place. */
  #fields(type: BtfType, owner: string, base: number): Field[] {
    const members = type.kind === 'UNION' ? (type.members ?? []).slice(0, 1) : (type.members ?? []);
    return members.flatMap((member): Field[] => {
      const where = `${owner}.${member.name}`;
      if ((member.bitfield_size ?? 0) !== 0) throw new Unsupported(`${where}: bit fields are not supported`);
      const offset = base + member.bits_offset / 8;
      if (PADDING.test(member.name)) return [];
      const { type: inner } = this.#btf.resolve(member.type_id);
      if (member.name === ANONYMOUS) return this.#fields(inner, owner, offset);
      return [{ name: member.name, offset, type: this.fieldType(member.type_id, where) }];
    });
  }
}

function intBytes(type: BtfType, where: string): 1 | 2 | 4 | 8 {
  const { size } = type;
  if (size === 1 || size === 2 || size === 4 || size === 8) return size;
  throw new Unsupported(`${where}: integer of ${String(size)} bytes`);
}

/** `__uint(name, n)` is `int (*name)[n]`. */
function macroUint(btf: Btf, id: number): number {
  return btf.type(btf.type(id).type_id).nr_elems ?? 0;
}

function readMap(btf: Btf, builder: Builder, name: string, definition: BtfType): MapLayout {
  const member = (wanted: string): number | undefined =>
    definition.members?.find((candidate) => candidate.name === wanted)?.type_id;
  const uint = (wanted: string): number => {
    const id = member(wanted);
    return id === undefined ? 0 : macroUint(btf, id);
  };
  const element = (part: 'key' | 'value'): Element => {
    const id = member(part);
    // `__type(name, type)` is `type *name`.
    if (id !== undefined) return builder.fieldType(btf.type(id).type_id, `${name}.${part}`);
    const size = uint(`${part}_size`);
    if (size === 0) return undefined;
    if (size === 4) return { kind: 'int', bytes: 4, signed: false, bigEndian: false, bool: false };
    return { kind: 'bytes', length: size };
  };
  return { name, type: uint('type'), maxEntries: uint('max_entries'), key: element('key'), value: element('value') };
}

/**
 * Reads the model of one object.
 * @param wanted structs and enums to include though no map has them
 * @param skipped is told of structs that match `wanted` but cannot be represented
 * @throws Error where a map's key or value cannot be represented
 */
export function readModel(btf: Btf, wanted: readonly RegExp[], skipped: (message: string) => void): Model {
  const builder = new Builder(btf);
  const section = btf.all().find((type) => type.kind === 'DATASEC' && type.name === '.maps');
  const maps = (section?.vars ?? []).map((variable) => {
    const { name, type_id } = btf.type(variable.type_id);
    return readMap(btf, builder, name, btf.resolve(type_id).type);
  });
  const matches = ({ name }: BtfType): boolean => wanted.some((pattern) => pattern.test(name));
  for (const type of btf.all().filter((candidate) => candidate.kind === 'STRUCT' && matches(candidate))) {
    if (type.name === ADDRESS) continue;
    try {
      builder.struct(type);
    } catch (error) {
      if (!(error instanceof Unsupported)) throw error;
      skipped(`struct ${type.name} left out: ${error.message}`);
    }
  }
  const enums = btf
    .all()
    .filter((type) => type.kind.startsWith('ENUM') && type.name !== ANONYMOUS && matches(type))
    .map((type) => ({
      name: type.name,
      values: (type.values ?? []).map(({ name, val }) => ({ name, value: val })),
    }));
  return { structs: [...builder.structs.values()], enums, maps };
}

function mergeByName<T extends { name: string }>(kind: string, lists: readonly T[][]): T[] {
  const merged = new Map<string, T>();
  for (const item of lists.flat()) {
    const other = merged.get(item.name);
    if (other !== undefined && JSON.stringify(other) !== JSON.stringify(item)) {
      throw new Error(`${kind} ${item.name} differs between the objects: compile them from the same headers`);
    }
    merged.set(item.name, item);
  }
  return [...merged.values()];
}

/** Joins the models of several objects, in a fixed order. @throws Error where they disagree */
export function mergeModels(models: readonly Model[]): Model {
  const byName = (a: { name: string }, b: { name: string }): number => (a.name < b.name ? -1 : 1);
  return {
    structs: inDependencyOrder(
      mergeByName(
        'struct',
        models.map((model) => model.structs),
      ).sort(byName),
    ),
    enums: mergeByName(
      'enum',
      models.map((model) => model.enums),
    ).sort(byName),
    maps: mergeByName(
      'map',
      models.map((model) => model.maps),
    ).sort(byName),
  };
}

function inDependencyOrder(structs: readonly Struct[]): Struct[] {
  const byName = new Map(structs.map((struct) => [struct.name, struct]));
  const ordered = new Set<Struct>();
  const visitType = (type: FieldType): void => {
    if (type.kind === 'array') visitType(type.element);
    const struct = type.kind === 'struct' ? byName.get(type.name) : undefined;
    if (struct !== undefined) visit(struct);
  };
  const visit = (struct: Struct): void => {
    for (const field of struct.fields) visitType(field.type);
    ordered.add(struct);
  };
  structs.forEach(visit);
  return [...ordered];
}
