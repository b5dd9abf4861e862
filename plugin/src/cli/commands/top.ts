import { setTimeout as sleep } from 'node:timers/promises';
import { Option } from 'commander';
import { xmasq } from '../../gen/xmasq.js';
import { toJson } from '../../grpc/json.ts';
import { reasonName } from '../../grpc/reasons.ts';
import { integerArgument, secondsArgument } from '../arguments.ts';
import type { AdminClient } from '../client.ts';
import { untilStopped, withClient, type CommandSpec } from '../context.ts';
import { ExitCode } from '../exit.ts';
import { ENDS, WAY, endsColumns, wayColumns } from '../flow-text.ts';
import { inPlace, printNextPlain } from '../output.ts';
import { flowRates, hitRatio, sumRates, type FlowRate, type FlowsLook, type Sums } from '../rates.ts';
import { allFlows } from '../rounds.ts';
import { renderFields, renderTable } from '../table.ts';
import { compact } from '../text.ts';
import { enumWord } from '../words.ts';

const v1 = xmasq.v1;

const DEFAULT_INTERVAL_S = 2;
const DEFAULT_LIMIT = 20;
const MAX_COUNT = 1_000_000;
const MAX_LIMIT = 10_000;

/** What flows are sorted by, the most first. */
const SORTS = {
  bits: ({ txBits, rxBits }: FlowRate) => txBits + rxBits,
  packets: ({ txPackets, rxPackets, slowPackets }: FlowRate) => txPackets + rxPackets + slowPackets,
  tx: ({ txBits }: FlowRate) => txBits,
  rx: ({ rxBits }: FlowRate) => rxBits,
  slow: ({ slowPackets }: FlowRate) => slowPackets,
} as const;

interface TopOptions {
  readonly interval?: number;
  readonly count?: number;
  readonly sort?: keyof typeof SORTS;
  readonly limit?: number;
}

export const topCommand: CommandSpec<TopOptions> = {
  name: 'top',
  declare: (command) =>
    command
      .description("The node's flows with their rates, the busiest first, and how many of the packets are fast.")
      .option(
        '--interval <seconds>',
        `over which rates are measured (default: ${DEFAULT_INTERVAL_S})`,
        secondsArgument(0.5, 3600),
      )
      .option('--count <tables>', 'how many to print; 0: until interrupted (default: 0)', integerArgument(0, MAX_COUNT))
      .addOption(new Option('--sort <rate>', 'what comes first (default: bits)').choices(Object.keys(SORTS)))
      .option('--limit <flows>', `at most so many (default: ${DEFAULT_LIMIT})`, integerArgument(1, MAX_LIMIT)),
  run: (context, { interval = DEFAULT_INTERVAL_S, count = 0, sort = 'bits', limit = DEFAULT_LIMIT }) =>
    untilStopped(context.io, () =>
      withClient(context, async (client) => {
        const { io, output } = context;
        let before = await look(client);
        for (let round = 1; before !== undefined && (count === 0 || round <= count); round++) {
          await sleep(interval * 1000, undefined, { signal: io.stopped });
          const after = await look(client);
          if (after === undefined) break;
          const view = viewOf(before, after, sort, limit);
          await printNextPlain(
            io,
            output,
            () => viewJson(view),
            () => inPlace(io, viewText(view)),
          );
          before = after;
        }
        return ExitCode.OK;
      }),
    ),
};

/** The node at one moment. */
interface Look {
  readonly status: xmasq.v1.StatusResponse;
  /** Of `performance.now()`, when the status came. */
  readonly at: number;
  readonly flows: FlowsLook;
}

/** @returns undefined: interrupted. @throws CliError */
async function look(client: AdminClient): Promise<Look | undefined> {
  const status = await client.call('status', new v1.StatusRequest());
  const at = performance.now();
  const flows = await allFlows(client);
  return flows && { status, at, flows: { at: performance.now(), flows } };
}

/** What one table shows. */
interface View {
  readonly status: xmasq.v1.StatusResponse;
  /** Milliseconds. */
  readonly interval: number;
  /** Of the interval, and since the data plane was loaded. */
  readonly hitRatio: number | undefined;
  readonly hitRatioTotal: number | undefined;
  /** Per second, those that have changed. */
  readonly counters: Sums;
  readonly reasons: Sums;
  readonly flows: readonly FlowRate[];
  readonly truncated: boolean;
}

