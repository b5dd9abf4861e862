import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { NetlinkError, NetlinkFormatError, errnoName, isNetlinkError } from '../../../src/netlink/errors.ts';
import {
  AttributeCursor,
  ControlMessage,
  MessageFlag,
  MessageWriter,
  attributesOffset,
  parseAcknowledgement,
  parseMessages,
} from '../../../src/netlink/message.ts';
import type { NetlinkMessage } from '../../../src/netlink/message.ts';
import { only } from './vectors.ts';

function cursorOver(hex: string): AttributeCursor {
  const bytes = Buffer.from(hex, 'hex');
  return new AttributeCursor(bytes, 0, bytes.length, 'test');
}

function acknowledgement(payload: Buffer, flags = 0, type: number = ControlMessage.error): NetlinkMessage {
  return { type, flags, sequence: 1, port: 1, buffer: payload, start: 0, end: payload.length };
}

describe('MessageWriter', () => {
  test('writes header, padded attributes and nesting as linux/netlink.h lays them out', () => {
    const writer = new MessageWriter(0x101, MessageFlag.ack);
    writer
      .header(Uint8Array.of(2, 0, 0, 0))
      .nest(1, () => writer.u8(1, 6).u16be(2, 0x1234))
      .u32be(8, 3)
      .string(3, 'lo');
    expect(writer.finish(7).toString('hex')).toBe(
      [
        '38000000' + '0101' + '0500' + '07000000' + '00000000',
        '02000000',
        '14000180' + '05000100' + '06000000' + '06000200' + '12340000',
        '08000800' + '00000003',
        '07000300' + '6c6f0000',
      ].join(''),
    );
  });

  test('refuses what exceeds its capacity instead of cutting it', () => {
    const writer = new MessageWriter(1, 0, 32);
    expect(() => writer.bytes(1, new Uint8Array(16))).toThrow(RangeError);
  });

  test('can be finished again under another number', () => {
    const writer = new MessageWriter(1, 0);
    expect(writer.finish(1).readUInt32LE(8)).toBe(1);
    expect(writer.finish(2).readUInt32LE(8)).toBe(2);
  });
});

describe('parseMessages', () => {
  test('splits a datagram and tolerates missing padding at its end', () => {
    const first = new MessageWriter(20, 0).header(Uint8Array.of(1, 2, 3, 4)).finish(5);
    const second = Buffer.from(`11000000150002000600000009000000aa`, 'hex');
    const messages = parseMessages(Buffer.concat([first, second]));
    expect(messages.map(({ type, flags, sequence, port }) => [type, flags, sequence, port])).toEqual([
      [20, 1, 5, 0],
      [21, 2, 6, 9],
    ]);
    expect(messages.map(({ start, end }) => end - start)).toEqual([4, 1]);
  });

  test.each([
    ['a cut header', '10000000'],
    ['a length below the header', `0f000000${'00'.repeat(12)}`],
    ['a length beyond the datagram', `11000000${'00'.repeat(12)}`],
    ['a zero length', '00'.repeat(16)],
  ])('refuses %s', (_name, hex) => {
    expect(() => parseMessages(Buffer.from(hex, 'hex'))).toThrow(NetlinkFormatError);
  });

  test('takes any bytes without failing otherwise', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        try {
          for (const { start, end } of parseMessages(Buffer.from(bytes))) {
            expect(start).toBeLessThanOrEqual(end);
            expect(end).toBeLessThanOrEqual(bytes.length);
          }
        } catch (error) {
          expect(error).toBeInstanceOf(NetlinkFormatError);
        }
      }),
    );
  });
});

