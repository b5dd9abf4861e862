import type { Direction } from '../bpf/link.ts';

/** The programs of bpf-src/xmasq.bpf.c. */
export const PROGRAM_NAMES = ['pod_egress', 'pod_ingress', 'uplink_ingress', 'uplink_egress'] as const;
export type ProgramName = (typeof PROGRAM_NAMES)[number];

/** How a program is attached. Direction as the device sees it: what a pod sends is ingress of its host-side veth. */
export interface Hook {
  readonly direction: Direction;
  /** Must run before all other programs of the hook. */
  readonly first: boolean;
}

/** Where each program belongs. */
export const HOOKS: Readonly<Record<ProgramName, Hook>> = {
  pod_egress: { direction: 'ingress', first: false },
  pod_ingress: { direction: 'egress', first: false },
  uplink_ingress: { direction: 'ingress', first: true },
  uplink_egress: { direction: 'egress', first: true },
};

/** True for one of our programs' names. */
export function isProgramName(name: string): name is ProgramName {
  return (PROGRAM_NAMES as readonly string[]).includes(name);
}

/** A program that is loaded; the descriptor is its owner's. */
export interface Program {
  readonly name: ProgramName;
  readonly fd: number;
  /** The kernel's number of it. */
  readonly id: number;
}
