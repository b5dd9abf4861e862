/** What this kernel can do, found by trying and never by its version. */
import { readFileSync } from 'node:fs';
import { isRefused } from '../bpf/errors.ts';
import { BpfObject } from '../bpf/object.ts';
import { testRun } from '../bpf/testrun.ts';
import { errorMessage } from '../util/errors.ts';

/** Values that CONFIG_HZ can have. */
const HZ_VALUES = [100, 250, 300, 1000] as const;
/** Jiffies are read this far apart: with HZ 100 the error is then at most one in 20. */
const HZ_INTERVAL_MS = 220;
/** When jiffies were read shall be known so well that it does not matter, within so many tries. */
const READING_WITHIN_NS = 1_000_000n;
const READING_TRIES = 10;
/** The two readings' times together are known to this part of what is between them: 250 and 300 differ by more. */
const READINGS_PER_INTERVAL = 40n;
/** probe_jiffies returns this many low bits. */
const JIFFIES_MASK = 0x7fffffff;

/** A frame for the probes; they look at nothing in it. */
const FRAME = Buffer.concat([Buffer.alloc(12), Buffer.from([0x08, 0x00]), Buffer.alloc(50)]);

/** What the probes found. */
export interface KernelProbe {
  /** Conntrack's lookup takes a zone: TCP and UDP are admitted without approvals. */
  readonly conntrackZone: boolean;
  /** Jiffies per second. */
  readonly hz: number;
}

/**
 * The CONFIG_HZ nearest to what was measured.
 * @param jiffies that passed
 * @param milliseconds that passed
 * @throws RangeError where none is within a fifth: the measurement was disturbed, or the kernel is an unusual one
 */
export function snapHz(jiffies: number, milliseconds: number): number {
  const measured = (jiffies * 1000) / milliseconds;
  const nearest = HZ_VALUES.reduce((best, hz) => (Math.abs(hz - measured) < Math.abs(best - measured) ? hz : best));
  if (
    Math.abs(nearest - measured) > nearest / 5 ||
    (nearest === 250 && measured > 275) ||
    (nearest === 300 && measured < 275)
  ) {
    throw new RangeError(`${measured.toFixed(1)} jiffies per second are near none of ${HZ_VALUES.join(', ')}`);
  }
  return nearest;
}

/** A value and when it was read, in nanoseconds, to half of `within`. */
export interface TimedReading {
  readonly value: number;
  readonly at: bigint;
  readonly within: bigint;
}

/**
 * Reads a value so that it is known when: a process may be stopped between its reading and that of the clock. Of some tries the
 * one whose time is known best; the first that is known well enough ends them.
 * @param clock nanoseconds
 */
export function readTimed(read: () => number, clock: () => bigint = () => process.hrtime.bigint()): TimedReading {
  const once = (): TimedReading => {
    const before = clock();
    const value = read();
    const within = clock() - before;
    return { value, at: before + within / 2n, within };
  };
  let best = once();
  for (let tries = 1; tries < READING_TRIES && best.within > READING_WITHIN_NS; tries++) {
    const next = once();
    if (next.within < best.within) best = next;
  }
  return best;
}

/**
 * Jiffies per second, from two readings of jiffies.
 * @throws RangeError where it is not known well enough when they were read, or snapHz refuses
 */
export function hzBetween(first: TimedReading, second: TimedReading): number {
  const passed = second.at - first.at;
  if ((first.within + second.within) / 2n > passed / READINGS_PER_INTERVAL) {
    throw new RangeError('this process was stopped whenever it read jiffies: is the machine overloaded?');
  }
  return snapHz((second.value - first.value) & JIFFIES_MASK, Number(passed) / 1e6);
}

async function measureHz(progFd: number): Promise<number> {
  const read = (): TimedReading => readTimed(() => testRun(progFd, { data: FRAME }).retval & JIFFIES_MASK);
  let problem: unknown;
  for (let attempt = 0; attempt < 3; attempt++) {
    const first = read();
    await new Promise((resolve) => setTimeout(resolve, HZ_INTERVAL_MS << attempt));
    try {
      return hzBetween(first, read());
    } catch (error) {
      problem = error;
    }
  }
  throw problem;
}

/** One program of the probe object. @throws BpfError where this kernel refuses it */
function loadProbe(path: string, program: string): BpfObject {
  const object = BpfObject.open(path);
  try {
    for (const name of object.programNames()) object.setAutoload(name, name === program);
    object.load();
    return object;
  } catch (error) {
    object.close();
    throw error;
  }
}

/** Whether the conntrack lookup takes a zone. A kernel that refuses the program has no such lookup. */
function probeZone(path: string): boolean {
  let zone: BpfObject;
  try {
    zone = loadProbe(path, 'probe_zone');
  } catch (error) {
    if (isRefused(error)) throw error;
    return false;
  }
  using object = zone;
  return testRun(object.program('probe_zone').fd, { data: FRAME }).retval === 1;
}

/**
 * Tries the kernel.
 * @param path the probe object, probe.bpf.o
 * @throws Error where HZ cannot be measured, or the kernel lacks too much; BpfError where this process may not
 */
export async function probeKernel(path: string): Promise<KernelProbe> {
  const conntrackZone = probeZone(path);
  let object: BpfObject;
  try {
    object = loadProbe(path, 'probe_jiffies');
  } catch (cause) {
    if (isRefused(cause)) throw cause;
    throw new Error(
      `this kernel refuses the program probe_jiffies of ${path} (${errorMessage(cause)}): Linux 5.15 or later is needed`,
      { cause },
    );
  }
  using jiffies = object;
  return { conntrackZone, hz: await measureHz(jiffies.program('probe_jiffies').fd) };
}

/** Numbers of linux/capability.h. */
const CAPABILITIES = { CAP_NET_ADMIN: 12, CAP_SYS_ADMIN: 21, CAP_PERFMON: 38, CAP_BPF: 39 } as const;

/**
 * The capabilities that loading and attaching needs and this process lacks. CAP_SYS_ADMIN stands for BPF and PERFMON.
 * @param status text of /proc/self/status
 */
export function missingCapabilities(status = ownStatus()): string[] {
  const admin = hasCapability('CAP_SYS_ADMIN', status);
  return [
    ...(hasCapability('CAP_BPF', status) || admin ? [] : ['CAP_BPF']),
    ...(hasCapability('CAP_NET_ADMIN', status) ? [] : ['CAP_NET_ADMIN']),
    ...(hasCapability('CAP_PERFMON', status) || admin ? [] : ['CAP_PERFMON']),
  ];
}

/** Whether it is in effect. @param status text of /proc/self/status */
export function hasCapability(name: keyof typeof CAPABILITIES, status = ownStatus()): boolean {
  const effective = BigInt(`0x${/^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1] ?? '0'}`);
  return ((effective >> BigInt(CAPABILITIES[name])) & 1n) === 1n;
}

function ownStatus(): string {
  return readFileSync('/proc/self/status', 'utf8');
}
