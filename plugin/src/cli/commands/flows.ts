import { Option } from 'commander';
import { xmasq } from '../../gen/xmasq.js';
import type { TransmitMode } from '../../grpc/backend.ts';
import { TRANSMIT_MODES } from '../../grpc/convert.ts';
import { reasonName, toReason } from '../../grpc/reasons.ts';
import {
  integerArgument,
  podArgument,
  protocolArgument,
  reasonArgument,
  secondsArgument,
  type PodArgument,
} from '../arguments.ts';
import { withClient, type CommandSpec } from '../context.ts';
import { ExitCode, usageError } from '../exit.ts';
import { print, printNext } from '../output.ts';
import { renderTable } from '../table.ts';
import { addressAndPort, compact, duration, protocolName } from '../text.ts';
import { enumWord, podText } from '../words.ts';

const v1 = xmasq.v1;

interface FlowsOptions {
  readonly pod?: PodArgument;
  readonly namespace?: string;
  readonly ip?: string;
  readonly peer?: string;
  readonly protocol?: number;
  readonly port?: number;
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
    command
      .description("The flows of this node's pods, and why they are not on the fast path. Filters are combined by AND.")
      .option('--pod <[namespace/]name>', 'a pod on either end', podArgument)
      .option('-n, --namespace <name>', 'namespace of a pod on either end')
      .option('--ip <address>', 'address of either end')
      .option('--peer <node>', 'name of the other node')
      .option('--protocol <name|number>', 'tcp, udp, icmp, icmpv6, sctp, ...', protocolArgument)
      .option('--port <number>', 'port of either end', integerArgument(1, 65535))
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
  const { pod, namespace, ip, peer, protocol, port, path, mode, reason, limit, watch = false, interval } = options;
  if (interval !== undefined && !watch) throw usageError('--interval is of use only with --watch');
  if (pod?.namespace !== undefined && namespace !== undefined && pod.namespace !== namespace) {
    throw usageError(`--pod and --namespace name two namespaces, ${pod.namespace} and ${namespace}`);
  }
  const inNamespace = pod?.namespace ?? namespace;
  return new v1.FlowsRequest({
    ...(pod !== undefined && { pod: pod.name }),
    ...(inNamespace !== undefined && { namespace: inNamespace }),
    ...(ip !== undefined && { ip }),
    ...(peer !== undefined && { peer }),
    ...(protocol !== undefined && { protocol }),
    ...(port !== undefined && { port }),
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
      { name: 'POD' },
      { name: 'SOURCE' },
      { name: 'DESTINATION' },
      { name: 'PROTO' },
      { name: 'PEER' },
      { name: 'PATH' },
      { name: 'MODE' },
      { name: 'BECAUSE' },
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
  const { icmpId } = flow;
  const fast = flow.path === v1.FlowPath.FLOW_PATH_FAST;
  const source = addressAndPort(flow.sourceIp ?? '', flow.sourcePort ?? 0);
  return [
    podText(flow.sourcePod),
    icmpId == null ? source : `${source} id ${icmpId}`,
    addressAndPort(flow.destinationIp ?? '', flow.destinationPort ?? 0),
    protocolName(flow.protocol ?? 0),
    flow.sameNode === true ? '(same node)' : (flow.peer ?? ''),
    fast ? 'fast' : 'slow',
    fast ? enumWord(v1.TransmitMode, 'TRANSMIT_MODE_', flow.mode ?? 0) : '',
    (flow.reason ?? 0) === 0 ? '' : reasonName(flow.reason ?? 0),
    keysText(flow),
    compact(flow.txBytes ?? 0),
    compact(flow.rxBytes ?? 0),
    compact(flow.slowPackets ?? 0),
    flow.ageMs == null ? '' : duration(flow.ageMs),
    flow.idleMs == null ? '' : duration(flow.idleMs),
  ];
}

/** Which keys are known to whom: ours to the peer, the peer's to us. */
function keysText({ keys, sameNode }: xmasq.v1.Flow.$Properties): string {
  if (sameNode === true || !keys) return '';
  if (keys.received === true) return keys.peerComplete === true ? 'both' : 'peer';
  if (keys.peerComplete === true) return 'own';
  return keys.announced === true ? 'sent' : '';
}
