import { createHash } from 'node:crypto';
import type { Element, Enum, Field, FieldType, MapLayout, Model, Struct } from './model.ts';
import { camelCase, enumerators, pascalCase } from './names.ts';

type Int = Extract<FieldType, { kind: 'int' }>;

function tsType(type: FieldType): string {
  switch (type.kind) {
    case 'int':
      return type.bytes === 8 ? 'bigint' : 'number';
    case 'bytes':
      return 'Uint8Array';
    case 'address':
      return 'string';
    case 'array':
      return `readonly ${tsType(type.element)}[]`.replace(/^readonly readonly (.*)\[\]$/, 'readonly (readonly $1)[]');
    case 'struct':
      return pascalCase(type.name);
  }
}

/** The part of Buffer's method names behind "read" and "write". */
function accessor({ bytes, signed, bigEndian }: Int): string {
  const sign = signed ? 'Int' : 'UInt';
  if (bytes === 1) return `${sign}8`;
  const order = bigEndian ? 'BE' : 'LE';
  return bytes === 8 ? `Big${sign}64${order}` : `${sign}${bytes * 8}${order}`;
}

function checked({ bytes, signed, bool }: Int, label: string, value: string): string {
  const bits = BigInt(bytes * 8);
  const low = signed ? -(1n << (bits - 1n)) : 0n;
  const high = bool ? 1n : (1n << (signed ? bits - 1n : bits)) - 1n;
  if (bytes === 8) return `checkBigInteger('${label}', ${value}, ${low.toString()}n, ${high.toString()}n)`;
  return `checkInteger('${label}', ${value}, ${low.toString()}, ${high.toString()})`;
}

/** Statements that write `value` at the expression `at`. */
function write(type: FieldType, label: string, value: string, at: string, depth: number): string {
  switch (type.kind) {
    case 'int':
      return `to.write${accessor(type)}(${checked(type, label, value)}, ${at});`;
    case 'bytes':
      return `checkLength('${label}', ${value}, ${type.length}); to.set(${value}, ${at});`;
    case 'address':
      return `writeAddress(to, ${at}, '${label}', ${value});`;
    case 'struct':
      return `write${pascalCase(type.name)}(to, ${at}, ${value});`;
    case 'array': {
      const [item, index] = [`e${depth}`, `i${depth}`];
      const inner = write(type.element, label, item, `${at} + ${type.stride} * ${index}`, depth + 1);
      return `checkLength('${label}', ${value}, ${type.length}); ${value}.forEach((${item}, ${index}) => { ${inner} });`;
    }
  }
}

/** An expression that reads from the expression `at`. */
function read(type: FieldType, at: string, depth: number): string {
  switch (type.kind) {
    case 'int':
      return `from.read${accessor(type)}(${at})`;
    case 'bytes':
      return `Uint8Array.from(from.subarray(${at}, ${at} + ${type.length}))`;
    case 'address':
      return `readAddress(from, ${at})`;
    case 'struct':
      return `read${pascalCase(type.name)}(from, ${at})`;
    case 'array': {
      const index = `i${depth}`;
      const inner = read(type.element, `${at} + ${type.stride} * ${index}`, depth + 1);
      return `Array.from({ length: ${type.length} }, (_, ${index}) => ${inner})`;
    }
  }
}

function cType(type: FieldType): string {
  switch (type.kind) {
    case 'int':
      if (type.bool) return 'bool, 0 or 1';
      return `${type.signed ? 's' : 'u'}${type.bytes * 8}${type.bigEndian ? ', network byte order in C' : ''}`;
    case 'bytes':
      return `${type.length} bytes`;
    case 'array':
      return `${type.length} of ${cType(type.element)}`;
    case 'address':
      return 'IPv4 or IPv6 address as text, empty: none';
    case 'struct':
      return `struct ${type.name}`;
  }
}

