/** Metrics of what the sidecar follows: Open vSwitch's database, the Kubernetes API, flow records. */
import type { Registry } from 'prom-client';
import type { FollowedKind } from '../kubernetes/index.ts';
import type { AgentParts, OptionalCount } from './backend.ts';
import { counters, gauges, samples, type Sample } from './metric-kinds.ts';

/** What following a kind of Kubernetes' objects takes, as the label `action` says it. */
const ACTIONS: readonly (readonly [label: string, count: keyof FollowedKind['counts']])[] = [
  ['list', 'lists'],
  ['watch', 'watches'],
  ['event', 'events'],
  ['skip', 'skipped'],
  ['failure', 'failures'],
  ['throttled', 'throttled'],
  ['gone', 'gone'],
  ['retry', 'retries'],
];

/** Adds them; parts that the configuration leaves out have no values. */
export function addSourceMetrics(registry: Registry, { sources, counts, followed }: AgentParts): void {
  const optional = (name: OptionalCount) => (): Sample[] => samples(counts.get(name)?.() ?? []);
  const kinds = (): FollowedKind[] => followed.flatMap((read) => read());
  gauges(
    registry,
    { name: 'xmasq_source_connected', help: '1 while the source is connected', labels: ['source'] },
    () => sources.map((source) => source()).map(({ name, connected }) => [[name], connected ? 1 : 0]),
  );
  gauges(
    registry,
    { name: 'xmasq_source_ready', help: '1 once the source has told its state', labels: ['source'] },
    () => sources.map((source) => source()).map(({ name, synced }) => [[name], synced ? 1 : 0]),
  );
  counters(
    registry,
    {
      name: 'xmasq_ovsdb_actions_total',
      help: "What following Open vSwitch's database took",
      labels: ['action'],
    },
    optional('ovsdb'),
  );
  counters(
    registry,
    {
      name: 'xmasq_ovsdb_rows_skipped_total',
      help: "Rows of Open vSwitch's database that could not be used",
      labels: ['cause'],
    },
    optional('skipped rows'),
  );
  counters(
    registry,
    {
      name: 'xmasq_kubernetes_actions_total',
      help: 'What following the Kubernetes API took, by kind of object',
      labels: ['kind', 'action'],
    },
    () =>
      kinds().flatMap(({ kind, counts }) => ACTIONS.map(([label, count]): Sample => [[kind, label], counts[count]])),
  );
  gauges(
    registry,
    { name: 'xmasq_kubernetes_objects', help: 'Objects of which something is kept', labels: ['kind'] },
    () => kinds().map(({ kind, objects }) => [[kind], objects]),
  );
  gauges(
    registry,
    { name: 'xmasq_kubernetes_kind_ready', help: '1 once all objects of the kind have been read', labels: ['kind'] },
    () => kinds().map(({ kind, synced }) => [[kind], synced ? 1 : 0]),
  );
  counters(
    registry,
    { name: 'xmasq_kubernetes_events_total', help: 'Kubernetes Events by what became of them', labels: ['result'] },
    optional('events'),
  );
  counters(
    registry,
    {
      name: 'xmasq_flow_records_total',
      help: 'Flow records of antrea-agent by what became of them',
      labels: ['result'],
    },
    optional('flow records'),
  );
}
