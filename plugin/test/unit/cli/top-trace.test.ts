/** `xmasq top` and `xmasq trace` as processes, against a real server with fakes behind it. */
import type { ChildProcess } from 'node:child_process';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, jest, test } from '@jest/globals';
import { parseAllDocuments } from 'yaml';
import { Reason } from '../../../src/dataplane/layout.ts';
import { FakeBackend, flow, traceLook } from '../grpc/fake-backend.ts';
import { startHarness, type Harness } from '../grpc/harness.ts';
import { Commands, finish, type Result } from './commands.ts';

// Each run starts a process; on a busy machine that takes its time.
jest.setTimeout(30_000);

let harness: Harness;
const commands = new Commands();

beforeAll(async () => {
  harness = await startHarness();
});
beforeEach(() => void Object.assign(harness.backend, new FakeBackend()));
afterEach(() => commands.kill());
afterAll(() => harness.close());

function start(line: string): ChildProcess {
  return commands.start(line.split(' '), { XMASQ_SOCKET: harness.socket });
}

function xmasq(line: string): Promise<Result> {
  return finish(start(line));
}

/** JSON documents, one per line. */
function documents(stdout: string): Record<string, unknown>[] {
  return stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>);
}

describe('xmasq top', () => {
  /** Has every sum grow between two looks. */
  function grow(): void {
    let looks = 0n;
    const { backend } = harness;
    backend.onPass = () => {
      looks++;
      const busy = {
        txPackets: 1000n * looks,
        txBytes: 100_000n * looks,
        rxPackets: 500n * looks,
        rxBytes: 20_000n * looks,
      };
      backend.flowList = [
        flow({
          sourcePort: 1,
          ageMs: 3_600_000,
          txPackets: 0n,
          txBytes: 0n,
          rxPackets: 0n,
          rxBytes: 0n,
          slowPackets: 5000n * looks,
          path: 'slow',
          mode: 'slow',
          reason: Reason.CT_STATE,
        }),
        flow({ sourcePort: 2, ageMs: 3_600_000, ...busy }),
      ];
      backend.statusInfo = {
        ...backend.statusInfo,
        counters: [
          { name: 'fast_tx', value: 300n * looks },
          { name: 'slow_tx', value: 100n * looks },
          { name: 'restored', value: 7n },
        ],
        reasons: [{ reason: Reason.CT_STATE, packets: 100n * looks }],
      };
    };
    backend.onPass();
  }

  /** Equal but for what is rounded. */
  function near(value: number, expected: number): void {
    expect(Math.abs(value / expected - 1)).toBeLessThan(0.05);
  }

  test('prints so many JSON documents as are asked for, each with the rates of its interval', async () => {
    grow();
    const { code, stdout, stderr } = await xmasq('top --count 2 --interval 0.5 -o json');
    expect([code, stderr]).toEqual([0, '']);
    const printed = documents(stdout);
    expect(printed).toHaveLength(2);
    for (const { intervalMs, hitRatio, countersPerSecond, slowReasonsPerSecond, flows } of printed as {
      intervalMs: number;
      hitRatio: number;
      countersPerSecond: Record<string, number>;
      slowReasonsPerSecond: Record<string, number>;
      flows: { sourcePort: number; rates: Record<string, number> }[];
    }[]) {
      expect(intervalMs).toBeGreaterThanOrEqual(500);
      // What has not changed is left out.
      expect(Object.keys(countersPerSecond)).toEqual(['fast_tx', 'slow_tx']);
      expect(hitRatio).toBeCloseTo(0.75);
      expect(Object.keys(slowReasonsPerSecond)).toEqual(['ct-state']);
      near((countersPerSecond['slow_tx'] ?? 0) * intervalMs, 100_000);
      expect(flows.map(({ sourcePort }) => sourcePort)).toEqual([2, 1]);
      const { txPackets = 0, txBits = 0, rxPackets = 0, rxBits = 0 } = flows[0]?.rates ?? {};
      near(txBits, txPackets * 800);
      near(rxPackets, txPackets / 2);
      near(rxBits, rxPackets * 320);
    }
  });

  test('prints tables one after another where there is no terminal, sorted and cut as asked for', async () => {
    grow();
    const { code, stdout } = await xmasq('top --count 2 --interval 0.5 --sort slow --limit 1');
    expect(code).toBe(0);
    expect(stdout.match(/^node: +node-a, ready$/gm)).toHaveLength(2);
    expect(stdout).toMatch(/^hit ratio: +75\.0 % in \d+\.\d s, 75\.0 % in all$/m);
    expect(stdout).toMatch(/^per second: +fast-tx \d+, slow-tx \d+$/m);
    expect(stdout).toMatch(/^slow because: +ct-state \d+$/m);
    expect(stdout).toMatch(/PATH +MODE +BECAUSE +TX PKT\/S +TX BIT\/S +RX PKT\/S +RX BIT\/S +SLOW PKT\/S$/m);
    expect(stdout).toMatch(/10\.10\.1\.2:1 .* slow +- +ct-state +0 +0 +0 +0 +[\d.]+k$/m);
    expect(stdout).not.toContain('10.10.1.2:2 ');
    expect(stdout).toContain('(there are more flows; see --limit)\n');
    expect(stdout).not.toMatch(/\x1b/);
  });

  test('goes on until it is interrupted: exit code 0', async () => {
    const child = start('top --interval 0.5 -o yaml');
    const { code, stdout, stderr } = await finish(child, (text) => {
      if (text.split('---\n').length > 2) child.kill('SIGINT');
    });
    expect([code, stderr]).toEqual([0, '']);
    expect(parseAllDocuments(stdout).length).toBeGreaterThanOrEqual(2);
  });

  test('is interrupted before the first table just as well', async () => {
    const child = start('top --interval 3600');
    const ended = finish(child);
    while (harness.backend.flowsRead === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    child.kill('SIGINT');
    expect(await ended).toEqual({ code: 0, stdout: '', stderr: '' });
  });

  test('ends with an error when the sidecar has one', async () => {
    harness.backend.failure = new Error('map flows: EIO');
    expect(await xmasq('top')).toEqual({ code: 1, stdout: '', stderr: 'xmasq: map flows: EIO\n' });
  });
});

describe('xmasq trace', () => {
  test('prints what changes with the time of day, and at the end why and what to do', async () => {
    const { backend } = harness;
    backend.flowList = [flow({ path: 'slow', mode: 'slow', admitted: false, reason: Reason.NOT_POD })];
    const refused = (slowPackets: bigint) =>
      flow({ path: 'slow', mode: 'slow', admitted: false, reason: Reason.NOT_POD, txPackets: 0n, slowPackets });
    backend.looks = [
      traceLook({ flow: refused(1n), conntrack: { reason: Reason.CT_MISSING, detail: '' } }),
      traceLook({ flow: refused(5n), conntrack: { reason: Reason.CT_MISSING, detail: '' } }),
    ];
    const { code, stdout, stderr } = await xmasq('trace --pod web-0 --seconds 1');
    expect([code, stderr]).toEqual([0, '']);
    expect(stdout).toMatch(/^\d\d:\d\d:\d\d\.\d{3} {2}flow {7}tcp default\/web-0 10\.10\.1\.2:40000 > 10\.10\.2\.3:80/);
    expect(stdout.match(/^\d\d:\d\d:\d\d\.\d{3} {2}path {7}slow, refused: not-pod$/gm)).toHaveLength(1);
    expect(stdout).toMatch(/ {2}conntrack {2}no entry \(ct-missing\)$/m);
    expect(stdout).toMatch(/^In \d\.\d s the pod sent 0 packets fast and 4 slow \(0\.0 % fast\)\.$/m);
    expect(stdout).toMatch(
      /^not-pod: the destination is no pod of a listed node.*\n {2}to do: nothing for nodes, the world;/m,
    );
  });

  test('JSON: one document for each look that brings something new, the explanation last', async () => {
    const { code, stdout } = await xmasq('trace --port 80 --seconds 1 -o json');
    expect(code).toBe(0);
    const [first, ...rest] = documents(stdout);
    expect(first).toMatchObject({
      time: expect.stringMatching(/^\d{4}-\d\d-\d\dT/),
      changes: expect.arrayContaining([{ what: 'path', text: 'fast, masquerade' }]),
      flow: { sourcePort: 40000, path: 'FLOW_PATH_FAST' },
      conntrack: { reason: 'REASON_NONE' },
    });
    expect(rest).toMatchObject([{ explanation: { path: 'fast', mode: 'masquerade', reason: '' } }]);
  });

  test('of several flows follows the slow one, and says so; ends and directions choose more', async () => {
    const { backend } = harness;
    backend.flowList = [
      flow({ sourcePort: 1 }),
      flow({ sourcePort: 2, path: 'slow', mode: 'slow', reason: Reason.KEY_EXCHANGE }),
      flow({ sourceIp: '10.10.1.2', sourcePort: 80, destinationIp: '10.10.9.9', destinationPort: 1 }),
    ];
    const traced = async (line: string): Promise<unknown> => {
      backend.calls.length = 0;
      await xmasq(`trace ${line} --seconds 1 -o json`);
      return backend.calls[0];
    };
    expect((await xmasq('trace --pod web-0 --seconds 1')).stdout).toContain('(2 more flows match; narrow it down');
    expect(await traced('--pod web-0')).toMatchObject({ trace: { sourcePort: 2 } });
    expect(await traced('--source 10.10.1.2:1')).toMatchObject({ trace: { sourcePort: 1, destinationPort: 80 } });
    expect(await traced('--destination 10.10.9.9:1')).toMatchObject({ trace: { sourcePort: 80 } });
  });

  test('a flow that comes later is found', async () => {
    const { backend } = harness;
    const [later] = backend.flowList;
    backend.flowList = [];
    let passes = 0;
    backend.onPass = () => {
      if (++passes === 2 && later !== undefined) backend.flowList = [later];
    };
    const { code, stdout } = await xmasq('trace --pod web-0 --seconds 2');
    expect([code, passes]).toEqual([0, 2]);
    expect(stdout).toContain('path       fast, masquerade');
  });

  test('a flow that is named in full is followed whether it is there or not', async () => {
    const { backend } = harness;
    backend.flowList = [];
    const ends = '--source 10.10.1.2:40000 --destination 10.10.2.3:80';
    const { code, stdout } = await xmasq(`trace ${ends} --protocol tcp --seconds 1`);
    expect([code, backend.calls]).toEqual([
      0,
      [{ trace: expect.objectContaining({ sourcePort: 40000, protocol: 6 }) }],
    ]);
    expect(stdout).toContain('flow       tcp 10.10.1.2:40000 > 10.10.2.3:80\n');
    // No pod of this node has the address.
    const foreign = await xmasq('trace --source 10.9.9.9:1 --destination 10.10.2.3:80 --protocol tcp --seconds 1');
    expect(foreign).toMatchObject({ code: 1, stderr: 'xmasq: no pod has 10.9.9.9\n' });
  });

  test('1: no such flow, with what can be said of the pod and of the node', async () => {
    const { backend } = harness;
    backend.flowList = [];
    const { code, stdout } = await xmasq('trace --pod web-0 --seconds 1');
    expect(code).toBe(1);
    expect(stdout).toContain('No such flow within 1 s');
    expect(stdout).toContain('Pod default/web-0 is attached; it has sent nothing of the kind');
    const other = await xmasq('trace --pod web-9 --seconds 1');
    expect(other.stdout).toContain('No pod of this node that is named so');
  });

  test('interrupted: says why all the same, exit code 0', async () => {
    const child = start('trace --pod web-0 --seconds 300');
    let interrupted = false;
    const { code, stdout, stderr } = await finish(child, (text) => {
      // A second one would end it at once.
      if (interrupted || !text.includes('  conntrack')) return;
      interrupted = child.kill('SIGINT');
    });
    expect([code, stderr]).toEqual([0, '']);
    expect(stdout).toContain('The flow is fast: its packets go by masquerade.');
    expect(harness.backend.tracesOpen).toBe(0);
  });

  test('names from elsewhere cannot write escape sequences', async () => {
    harness.backend.flowList = [flow({ peer: '\u001b[31mred' })];
    const { stdout } = await xmasq('trace --pod web-0 --seconds 1');
    expect(stdout).toContain('node ?[31mred');
    expect(stdout).not.toMatch(/\x1b/);
  });
});

test.each([
  ['top --interval 0.1', 'Expected seconds, from 0.5 to 3600'],
  ['top --count -1', "'-1' is invalid. Expected a whole number from 0 to 1000000"],
  ['top --sort size', 'Allowed choices are bits, packets, tx, rx, slow'],
  ['top --limit 0', 'Expected a whole number from 1 to 10000'],
  ['trace', 'trace takes at least one of --source, --destination'],
  ['trace --pod a --seconds 301', 'Expected seconds, from 1 to 300'],
  ['trace --source 10.1', 'Expected address or address:port'],
  ['trace --source 10.0.0.1:0', 'Expected address or address:port'],
  ['trace --destination [10.0.0.1]:80', 'Expected address or address:port'],
  ['trace --pod a/b -n c', '--pod and --namespace name two namespaces, a and c'],
  ['trace --ip 10.1', 'field ip is "10.1"; expected an IPv4 or IPv6 address'],
])('2: xmasq %s', async (line, message) => {
  const { code, stdout, stderr } = await xmasq(line);
  expect(stderr).toContain(message);
  expect([code, stdout]).toEqual([2, '']);
});
