/**
 * Netlink messages and attributes to and from bytes: pure functions, no system call.
 *
 * Headers and most rtnetlink values are in host byte order; conntrack values are big-endian ("be" methods).
 */
import { endianness } from 'node:os';
import { NetlinkFormatError } from './errors.ts';

/** Bytes of struct nlmsghdr. */
export const MESSAGE_HEADER_BYTES = 16;
/** Bytes of struct nlattr. */
export const ATTRIBUTE_HEADER_BYTES = 4;

/** Message flags of linux/netlink.h. */
export const MessageFlag = {
  request: 0x1,
  multi: 0x2,
  ack: 0x4,
  dumpInterrupted: 0x10,
  /** On requests: the whole table (NLM_F_ROOT | NLM_F_MATCH). */
  dump: 0x300,
  /** On error messages: the request is not echoed beyond its header. */
  capped: 0x100,
  /** On error messages: attributes with the kernel's own explanation follow. */
  ackAttributes: 0x200,
} as const;

/** Control message types of linux/netlink.h. */
export const ControlMessage = { noop: 1, error: 2, done: 3, overrun: 4 } as const;

const NLA_F_NESTED = 0x8000;
const NLA_TYPE_MASK = 0x3fff;

const littleEndian = endianness() === 'LE';

/** Reads a host-order u16. */
export function readU16(buffer: Buffer, offset: number): number {
  return littleEndian ? buffer.readUInt16LE(offset) : buffer.readUInt16BE(offset);
}

/** Reads a host-order u32. */
export function readU32(buffer: Buffer, offset: number): number {
  return littleEndian ? buffer.readUInt32LE(offset) : buffer.readUInt32BE(offset);
}

/** Reads a host-order i32. */
export function readI32(buffer: Buffer, offset: number): number {
  return readU32(buffer, offset) | 0;
}

/** Writes a host-order u16. */
export function writeU16(buffer: Buffer, value: number, offset: number): void {
  if (littleEndian) buffer.writeUInt16LE(value, offset);
  else buffer.writeUInt16BE(value, offset);
}

/** Writes a host-order u32. */
export function writeU32(buffer: Buffer, value: number, offset: number): void {
  if (littleEndian) buffer.writeUInt32LE(value, offset);
  else buffer.writeUInt32BE(value, offset);
}

function align(length: number): number {
  return (length + 3) & ~3;
}

/** One message of a datagram. The payload is a range of `buffer`, valid until the owner of the buffer reuses it. */
export interface NetlinkMessage {
  readonly type: number;
  readonly flags: number;
  readonly sequence: number;
  /** Port of the socket that the message answers, 0 for events. */
  readonly port: number;
  readonly buffer: Buffer;
  /** First byte of the payload (the family's own header). */
  readonly start: number;
  /** One past the last byte of the payload. */
  readonly end: number;
}

/**
 * Splits a datagram into its messages.
 * @throws NetlinkFormatError when a length does not fit the datagram
 */
export function parseMessages(datagram: Buffer): NetlinkMessage[] {
  const messages: NetlinkMessage[] = [];
  let offset = 0;
  while (offset < datagram.length) {
    const left = datagram.length - offset;
    if (left < MESSAGE_HEADER_BYTES) {
      throw new NetlinkFormatError(`netlink message header at byte ${offset}: ${left} bytes left, 16 needed`);
    }
    const length = readU32(datagram, offset);
    if (length < MESSAGE_HEADER_BYTES || length > left) {
      throw new NetlinkFormatError(`netlink message at byte ${offset}: length ${length}, ${left} bytes left`);
    }
    messages.push({
      type: readU16(datagram, offset + 4),
      flags: readU16(datagram, offset + 6),
      sequence: readU32(datagram, offset + 8),
      port: readU32(datagram, offset + 12),
      buffer: datagram,
      start: offset + MESSAGE_HEADER_BYTES,
      end: offset + length,
    });
    offset += align(length);
  }
  return messages;
}

/**
 * Checks that a message holds its family's fixed header and returns the offset of the first attribute.
 * @throws NetlinkFormatError when the message is shorter than the header
 */
