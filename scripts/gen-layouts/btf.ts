import { execFileSync } from 'node:child_process';

/** A member of a struct or union, as bpftool prints it. */
export interface BtfMember {
  /** "(anon)" where the C source has none. */
  name: string;
  type_id: number;
  bits_offset: number;
  /** Absent or 0 for ordinary members. */
  bitfield_size?: number;
}

/** A type of `bpftool -j btf dump`; which fields are there depends on `kind`. */
export interface BtfType {
  id: number;
  kind: string;
  name: string;
  size?: number;
  type_id?: number;
  nr_elems?: number;
  encoding?: string;
  members?: BtfMember[];
  values?: { name: string; val: number }[];
  vars?: { type_id: number; offset: number; size: number }[];
}

/** bpftool's word for "no name". */
export const ANONYMOUS = '(anon)';

const TRANSPARENT: ReadonlySet<string> = new Set(['TYPEDEF', 'CONST', 'VOLATILE', 'RESTRICT', 'TYPE_TAG']);
const MAX_DUMP_BYTES = 256 << 20;

/** The type information of one BPF object file. */
export class Btf {
  readonly #types: ReadonlyMap<number, BtfType>;

  constructor(types: readonly BtfType[]) {
    this.#types = new Map(types.map((type) => [type.id, type]));
  }

  /**
   * Reads an object file by bpftool.
   * @throws Error where bpftool fails, for example on an object without BTF (compile with -g)
   */
  static ofObject(path: string): Btf {
    const dump = execFileSync('bpftool', ['-j', 'btf', 'dump', 'file', path], {
      encoding: 'utf8',
      maxBuffer: MAX_DUMP_BYTES,
    });
    return new Btf((JSON.parse(dump) as { types: BtfType[] }).types);
  }

  /** All types in the order of the file. */
  all(): BtfType[] {
    return [...this.#types.values()];
  }

  type(id: number | undefined): BtfType {
    const type = id === undefined ? undefined : this.#types.get(id);
    if (type === undefined) throw new Error(`broken BTF: no type ${String(id)}`);
    return type;
  }

  /**
   * Strips typedefs and qualifiers.
   * @returns the type and the names of the typedefs on the way
   */
  resolve(id: number | undefined): { type: BtfType; typedefs: string[] } {
    const typedefs: string[] = [];
    let type = this.type(id);
    while (TRANSPARENT.has(type.kind)) {
      if (type.kind === 'TYPEDEF') typedefs.push(type.name);
      type = this.type(type.type_id);
    }
    return { type, typedefs };
  }
}
