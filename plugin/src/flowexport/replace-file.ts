import { open, rename, rm } from 'node:fs/promises';

/**
 * Puts a file in the place of another one, whole or not at all, also when the machine stops in between.
 * @throws Error of the file system; the former file stays
 */
export async function replaceFile(path: string, content: string, mode: number): Promise<void> {
  const temporary = `${path}.new`;
  await rm(temporary, { force: true });
  try {
    const file = await open(temporary, 'wx', mode);
    try {
      await file.writeFile(content);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}
