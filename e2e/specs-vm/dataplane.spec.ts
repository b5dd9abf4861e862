/**
 * The smoke spec of each kernel: the unmodified sidecar loads every program, finds out what the kernel can do, and carries one
 * flow of each protocol on the fast path - the kernel's own SCTP included, which the host kernel may lack.
 */
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import type { SidecarFlow, SidecarStatus } from '../lab/admin.ts';
import { VmExecError } from '../vm/agent-client.ts';
import { bundleForGuest } from '../vm/bundle.ts';
import { KERNELS } from '../vm/kernels.ts';
import { LAB_MODULES, MicroVm } from '../vm/vm.ts';

interface Report {
  readonly nodes: readonly { readonly status: SidecarStatus; readonly flows: readonly SidecarFlow[] }[];
  readonly traffic: readonly string[];
}

/** What docs/compatibility of the two kernels comes down to: 6.12 has TCX and the zone option, 6.1 neither. */
const EXPECTED = {
  '6.12': { admissionMode: 'conntrack', attachMode: 'tcx' },
  '6.1': { admissionMode: 'approvals', attachMode: 'clsact' },
} as const;

const DRIVER = path.join(import.meta.dirname, 'guest/dataplane.ts');
const ENVIRONMENT = ['XMASQ_TIME_FACTOR=10', 'NODE_COMPILE_CACHE=/tmp/node-cache'];
const DRIVER_MS = 360_000;
const SIGSEGV = 11;

const TCP = 6;
const UDP = 17;
const ICMP = 1;
const SCTP = 132;

describe.each(KERNELS)('kernel %s', (kernel) => {
  let vm: MicroVm;
  let report: Report;

  beforeAll(async () => {
    // Besides being faster, a bundle spares Node its WebAssembly compiler, which takes the types out of sources.
    const driver = ['env', ...ENVIRONMENT, 'node', await bundleForGuest(DRIVER, `import ${JSON.stringify(DRIVER)};`)];
    vm = await MicroVm.boot({ kernel, modules: [...LAB_MODULES, 'sctp'] });
    let stdout: string;
    try {
      stdout = await vm.check(driver, { timeoutMs: DRIVER_MS });
    } catch (error) {
      // Seen twice, of sources: Node itself, in the script that only drives the lab, faulted in emulation. Anew in another machine.
      if (!(error instanceof VmExecError && error.signal === SIGSEGV && vm.accelerator === 'tcg')) throw error;
      console.warn(error.message, '\nonce more');
      await vm.stop();
      vm = await MicroVm.boot({ kernel, modules: [...LAB_MODULES, 'sctp'] });
      stdout = await vm.check(driver, { timeoutMs: DRIVER_MS });
    }
    report = JSON.parse(stdout.trim().split('\n').at(-1) ?? '') as Report;
  }, 900_000);

  afterAll(async () => {
    await vm.stop();
  }, 60_000);

  test('every program is loaded and attached; the probes found what the kernel can do', () => {
    expect(report.nodes).toHaveLength(2);
    for (const { status } of report.nodes) {
      expect(status.state).toBe('ready');
      expect(status.degradations).toEqual([]);
      expect(status).toMatchObject(EXPECTED[kernel]);
      for (const counter of ['fast_tx', 'restored', 'slow_rx', 'own_seen'] as const) {
        expect(status.counters[counter]).toBeGreaterThan(0);
      }
      expect(status.counters.own_lost).toBe(0);
    }
  });

  test.each([
    ['TCP', TCP, kernel === '6.1'],
    ['UDP', UDP, kernel === '6.1'],
    ['ICMP echo', ICMP, true],
    ['SCTP of the kernel', SCTP, true],
  ])('%s is fast on both nodes', (_name, protocol, approved) => {
    const sent = report.nodes.map(({ flows }) => {
      const flow = flows.find((candidate) => candidate.protocol === protocol && candidate.path === 'fast');
      expect(flow).toMatchObject({ path: 'fast', admitted: true, approved });
      return flow?.txPackets ?? 0;
    });
    expect(Math.min(...sent)).toBeGreaterThan(0);
  });

  test('no transaction, datagram or ping was lost', () => {
    const [tcp, udp, ping, sctp] = report.traffic;
    for (const line of [tcp, udp]) {
      expect(JSON.parse(line?.trim().split('\n').at(-1) ?? '')).toMatchObject({ timeouts: 0, errors: 0, corrupt: 0 });
    }
    expect(ping).toContain(' 0% packet loss');
    expect(sctp).toContain('iperf Done.');
  });
});
