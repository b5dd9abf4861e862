/** What the kernel says about a program, map or link that we hold a descriptor of (BPF_OBJ_GET_INFO_BY_FD). */
import { check } from './errors.ts';
import { addressOf, libbpf } from './libbpf.ts';

/** enum bpf_map_type, as far as it matters here. */
export const MapType = {
  HASH: 1,
  ARRAY: 2,
  PROG_ARRAY: 3,
  PERF_EVENT_ARRAY: 4,
  PERCPU_HASH: 5,
  PERCPU_ARRAY: 6,
  LRU_HASH: 9,
  LRU_PERCPU_HASH: 10,
  LPM_TRIE: 11,
  ARRAY_OF_MAPS: 12,
  HASH_OF_MAPS: 13,
  DEVMAP: 14,
  PERCPU_CGROUP_STORAGE: 21,
  RINGBUF: 27,
} as const;

/** A map's layout and identity. */
export interface MapInfo {
  /** See MapType. */
  readonly type: number;
  readonly id: number;
  /** Bytes. */
  readonly keySize: number;
  /** Bytes; for per-CPU maps of one CPU. */
  readonly valueSize: number;
  /** Entries; bytes for ring buffers. */
  readonly maxEntries: number;
  readonly flags: number;
  /** At most 15 characters, cut by the kernel. */
  readonly name: string;
}

/** A loaded program. */
export interface ProgramInfo {
  /** enum bpf_prog_type. */
  readonly type: number;
  readonly id: number;
  /** The kernel's hash over the instructions, 16 hex digits. */
  readonly tag: string;
  /** At most 15 characters, cut by the kernel. */
  readonly name: string;
  readonly mapIds: readonly number[];
  /** Instructions the verifier went through; 0 before Linux 5.16. */
  readonly verifiedInstructions: number;
}

/** A link; the two last are there for TCX links only. */
export interface LinkInfo {
  /** enum bpf_link_type. */
  readonly type: number;
  readonly linkId: number;
  readonly progId: number;
  /** 0 once the device is gone. */
  readonly ifindex: number | undefined;
  /** enum bpf_attach_type. */
  readonly attachType: number | undefined;
}

/** BPF_LINK_TYPE_XDP. */
export const LINK_TYPE_XDP = 6;
/** BPF_LINK_TYPE_TCX. */
export const LINK_TYPE_TCX = 11;

/** Sizes of the structs as far as they are read here; the kernel fills what fits. */
const MAP_INFO_BYTES = 88;
const PROG_INFO_BYTES = 232;
const LINK_INFO_BYTES = 64;
/** More maps than any object of ours has; bounds the allocation. */
const MAX_MAP_IDS = 256;

function getInfo(operation: string, fd: number, info: Buffer): void {
  const length = Buffer.alloc(4);
  length.writeUInt32LE(info.length);
  check(operation, libbpf().bpf_obj_get_info_by_fd(fd, info, length));
}

function cString(bytes: Buffer): string {
  const end = bytes.indexOf(0);
  return bytes.toString('latin1', 0, end < 0 ? bytes.length : end);
}

/** @throws BpfError EINVAL or EBADF for a descriptor that is no map's */
export function mapInfo(fd: number): MapInfo {
  const info = Buffer.alloc(MAP_INFO_BYTES);
  getInfo(`map info of descriptor ${fd}`, fd, info);
  return {
    type: info.readUInt32LE(0),
    id: info.readUInt32LE(4),
    keySize: info.readUInt32LE(8),
    valueSize: info.readUInt32LE(12),
    maxEntries: info.readUInt32LE(16),
    flags: info.readUInt32LE(20),
    name: cString(info.subarray(24, 40)),
  };
}

/** @throws BpfError */
export function programInfo(fd: number): ProgramInfo {
  const operation = `program info of descriptor ${fd}`;
  const mapIds = Buffer.alloc(4 * MAX_MAP_IDS);
  const info = Buffer.alloc(PROG_INFO_BYTES);
  info.writeUInt32LE(MAX_MAP_IDS, 52);
  info.writeBigUInt64LE(addressOf(mapIds), 56);
  getInfo(operation, fd, info);
  const count = Math.min(info.readUInt32LE(52), MAX_MAP_IDS);
  return {
    type: info.readUInt32LE(0),
    id: info.readUInt32LE(4),
    tag: info.toString('hex', 8, 16),
    name: cString(info.subarray(64, 80)),
    mapIds: Array.from({ length: count }, (_, i) => mapIds.readUInt32LE(4 * i)),
    verifiedInstructions: info.readUInt32LE(216),
  };
}

/** @throws BpfError */
export function linkInfo(fd: number): LinkInfo {
  const info = Buffer.alloc(LINK_INFO_BYTES);
  getInfo(`link info of descriptor ${fd}`, fd, info);
  const type = info.readUInt32LE(0);
  const tcx = type === LINK_TYPE_TCX;
  return {
    type,
    linkId: info.readUInt32LE(4),
    progId: info.readUInt32LE(8),
    ifindex: tcx || type === LINK_TYPE_XDP ? info.readUInt32LE(16) : undefined,
    attachType: tcx ? info.readUInt32LE(20) : undefined,
  };
}
