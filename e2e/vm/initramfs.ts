/** Builds the initramfs: static busybox, the modules that reach the host's root, the init script and the command agent. */
import { createHash } from 'node:crypto';
import { access, chmod, copyFile, mkdir, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { hostCommand } from './command.ts';

const GUEST_SOURCES = path.join(import.meta.dirname, 'guest');
const BUSYBOX = '/bin/busybox';

/** What the guest needs before it can load modules from its root; a line may have some of them built in. */
const EARLY_MODULES = ['virtio_pci', 'virtio_console', '9pnet_virtio', '9p', 'overlay'];

/** Directories the init script expects. */
const DIRECTORIES = ['bin', 'proc', 'sys', 'dev', 'lower', 'upper', 'root', 'modules'];

/** Paths of the early modules' files in the order of their dependencies. */
async function earlyModuleFiles(modulesRoot: string, release: string): Promise<string[]> {
  const files: string[] = [];
  for (const module of EARLY_MODULES) {
    const listing = await hostCommand('modprobe', ['--dirname', modulesRoot, '-S', release, '--show-depends', module]);
    for (const line of listing.toString().split('\n')) {
      const file = /^insmod (\S+)/.exec(line)?.[1];
      if (file !== undefined && !files.includes(file)) files.push(file);
    }
  }
  return files;
}

/** Puts one module into the image uncompressed (busybox has no xz) and returns its name there. */
async function addModule(file: string, directory: string): Promise<string> {
  const name = path.basename(file).replace(/\.xz$/, '');
  const content = file.endsWith('.xz') ? await hostCommand('xz', ['-dc', file]) : await readFile(file);
  await writeFile(path.join(directory, name), content);
  return name;
}

async function populate(tree: string, modulesRoot: string, release: string): Promise<void> {
  for (const directory of DIRECTORIES) await mkdir(path.join(tree, directory));
  await copyFile(BUSYBOX, path.join(tree, 'bin/busybox'));
  await copyFile(path.join(GUEST_SOURCES, 'init.sh'), path.join(tree, 'init'));
  await chmod(path.join(tree, 'init'), 0o755);
  const agent = path.join(tree, 'agent');
  await hostCommand('gcc', ['-O2', '-Wall', '-static', '-s', '-o', agent, path.join(GUEST_SOURCES, 'agent.c')]);
  const names: string[] = [];
  for (const file of await earlyModuleFiles(modulesRoot, release)) {
    names.push(await addModule(file, path.join(tree, 'modules')));
  }
  await writeFile(path.join(tree, 'modules/order'), names.map((name) => `${name}\n`).join(''));
}

/** Changes whenever something that goes into the image does. */
async function fingerprint(release: string): Promise<string> {
  const hash = createHash('sha256');
  hash.update(JSON.stringify([release, EARLY_MODULES, DIRECTORIES]));
  for (const file of [BUSYBOX, path.join(GUEST_SOURCES, 'init.sh'), path.join(GUEST_SOURCES, 'agent.c')]) {
    hash.update(await readFile(file));
  }
  hash.update(await readFile(import.meta.filename));
  return hash.digest('hex').slice(0, 16);
}

/**
 * Returns the image's path, building it when its inputs have changed. Safe beside another process that does the same:
 * each builds aside and renames.
 * @param directory where to keep it
 * @param modulesRoot directory that holds `lib/modules/<release>` with its `modules.dep`
 */
export async function ensureInitramfs(directory: string, modulesRoot: string, release: string): Promise<string> {
  const image = path.join(directory, `initramfs-${await fingerprint(release)}.cpio`);
  try {
    await access(image);
    return image;
  } catch {
    // Not built yet.
  }
  const work = await mkdtemp(path.join(directory, '.initramfs-'));
  try {
    const tree = path.join(work, 'tree');
    await mkdir(tree);
    await populate(tree, modulesRoot, release);
    const list = (await hostCommand('find', ['.'], { cwd: tree })).toString();
    const built = path.join(work, 'image');
    // Not compressed: unpacking costs an emulated guest more than reading.
    await hostCommand('cpio', ['--quiet', '-o', '-H', 'newc', '-F', built], { cwd: tree, stdin: list });
    await rename(built, image);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  return image;
}
