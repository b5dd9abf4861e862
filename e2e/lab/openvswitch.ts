/**
 * Open vSwitch's programs, from Debian's packages: extracted and not installed, because installing starts daemons.
 * As a program: `node e2e/lab/openvswitch.ts` fetches them and prints where they are.
 */
import path from 'node:path';
import { hostCommand } from '../vm/command.ts';
import { debianTree } from './debian.ts';

/** The extracted programs. All paths are absolute. */
export interface OvsBinaries {
  /** Root of the extracted tree. */
  readonly dir: string;
  /**
   * To be merged over a process's environment: `PATH` with the programs (ovsdb-server, ovs-vswitchd, ovs-vsctl, ...) first,
   * `LD_LIBRARY_PATH`, and where the schema is. Run, log and database directories are the caller's (`OVS_RUNDIR` ...).
   */
  readonly env: Readonly<Record<'PATH' | 'LD_LIBRARY_PATH' | 'OVS_PKGDATADIR', string>>;
  /** The Open_vSwitch schema, for `ovsdb-tool create`. */
  readonly schema: string;
}

/** The libraries are those that a Debian without Open vSwitch may lack. */
const PACKAGES = [
  'openvswitch-common',
  'openvswitch-switch',
  'libbpf1',
  'libcap-ng0',
  'libevent-2.1-7',
  'libnghttp2-14',
  'libnuma1',
  'libunbound8',
  'libxdp1',
];

const LIBRARY_DIRECTORIES = ['usr/lib/x86_64-linux-gnu', 'lib/x86_64-linux-gnu'];
const PROGRAM_DIRECTORIES = ['usr/bin', 'usr/sbin', 'usr/lib/openvswitch-switch'];

/** A program whose libraries are not all there is found here, with its name, and not in the middle of a test. */
async function checkLibraries(binaries: OvsBinaries): Promise<void> {
  const program = path.join(binaries.dir, 'usr/sbin/ovsdb-server');
  const listing = await hostCommand('env', [
    `LD_LIBRARY_PATH=${binaries.env.LD_LIBRARY_PATH}`,
    '/lib64/ld-linux-x86-64.so.2',
    '--list',
    program,
  ]);
  const missing = /^\s*(\S+) => not found/m.exec(listing.toString())?.[1];
  if (missing !== undefined) throw new Error(`${program} needs ${missing}: install the Debian package that has it`);
}

function describe(dir: string): OvsBinaries {
  const under = (directories: readonly string[]): string[] => directories.map((directory) => path.join(dir, directory));
  const share = path.join(dir, 'usr/share/openvswitch');
  return {
    dir,
    env: {
      PATH: [...under(PROGRAM_DIRECTORIES), process.env['PATH'] ?? '/usr/sbin:/usr/bin:/sbin:/bin'].join(':'),
      LD_LIBRARY_PATH: under(LIBRARY_DIRECTORIES).join(':'),
      OVS_PKGDATADIR: share,
    },
    schema: path.join(share, 'vswitch.ovsschema'),
  };
}

let fetching: Promise<OvsBinaries> | undefined;

/**
 * Open vSwitch's programs, fetched on the first call ever (some 5 MB) and taken from `build/openvswitch` afterwards.
 * @throws Error when a package cannot be fetched or a library is missing; the message names it
 */
export async function ovsBinaries(): Promise<OvsBinaries> {
  fetching ??= debianTree('openvswitch', PACKAGES, (root) => checkLibraries(describe(root))).then(describe);
  try {
    return await fetching;
  } catch (error) {
    fetching = undefined;
    const reason = error instanceof Error ? error.message : String(error);
    throw new Error(`Open vSwitch: ${reason}; the package sources need Debian 12 main and its security archive`, {
      cause: error,
    });
  }
}

if (import.meta.main) {
  ovsBinaries().then(
    ({ dir }) => {
      console.log(dir);
    },
    (error: unknown) => {
      console.error(`openvswitch: ${error instanceof Error ? error.message : String(error)}`);
      process.exitCode = 1;
    },
  );
}
