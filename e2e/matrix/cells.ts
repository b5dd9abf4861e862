/**
 * What there is to carry, and which path it takes: the table of docs/compatibility.md is made of this, the matrix test
 * compares it with real packets. Cells that cannot exist are not here: ICMP has no ports for a Service to translate.
 */
import type { Family } from '../lab/lab.ts';

export const PROTOCOLS = ['tcp', 'udp', 'icmp', 'sctp'] as const;
export type Protocol = (typeof PROTOCOLS)[number];

export const TARGETS = [
  'pod on another node',
  'pod on the same node',
  'ClusterIP, endpoint on another node',
  'ClusterIP, endpoint on the same node',
] as const;
export type Target = (typeof TARGETS)[number];

export const FAMILIES: readonly Family[] = ['ipv4', 'ipv6'];

/** How packets go between nodes, where they are fast. */
export const MODES = ['masquerade', 'encap', 'direct'] as const;
export type Mode = (typeof MODES)[number];

export const OFFLOADS = ['on', 'off'] as const;
export type Offloads = (typeof OFFLOADS)[number];

/** A mode, and where masqueraded packets are restored: in XDP (uplink.xdp: native), or as usual in tc. */
export interface Way {
  readonly mode: Mode;
  readonly xdp: boolean;
}

/** In the order of the table's columns. Nothing but masqueraded packets has anything to be restored. */
export const WAYS: readonly Way[] = MODES.flatMap((mode) =>
  (mode === 'masquerade' ? [false, true] : [false]).map((xdp) => ({ mode, xdp })),
);

/** What runs together in one lab. */
export interface Setup extends Way {
  readonly family: Family;
  readonly offloads: Offloads;
}

/** One kind of connection in a set-up. */
export interface Cell extends Setup {
  readonly protocol: Protocol;
  readonly target: Target;
}

/** The path of a cell; `reason` is a name of enum xmasq_reason, `none` if it is fast. */
export interface Path {
  readonly path: 'fast' | 'slow';
  readonly reason: string;
}

const FAST: Path = { path: 'fast', reason: 'none' };
/** Only an approval could admit it, and approvals carry no translation: its destination is no pod that anybody knows. */
const UNTRANSLATED: Path = { path: 'slow', reason: 'not_pod' };

/** Does uplink_xdp know packets of this protocol? It leaves the others to tc. */
export function xdpRestores(protocol: Protocol): boolean {
  return protocol !== 'sctp';
}

/** Is the other pod on the client's node? */
export function isSameNode(target: Target): boolean {
  return target.endsWith('the same node');
}

/** Is it reached by a Service's address? */
export function isService(target: Target): boolean {
  return target.startsWith('ClusterIP');
}

/**
 * Which path a connection of this kind takes, once it is established: the same in every mode, family and offload setting.
 * @param admission where conntrack is asked; by approvals (kernels before 6.11) alone no Service is fast
 */
export function expectedPath(
  { protocol, target }: Pick<Cell, 'protocol' | 'target'>,
  admission: 'conntrack' | 'approvals' = 'conntrack',
): Path {
  return isService(target) && (protocol === 'sctp' || admission === 'approvals') ? UNTRANSLATED : FAST;
}

/** Every set-up there is. */
export function setups(): Setup[] {
  return WAYS.flatMap((way) =>
    FAMILIES.flatMap((family) => OFFLOADS.map((offloads) => ({ family, ...way, offloads }))),
  );
}

/** The cells of a set-up. */
export function cellsOf(setup: Setup): Cell[] {
  return PROTOCOLS.flatMap((protocol) =>
    TARGETS.filter((target) => protocol !== 'icmp' || !isService(target)).map((target) => ({
      ...setup,
      protocol,
      target,
    })),
  );
}

/** Those of a quick run: each mode, family and offload setting at least twice, but not all with each other; XDP once. */
export function someSetups(): Setup[] {
  return setups().filter(({ family, mode, xdp, offloads }) => {
    if (xdp) return family === 'ipv6' && offloads === 'on';
    const odd = (FAMILIES.indexOf(family) + MODES.indexOf(mode) + OFFLOADS.indexOf(offloads)) % 2;
    return odd === 1;
  });
}

/** Those that emulation has time for: one of each mode, both families and offload settings among them. */
export function fewSetups(): Setup[] {
  return MODES.map((mode, i) => ({
    ...{ mode, xdp: false },
    family: FAMILIES[i % FAMILIES.length] ?? 'ipv4',
    offloads: OFFLOADS[i % OFFLOADS.length] ?? 'on',
  }));
}
