/** One sidecar per data plane: a lock on the pin directory, which the kernel gives back when the process ends, however. */
import { closeSync, constants, openSync } from 'node:fs';
import koffi from 'koffi';
import { RequirementError } from '../util/errors.ts';

// The running program: node is linked with the C library, whatever that library's file is called here.
const flockCall = koffi.load(null).func('flock', 'int', ['int', 'int']) as (fd: number, operation: number) => number;

/* <sys/file.h> */
const LOCK_EX = 2;
const LOCK_NB = 4;

/** A held lock. */
export interface DirectoryLock {
  release(): void;
}

/**
 * Locks a directory that exists.
 * @throws RequirementError where another process holds it, Error where it cannot be locked
 */
export function lockDirectory(path: string): DirectoryLock {
  const fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY);
  if (flockCall(fd, LOCK_EX | LOCK_NB) === 0) return { release: () => closeSync(fd) };
  const errno = koffi.errno();
  closeSync(fd);
  throw errno === koffi.os.errno['EWOULDBLOCK']
    ? new RequirementError(`another xmasq-agent works on the data plane at ${path}`, 'stop it first')
    : new Error(`${path} cannot be locked (errno ${errno})`);
}
