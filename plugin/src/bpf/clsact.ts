/**
 * tc filters on the clsact qdisc, for kernels without TCX. A filter is not bound to this process: it stays until it is
 * detached, or the qdisc or the device goes.
 */
import { BpfError, check, Errno } from './errors.ts';
import { libbpf } from './libbpf.ts';
import { withLibbpfLog } from './libbpf-log.ts';
import type { Direction } from './link.ts';

/** enum bpf_tc_attach_point. */
const ATTACH_POINT: Readonly<Record<Direction, number>> = { ingress: 1, egress: 2 };
const BOTH_ATTACH_POINTS = 3;
/** BPF_TC_F_REPLACE. */
const F_REPLACE = 1;
/** sizeof struct bpf_tc_hook, struct bpf_tc_opts on 64-bit machines. */
const HOOK_BYTES = 24;
const OPTS_BYTES = 32;

/** Names a filter: priority orders them at a hook (1 runs first), handle tells those of one priority apart. */
export interface ClsactFilter {
  /** In the network namespace of this process. */
  readonly ifindex: number;
  readonly direction: Direction;
  /** Not 0. */
  readonly handle: number;
  /** 1..65535. */
  readonly priority: number;
}

function hook(ifindex: number, attachPoint: number): Buffer {
  const bytes = Buffer.alloc(HOOK_BYTES);
  bytes.writeBigUInt64LE(BigInt(HOOK_BYTES), 0);
  bytes.writeInt32LE(ifindex, 8);
  bytes.writeUInt32LE(attachPoint, 12);
  return bytes;
}

function opts(filter: ClsactFilter, progFd: number, flags: number): Buffer {
  const bytes = Buffer.alloc(OPTS_BYTES);
  bytes.writeBigUInt64LE(BigInt(OPTS_BYTES), 0);
  bytes.writeInt32LE(progFd, 8);
  bytes.writeUInt32LE(flags, 12);
  bytes.writeUInt32LE(filter.handle, 20);
  bytes.writeUInt32LE(filter.priority, 24);
  return bytes;
}

function describe(verb: string, { ifindex, direction, handle, priority }: ClsactFilter): string {
  return `${verb} clsact ${direction} filter ${priority}/${handle} of device ${ifindex}`;
}

function call(operation: string, run: () => number, absent: readonly number[] = []): boolean {
  const { result, log } = withLibbpfLog(run);
  if (absent.includes(-result)) return false;
  check(operation, result, log);
  return true;
}

/**
 * Adds the clsact qdisc where there is none; other qdiscs are not touched.
 * @returns created: false if it was there
 * @throws BpfError ENODEV for an unknown device; EEXIST cannot be told from another qdisc in clsact's place (ingress)
 */
export function ensureClsact(ifindex: number): { created: boolean } {
  const operation = `add clsact to device ${ifindex}`;
  const created = call(operation, () => libbpf().bpf_tc_hook_create(hook(ifindex, BOTH_ATTACH_POINTS)), [Errno.EEXIST]);
  return { created };
}

/**
 * Attaches a program in direct-action mode, replacing in place what the same handle and priority held.
 * @throws BpfError ENOENT or EINVAL where the device has no clsact
 */
export function attachClsact(options: ClsactFilter & { readonly progFd: number }): void {
  const { ifindex, direction, progFd } = options;
  call(describe('attach', options), () =>
    libbpf().bpf_tc_attach(hook(ifindex, ATTACH_POINT[direction]), opts(options, progFd, F_REPLACE)),
  );
}

/** Removes one filter. @returns false where there was none, or no device */
export function detachClsact(filter: ClsactFilter): boolean {
  return call(
    describe('detach', filter),
    () => libbpf().bpf_tc_detach(hook(filter.ifindex, ATTACH_POINT[filter.direction]), opts(filter, 0, 0)),
    [Errno.ENOENT, Errno.ENODEV, Errno.EINVAL],
  );
}

/** The id of the program that a filter runs, or undefined where there is no such filter or no clsact. */
export function queryClsact(filter: ClsactFilter): number | undefined {
  const bytes = opts(filter, 0, 0);
  const found = call(
    describe('query', filter),
    () => libbpf().bpf_tc_query(hook(filter.ifindex, ATTACH_POINT[filter.direction]), bytes),
    [Errno.ENOENT, Errno.EINVAL],
  );
  return found ? bytes.readUInt32LE(16) : undefined;
}

/**
 * Removes the clsact qdisc and every filter on it, other people's too: only for a qdisc that ensureClsact created.
 * @returns false where there was none
 */
export function removeClsact(ifindex: number): boolean {
  const operation = `remove clsact of device ${ifindex}`;
  try {
    return call(operation, () => libbpf().bpf_tc_hook_destroy(hook(ifindex, BOTH_ATTACH_POINTS)), [
      Errno.ENOENT,
      Errno.ENODEV,
    ]);
  } catch (error) {
    // "Invalid handle": no qdisc of that kind there.
    if (error instanceof BpfError && error.errno === Errno.EINVAL) return false;
    throw error;
  }
}
