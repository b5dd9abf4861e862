/** The decoders of what the lab's tools print and capture. */
import { describe, expect, test } from '@jest/globals';
import { filterArgs, matches, parseConntrack, timeoutSysctls } from './conntrack.ts';
import { crc32c, decodeFrame, internetChecksum } from './packet.ts';
import { readPcap } from './pcap.ts';

describe('conntrack entries', () => {
  const tcp =
    'ipv4     2 tcp      6 118 TIME_WAIT src=10.10.1.2 dst=10.10.2.2 sport=4000 dport=5000 packets=8 bytes=448 ' +
    'src=10.10.2.2 dst=10.10.1.2 sport=5000 dport=4000 packets=6 bytes=344 [ASSURED] mark=1 zone=65520 delta-time=1 ' +
    'use=1 id=3977594149';
  const icmp =
    'ipv4     2 icmp     1 29 src=10.10.1.2 dst=10.10.2.2 type=8 code=0 id=77 packets=1 bytes=84 [UNREPLIED] ' +
    'src=10.10.2.2 dst=10.10.1.2 type=0 code=0 id=77 packets=0 bytes=0 mark=0 use=1 id=12';

  test('of TCP with zone, state, mark and counters', () => {
    const [entry] = parseConntrack(`${tcp}\n`);
    expect(entry).toEqual({
      id: 3977594149,
      zone: 65520,
      proto: 'tcp',
      protonum: 6,
      timeout: 118,
      state: 'TIME_WAIT',
      mark: 1,
      assured: true,
      replied: true,
      original: { src: '10.10.1.2', dst: '10.10.2.2', sport: 4000, dport: 5000, packets: 8, bytes: 448 },
      reply: { src: '10.10.2.2', dst: '10.10.1.2', sport: 5000, dport: 4000, packets: 6, bytes: 344 },
    });
  });

  test('of ICMP: the identifier is not the id of the entry', () => {
    const [entry] = parseConntrack(icmp);
    expect(entry).toMatchObject({ id: 12, zone: 0, replied: false, assured: false });
    expect(entry?.original).toMatchObject({ sport: 77, dport: 77 });
  });

  test('are filtered by what conntrack(8) cannot filter too', () => {
    const entries = parseConntrack(`${tcp}\n${icmp}\nconntrack v1.4.7 (conntrack-tools): 2 flow entries\n`);
    expect(entries).toHaveLength(2);
    expect(entries.filter((entry) => matches(entry, { zone: 0 })).map((entry) => entry.proto)).toEqual(['icmp']);
    expect(entries.filter((entry) => matches(entry, { dport: 5000, mark: 1 }))).toHaveLength(1);
    expect(filterArgs({ zone: 65520, proto: 'tcp', dport: 5000 })).toEqual(['--zone', '65520', '-p', 'tcp']);
    expect(timeoutSysctls({ udpStream: 3 })).toEqual({ 'net/netfilter/nf_conntrack_udp_timeout_stream': 3 });
  });
});

