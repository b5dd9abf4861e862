import { xmasq } from '../../gen/xmasq.js';
import { withClient, type CommandSpec } from '../context.ts';
import { ExitCode } from '../exit.ts';
import { print } from '../output.ts';
import { renderTable } from '../table.ts';
import { exclusionText } from '../words.ts';

const v1 = xmasq.v1;

export const endpointsCommand: CommandSpec<object> = {
  name: 'endpoints',
  declare: (command) => command.description('The pods of this node.'),
  run: (context) =>
    withClient(context, async (client) => {
      const message = await client.call('endpoints', new v1.EndpointsRequest());
      await print(context.io, context.output, { type: v1.EndpointsResponse, message, table: endpointsTable });
      return ExitCode.OK;
    }),
};

function endpointsTable({ endpoints }: xmasq.v1.EndpointsResponse): string {
  return renderTable(
    [
      { name: 'POD' },
      { name: 'INTERFACE' },
      { name: 'IPS' },
      { name: 'MAC' },
      { name: 'STATE' },
      { name: 'FLOWS', right: true },
      { name: 'BECAUSE' },
    ],
    endpoints.map((endpoint) => [
      `${endpoint.namespace ?? ''}/${endpoint.pod ?? ''}`,
      `${endpoint.ifName ?? ''} (${endpoint.ifindex ?? 0})`,
      (endpoint.ips ?? []).join(','),
      endpoint.mac ?? '',
      stateOf(endpoint),
      String(endpoint.flows ?? 0),
      because(endpoint),
    ]),
  );
}

function stateOf({ attached, exclusion }: xmasq.v1.Endpoint.$Properties): string {
  if (attached !== true) return 'not attached';
  return exclusion ? 'excluded' : 'attached';
}

function because({ problem, exclusion }: xmasq.v1.Endpoint.$Properties): string {
  if (problem !== undefined && problem !== null && problem !== '') return problem;
  return exclusion ? exclusionText(exclusion) : '';
}
