/** Runs a loaded tc or XDP program on a packet without a device (BPF_PROG_TEST_RUN). */
import { check } from './errors.ts';
import { addressOf, libbpf } from './libbpf.ts';

/**
 * Fields of struct __sk_buff that can be given; all default to 0. Kernels differ in which they accept: an EINVAL
 * usually means one that this kernel wants to be 0. Numbers are in host byte order.
 */
export interface SkBuffInput {
  mark?: number;
  priority?: number;
  /** An existing device of this network namespace; 0 is the loopback device. */
  ifindex?: number;
  /** Since Linux 5.11. */
  ingress_ifindex?: number;
  /** Up to five. */
  cb?: readonly number[];
  /** Nanoseconds. */
  tstamp?: bigint;
  wire_len?: number;
  gso_segs?: number;
  gso_size?: number;
  /** Nanoseconds; since Linux 5.17. */
  hwtstamp?: bigint;
}

/** struct __sk_buff after the run, as far as the kernel reports it. */
export interface SkBuffOutput {
  readonly mark: number;
  readonly priority: number;
  readonly ifindex: number;
  readonly ingress_ifindex: number;
  readonly cb: readonly number[];
  readonly tstamp: bigint;
  readonly wire_len: number;
  readonly gso_segs: number;
}

export interface TestRunOptions {
  /** The frame from its Ethernet header on; at least 14 bytes. */
  readonly data: Buffer;
  readonly ctx?: SkBuffInput;
  /** Default 1; the program sees the packet as the run before left it. */
  readonly repeat?: number;
  /** Room for the resulting packet in bytes, default the packet and 512. */
  readonly dataOutMax?: number;
  /** BPF_F_TEST_SKB_CHECKSUM_COMPLETE: the packet comes with its sum, as from a device, which has to be right afterwards. */
  readonly summed?: boolean;
}

export interface TestRunResult {
  /** What the program returned; -1 is TC_ACT_UNSPEC and TCX_NEXT. */
  readonly retval: number;
  /** The packet afterwards. */
  readonly dataOut: Buffer;
  readonly ctxOut: SkBuffOutput;
  /** Average of the repetitions. */
  readonly durationNs: number;
}

/** struct bpf_test_run_opts of libbpf 1.1 on 64-bit machines. */
const OPTS_BYTES = 80;
/** struct __sk_buff up to hwtstamp; kernels accept more than they know if it is zero. */
const SK_BUFF_BYTES = 192;
const DEFAULT_ROOM = 512;
/** BPF_F_TEST_SKB_CHECKSUM_COMPLETE of linux/bpf.h. */
const TEST_SUMMED = 4;

/** Offsets in struct __sk_buff of linux/bpf.h. */
const SKB = {
  mark: 8,
  priority: 32,
  ingress_ifindex: 36,
  ifindex: 40,
  cb: 48,
  tstamp: 152,
  wire_len: 160,
  gso_segs: 164,
  gso_size: 176,
  hwtstamp: 184,
} as const;

const U32_INPUTS = ['mark', 'priority', 'ingress_ifindex', 'ifindex', 'wire_len', 'gso_segs', 'gso_size'] as const;
const CB_WORDS = 5;

function encodeContext(input: SkBuffInput): Buffer {
  const skb = Buffer.alloc(SK_BUFF_BYTES);
  for (const field of U32_INPUTS) skb.writeUInt32LE(input[field] ?? 0, SKB[field]);
  const cb = input.cb ?? [];
  if (cb.length > CB_WORDS) throw new RangeError(`__sk_buff.cb: ${cb.length} words, at most ${CB_WORDS}`);
  cb.forEach((word, i) => skb.writeUInt32LE(word, SKB.cb + 4 * i));
  skb.writeBigUInt64LE(input.tstamp ?? 0n, SKB.tstamp);
  skb.writeBigUInt64LE(input.hwtstamp ?? 0n, SKB.hwtstamp);
  return skb;
}

