/**
 * Short texts that must live exactly as long as the pins: from one start of the sidecar to the next, but not beyond a
 * reboot. They are symbolic links on the bpf file system (which holds nothing else but pins and directories): the link's
 * target is the text. Such a link leads nowhere and is never followed.
 */
import { mkdirSync, readdirSync, readlinkSync, renameSync, rmdirSync, symlinkSync, unlinkSync } from 'node:fs';
import { join } from 'node:path';
import { errorCode } from '../util/errors.ts';

/** The longest target the kernel takes. */
const MAX_BYTES = 4000;

function hasCode(error: unknown, code: string): boolean {
  return errorCode(error) === code;
}

/** One directory of notes. */
export class Notes {
  readonly #directory: string;

  /** @param directory below a bpf file system; made when the first note is written */
  constructor(directory: string) {
    this.#directory = directory;
  }

  /** The text of a note, or undefined. */
  get(name: string): string | undefined {
    try {
      return readlinkSync(join(this.#directory, name));
    } catch (error) {
      if (hasCode(error, 'ENOENT') || hasCode(error, 'EINVAL')) return undefined;
      throw error;
    }
  }

  /**
   * Writes or replaces a note, all or nothing.
   * @param name without dots: the bpf file system takes none
   * @param text not empty, at most 4000 bytes
   */
  set(name: string, text: string): void {
    if (text === '' || Buffer.byteLength(text) > MAX_BYTES) throw new RangeError(`note ${name}: empty or too long`);
    if (this.get(name) === text) return;
    mkdirSync(this.#directory, { recursive: true, mode: 0o700 });
    const temporary = join(this.#directory, `new-${name}`);
    this.#unlink(temporary);
    symlinkSync(text, temporary);
    renameSync(temporary, join(this.#directory, name));
  }

  /** Removes a note; none is fine. */
  delete(name: string): void {
    this.#unlink(join(this.#directory, name));
  }

  /** Names of all notes with this prefix. */
  names(prefix = ''): string[] {
    try {
      return readdirSync(this.#directory).filter((name) => name.startsWith(prefix) && !name.startsWith('new-'));
    } catch (error) {
      if (hasCode(error, 'ENOENT')) return [];
      throw error;
    }
  }

  /** Removes all notes and the directory. */
  clear(): void {
    let names: string[];
    try {
      names = readdirSync(this.#directory);
    } catch (error) {
      if (hasCode(error, 'ENOENT')) return;
      throw error;
    }
    for (const name of names) this.#unlink(join(this.#directory, name));
    rmdirSync(this.#directory);
  }

  #unlink(path: string): void {
    try {
      unlinkSync(path);
    } catch (error) {
      if (!hasCode(error, 'ENOENT')) throw error;
    }
  }
}
