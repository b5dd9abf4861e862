/** What a micro-VM needs for the lab on Open vSwitch. */
import { isKernelLine, KERNELS, type KernelLine } from './kernels.ts';

/**
 * Besides LAB_MODULES: the datapath with Geneve, and what the underlay delays packets by. Not SCTP: the kernel loads it for
 * whoever opens such a socket, and aborts the associations of stacks in user space from then on.
 */
export const OVS_MODULES: readonly string[] = ['openvswitch', 'vport-geneve', 'tun'];

/**
 * The kernel that the environment names (`KERNEL`), by default the newest.
 * @throws Error when it names an unknown one
 */
export function chosenKernel(): KernelLine {
  const named = process.env['KERNEL'] ?? '';
  if (named === '') return KERNELS[0];
  if (!isKernelLine(named)) throw new Error(`KERNEL=${named}: the kernels are ${KERNELS.join(', ')}`);
  return named;
}
