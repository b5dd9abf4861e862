/** What a cell's result means: its row in build/matrix.json, and what is wrong with it. */
import { isSameNode, xdpRestores } from './cells.ts';
import type { Cell, Mode } from './cells.ts';
import type { CellResult } from './run.ts';

/** An element of build/matrix.json. */
export interface Row extends Cell {
  readonly provider: 'native' | 'ovs';
  readonly path: 'fast' | 'slow';
  /** Of what is slow. */
  readonly reason: string;
  readonly identical: boolean;
}

const CARRIED: Readonly<Record<Mode, 'masqueraded' | 'tunnel' | 'plain'>> = {
  masquerade: 'masqueraded',
  encap: 'tunnel',
  direct: 'plain',
};

/** The row of a result, and what is wrong with it. */
export function measure(
  result: CellResult,
  reference: CellResult | undefined,
  provider: Row['provider'],
): { readonly row: Row; readonly problems: readonly string[] } {
  const { cell, forward, backward, flow, fast } = result;
  const problems: string[] = [];
  if (reference === undefined) problems.push('no reference');
  if (reference?.problem !== '') problems.push(`by the slow path: ${reference?.problem ?? ''}`);
  if (result.problem !== '') problems.push(result.problem);
  for (const [way, slow] of [
    [forward, reference?.forward],
    [backward, reference?.backward],
  ] as const) {
    if (way.packets < 10) problems.push(`${way.packets} packets`);
    if (way.foreign + way.lost > 0) problems.push(`${way.foreign} of nobody, ${way.lost} lost`);
    if (way.marked > 0 && !isSameNode(cell.target)) problems.push(`${way.marked} marked`);
    if (way.headers.join() !== slow?.headers.join()) {
      problems.push(`headers ${way.headers.join('; ')} and not ${slow?.headers.join('; ') ?? ''}`);
    }
  }
  const identical = problems.length === 0;
  const path = fast === true ? 'fast' : 'slow';
  if (path === 'fast') problems.push(...carriedOtherwise(result));
  const reason = path === 'fast' ? 'none' : (flow?.reason ?? 'no such flow');
  return { row: { ...cell, provider, path, reason, identical }, problems };
}

/** What is wrong with the way in which a fast connection crossed. */
function carriedOtherwise({ cell, flow, wire, unchanged }: CellResult): string[] {
  const local = isSameNode(cell.target);
  const problems: string[] = [];
  const mode = local ? 'local' : cell.mode;
  if (flow?.mode !== mode) problems.push(`mode ${flow?.mode ?? 'unknown'}`);
  const how = CARRIED[cell.mode];
  for (const [i, way] of ['forward', 'backward'].entries()) {
    const count = wire[how][i] ?? 0;
    // XDP comes before the capture, and leaves a packet in 150 ms to tc, for an acknowledgement.
    if (cell.xdp && !local && way === 'backward' && xdpRestores(cell.protocol)) {
      if (unchanged < Math.max(20, 2 * count)) problems.push(`${way}: XDP restored ${unchanged} and left ${count}`);
      continue;
    }
    const others = (['masqueraded', 'tunnel', 'plain'] as const).filter((each) => each !== how);
    if (local ? count > 0 : count < 20) problems.push(`${way}: ${count} ${how}`);
    // What is slow before: in the tunnel, as it is with encap; routed, as it is with direct.
    const strange = others.filter(
      (each) => (wire[each][i] ?? 0) > 0 && !(cell.mode === 'masquerade' && each === 'tunnel'),
    );
    if (strange.length > 0) problems.push(`${way}: some ${strange.join(' and ')}`);
  }
  return problems;
}
