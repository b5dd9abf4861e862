/** Somebody else's tc program, first in a chain of TCX programs and ending it. */
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Lab, Place, Proc } from '../../lab/lab.ts';

const DIRECTORY = fileURLToPath(new URL('.', import.meta.url));

/** Compiles the program into the lab's directory; returns the object's path. */
export function compileForeign(lab: Pick<Lab, 'dir'>): string {
  // linux/types.h wants asm/types.h, which Debian keeps per architecture.
  const multiarch = execFileSync('gcc', ['-print-multiarch'], { encoding: 'utf8' }).trim();
  const object = join(lab.dir, 'foreign.bpf.o');
  const flags = ['-O2', '-g', '-target', 'bpf', '-mcpu=v3', '-Wall', '-Werror', `-I/usr/include/${multiarch}`];
  execFileSync('clang', [...flags, '-c', join(DIRECTORY, 'foreign.bpf.c'), '-o', object]);
  return object;
}

/** Attaches it to the place's device, before all others; ending the process detaches it. */
export async function attachForeign(place: Place, object: string, direction: 'ingress' | 'egress'): Promise<Proc> {
  const ifindex = await ifindexOf(place);
  const proc = await place.spawn(
    [
      process.execPath,
      '--disable-warning=ExperimentalWarning',
      join(DIRECTORY, 'foreign-attach.ts'),
      object,
      ifindex,
      direction,
    ],
    { name: `${place.name}-foreign` },
  );
  await proc.waitFor(/^attached/, 15_000);
  return proc;
}

/* Not from /sys, which shows the devices of the namespace it was mounted in. */
async function ifindexOf(place: Place): Promise<string> {
  const { stdout } = await place.exec(['ip', '-j', 'link', 'show', 'dev', place.device]);
  const [link] = JSON.parse(stdout) as { ifindex: number }[];
  return String(link?.ifindex ?? 0);
}
