import type { Direction } from '../bpf/link.ts';

/** The tc programs of bpf-src/xmasq.bpf.c. */
export const TC_PROGRAM_NAMES = ['pod_egress', 'pod_ingress', 'uplink_ingress', 'uplink_egress'] as const;
export type TcProgramName = (typeof TC_PROGRAM_NAMES)[number];

/** The XDP program there. */
export const XDP_PROGRAM_NAME = 'uplink_xdp';

/** All programs. */
export const PROGRAM_NAMES = [...TC_PROGRAM_NAMES, XDP_PROGRAM_NAME] as const;
export type ProgramName = (typeof PROGRAM_NAMES)[number];

/** How a tc program is attached. Direction as the device sees it: what a pod sends is ingress of its host-side veth. */
export interface Hook {
  readonly direction: Direction;
  /** Must run before all other programs of the hook. */
  readonly first: boolean;
}

/** Where each tc program belongs. */
export const HOOKS: Readonly<Record<TcProgramName, Hook>> = {
  pod_egress: { direction: 'ingress', first: false },
  pod_ingress: { direction: 'egress', first: false },
  uplink_ingress: { direction: 'ingress', first: true },
  uplink_egress: { direction: 'egress', first: true },
};

/** True for the name of one of our tc programs. */
export function isTcProgramName(name: string): name is TcProgramName {
  return (TC_PROGRAM_NAMES as readonly string[]).includes(name);
}

/** A program that is loaded; the descriptor is its owner's. */
export interface Program<Name extends ProgramName = ProgramName> {
  readonly name: Name;
  readonly fd: number;
  /** The kernel's number of it. */
  readonly id: number;
}

/** A tc program. */
export type TcProgram = Program<TcProgramName>;
