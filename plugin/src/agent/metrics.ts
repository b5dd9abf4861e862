/** All Prometheus metrics of the sidecar; docs/admin.md explains them. */
import { collectDefaultMetrics, Registry } from 'prom-client';
import { readCounters, readReasons } from '../dataplane/counters.ts';
import { reasonNames, type DataPlaneConfig } from '../dataplane/layout.ts';
import { modesOf, type PathTables } from '../dataplane/paths.ts';
import type { Peers } from '../dataplane/peers.ts';
import type { NodeState } from '../grpc/backend.ts';
import type { AgentParts } from './backend.ts';
import { counters, gauge, gauges, samples, total, type Sample } from './metric-kinds.ts';
import { addSourceMetrics } from './source-metrics.ts';

const STATES: readonly NodeState[] = ['starting', 'ready', 'degraded', 'draining', 'drained'];

function snakeCase(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

/** All metrics, in a registry of their own. */
export function metricsRegistry(parts: AgentParts, state: () => NodeState): Registry {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  // prom-client's totals of what is open now: "_total" is for counters, and the gauges without it say the same.
  for (const what of ['handles', 'requests', 'resources']) registry.removeSingleMetric(`nodejs_active_${what}_total`);
  addDataPlaneMetrics(registry, parts);
  addNodeMetrics(registry, parts, state);
  addSourceMetrics(registry, parts);
  return registry;
}

function addDataPlaneMetrics(registry: Registry, { tables, janitor, approvals, events, uplink }: AgentParts): void {
  counters(
    registry,
    {
      name: 'xmasq_decisions_total',
      help: 'Decisions of the programs, in packets or as the name says',
      labels: ['decision'],
    },
    () => readCounters(tables).map(({ name, value }) => [[name], Number(value)]),
  );
  counters(
    registry,
    { name: 'xmasq_slow_packets_total', help: 'Pod packets left to the slow path, by reason', labels: ['reason'] },
    () => readReasons(tables).map(({ reason, packets }) => [[nameOf(reason)], Number(packets)]),
  );
  gauges(registry, { name: 'xmasq_map_entries', help: 'Entries of a map at its last sweep', labels: ['map'] }, () =>
    janitor.fill(tables.capacity).map(({ name, entries }) => [[name], entries]),
  );
  gauges(registry, { name: 'xmasq_map_capacity', help: 'Most entries of a map', labels: ['map'] }, () =>
    samples(Object.entries(tables.capacity)),
  );
  gauges(
    registry,
    { name: 'xmasq_approvals', help: 'Flows with an approval, and flows that wait for one', labels: ['state'] },
    () => samples(Object.entries(approvals.sizes)),
  );
  counters(
    registry,
    { name: 'xmasq_approval_actions_total', help: 'What became of approvals', labels: ['action'] },
    () => samples(Object.entries(approvals.counts)),
  );
  counters(registry, { name: 'xmasq_events_total', help: 'Events of the programs', labels: ['event'] }, () =>
    samples(events.counts),
  );
  counters(registry, { name: 'xmasq_swept_total', help: 'Map entries removed by the janitor', labels: ['what'] }, () =>
    Object.entries(janitor.counts).map(([what, count]) => [[snakeCase(what)], count]),
  );
  total(
    registry,
    {
      name: 'xmasq_uplink_displaced_total',
      help: 'Times another program was found before one of ours on the uplink',
    },
    () => uplink.displaced,
  );
}

function addNodeMetrics(
  registry: Registry,
  { tables, configMap, endpoints, peers, degradations, exclusions, now }: AgentParts,
  state: () => NodeState,
): void {
  gauge(registry, { name: 'xmasq_endpoints', help: 'Pods with attached programs' }, () => endpoints.count);
  gauge(registry, { name: 'xmasq_peers', help: 'Other nodes' }, () => peers.count);
  gauge(
    registry,
    { name: 'xmasq_peers_alive', help: 'Other nodes whose data plane has shown life lately' },
    () => peers.alive,
  );
  gauges(
    registry,
    {
      name: 'xmasq_peer_paths',
      help: 'Ways to other nodes by how a packet goes now: for each, one of each class and family of its pods',
      labels: ['family', 'class', 'mode'],
    },
    () => countPaths(tables, configMap.get(), peers, now()),
  );
  gauge(
    registry,
    { name: 'xmasq_degradations', help: 'Things that do not work as they should' },
    () => degradations.size,
  );
  gauges(registry, { name: 'xmasq_state', help: '1 for the state that the node is in', labels: ['state'] }, () => {
    const current = state();
    return STATES.map((name) => [[name], name === current ? 1 : 0]);
  });
  gauges(
    registry,
    { name: 'xmasq_excluded_pods', help: 'Pods that are never accelerated, by the reason', labels: ['reason'] },
    () => countReasons([...exclusions.state.pods.values()]),
  );
  gauges(
    registry,
    {
      name: 'xmasq_node_exclusions',
      help: 'What excludes traffic of the whole node, by the reason',
      labels: ['reason'],
    },
    () => countReasons(exclusions.state.all),
  );
}

function countPaths(tables: PathTables, config: DataPlaneConfig, peers: Peers, now: bigint): Sample[] {
  const counts = new Map<string, number>();
  for (const [id, node] of peers.byId()) {
    for (const { family, pathClass, mode } of modesOf(tables, config, id, node, now)) {
      const key = `ipv${family} ${pathClass} ${mode}`;
      counts.set(key, (counts.get(key) ?? 0) + 1);
    }
  }
  return Array.from(counts, ([key, count]) => [key.split(' '), count]);
}

function countReasons(list: readonly { readonly reason: number }[]): ReturnType<typeof samples> {
  const counts = new Map<string, number>();
  for (const { reason } of list) counts.set(nameOf(reason), (counts.get(nameOf(reason)) ?? 0) + 1);
  return samples(counts);
}

function nameOf(reason: number): string {
  return reasonNames[reason] ?? String(reason);
}
