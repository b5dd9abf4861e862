import { existsSync, mkdirSync } from 'node:fs';
import { dirname } from 'node:path';
import {
  BpfError,
  check,
  ClosedError,
  isENOENT,
  LayoutMismatchError,
  VerifierError,
  type LayoutDifference,
} from './errors.ts';
import { openPinned } from './fd.ts';
import { mapInfo } from './info.ts';
import { lastErrno, libbpf, libc, readMemory, type Pointer } from './libbpf.ts';
import { withLibbpfLog } from './libbpf-log.ts';

/** A program of a loaded object; the descriptor belongs to the object. */
export interface LoadedProgram {
  readonly name: string;
  /** Valid until the object is closed. */
  readonly fd: number;
}

/** Bounds the walk over libbpf's lists. */
const MAX_ITEMS = 1024;
/** BTF_KIND_DATASEC of linux/btf.h. */
const BTF_KIND_DATASEC = 15;

type State = 'open' | 'loaded' | 'failed' | 'closed';

/**
 * A compiled BPF object file (ELF) and what is loaded of it.
 *
 * Order: open, any of the set methods, load, the rest, close. Closing drops our descriptors only: what is pinned or
 * attached stays in the kernel.
 */
export class BpfObject {
  readonly path: string;
  readonly #maps: ReadonlyMap<string, Pointer>;
  readonly #programs: ReadonlyMap<string, Pointer>;
  #object: Pointer;
  #state: State = 'open';

