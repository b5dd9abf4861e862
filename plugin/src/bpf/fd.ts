import { closeSync } from 'node:fs';
import { ClosedError, check } from './errors.ts';
import { libbpf } from './libbpf.ts';

/** Owns a file descriptor of a BPF program, map or link. */
export class OwnedFd {
  readonly #what: string;
  #fd: number | undefined;

  /** @param what for messages, for example "link /sys/fs/bpf/a" */
  constructor(fd: number, what: string) {
    this.#fd = fd;
    this.#what = what;
  }

  /** @throws ClosedError after close() */
  get fd(): number {
    if (this.#fd === undefined) throw new ClosedError(this.#what);
    return this.#fd;
  }

  get closed(): boolean {
    return this.#fd === undefined;
  }

  /** Closes the descriptor; a second call does nothing. */
  close(): void {
    const fd = this.#fd;
    this.#fd = undefined;
    if (fd !== undefined) closeSync(fd);
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/**
 * Opens a pinned program, map or link.
 * @param path below a bpf file system
 * @throws BpfError ENOENT where nothing is pinned
 */
export function openPinned(path: string): OwnedFd {
  return new OwnedFd(check(`open pinned ${path}`, libbpf().bpf_obj_get(path)), `pinned object ${path}`);
}
