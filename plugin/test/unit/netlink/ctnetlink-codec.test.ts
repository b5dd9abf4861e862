import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import {
  CtStatus,
  CtTcpState,
  MAX_TIMEOUT_SECONDS,
  decodeEntry,
  deleteRequest,
  dumpRequest,
  entryZone,
  getRequest,
  isIcmpTuple,
  matches,
  reverseTuple,
  timeoutRequest,
} from '../../../src/netlink/ctnetlink-codec.ts';
import type { CtTuple } from '../../../src/netlink/ctnetlink-codec.ts';
import { NetlinkFormatError } from '../../../src/netlink/errors.ts';
import { MessageWriter } from '../../../src/netlink/message.ts';
import { fromHex, genericEntry, icmpEntry, icmpv6Entry, only, tcpEntry } from './vectors.ts';

const client = '10.1.0.1';
const server = '10.1.0.2';
const tcp: CtTuple = { family: 4, src: client, dst: server, proto: 6, sport: 1000, dport: 2000 };
const loopback6 = '::1';

describe('decodeEntry', () => {
  test('reads TCP', () => {
    expect(decodeEntry(fromHex(tcpEntry))).toEqual({
      origin: tcp,
      reply: { family: 4, src: server, dst: client, proto: 6, sport: 2000, dport: 1000 },
      protocol: 6,
      zone: 65520,
      status: CtStatus.confirmed,
      mark: 3,
      id: 0x35582f50,
      timeoutSeconds: 99,
      tcpState: CtTcpState.established,
    });
  });

  test('reads ICMP echo', () => {
    const entry = decodeEntry(fromHex(icmpEntry));
    const loopback = '127.0.0.1';
    const echo = { family: 4, src: loopback, dst: loopback, proto: 1, icmpCode: 0, icmpId: 77 };
    expect(entry).toMatchObject({ origin: { ...echo, icmpType: 8 }, reply: { ...echo, icmpType: 0 }, protocol: 1 });
    expect(entry.status).toBe(CtStatus.confirmed | CtStatus.seenReply);
    expect(entry).not.toHaveProperty('tcpState');
  });

  test('reads ICMPv6 echo', () => {
    const entry = decodeEntry(fromHex(icmpv6Entry));
    expect(entry.origin).toEqual({
      family: 6,
      src: loopback6,
      dst: loopback6,
      proto: 58,
      icmpType: 128,
      icmpCode: 0,
      icmpId: 0x7772,
    });
    expect(isIcmpTuple(entry.reply) && entry.reply.icmpType).toBe(129);
  });

  test('reads a protocol without ports', () => {
    expect(decodeEntry(fromHex(genericEntry))).toMatchObject({
      origin: { family: 4, src: client, dst: server, proto: 253, sport: 0, dport: 0 },
      mark: 3,
      timeoutSeconds: 31,
    });
  });

  test('reads the SCTP state, and is content without zone, mark and timeout', () => {
    const tuple = { ...tcp, proto: 132 };
    const asked = getRequest(tuple, 1, 'orig').finish(1);
    const orig = asked.subarray(20, asked.length - 8);
    const reply = Buffer.from(orig);
    reply.writeUInt16LE(0x8002, 2);
    const writer = new MessageWriter(0x100, 0).header(Uint8Array.of(2, 0, 0, 0));
    writer.header(orig).header(reply);
    writer.nest(4, () => writer.nest(3, () => writer.u8(1, 4)));
    expect(decodeEntry(only(writer.finish(1)))).toEqual({
      origin: tuple,
      reply: tuple,
      protocol: 132,
      zone: 0,
      status: 0,
      mark: 0,
      id: 0,
      sctpState: 4,
    });
  });

  test('refuses a message without tuples', () => {
    const bytes = new MessageWriter(0x100, 0).header(new Uint8Array(4)).u32be(8, 3).finish(1);
    expect(() => decodeEntry(only(bytes))).toThrow(NetlinkFormatError);
  });

  test('takes cut and damaged messages without failing otherwise', () => {
    const samples = [tcpEntry, icmpEntry, icmpv6Entry, genericEntry].map((hex) => Buffer.from(hex, 'hex'));
    fc.assert(
      fc.property(fc.constantFrom(...samples), fc.nat(), fc.nat(), fc.nat(255), (sample, cut, position, value) => {
        const buffer = Buffer.from(sample);
        buffer[16 + (position % (buffer.length - 16))] = value;
        const end = 16 + (cut % (buffer.length - 15));
        const message = { type: 0, flags: 0, sequence: 0, port: 0, buffer, start: 16, end };
        for (const decode of [decodeEntry, entryZone]) {
          try {
            decode(message);
          } catch (error) {
            expect(error).toBeInstanceOf(NetlinkFormatError);
          }
        }
      }),
      { numRuns: 3_000 },
    );
  });
});

