/** A network namespace of its own for the calling thread: BPF_PROG_TEST_RUN, netlink and sockets then happen there. */
import { closeSync, openSync } from 'node:fs';
import koffi from 'koffi';

const CLONE_NEWNET = 0x4000_0000;

const libc = koffi.load(null);
const unshare = libc.func('unshare', 'int', ['int']) as (flags: number) => number;
const setns = libc.func('setns', 'int', ['int', 'int']) as (fd: number, type: number) => number;

/** Leaves the namespace; it goes away with the last socket in it. */
export interface PrivateNamespace {
  leave(): void;
}

/**
 * Moves the calling thread, and child processes it starts from now on, into a new and empty network namespace. Nothing
 * has to be cleaned up: the namespace has no name. Threads of the pool stay where they are.
 * @throws Error without CAP_SYS_ADMIN
 */
export function enterPrivateNamespace(): PrivateNamespace {
  const before = openSync('/proc/thread-self/ns/net', 'r');
  if (unshare(CLONE_NEWNET) !== 0) {
    const errno = koffi.errno();
    closeSync(before);
    throw new Error(`unshare(CLONE_NEWNET): errno ${errno}; these tests run as root`);
  }
  return {
    leave() {
      const result = setns(before, CLONE_NEWNET);
      const errno = koffi.errno();
      closeSync(before);
      if (result !== 0) throw new Error(`setns back to the first network namespace: errno ${errno}`);
    },
  };
}
