import { accessSync, constants, existsSync, mkdirSync, readdirSync, rmdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { BPFFS, ensureBpffs, isBpffs, unpin } from '../bpf/pins.ts';
import { errorCode, errorMessage, RequirementError } from '../util/errors.ts';
import type { ProgramName } from './programs.ts';

/**
 * Where everything is pinned, below the configured directory:
 *
 *     maps/NAME  programs/NAME  links/PROGRAM-IFINDEX  notes/NAME (see Notes)
 */
export class PinLayout {
  readonly root: string;

  /** @param root directory on a bpf file system */
  constructor(root: string) {
    this.root = root;
  }

  get maps(): string {
    return join(this.root, 'maps');
  }

  get programs(): string {
    return join(this.root, 'programs');
  }

  get links(): string {
    return join(this.root, 'links');
  }

  get notes(): string {
    return join(this.root, 'notes');
  }

  map(name: string): string {
    return join(this.maps, name);
  }

  program(name: string): string {
    return join(this.programs, name);
  }

  link(program: ProgramName, ifindex: number): string {
    return join(this.links, `${program}-${ifindex}`);
  }

  /** True where a data plane was left by an earlier start. */
  exists(): boolean {
    return existsSync(this.map('config'));
  }

  /**
   * Makes the directories, mounting the bpf file system at its usual place if nobody has.
   * @throws BpfError or Error saying what to mount where
   */
  prepare(): void {
    if (this.#isUsual()) ensureBpffs(BPFFS);
    this.requireBpffs();
    for (const directory of [this.maps, this.programs, this.links, this.notes]) {
      mkdirSync(directory, { recursive: true, mode: 0o700 });
    }
  }

  /** True where `prepare` has to mount the bpf file system first, which takes CAP_SYS_ADMIN. */
  needsMount(): boolean {
    return this.#isUsual() && !isBpffs(BPFFS);
  }

  /** Mounts nothing. @throws RequirementError saying what to mount where, or why nothing can be pinned there */
  requireBpffs(): void {
    const existing = nearestExisting(this.root);
    if (!isBpffs(existing)) {
      throw new RequirementError(
        `${this.root} is not on a bpf file system`,
        'mount one (mount -t bpf bpf DIRECTORY; in a container bind the one of the host) or set "bpffs" in the ' +
          `configuration to a directory below ${BPFFS}`,
      );
    }
    try {
      accessSync(existing, constants.W_OK);
    } catch (cause) {
      throw new RequirementError(
        `nothing can be pinned below ${existing} (${errorCode(cause) ?? errorMessage(cause)})`,
        'mount its bpf file system writable, and run this as its owner',
      );
    }
  }

  #isUsual(): boolean {
    return this.root === BPFFS || this.root.startsWith(`${BPFFS}/`);
  }

  /** Names below one of the directories; none if it does not exist. */
  list(directory: string): string[] {
    try {
      return readdirSync(directory);
    } catch (error) {
      if (errorCode(error) === 'ENOENT') return [];
      throw error;
    }
  }

  /** Removes the pins in a directory, and the directory. */
  removeAll(directory: string): number {
    const names = this.list(directory);
    for (const name of names) unpin(join(directory, name));
    if (existsSync(directory)) rmdirSync(directory);
    return names.length;
  }
}

function nearestExisting(path: string): string {
  let current = path;
  while (!existsSync(current) && dirname(current) !== current) current = dirname(current);
  return current;
}
