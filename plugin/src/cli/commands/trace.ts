import { setTimeout as sleep } from 'node:timers/promises';
import { xmasq } from '../../gen/xmasq.js';
import { toJson } from '../../grpc/json.ts';
import { endArgument, secondsArgument, type EndArgument } from '../arguments.ts';
import type { AdminClient } from '../client.ts';
import { untilStopped, withClient, type CommandSpec, type Context } from '../context.ts';
import { ExitCode, usageError } from '../exit.ts';
import { declareFilters, filterConditions, type FilterOptions } from '../filters.ts';
import { isFast } from '../flow-text.ts';
import { printNextPlain } from '../output.ts';
import { growth } from '../rates.ts';
import { allFlows } from '../rounds.ts';
import { printable } from '../text.ts';
import { headline, packetReasonsText, TraceStory, type Change } from '../trace-story.ts';
import { exclusionText, podText } from '../words.ts';

const v1 = xmasq.v1;

const DEFAULT_SECONDS = 10;
const MAX_SECONDS = 300;
/** Between two passes over the flow table while no flow matches. */
const SEARCH_MS = 1000;

interface TraceOptions extends FilterOptions {
  readonly source?: EndArgument;
  readonly destination?: EndArgument;
  readonly seconds?: number;
}

type Flow = xmasq.v1.Flow.$Properties;

/** TCP, UDP, SCTP. */
const WITH_PORTS: ReadonlySet<number> = new Set([6, 17, 132]);
/** ICMP, ICMPv6. */
const WITH_IDENTIFIER: ReadonlySet<number> = new Set([1, 58]);

export const traceCommand: CommandSpec<TraceOptions> = {
  name: 'trace',
  declare: (command) =>
    declareFilters(
      command.description(
        'Why is this flow slow? Follows one flow of a pod of this node and prints what changes, and at the end why. Filters are combined by AND.',
      ),
    )
      .option('--source <address[:port]>', 'the local end, as `xmasq flows` prints it', endArgument)
      .option('--destination <address[:port]>', 'the other end, likewise', endArgument)
      .option(
        '--seconds <seconds>',
        `how long, once there is such a flow; it is waited for as long (default: ${DEFAULT_SECONDS})`,
        secondsArgument(1, MAX_SECONDS),
      ),
  run: (context, options) => {
    const { seconds = DEFAULT_SECONDS } = options;
    const conditions = conditionsOf(options);
    return untilStopped(context.io, () =>
      withClient(context, async (client) => {
        const end = performance.now() + seconds * 1000;
        const before = await reasonSums(client);
        const matching = await search(client, context, options, conditions, end);
        if (matching === undefined) return ExitCode.OK;
        const [flow = exactly(options), ...others] = matching;
        if (flow === undefined) return notFound(client, context, options, seconds, before);
        return follow(client, context, { flow, others: others.length, durationMs: Math.round(seconds * 1000), before });
      }),
    );
  },
};

/** What the sidecar is asked for. @throws CliError USAGE */
function conditionsOf(options: TraceOptions): xmasq.v1.FlowsRequest.$Properties {
  const { source, destination } = options;
  const conditions = filterConditions(options);
  if (Object.keys(conditions).length === 0 && source === undefined && destination === undefined) {
    throw usageError(
      'trace takes at least one of --source, --destination, --pod, --namespace, --ip, --peer, --protocol, --port',
    );
  }
  const ip = source?.ip ?? destination?.ip;
  const port = source?.port ?? destination?.port;
  // Only part of what is wanted, if more is said; `isMeant` looks at the rest.
  return { ...(ip !== undefined && { ip }), ...(port !== undefined && { port }), ...conditions };
}

/** Whether the flow has the ends that are asked for. */
function isMeant(flow: Flow, { source, destination }: TraceOptions): boolean {
  const isEnd = (end: EndArgument | undefined, ip?: string | null, port?: number | null): boolean =>
    end === undefined || (end.ip === ip && (end.port === undefined || end.port === port));
  return (
    isEnd(source, flow.sourceIp, flow.sourcePort) &&
    (isEnd(destination, flow.destinationIp, flow.destinationPort) ||
      isEnd(destination, flow.endpointIp, flow.endpointPort))
  );
}

/** The flow that the options name in full, whether it is there or not; undefined: they do not. */
function exactly({ source, destination, protocol }: TraceOptions): Flow | undefined {
  if (source === undefined || destination === undefined || protocol === undefined) return undefined;
  const ports = { sourcePort: source.port ?? 0, destinationPort: destination.port ?? 0 };
  if (WITH_PORTS.has(protocol) && (ports.sourcePort === 0 || ports.destinationPort === 0)) return undefined;
  // Echo messages have an identifier besides, which no option names.
  if (WITH_IDENTIFIER.has(protocol)) return undefined;
  return { sourceIp: source.ip, destinationIp: destination.ip, protocol, ...ports };
}

/**
 * The flows that are meant, the one to follow first: what the named pod or address sends itself, then what is slow, then what
 * was used last.
 */
function ranked(flows: readonly Flow[], { pod, namespace, ip }: TraceOptions): Flow[] {
  const sends = ({ sourceIp, sourcePod }: Flow): boolean =>
    (ip === undefined || ip === sourceIp) &&
    (pod === undefined || pod.name === sourcePod?.name) &&
    (namespace === undefined || namespace === sourcePod?.namespace);
  return flows.toSorted(
    (a, b) =>
      Number(sends(b)) - Number(sends(a)) ||
      Number(isFast(a)) - Number(isFast(b)) ||
      (a.idleMs ?? 0) - (b.idleMs ?? 0) ||
      (b.slowPackets ?? 0) - (a.slowPackets ?? 0),
  );
}

