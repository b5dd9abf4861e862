/**
 * Puts Node.js and the npm packages that the bundles leave outside into the image's root directory, with the licences of
 * everything from npm, and writes the list of all parts (SPDX 2.3, usr/share/doc/xmasq/sbom.spdx.json).
 *
 *     SOURCE_DATE_EPOCH=SECONDS node scripts/image/packages.ts --arch amd64|arm64 --root DIRECTORY --debian LIST --bundle META...
 *
 * LIST: name, version and architecture of each Debian package, tab-separated, one a line. META: esbuild's metafile of a
 * bundle. Packages for another processor than this machine's come from the registry and are compared with the lock file.
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const TOP = fileURLToPath(new URL('../../', import.meta.url));
/** Debian's names of architectures, and Node.js's. */
const NODE_ARCH: Readonly<Record<string, string>> = { amd64: 'x64', arm64: 'arm64' };
/** What a package needs to run; the rest is sources, types, maps and documents. */
const RUNS = /\.(c|m)?js$|\.json$|\.node$/;
const LICENCE = /^(licen[cs]e|copying|notice)/i;

interface Manifest {
  readonly name: string;
  readonly version: string;
  readonly license?: string;
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
}

interface Part extends Manifest {
  /** Where it lies, from the top of the checkout or of what was fetched. */
  readonly directory: string;
}

const { values } = parseArgs({
  options: {
    arch: { type: 'string' },
    root: { type: 'string' },
    debian: { type: 'string' },
    bundle: { type: 'string', multiple: true },
  },
});
const { arch = '', root = '', debian = '', bundle: metafiles = [] } = values;
const nodeArch = NODE_ARCH[arch];
const epoch = Number(process.env['SOURCE_DATE_EPOCH']);
if (nodeArch === undefined || root === '' || debian === '' || metafiles.length === 0 || !Number.isSafeInteger(epoch)) {
  process.stderr.write(
    'usage: SOURCE_DATE_EPOCH=SECONDS packages.ts --arch amd64|arm64 --root DIRECTORY --debian LIST --bundle META...\n',
  );
  process.exit(2);
}

const fetched = mkdtempSync(join(tmpdir(), 'xmasq-image-'));
try {
  const outside = runtimePackages(['koffi', 'bpf', '@kubernetes/client-node'], nodeArch);
  for (const part of outside) {
    copyPackage(part, join(root, 'usr/lib/xmasq', installedAs(part)), nodeArch);
  }
  const node = packageFor(`node-linux-${nodeArch}`);
  cpSync(join(node.directory, 'bin/node'), join(root, 'usr/bin/node'));
  chmodSync(join(root, 'usr/bin/node'), 0o755);

  const parts = [
    ...new Map([...outside, ...bundledPackages(metafiles), node].map((part) => [key(part), part])).values(),
  ];
  parts.sort((a, b) => (key(a) < key(b) ? -1 : 1));
  for (const part of parts) copyLicences(part, join(root, 'usr/share/doc', `npm-${key(part).replace('/', '-')}`));
  const sbom = spdx(parts, readFileSync(debian, 'utf8'));
  writeFileSync(join(root, 'usr/share/doc/xmasq/sbom.spdx.json'), `${JSON.stringify(sbom, null, 1)}\n`);
} catch (error) {
  process.stderr.write(`image: error: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
} finally {
  rmSync(fetched, { recursive: true, force: true });
}

function key({ name, version }: Manifest): string {
  return `${name}@${version}`;
}

function manifestIn(directory: string): Manifest {
  return JSON.parse(readFileSync(join(directory, 'package.json'), 'utf8')) as Manifest;
}

/** Its place below the directory of a bundle: where Node.js looks for it from there. */
function installedAs({ directory }: Part): string {
  const from = directory.startsWith(fetched) ? fetched : TOP;
  return relative(from, directory);
}

/** The named packages and everything they load, as Node.js would find it; types are not loaded. */
function runtimePackages(names: readonly string[], cpu: string): Part[] {
  const found = new Map<string, Part>();
  const add = (directory: string): void => {
    if (found.has(directory)) return;
    const manifest = manifestIn(directory);
    found.set(directory, { ...manifest, directory });
    for (const name of Object.keys(manifest.dependencies ?? {})) {
      if (name.startsWith('@types/')) continue;
      add(resolve(name, directory) ?? fail(`${key(manifest)} needs ${name}, which is not installed`));
    }
    for (const name of Object.keys(manifest.optionalDependencies ?? {})) {
      // Native packages by the platform's name; musl is another C library.
      if (name.endsWith(`-linux-${cpu}`)) add(packageFor(name).directory);
      else if (!/-(android|darwin|freebsd|openbsd|linux|win32)-/.test(name)) {
        const directoryOf = resolve(name, directory);
        if (directoryOf !== undefined) add(directoryOf);
      }
    }
  };
  for (const name of names) add(join(TOP, 'node_modules', name));
  return [...found.values()];
}

/** The package's directory as Node.js finds it from `from`: there, or in a node_modules above it. */
function resolve(name: string, from: string): string | undefined {
  for (let at = from; at.startsWith(TOP) || `${at}/` === TOP; at = dirname(at)) {
    const directory = join(at, 'node_modules', name);
    if (existsSync(join(directory, 'package.json'))) return directory;
  }
  return undefined;
}

/** A package that npm installs on one kind of processor only: from node_modules, else from the registry. */
function packageFor(name: string): Part {
  const place = `node_modules/${name}`;
  const installed = join(TOP, place);
  if (existsSync(installed)) return { ...manifestIn(installed), directory: installed };
  const lock = JSON.parse(readFileSync(join(TOP, 'package-lock.json'), 'utf8')) as {
    packages: Record<string, { version: string; integrity: string }>;
  };
  const { version, integrity } = lock.packages[place] ?? fail(`${place} is not in package-lock.json`);
  const directory = join(fetched, place);
  if (!existsSync(directory)) {
    const options = ['--silent', `--pack-destination=${fetched}`];
    const file = execFileSync('npm', ['pack', ...options, `${name}@${version}`], { cwd: TOP, encoding: 'utf8' }).trim();
    const archive = join(fetched, basename(file));
    const hash = `sha512-${createHash('sha512').update(readFileSync(archive)).digest('base64')}`;
    if (hash !== integrity) fail(`${name}@${version}: the registry's archive is not the one of package-lock.json`);
    mkdirSync(directory, { recursive: true });
    execFileSync('tar', ['-xzf', archive, '--strip-components=1', '-C', directory]);
  }
  return { ...manifestIn(directory), directory };
}

