/**
 * Fetches the kernels of the micro-VM: Debian packages, extracted and not installed.
 * As a program: `node e2e/vm/fetch.ts [--refresh] [6.12] [6.1]` prepares the named lines (all by default).
 */
import { access, mkdir, mkdtemp, readdir, rename, rm } from 'node:fs/promises';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { hostCommand } from './command.ts';
import { ensureInitramfs } from './initramfs.ts';
import { CACHE_ROOT, isKernelLine, KERNELS, META_PACKAGE, type KernelLine } from './kernels.ts';

/** A kernel ready to boot; all paths absolute. */
export interface PreparedKernel {
  readonly line: KernelLine;
  /** What `uname -r` says, e.g. `6.1.0-56-amd64`. */
  readonly release: string;
  /** The bzImage. */
  readonly image: string;
  /** The initramfs (cpio, not compressed). */
  readonly initramfs: string;
  /** The package's `lib/modules`, to be bound over the guest's. */
  readonly modules: string;
}

/** How to prepare a kernel. */
export interface PrepareOptions {
  /** Fetch the line's current package even when one is there. */
  readonly refresh?: boolean;
}

async function exists(file: string): Promise<boolean> {
  try {
    await access(file);
    return true;
  } catch {
    return false;
  }
}

/** The versioned package a meta package stands for; undefined when apt does not know it. */
async function resolvePackage(meta: string): Promise<string | undefined> {
  const listing = await hostCommand('apt-cache', ['depends', meta]).catch(() => Buffer.alloc(0));
  return /^\s*Depends: (linux-image-\S+)$/m.exec(listing.toString())?.[1];
}

/** Downloads the line's package into `directory` and returns the file. */
async function download(line: KernelLine, directory: string): Promise<string> {
  const meta = META_PACKAGE[line];
  const name = await resolvePackage(meta);
  if (name === undefined) throw new Error(`apt knows no package for ${meta}`);
  await hostCommand('apt-get', ['download', name], { cwd: directory, timeoutMs: 600_000 });
  const file = (await readdir(directory)).find((entry) => entry.endsWith('.deb'));
  if (file === undefined) throw new Error(`apt-get download ${name} left no .deb`);
  return path.join(directory, file);
}

/** As download(); a failure usually means missing or outdated package lists, so these are renewed once. */
async function downloadRenewing(line: KernelLine, directory: string): Promise<string> {
  try {
    return await download(line, directory);
  } catch (first) {
    try {
      await hostCommand('apt-get', ['update'], { timeoutMs: 600_000 });
      return await download(line, directory);
    } catch (second) {
      const reason = second instanceof Error ? second.message : String(second);
      throw new Error(
        `kernel ${line}: cannot fetch ${META_PACKAGE[line]} (${reason}); ` +
          'the package sources need Debian 12 main and its security archive',
        { cause: first },
      );
    }
  }
}

/** The only directory below `lib/modules` of an extracted package. */
async function releaseOf(tree: string): Promise<string> {
  const releases = await readdir(path.join(tree, 'lib/modules'));
  const [release] = releases;
  if (release === undefined || releases.length !== 1) {
    throw new Error(`${tree}/lib/modules: expected one kernel release, found [${releases.join(', ')}]`);
  }
  return release;
}

/**
 * Fetches and extracts into `tree`, which appears complete or not at all. One that another process has made meanwhile stays,
 * as that one reads it by now; `replace`: one that is there goes.
 */
async function extract(line: KernelLine, tree: string, replace: boolean): Promise<void> {
  const parent = path.dirname(tree);
  await mkdir(parent, { recursive: true });
  const work = await mkdtemp(path.join(parent, '.fetch-'));
  try {
    const file = await downloadRenewing(line, work);
    const fresh = path.join(work, 'root');
    await hostCommand('dpkg', ['-x', file, fresh]);
    // The package leaves modules.dep to its post-installation script, which does not run here.
    await hostCommand('depmod', ['-b', fresh, await releaseOf(fresh)]);
    if (replace && (await exists(tree))) await rename(tree, path.join(work, 'old'));
    try {
      await rename(fresh, tree);
    } catch (error) {
      // Another process was faster.
      if (!(await exists(tree))) throw error;
    }
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/**
 * Makes a kernel ready to boot, from the cache below `build/vm` when it is there.
 * @throws Error when a package or a tool is missing; the message names it.
 */
export async function prepareKernel(line: KernelLine, options: PrepareOptions = {}): Promise<PreparedKernel> {
  const directory = path.join(CACHE_ROOT, line);
  const tree = path.join(directory, 'root');
  const refresh = options.refresh === true;
  if (refresh || !(await exists(tree))) await extract(line, tree, refresh);
  const release = await releaseOf(tree);
  return {
    line,
    release,
    image: path.join(tree, 'boot', `vmlinuz-${release}`),
    initramfs: await ensureInitramfs(directory, tree, release),
    modules: path.join(tree, 'lib/modules'),
  };
}

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({ options: { refresh: { type: 'boolean' } }, allowPositionals: true });
  for (const line of positionals.length > 0 ? positionals : KERNELS) {
    if (!isKernelLine(line)) throw new Error(`unknown kernel ${line}: choose from ${KERNELS.join(', ')}`);
    const kernel = await prepareKernel(line, { refresh: values.refresh === true });
    console.log(`${line}: ${kernel.release}`);
  }
}

if (import.meta.main) {
  main().catch((error: unknown) => {
    console.error(`fetch: ${error instanceof Error ? error.message : String(error)}`);
    process.exitCode = 1;
  });
}
