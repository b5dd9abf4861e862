/**
 * How a lab starts the product's programs: as the bundles of this checkout or, where XMASQ_IMAGE names the unpacked root
 * directory of an image (build/image/root-amd64), as those of the image, confined as the chart says.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { grantedCapabilities } from '../chart/renderings.ts';
import { LabError } from './lab.ts';

const BUILD = fileURLToPath(new URL('../../build', import.meta.url));
/** What of the machine is seen inside, at the same place: sockets, files of labs and of specs. */
const SHOWN = ['/run', '/tmp', fileURLToPath(new URL('../../', import.meta.url))];

/** Numbers of linux/capability.h, of those that the chart may name. */
export const CAPABILITIES: Readonly<Record<string, number>> = { NET_ADMIN: 12, PERFMON: 38, BPF: 39 };

/** Which build of the sidecar: this one, or the same with other programs or another layout of its maps (scripts/build-next.sh). */
export type Build = 'this' | 'next-programs' | 'next-layout';

/**
 * The start of a command line, for options to follow. Throws a LabError where the program was not built.
 * @param build of the next ones there is only a sidecar, and no image
 */
export function program(name: 'xmasq' | 'xmasq-agent', build: Build = 'this'): string[] {
  const image = process.env['XMASQ_IMAGE'] ?? '';
  if (build !== 'this') return [process.execPath, built(`${build}/${name}.mjs`)];
  if (image === '') return [process.execPath, built(`${name}.mjs`)];
  if (!existsSync(join(image, 'usr/bin', name))) {
    throw new LabError(`XMASQ_IMAGE=${image}: no usr/bin/${name}: run "make image" and name build/image/root-amd64`);
  }
  // What this machine tells its Node.js, of files that an image does not have, is not for the image's.
  const unset = Object.keys(process.env).filter((variable) => variable.startsWith('NODE_'));
  return [
    ...['env', ...unset.map((variable) => `--unset=${variable}`)],
    ...[built('tools/confine'), `--root=${image}`],
    ...grantedCapabilities().map((capability) => `--capability=${CAPABILITIES[capability] ?? NaN}`),
    ...SHOWN.map((directory) => `--bind=${directory}`),
    ...['--', `/usr/bin/${name}`],
  ];
}

function built(file: string): string {
  const path = join(BUILD, file);
  if (!existsSync(path)) throw new LabError(`no ${path}: run "make build"`);
  return path;
}