function decodeContext(skb: Buffer): SkBuffOutput {
  const u32 = (field: keyof typeof SKB): number => skb.readUInt32LE(SKB[field]);
  return {
    mark: u32('mark'),
    priority: u32('priority'),
    ifindex: u32('ifindex'),
    ingress_ifindex: u32('ingress_ifindex'),
    cb: Array.from({ length: CB_WORDS }, (_, i) => skb.readUInt32LE(SKB.cb + 4 * i)),
    tstamp: skb.readBigUInt64LE(SKB.tstamp),
    wire_len: u32('wire_len'),
    gso_segs: u32('gso_segs'),
  };
}

/**
 * Runs a tc program on a packet.
 * @throws BpfError EINVAL for a packet, context or flag that the kernel refuses, ENOSPC where dataOutMax is too small, EBADMSG
 *   where the sum of the packet is wrong afterwards
 */
export function testRun(progFd: number, options: TestRunOptions): TestRunResult {
  const { data, ctx = {}, repeat = 1, dataOutMax = data.length + DEFAULT_ROOM, summed = false } = options;
  const { ctxOut, ...result } = run(progFd, data, encodeContext(ctx), repeat, dataOutMax, summed ? TEST_SUMMED : 0);
  return { ...result, ctxOut: decodeContext(ctxOut) };
}

export interface XdpTestRunResult {
  /** What the program returned; 2 is XDP_PASS. */
  readonly retval: number;
  /** What the program has put in front of the packet (bpf_xdp_adjust_meta). */
  readonly metadata: Buffer;
  /** The packet afterwards. */
  readonly frame: Buffer;
}

/** struct xdp_md of linux/bpf.h: data, data_end, data_meta, and fields that stay 0. */
const XDP_MD_BYTES = 24;

/**
 * Runs an XDP program on a frame of at least 14 bytes. Since Linux 5.15, which has the context for XDP.
 * @throws BpfError EINVAL for a frame that the kernel refuses
 */
export function testRunXdp(progFd: number, data: Buffer): XdpTestRunResult {
  const ctx = Buffer.alloc(XDP_MD_BYTES);
  ctx.writeUInt32LE(data.length, 4);
  const { retval, dataOut, ctxOut } = run(progFd, data, ctx, 1, data.length + DEFAULT_ROOM);
  // The output begins with the metadata; `data` says where the packet does.
  const begin = ctxOut.readUInt32LE(0);
  return { retval, metadata: dataOut.subarray(0, begin), frame: dataOut.subarray(begin) };
}

interface RawResult extends Omit<TestRunResult, 'ctxOut'> {
  readonly ctxOut: Buffer;
}

function run(progFd: number, data: Buffer, ctxIn: Buffer, repeat: number, dataOutMax: number, flags = 0): RawResult {
  const dataOut = Buffer.alloc(dataOutMax);
  const ctxOut = Buffer.alloc(ctxIn.length);
  const opts = Buffer.alloc(OPTS_BYTES);
  opts.writeBigUInt64LE(BigInt(OPTS_BYTES), 0);
  opts.writeBigUInt64LE(addressOf(data), 8);
  opts.writeBigUInt64LE(addressOf(dataOut), 16);
  opts.writeUInt32LE(data.length, 24);
  opts.writeUInt32LE(dataOut.length, 28);
  opts.writeBigUInt64LE(addressOf(ctxIn), 32);
  opts.writeBigUInt64LE(addressOf(ctxOut), 40);
  opts.writeUInt32LE(ctxIn.length, 48);
  opts.writeUInt32LE(ctxOut.length, 52);
  opts.writeInt32LE(repeat, 60);
  opts.writeUInt32LE(flags, 68);
  const rc = libbpf().bpf_prog_test_run_opts(progFd, opts);
  // The addresses above do not keep the buffers alive; this use after the call does.
  check(`test run of program descriptor ${progFd} on ${data.length} bytes with ${ctxIn.length} of context`, rc);
  return {
    retval: opts.readInt32LE(56),
    dataOut: dataOut.subarray(0, Math.min(opts.readUInt32LE(28), dataOut.length)),
    ctxOut,
    durationNs: opts.readUInt32LE(64),
  };
}