function counterSums({ counters }: xmasq.v1.StatusResponse): Sums {
  return new Map(counters.map(({ name, value }) => [name ?? '', value ?? 0]));
}

function reasonSums({ reasons }: xmasq.v1.StatusResponse): Sums {
  return new Map(
    reasons
      .filter(({ reason }) => reason !== v1.Reason.REASON_NONE)
      .map(({ reason, packets }) => [reasonName(reason ?? 0), packets ?? 0]),
  );
}

function viewOf(before: Look, after: Look, sort: keyof typeof SORTS, limit: number): View {
  const interval = after.at - before.at;
  const counters = sumRates(counterSums(before.status), counterSums(after.status), interval);
  const reasons = sumRates(reasonSums(before.status), reasonSums(after.status), interval);
  const by = SORTS[sort];
  // Of flows that are equal by that, the busiest in any way.
  const flows = flowRates(before.flows, after.flows).toSorted(
    (a, b) => by(b) - by(a) || SORTS.packets(b) - SORTS.packets(a),
  );
  return {
    status: after.status,
    interval,
    hitRatio: hitRatio(counters),
    hitRatioTotal: hitRatio(counterSums(after.status)),
    counters: changed(counters),
    reasons: changed(reasons),
    flows: flows.slice(0, limit),
    truncated: flows.length > limit,
  };
}

function changed(rates: Sums): Sums {
  return new Map([...rates].filter(([, rate]) => rate > 0));
}

/** Two digits behind the point are more than a measurement of seconds is good for. */
function rounded(value: number): number {
  return Math.round(value * 100) / 100;
}

function viewJson({ status, interval, counters, reasons, flows, truncated, ...ratios }: View): object {
  const object = (rates: Sums): object => Object.fromEntries([...rates].map(([name, rate]) => [name, rounded(rate)]));
  return {
    time: new Date().toISOString(),
    node: status.nodeName,
    state: enumWord(v1.NodeState, 'NODE_STATE_', status.state),
    intervalMs: Math.round(interval),
    hitRatio: ratios.hitRatio ?? null,
    hitRatioTotal: ratios.hitRatioTotal ?? null,
    flowsTotal: status.flows,
    countersPerSecond: object(counters),
    slowReasonsPerSecond: object(reasons),
    truncated,
    flows: flows.map(({ flow, ...rates }) => ({
      ...toJson(v1.Flow, new v1.Flow(flow)),
      rates: Object.fromEntries(Object.entries(rates).map(([name, rate]) => [name, rounded(rate)])),
    })),
  };
}

function percent(ratio: number | undefined): string {
  return ratio === undefined ? '-' : `${(100 * ratio).toFixed(1)} %`;
}

function viewText({ status, interval, counters, reasons, flows, truncated, ...ratios }: View): string {
  const words = (rates: Sums): string =>
    [...rates].map(([name, rate]) => `${name.replaceAll('_', '-')} ${perSecondText(rate)}`).join(', ') || '-';
  const head = renderFields([
    ['node', `${status.nodeName}, ${enumWord(v1.NodeState, 'NODE_STATE_', status.state)}`],
    ['flows', String(status.flows)],
    [
      'hit ratio',
      `${percent(ratios.hitRatio)} in ${(interval / 1000).toFixed(1)} s, ${percent(ratios.hitRatioTotal)} in all`,
    ],
    ['per second', words(counters)],
    ['slow because', words(reasons)],
  ]);
  const table = renderTable(
    [
      ...ENDS,
      ...WAY,
      { name: 'TX PKT/S', right: true },
      { name: 'TX BIT/S', right: true },
      { name: 'RX PKT/S', right: true },
      { name: 'RX BIT/S', right: true },
      { name: 'SLOW PKT/S', right: true },
    ],
    flows.map(({ flow, txPackets, txBits, rxPackets, rxBits, slowPackets }) => [
      ...endsColumns(flow),
      ...wayColumns(flow),
      ...[txPackets, txBits, rxPackets, rxBits, slowPackets].map(perSecondText),
    ]),
  );
  return `${head}\n${table}${truncated ? '(there are more flows; see --limit)\n' : ''}`;
}

/** A rate with about three digits; what is not 0 does not look so. */
function perSecondText(rate: number): string {
  return rate > 0 && rate < 10 ? rate.toFixed(rate < 0.1 ? 2 : 1) : compact(rate);
}