describe('frames', () => {
  const hex = (text: string): Buffer => Buffer.from(text.replace(/\s/g, ''), 'hex');
  const ethernet = 'aabbccddeeff 0a580a0a0102 0800';
  // An echo request of 3 bytes payload: odd length, checksums worked out by hand.
  const ping = `${ethernet} 45b8001f 12340000 40010000 0a0a0102 0a0a0202 0800 0000 0007 0001 616263`;

  function withChecksums(frame: Buffer): Buffer {
    frame.writeUInt16BE(internetChecksum(frame.subarray(14, 34)), 24);
    frame.writeUInt16BE(internetChecksum(frame.subarray(34)), 36);
    return frame;
  }

  test('of ICMP echo, padded to the minimum of Ethernet', () => {
    const frame = Buffer.concat([withChecksums(hex(ping)), Buffer.alloc(15, 0xee)]);
    expect(decodeFrame(frame)).toMatchObject({
      srcMac: '0a:58:0a:0a:01:02',
      ip: { src: '10.10.1.2', dst: '10.10.2.2', tos: 0xb8, id: 0x1234, df: false, ttl: 64, checksumValid: true },
      l4: { icmpType: 8, sport: 7, seq: 1, payloadLength: 3, checksumValid: true },
    });
  });

  test('with a wrong byte have a wrong checksum', () => {
    const frame = withChecksums(hex(ping));
    frame.writeUInt8(frame.readUInt8(42) ^ 1, 42);
    expect(decodeFrame(frame).l4?.checksumValid).toBe(false);
    frame.writeUInt8(63, 22);
    expect(decodeFrame(frame).ip?.checksumValid).toBe(false);
  });

  test('that are cut anywhere are decoded as far as they go', () => {
    const frame = withChecksums(hex(ping));
    for (let length = 0; length < frame.length; length++) {
      const packet = decodeFrame(frame.subarray(0, length));
      expect(packet.l4?.checksumValid).toBeUndefined();
    }
  });

  test('inside VXLAN are decoded too', () => {
    const inner = withChecksums(hex(ping));
    const udpLength = (8 + 8 + inner.length).toString(16).padStart(4, '0');
    const ipLength = (20 + 8 + 8 + inner.length).toString(16).padStart(4, '0');
    const outer = hex(
      `${ethernet} 4500${ipLength} 00004000 40110000 ac1e0001 ac1e0002 c000 12b5 ${udpLength} 0000 08000000 00000100`,
    );
    expect(decodeFrame(Buffer.concat([outer, inner]))).toMatchObject({
      ip: { src: '172.30.0.1', df: true },
      l4: { dport: 4789, checksumValid: undefined },
      vni: 1,
      inner: { ip: { src: '10.10.1.2' }, l4: { icmpType: 8, checksumValid: true } },
    });
  });

  test('inside Geneve are decoded too, behind its options; other versions and payloads are not', () => {
    const inner = withChecksums(hex(ping));
    const geneve = (header: string): Buffer => {
      const length = (extra: number): string => (extra + 16 + inner.length).toString(16).padStart(4, '0');
      const ip = `4500${length(24)} 00004000 40110000 ac1e0001 ac1e0002`;
      return Buffer.concat([hex(`${ethernet} ${ip} c000 17c1 ${length(4)} 0000 ${header} 00000500 00000000`), inner]);
    };
    expect(decodeFrame(geneve('01006558'))).toMatchObject({
      l4: { dport: 6081 },
      vni: 5,
      inner: { ip: { src: '10.10.1.2' }, l4: { icmpType: 8, checksumValid: true } },
    });
    for (const header of ['c1006558', '01000800', '3f006558']) {
      expect(decodeFrame(geneve(header)).inner?.ip).toBeUndefined();
    }
  });

  const ipv6 = (next: string, length: number, payload: string): Buffer => {
    const addresses = 'fd10000100000000000000000000000a fd100002000000010000000000000002';
    const header = `6b8 5e7c4 ${length.toString(16).padStart(4, '0')} ${next} 3f ${addresses}`;
    return hex(`aabbccddeeff 0a580a0a0102 86dd ${header} ${payload}`);
  };

  test('of ICMPv6 echo: flow label, traffic class, hop limit, checksum with the pseudo header', () => {
    const frame = ipv6('3a', 11, '8000 0000 0007 0001 616263');
    // The pseudo header: addresses, length, next header.
    frame.writeUInt16BE(internetChecksum(frame.subarray(22), 11 + 58), 56);
    expect(decodeFrame(frame)).toMatchObject({
      ip: undefined,
      ip6: {
        src: 'fd10:1::a',
        dst: 'fd10:2:0:1::2',
        hopLimit: 63,
        trafficClass: 0xb8,
        flowLabel: 0x5e7c4,
        nextHeader: 58,
        proto: 58,
        extensions: [],
        fragment: undefined,
        length: 51,
        headerLength: 40,
      },
      l4: { icmpType: 128, sport: 7, seq: 1, payloadLength: 3, checksumValid: true },
    });
    frame.writeUInt8(0xb9, 15 + 40);
    expect(decodeFrame(frame).l4?.checksumValid).toBe(false);
    for (let length = 0; length < frame.length; length++) {
      expect(decodeFrame(frame.subarray(0, length)).l4?.checksumValid).toBeUndefined();
    }
  });

  test('of IPv6 with extension headers and fragments', () => {
    const options = '3c00010400000000 2c00010400000000';
    const udp = '00070008000a0000 6162';
    const first = decodeFrame(ipv6('00', 34, `${options} 1100000100000009 ${udp}`));
    expect(first).toMatchObject({
      ip6: {
        nextHeader: 0,
        proto: 17,
        extensions: [0, 60, 44],
        fragment: { offset: 0, more: true, id: 9 },
        headerLength: 64,
      },
      l4: { sport: 7, dport: 8, payloadLength: 2, checksumValid: undefined },
    });
    const later = decodeFrame(ipv6('2c', 18, `1100001000000009 ${udp}`));
    expect(later).toMatchObject({ ip6: { proto: 17, fragment: { offset: 16, more: false } }, l4: undefined });
  });

  test('inside VXLAN over IPv6, on the port that is given', () => {
    const inner = withChecksums(hex(ping));
    const outer = ipv6('11', 16 + inner.length, `c000 22b8 ${(16 + inner.length).toString(16).padStart(4, '0')} 0000`);
    const frame = Buffer.concat([outer, hex('08000000 00000000'), inner]);
    expect(decodeFrame(frame).inner).toBeUndefined();
    const packet = decodeFrame(frame, { vxlan: 8888, geneve: 6081 });
    expect(packet).toMatchObject({ vni: 0, inner: { ip: { src: '10.10.1.2' } }, l4: { checksumValid: undefined } });
    expect(frame.subarray(packet.innerOffset)).toEqual(inner);
  });

  test('CRC32c of the check string of its definition', () => {
    expect(crc32c(Buffer.from('123456789'))).toBe(0xe3069283);
  });

  test('a pcap file that is cut loses its last packet only', () => {
    const frame = withChecksums(hex(ping));
    const header = hex('d4c3b2a1 0200 0400 00000000 00000000 00000400 01000000');
    const record = Buffer.alloc(16);
    record.writeUInt32LE(10, 0);
    record.writeUInt32LE(500_000, 4);
    record.writeUInt32LE(frame.length, 8);
    record.writeUInt32LE(frame.length, 12);
    const file = Buffer.concat([header, record, frame, record, frame.subarray(0, 9)]);
    const packets = readPcap(file);
    expect(packets).toHaveLength(1);
    expect(packets[0]).toMatchObject({ time: 10.5, wireLength: frame.length });
    expect(() => readPcap(hex('00'.repeat(30)))).toThrow(/magic/);
  });
});
