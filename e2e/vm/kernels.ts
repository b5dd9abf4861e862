/** Which Debian kernels the micro-VM knows, and where their extracted packages are kept. */
import path from 'node:path';

/** Kernel lines the suites run on: 6.12 has the zone option of the conntrack lookup, 6.1 has not. */
export const KERNELS = ['6.12', '6.1'] as const;

/** A kernel line, by its upstream version. */
export type KernelLine = (typeof KERNELS)[number];

/** Debian's meta package of each line; it depends on the current versioned `linux-image-*` package. */
export const META_PACKAGE: Readonly<Record<KernelLine, string>> = {
  '6.12': 'linux-image-6.12-amd64',
  '6.1': 'linux-image-amd64',
};

/** The checkout's top directory, absolute. */
export const PROJECT_ROOT = path.resolve(import.meta.dirname, '../..');

/** Where extracted kernels and initramfs images are kept, one directory per line. */
export const CACHE_ROOT = path.join(PROJECT_ROOT, 'build/vm');

/** True when `text` names a known line. */
export function isKernelLine(text: string): text is KernelLine {
  return (KERNELS as readonly string[]).includes(text);
}
