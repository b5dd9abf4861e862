import { constants } from 'node:os';

const namesByErrno = new Map<number, string>(Object.entries(constants.errno).map(([name, errno]) => [errno, name]));
// Linux gives one number two names; say the one that its manual pages use.
namesByErrno.set(constants.errno.EAGAIN, 'EAGAIN');
namesByErrno.set(constants.errno.EOPNOTSUPP, 'EOPNOTSUPP');

/** Symbolic name of a positive errno ("ENOENT"), or "E<number>" for one that this platform does not name. */
export function errnoName(errno: number): string {
  return namesByErrno.get(errno) ?? `E${errno}`;
}

/** A refusal by the kernel, or by the C library, of one netlink operation. */
export class NetlinkError extends Error {
  override readonly name = 'NetlinkError';
  /** Positive errno. */
  readonly errno: number;
  /** Symbolic name of `errno`, such as "ENOENT". */
  readonly code: string;
  /** The operation that failed, in words. */
  readonly what: string;

  /**
   * @param errno positive errno
   * @param what the operation, in words: "conntrack get"
   * @param detail what the kernel said about it (extended acknowledgement), if anything
   */
  constructor(errno: number, what: string, detail?: string) {
    const code = errnoName(errno);
    super(detail === undefined ? `${what}: ${code}` : `${what}: ${code} (${detail})`);
    this.errno = errno;
    this.code = code;
    this.what = what;
  }
}

/** Bytes that are not the netlink message or attribute they should be. */
export class NetlinkFormatError extends Error {
  override readonly name = 'NetlinkFormatError';
}

/** True for a NetlinkError with one of the given codes. */
export function isNetlinkError(error: unknown, ...codes: readonly string[]): error is NetlinkError {
  return error instanceof NetlinkError && codes.includes(error.code);
}
