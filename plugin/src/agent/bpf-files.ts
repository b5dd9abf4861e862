import { existsSync } from 'node:fs';
import { join } from 'node:path';

/** The compiled BPF objects. */
export interface BpfFiles {
  readonly dataPlane: string;
  readonly probe: string;
}

/** Beside the bundle, and in the build directory when run from the sources. */
const CANDIDATES = [join(import.meta.dirname, 'bpf'), join(import.meta.dirname, '../../../build/bpf')];

/**
 * Finds the BPF objects.
 * @param directory where they are; undefined: at the usual places
 * @throws Error saying where they were expected
 */
export function findBpfFiles(directory?: string): BpfFiles {
  const places = directory === undefined ? CANDIDATES : [directory];
  for (const place of places) {
    const files = { dataPlane: join(place, 'xmasq.bpf.o'), probe: join(place, 'probe.bpf.o') };
    if (existsSync(files.dataPlane) && existsSync(files.probe)) return files;
  }
  throw new Error(
    `no xmasq.bpf.o and probe.bpf.o in ${places.join(' or ')}: run "make build", or name their directory by --bpf-dir`,
  );
}
