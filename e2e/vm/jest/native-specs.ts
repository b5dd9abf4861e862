/**
 * Which specs of the native lab also run on Open vSwitch, a line each: on which kernels, or why not. (Single specs that a
 * kernel or a provider cannot pass are skipped in their file; e2e/lab/scale.ts says where it runs.)
 */
import { KERNELS } from '../kernels.ts';
import type { KernelLine } from '../kernels.ts';

const BOTH = KERNELS;
/** What needs admission by conntrack. */
const NEWER = ['6.12'] as const;

/** Path below e2e without `.spec.ts` -> kernels, or the reason. */
export const NATIVE_SPECS: Readonly<Record<string, readonly KernelLine[] | string>> = {
  'specs/admission': 'not tried yet',
  'specs/blackhole': 'not tried yet',
  'specs/close': 'not tried yet',
  'specs/control-messages': 'not tried yet',
  'specs/exchange': 'not tried yet',
  'specs/exclusions': 'not tried yet',
  'specs/fast-start': NEWER,
  'specs/fidelity': 'not tried yet',
  'specs/flow-export': 'not tried yet',
  'specs/gso': 'not tried yet',
  'specs/kubernetes': 'not tried yet',
  'specs/metrics': 'not tried yet',
  'specs/node-traffic': 'not tried yet',
  'specs/ovsdb': 'not tried yet',
  'specs/pod-lifecycle': 'not tried yet',
  'specs/ports': 'not tried yet',
  'specs/resilience': 'not tried yet',
  'specs/sidecar': 'not tried yet',
  'specs/sidecar-inputs': 'not tried yet',
  'specs/smoke': BOTH,
  'specs/spoofing': 'not tried yet',
  'specs-long/close-far': 'not tried yet',
  'specs-long/cluster-size': 'not tried yet',
  'specs-long/flow-export': 'not tried yet',
  'specs-long/idle': 'not tried yet',
  'specs-long/node-connections': 'not tried yet',
  'specs-long/pod-lifecycle': 'not tried yet',
  'specs-long/ports': 'not tried yet',
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