export function attributesOffset(message: NetlinkMessage, headerBytes: number, what: string): number {
  const length = message.end - message.start;
  if (length < headerBytes) {
    throw new NetlinkFormatError(`${what}: payload of ${length} bytes, header of ${headerBytes} expected`);
  }
  return Math.min(message.start + align(headerBytes), message.end);
}

/**
 * Walks the attributes of a byte range without copying.
 *
 * `next()` moves to the next attribute; `type` and the value methods then speak of that one. Value methods check the
 * size, so that a short attribute is an error and never a read of its neighbour.
 */
export class AttributeCursor {
  /** Type of the current attribute, without the nested and byte-order flags. */
  type = 0;
  readonly #buffer: Buffer;
  readonly #end: number;
  readonly #what: string;
  #next: number;
  #valueStart = 0;
  #valueEnd = 0;

  /**
   * @param what the thing being read, for error messages
   */
  constructor(buffer: Buffer, start: number, end: number, what: string) {
    this.#buffer = buffer;
    this.#next = start;
    this.#end = end;
    this.#what = what;
  }

  /**
   * Moves to the next attribute; false at the end.
   * @throws NetlinkFormatError when a length does not fit the range
   */
  next(): boolean {
    const left = this.#end - this.#next;
    if (left <= 0) return false;
    if (left < ATTRIBUTE_HEADER_BYTES) {
      throw new NetlinkFormatError(`${this.#what}: ${left} bytes left at byte ${this.#next}, no room for an attribute`);
    }
    const length = readU16(this.#buffer, this.#next);
    if (length < ATTRIBUTE_HEADER_BYTES || length > left) {
      throw new NetlinkFormatError(
        `${this.#what}: attribute at byte ${this.#next} has length ${length}, ${left} bytes left`,
      );
    }
    this.type = readU16(this.#buffer, this.#next + 2) & NLA_TYPE_MASK;
    this.#valueStart = this.#next + ATTRIBUTE_HEADER_BYTES;
    this.#valueEnd = this.#next + length;
    this.#next += align(length);
    return true;
  }

  #offset(bytes: number): number {
    const length = this.#valueEnd - this.#valueStart;
    if (length < bytes) {
      throw new NetlinkFormatError(`${this.#what}: attribute ${this.type} has ${length} bytes, ${bytes} expected`);
    }
    return this.#valueStart;
  }

  /** Value as u8. */
  u8(): number {
    return this.#buffer.readUInt8(this.#offset(1));
  }

  /** Value as host-order u16. */
  u16(): number {
    return readU16(this.#buffer, this.#offset(2));
  }

  /** Value as big-endian u16. */
  u16be(): number {
    return this.#buffer.readUInt16BE(this.#offset(2));
  }

  /** Value as big-endian u32. */
  u32be(): number {
    return this.#buffer.readUInt32BE(this.#offset(4));
  }

  /** Value as host-order u32. */
  u32(): number {
    return readU32(this.#buffer, this.#offset(4));
  }

  /** A copy of the first `bytes` bytes of the value, or of all of it. */
  bytes(bytes = this.#valueEnd - this.#valueStart): Uint8Array {
    const start = this.#offset(bytes);
    return Uint8Array.from(this.#buffer.subarray(start, start + bytes));
  }

  /** Value as text up to its first NUL. */
  string(): string {
    const value = this.#buffer.subarray(this.#valueStart, this.#valueEnd);
    const nul = value.indexOf(0);
    return value.toString('utf8', 0, nul < 0 ? value.length : nul);
  }

  /** A cursor over the attributes inside the value. */
  nested(): AttributeCursor {
    return new AttributeCursor(this.#buffer, this.#valueStart, this.#valueEnd, this.#what);
  }
}

/** Builds one message: the family's header by `header()`, then attributes, then `finish()`. */
export class MessageWriter {
  readonly #buffer: Buffer;
  readonly #type: number;
  readonly #flags: number;
  #length = MESSAGE_HEADER_BYTES;

  /**
   * @param type message type
   * @param flags NLM_F_*; NLM_F_REQUEST is added
   * @param capacity most bytes the message may have; more is a RangeError
   */
  constructor(type: number, flags: number, capacity = 512) {
    this.#buffer = Buffer.alloc(capacity);
    this.#type = type;
    this.#flags = flags | MessageFlag.request;
  }

  #reserve(bytes: number): number {
    const offset = this.#length;
    const length = offset + align(bytes);
    if (length > this.#buffer.length) {
      throw new RangeError(`netlink message of ${length} bytes exceeds its capacity of ${this.#buffer.length}`);
    }
    this.#length = length;
    return offset;
  }

  #attribute(type: number, bytes: number): number {
    const offset = this.#reserve(ATTRIBUTE_HEADER_BYTES + bytes);
    writeU16(this.#buffer, ATTRIBUTE_HEADER_BYTES + bytes, offset);
    writeU16(this.#buffer, type, offset + 2);
    return offset + ATTRIBUTE_HEADER_BYTES;
  }

  /** Appends the family's fixed header. */
  header(bytes: Uint8Array): this {
    this.#buffer.set(bytes, this.#reserve(bytes.length));
    return this;
  }

  /** Appends an attribute with a u8. */
  u8(type: number, value: number): this {
    this.#buffer.writeUInt8(value, this.#attribute(type, 1));
    return this;
  }

  /** Appends an attribute with a big-endian u16. */
  u16be(type: number, value: number): this {
    this.#buffer.writeUInt16BE(value, this.#attribute(type, 2));
    return this;
  }

  /** Appends an attribute with a big-endian u32. */
  u32be(type: number, value: number): this {
    this.#buffer.writeUInt32BE(value, this.#attribute(type, 4));
    return this;
  }

  /** Appends an attribute with a host-order u32. */
  u32(type: number, value: number): this {
    writeU32(this.#buffer, value, this.#attribute(type, 4));
    return this;
  }

  /** Appends an attribute with these bytes. */
  bytes(type: number, value: Uint8Array): this {
    this.#buffer.set(value, this.#attribute(type, value.length));
    return this;
  }

  /** Appends an attribute with NUL-terminated text. */
  string(type: number, value: string): this {
    return this.bytes(type, Buffer.from(`${value}\0`, 'utf8'));
  }

  /** Appends a nested attribute that holds what `fill` appends. */
  nest(type: number, fill: () => void): this {
    const start = this.#length;
    this.#attribute(type | NLA_F_NESTED, 0);
    fill();
    writeU16(this.#buffer, this.#length - start, start);
    return this;
  }

  /** The message with its header completed; it stays valid, and may be finished again under another number. */
  finish(sequence: number): Buffer {
    writeU32(this.#buffer, this.#length, 0);
    writeU16(this.#buffer, this.#type, 4);
    writeU16(this.#buffer, this.#flags, 6);
    writeU32(this.#buffer, sequence, 8);
    writeU32(this.#buffer, 0, 12);
    return this.#buffer.subarray(0, this.#length);
  }
}

/** What an error message (which is also the positive acknowledgement) says. */
export interface Acknowledgement {
  /** Positive errno; 0 when the request succeeded. */
  readonly errno: number;
  /** The kernel's own explanation, if it gave one. */
  readonly detail?: string;
}

const NLMSGERR_ATTR_MSG = 1;

/** Decodes NLMSG_ERROR, and NLMSG_DONE, whose payload may be empty on old kernels. */
export function parseAcknowledgement(message: NetlinkMessage): Acknowledgement {
  const { buffer, start, end, flags, type } = message;
  const done = type === ControlMessage.done;
  if (end - start < 4) {
    if (done) return { errno: 0 };
    throw new NetlinkFormatError(`netlink acknowledgement: payload of ${end - start} bytes, 4 expected`);
  }
  const errno = 0 - readI32(buffer, start);
  if ((flags & MessageFlag.ackAttributes) === 0) return { errno };
  let attributes = start + 4;
  if (!done) {
    const echoed = attributesOffset(message, 4 + MESSAGE_HEADER_BYTES, 'netlink acknowledgement');
    attributes = (flags & MessageFlag.capped) !== 0 ? echoed : start + 4 + align(readU32(buffer, start + 4));
  }
  for (const cursor = new AttributeCursor(buffer, attributes, end, 'netlink acknowledgement'); cursor.next();) {
    if (cursor.type === NLMSGERR_ATTR_MSG) return { errno, detail: cursor.string() };
  }
  return { errno };
}
