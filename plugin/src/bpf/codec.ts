/** Turns a value into the bytes of a C struct and back. */
export interface Codec<T> {
  /** Bytes, including trailing padding. */
  readonly size: number;
  /**
   * A new buffer of `size` bytes, padding zero (the kernel compares hash keys byte by byte).
   * @throws RangeError naming struct and field where a value does not fit
   */
  encode(value: T): Buffer;
  /** @throws RangeError where `bytes` has not exactly `size` bytes */
  decode(bytes: Buffer): T;
}

/** The value type of a codec. */
export type Decoded<C> = C extends Codec<infer T> ? T : never;

/**
 * A codec from two functions that work at an offset, the form the generated layouts have.
 * @param name for messages
 */
export function makeCodec<T>(
  name: string,
  size: number,
  write: (to: Buffer, at: number, value: T) => void,
  read: (from: Buffer, at: number) => T,
): Codec<T> {
  return {
    size,
    encode(value) {
      const bytes = Buffer.alloc(size);
      write(bytes, 0, value);
      return bytes;
    },
    decode(bytes) {
      if (bytes.length !== size) throw new RangeError(`${name}: ${bytes.length} bytes, expected ${size}`);
      return read(bytes, 0);
    },
  };
}

/**
 * Checks an integer of up to 32 bits.
 * @param field "struct.field" for the message
 */
export function checkInteger(field: string, value: number, low: number, high: number): number {
  if (!Number.isInteger(value) || value < low || value > high) {
    throw new RangeError(`${field}: ${value} is no integer in ${low}..${high}`);
  }
  return value;
}

/** Checks a 64-bit integer, as checkInteger does. */
export function checkBigInteger(field: string, value: bigint, low: bigint, high: bigint): bigint {
  if (typeof value !== 'bigint' || value < low || value > high) {
    throw new RangeError(`${field}: ${String(value)} is no bigint in ${low.toString()}..${high.toString()}`);
  }
  return value;
}

/** Checks the number of elements of a fixed array. */
export function checkLength(field: string, value: { readonly length: number }, length: number): void {
  if (value.length !== length) throw new RangeError(`${field}: ${value.length} elements, expected ${length}`);
}

/** A 32-bit unsigned number in host byte order (little endian on every supported machine). */
export const u32Codec: Codec<number> = makeCodec<number>(
  'u32',
  4,
  (to, at, value) => to.writeUInt32LE(checkInteger('u32', value, 0, 0xffffffff), at),
  (from, at) => from.readUInt32LE(at),
);

/** A 16-bit unsigned number in host byte order. */
export const u16Codec: Codec<number> = makeCodec<number>(
  'u16',
  2,
  (to, at, value) => to.writeUInt16LE(checkInteger('u16', value, 0, 0xffff), at),
  (from, at) => from.readUInt16LE(at),
);

/** An 8-bit unsigned number. */
export const u8Codec: Codec<number> = makeCodec<number>(
  'u8',
  1,
  (to, at, value) => to.writeUInt8(checkInteger('u8', value, 0, 0xff), at),
  (from, at) => from.readUInt8(at),
);

/** A 64-bit unsigned number in host byte order. */
export const u64Codec: Codec<bigint> = makeCodec<bigint>(
  'u64',
  8,
  (to, at, value) => to.writeBigUInt64LE(checkBigInteger('u64', value, 0n, 0xffffffffffffffffn), at),
  (from, at) => from.readBigUInt64LE(at),
);

/** Uninterpreted bytes of a fixed length. */
export function bytesCodec(size: number): Codec<Uint8Array> {
  return makeCodec<Uint8Array>(
    `bytes[${size}]`,
    size,
    (to, at, value) => {
      checkLength(`bytes[${size}]`, value, size);
      to.set(value, at);
    },
    (from, at) => Uint8Array.from(from.subarray(at, at + size)),
  );
}
