/** Debian's packages without installing them: downloaded, and extracted below `build/`. */
import { access, mkdir, mkdtemp, readdir, rename, rm } from 'node:fs/promises';
import path from 'node:path';
import { hostCommand } from '../vm/command.ts';
import { PROJECT_ROOT } from '../vm/kernels.ts';

const FETCH_TIMEOUT_MS = 600_000;

async function exists(file: string): Promise<boolean> {
  return access(file).then(
    () => true,
    () => false,
  );
}

/** Downloads the packages; a failure usually means missing or outdated package lists, so these are renewed once. */
async function download(packages: readonly string[], directory: string): Promise<void> {
  const fetch = async (): Promise<void> => {
    await hostCommand('apt-get', ['download', ...packages], { cwd: directory, timeoutMs: FETCH_TIMEOUT_MS });
  };
  try {
    await fetch();
  } catch {
    await hostCommand('apt-get', ['update'], { timeoutMs: FETCH_TIMEOUT_MS });
    await fetch();
  }
}

/**
 * The tree of some packages, fetched on the first call ever. It appears complete or not at all.
 * @param name directory below `build/`
 * @param check throws if something is missing in the tree
 * @returns absolute path of its root
 * @throws Error when a package cannot be fetched
 */
export async function debianTree(
  name: string,
  packages: readonly string[],
  check: (root: string) => Promise<void> = () => Promise.resolve(),
): Promise<string> {
  const parent = path.join(PROJECT_ROOT, 'build', name);
  const tree = path.join(parent, 'root');
  if (await exists(tree)) return tree;
  await mkdir(parent, { recursive: true });
  const work = await mkdtemp(path.join(parent, '.fetch-'));
  try {
    await download(packages, work);
    const fresh = path.join(work, 'root');
    for (const file of await readdir(work)) {
      if (file.endsWith('.deb')) await hostCommand('dpkg', ['-x', path.join(work, file), fresh]);
    }
    await check(fresh);
    try {
      await rename(fresh, tree);
    } catch (error) {
      // Another process was faster: its tree is as good.
      if (!(await exists(tree))) throw error;
    }
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  return tree;
}
