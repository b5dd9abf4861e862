import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, jest, test } from '@jest/globals';
import { parse, parseAllDocuments } from 'yaml';

import { FakeBackend, flow } from '../grpc/fake-backend.ts';
import { startHarness, type Harness } from '../grpc/harness.ts';
import { Commands, finish, type Result } from './commands.ts';

// Each run starts a process; on a busy machine that takes its time.
jest.setTimeout(30_000);

let harness: Harness;
const commands = new Commands();

beforeAll(async () => {
  harness = await startHarness();
});
beforeEach(() => {
  const { backend } = harness;
  const fresh = new FakeBackend();
  backend.calls.length = 0;
  backend.statusInfo = fresh.statusInfo;
  backend.flowList = fresh.flowList;
  backend.failure = undefined;
});
afterEach(() => commands.kill());
afterAll(() => harness.close());

function start(args: readonly string[], env: Record<string, string> = {}): ChildProcess {
  return commands.start(args, { XMASQ_SOCKET: harness.socket, ...env });
}

function xmasq(...args: string[]): Promise<Result> {
  return finish(start(args));
}

describe('xmasq: what it prints', () => {
  test('status, for people', async () => {
    const { code, stdout, stderr } = await xmasq('status');
    expect([code, stderr]).toEqual([0, '']);
    expect(stdout).toMatch(/^state: +ready$/m);
    expect(stdout).toMatch(/^admission: +conntrack$/m);
    expect(stdout).toMatch(/^attach: +tcx$/m);
    expect(stdout).toMatch(/^flows +2 +65536$/m);
    expect(stdout).toMatch(/^fast-tx +9007199254740991$/m);
    expect(stdout).toMatch(/^tcp-syn +17$/m);
    expect(stdout).not.toMatch(/\x1b/);
  });

  test('status: admission approvals', async () => {
    harness.backend.statusInfo = { ...harness.backend.statusInfo, admission: 'approvals', attach: 'clsact' };
    const { stdout } = await xmasq('status');
    expect(stdout).toMatch(/^admission: +approvals$/m);
    expect(stdout).toMatch(/^attach: +clsact$/m);
  });

  test('status -o json is the proto3 JSON of the message', async () => {
    const { code, stdout } = await xmasq('-o', 'json', 'status');
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({
      nodeName: 'node-a',
      state: 'NODE_STATE_READY',
      admissionMode: 'ADMISSION_MODE_CONNTRACK',
      uplinks: [{ device: 'eth0', mtu: 1500 }],
      counters: [{ name: 'fast_tx', value: '9007199254740991' }],
      reasons: [{ reason: 'REASON_NONE' }, { reason: 'REASON_TCP_SYN', packets: '17' }],
    });
  });

  test('yaml says the same as json', async () => {
    const [json, yaml] = await Promise.all([xmasq('peers', '-o', 'json'), xmasq('peers', '-o', 'yaml')]);
    expect(parse(yaml.stdout)).toEqual(JSON.parse(json.stdout));
  });

  test('peers, endpoints, version', async () => {
    const [peers, endpoints, version] = await Promise.all([xmasq('peers'), xmasq('endpoints'), xmasq('version')]);
    const peer = (rest: string): RegExp =>
      new RegExp(String.raw`^node-b +192\.168\.77\.2,fd00::2 +10\.10\.2\.0/24 +v1 +yes +40ms +2 +${rest}$`, 'm');
    // Classes that go the same way are one line.
    expect(peers.stdout).toMatch(peer('IPv4 +tcp,udp +masquerade +- +900ms +2'));
    expect(peers.stdout).toMatch(peer('IPv4 +other +encap +unproven +- +0'));
    expect(peers.stdout).toMatch(peer('IPv6 +all +direct +- +- +0'));
    expect(peers.stdout).toMatch(/^node-c +192\.168\.77\.3 +- +no +no +- +0 +- +- +- +- +- +-$/m);
    expect(endpoints.stdout).toMatch(
      /^default\/web-0 +veth0 \(12\) +10\.10\.1\.2 +02:00:00:00:00:02 +attached +2 +-$/m,
    );
    expect(version.stdout).toMatch(/^sidecar: +0\.1\.0, commit abc123$/m);
    expect([peers.code, endpoints.code, version.code]).toEqual([0, 0, 0]);
  });

  test('flows: a table, the busiest first, reasons only for slow ones', async () => {
    harness.backend.flowList = [
      flow({ sourcePort: 1, path: 'slow', mode: 'slow', reason: 10, txBytes: 0n, rxBytes: 0n }),
      flow({ sourcePort: 2 }),
    ];
    const { stdout } = await xmasq('flows');
    const [, first, second] = stdout.split('\n');
    expect(first).toMatch(
      /10\.10\.1\.2:2 +10\.10\.2\.3:80 +tcp +node-b +fast +masquerade +- +both +1\.5M +26\.0k +6 +1m1s +12ms$/,
    );
    expect(second).toMatch(/10\.10\.1\.2:1 .* slow +- +tcp-syn /);
  });

  test('flows: what flow records say has columns only where they say something', async () => {
    harness.backend.flowList = [flow()];
    expect((await xmasq('flows')).stdout).not.toMatch(/SERVICE|POLICY/);
    harness.backend.flowList = [
      flow(),
      flow({ service: 'data/db:sql', egressPolicy: 'ACNP allow:to-db', txBytes: 0n }),
    ];
    const [head, first, second] = (await xmasq('flows')).stdout.split('\n');
    expect(head).toMatch(/ IDLE +SERVICE +EGRESS POLICY$/);
    expect(first).toMatch(/12ms/);
    expect(second).toMatch(/12ms +data\/db:sql +ACNP allow:to-db$/);
  });

  test('flows: names from elsewhere cannot write escape sequences', async () => {
    harness.backend.flowList = [flow({ peer: '\u001b[31mred' })];
    const { stdout } = await xmasq('flows');
    expect(stdout).toContain('?[31mred');
  });

  test('flows: every filter reaches the sidecar', async () => {
    harness.backend.flowList = [
      flow({ sourcePort: 5, path: 'slow', reason: 10 }),
      flow({ sourcePort: 6, path: 'slow', reason: 10, peer: 'node-c' }),
      flow({ sourcePort: 5 }),
    ];
    const filters =
      '--pod default/web-0 --ip 10.10.2.3 --peer node-b --protocol tcp --port 5 --path slow --reason TCP_SYN';
    const { code, stdout } = await xmasq('flows', '-o', 'json', '--limit', '5', ...filters.split(' '));
    expect(code).toBe(0);
    const { flows } = JSON.parse(stdout) as { flows: object[] };
    expect(flows).toMatchObject([{ sourcePort: 5, peer: 'node-b', reason: 'REASON_TCP_SYN' }]);
  });

  test('flows: more than one message makes one document', async () => {
    harness.backend.flowList = Array.from({ length: 5000 }, (_, n) => flow({ sourcePort: n + 1 }));
    const { stdout } = await xmasq('flows', '-o', 'json');
    expect(JSON.parse(stdout)).toMatchObject({ last: true });
    expect((JSON.parse(stdout) as { flows: object[] }).flows.length).toBe(5000);
  });

  test('flush and drain', async () => {
    expect((await xmasq('flush', '--pod', 'default/web-0')).stdout).toBe('flushed 3 flows and 2 restore slots\n');
    expect((await xmasq('flush', '--peer', 'node-b')).code).toBe(0);
    expect((await xmasq('flush', '--all')).code).toBe(0);
    expect((await xmasq('drain')).stdout).toBe('draining, drained in 35.0s\n');
    expect((await xmasq('drain', '--undo')).stdout).toBe('ready\n');
    expect(harness.backend.calls).toEqual([
      { kind: 'pod', pod: { namespace: 'default', name: 'web-0' } },
      { kind: 'peer', peer: 'node-b' },
      { kind: 'all' },
      { drain: false },
      'undrain',
    ]);
  });
});

