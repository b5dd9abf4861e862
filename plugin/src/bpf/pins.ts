import { mkdirSync, statfsSync, unlinkSync } from 'node:fs';
import { BpfError, check } from './errors.ts';
import { openPinned, type OwnedFd } from './fd.ts';
import { lastErrno, libbpf, libc } from './libbpf.ts';

export { programInfo, mapInfo, type MapInfo, type ProgramInfo } from './info.ts';

/** Where bpffs is by convention. */
export const BPFFS = '/sys/fs/bpf';
/** BPF_FS_MAGIC of linux/magic.h. */
const BPF_FS_MAGIC = 0xcafe4a11;

/** True where `directory` is on a bpf file system. */
export function isBpffs(directory: string): boolean {
  try {
    return statfsSync(directory).type === BPF_FS_MAGIC;
  } catch {
    return false;
  }
}

/**
 * Mounts the bpf file system where it is not mounted.
 * @returns true if it was mounted by this call
 * @throws BpfError EPERM without CAP_SYS_ADMIN, EACCES or ENOENT where the directory cannot be made
 */
export function ensureBpffs(directory: string = BPFFS): boolean {
  if (isBpffs(directory)) return false;
  try {
    mkdirSync(directory, { recursive: true });
  } catch (cause) {
    throw new Error(`no bpf file system at ${directory} and the directory cannot be made: mount bpffs there`, {
      cause,
    });
  }
  if (libc().mount('bpf', directory, 'bpf', 0, null) < 0) {
    throw new BpfError(
      `mount the bpf file system at ${directory}`,
      lastErrno(),
      undefined,
      `mount it beforehand: mount -t bpf bpf ${directory}, or in a container bind the host's`,
    );
  }
  return true;
}

/**
 * Opens a pinned program. The caller closes it.
 * @throws BpfError ENOENT where nothing is pinned
 */
export function openPinnedProgram(path: string): OwnedFd {
  return openPinned(path);
}

/** Pins any BPF object by its descriptor. @throws BpfError EEXIST where something is pinned already */
export function pin(fd: number, path: string): void {
  check(`pin at ${path}`, libbpf().bpf_obj_pin(fd, path));
}

/** Removes a pin; the object lives on while something else holds it. @returns false where nothing was pinned */
export function unpin(path: string): boolean {
  try {
    unlinkSync(path);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw error;
  }
}
