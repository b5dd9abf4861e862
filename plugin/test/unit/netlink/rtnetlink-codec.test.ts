import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { NetlinkFormatError } from '../../../src/netlink/errors.ts';
import { MessageWriter, readU32 } from '../../../src/netlink/message.ts';
import {
  RouteMessage,
  addressesRequest,
  decodeAddress,
  decodeFilter,
  decodeLink,
  decodeQdisc,
  filtersRequest,
  linkRequest,
  linksRequest,
  qdiscsRequest,
} from '../../../src/netlink/rtnetlink-codec.ts';
import { bpfFilter, filterLevel, fromHex, ipv4Address, ipv6Address, only } from './vectors.ts';

/** struct ifinfomsg: family, type ARPHRD_ETHER, index, flags. */
function ifinfomsg(family: number, ifindex: number, flags: number): Buffer {
  const header = Buffer.alloc(16);
  header.writeUInt8(family, 0);
  header.writeUInt32LE(ifindex, 4);
  header.writeUInt32LE(flags, 8);
  return header;
}

function linkMessage(family = 0): Buffer {
  const writer = new MessageWriter(RouteMessage.newLink, 0).header(ifinfomsg(family, 7, 0x1_0001));
  return writer
    .string(3, 'veth0')
    .bytes(1, Uint8Array.of(0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0x0f))
    .u32(4, 1450)
    .u32(5, 12)
    .u32(37, 3)
    .u32(10, 4)
    .nest(18, () => writer.string(1, 'veth'))
    .finish(1);
}

describe('decodeLink', () => {
  test('reads a veth with its peer in another namespace', () => {
    expect(decodeLink(only(linkMessage()))).toEqual({
      ifindex: 7,
      name: 'veth0',
      mac: 'aa:bb:cc:dd:ee:0f',
      mtu: 1450,
      up: true,
      carrier: true,
      kind: 'veth',
      linkIfindex: 12,
      linkNetnsId: 3,
      masterIfindex: 4,
    });
  });

  test('reads the number of a VLAN, and takes no other kind’s data for one', () => {
    const message = (kind: string): Buffer => {
      const writer = new MessageWriter(RouteMessage.newLink, 0).header(ifinfomsg(0, 8, 0)).u32(5, 7);
      return writer
        .nest(18, () => writer.string(1, kind).nest(2, () => writer.bytes(1, Uint8Array.of(100, 0))))
        .finish(1);
    };
    expect(decodeLink(only(message('vlan')))).toMatchObject({ kind: 'vlan', linkIfindex: 7, vlanId: 100 });
    expect(decodeLink(only(message('macvlan')))).not.toHaveProperty('vlanId');
  });

  test('leaves out what the message does not say', () => {
    const bytes = new MessageWriter(RouteMessage.newLink, 0)
      .header(ifinfomsg(0, 1, 0))
      .u32(5, 0)
      .finish(1);
    expect(decodeLink(only(bytes))).toEqual({ ifindex: 1, name: '', mac: '', mtu: 0, up: false, carrier: false });
  });

  test('passes over bridge-port messages: their deletion is not that of the device', () => {
    expect(decodeLink(only(linkMessage(7)))).toBeUndefined();
  });

  test('refuses a short header', () => {
    expect(() => decodeLink(only(new MessageWriter(16, 0).header(new Uint8Array(8)).finish(1)))).toThrow(
      NetlinkFormatError,
    );
  });
});

