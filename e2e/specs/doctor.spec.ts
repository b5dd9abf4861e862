/**
 * `xmasq doctor` on a node that works, and on broken ones: each cause is produced, and must be the one failed check. What
 * cannot be produced on a machine that runs the tests is named a fake.
 */
import { cpSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { parse, stringify } from 'yaml';
import type { Finding } from '../../plugin/src/doctor/finding.ts';
import { AntreaDatabase } from '../lab/antrea-database.ts';
import { eventually } from '../lab/lab.ts';
import type { Endpoint, Node, Proc } from '../lab/lab.ts';
import { up } from '../lab/native/native.ts';
import type { NativeLab } from '../lab/native/native.ts';
import { startSidecars } from '../lab/sidecar.ts';
import type { LabSidecars, Sidecar } from '../lab/sidecar.ts';
import { LabCluster } from './support/cluster-double.ts';
import { attachForeign, compileForeign } from './support/foreign.ts';

const BUILD = fileURLToPath(new URL('../../build', import.meta.url));
const DENY_BPF = fileURLToPath(new URL('support/deny-bpf.ts', import.meta.url));
const METRICS = '127.0.0.1:9108';
/** Checks wait up to half a minute for what does not answer, and a busy machine is slow to start processes. */
const LIMIT_MS = 120_000;

interface Run {
  readonly code: number | null;
  readonly findings: readonly Finding[];
}

interface RunOptions {
  /** Sections over those of the node's configuration; undefined: left out. */
  readonly config?: Readonly<Record<string, unknown>>;
  /** Runs the command, e.g. without a privilege. */
  readonly within?: readonly string[];
  readonly args?: readonly string[];
}

/** A shell command in a mount namespace of its own, and then what follows. */
function mounted(script: string): string[] {
  return ['unshare', '--mount', '--propagation', 'private', 'sh', '-ec', `${script}; exec "$@"`, 'sh'];
}

describe('xmasq doctor', () => {
  let lab: NativeLab;
  let sidecars: LabSidecars;
  let first: Sidecar;
  let node: Node;
  let directory: string;
  let database: AntreaDatabase;
  let base: Record<string, unknown>;
  const procs: Proc[] = [];

  beforeAll(async () => {
    lab = await up();
    node = lab.node(0);
    directory = mkdtempSync(join(tmpdir(), `${lab.id}-`));
    database = await AntreaDatabase.create(join(directory, 'openvswitch'));
    for (const pod of node.pods) await database.addPod(pod.endpoint);
    // The other node waits for a database for ever: it is nobody's concern here.
    sidecars = await startSidecars(lab, { ovsdb: databaseOf, metricsAddress: METRICS, withoutWaiting: true });
    first = sidecars.node(0);
    await first.waitReady();
    base = parse(readFileSync(first.configFile, 'utf8')) as Record<string, unknown>;
  }, 180_000);
  // Whatever a test did, the next one finds a node that works.
  afterEach(async () => {
    await Promise.all(procs.splice(0).map((proc) => proc.stop()));
  });
  afterAll(async () => {
    await sidecars.down();
    await database.stop();
    rmSync(directory, { recursive: true, force: true });
    await lab.down();
  });

  /** Only the first node has a database. */
  function databaseOf(of: Node): string {
    return of.index === 1 ? database.socket : join(directory, 'none.sock');
  }

  async function doctor({ config = {}, within = [], args = [] }: RunOptions = {}): Promise<Run> {
    const file = join(directory, 'xmasq.yaml');
    writeFileSync(file, stringify({ ...base, ...config }));
    return doctorOn(file, within, args);
  }

  async function doctorOn(file: string, within: readonly string[] = [], args: readonly string[] = []): Promise<Run> {
    const argv = [process.execPath, join(BUILD, 'xmasq.mjs'), '-o', 'json', 'doctor', '--config', file, ...args];
    const result = await node.exec([...within, ...argv], { check: false, timeoutMs: LIMIT_MS });
    try {
      const { findings } = JSON.parse(result.stdout) as { findings: Finding[] };
      return { code: result.code, findings };
    } catch {
      throw new Error(`doctor ended with ${result.code}: ${result.stdout}${result.stderr}`);
    }
  }

  const failures = ({ findings }: Run): string[] =>
    findings.flatMap(({ check, result, what }) => (result === 'failed' ? [`${check}: ${what}`] : []));

  /** The one failed check, with the cause, and something to do about it. */
  function expectCause(run: Run, check: string, what: RegExp, action: RegExp = /./): void {
    expect(failures(run)).toEqual([expect.stringMatching(new RegExp(`^${check}: `))]);
    const [found] = run.findings.filter(({ result }) => result === 'failed');
    expect(found?.what).toMatch(what);
    expect(found?.action).toMatch(action);
    expect(found?.where).not.toBe('');
    expect(run.code).toBe(4);
  }

  /** The cause while no sidecar runs: it would not start on such a node. */
  function withoutAgent(name: string, body: () => Promise<void>): void {
    test(
      name,
      async () => {
        await first.stop();
        await body();
      },
      2 * LIMIT_MS,
    );
  }

  describe('beside a sidecar that runs', () => {
    afterEach(async () => {
      if (!first.proc.running) await first.start();
      await first.waitReady();
    });

    test(
      'finds nothing wrong with a node that works, and changes nothing',
      async () => {
        const before = await node.exec(['sh', '-c', `find ${node.pinDir} | sort; ip -o link`]);
        const run = await doctor();
        expect(failures(run)).toEqual([]);
        expect(run.code).toBe(0);
        const seen = run.findings.map(({ check, result }) => `${check} ${result}`);
        for (const check of ['kernel', 'programs', 'bpffs', 'pinned', 'cluster', 'ovsdb', 'uplink', 'tc', 'agent']) {
          expect(seen).toContain(`${check} ok`);
        }
        expect(seen).toContain('metrics ok');
        expect(await node.exec(['sh', '-c', `find ${node.pinDir} | sort; ip -o link`])).toEqual(before);
      },
      LIMIT_MS,
    );

    test(
      'for people: a line for each check, and where and what to do below what is wrong',
      async () => {
        const file = join(directory, 'xmasq.yaml');
        writeFileSync(file, stringify({ ...base, ovsdb: { socket: '/nowhere/db.sock' } }));
        const argv = [process.execPath, join(BUILD, 'xmasq.mjs'), 'doctor', '--config', file];
        const { code, stdout } = await node.exec(argv, { check: false, timeoutMs: LIMIT_MS });
        expect(code).toBe(4);
        expect(stdout).toMatch(/^ok +uplink +eth0, /m);
        expect(stdout).toMatch(
          /^failed +ovsdb +no connection .*ENOENT.*\n +where: \/nowhere\/db\.sock\n +to do: correct ovsdb\.socket/m,
        );
        expect(stdout).toMatch(/\d+ ok, \d+ warnings?, 1 failed, \d+ skipped\n$/);
      },
      LIMIT_MS,
    );

    test(
      'a sidecar that is stopped and does not answer',
      async () => {
        process.kill(first.proc.pid, 'SIGSTOP');
        try {
          expectCause(await doctor({ args: ['--timeout', '2'] }), 'agent', /did not answer within 2 s/, /stopped/);
        } finally {
          process.kill(first.proc.pid, 'SIGCONT');
        }
      },
      LIMIT_MS,
    );

    test(
      'a second sidecar on the same pins, behind another socket',
      async () => {
        const socket = join(directory, 'other.sock');
        const run = await doctor({ config: { socket, metrics: undefined } });
        expectCause(run, 'agent', /another xmasq-agent works on the data plane at/, /stop it first/);
      },
      LIMIT_MS,
    );

    test(
      'what only the sidecar can know: a pod without an interface',
      async () => {
        const lost: Endpoint = {
          ...node.pod(0).endpoint,
          ...{ name: 'lost', ifName: 'lost0', containerId: 'f'.repeat(64), ips: ['10.10.1.250'] },
        };
        await database.addPod(lost);
        try {
          await eventually('degraded', async () => (await first.status()).degradations.length > 0, 20_000);
          expectCause(await doctor(), 'degradations', /pod default\/lost is not accelerated/);
        } finally {
          await database.removePort(lost.ifName);
        }
      },
      LIMIT_MS,
    );

    test(
      'a trouble that the sidecar has, too, is told once',
      async () => {
        await database.stop('SIGKILL');
        try {
          await eventually('degraded', async () => (await first.status()).degradations.length > 0);
          expectCause(await doctor(), 'ovsdb', /ECONNREFUSED/, /ovsdb-server has ended/);
        } finally {
          await database.start();
        }
      },
      LIMIT_MS,
    );
  });

  describe('without a sidecar', () => {
    withoutAgent(
      'finds nothing wrong with what a sidecar left that was stopped, and says that it does not run',
      async () => {
        const run = await doctor();
        expect(failures(run)).toEqual([]);
        expect(run.code).toBe(0);
        expect(run.findings).toContainEqual(expect.objectContaining({ check: 'agent', result: 'warning' }));
        expect(run.findings).toContainEqual(expect.objectContaining({ check: 'metrics', result: 'ok' }));
      },
    );

    withoutAgent("finds nothing wrong with a node that was never started, by another one's pins", async () => {
      const run = await doctor({ config: { bpffs: `${node.pinDir}-never` } });
      expect(failures(run)).toEqual([]);
      expect(run.findings).toContainEqual(
        expect.objectContaining({ check: 'pinned', result: 'ok', what: 'no data plane is loaded yet' }),
      );
    });

    describe('configuration', () => {
      withoutAgent('there is no file', async () => {
        expectCause(await doctorOn('/nowhere/xmasq.yaml'), 'configuration', /cannot be read: no such file/, /--config/);
      });

      withoutAgent('a value that is not allowed', async () => {
        expectCause(
          await doctor({ config: { startHold: 'never' } }),
          'configuration',
          /startHold: is "never"; expected/,
        );
      });

      withoutAgent('a node without a name', async () => {
        const run = await doctor({ config: { nodeName: undefined }, within: ['env', '--unset=NODE_NAME'] });
        expectCause(run, 'configuration', /nodeName: is missing; .* NODE_NAME/);
      });

      withoutAgent('the file of nodes lacks this one', async () => {
        expectCause(await doctor({ config: { nodeName: 'elsewhere' } }), 'cluster', /lack this node, elsewhere/);
      });

      withoutAgent('an address for metrics that is taken', async () => {
        const script = "require('net').createServer().listen(9108, '127.0.0.1', () => console.log('listening'))";
        const proc = await node.spawn([process.execPath, '-e', script], { name: 'taken' });
        procs.push(proc);
        await proc.waitFor(/^listening/, 15_000);
        expectCause(await doctor(), 'metrics', /cannot be served on 127\.0\.0\.1:9108: .*EADDRINUSE/);
      });

      withoutAgent('something else at the place of the socket', async () => {
        const socket = join(directory, 'file.sock');
        writeFileSync(socket, '');
        expectCause(await doctor({ config: { socket } }), 'agent', /something else has that name/);
      });
    });

    describe('this process', () => {
      withoutAgent('is not of root', async () => {
        // It may read what is read here, wherever the checkout is.
        const keep = ['--inh-caps=+dac_read_search', '--ambient-caps=+dac_read_search'];
        const within = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups', ...keep];
        expectCause(await doctor({ within }), 'user', /is of user 65534/, /as root/);
      });

      for (const capability of ['bpf', 'net_admin', 'perfmon']) {
        withoutAgent(`lacks CAP_${capability.toUpperCase()}`, async () => {
          // CAP_SYS_ADMIN would stand for it.
          const within = ['setpriv', `--bounding-set=-sys_admin,-${capability}`];
          const lacks = new RegExp(`^this process lacks CAP_${capability.toUpperCase()}$`);
          expectCause(await doctor({ within }), 'capabilities', lacks, /give the container these capabilities/);
        });
      }

      withoutAgent('has the three capabilities and no more, which is enough', async () => {
        const within = ['setpriv', '--bounding-set=-all,+bpf,+net_admin,+perfmon'];
        expect(failures(await doctor({ within }))).toEqual([]);
      });

      withoutAgent('has them, but a seccomp profile refuses bpf', async () => {
        const within = [
          ...[process.execPath, '--disable-warning=ExperimentalWarning', DENY_BPF],
          ...['setpriv', '--bounding-set=-all,+bpf,+net_admin,+perfmon'],
        ];
        const run = await doctor({ within });
        expectCause(
          run,
          'bpf',
          /\(EPERM\).*a seccomp filter is in force.*CAP_SYS_ADMIN only/,
          /allows bpf with CAP_BPF/,
        );
      });

      withoutAgent('has them in a user namespace', async () => {
        const run = await doctor({ within: ['unshare', '--user', '--map-root-user'] });
        expectCause(run, 'bpf', /\(EPERM\).*in a user namespace/, /user namespace of the host/);
      });

      withoutAgent('has another monotonic clock than the kernel', async () => {
        const run = await doctor({ within: ['unshare', '--time', '--fork', '--monotonic', '86400'] });
        expectCause(run, 'clock', /CLOCK_MONOTONIC is 86400 s off/, /time namespace of the host/);
      });

      withoutAgent('finds no libbpf', async () => {
        const within = mounted(
          'lib=$(ldconfig -p | sed -n "s/.*libbpf.so.1 .*=> //p" | head -n 1); mount --bind /dev/null "$(readlink -f "$lib")"',
        );
        expectCause(await doctor({ within }), 'libbpf', /cannot load libbpf\.so\.1/);
      });

      withoutAgent('finds no BPF objects', async () => {
        const run = await doctor({ args: ['--bpf-dir', directory] });
        expectCause(run, 'objects', /no xmasq\.bpf\.o and probe\.bpf\.o in/, /--bpf-dir/);
      });

      withoutAgent('finds a BPF object that was not copied to its end', async () => {
        const copy = join(directory, 'bpf');
        cpSync(join(BUILD, 'bpf'), copy, { recursive: true });
        truncateSync(join(copy, 'xmasq.bpf.o'), 4096);
        const run = await doctor({ config: { bpffs: `${node.pinDir}-never` }, args: ['--bpf-dir', copy] });
        expectCause(run, 'programs', /xmasq\.bpf\.o/, /install the whole of XMasq again/);
      });
    });

    describe('the machine', () => {
      withoutAgent('has no BTF', async () => {
        const within = mounted('mount -t tmpfs none /sys/kernel/btf');
        expectCause(
          await doctor({ within }),
          'btf',
          /there is no \/sys\/kernel\/btf\/vmlinux/,
          /CONFIG_DEBUG_INFO_BTF/,
        );
      });

      // A fake: nf_conntrack cannot be taken out of a kernel whose machine uses it, so that its settings are hidden.
      withoutAgent('has no connection tracking (a fake)', async () => {
        const within = mounted('mount -t tmpfs none /proc/sys/net/netfilter');
        expectCause(await doctor({ within }), 'conntrack', /nf_conntrack is not loaded/, /load it on the node/);
      });

      withoutAgent('reports no ends of connections: a warning', async () => {
        await node.sysctl({ 'net/netfilter/nf_conntrack_events': 0 });
        try {
          const run = await doctor();
          expect(failures(run)).toEqual([]);
          expect(run.findings).toContainEqual(
            expect.objectContaining({
              check: 'conntrack',
              result: 'warning',
              where: 'net.netfilter.nf_conntrack_events',
            }),
          );
        } finally {
          await node.sysctl({ 'net/netfilter/nf_conntrack_events': 2 });
        }
      });

      withoutAgent('has no bpf file system mounted', async () => {
        const within = mounted('while mountpoint -q /sys/fs/bpf; do umount --lazy /sys/fs/bpf; done');
        const lesser = [...within, 'setpriv', '--bounding-set=-all,+bpf,+net_admin,+perfmon'];
        expectCause(await doctor({ within: lesser }), 'bpffs', /is not on a bpf file system/, /mount -t bpf bpf/);
        // The sidecar would mount it.
        const run = await doctor({ within });
        expect(failures(run)).toEqual([]);
        expect(run.findings).toContainEqual(
          expect.objectContaining({ check: 'bpffs', result: 'warning', where: '/sys/fs/bpf' }),
        );
      });

      withoutAgent('has it mounted read-only', async () => {
        const within = mounted('mount -o remount,bind,ro /sys/fs/bpf');
        expectCause(await doctor({ within }), 'bpffs', /nothing can be pinned below .*\(EROFS\)/, /writable/);
      });

      withoutAgent('has it elsewhere than configured', async () => {
        const run = await doctor({ config: { bpffs: join(directory, 'pins') } });
        expectCause(run, 'bpffs', /is not on a bpf file system/, /set "bpffs"/);
      });

      withoutAgent('has a data plane loaded with other sizes', async () => {
        const run = await doctor({ config: { maps: { flows: 2048, slots: 4096 } } });
        // The sidecar would start, at a price.
        expect(failures(run)).toEqual([]);
        expect(run.findings).toContainEqual(
          expect.objectContaining({
            check: 'pinned',
            result: 'warning',
            what: expect.stringMatching(/map flows has max_entries \d+, this build and configuration want 2048/),
            action: expect.stringContaining('former sizes'),
          }),
        );
      });

      withoutAgent('has something else pinned in the place of a data plane', async () => {
        const [path, aside] = [`${node.pinDir}/maps/config`, `${node.pinDir}/aside`];
        await node.exec(['mv', path, aside]);
        try {
          const create = ['type', 'hash', 'key', '4', 'value', '8', 'entries', '4', 'name', 'config'];
          await node.exec(['bpftool', 'map', 'create', path, ...create]);
          expectCause(
            await doctor(),
            'pinned',
            /map config has type 1, this build and configuration want 2/,
            /admin\.md/,
          );
        } finally {
          await node.exec(['mv', aside, path]);
        }
      });

      withoutAgent("has another program before XMasq's at the uplink", async () => {
        procs.push(await attachForeign(node, compileForeign(lab), 'ingress'));
        const run = await doctor();
        expectCause(run, 'tc', /another program runs before uplink_ingress/, /attach that program behind/);
        expect(run.findings).toContainEqual(
          expect.objectContaining({
            check: 'tc',
            where: expect.stringMatching(/^ingress of eth0: programs \d+, \d+ \(XMasq\)$/),
          }),
        );
      });
    });

    describe('the uplink', () => {
      withoutAgent('does not exist', async () => {
        expectCause(
          await doctor({ config: { uplink: { device: 'eth7' } } }),
          'uplink',
          /the uplink eth7 does not exist/,
        );
      });

      withoutAgent("is not that of the node's address", async () => {
        const run = await doctor({ config: { uplink: { device: 'lo' } } });
        expectCause(run, 'uplink', /the uplink lo does not have the node's transport address/);
      });

      withoutAgent('is looked for in another network namespace than that of the host', async () => {
        const run = await doctor({ config: { uplink: {} }, within: ['unshare', '--net'] });
        expectCause(run, 'uplink', /no device has the node's transport address/, /host's network namespace/);
      });
    });

    describe("Open vSwitch's database", () => {
      withoutAgent('has no socket where one is configured', async () => {
        const run = await doctor({ config: { ovsdb: { socket: join(directory, 'none.sock') } } });
        expectCause(run, 'ovsdb', /no connection to the database of Open vSwitch: .*ENOENT/, /antrea\/openvswitch/);
      });

      withoutAgent('has a server that does not answer', async () => {
        process.kill(database.pid, 'SIGSTOP');
        try {
          expectCause(await doctor(), 'ovsdb', /no reply to get_schema within/, /antrea-ovs/);
        } finally {
          process.kill(database.pid, 'SIGCONT');
        }
      });

      withoutAgent('has no bridge of that name', async () => {
        const run = await doctor({ config: { ovsdb: { socket: database.socket, bridge: 'br-ext' } } });
        expectCause(run, 'ovsdb', /has no bridge br-ext/, /ovsdb\.bridge/);
      });

      withoutAgent('has a tunnel on another port', async () => {
        const tunnel = { type: 'geneve', options: ['map', [['dst_port', '6999']]] } as const;
        await database.addPort('antrea-tun0', { externalIds: { 'antrea-type': 'tunnel' }, interface: tunnel });
        try {
          expectCause(await doctor(), 'ovsdb', /the tunnel uses port 6999, but tunnel\.port is/);
        } finally {
          await database.removePort('antrea-tun0');
        }
      });

      withoutAgent('is about to be filled again: a warning', async () => {
        await database.otherConfig('flow-restore-wait', 'true');
        try {
          const run = await doctor();
          expect(failures(run)).toEqual([]);
          expect(run.findings).toContainEqual(expect.objectContaining({ check: 'ovsdb', result: 'warning' }));
        } finally {
          await database.otherConfig('flow-restore-wait', undefined);
        }
      });
    });

    describe('the Kubernetes API', () => {
      let cluster: LabCluster;
      let kubeconfig: string;

      beforeAll(async () => {
        cluster = await LabCluster.start(lab);
        kubeconfig = cluster.kubeconfig(node);
      });
      afterAll(() => cluster.stop());

      const api = (file = kubeconfig): RunOptions => ({
        config: { clusterState: { kubernetes: { kubeconfig: file } } },
      });

      function agentInfo(version: string): void {
        cluster.double.store.put('/apis/crd.antrea.io/v1beta1/antreaagentinfos', {
          apiVersion: 'crd.antrea.io/v1beta1',
          kind: 'AntreaAgentInfo',
          metadata: { name: node.name },
          ...{ version, agentConditions: [{ type: 'AgentHealthy', status: 'True' }] },
        });
      }

      withoutAgent('tells all, and of Antrea its version and modes', async () => {
        agentInfo('v2.8.0');
        const run = await doctor(api());
        expect(failures(run)).toEqual([]);
        const antrea = run.findings.filter(({ check }) => check === 'antrea');
        expect(antrea.map(({ result, what }) => `${result}: ${what}`)).toEqual([
          expect.stringMatching(/^ok: trafficEncapMode encap, tunnelType \w+, encryption none$/),
          'ok: Antrea v2.8.0',
        ]);
        // It only reads.
        expect(cluster.double.store.get('/api/v1/nodes', node.name)?.metadata.annotations ?? {}).toEqual({});
      });

      withoutAgent('has no file with credentials', async () => {
        expectCause(
          await doctor(api('/nowhere/kubeconfig')),
          'cluster',
          /the Nodes cannot be followed: ENOENT.*kubeconfig/,
        );
      });

      withoutAgent('is not there', async () => {
        const file = join(directory, 'closed.yaml');
        writeFileSync(file, readFileSync(kubeconfig, 'utf8').replace(':6443', ':6444'));
        expectCause(
          await doctor(api(file)),
          'cluster',
          /the Nodes cannot be followed: .*ECONNREFUSED/,
          /reaches the API server/,
        );
      });

      withoutAgent('refuses the credentials', async () => {
        const file = join(directory, 'token.yaml');
        writeFileSync(file, readFileSync(kubeconfig, 'utf8').replace(/token: .*/, 'token: wrong'));
        expectCause(await doctor(api(file)), 'cluster', /401/, /token/);
      });

      withoutAgent('does not allow what is needed', async () => {
        cluster.double.rights = ({ verb, resource }) => verb !== 'list' || resource !== 'pods';
        try {
          expectCause(await doctor(api()), 'cluster', /cannot follow \/api\/v1\/pods: 403/, /charts\/xmasq/);
        } finally {
          cluster.double.rights = undefined;
        }
      });

      withoutAgent('knows no such Node', async () => {
        const { config } = api();
        expectCause(await doctor({ config: { ...config, nodeName: 'elsewhere' } }), 'cluster', /no Node elsewhere/);
      });

      withoutAgent('has no configuration of Antrea in that namespace', async () => {
        const kubernetes = { kubeconfig, antreaNamespace: 'elsewhere' };
        const run = await doctor({ config: { clusterState: { kubernetes } } });
        expectCause(run, 'antrea', /no ConfigMap antrea-config/, /antreaNamespace/);
      });

      withoutAgent("says that Antrea's tunnel uses another port", async () => {
        cluster.antreaConf({ tunnelPort: 7777 });
        try {
          expectCause(await doctor(api()), 'antrea', /the tunnel uses port 7777/, /tunnel\.port/);
        } finally {
          cluster.antreaConf({});
        }
      });

      withoutAgent('says that Antrea encrypts, and is of another release: warnings', async () => {
        cluster.antreaConf({ trafficEncryptionMode: 'wireGuard' });
        agentInfo('v1.9.0');
        try {
          const run = await doctor(api());
          expect(failures(run)).toEqual([]);
          const warnings = run.findings.flatMap(({ check, result, what }) =>
            check === 'antrea' && result === 'warning' ? [what] : [],
          );
          expect(warnings).toEqual([
            'excluded (inter-node): encryption (trafficEncryptionMode: wireguard)',
            expect.stringContaining('Antrea v1.9.0 is not among the releases'),
          ]);
        } finally {
          cluster.antreaConf({});
        }
      });
    });
  });
});