describe('xmasq flows --watch', () => {
  test('prints JSON lines until it is interrupted: exit code 0', async () => {
    const child = start(['flows', '--watch', '--interval', '0.1', '-o', 'json']);
    const result = finish(child);
    let lines = 0;
    child.stdout?.on('data', (chunk: Buffer) => {
      lines += chunk.toString().split('\n').length - 1;
      if (lines >= 3) child.kill('SIGINT');
    });
    const { code, stdout } = await result;
    expect(code).toBe(0);
    const rounds = stdout
      .trim()
      .split('\n')
      .map((line) => (JSON.parse(line) as { round: string }).round);
    expect(rounds.slice(0, 3)).toEqual(['1', '2', '3']);
  });

  test('YAML comes as documents', async () => {
    const child = start(['flows', '--watch', '--interval', '0.1', '-o', 'yaml']);
    const result = finish(child);
    let seen = '';
    child.stdout?.on('data', (chunk: Buffer) => {
      seen += chunk.toString();
      if (seen.split('---\n').length > 2) child.kill('SIGINT');
    });
    const { stdout } = await result;
    expect(parseAllDocuments(stdout).length).toBeGreaterThanOrEqual(2);
  });

  test('ends quietly when its reader goes away', async () => {
    const child = start(['flows', '--watch', '--interval', '0.1']);
    const result = finish(child);
    child.stdout?.once('data', () => child.stdout?.destroy());
    const { code, stderr } = await result;
    expect([code, stderr]).toEqual([0, '']);
  });
});

