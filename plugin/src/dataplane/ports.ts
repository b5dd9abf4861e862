/**
 * What the modules of the data plane need of the kernel, so that each can be tried without one. The classes of ../bpf and
 * ../netlink satisfy these as they are.
 */
import type { CtEntry, CtTuple } from '../netlink/ctnetlink.ts';

/** Nanoseconds of CLOCK_MONOTONIC: comparable with the times in the maps (which are up to a tick older). */
export type Clock = () => bigint;

/** The clock of the maps. */
export const monotonic: Clock = () => process.hrtime.bigint();

/** Nanoseconds in a millisecond. */
export const MS = 1_000_000n;
/** Nanoseconds in a second. */
export const SECOND = 1_000_000_000n;

/** A hash, LRU hash or LPM trie map. */
export interface HashTable<K, V> {
  get(key: K): V | undefined;
  set(key: K, value: V, mode?: 'any' | 'create' | 'update'): void;
  delete(key: K): boolean;
  entries(): Iterable<[K, V]>;
}

/** An array map. */
export interface ArrayTable<V> {
  readonly length: number;
  get(index: number): V;
  set(index: number, value: V): void;
}

/** A per-CPU array of counters. */
export interface CounterTable {
  /** The sum over the CPUs of every element. */
  allSums(): bigint[];
}

/** Single requests to conntrack; synchronous, about 10 us each. */
export interface Conntrack {
  get(tuple: CtTuple, zone: number): CtEntry | undefined;
  setTimeout(tuple: CtTuple, zone: number, seconds: number): boolean;
  delete(tuple: CtTuple, zone: number, id?: number): boolean;
}

/** The part of a logger that is used here; pino's has it. */
export interface Log {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}
