import type { CounterValue, ReasonValue } from '../grpc/backend.ts';
import { counterNames, reasonNames } from './layout.ts';
import type { Tables } from './tables.ts';

/** The programs' decisions since the maps were made, all of them in the order of the enum. */
export function readCounters(tables: Pick<Tables, 'counters'>): CounterValue[] {
  const sums = tables.counters.allSums();
  return Object.entries(counterNames).map(([index, name]) => ({ name, value: sums[Number(index)] ?? 0n }));
}

/** Slow packets by reason, those that occurred. */
export function readReasons(tables: Pick<Tables, 'reasons'>): ReasonValue[] {
  return tables.reasons
    .allSums()
    .map((packets, reason) => ({ reason, packets }))
    .filter(({ reason, packets }) => packets > 0n && reasonNames[reason] !== undefined);
}
