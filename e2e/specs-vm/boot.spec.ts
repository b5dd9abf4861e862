/** The micro-VM itself: both kernels boot, have what the suites build on, and their command agent is exact. */
import { existsSync, readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { KERNELS } from '../vm/kernels.ts';
import { LAB_MODULES, MicroVm } from '../vm/vm.ts';

const COMMAND_LIMIT_MS = 60_000;

describe.each(KERNELS)('kernel %s', (kernel) => {
  let vm: MicroVm;

  beforeAll(async () => {
    vm = await MicroVm.boot({ kernel, modules: LAB_MODULES });
  }, 900_000);

  afterAll(async () => {
    await vm.stop();
  }, COMMAND_LIMIT_MS);

  test(
    'runs the release that was fetched, with BTF, conntrack and bpffs',
    async () => {
      const release = (await vm.check(['uname', '-r'])).trim();
      expect(release).toBe(vm.release);
      expect(release.startsWith(`${kernel}.`)).toBe(true);
      await vm.check(['test', '-s', '/sys/kernel/btf/vmlinux']);
      await vm.check(['grep', '-q', '^nf_conntrack ', '/proc/modules']);
      await vm.check(['test', '-e', '/proc/sys/net/netfilter/nf_conntrack_max']);
      expect(await vm.check(['stat', '-f', '-c', '%T', '/sys/fs/bpf'])).toBe('bpf_fs\n');
    },
    COMMAND_LIMIT_MS,
  );

  test(
    'loads a module on demand',
    async () => {
      await vm.check(['modprobe', 'sctp']);
      await vm.check(['grep', '-q', '^sctp ', '/proc/modules']);
    },
    COMMAND_LIMIT_MS,
  );

  test(
    'two namespaces reach each other over a veth pair',
    async () => {
      const script = `
        ip netns add a && ip netns add b
        ip link add va netns a type veth peer name vb netns b
        ip -n a addr add 192.0.2.1/24 dev va && ip -n a link set va up
        ip -n b addr add 192.0.2.2/24 dev vb && ip -n b link set vb up
        nsenter --net=/run/netns/a ping -c 3 -i 0.2 -W 5 192.0.2.2
        ip netns del a && ip netns del b`;
      expect(await vm.check(['sh', '-ec', script])).toContain(' 0% packet loss');
    },
    COMMAND_LIMIT_MS,
  );

  test(
    "runs the project's node on the checkout, and keeps its writes to itself",
    async () => {
      const version = await vm.check(['node', '-p', 'process.version']);
      expect(version.trim()).toBe(process.version);
      expect(await vm.check(['sh', '-c', 'cat package.json'])).toContain('"xmasq-antrea"');
      await vm.check(['sh', '-c', 'echo x >vm-boot-spec-written && test -e vm-boot-spec-written']);
      expect(existsSync('vm-boot-spec-written')).toBe(false);
    },
    COMMAND_LIMIT_MS,
  );

  test(
    'exit codes, signals and failures to start are told apart',
    async () => {
      expect(await vm.exec(['sh', '-c', 'echo out; echo err >&2; exit 42'])).toEqual({
        code: 42,
        signal: 0,
        stdout: 'out\n',
        stderr: 'err\n',
      });
      expect(await vm.exec(['sh', '-c', 'kill -9 $$'])).toMatchObject({ code: 137, signal: 9 });
      expect(await vm.exec(['sh', '-c', 'exit 137'])).toMatchObject({ code: 137, signal: 0 });
      await expect(vm.check(['sh', '-c', 'kill -SEGV $$'])).rejects.toMatchObject({ signal: 11 });
      await expect(vm.exec(['no-such-program'])).rejects.toThrow(/no-such-program: cannot start: ENOENT/);
      await expect(vm.exec(['true'], { cwd: '/no/such/directory' })).rejects.toThrow(/cannot start: ENOENT/);
      const started = Date.now();
      await expect(vm.exec(['sh', '-c', 'echo begun; sleep 60'], { timeoutMs: 2000 })).rejects.toThrow(
        /2000 ms\nbegun/,
      );
      expect(Date.now() - started).toBeLessThan(20_000);
    },
    COMMAND_LIMIT_MS,
  );

  test(
    'long outputs and long inputs arrive whole',
    async () => {
      const count = 200_000;
      const expected = Array.from({ length: count }, (_, i) => `${i + 1}\n`).join('');
      const produced = await vm.exec(['seq', String(count)]);
      expect(produced.stdout === expected).toBe(true);
      const returned = await vm.exec(['cat'], { stdin: expected });
      expect(returned.stdout === expected).toBe(true);
      // A reader that wants less than it is given.
      expect((await vm.exec(['head', '-n', '2'], { stdin: expected })).stdout).toBe('1\n2\n');
      await expect(vm.exec(['seq', String(count)], { maxOutputBytes: 1000 })).rejects.toThrow(/more than 1000 bytes/);
      expect(await vm.exec(['env'], { env: { XMASQ_TEST: 'a b' } })).toMatchObject({
        stdout: expect.stringContaining('XMASQ_TEST=a b\n'),
      });
    },
    COMMAND_LIMIT_MS,
  );

  test(
    'background processes run beside commands, can be watched and stopped',
    async () => {
      const background = vm.spawn([
        'sh',
        '-c',
        'trap "echo bye; exit 3" TERM; echo ready; while :; do sleep 0.1; done',
      ]);
      await background.waitForOutput(/^ready$/m);
      expect(await vm.check(['echo', 'beside'])).toBe('beside\n');
      expect(background.ended).toBe(false);
      expect(await background.stop()).toEqual({ code: 3, signal: 0 });
      expect(background.stdout).toBe('ready\nbye\n');
      const many = await Promise.all(Array.from({ length: 20 }, (_, i) => vm.exec(['sh', '-c', `exit ${i}`])));
      expect(many.map((result) => result.code)).toEqual(many.map((_, i) => i));
    },
    COMMAND_LIMIT_MS,
  );
});

test('a machine that cannot boot says why, and leaves no process', async () => {
  const boot = MicroVm.boot({ kernel: '6.1', modules: ['no_such_module'], timeoutSeconds: 60 });
  await expect(boot).rejects.toThrow(/no_such_module not found/);
  // Other workers' machines are not children of this process.
  const children = readFileSync(`/proc/self/task/${process.pid}/children`, 'utf8').trim().split(/\s+/);
  for (const child of children.filter((id) => id !== '')) {
    expect(readFileSync(`/proc/${child}/comm`, 'utf8')).not.toMatch(/qemu/);
  }
}, 900_000);
