/** Prometheus metrics, read from the maps when they are asked for. */
import { collectDefaultMetrics, Counter, Gauge, Registry } from 'prom-client';
import { readCounters, readReasons } from '../dataplane/counters.ts';
import { reasonNames } from '../dataplane/layout.ts';
import type { NodeState } from '../grpc/backend.ts';
import type { AgentParts, OptionalCount } from './backend.ts';

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
  const { tables, janitor, endpoints, peers, degradations, approvals, events, uplink, exclusions, sources, counts } =
    parts;
  collectDefaultMetrics({ register: registry });
  // prom-client's totals of what is open now: "_total" is for counters, and the gauges without it say the same.
  for (const what of ['handles', 'requests', 'resources']) registry.removeSingleMetric(`nodejs_active_${what}_total`);
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
  gauges(registry, 'xmasq_source_connected', '1 while the source is connected', 'source', () =>
    sources.map((source) => source()).map(({ name, connected }) => [name, connected ? 1 : 0]),
  );
  const optional = (name: OptionalCount) => (): Iterable<[string, number]> => counts.get(name)?.() ?? [];
  counter(
    registry,
    'xmasq_flow_records_total',
    'Flow records of antrea-agent by what became of them',
    'result',
    optional('flow records'),
  );
  counter(
    registry,
    'xmasq_ovsdb_rows_skipped_total',
    "Rows of Open vSwitch's database that could not be used",
    'cause',
    optional('skipped rows'),
  );
  counter(
    registry,
    'xmasq_kubernetes_events_total',
    'Kubernetes Events by what became of them',
    'result',
    optional('events'),
  );
  gauges(registry, 'xmasq_excluded_pods', 'Pods that are never accelerated, by the reason', 'reason', () =>
    countReasons([...exclusions.state.pods.values()]),
  );
  gauges(registry, 'xmasq_node_exclusions', 'What excludes traffic of the whole node, by the reason', 'reason', () =>
    countReasons(exclusions.state.all),
  );
  return registry;
}

function countReasons(list: readonly { readonly reason: number }[]): Map<string, number> {
  const counts = new Map<string, number>();
  for (const { reason } of list) {
    const name = reasonNames[reason] ?? String(reason);
    counts.set(name, (counts.get(name) ?? 0) + 1);
  }
  return counts;
}
