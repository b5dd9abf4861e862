/**
 * The only place with raw prototypes: libbpf.so.1 (1.1 or later) and the few libc calls beside it.
 *
 * Pointers are `bigint` and never leave this directory: a wrong one kills the process. Prototypes use `void *`
 * throughout and no named koffi types, because those are global to the process and a module that is evaluated twice
 * (test runners do that) would declare them twice.
 */
import koffi, { type LibraryHandle } from 'koffi';
import { Errno, BpfError } from './errors.ts';

/** An address in this process. */
export type Pointer = bigint;
/** A callback registered with koffi, as an address. */
export type CallbackPointer = bigint;

/** libbpf calls in use. Those that return a number return a negative error number on failure. */
export interface Libbpf {
  libbpf_set_print(print: CallbackPointer | null): unknown;
  libbpf_num_possible_cpus(): number;

  bpf_object__open_file(path: string, opts: null): Pointer | null;
  bpf_object__load(object: Pointer): number;
  bpf_object__close(object: Pointer): void;
  bpf_object__next_map(object: Pointer, previous: Pointer | null): Pointer | null;
  bpf_object__next_program(object: Pointer, previous: Pointer | null): Pointer | null;
  bpf_object__btf(object: Pointer): Pointer | null;

  btf__find_by_name_kind(btf: Pointer, name: string, kind: number): number;
  btf__type_by_id(btf: Pointer, id: number): Pointer | null;
  btf__name_by_offset(btf: Pointer, offset: number): string | null;

  bpf_map__name(map: Pointer): string;
  bpf_map__type(map: Pointer): number;
  bpf_map__key_size(map: Pointer): number;
  bpf_map__value_size(map: Pointer): number;
  bpf_map__max_entries(map: Pointer): number;
  bpf_map__map_flags(map: Pointer): number;
  bpf_map__fd(map: Pointer): number;
  bpf_map__is_internal(map: Pointer): boolean;
  bpf_map__set_max_entries(map: Pointer, entries: number): number;
  bpf_map__set_pin_path(map: Pointer, path: string | null): number;
  bpf_map__pin_path(map: Pointer): string | null;
  /** @param size 8 bytes, receives size_t */
  bpf_map__initial_value(map: Pointer, size: Buffer): Pointer | null;

  bpf_program__name(program: Pointer): string;
  bpf_program__fd(program: Pointer): number;
  bpf_program__set_autoload(program: Pointer, autoload: boolean): number;
  bpf_program__autoload(program: Pointer): boolean;

  bpf_obj_pin(fd: number, path: string): number;
  bpf_obj_get(path: string): number;
  /** @param length 4 bytes: in the size of `info`, out the size the kernel filled */
  bpf_obj_get_info_by_fd(fd: number, info: Buffer, length: Buffer): number;

  bpf_link_update(linkFd: number, programFd: number, opts: null): number;
  bpf_link_detach(linkFd: number): number;

  bpf_tc_hook_create(hook: Buffer): number;
  bpf_tc_hook_destroy(hook: Buffer): number;
  bpf_tc_attach(hook: Buffer, opts: Buffer): number;
  bpf_tc_detach(hook: Buffer, opts: Buffer): number;
  bpf_tc_query(hook: Buffer, opts: Buffer): number;

  bpf_map_lookup_elem(fd: number, key: Buffer, value: Buffer): number;
  bpf_map_update_elem(fd: number, key: Buffer, value: Buffer, flags: number): number;
  bpf_map_lookup_batch(
    fd: number,
    inBatch: Buffer | null,
    outBatch: Buffer,
    keys: Buffer,
    values: Buffer,
    count: Buffer,
    opts: null,
  ): number;
  bpf_map_update_batch(fd: number, keys: Buffer, values: Buffer, count: Buffer, opts: null): number;
  bpf_map_delete_batch(fd: number, keys: Buffer, count: Buffer, opts: null): number;

