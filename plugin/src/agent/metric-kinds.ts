/** Metrics whose values somebody else keeps: they are read when Prometheus asks. */
import { Counter, Gauge, type Registry } from 'prom-client';

/** Values of the labels, in the order of their names, and the value. */
export type Sample = readonly [labels: readonly string[], value: number];

interface Description {
  readonly name: string;
  readonly help: string;
}

/** A value that only grows, without labels. */
export function total(registry: Registry, description: Description, read: () => number): void {
  counters(registry, { ...description, labels: [] }, () => [[[], read()]]);
}

/** Values that only grow. */
export function counters(
  registry: Registry,
  { name, help, labels }: Description & { readonly labels: readonly string[] },
  read: () => Iterable<Sample>,
): void {
  const metric: Counter = new Counter({
    name,
    help,
    labelNames: [...labels],
    registers: [registry],
    collect: () => {
      metric.reset();
      for (const [values, value] of read()) metric.inc(named(labels, values), value);
    },
  });
}

/** A value of now, without labels. */
export function gauge(registry: Registry, description: Description, read: () => number): void {
  gauges(registry, { ...description, labels: [] }, () => [[[], read()]]);
}

/** Values of now; those that are not read any more are gone. */
export function gauges(
  registry: Registry,
  { name, help, labels }: Description & { readonly labels: readonly string[] },
  read: () => Iterable<Sample>,
): void {
  const metric: Gauge = new Gauge({
    name,
    help,
    labelNames: [...labels],
    registers: [registry],
    collect: () => {
      metric.reset();
      for (const [values, value] of read()) metric.set(named(labels, values), value);
    },
  });
}

/** For metrics of one label. */
export function samples(entries: Iterable<readonly [string, number]>): Sample[] {
  return Array.from(entries, ([label, value]) => [[label], value]);
}

function named(labels: readonly string[], values: readonly string[]): Record<string, string> {
  return Object.fromEntries(labels.map((label, index) => [label, values[index] ?? '']));
}