  private constructor(path: string, object: Pointer) {
    this.path = path;
    this.#object = object;
    const api = libbpf();
    this.#maps = collect(
      (previous) => api.bpf_object__next_map(object, previous),
      (map) => api.bpf_map__name(map),
    );
    this.#programs = collect(
      (previous) => api.bpf_object__next_program(object, previous),
      (program) => api.bpf_program__name(program),
    );
  }

  /**
   * Parses an object file; nothing is loaded.
   * @throws BpfError ENOENT for a missing file, LIBBPF_* or EINVAL for one that libbpf cannot read
   */
  static open(path: string): BpfObject {
    const { result, log } = withLibbpfLog(() => {
      const object = libbpf().bpf_object__open_file(path, null);
      return object ?? -lastErrno();
    });
    if (typeof result === 'number') throw new BpfError(`open BPF object ${path}`, -result, log, firstComplaint(log));
    return new BpfObject(path, result);
  }

  /** Names of the maps, the compiler's own (.rodata, .bss) included, in file order. */
  mapNames(): string[] {
    return [...this.#maps.keys()];
  }

  /** Names of the programs in file order. */
  programNames(): string[] {
    return [...this.#programs.keys()];
  }

  /** Overrides a map's size: entries, or bytes for a ring buffer (rounded up to a power of two of pages). */
  setMaxEntries(map: string, entries: number): void {
    const pointer = this.#map(map, 'open');
    check(`set max_entries of map ${map} to ${entries}`, libbpf().bpf_map__set_max_entries(pointer, entries));
  }

  /**
   * load() adopts the map pinned at `path`, contents included, or creates and pins a new one there.
   * The directory is made where it is missing.
   */
  setPinPath(map: string, path: string): void {
    const pointer = this.#map(map, 'open');
    check(`set pin path of map ${map} to ${path}`, libbpf().bpf_map__set_pin_path(pointer, path));
  }

  /** Chooses whether load() loads a program (default: all of them). */
  setAutoload(program: string, autoload: boolean): void {
    const pointer = this.#program(program, 'open');
    check(`set autoload of program ${program}`, libbpf().bpf_program__set_autoload(pointer, autoload));
  }

  /**
   * Writes a `const volatile` global before load().
   * @param value exactly the variable's bytes, host byte order
   */
  setRodata(variable: string, value: Buffer): void {
    this.#require('open');
    const operation = `set constant ${variable} of ${this.path}`;
    const { offset, size } = this.#rodataVariable(operation, variable);
    if (size !== value.length) throw new RangeError(`${operation}: ${value.length} bytes, expected ${size}`);
    const name = [...this.#maps.keys()].find((map) => map.endsWith('.rodata'));
    const sectionSize = Buffer.alloc(8);
    const base = name === undefined ? null : libbpf().bpf_map__initial_value(this.#map(name, 'open'), sectionSize);
    if (base === null || BigInt(offset + size) > sectionSize.readBigUInt64LE()) {
      throw new Error(`${operation}: the object has no such data`);
    }
    libc().memcpy(base + BigInt(offset), value, size);
  }

  /**
   * Creates or adopts the maps and loads the programs. On failure nothing of this object stays in the kernel or pinned,
   * and the object can only be closed.
   * @throws LayoutMismatchError before anything is changed, where a pinned map has another layout
   * @throws VerifierError where the kernel refuses a program
   * @throws BpfError
   */
  load(): void {
    this.#require('open');
    const api = libbpf();
    this.requireSameLayout();
    for (const { path } of this.#pinPaths()) mkdirSync(dirname(path), { recursive: true, mode: 0o700 });

    const { result, log } = withLibbpfLog(() => api.bpf_object__load(this.#object));
    if (result === 0) {
      this.#state = 'loaded';
      return;
    }
    this.#state = 'failed';
    throw loadError(`load BPF object ${this.path}`, -result, log);
  }

  /**
   * Compares the maps with those that are pinned where `load` would pin them.
   * @throws LayoutMismatchError
   */
  requireSameLayout(): void {
    this.#require('open');
    const differences = this.#pinPaths().flatMap(({ name, map, path }) => compareLayout(name, map, path));
    if (differences.length > 0) throw new LayoutMismatchError(differences);
  }

  /** @throws Error for a program that does not exist or was not loaded */
  program(name: string): LoadedProgram {
    const fd = libbpf().bpf_program__fd(this.#program(name, 'loaded'));
    if (fd < 0) throw new Error(`program ${name} of ${this.path} was not loaded (autoload is off)`);
    return { name, fd };
  }

  /** Descriptor of a map, valid until close(). */
  mapFd(name: string): number {
    return check(`descriptor of map ${name}`, libbpf().bpf_map__fd(this.#map(name, 'loaded')));
  }

  /**
   * Pins a program; the directory is made where it is missing.
   * @throws BpfError EEXIST where something is pinned already
   */
  pinProgram(name: string, path: string): void {
    const { fd } = this.program(name);
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    check(`pin program ${name} at ${path}`, libbpf().bpf_obj_pin(fd, path));
  }

  /** Frees the object and its descriptors; a second call does nothing. */
  close(): void {
    if (this.#state === 'closed') return;
    this.#state = 'closed';
    libbpf().bpf_object__close(this.#object);
    this.#object = 0n;
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #pinPaths(): { name: string; map: Pointer; path: string }[] {
    return [...this.#maps].flatMap(([name, map]) => {
      const path = libbpf().bpf_map__pin_path(map);
      return path === null ? [] : [{ name, map, path }];
    });
  }

  #require(state: State): void {
    if (this.#state === 'closed') throw new ClosedError(`BPF object ${this.path}`);
    if (this.#state !== state) throw new Error(`BPF object ${this.path} is ${this.#state}, must be ${state} for this`);
  }

  #map(name: string, state: State): Pointer {
    this.#require(state);
    return find(this.#maps, 'map', name, this.path);
  }

  #program(name: string, state: State): Pointer {
    this.#require(state);
    return find(this.#programs, 'program', name, this.path);
  }

  /** Where a variable is in .rodata: libbpf completes the offsets in the BTF when it opens the file. */
  #rodataVariable(operation: string, variable: string): { offset: number; size: number } {
    const api = libbpf();
    const btf = api.bpf_object__btf(this.#object);
    const section = btf === null ? -1 : api.btf__find_by_name_kind(btf, '.rodata', BTF_KIND_DATASEC);
    if (btf === null || section < 0) throw new Error(`${operation}: the object has no .rodata section in its BTF`);
    const type = api.btf__type_by_id(btf, section);
    if (type === null) throw new Error(`${operation}: broken BTF`);
    // struct btf_type { name_off, info, size }, then per variable struct btf_var_secinfo { type, offset, size }.
    const count = readMemory(type, 12).readUInt32LE(4) & 0xffff;
    const variables = readMemory(type + 12n, 12 * count);
    for (let at = 0; at < variables.length; at += 12) {
      const entry = api.btf__type_by_id(btf, variables.readUInt32LE(at));
      const name = entry === null ? null : api.btf__name_by_offset(btf, readMemory(entry, 4).readUInt32LE());
      if (name === variable) return { offset: variables.readUInt32LE(at + 4), size: variables.readUInt32LE(at + 8) };
    }
    throw new Error(`${operation}: no such variable in .rodata`);
  }
}

function collect(
  next: (previous: Pointer | null) => Pointer | null,
  name: (item: Pointer) => string,
): Map<string, Pointer> {
  const items = new Map<string, Pointer>();
  for (let item = next(null); item !== null && items.size < MAX_ITEMS; item = next(item)) items.set(name(item), item);
  return items;
}

function find(items: ReadonlyMap<string, Pointer>, kind: string, name: string, path: string): Pointer {
  const item = items.get(name);
  if (item === undefined) throw new Error(`no ${kind} ${name} in ${path}; it has ${[...items.keys()].join(', ')}`);
  return item;
}

/** The same properties libbpf compares before it reuses a pinned map. */
function compareLayout(name: string, map: Pointer, pinPath: string): LayoutDifference[] {
  if (!existsSync(pinPath)) return [];
  const api = libbpf();
  let pinned;
  try {
    using fd = openPinned(pinPath);
    pinned = mapInfo(fd.fd);
  } catch (error) {
    if (isENOENT(error)) return [];
    throw error;
  }
  const fields = [
    ['type', pinned.type, api.bpf_map__type(map)],
    ['key_size', pinned.keySize, api.bpf_map__key_size(map)],
    ['value_size', pinned.valueSize, api.bpf_map__value_size(map)],
    ['max_entries', pinned.maxEntries, api.bpf_map__max_entries(map)],
    ['map_flags', pinned.flags, api.bpf_map__map_flags(map)],
  ] as const;
  return fields.flatMap(([field, has, wanted]) =>
    has === wanted ? [] : [{ map: name, pinPath, field, pinned: has, wanted }],
  );
}

function loadError(operation: string, errno: number, log: string): BpfError {
  // libbpf: "libbpf: prog 'NAME': -- BEGIN PROG LOAD LOG --\n...-- END PROG LOAD LOG --"
  const match = /prog '([^']*)': -- BEGIN PROG LOAD LOG --\n([\s\S]*?)(?:-- END PROG LOAD LOG --|$)/.exec(log);
  if (match === null) return new BpfError(operation, errno, log, firstComplaint(log));
  const program = match[1] ?? '';
  return new VerifierError(`${operation}, program ${program}`, errno, program, match[2] ?? '', log);
}

/** libbpf's first complaint says most; later ones only repeat that something failed. */
function firstComplaint(log: string): string | undefined {
  const lines = log.split('\n').filter((line) => line.startsWith('libbpf: ') && !line.includes('loading object'));
  return lines[0]?.slice('libbpf: '.length, 300);
}
