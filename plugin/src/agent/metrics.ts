/** Prometheus metrics, read from the maps when they are asked for. */
import { createServer, type Server } from 'node:http';
import { collectDefaultMetrics, Counter, Gauge, Registry } from 'prom-client';
import { readCounters, readReasons } from '../dataplane/counters.ts';
import { reasonNames } from '../dataplane/layout.ts';
import type { NodeState } from '../grpc/backend.ts';
import type { AgentParts } from './backend.ts';

const STATES: readonly NodeState[] = ['starting', 'ready', 'degraded', 'draining', 'drained'];

function snakeCase(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

/** A counter whose values somebody else counts. */
function counter(
  registry: Registry,
  name: string,
  help: string,
  label: string,
  read: () => Iterable<[string, number]>,
): void {
  const metric: Counter = new Counter({
    name,
    help,
    labelNames: [label],
    registers: [registry],
    collect: () => {
      metric.reset();
      for (const [value, count] of read()) metric.inc({ [label]: value }, count);
    },
  });
}

function total(registry: Registry, name: string, help: string, read: () => number): void {
  const metric: Counter = new Counter({
    name,
    help,
    registers: [registry],
    collect: () => {
      metric.reset();
      metric.inc(read());
    },
  });
}

function gauge(registry: Registry, name: string, help: string, read: () => number): void {
  const metric: Gauge = new Gauge({ name, help, registers: [registry], collect: () => metric.set(read()) });
}

function gauges(
  registry: Registry,
  name: string,
  help: string,
  label: string,
  read: () => Iterable<[string, number]>,
): void {
  const metric: Gauge = new Gauge({
    name,
    help,
    labelNames: [label],
    registers: [registry],
    collect: () => {
      for (const [value, number] of read()) metric.set({ [label]: value }, number);
    },
  });
}

/** All metrics of the sidecar, in a registry of their own. */
export function metricsRegistry(parts: AgentParts, state: () => NodeState): Registry {
  const registry = new Registry();
  const { tables, janitor, endpoints, peers, degradations, approvals, events, uplink } = parts;
  collectDefaultMetrics({ register: registry });
  counter(
    registry,
    'xmasq_decisions_total',
    'Decisions of the programs, in packets or as the name says',
    'decision',
    () => readCounters(tables).map(({ name, value }) => [name, Number(value)]),
  );
  counter(registry, 'xmasq_slow_packets_total', 'Pod packets left to the slow path, by reason', 'reason', () =>
    readReasons(tables).map(({ reason, packets }) => [reasonNames[reason] ?? String(reason), Number(packets)]),
  );
  gauges(registry, 'xmasq_map_entries', 'Entries of a map at its last sweep', 'map', () =>
    janitor.fill(tables.capacity).map(({ name, entries }) => [name, entries]),
  );
  gauges(registry, 'xmasq_map_capacity', 'Most entries of a map', 'map', () => Object.entries(tables.capacity));
  gauge(registry, 'xmasq_endpoints', 'Pods with attached programs', () => endpoints.count);
  gauge(registry, 'xmasq_peers', 'Other nodes', () => peers.count);
  gauge(registry, 'xmasq_peers_alive', 'Other nodes whose data plane has shown life lately', () => peers.alive);
  gauge(registry, 'xmasq_degradations', 'Things that do not work as they should', () => degradations.size);
  gauges(registry, 'xmasq_state', '1 for the state that the node is in', 'state', () => {
    const current = state();
    return STATES.map((name) => [name, name === current ? 1 : 0]);
  });
  gauges(registry, 'xmasq_approvals', 'Flows with an approval, and flows that wait for one', 'state', () =>
    Object.entries(approvals.sizes),
  );
  counter(registry, 'xmasq_approval_actions_total', 'What became of approvals', 'action', () =>
    Object.entries(approvals.counts),
  );
  counter(registry, 'xmasq_events_total', 'Events of the programs', 'event', () => events.counts);
  counter(registry, 'xmasq_swept_total', 'Map entries removed by the janitor', 'what', () =>
    Object.entries(janitor.counts).map(([what, count]) => [snakeCase(what), count]),
  );
  total(
    registry,
    'xmasq_uplink_displaced_total',
    'Times another program was found before one of ours on the uplink',
    () => uplink.displaced,
  );
  return registry;
}

/**
 * Serves /metrics.
 * @param address `host:port`; IPv6 in brackets
 * @throws Error naming the address where it cannot be listened on
 */
export async function serveMetrics(registry: Registry, address: string): Promise<Server> {
  const split = address.lastIndexOf(':');
  const host = address.slice(0, split).replace(/^\[(.*)\]$/, '$1');
  const port = Number(address.slice(split + 1));
  const server = createServer((request, response) => {
    if (request.url !== '/metrics' || (request.method !== 'GET' && request.method !== 'HEAD')) {
      response.writeHead(404, { 'content-type': 'text/plain' }).end('only GET /metrics is here\n');
      return;
    }
    registry.metrics().then(
      (text) => response.writeHead(200, { 'content-type': registry.contentType }).end(text),
      (error: unknown) => response.writeHead(500, { 'content-type': 'text/plain' }).end(`${String(error)}\n`),
    );
  });
  server.requestTimeout = 10_000;
  server.maxConnections = 32;
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause) =>
      reject(new Error(`metrics cannot be served on ${address}: ${cause.message}`, { cause })),
    );
    server.listen({ port, ...(host === '' ? {} : { host }) }, resolve);
  });
  return server;
}
