import { Option } from 'commander';
import { xmasq } from '../../gen/xmasq.js';
import type { TransmitMode } from '../../grpc/backend.ts';
import { TRANSMIT_MODES } from '../../grpc/convert.ts';
import { toReason } from '../../grpc/reasons.ts';
import { integerArgument, reasonArgument, secondsArgument } from '../arguments.ts';
import { withClient, type CommandSpec } from '../context.ts';
import { ExitCode, usageError } from '../exit.ts';
import { declareFilters, filterConditions, type FilterOptions } from '../filters.ts';
import { print, printNext } from '../output.ts';
import { renderTable } from '../table.ts';
import { ENDS, WAY, endsColumns, keysText, wayColumns } from '../flow-text.ts';
import { addressAndPort, compact, duration } from '../text.ts';

const v1 = xmasq.v1;

interface FlowsOptions extends FilterOptions {
  readonly path?: 'fast' | 'slow';
  readonly mode?: TransmitMode;
  readonly reason?: number;
  readonly limit?: number;
  readonly watch?: boolean;
  readonly interval?: number;
}

export const flowsCommand: CommandSpec<FlowsOptions> = {
  name: 'flows',
  declare: (command) =>
    declareFilters(
      command.description(
        "The flows of this node's pods, and why they are not on the fast path. Filters are combined by AND.",
      ),
    )
      .addOption(new Option('--path <path>', 'the path the flow is on').choices(['fast', 'slow']))
      .addOption(new Option('--mode <mode>', 'how its packets go').choices(Object.keys(TRANSMIT_MODES)))
      .option('--reason <name>', 'why it is slow or not masqueraded, e.g. ct-unreplied', reasonArgument)
      .option('--limit <flows>', 'at most so many', integerArgument(1, 4294967295))
      .option('-w, --watch', 'go on until interrupted')
      .option('--interval <seconds>', 'between two rounds of --watch (default: 2)', secondsArgument(0.1, 3600)),
  run: (context, options) => {
    const request = toRequest(options);
    const printRound = request.watch ? printNext : print;
    return withClient(context, async (client) => {
      let flows: xmasq.v1.Flow.$Properties[] = [];
      for await (const part of client.flows(request)) {
        flows = flows.concat(part.flows);
        if (!part.last) continue;
        const { round, last, truncated } = part;
        const message = new v1.FlowsResponse({ round, last, truncated, flows });
        await printRound(context.io, context.output, { type: v1.FlowsResponse, message, table: flowsTable });
        flows = [];
      }
      return ExitCode.OK;
    });
  },
};

/** @throws CliError USAGE */
function toRequest(options: FlowsOptions): xmasq.v1.FlowsRequest {
  const { path, mode, reason, limit, watch = false, interval } = options;
  if (interval !== undefined && !watch) throw usageError('--interval is of use only with --watch');
  return new v1.FlowsRequest({
    ...filterConditions(options),
    ...(path !== undefined && { path: path === 'fast' ? v1.FlowPath.FLOW_PATH_FAST : v1.FlowPath.FLOW_PATH_SLOW }),
    ...(mode !== undefined && { mode: TRANSMIT_MODES[mode] }),
    ...(reason !== undefined && { reason: toReason(reason) }),
    limit: limit ?? 0,
    watch,
    intervalMs: Math.round((interval ?? 0) * 1000),
  });
}

/** Columns for what few flows have. */
const NAMES: readonly { readonly name: string; readonly of: (flow: xmasq.v1.Flow.$Properties) => string }[] = [
  {
    name: 'ENDPOINT',
    of: ({ endpointIp, endpointPort }) => (endpointIp ? addressAndPort(endpointIp, endpointPort ?? 0) : ''),
  },
  { name: 'SERVICE', of: ({ service }) => service ?? '' },
  { name: 'INGRESS POLICY', of: ({ ingressPolicy }) => ingressPolicy ?? '' },
  { name: 'EGRESS POLICY', of: ({ egressPolicy }) => egressPolicy ?? '' },
];

function flowsTable({ flows, truncated }: xmasq.v1.FlowsResponse): string {
  const fastBytes = ({ txBytes, rxBytes }: xmasq.v1.Flow.$Properties): number => (txBytes ?? 0) + (rxBytes ?? 0);
  // Only where there is something to say: the table is wide as it is.
  const named = NAMES.filter(({ of }) => flows.some((flow) => of(flow) !== ''));
  const table = renderTable(
    [
      ...ENDS,
      ...WAY,
      { name: 'KEYS' },
      { name: 'FAST TX', right: true },
      { name: 'FAST RX', right: true },
      { name: 'SLOW PKTS', right: true },
      { name: 'AGE', right: true },
      { name: 'IDLE', right: true },
      ...named.map(({ name }) => ({ name })),
    ],
    flows
      .toSorted((a, b) => fastBytes(b) - fastBytes(a))
      .map((flow) => [...row(flow), ...named.map(({ of }) => of(flow))]),
  );
  return truncated ? `${table}(more flows match; see --limit)\n` : table;
}

function row(flow: xmasq.v1.Flow.$Properties): string[] {
  return [
    ...endsColumns(flow),
    ...wayColumns(flow),
    keysText(flow),
    compact(flow.txBytes ?? 0),
    compact(flow.rxBytes ?? 0),
    compact(flow.slowPackets ?? 0),
    flow.ageMs == null ? '' : duration(flow.ageMs),
    flow.idleMs == null ? '' : duration(flow.idleMs),
  ];
}
