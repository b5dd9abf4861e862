/**
 * runc, with the unpacked image of `make image`: what containerd starts on a node, as containerd configures it. The network is
 * one of its own instead of the node's, and there is no AppArmor profile.
 */
import { mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { eventually } from '../../lab/lab.ts';
import { run } from '../../lab/native/process.ts';
import type { RuntimeParts } from '../../specs/support/container.ts';
import type { ContainerRuntime, Mount } from '../../specs/support/container-runtime.ts';

const START_MS = 30_000;
/** What containerd hides of /proc and /sys (its package oci, defaults of a Linux container). */
const MASKED = ['acpi', 'kcore', 'keys', 'latency_stats', 'timer_list', 'timer_stats', 'sched_debug', 'scsi'];
const READ_ONLY = ['bus', 'fs', 'irq', 'sys', 'sysrq-trigger'];

export interface RuncOptions {
  /** The image's root directory. */
  readonly root: string;
  /** `linux.seccomp` of the runtime specification. */
  readonly seccomp: (capabilities: readonly string[]) => object;
}

/** Makes runtimes for `containerSpecs`. */
export function runcRuntime({ root, seccomp }: RuncOptions): (parts: RuntimeParts) => Promise<ContainerRuntime> {
  return async ({ directory, mounts, processes }) => {
    const state = join(directory, 'state');
    const bpffs = join(directory, 'bpffs');
    const layers = join(directory, 'layers');
    const [upper, work, merged] = [join(layers, 'upper'), join(layers, 'work'), join(layers, 'root')];
    mkdirSync(bpffs);
    mkdirSync(layers);
    await run(['mount', '-t', 'bpf', 'bpf', bpffs], 'bpf file system');
    await run(['mount', '-t', 'tmpfs', 'tmpfs', layers], 'layers');
    for (const made of [upper, work, merged]) mkdirSync(made);
    // Runtimes make what is mounted on: not in the image.
    const options = `lowerdir=${root},upperdir=${upper},workdir=${work}`;
    await run(['mount', '-t', 'overlay', 'overlay', '-o', options, merged], 'layers');
    const holder = await processes.start(
      ['unshare', '--net', 'sh', '-c', 'ip link set lo up && echo ready && exec sleep infinity'],
      { name: 'network' },
    );
    await holder.waitFor(/^ready$/, START_MS);
    const enter = ['nsenter', `--target=${holder.pid}`, '--net'];
    const runc = ['runc', '--root', state];
    const started: string[] = [];
    let count = 0;
    let stopped = false;

    function bind({ source, target, readOnly }: Mount): object {
      if (source === 'tmpfs')
        return { destination: target, type: 'tmpfs', source, options: ['nosuid', 'nodev', 'size=1m'] };
      const from = source === 'bpf' ? bpffs : source;
      return { destination: target, type: 'bind', source: from, options: ['rbind', readOnly ? 'ro' : 'rw'] };
    }

    /** config.json of the runtime specification 1.0.2. */
    function configuration(args: readonly string[], capabilities: readonly string[]): object {
      const caps = capabilities.map((name) => `CAP_${name}`);
      const special = (destination: string, type: string, options: readonly string[]): object => ({
        ...{ destination, type, source: type, options },
      });
      return {
        ociVersion: '1.0.2',
        process: {
          ...{
            user: { uid: 0, gid: 0 },
            cwd: '/',
            args,
            env: ['PATH=/usr/bin', 'NODE_NAME=node-a'],
            noNewPrivileges: true,
          },
          capabilities: { bounding: caps, effective: caps, permitted: caps },
        },
        root: { path: merged, readonly: true },
        mounts: [
          special('/proc', 'proc', ['nosuid', 'noexec', 'nodev']),
          special('/dev', 'tmpfs', ['nosuid', 'strictatime', 'mode=755', 'size=65536k']),
          special('/sys', 'sysfs', ['nosuid', 'noexec', 'nodev', 'ro']),
          ...mounts.map(bind),
        ],
        linux: {
          // No network: it is that of whoever starts runc.
          namespaces: ['pid', 'ipc', 'uts', 'mount'].map((type) => ({ type })),
          seccomp: seccomp(capabilities),
          maskedPaths: [...MASKED.map((name) => `/proc/${name}`), '/sys/firmware'],
          readonlyPaths: READ_ONLY.map((name) => `/proc/${name}`),
        },
      };
    }

    return {
      argv: (command, capabilities) => {
        const id = `xmasq-${process.pid}-${count++}`;
        const bundle = join(directory, id);
        mkdirSync(bundle);
        writeFileSync(join(bundle, 'config.json'), JSON.stringify(configuration(command, capabilities)));
        started.push(id);
        return [...enter, ...runc, 'run', '--bundle', bundle, id];
      },
      inRunning: (command) => [...runc, 'exec', started.at(-1) ?? '', ...command],
      processId: async () => {
        const id = started.at(-1) ?? '';
        return eventually('the container runs', async () => {
          const { stdout } = await run([...runc, 'state', id], 'runc', { check: false });
          return stdout === '' ? undefined : (JSON.parse(stdout) as { pid: number }).pid;
        });
      },
      network: (command) => run([...enter, ...command], 'network of the container', { check: false }),
      pins: () => Promise.resolve(readdirSync(bpffs)),
      stop: async () => {
        if (stopped) return;
        stopped = true;
        for (const id of started) await run([...runc, 'delete', '--force', id], 'runc', { check: false });
        await holder.stop();
        for (const mounted of [merged, layers, bpffs]) await run(['umount', mounted], 'mounts');
        rmSync(state, { recursive: true, force: true });
      },
    };
  };
}
