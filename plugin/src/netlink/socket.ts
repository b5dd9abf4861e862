import { constants } from 'node:os';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { NetlinkError, isNetlinkError } from './errors.ts';
import * as libc from './libc.ts';
import {
  ControlMessage,
  MessageFlag,
  parseAcknowledgement,
  parseMessages,
  readU32,
  writeU16,
  writeU32,
} from './message.ts';
import type { MessageWriter, NetlinkMessage } from './message.ts';

/** Netlink families used here (linux/netlink.h). */
export const NetlinkProtocol = { route: 0, netfilter: 12 } as const;

const AF_NETLINK = 16;
const SOCK_RAW = 3;
const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1;
const SO_RCVBUF = 8;
const SO_RCVBUFFORCE = 33;
const SOL_NETLINK = 270;
const NETLINK_ADD_MEMBERSHIP = 1;
const NETLINK_CAP_ACK = 10;
const NETLINK_EXT_ACK = 11;
const MSG_TRUNC = 0x20;
const POLLIN = 1;
const SOCKADDR_NL_BYTES = 12;

/** The kernel's dump datagrams have at most 32 KiB. */
const DATAGRAM_BYTES = 65_536;
/** The kernel answers inside send(2); the wait is for the case that it one day does not. */
const ANSWER_TIMEOUT_MS = 1_000;
/** Datagrams with a foreign sender or number that are passed over before giving up. */
const MAX_STRAY_DATAGRAMS = 64;
const DUMP_ATTEMPTS = 5;

/** How to open a socket. */
export interface NetlinkSocketOptions {
  /** Receive buffer in bytes; beyond net.core.rmem_max it needs CAP_NET_ADMIN, else it is cut. Default: the system's. */
  readonly receiveBufferBytes?: number;
  /** Multicast groups to join, by number (not by mask). */
  readonly groups?: readonly number[];
}

function int(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  writeU32(bytes, value, 0);
  return bytes;
}

/**
 * A nonblocking AF_NETLINK socket that belongs to the network namespace in which it was opened.
 *
 * Use one socket for one purpose: requests, or one dump, or events. Messages handed out are views of the socket's
 * receive buffer, valid only until the next receive; callers decode them at once.
 */
export class NetlinkSocket {
  #fd: number;
  #sequence = 0;
  readonly #buffer = Buffer.allocUnsafeSlow(DATAGRAM_BYTES);
  readonly #address = Buffer.alloc(SOCKADDR_NL_BYTES);
  readonly #addressLength = Buffer.alloc(4);

  private constructor(fd: number) {
    this.#fd = fd;
  }

