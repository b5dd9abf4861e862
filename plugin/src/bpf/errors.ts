import { getSystemErrorName } from 'node:util';

/** Linux error numbers that this layer distinguishes. */
export const Errno = {
  EPERM: 1,
  ENOENT: 2,
  E2BIG: 7,
  EBADF: 9,
  EACCES: 13,
  EEXIST: 17,
  ENODEV: 19,
  EINVAL: 22,
  ENOSPC: 28,
  EBADMSG: 74,
  EOPNOTSUPP: 95,
} as const;

/** libbpf's own error numbers, from bpf/libbpf.h `enum libbpf_errno`. */
const LIBBPF_CODES: Readonly<Record<number, string>> = {
  4000: 'LIBBPF_LIBELF',
  4001: 'LIBBPF_FORMAT',
  4002: 'LIBBPF_KVERSION',
  4003: 'LIBBPF_ENDIAN',
  4004: 'LIBBPF_INTERNAL',
  4005: 'LIBBPF_RELOC',
  4006: 'LIBBPF_LOAD',
  4007: 'LIBBPF_VERIFY',
  4008: 'LIBBPF_PROG2BIG',
  4009: 'LIBBPF_KVER',
  4010: 'LIBBPF_PROGTYPE',
  4011: 'LIBBPF_WRNGPID',
  4012: 'LIBBPF_INVSEQ',
  4013: 'LIBBPF_NLPARSE',
};

/**
 * The symbolic name of an error number: "ENOENT", "LIBBPF_VERIFY", or "E<number>" where none is known.
 * @param errno positive error number
 */
export function errnoCode(errno: number): string {
  // In-kernel only, yet some bpf(2) commands return it.
  if (errno === 524) return 'ENOTSUPP';
  const own = LIBBPF_CODES[errno];
  if (own !== undefined) return own;
  try {
    const name = getSystemErrorName(-errno);
    return /^E\w+$/.test(name) ? name : `E${errno}`;
  } catch {
    return `E${errno}`;
  }
}

/** A failed call into libbpf or bpf(2). */
export class BpfError extends Error {
  override readonly name: string = 'BpfError';
  /** Positive error number; 4000 and up are libbpf's own. */
  readonly errno: number;
  /** Symbolic name of `errno`. */
  readonly code: string;
  /** What was attempted, including the object concerned. */
  readonly operation: string;
  /** What libbpf logged during the call, if anything. */
  readonly libbpfLog: string | undefined;

  /** @param hint what the reader can do about it, appended to the message */
  constructor(operation: string, errno: number, libbpfLog?: string, hint?: string) {
    const code = errnoCode(errno);
    super(`${operation}: ${code}${hint === undefined ? '' : ` (${hint})`}`);
    this.errno = errno;
    this.code = code;
    this.operation = operation;
    this.libbpfLog = libbpfLog === undefined || libbpfLog === '' ? undefined : libbpfLog;
  }
}

/** The kernel refused a program. The message is a summary; the whole log is data. */
export class VerifierError extends BpfError {
  override readonly name = 'VerifierError';
  /** Name of the refused program, '' if libbpf did not say. */
  readonly program: string;
  /** The verifier's log (its tail, where it exceeded the capture bound). */
  readonly verifierLog: string;

  constructor(operation: string, errno: number, program: string, verifierLog: string, libbpfLog: string) {
    super(operation, errno, libbpfLog, summarise(verifierLog));
    this.program = program;
    this.verifierLog = verifierLog;
  }
}

/** The last lines of a verifier log that say why, without its statistics. */
function summarise(verifierLog: string): string {
  const lines = verifierLog
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '' && !/^(processed \d+ insns|verification time|stack depth)/.test(line));
  return lines.slice(-2).join(' | ').slice(0, 300);
}

/** One property in which a pinned map and the object's map differ. */
export interface LayoutDifference {
  /** Name of the map in the object. */
  readonly map: string;
  /** Where the existing map is pinned. */
  readonly pinPath: string;
  readonly field: 'type' | 'key_size' | 'value_size' | 'max_entries' | 'map_flags';
  /** The pinned map's value. */
  readonly pinned: number;
  /** The object's value. */
  readonly wanted: number;
}

/** A pinned map cannot be adopted because its layout is another. Nothing has been changed when this is thrown. */
export class LayoutMismatchError extends Error {
  override readonly name = 'LayoutMismatchError';
  readonly differences: readonly LayoutDifference[];

  constructor(differences: readonly LayoutDifference[]) {
    const parts = differences.map((d) => `${d.map}.${d.field} is ${d.pinned} at ${d.pinPath}, wanted ${d.wanted}`);
    super(`pinned maps have another layout: ${parts.join('; ')}`);
    this.differences = differences;
  }
}

/** Use of an owning object after close(). */
export class ClosedError extends Error {
  override readonly name = 'ClosedError';

  /** @param what the closed object, for example "BPF object xmasq" */
  constructor(what: string) {
    super(`${what} is closed`);
  }
}

function hasErrno(error: unknown, errno: number): boolean {
  return error instanceof BpfError && error.errno === errno;
}

/** True for a BpfError with ENOENT. */
export const isENOENT = (error: unknown): boolean => hasErrno(error, Errno.ENOENT);
/** True for a BpfError with EEXIST. */
export const isEEXIST = (error: unknown): boolean => hasErrno(error, Errno.EEXIST);
/** True for a BpfError with ENODEV. */
export const isENODEV = (error: unknown): boolean => hasErrno(error, Errno.ENODEV);
/** True for a BpfError with EINVAL. */
export const isEINVAL = (error: unknown): boolean => hasErrno(error, Errno.EINVAL);
/** True for a BpfError with EPERM or EACCES. */
export const isPermission = (error: unknown): boolean => hasErrno(error, Errno.EPERM) || hasErrno(error, Errno.EACCES);
/** True where bpf(2) is refused to this process; of a program that the verifier refuses, with whatever number, it is not. */
export const isRefused = (error: unknown): boolean => hasErrno(error, Errno.EPERM) && !(error instanceof VerifierError);
/** True for a BpfError with E2BIG (a full hash map) or ENOSPC (a full trie). */
export const isFull = (error: unknown): boolean => hasErrno(error, Errno.E2BIG) || hasErrno(error, Errno.ENOSPC);

/**
 * Returns a non-negative result, throws otherwise.
 * @param rc return value of a libbpf 1.x call: negative error number on failure
 * @throws BpfError
 */
export function check(operation: string, rc: number, libbpfLog?: string): number {
  if (rc < 0) throw new BpfError(operation, -rc, libbpfLog);
  return rc;
}