  ring_buffer__new(mapFd: number, callback: CallbackPointer, context: null, opts: null): Pointer | null;
  ring_buffer__consume(ring: Pointer): number;
  ring_buffer__free(ring: Pointer): void;

  bpf_prog_test_run_opts(programFd: number, opts: Buffer): number;
}

/** libc calls in use. */
export interface Libc {
  memcpy(to: Buffer | Pointer, from: Buffer | Pointer, bytes: number): unknown;
  vsnprintf(to: Buffer, size: number, format: string, args: Pointer): number;
  mount(source: string, target: string, type: string, flags: number, data: null): number;
  syscall(number: number, command: number, attr: Buffer, size: number): number | bigint;
}

type Signature = readonly [result: string, args: readonly string[]];

const LIBBPF: Readonly<Record<keyof Libbpf, Signature>> = {
  libbpf_set_print: ['void *', ['void *']],
  libbpf_num_possible_cpus: ['int', []],
  bpf_object__open_file: ['void *', ['str', 'void *']],
  bpf_object__load: ['int', ['void *']],
  bpf_object__close: ['void', ['void *']],
  bpf_object__next_map: ['void *', ['void *', 'void *']],
  bpf_object__next_program: ['void *', ['void *', 'void *']],
  bpf_object__btf: ['void *', ['void *']],
  btf__find_by_name_kind: ['int', ['void *', 'str', 'uint32_t']],
  btf__type_by_id: ['void *', ['void *', 'uint32_t']],
  btf__name_by_offset: ['str', ['void *', 'uint32_t']],
  bpf_map__name: ['str', ['void *']],
  bpf_map__type: ['int', ['void *']],
  bpf_map__key_size: ['uint32_t', ['void *']],
  bpf_map__value_size: ['uint32_t', ['void *']],
  bpf_map__max_entries: ['uint32_t', ['void *']],
  bpf_map__map_flags: ['uint32_t', ['void *']],
  bpf_map__fd: ['int', ['void *']],
  bpf_map__is_internal: ['bool', ['void *']],
  bpf_map__set_max_entries: ['int', ['void *', 'uint32_t']],
  bpf_map__set_pin_path: ['int', ['void *', 'str']],
  bpf_map__pin_path: ['str', ['void *']],
  bpf_map__initial_value: ['void *', ['void *', 'void *']],
  bpf_program__name: ['str', ['void *']],
  bpf_program__fd: ['int', ['void *']],
  bpf_program__set_autoload: ['int', ['void *', 'bool']],
  bpf_program__autoload: ['bool', ['void *']],
  bpf_obj_pin: ['int', ['int', 'str']],
  bpf_obj_get: ['int', ['str']],
  bpf_obj_get_info_by_fd: ['int', ['int', 'void *', 'void *']],
  bpf_link_update: ['int', ['int', 'int', 'void *']],
  bpf_link_detach: ['int', ['int']],
  bpf_tc_hook_create: ['int', ['void *']],
  bpf_tc_hook_destroy: ['int', ['void *']],
  bpf_tc_attach: ['int', ['void *', 'void *']],
  bpf_tc_detach: ['int', ['void *', 'void *']],
  bpf_tc_query: ['int', ['void *', 'void *']],
  bpf_map_lookup_elem: ['int', ['int', 'void *', 'void *']],
  bpf_map_update_elem: ['int', ['int', 'void *', 'void *', 'uint64_t']],
  bpf_map_lookup_batch: ['int', ['int', 'void *', 'void *', 'void *', 'void *', 'void *', 'void *']],
  bpf_map_update_batch: ['int', ['int', 'void *', 'void *', 'void *', 'void *']],
  bpf_map_delete_batch: ['int', ['int', 'void *', 'void *', 'void *']],
  ring_buffer__new: ['void *', ['int', 'void *', 'void *', 'void *']],
  ring_buffer__consume: ['int', ['void *']],
  ring_buffer__free: ['void', ['void *']],
  bpf_prog_test_run_opts: ['int', ['int', 'void *']],
};

