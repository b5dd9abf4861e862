/** Sidecars that carry pod packets between nodes in one given way, and what they say of the way it took. */
import { LabError, eventually } from '../../lab/lab.ts';
import type { Lab } from '../../lab/lab.ts';
import { describeFlow, startSidecars } from '../../lab/sidecar.ts';
import type { LabSidecars, Sidecar, SidecarFlow, SidecarOptions } from '../../lab/sidecar.ts';

/** How packets may go between nodes. `auto`: masqueraded where probes say so, otherwise in the tunnel's header. */
export type Mode = 'auto' | 'masquerade' | 'encap' | 'direct';

/** How a flow's packets go. */
export type Carried = SidecarFlow['mode'];

/** Starts a sidecar on every node, ready, in this mode. Direct is what a lab without a tunnel has. */
export function startInMode(lab: Lab, mode: Mode, options: SidecarOptions = {}): Promise<LabSidecars> {
  const routed = lab.nodes.some(({ encapMode }) => encapMode === 'noEncap');
  if (routed !== (mode === 'direct')) throw new LabError(`mode ${mode} in a lab with${routed ? 'out' : ''} a tunnel`);
  return startSidecars(lab, mode === 'direct' ? options : { ...options, transmitMode: mode });
}

/** What to look for in the table of flows. */
export interface FlowEnds {
  /** IP protocol number. */
  readonly proto: number;
  /** A port of either end; of ICMP echo the identifier. */
  readonly port: number;
}

/** The node's admitted flows with this port, as its pods send them. */
export async function flowsOf(sidecar: Sidecar, { proto, port }: FlowEnds): Promise<SidecarFlow[]> {
  const flows = await sidecar.flows({ proto });
  return flows.filter(
    ({ admitted, sourcePort, destinationPort, icmpId }) =>
      admitted && (sourcePort === port || destinationPort === port || icmpId === port),
  );
}

/** How these flows of the node go. */
export async function carriedBy(sidecar: Sidecar, ends: FlowEnds): Promise<Carried[]> {
  return (await flowsOf(sidecar, ends)).map(({ mode }) => mode);
}

/** Waits until every node sends the flow in this way. */
export async function waitCarried(
  sidecars: Pick<LabSidecars, 'nodes'>,
  ends: FlowEnds,
  how: Carried,
  timeoutMs = 6000,
): Promise<void> {
  for (const sidecar of sidecars.nodes) {
    await eventually(
      `${how} on ${sidecar.node.name}`,
      async () => {
        const carried = await carriedBy(sidecar, ends);
        return carried.length > 0 && carried.every((mode) => mode === how);
      },
      timeoutMs,
      50,
    ).catch(async (error: unknown) => {
      throw new LabError([String(error), ...(await describeAll(sidecars, ends))].join('; '));
    });
  }
}

/** The flow as each node has it, for an error: one waits for the other. */
async function describeAll(sidecars: Pick<LabSidecars, 'nodes'>, { proto, port }: FlowEnds): Promise<string[]> {
  const lists = await Promise.all(
    sidecars.nodes.map(async (sidecar) => {
      const flows = await sidecar.flows({ proto });
      return flows
        .filter((flow) => [flow.sourcePort, flow.destinationPort, flow.icmpId].includes(port))
        .map((flow) => `${sidecar.node.name}: ${describeFlow(flow)}`);
    }),
  );
  return lists.flat();
}