/** Looks for the flow until the time is over, or once if it is named in full. @returns undefined: interrupted; empty: there is none */
async function search(
  client: AdminClient,
  { io }: Context,
  options: TraceOptions,
  conditions: xmasq.v1.FlowsRequest.$Properties,
  end: number,
): Promise<Flow[] | undefined> {
  for (;;) {
    const flows = await allFlows(client, conditions);
    if (flows === undefined) return undefined;
    const meant = ranked(
      flows.filter((flow) => isMeant(flow, options)),
      options,
    );
    const left = end - performance.now();
    if (meant.length > 0 || left <= 0 || exactly(options) !== undefined) return meant;
    await sleep(Math.min(SEARCH_MS, left), undefined, { signal: io.stopped });
  }
}

interface Subject {
  readonly flow: Flow;
  /** How many other flows would have been meant as well. */
  readonly others: number;
  readonly durationMs: number;
  /** Packets by reason when the trace began. */
  readonly before: ReadonlyMap<number, number>;
}

async function follow(
  client: AdminClient,
  context: Context,
  { flow, others, durationMs, before }: Subject,
): Promise<ExitCode> {
  const { io, output } = context;
  const { icmpId } = flow;
  const request = new v1.TraceRequest({
    sourceIp: flow.sourceIp ?? '',
    destinationIp: flow.destinationIp ?? '',
    sourcePort: flow.sourcePort ?? 0,
    destinationPort: flow.destinationPort ?? 0,
    protocol: flow.protocol ?? 0,
    ...(icmpId != null && { icmpId, icmpType: flow.icmpType ?? 0 }),
    durationMs,
  });
  const story = new TraceStory();
  let began = 0;
  const head: Change = { timeMs: 0, what: 'flow', text: headline(flow, others) };
  for await (const look of client.trace(request)) {
    const first = began === 0;
    if (first) began = Date.now() - look.timeMs;
    const changes = [...(first ? [head] : []), ...story.look(look)];
    if (changes.length === 0) continue;
    await printNextPlain(
      io,
      output,
      () => ({
        time: new Date(began + look.timeMs).toISOString(),
        changes: changes.map(({ what, text }) => ({ what, text })),
        ...toJson(v1.TraceResponse, look),
      }),
      () => changes.map((change) => changeText(began, change)).join(''),
    );
  }
  const explanation = story.explain(io.stopped.aborted ? new Map() : reasonGrowth(before, await reasonSums(client)));
  await printNextPlain(
    io,
    output,
    () => ({ time: new Date().toISOString(), explanation }),
    () => `\n${lines(explanation.text)}`,
  );
  return ExitCode.OK;
}

/** Says what can be said without a flow. */
async function notFound(
  client: AdminClient,
  { io, output }: Context,
  options: TraceOptions,
  seconds: number,
  before: ReadonlyMap<number, number>,
): Promise<ExitCode> {
  const { endpoints } = await client.call('endpoints', new v1.EndpointsRequest());
  const { pod, namespace, ip, source } = options;
  const address = source?.ip ?? ip;
  const meant = endpoints.filter(
    (endpoint) =>
      (pod !== undefined || namespace !== undefined || address !== undefined) &&
      (pod === undefined || pod.name === endpoint.pod) &&
      ((pod?.namespace ?? namespace) === undefined || (pod?.namespace ?? namespace) === endpoint.namespace) &&
      (address === undefined || (endpoint.ips ?? []).includes(address)),
  );
  const text = [
    `No such flow within ${seconds} s among those that this node has admitted, or refused of late.`,
    ...meant.flatMap(endpointText),
    ...(meant.length === 0
      ? [
          'No pod of this node that is named so: flows are known to the node of the pod that sends. See xmasq endpoints.',
        ]
      : []),
    ...packetReasonsText(reasonGrowth(before, await reasonSums(client))),
  ];
  await printNextPlain(
    io,
    output,
    () => ({ time: new Date().toISOString(), explanation: { path: 'unknown', text } }),
    () => lines(text),
  );
  return ExitCode.ERROR;
}

function endpointText({ namespace, pod, attached, problem, exclusion }: xmasq.v1.Endpoint.$Properties): string[] {
  const name = podText({ namespace: namespace ?? '', name: pod ?? '' });
  if (attached !== true) return [`Pod ${name} is not attached: ${problem ?? ''}.`];
  if (exclusion) return [`Pod ${name} is excluded: ${exclusionText(exclusion)}.`];
  return [`Pod ${name} is attached; it has sent nothing of the kind, or only packets that are never accelerated.`];
}

async function reasonSums(client: AdminClient): Promise<Map<number, number>> {
  const { reasons } = await client.call('status', new v1.StatusRequest());
  return new Map(reasons.map(({ reason, packets }) => [reason ?? 0, packets ?? 0]));
}

function reasonGrowth(before: ReadonlyMap<number, number>, after: ReadonlyMap<number, number>): Map<number, number> {
  return new Map(
    [...after]
      .filter(([code]) => code !== (v1.Reason.REASON_NONE as number))
      .map(([code, packets]) => [code, growth(before.get(code), packets)]),
  );
}

/** With the local time of day, to the millisecond. */
function changeText(began: number, { timeMs, what, text }: Change): string {
  const time = new Date(began + timeMs);
  const two = (value: number): string => String(value).padStart(2, '0');
  const clock = [time.getHours(), time.getMinutes(), time.getSeconds()].map(two).join(':');
  return `${clock}.${String(time.getMilliseconds()).padStart(3, '0')}  ${what.padEnd(9)}  ${printable(text)}\n`;
}

function lines(text: readonly string[]): string {
  return text.map((line) => `${printable(line)}\n`).join('');
}