describe('requests', () => {
  test('get carries tuple and zone', () => {
    expect(getRequest(tcp, 65520, 'orig').finish(1).toString('hex')).toBe(
      [
        '50000000' + '0101' + '0500' + '01000000' + '00000000' + '02000000',
        '34000180' + '14000180' + '080001000a010001' + '080002000a010002',
        '1c000280' + '0500010006000000' + '0600020003e80000' + '0600030007d00000',
        '06001200fff00000',
      ].join(''),
    );
  });

  test('get by reply tuple differs in the attribute only', () => {
    expect(getRequest(tcp, 1, 'reply').finish(1).readUInt16LE(22)).toBe(0x8002);
  });

  test('the tuple of every kind of entry is written as it is read', () => {
    for (const hex of [tcpEntry, icmpEntry, icmpv6Entry, genericEntry]) {
      const { origin, zone } = decodeEntry(fromHex(hex));
      const request = getRequest(origin, zone, 'orig').finish(1);
      const tupleBytes = request.subarray(20, request.length - 8).toString('hex');
      expect(hex.slice(40, 40 + tupleBytes.length)).toBe(tupleBytes);
    }
  });

  test('set timeout asks for a change, never for a new entry', () => {
    const bytes = timeoutRequest(tcp, 65520, 86_400).finish(1);
    expect([bytes.readUInt16LE(4), bytes.readUInt16LE(6)]).toEqual([0x100, 0x5]);
    expect(bytes.toString('hex', bytes.length - 8)).toBe('0800070000015180');
  });

  test.each([0, -1, 1.5, NaN, MAX_TIMEOUT_SECONDS + 1])('set timeout refuses %p seconds', (seconds) => {
    expect(() => timeoutRequest(tcp, 1, seconds)).toThrow(RangeError);
  });

  test('delete always names one entry, by id too if asked', () => {
    const plain = deleteRequest(tcp, 1).finish(1);
    expect([plain.readUInt16LE(4), plain.readUInt16LE(22)]).toEqual([0x102, 0x8001]);
    const bytes = deleteRequest(tcp, 1, 0xdeadbeef).finish(1);
    expect(bytes.toString('hex', bytes.length - 8)).toBe('08000c00deadbeef');
  });

  test('dump carries zone, mark and mask', () => {
    expect(dumpRequest({ zone: 65520, mark: 3, markMask: 0xf, family: 4 }).finish(1).toString('hex', 16)).toBe(
      '02000000' + '06001200fff00000' + '0800080000000003' + '080015000000000f',
    );
    expect(dumpRequest({ mark: 1 }).finish(1).toString('hex', 28)).toBe('08001500ffffffff');
    expect(dumpRequest({}).finish(1).toString('hex', 16)).toBe('00000000');
  });

  test('refuse zones and addresses that are none', () => {
    expect(() => getRequest(tcp, 65536, 'orig')).toThrow(RangeError);
    expect(() => dumpRequest({ zone: -1 })).toThrow(RangeError);
    expect(() => getRequest({ ...tcp, family: 6 }, 1, 'orig')).toThrow(RangeError);
    expect(() => getRequest({ ...tcp, src: loopback6 }, 1, 'orig')).toThrow(RangeError);
  });
});

describe('filtering', () => {
  const entry = { ...decodeEntry(fromHex(tcpEntry)), mark: 0x80000013 };

  test.each([
    [{}, true],
    [{ zone: 65520 }, true],
    [{ zone: 0 }, false],
    [{ mark: 3, markMask: 0xf }, true],
    [{ mark: 3 }, false],
    [{ mark: 0x80000013 }, true],
    [{ mark: 0x80000000, markMask: 0x80000000 }, true],
    [{ mark: 1, markMask: 0xf }, false],
    [{ family: 4 as const }, true],
    [{ family: 6 as const }, false],
  ])('%p: %p', (filter, expected) => {
    expect(matches(entry, filter)).toBe(expected);
  });

  test('the zone is found alone, 0 where none is told', () => {
    expect(entryZone(fromHex(tcpEntry))).toBe(65520);
    expect(entryZone(only(new MessageWriter(0x100, 0).header(new Uint8Array(4)).finish(1)))).toBe(0);
  });
});

describe('reverseTuple', () => {
  test('mirrors ports and pairs ICMP types', () => {
    expect(reverseTuple(tcp)).toEqual(decodeEntry(fromHex(tcpEntry)).reply);
    for (const hex of [icmpEntry, icmpv6Entry, genericEntry]) {
      const { origin, reply } = decodeEntry(fromHex(hex));
      expect(reverseTuple(origin)).toEqual(reply);
      expect(reverseTuple(reply)).toEqual(origin);
    }
  });

  test('knows no answer to an ICMP error', () => {
    expect(
      reverseTuple({ family: 4, src: client, dst: server, proto: 1, icmpType: 3, icmpCode: 0, icmpId: 0 }),
    ).toBeUndefined();
  });
});