/** The npm packages that a bundle has files of. */
function bundledPackages(files: readonly string[]): Part[] {
  const directories = new Set<string>();
  for (const file of files) {
    const { inputs } = JSON.parse(readFileSync(file, 'utf8')) as { inputs: Record<string, unknown> };
    for (const input of Object.keys(inputs)) {
      const match = /^(?:.*\/)?node_modules\/(?:@[^/]+\/)?[^/]+/.exec(input);
      if (match !== null) directories.add(join(TOP, match[0]));
    }
  }
  return [...directories].map((directory) => ({ ...manifestIn(directory), directory }));
}

function copyPackage({ directory }: Part, target: string, cpu: string): void {
  const wanted = (path: string): boolean => {
    const [first = '', second = ''] = relative(directory, path).split('/');
    if (first === 'node_modules' || /^(deps|doc|docs|test|tests|vendor|musl_\w+)$/.test(first)) return false;
    return first !== 'prebuilds' || second === '' || second === `linux-${cpu}`;
  };
  for (const entry of readdirSync(directory, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name);
    if (!entry.isFile() || !RUNS.test(entry.name) || !wanted(path)) continue;
    const to = join(target, relative(directory, path));
    mkdirSync(dirname(to), { recursive: true });
    cpSync(path, to);
    chmodSync(to, 0o644);
  }
}

function copyLicences({ directory, name }: Part, target: string): void {
  const files = readdirSync(directory).filter((file) => LICENCE.test(file));
  for (const file of files) {
    mkdirSync(target, { recursive: true });
    cpSync(join(directory, file), join(target, file), { recursive: true });
  }
  if (files.length === 0)
    process.stderr.write(`image: ${name} has no file with its licence; the list of parts names it\n`);
}

/** SPDX 2.3 as JSON (spdx.github.io/spdx-spec/v2.3): what the image consists of, without the files of each part. */
function spdx(npm: readonly Part[], debianList: string): object {
  const own = manifestIn(TOP);
  const packages = [
    entry('XMasq', own.name, own.version, own.license, `pkg:generic/${own.name}@${own.version}`),
    ...npm.map((part) => {
      const purl = `pkg:npm/${part.name.replace('@', '%40')}@${part.version}`;
      return entry(`npm-${key(part)}`, part.name, part.version, part.license, purl);
    }),
    ...debianList
      .trim()
      .split('\n')
      .map((line) => {
        const [name = '', version = '', architecture = ''] = line.split('\t');
        const purl = `pkg:deb/debian/${name}@${encodeURIComponent(version)}?arch=${architecture}&distro=debian-12`;
        // Its licences are in usr/share/doc/NAME/copyright.
        return entry(`deb-${name}`, name, version, undefined, purl);
      }),
  ];
  return {
    spdxVersion: 'SPDX-2.3',
    dataLicense: 'CC0-1.0',
    SPDXID: 'SPDXRef-DOCUMENT',
    name: `xmasq-${own.version}-${arch}`,
    documentNamespace: `https://xmasq.antrea.io/sbom/${own.version}/${arch}/${createHash('sha256').update(JSON.stringify(packages)).digest('hex')}`,
    creationInfo: {
      created: new Date(epoch * 1000).toISOString().replace('.000', ''),
      creators: ['Tool: scripts/image/packages.ts'],
    },
    packages,
    relationships: packages.map(({ SPDXID }, i) =>
      i === 0
        ? { spdxElementId: 'SPDXRef-DOCUMENT', relationshipType: 'DESCRIBES', relatedSpdxElement: SPDXID }
        : { spdxElementId: 'SPDXRef-XMasq', relationshipType: 'CONTAINS', relatedSpdxElement: SPDXID },
    ),
  };
}

function entry(id: string, name: string, versionInfo: string, licence: string | undefined, purl: string) {
  return {
    SPDXID: `SPDXRef-${id.replace(/[^A-Za-z0-9.-]/g, '-')}`,
    name,
    versionInfo,
    downloadLocation: 'NOASSERTION',
    filesAnalyzed: false,
    licenseConcluded: 'NOASSERTION',
    licenseDeclared: licence ?? 'NOASSERTION',
    copyrightText: 'NOASSERTION',
    externalRefs: [{ referenceCategory: 'PACKAGE-MANAGER', referenceType: 'purl', referenceLocator: purl }],
  };
}

function fail(why: string): never {
  throw new Error(why);
}
