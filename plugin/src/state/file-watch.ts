import { watch, type FSWatcher } from 'node:fs';
import { stat } from 'node:fs/promises';
import { dirname } from 'node:path';

export interface FileWatchOptions {
  /** Milliseconds without another hint before the callback; default 100. */
  readonly debounceMs?: number;
  /** Milliseconds between looks at the file; default 2000. */
  readonly pollMs?: number;
}

/**
 * Tells when a file may have changed. inotify on its directory gives the quick hint (a file is often replaced by renaming
 * another one over it, which a watch of the file itself loses); a poll of its attributes finds what inotify misses: changes
 * of a symbolic link's target (ConfigMaps), network file systems, a directory that is made anew.
 */
export class FileWatch {
  readonly #file: string;
  readonly #onChange: () => void;
  readonly #debounceMs: number;
  readonly #poll: NodeJS.Timeout;
  #watcher: FSWatcher | undefined;
  #pending: NodeJS.Timeout | undefined;
  #last: string | undefined;
  #closed = false;

  /** @param onChange not called any more after close() */
  constructor(file: string, onChange: () => void, options: FileWatchOptions = {}) {
    this.#file = file;
    this.#onChange = onChange;
    this.#debounceMs = options.debounceMs ?? 100;
    this.#watchDirectory();
    this.#poll = setInterval(() => void this.#look(), options.pollMs ?? 2000);
    this.#poll.unref();
    void this.#look();
  }

  close(): void {
    this.#closed = true;
    clearInterval(this.#poll);
    clearTimeout(this.#pending);
    this.#watcher?.close();
  }

  #watchDirectory(): void {
    try {
      this.#watcher = watch(dirname(this.#file), { persistent: false }, () => this.#hint());
      this.#watcher.on('error', () => this.#unwatch());
    } catch {
      // No directory, or no inotify instance left: the poll has to do.
      this.#watcher = undefined;
    }
  }

  #unwatch(): void {
    this.#watcher?.close();
    this.#watcher = undefined;
  }

  async #look(): Promise<void> {
    const attributes = await attributesOf(this.#file);
    if (this.#closed) return;
    if (this.#last !== undefined && attributes !== this.#last) {
      this.#hint();
      // The directory may be another one by now, and its watch dead without a word.
      this.#unwatch();
    }
    this.#last = attributes;
    if (this.#watcher === undefined) this.#watchDirectory();
  }

  /** Hints while one is pending change nothing: a file that is written all the time is read all the same. */
  #hint(): void {
    if (this.#closed || this.#pending !== undefined) return;
    this.#pending = setTimeout(() => {
      this.#pending = undefined;
      this.#onChange();
    }, this.#debounceMs);
    this.#pending.unref();
  }
}

async function attributesOf(file: string): Promise<string> {
  try {
    const { dev, ino, size, mtimeNs, ctimeNs } = await stat(file, { bigint: true });
    return [dev, ino, size, mtimeNs, ctimeNs].join(' ');
  } catch {
    return 'none';
  }
}
