/**
 * No container runtime: namespaces, a read-only view of this machine's files, and this checkout's bundles. It has neither an
 * image nor a runtime's seccomp and AppArmor profiles.
 */
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { grantedCapabilities } from '../../chart/renderings.ts';
import { run } from '../../lab/native/process.ts';
import type { RuntimeParts } from './container.ts';
import type { ContainerRuntime } from './container-runtime.ts';

const ROOT = fileURLToPath(new URL('../../../', import.meta.url));
const SCRIPT = fileURLToPath(new URL('container-root.sh', import.meta.url));
const START_MS = 30_000;

export async function namespaceRuntime({ directory, mounts, processes }: RuntimeParts): Promise<ContainerRuntime> {
  const list = mounts.map(({ source, target, readOnly }) => `${source}:${target}:${readOnly ? 'ro' : 'rw'}`);
  const root = await processes.start(
    ['unshare', '--mount', '--net', '--propagation=private', SCRIPT, directory, ...list],
    { name: 'root' },
  );
  await root.waitFor(/^ready$/, START_MS);
  const enter = ['nsenter', `--target=${root.pid}`, '--mount', '--net'];

  function argv(command: readonly string[], capabilities: readonly string[]): string[] {
    const [program = '', ...args] = command;
    const bundle = /^xmasq(-agent)?$/.test(program)
      ? [process.execPath, join(ROOT, `build/${program}.mjs`)]
      : [program];
    const bounding = ['-all', ...capabilities.map((name) => `+${name.toLowerCase()}`)].join(',');
    return [
      ...[...enter, 'chroot', join(directory, 'root')],
      ...['setpriv', `--bounding-set=${bounding}`, '--inh-caps=-all', '--no-new-privs'],
      ...['env', '-i', `PATH=${process.env['PATH'] ?? ''}`, 'NODE_NAME=node-a', ...bundle, ...args],
    ];
  }

  return {
    argv,
    inRunning: (command) => argv(command, grantedCapabilities()),
    processId: (started) => Promise.resolve(started.pid),
    network: (command) => run([...enter, ...command], 'network of the container', { check: false }),
    pins: async () =>
      (await run([...enter, 'ls', join(directory, 'root/bpffs')], 'bpf file system')).stdout
        .split('\n')
        .filter(Boolean),
    stop: () => root.stop(),
  };
}