describe('xmasq: exit codes', () => {
  test('1: the sidecar refuses or fails', async () => {
    expect(await xmasq('flush', '--peer', 'node-x')).toEqual({
      code: 1,
      stdout: '',
      stderr: 'xmasq: no peer is named node-x\n',
    });
    harness.backend.failure = new Error('map flows: EIO');
    expect(await xmasq('flows')).toMatchObject({ code: 1, stderr: 'xmasq: map flows: EIO\n' });
  });

  test('1: not drained in time, or interrupted', async () => {
    const { code, stderr } = await xmasq('drain', '--wait', '--timeout', '0.3');
    expect([code, stderr]).toEqual([1, expect.stringContaining('not drained in time; the drain goes on')]);
    const child = start(['drain', '--wait']);
    const result = finish(child);
    const { calls } = harness.backend;
    const waits = calls.length;
    while (calls.length === waits) await new Promise((resolve) => setTimeout(resolve, 5));
    child.kill('SIGINT');
    expect(await result).toMatchObject({ code: 1, stderr: 'xmasq: interrupted\n' });
  });

  test.each([
    ['', 'Usage: xmasq'],
    ['bogus', "unknown command 'bogus'"],
    ['status --bogus', "unknown option '--bogus'"],
    ['status extra', 'too many arguments'],
    ['status -o xml', 'Allowed choices are table, json, yaml'],
    ['status --timeout 0', 'Expected seconds, from 0.1 to 3600'],
    ['flows --port 65536', 'Expected a whole number from 1 to 65535'],
    ['flows --protocol xyz', 'Expected icmp, tcp, udp, gre, icmpv6, sctp, or a number from 0 to 255'],
    ['flows --reason nonsense', 'Expected one of none, vlan, malformed'],
    ['flows --path middle', 'Allowed choices are fast, slow'],
    ['flows --ip 10.1', 'field ip is "10.1"; expected an IPv4 or IPv6 address'],
    ['flows --pod a/b/c', 'Expected a pod as name or namespace/name'],
    ['flows --pod a/b -n c', '--pod and --namespace name two namespaces, a and c'],
    ['flows --interval 2', '--interval is of use only with --watch'],
    ['flush', 'flush takes exactly one of --all'],
    ['flush --all --peer b', 'flush takes exactly one of --all'],
    ['flush --pod web-0', 'Expected a pod as namespace/name'],
    ['drain --undo --wait', '--undo needs no --wait'],
  ])('2: xmasq %s', async (line, message) => {
    const { code, stdout, stderr } = await xmasq(...line.split(' ').filter((word) => word !== ''));
    expect(stderr).toContain(message);
    expect([code, stdout]).toEqual([2, '']);
  });

  test('0: help and version of the command itself', async () => {
    const help = await xmasq('--help');
    expect(help.code).toBe(0);
    expect(help.stdout).toContain('Exit codes:');
    expect(await xmasq('--version')).toMatchObject({ code: 0, stdout: expect.stringMatching(/^\d+\.\d+\.\d+\n$/) });
    const offline = await finish(start(['version', '--client'], { XMASQ_SOCKET: '/nonexistent' }));
    expect(offline).toMatchObject({ code: 0, stdout: expect.stringMatching(/^xmasq: +\d/) });
  });

  test('3: no socket, and --socket before the environment', async () => {
    const { code, stderr } = await xmasq('status', '--socket', '/nonexistent/x.sock');
    expect(code).toBe(3);
    expect(stderr).toContain(
      'cannot reach the sidecar at /nonexistent/x.sock: there is no such socket; is xmasq-agent',
    );
  });

  test('3: a sidecar that does not answer', async () => {
    const path = join(harness.directory, 'mute.sock');
    const mute = createServer().listen(path);
    await once(mute, 'listening');
    const { code, stderr } = await xmasq('status', '--socket', path, '--timeout', '0.3');
    mute.close();
    expect([code, stderr]).toEqual([3, expect.stringContaining('did not answer within 0.3 s')]);
  });

  test('4: degraded, and what to do about it', async () => {
    harness.backend.statusInfo = {
      ...harness.backend.statusInfo,
      state: 'degraded',
      degradations: [{ what: 'no hook on the interface', where: 'veth0', action: 'look at dmesg' }],
    };
    const [table, json] = await Promise.all([xmasq('status'), xmasq('status', '-o', 'json')]);
    expect(table.code).toBe(4);
    expect(table.stdout).toContain('! no hook on the interface\n  where: veth0\n  to do: look at dmesg\n');
    expect(json.code).toBe(4);
    expect(JSON.parse(json.stdout)).toMatchObject({ state: 'NODE_STATE_DEGRADED', degradations: [{ where: 'veth0' }] });
  });
});
