import { describe, expect, test } from '@jest/globals';
import {
  bytesCodec,
  checkBigInteger,
  checkInteger,
  checkLength,
  u16Codec,
  u32Codec,
  u64Codec,
  u8Codec,
} from '../../../src/bpf/codec.ts';

describe('plain codecs', () => {
  test('write host byte order and read it back', () => {
    expect(u8Codec.encode(255).toString('hex')).toBe('ff');
    expect(u16Codec.encode(0x1234).toString('hex')).toBe('3412');
    expect(u32Codec.encode(0x12345678).toString('hex')).toBe('78563412');
    expect(u64Codec.encode(1n).toString('hex')).toBe('0100000000000000');
    expect(u8Codec.decode(Buffer.from('ff', 'hex'))).toBe(255);
    expect(u16Codec.decode(Buffer.from('3412', 'hex'))).toBe(0x1234);
    expect(u32Codec.decode(Buffer.from('ffffffff', 'hex'))).toBe(0xffffffff);
    expect(u64Codec.decode(u64Codec.encode(2n ** 64n - 1n))).toBe(2n ** 64n - 1n);
  });

  test('copy bytes, so that the buffer may be used again', () => {
    const buffer = Buffer.from([1, 2]);
    const value = bytesCodec(2).decode(buffer);
    buffer.fill(9);
    expect(value).toEqual(Uint8Array.of(1, 2));
  });

  test('refuse what does not fit', () => {
    expect(() => u32Codec.encode(-1)).toThrow('u32: -1 is no integer in 0..4294967295');
    expect(() => u16Codec.encode(1.5)).toThrow(RangeError);
    expect(() => u64Codec.encode(-1n)).toThrow(RangeError);
    expect(() => u32Codec.decode(Buffer.alloc(5))).toThrow('u32: 5 bytes, expected 4');
    expect(() => bytesCodec(3).encode(new Uint8Array(2))).toThrow('bytes[3]: 2 elements, expected 3');
  });
});

describe('checks name the field', () => {
  test('struct.field', () => {
    expect(() => checkInteger('a.b', 300, 0, 255)).toThrow('a.b: 300 is no integer in 0..255');
    expect(() => checkBigInteger('a.c', 2n ** 63n, -(2n ** 63n), 2n ** 63n - 1n)).toThrow(
      /^a\.c: 9223372036854775808 /,
    );
    expect(() => checkBigInteger('a.c', 1 as unknown as bigint, 0n, 5n)).toThrow(/no bigint/);
    expect(() => checkLength('a.d', [1], 2)).toThrow('a.d: 1 elements, expected 2');
  });
});
