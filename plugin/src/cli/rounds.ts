/** One pass over the flow table, for commands that ask again and again. */
import { xmasq } from '../gen/xmasq.js';
import type { AdminClient } from './client.ts';

/**
 * All flows that meet the conditions.
 * @returns undefined: the command was interrupted
 * @throws CliError
 */
export async function allFlows(
  client: AdminClient,
  conditions: xmasq.v1.FlowsRequest.$Properties = {},
): Promise<xmasq.v1.Flow.$Properties[] | undefined> {
  const parts: xmasq.v1.Flow.$Properties[][] = [];
  for await (const { flows, last } of client.flows(new xmasq.v1.FlowsRequest(conditions))) {
    parts.push(flows);
    if (last) return parts.flat();
  }
  return undefined;
}
