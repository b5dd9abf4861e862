/** Waiting for a flow of a node to become what it is to be, however the sidecar is asked. */
import type { FlowFilter, SidecarFlow } from './admin.ts';
import { LabError, eventually } from './lab.ts';

/** Which flow is waited for, and how long. */
export interface AwaitedFlow {
  /** Of a flow that will do; for the error. */
  readonly what: string;
  readonly filter: FlowFilter;
  /** Will this one do? */
  readonly is: (flow: SidecarFlow) => boolean;
  readonly timeoutMs: number;
  /** Between two questions. */
  readonly intervalMs: number;
}

/** Waits until a node has such a flow. The error says what the flows that match the filter are like instead. */
export async function waitForFlow(
  sidecar: { readonly node: { readonly name: string }; flows(filter: FlowFilter): Promise<SidecarFlow[]> },
  { what, filter, is, timeoutMs, intervalMs }: AwaitedFlow,
): Promise<SidecarFlow> {
  let seen: SidecarFlow[] = [];
  try {
    return await eventually(
      what,
      async () => {
        seen = await sidecar.flows(filter);
        return seen.find(is);
      },
      timeoutMs,
      intervalMs,
    );
  } catch (cause) {
    const which = JSON.stringify(filter);
    const found = seen.length === 0 ? 'no such flow' : seen.slice(0, 5).map(describeFlow).join('; ');
    throw new LabError(`${sidecar.node.name}: no ${what} ${which} within ${timeoutMs} ms: ${found}`, { cause });
  }
}

/** One line about a flow, for error messages. */
export function describeFlow(flow: SidecarFlow): string {
  const keys = Object.entries(flow.keys)
    .filter(([, set]) => set)
    .map(([name]) => name);
  return (
    `${flow.sourceIp}:${flow.sourcePort} > ${flow.destinationIp}:${flow.destinationPort} proto ${flow.protocol} ` +
    `${flow.path} ${flow.mode} (${flow.reason}) ${flow.admitted ? 'admitted' : 'refused'} keys [${keys.join(' ')}] ` +
    `fast ${flow.txPackets}/${flow.rxPackets} slow ${flow.slowPackets}`
  );
}
