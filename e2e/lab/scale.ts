/**
 * How much a spec does and how strictly it judges, by what it runs on: under software emulation everything takes some ten
 * times longer, and absolute times and rates are judged natively only.
 */
import { release } from 'node:os';
import { TIME_FACTOR } from './lab.ts';

/** True where absolute times and rates say nothing about XMasq: in a micro-VM. */
export const EMULATED = TIME_FACTOR > 1;

const ROUNDS_DIVISOR = 10;
const CONNECTIONS_DIVISOR = 20;

/** How often something is repeated: 200 natively are 20 under emulation; at least 1. */
export function rounds(natively: number): number {
  return EMULATED ? Math.max(1, Math.round(natively / ROUNDS_DIVISOR)) : natively;
}

/** How many connections or pods take part: 10,000 natively are 500 under emulation; at least 1. */
export function connections(natively: number): number {
  return EMULATED ? Math.max(1, Math.round(natively / CONNECTIONS_DIVISOR)) : natively;
}

/** What runs at the same time: all of it natively, under emulation so many as it bears. */
export function groups<T>(all: readonly T[], emulated: number): readonly (readonly T[])[] {
  const size = EMULATED ? emulated : Math.max(1, all.length);
  return Array.from({ length: Math.ceil(all.length / size) }, (_, i) => all.slice(i * size, (i + 1) * size));
}

/** An upper limit that is judged natively: the limit, or Infinity under emulation. */
export function atMostNatively(limit: number): number {
  return EMULATED ? Infinity : limit;
}

/** A lower limit that is judged natively: the limit, or what emulation can reach (default 0). */
export function atLeastNatively(limit: number, emulated = 0): number {
  return EMULATED ? emulated : limit;
}

/**
 * Packets that may be slow besides those of a short way: on a long one (20 ms there and back do) TCP sends its initial window,
 * ten segments (RFC 6928), in packets of one or two before anything can come back.
 */
export const INITIAL_WINDOW = EMULATED ? 10 : 0;

/** A duration or waiting time, in the unit given, stretched by the time factor: for pauses and arguments of tools. */
export function stretched(duration: number): number {
  return duration * TIME_FACTOR;
}

/** Milliseconds after which the tools take a connection or a request for failed: natively their default. */
export const PATIENCE_MS = String(stretched(1000));

/** Where a new flow is approved: by conntrack's mark in the kernel, or (kernels before 6.11) by the sidecar's approvals. */
export const ADMISSION: 'conntrack' | 'approvals' = hasZoneOption(release()) ? 'conntrack' : 'approvals';

/* The zone option of the conntrack lookup came with Linux 6.11 (kernel documentation of struct bpf_ct_opts). */
function hasZoneOption(version: string): boolean {
  const [major = 0, minor = 0] = version.split('.').map(Number);
  return major > 6 || (major === 6 && minor >= 11);
}