describe('AttributeCursor', () => {
  test('reads values and passes over padding and type flags', () => {
    const cursor = cursorOver('0500010007000000' + '0600024012340000' + '08000300000186a0' + '08000480' + '04000500');
    expect(cursor.next() && [cursor.type, cursor.u8()]).toEqual([1, 7]);
    expect(cursor.next() && [cursor.type, cursor.u16be()]).toEqual([2, 0x1234]);
    expect(cursor.next() && [cursor.type, cursor.u32be()]).toEqual([3, 100_000]);
    expect(cursor.next() && cursor.type).toBe(4);
    const inner = cursor.nested();
    expect(inner.next() && [inner.type, inner.bytes()]).toEqual([5, new Uint8Array(0)]);
    expect(inner.next()).toBe(false);
    expect(cursor.next()).toBe(false);
  });

  test('reads text with and without NUL', () => {
    expect([cursorOver('070001006c6f0000'), cursorOver('060001006c6f')].map((c) => c.next() && c.string())).toEqual([
      'lo',
      'lo',
    ]);
  });

  test.each([
    ['a cut header', '0500'],
    ['a length below the header', '03000100'],
    ['a length beyond the range', '0900010000000000'],
  ])('refuses %s', (_name, hex) => {
    expect(() => cursorOver(hex).next()).toThrow(NetlinkFormatError);
  });

  test('refuses a short value rather than reading the neighbour', () => {
    const cursor = cursorOver('0500010007000000');
    cursor.next();
    expect(() => cursor.u16be()).toThrow('attribute 1 has 1 bytes, 2 expected');
    expect(() => cursor.u32()).toThrow(NetlinkFormatError);
    expect(() => cursor.bytes(16)).toThrow(NetlinkFormatError);
  });

  test('its copies survive reuse of the buffer', () => {
    const bytes = Buffer.from('06000100abcd0000', 'hex');
    const cursor = new AttributeCursor(bytes, 0, bytes.length, 'test');
    cursor.next();
    const copy = cursor.bytes();
    bytes.fill(0);
    expect(copy).toEqual(Uint8Array.of(0xab, 0xcd));
  });
});

describe('attributesOffset', () => {
  test('refuses a payload shorter than the family header', () => {
    const message = only(new MessageWriter(1, 0).header(new Uint8Array(4)).finish(1));
    expect(attributesOffset(message, 4, 'thing')).toBe(message.end);
    expect(() => attributesOffset(message, 8, 'thing')).toThrow('thing: payload of 4 bytes, header of 8 expected');
  });
});

describe('parseAcknowledgement', () => {
  const header = Buffer.alloc(16);
  header.writeUInt32LE(20, 0);
  const error = Buffer.from('feffffff', 'hex');
  const text = Buffer.from('0c0001004e6f2077617900ff', 'hex');

  test('reads success and failure', () => {
    expect(parseAcknowledgement(acknowledgement(Buffer.concat([Buffer.alloc(4), header])))).toEqual({ errno: 0 });
    expect(parseAcknowledgement(acknowledgement(Buffer.concat([error, header])))).toEqual({ errno: 2 });
  });

  test("finds the kernel's explanation behind a capped and a whole echo", () => {
    const flags = MessageFlag.ackAttributes;
    const capped = Buffer.concat([error, header, text]);
    const whole = Buffer.concat([error, header, Buffer.alloc(4), text]);
    const expected = { errno: 2, detail: 'No way' };
    expect(parseAcknowledgement(acknowledgement(capped, flags | MessageFlag.capped))).toEqual(expected);
    expect(parseAcknowledgement(acknowledgement(whole, flags))).toEqual(expected);
  });

  test('takes an end of a dump without payload, but not an error without one', () => {
    expect(parseAcknowledgement(acknowledgement(Buffer.alloc(0), 0, ControlMessage.done))).toEqual({ errno: 0 });
    expect(() => parseAcknowledgement(acknowledgement(Buffer.alloc(0)))).toThrow(NetlinkFormatError);
  });

  test('takes any bytes without failing otherwise', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 60 }), fc.nat(0xffff), (bytes, flags) => {
        try {
          parseAcknowledgement(acknowledgement(Buffer.from(bytes), flags));
        } catch (failure) {
          expect(failure).toBeInstanceOf(NetlinkFormatError);
        }
      }),
    );
  });
});

describe('NetlinkError', () => {
  test('names the errno, the operation and the reason', () => {
    const error = new NetlinkError(2, 'conntrack get', 'gone');
    expect(error.message).toBe('conntrack get: ENOENT (gone)');
    expect([error.errno, error.code, error.what]).toEqual([2, 'ENOENT', 'conntrack get']);
    expect(isNetlinkError(error, 'EPERM', 'ENOENT')).toBe(true);
    expect(isNetlinkError(error, 'EPERM')).toBe(false);
    expect(isNetlinkError(new Error('x'), 'ENOENT')).toBe(false);
  });

  test('has one name per number, and one for every number', () => {
    expect([11, 95, 105, 62, 4095].map(errnoName)).toEqual(['EAGAIN', 'EOPNOTSUPP', 'ENOBUFS', 'ETIME', 'E4095']);
  });
});
