/** The applications, and what is told about their figures. */
import type { FigureFacts, Row } from '../result.ts';
import type { Plot } from '../plot.ts';
import { TARGETS, factsOf } from './app.ts';
import { MEMCACHED } from './memcached.ts';
import { NGINX } from './nginx.ts';
import { POSTGRESQL } from './postgresql.ts';

export const APPS = [MEMCACHED, POSTGRESQL, NGINX] as const;

export const FACTS: Readonly<Record<string, FigureFacts>> = Object.fromEntries(
  TARGETS.flatMap((target) => APPS.flatMap((app) => Object.entries(factsOf(app, target)))),
);

export const PLOTS: readonly Plot[] = [
  {
    ...{ name: 'bench-apps', title: 'Applications, pod to pod on two nodes' },
    shows: (metric) => !metric.includes('_service_'),
  },
  {
    ...{ name: 'bench-apps-service', title: 'The same by ClusterIP' },
    shows: (metric) => metric.includes('_service_'),
  },
];

/** How much less latency than the overlay ONCache, from which the idea comes, published, in percent. */
const PUBLISHED: Readonly<Record<string, number>> = { memcached: 28.3, postgresql: 14.6, nginx: 29 };

/** How much less the latency is by XMasq than by the overlay (mean or median), beside what was published. */
export function latencyNotes(rows: readonly Row[]): string {
  const lines = APPS.map(({ name, title, latencies }) => {
    const row = rows.find(({ metric }) => metric === `${name}_${latencies[0] ?? ''}`);
    if (row === undefined) throw new RangeError(`no latency of ${title}`);
    const { overlay, xmasq, xmasqLike } = row;
    const less = `${(((overlay - xmasq) / overlay) * 100).toFixed(1)} %`;
    const ours = xmasqLike.includes('overlay') ? 'not distinguishable' : less;
    return `${title} ${ours} (${String(PUBLISHED[name])} %)`;
  });
  return `Latency less than the overlay's, in parentheses what ONCache published on its own machines: ${lines.join('; ')}.`;
}