describe('decodeAddress', () => {
  test('reads IPv4 and IPv6', () => {
    expect(decodeAddress(fromHex(ipv4Address))).toEqual({
      ifindex: 3,
      family: 4,
      address: '10.9.0.1',
      prefixLength: 24,
      scope: 0,
    });
    expect(decodeAddress(fromHex(ipv6Address))).toEqual({
      ifindex: 3,
      family: 6,
      address: 'fe80::a437:48ff:fe77:bdbd',
      prefixLength: 64,
      scope: 253,
    });
  });

  test.each([
    ['before', [1, 2]],
    ['after', [2, 1]],
  ])('takes our own end of a point-to-point link, told %s', (_name, order) => {
    const writer = new MessageWriter(RouteMessage.newAddress, 0).header(Uint8Array.of(2, 32, 0, 0, 3, 0, 0, 0));
    for (const type of order) writer.u32be(type, type === 2 ? 0x0a000001 : 0x0a000002);
    expect(decodeAddress(only(writer.finish(1)))?.address).toBe('10.0.0.1');
  });

  test('passes over other families, and refuses a message without address', () => {
    const message = (family: number): Buffer =>
      new MessageWriter(20, 0).header(Uint8Array.of(family, 0, 0, 0, 1, 0, 0, 0)).finish(1);
    expect(decodeAddress(only(message(28)))).toBeUndefined();
    expect(() => decodeAddress(only(message(2)))).toThrow(NetlinkFormatError);
  });
});

describe('traffic control', () => {
  test('reads a BPF filter', () => {
    expect(decodeFilter(fromHex(bpfFilter))).toEqual({
      priority: 5,
      handle: 1,
      kind: 'bpf',
      chain: 0,
      protocol: 3,
      bpfName: 'p.o:[classifier]',
      bpfId: 120,
      directAction: true,
    });
  });

  test('passes over the message of a priority level', () => {
    expect(decodeFilter(fromHex(filterLevel))).toBeUndefined();
  });

  test('reads a filter of another kind, limited to IPv4', () => {
    const header = Buffer.alloc(20);
    header.writeUInt32LE(0x80000800, 8);
    header.writeUInt32LE((1 << 16) | 0x0008, 16);
    const writer = new MessageWriter(RouteMessage.newFilter, 0).header(header).string(1, 'u32').u32(11, 4);
    expect(decodeFilter(only(writer.nest(2, () => writer.u32(7, 1)).finish(1)))).toEqual({
      priority: 1,
      handle: 0x80000800,
      kind: 'u32',
      chain: 4,
      protocol: 0x0800,
    });
  });

  test('reads the kind of a qdisc', () => {
    const header = Buffer.alloc(20);
    header.writeUInt32LE(9, 4);
    const bytes = new MessageWriter(RouteMessage.newQdisc, 0).header(header).string(1, 'clsact').finish(1);
    expect(decodeQdisc(only(bytes))).toEqual({ ifindex: 9, kind: 'clsact' });
  });
});

describe('requests', () => {
  test('name the device by index or by name', () => {
    expect(linkRequest(5).finish(1).toString('hex', 16, 32)).toBe('00000000050000000000000000000000');
    expect(linkRequest('lo').finish(1).toString('hex', 40)).toBe('070003006c6f0000');
  });

  test('ask for whole tables', () => {
    for (const request of [linksRequest(), addressesRequest(), qdiscsRequest()]) {
      expect(request.finish(1).readUInt16LE(6)).toBe(0x301);
    }
  });

  test.each([
    ['ingress', 0xfffffff2],
    ['egress', 0xfffffff3],
  ] as const)('ask for the %s hook', (direction, parent) => {
    const bytes = filtersRequest(8, direction).finish(1);
    expect([readU32(bytes, 20), readU32(bytes, 28)]).toEqual([8, parent]);
  });
});

test('decoders take cut and damaged messages without failing otherwise', () => {
  const samples = [linkMessage(), ...[bpfFilter, ipv4Address, ipv6Address].map((hex) => Buffer.from(hex, 'hex'))];
  const decoders = [decodeLink, decodeAddress, decodeFilter, decodeQdisc];
  fc.assert(
    fc.property(
      fc.constantFrom(...samples),
      fc.constantFrom(...decoders),
      fc.nat(),
      fc.nat(),
      fc.nat(255),
      (sample, decode, cut, position, value) => {
        const bytes = Buffer.from(sample);
        bytes[16 + (position % (bytes.length - 16))] = value;
        const end = 16 + (cut % (bytes.length - 15));
        const message = { type: 0, flags: 0, sequence: 0, port: 0, buffer: bytes, start: 16, end };
        try {
          decode(message);
        } catch (error) {
          expect(error).toBeInstanceOf(NetlinkFormatError);
        }
      },
    ),
    { numRuns: 2_000 },
  );
});