const LIBC: Readonly<Record<keyof Libc, Signature>> = {
  memcpy: ['void *', ['void *', 'void *', 'size_t']],
  vsnprintf: ['int', ['void *', 'size_t', 'str', 'void *']],
  mount: ['int', ['str', 'str', 'str', 'ulong', 'void *']],
  syscall: ['long', ['long', 'long', 'void *', 'ulong']],
};

function bind<T>(file: string, signatures: Readonly<Record<keyof T & string, Signature>>, hint: string): T {
  let library: LibraryHandle;
  try {
    library = koffi.load(file);
  } catch (cause) {
    throw new Error(`cannot load ${file}: ${hint}`, { cause });
  }
  const bound: Record<string, unknown> = {};
  for (const [name, [result, args]] of Object.entries<Signature>(signatures)) {
    bound[name] = library.func(name, result, [...args]);
  }
  return bound as T;
}

let libbpfApi: Libbpf | undefined;
let libcApi: Libc | undefined;

/**
 * libbpf's calls; the library is loaded on first use and stays silent until a log is captured.
 * @throws Error where libbpf.so.1 is missing or older than 1.0
 */
export function libbpf(): Libbpf {
  if (libbpfApi === undefined) {
    libbpfApi = bind<Libbpf>('libbpf.so.1', LIBBPF, 'install the package libbpf1 (1.1 or later)');
    // Its default is to write to stderr.
    libbpfApi.libbpf_set_print(null);
  }
  return libbpfApi;
}

/** libc's calls; loaded on first use. */
export function libc(): Libc {
  libcApi ??= bind<Libc>('libc.so.6', LIBC, 'a glibc system is required');
  return libcApi;
}

/** The error number of the last libc or pointer-returning libbpf call. Call it at once. */
export function lastErrno(): number {
  return koffi.errno();
}

/** The address of a buffer's first byte. The caller keeps the buffer reachable for as long as the address is in use. */
export function addressOf(buffer: Buffer): Pointer {
  return koffi.address(buffer);
}

/** Copies native memory. The caller knows that `bytes` bytes are readable there. */
export function readMemory(from: Pointer, bytes: number): Buffer {
  const copy = Buffer.alloc(bytes);
  if (bytes > 0) libc().memcpy(copy, from, bytes);
  return copy;
}

/**
 * Makes a C function pointer of a JavaScript function. It must not throw, and must be released after the last call.
 * @param args koffi type names
 */
export function registerCallback(
  callback: (...args: never[]) => number,
  args: readonly string[],
): { pointer: CallbackPointer; release: () => void } {
  const pointer = koffi.register(callback, koffi.pointer(koffi.proto('int', [...args])));
  return { pointer, release: () => koffi.unregister(pointer) };
}

/** Commands of bpf(2) that libbpf 1.1 cannot issue with all their attributes; from linux/bpf.h. */
export const BpfCommand = { PROG_QUERY: 16, LINK_CREATE: 28 } as const;

/** Numbers of bpf(2) by Node's architecture name. */
const SYS_BPF: Readonly<Record<string, number>> = { x64: 321, arm64: 280, riscv64: 280, s390x: 351, ppc64: 361 };

/**
 * bpf(2) itself.
 * @param attr the command's part of union bpf_attr; a size beyond what the kernel knows must be zero there
 * @returns the non-negative result
 * @throws BpfError
 */
export function bpfSyscall(operation: string, command: number, attr: Buffer): number {
  const number = SYS_BPF[process.arch];
  if (number === undefined) throw new Error(`${operation}: no number of bpf(2) known for ${process.arch}`);
  const rc = Number(libc().syscall(number, command, attr, attr.length));
  if (rc < 0) {
    const errno = lastErrno();
    throw new BpfError(operation, errno === 0 ? Errno.EINVAL : errno);
  }
  return rc;
}
