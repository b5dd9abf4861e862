import { isIP } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { xmasq } from '../gen/xmasq.js';
import { canonicalAddress } from './addresses.ts';
import type { FlowTrace, TracedFlow } from './backend.ts';
import { traceResponse } from './convert.ts';
import { invalidArgument } from './errors.ts';

/** Between two looks: often enough to see what a person would, seldom enough to cost nothing. */
const INTERVAL_MS = 200;
const MAX_DURATION_MS = 300_000;
const MAX_PORT = 65_535;

/**
 * The messages that answer a Trace request, until its time is over or the signal is aborted.
 * @param begin begins to follow the flow
 * @throws RpcError INVALID_ARGUMENT
 */
export async function* traceLooks(
  request: xmasq.v1.TraceRequest,
  begin: (flow: TracedFlow) => FlowTrace,
  signal: AbortSignal,
): AsyncGenerator<xmasq.v1.TraceResponse, void> {
  const { durationMs } = request;
  if (durationMs < 1 || durationMs > MAX_DURATION_MS) {
    throw invalidArgument(`field duration_ms is ${durationMs}; expected 1 to ${MAX_DURATION_MS}`);
  }
  const trace = begin(tracedFlow(request));
  try {
    const end = performance.now() + durationMs;
    for (;;) {
      yield traceResponse(trace.look());
      const left = end - performance.now();
      if (left < 1) return; // a timer may be early by a part of a millisecond
      await sleep(Math.min(INTERVAL_MS, Math.ceil(left)), undefined, { signal });
    }
  } finally {
    trace.close();
  }
}

function tracedFlow(request: xmasq.v1.TraceRequest): TracedFlow {
  const { sourcePort, destinationPort, protocol, icmpId, icmpType } = request;
  const [sourceIp, destinationIp] = [
    canonicalAddress('source_ip', request.sourceIp),
    canonicalAddress('destination_ip', request.destinationIp),
  ];
  if (isIP(sourceIp) !== isIP(destinationIp)) {
    throw invalidArgument('fields source_ip and destination_ip are of two families; expected one');
  }
  if (protocol > 255) throw invalidArgument(`field protocol is ${protocol}; expected an IP protocol number, 0 to 255`);
  const numbers = { source_port: sourcePort, destination_port: destinationPort, icmp_id: icmpId, icmp_type: icmpType };
  for (const [name, value] of Object.entries(numbers)) {
    if ((value ?? 0) > MAX_PORT) throw invalidArgument(`field ${name} is ${value ?? 0}; expected 0 to ${MAX_PORT}`);
  }
  return {
    ...{ sourceIp, destinationIp, sourcePort, destinationPort, protocol },
    ...(icmpId != null && { icmp: { id: icmpId, type: icmpType ?? 0 } }),
  };
}