function emitStruct({ name, size, fields }: Struct): string {
  const ts = pascalCase(name);
  const at = ({ offset }: Field): string => (offset === 0 ? 'at' : `at + ${offset}`);
  const writes = fields.map((field) =>
    write(field.type, `${name}.${field.name}`, `value.${camelCase(field.name)}`, at(field), 0),
  );
  return `
/** struct ${name}, ${size} bytes. */
export interface ${ts} {
${fields.map(({ name: field, offset, type }) => `/** ${cType(type)}, offset ${offset}. */\nreadonly ${camelCase(field)}: ${tsType(type)};`).join('\n')}
}
function write${ts}(to: Buffer, at: number, value: ${ts}): void {
${writes.length === 0 ? 'void to; void at; void value;' : writes.join('\n')}
}
function read${ts}(from: Buffer, at: number): ${ts} {
${fields.length === 0 ? 'void from; void at;' : ''}
return {
${fields.map((field) => `${camelCase(field.name)}: ${read(field.type, at(field), 0)},`).join('\n')}
};
}
/** struct ${name}, ${size} bytes. */
export const ${camelCase(name)}Codec: Codec<${ts}> = makeCodec('${name}', ${size}, write${ts}, read${ts});
`;
}

function emitEnum(source: Enum): string {
  const ts = pascalCase(source.name);
  const values = enumerators(source);
  return `
/** enum ${source.name}. */
export const ${ts} = {
${values.map(({ name, value }) => `${name}: ${value},`).join('\n')}
} as const;
/** A value of enum ${source.name}. */
export type ${ts} = (typeof ${ts})[keyof typeof ${ts}];
/** Value of enum ${source.name} -> name, lower case; without the mark of the end. */
export const ${camelCase(source.name)}Names: Readonly<Record<number, string>> = {
${values
  .filter(({ sentinel }) => !sentinel)
  .map(({ name, value }) => `[${value}]: '${name.toLowerCase()}',`)
  .join('\n')}
};
`;
}

/** The codec of a key or value. @throws Error for a type that needs a struct around it */
function elementCodec(element: Element, where: string): string {
  if (element === undefined) return 'undefined';
  if (element.kind === 'struct') return `${camelCase(element.name)}Codec`;
  if (element.kind === 'address') return 'addressCodec';
  if (element.kind === 'bytes') return `bytesCodec(${element.length})`;
  if (element.kind === 'int' && !element.signed && !element.bigEndian) return `u${element.bytes * 8}Codec`;
  throw new Error(`${where} is ${cType(element)}: put it into a named struct`);
}

function emitMap({ name, type, maxEntries, key, value }: MapLayout): string {
  return `${name}: {
    name: '${name}',
    type: ${type},
    maxEntries: ${maxEntries},
    key: ${elementCodec(key, `key of map ${name}`)},
    value: ${elementCodec(value, `value of map ${name}`)},
  },`;
}

function requireUnique(names: readonly string[], where: string): void {
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  if (twice !== undefined) throw new Error(`two C names become ${twice} in ${where}: rename one`);
}

/** The TypeScript module of a model, not yet formatted. */
export function emitTypeScript(model: Model): string {
  const { structs, enums, maps } = model;
  requireUnique(
    [...structs, ...enums].map(({ name }) => pascalCase(name)),
    'the module',
  );
  for (const { name, fields } of structs) {
    requireUnique(
      fields.map((field) => camelCase(field.name)),
      `struct ${name}`,
    );
  }
  const body = `
${enums.map(emitEnum).join('')}
${structs.map(emitStruct).join('')}
/** The maps with their codecs; type is enum bpf_map_type, maxEntries is bytes for ring buffers. */
export const maps = {
${maps.map(emitMap).join('\n')}
} as const;
`;
  const runtime = [
    ...['bytesCodec', 'checkBigInteger', 'checkInteger', 'checkLength', 'makeCodec'],
    ...['u16Codec', 'u32Codec', 'u64Codec', 'u8Codec'],
  ].filter((name) => new RegExp(`\\b${name}\\b`).test(body));
  const addresses = ['addressCodec', 'readAddress', 'writeAddress'].filter((name) =>
    new RegExp(`\\b${name}\\b`).test(body),
  );
  const addressImport = addresses.length === 0 ? '' : `import { ${addresses.join(', ')} } from '../bpf/address.ts';\n`;
  const hash = createHash('sha256').update(JSON.stringify(model)).digest('hex').slice(0, 16);
  return `// Generated from the BTF of the BPF objects by scripts/gen-layouts.ts. Do not edit.
${addressImport}import { ${[...runtime, 'type Codec'].join(', ')} } from '../bpf/codec.ts';

/** Identifies these layouts: equal exactly if structs, enums and maps are. */
export const LAYOUT_HASH = '${hash}';
${body}`;
}
