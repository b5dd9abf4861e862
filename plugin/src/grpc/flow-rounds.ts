import { setTimeout as sleep } from 'node:timers/promises';
import { xmasq } from '../gen/xmasq.js';
import type { FlowInfo } from './backend.ts';
import { flowMessage } from './convert.ts';
import { invalidArgument } from './errors.ts';
import { flowFilter } from './flow-filter.ts';

/** Flows in one message: about 50 kB. */
const BATCH = 256;
const DEFAULT_INTERVAL_MS = 2000;
const MIN_INTERVAL_MS = 100;
const MAX_INTERVAL_MS = 3_600_000;

/**
 * The messages that answer a Flows request: one round, or with `watch` one after the other until the signal is aborted.
 * @param list starts one pass over all flows
 * @throws RpcError INVALID_ARGUMENT
 */
export async function* flowRounds(
  request: xmasq.v1.FlowsRequest,
  list: () => AsyncIterable<FlowInfo>,
  signal: AbortSignal,
): AsyncGenerator<xmasq.v1.FlowsResponse, void> {
  const wanted = flowFilter(request);
  const intervalMs = interval(request);
  const limit = request.limit === 0 ? Number.POSITIVE_INFINITY : request.limit;
  for (let round = 1; ; round++) {
    const startedAt = performance.now();
    yield* oneRound(round, list(), wanted, limit);
    if (!request.watch) return;
    // A round may take longer than the interval; the pause keeps a watch from taking the whole processor.
    const pause = Math.max(intervalMs - (performance.now() - startedAt), MIN_INTERVAL_MS);
    await sleep(pause, undefined, { signal });
  }
}

async function* oneRound(
  round: number,
  flows: AsyncIterable<FlowInfo>,
  wanted: (flow: FlowInfo) => boolean,
  limit: number,
): AsyncGenerator<xmasq.v1.FlowsResponse, void> {
  let batch: xmasq.v1.Flow.$Properties[] = [];
  let count = 0;
  let truncated = false;
  for await (const flow of flows) {
    if (!wanted(flow)) continue;
    if (count >= limit) {
      truncated = true;
      break;
    }
    count++;
    batch.push(flowMessage(flow));
    if (batch.length === BATCH) {
      yield new xmasq.v1.FlowsResponse({ round, flows: batch });
      batch = [];
    }
  }
  yield new xmasq.v1.FlowsResponse({ round, last: true, truncated, flows: batch });
}

function interval(request: xmasq.v1.FlowsRequest): number {
  const { intervalMs } = request;
  if (intervalMs === 0) return DEFAULT_INTERVAL_MS;
  if (intervalMs < MIN_INTERVAL_MS || intervalMs > MAX_INTERVAL_MS) {
    throw invalidArgument(
      `field interval_ms is ${intervalMs}; expected ${MIN_INTERVAL_MS} to ${MAX_INTERVAL_MS}, or 0 for ${DEFAULT_INTERVAL_MS}`,
    );
  }
  return intervalMs;
}
