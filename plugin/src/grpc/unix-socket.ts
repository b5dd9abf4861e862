import { chmod, link, lstat, mkdir, mkdtemp, rm, unlink } from 'node:fs/promises';
import { createConnection } from 'node:net';
import { basename, dirname, isAbsolute, join } from 'node:path';
import { errorCode } from '../util/errors.ts';

/** sun_path holds 108 bytes with the final 0; the socket is first made in a directory beside, with a longer name. */
const MAX_PATH = 80;

/** The socket cannot be used: what, where, and what to do, in one sentence. */
export class SocketError extends Error {
  override readonly name = 'SocketError';
}

/**
 * A Unix socket that nobody but this user can open at any moment of its life, and that never takes the place of another
 * process's. It is bound in a private directory, given its mode, and only then linked to its place: the umask, which is
 * one for the whole process, stays alone, and two sidecars that start at the same time cannot both win.
 */
export class PrivateSocket {
  readonly path: string;
  /** Where to bind. */
  readonly bindPath: string;
  readonly #directory: string;
  #identity: string | undefined;

  private constructor(path: string, directory: string) {
    this.path = path;
    this.#directory = directory;
    this.bindPath = join(directory, 's');
  }

  /**
   * Clears the way: makes the directory, removes a socket that nobody serves any more.
   * @throws SocketError another process serves it, or something else is there
   */
  static async prepare(path: string): Promise<PrivateSocket> {
    if (!isAbsolute(path) || Buffer.byteLength(path) > MAX_PATH) {
      throw new SocketError(`socket ${path}: expected an absolute path of at most ${MAX_PATH} bytes`);
    }
    await mkdir(dirname(path), { recursive: true, mode: 0o700 });
    await removeStale(path);
    // mkdtemp makes it with mode 0700.
    return new PrivateSocket(path, await mkdtemp(join(dirname(path), '.xm-')));
  }

  /**
   * After binding: mode 0600, then visible.
   * @throws SocketError another process was faster
   */
  async publish(): Promise<void> {
    await chmod(this.bindPath, 0o600);
    try {
      await link(this.bindPath, this.path);
    } catch (error) {
      if (errorCode(error) === 'EEXIST') throw new SocketError(`socket ${this.path}: another process has just made it`);
      throw error;
    }
    await rm(this.#directory, { recursive: true, force: true });
    this.#identity = await identity(this.path);
  }

  /** Takes the socket away, if it is still ours. Never throws for one that is gone. */
  async remove(): Promise<void> {
    await rm(this.#directory, { recursive: true, force: true });
    try {
      if ((await identity(this.path)) === this.#identity) await unlink(this.path);
    } catch (error) {
      if (errorCode(error) !== 'ENOENT') throw error;
    }
  }
}

/** Tells our file from a successor's, which may have got the same inode number. */
async function identity(path: string): Promise<string> {
  const { ino, ctimeNs } = await lstat(path, { bigint: true });
  return `${ino} ${ctimeNs}`;
}

async function removeStale(path: string): Promise<void> {
  if ((await lookAtSocket(path)) === 'stale') await rm(path, { force: true });
}

/**
 * What is at the place of a socket to be made: nothing, or a socket that nobody serves any more.
 * @throws SocketError another process serves it, or something else is there
 */
export async function lookAtSocket(path: string): Promise<'free' | 'stale'> {
  let found;
  try {
    found = await lstat(path);
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return 'free';
    throw error;
  }
  if (!found.isSocket()) {
    throw new SocketError(`socket ${path}: something else has that name; remove it or choose another path`);
  }
  const refusal = await probeSocket(path);
  if (refusal === undefined || refusal === 'EAGAIN' || refusal === 'ETIMEDOUT') {
    throw new SocketError(
      `socket ${path}: another process serves it; stop that one first (is ${basename(process.argv[1] ?? 'xmasq-agent')} running already?)`,
    );
  }
  if (refusal === 'ENOENT') return 'free';
  if (refusal !== 'ECONNREFUSED') throw new SocketError(`socket ${path}: cannot tell whether it is in use: ${refusal}`);
  return 'stale';
}

/** Connects and hangs up. Resolves to undefined if somebody answers, else to the error code, e.g. ENOENT. */
export function probeSocket(path: string, timeoutMs = 1000): Promise<string | undefined> {
  return new Promise((resolve) => {
    const socket = createConnection({ path });
    const done = (code: string | undefined): void => {
      socket.destroy();
      resolve(code);
    };
    socket.setTimeout(timeoutMs, () => done('ETIMEDOUT'));
    socket.once('connect', () => done(undefined));
    socket.once('error', (error) => done(errorCode(error) ?? error.message));
  });
}