  /**
   * Opens a socket in the network namespace of the calling thread.
   * @param protocol one of NetlinkProtocol
   * @throws NetlinkError when the kernel refuses the socket or a group
   */
  static open(protocol: number, options: NetlinkSocketOptions = {}): NetlinkSocket {
    const fd = libc.socket(AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol);
    const opened = new NetlinkSocket(fd);
    try {
      // Both only improve error texts and message sizes: old kernels may refuse them.
      libc.setsockopt(fd, SOL_NETLINK, NETLINK_EXT_ACK, int(1));
      libc.setsockopt(fd, SOL_NETLINK, NETLINK_CAP_ACK, int(1));
      if (options.receiveBufferBytes !== undefined) {
        const size = int(options.receiveBufferBytes);
        if (libc.setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, size) !== 0) {
          libc.setsockopt(fd, SOL_SOCKET, SO_RCVBUF, size);
        }
      }
      const address = Buffer.alloc(SOCKADDR_NL_BYTES);
      writeU16(address, AF_NETLINK, 0);
      libc.bind(fd, address);
      for (const group of options.groups ?? []) {
        const result = libc.setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, int(group));
        if (result !== 0) throw new NetlinkError(-result, `join netlink group ${group}`);
      }
    } catch (error) {
      opened.close();
      throw error;
    }
    return opened;
  }

  /** True after close(). */
  get closed(): boolean {
    return this.#fd < 0;
  }

  /** Closes the socket; later calls do nothing. */
  close(): void {
    if (this.#fd < 0) return;
    libc.close(this.#fd);
    this.#fd = -1;
  }

  /**
   * Receives one datagram of the kernel without waiting.
   * @returns its bytes (a view, see the class), or undefined when there is none
   * @throws NetlinkError ENOBUFS when the kernel had to throw messages away; the socket stays usable
   */
  receive(): Buffer | undefined {
    for (let stray = 0; stray < MAX_STRAY_DATAGRAMS; stray++) {
      writeU32(this.#addressLength, SOCKADDR_NL_BYTES, 0);
      const length = libc.recvfrom(this.#open(), this.#buffer, MSG_TRUNC, this.#address, this.#addressLength);
      if (length === -constants.errno.EAGAIN) return undefined;
      if (length < 0) throw new NetlinkError(-length, 'netlink receive');
      // Another process with CAP_NET_ADMIN may send to this socket: only port 0 is the kernel.
      if (readU32(this.#address, 4) !== 0) continue;
      if (length > this.#buffer.length) {
        throw new NetlinkError(constants.errno.EMSGSIZE, `netlink receive of ${length} bytes`);
      }
      return this.#buffer.subarray(0, length);
    }
    return undefined;
  }

  /**
   * Sends a request and reads its answers up to the acknowledgement, synchronously (the kernel answers within send).
   * @param what the operation in words, for errors
   * @param writer the request; NLM_F_ACK must be among its flags
   * @param onReply called for each answer before the acknowledgement
   * @throws NetlinkError with the kernel's errno; ETIMEDOUT when no acknowledgement came within one second
   */
  request(what: string, writer: MessageWriter, onReply: (message: NetlinkMessage) => void = () => undefined): void {
    const sequence = this.#send(what, writer);
    for (;;) {
      for (const message of this.#answers(what, sequence)) {
        if (message.type === ControlMessage.error) {
          const { errno, detail } = parseAcknowledgement(message);
          if (errno !== 0) throw new NetlinkError(errno, what, detail);
          return;
        }
        onReply(message);
      }
    }
  }

  /**
   * Sends a dump request and yields its messages, one datagram's worth at a time.
   *
   * Ends by NLMSG_DONE. A socket whose dump was abandoned must be closed.
   * @throws NetlinkError with the kernel's errno; EINTR when the table changed under the dump, so that entries may be
   *   missing or doubled
   */
  *dump(what: string, writer: MessageWriter): Generator<NetlinkMessage[], void, undefined> {
    const sequence = this.#send(what, writer);
    let interrupted = false;
    for (;;) {
      const part: NetlinkMessage[] = [];
      let done = false;
      for (const message of this.#answers(what, sequence)) {
        if ((message.flags & MessageFlag.dumpInterrupted) !== 0) interrupted = true;
        if (message.type === ControlMessage.done || message.type === ControlMessage.error) {
          const { errno, detail } = parseAcknowledgement(message);
          if (errno !== 0) throw new NetlinkError(errno, what, detail);
          done = true;
        } else {
          part.push(message);
        }
      }
      if (part.length > 0) yield part;
      if (!done) continue;
      if (interrupted) throw new NetlinkError(constants.errno.EINTR, what, 'the table changed during the dump');
      return;
    }
  }

  #open(): number {
    if (this.#fd < 0) throw new NetlinkError(constants.errno.EBADF, 'netlink socket', 'it is closed');
    return this.#fd;
  }

  #send(what: string, writer: MessageWriter): number {
    this.#sequence = this.#sequence >= 0xffff_ffff ? 1 : this.#sequence + 1;
    libc.send(this.#open(), writer.finish(this.#sequence), what);
    return this.#sequence;
  }

  /** The messages of the next datagram that answers `sequence`; left-overs of failed requests are passed over. */
  #answers(what: string, sequence: number): NetlinkMessage[] {
    for (let stray = 0; stray < MAX_STRAY_DATAGRAMS; stray++) {
      const datagram = this.receive() ?? this.#waitAndReceive(what);
      const answers = parseMessages(datagram).filter((message) => message.sequence === sequence);
      if (answers.length > 0) return answers;
    }
    throw new NetlinkError(constants.errno.EPROTO, what, 'only answers to other requests arrive');
  }

  #waitAndReceive(what: string): Buffer {
    const pollfd = Buffer.alloc(8);
    writeU32(pollfd, this.#open(), 0);
    writeU16(pollfd, POLLIN, 4);
    const deadline = performance.now() + ANSWER_TIMEOUT_MS;
    for (;;) {
      const left = Math.ceil(deadline - performance.now());
      const ready = left > 0 ? libc.poll(pollfd, left) : 0;
      if (ready === 0) throw new NetlinkError(constants.errno.ETIMEDOUT, what, 'the kernel did not answer');
      if (ready < 0 && ready !== -constants.errno.EINTR) throw new NetlinkError(-ready, `${what}: poll`);
      const datagram = ready > 0 ? this.receive() : undefined;
      if (datagram !== undefined) return datagram;
    }
  }
}

/** What a table can be dumped from: a NetlinkSocket, or a stand-in in tests. */
export type DumpSource = Pick<NetlinkSocket, 'dump' | 'close'>;

/** A dump: which socket, which request, and how to read an answer. */
export interface DumpPlan<T> {
  /** One of NetlinkProtocol. */
  readonly protocol: number;
  /** The operation in words, for errors. */
  readonly what: string;
  /** The request, written anew for each attempt. */
  readonly request: () => MessageWriter;
  /** One message to one item; undefined leaves it out. */
  readonly decode: (message: NetlinkMessage) => T | undefined;
  /** Where to dump from, opened for each attempt. Default: a new socket of `protocol`. */
  readonly open?: () => DumpSource;
}

/** The items of one part; decoded at once, because the part is a view of the socket's buffer. */
function decodePart<T>(part: readonly NetlinkMessage[], decode: DumpPlan<T>['decode']): T[] {
  const items: T[] = [];
  for (const message of part) {
    const item = decode(message);
    if (item !== undefined) items.push(item);
  }
  return items;
}

function openSource<T>({ open, protocol }: DumpPlan<T>): DumpSource {
  return open === undefined ? NetlinkSocket.open(protocol) : open();
}

/** True when a dump that failed this way is worth another attempt. */
function mayRetry(error: unknown, attempt: number): boolean {
  return isNetlinkError(error, 'EINTR') && attempt < DUMP_ATTEMPTS;
}

/**
 * A whole small table, synchronously and consistent: an interrupted dump is repeated, five times in all.
 * @throws NetlinkError; EINTR when the table never held still
 */
export function dumpTable<T>(plan: DumpPlan<T>): T[] {
  for (let attempt = 1; ; attempt++) {
    const socket = openSource(plan);
    try {
      const items: T[] = [];
      for (const part of socket.dump(plan.what, plan.request())) items.push(...decodePart(part, plan.decode));
      return items;
    } catch (error) {
      if (!mayRetry(error, attempt)) throw error;
    } finally {
      socket.close();
    }
  }
}

/**
 * A large table item by item; other work of the process gets its turn after each datagram (at most 32 KiB).
 *
 * An interrupted dump starts again, five times in all: an item may then come twice. Leaving the loop early ends the
 * dump.
 * @throws NetlinkError; EINTR when the table never held still
 */
export async function* streamTable<T>(plan: DumpPlan<T>): AsyncGenerator<T, void, undefined> {
  for (let attempt = 1; ; attempt++) {
    const socket = openSource(plan);
    try {
      for (const part of socket.dump(plan.what, plan.request())) {
        yield* decodePart(part, plan.decode);
        await nextTurn();
      }
      return;
    } catch (error) {
      if (!mayRetry(error, attempt)) throw error;
    } finally {
      socket.close();
    }
  }
}
