/**
 * Which specs of the native lab also run on Open vSwitch, a line each: on which kernels, or why not. (Single specs that a
 * kernel or a provider cannot pass are skipped in their file; e2e/lab/scale.ts says where it runs.)
 */
import { KERNELS } from '../kernels.ts';
import type { KernelLine } from '../kernels.ts';

const BOTH = KERNELS;
/** Not yet seen to pass where approvals admit (6.1); `admission` takes more than a quarter of an hour there. */
const NEWER = ['6.12'] as const;

/** Path below e2e without `.spec.ts` -> kernels, or the reason. */
export const NATIVE_SPECS: Readonly<Record<string, readonly KernelLine[] | string>> = {
  'matrix/matrix': NEWER,
  'specs/admission': NEWER,
  'specs/api-signals': 'what the API tells the sidecar; what carries packets plays no part',
  'specs/auto': NEWER,
  'specs/blackhole': NEWER,
  'specs/close': NEWER,
  'specs/control-messages': NEWER,
  'specs/container': "the chart's container; what carries packets plays no part",
  'specs/direct': 'the native lab alone has noEncap',
  'specs/doctor': 'broken nodes; what carries packets plays no part',
  'specs/documents': 'commands as the documents have them; what carries packets plays no part',
  'specs/encap': 'specs-ovs/encap-* compare with the tunnels of Open vSwitch, with what emulation carries at once',
  'specs/exchange': BOTH,
  'specs/exclusions': 'what the API tells the sidecar; what carries packets plays no part',
  'specs/fast-start': NEWER,
  'specs/fidelity': NEWER,
  'specs/flow-export': 'the sidecar as a server of records; what carries packets plays no part',
  'specs/gso': NEWER,
  'specs/hybrid': 'the native lab alone has hybrid',
  'specs/ipv6': 'underlays of another family and routers with IPv6 are native only',
  'specs/kubernetes': 'what the API tells the sidecar; what carries packets plays no part',
  'specs/lost-state': NEWER,
  'specs/metrics': 'what the sidecar says of itself; what carries packets plays no part',
  'specs/node-traffic': NEWER,
  'specs/ovsdb': 'a database without a switch, played by the spec; specs-ovs has the real one',
  'specs/path-mtu': NEWER,
  'specs/pod-lifecycle': NEWER,
  'specs/ports': NEWER,
  'specs/resilience': NEWER,
  'specs/services': NEWER,
  'specs/short-connections': NEWER,
  'specs/sidecar': NEWER,
  'specs/sidecar-inputs': 'configuration and streams that the sidecar reads; what carries packets plays no part',
  'specs/smoke': BOTH,
  'specs/spoofing': NEWER,
  'specs/support-bundle': 'what the command collects; what carries packets plays no part',
  'specs/top-trace': 'what the command line says; what carries packets plays no part',
  'specs/uninstall': 'the hook of the chart; what carries packets plays no part',
  'specs/upgrade': 'other builds of the sidecar, which the machine does not hold; what carries packets plays no part',
  'specs/uplink-changes': 'transport addresses change in the native lab only; not tried yet',
  'specs/xdp': 'not tried yet: emulated devices restore nothing faster',
  'specs-long/api-outage': 'what the API tells the sidecar; what carries packets plays no part',
  'specs-long/close-far': 'gigabytes take emulation hours: specs/close moves the sequence numbers on instead',
  'specs-long/cluster-size': 'what the API tells the sidecar; what carries packets plays no part',
  'specs-long/flow-export': 'the sidecar as a server of records; what carries packets plays no part',
  'specs-long/idle': 'paced for emulation, but not yet seen to pass there',
  'specs-long/node-connections': 'scaled for emulation, but not yet seen to pass there',
  'specs-long/pod-lifecycle': 'scaled to 20 rounds, but not yet seen to pass',
  'specs-long/ports': 'scaled to 500 connections; not tried yet',
};

/**
 * Patterns for jest's `testMatch`: the specs that run on a kernel; with XMASQ_EVERY_SPEC=1 every one, to try what the list
 * leaves out.
 */
export function nativeSpecsOn(kernel: string): string[] {
  const every = process.env['XMASQ_EVERY_SPEC'] === '1';
  return Object.entries(NATIVE_SPECS).flatMap(([name, kernels]) =>
    every || (typeof kernels !== 'string' && kernels.some((each) => each === kernel))
      ? [`<rootDir>/e2e/${name}.spec.ts`]
      : [],
  );
}
