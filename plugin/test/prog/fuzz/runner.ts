/** BPF_PROG_TEST_RUN with buffers that are used again: several ten thousand packets a second. */
import { addressOf, libbpf } from '../../../src/bpf/libbpf.ts';

/** struct bpf_test_run_opts of libbpf 1.1, struct __sk_buff up to hwtstamp. */
const OPTS_BYTES = 80;
const SK_BUFF_BYTES = 192;
const XDP_MD_BYTES = 24;
/** Offsets in struct bpf_test_run_opts: the context given, and its length before and after. */
const CTX = { in: 32, inLength: 48, outLength: 52 } as const;
/** Offsets in struct __sk_buff. */
const SKB = { mark: 8, ingressIfindex: 36, ifindex: 40, cb: 48, wireLen: 160, gsoSegs: 164, gsoSize: 176 } as const;

/** More than any test run takes (a page, less what the kernel needs of it). */
export const MAX_FRAME = 4096;
const EINVAL = 22;

/** What a program sees beside the packet. */
export interface SkbFields {
  ifindex: number;
  ingressIfindex: number;
  cb: readonly number[];
  gsoSize: number;
  gsoSegs: number;
}

/** Runs programs; input and output are views that the next run overwrites. */
export class Runner {
  /** The frame to run on, from its first byte on. */
  readonly input = Buffer.alloc(MAX_FRAME);
  /** The frame afterwards; see `length`. */
  readonly output = Buffer.alloc(MAX_FRAME + 512);
  /** What an XDP program has put in front of it. */
  metadata: Buffer = Buffer.alloc(0);
  readonly #ctxIn = Buffer.alloc(SK_BUFF_BYTES);
  readonly #ctxOut = Buffer.alloc(SK_BUFF_BYTES);
  readonly #xdpIn = Buffer.alloc(XDP_MD_BYTES);
  /** Bytes of `output` that an XDP program has put in front of the frame. */
  #front = 0;
  readonly #opts = Buffer.alloc(OPTS_BYTES);
  readonly #api = libbpf();

  constructor() {
    const opts = this.#opts;
    opts.writeBigUInt64LE(BigInt(OPTS_BYTES), 0);
    opts.writeBigUInt64LE(addressOf(this.input), 8);
    opts.writeBigUInt64LE(addressOf(this.output), 16);
    opts.writeBigUInt64LE(addressOf(this.#ctxOut), 40);
    opts.writeInt32LE(1, 60);
  }

  /**
   * Runs a tc program on the first `length` bytes of `input`.
   * @returns false where the kernel refuses such a packet (too short or too long)
   * @throws Error for every other failure
   */
  run(progFd: number, length: number, skb: SkbFields): boolean {
    const ctxIn = this.#ctxIn;
    ctxIn.writeUInt32LE(skb.ingressIfindex, SKB.ingressIfindex);
    ctxIn.writeUInt32LE(skb.ifindex, SKB.ifindex);
    for (let i = 0; i < 4; i++) ctxIn.writeUInt32LE(skb.cb[i] ?? 0, SKB.cb + 4 * i);
    ctxIn.writeUInt32LE(skb.gsoSize === 0 ? 0 : length, SKB.wireLen);
    ctxIn.writeUInt32LE(skb.gsoSegs, SKB.gsoSegs);
    ctxIn.writeUInt32LE(skb.gsoSize, SKB.gsoSize);
    this.#front = 0;
    return this.#run(progFd, length, ctxIn);
  }

  /** The same with an XDP program. What it puts in front of the frame is `metadata` then. */
  runXdp(progFd: number, length: number): boolean {
    // Where the frame ends; it begins at 0.
    this.#xdpIn.writeUInt32LE(length, 4);
    if (!this.#run(progFd, length, this.#xdpIn)) return false;
    this.#front = this.#ctxOut.readUInt32LE(0);
    this.metadata = Buffer.from(this.output.subarray(0, this.#front));
    this.output.copyWithin(0, this.#front, this.#opts.readUInt32LE(28));
    return true;
  }

  #run(progFd: number, length: number, ctxIn: Buffer): boolean {
    const { input, output } = this;
    const [ctxOut, opts] = [this.#ctxOut, this.#opts];
    opts.writeBigUInt64LE(addressOf(ctxIn), CTX.in);
    opts.writeUInt32LE(ctxIn.length, CTX.inLength);
    opts.writeUInt32LE(ctxIn.length, CTX.outLength);
    opts.writeUInt32LE(length, 24);
    opts.writeUInt32LE(output.length, 28);
    const rc = this.#api.bpf_prog_test_run_opts(progFd, opts);
    if (rc === -EINVAL) return false;
    // The use of all buffers after the call keeps them alive during it.
    if (rc !== 0) throw new Error(`test run of ${length} bytes: ${rc} (${input.length} ${ctxOut.length})`);
    return true;
  }

  /** What the program returned. */
  get verdict(): number {
    return this.#opts.readInt32LE(56);
  }

  /** Bytes of `output` that are the frame. */
  get length(): number {
    return this.#opts.readUInt32LE(28) - this.#front;
  }

  /** A word of skb->cb afterwards. */
  cb(word: number): number {
    return this.#ctxOut.readUInt32LE(SKB.cb + 4 * word);
  }
}
