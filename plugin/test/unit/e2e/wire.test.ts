import { describe, expect, test } from '@jest/globals';
import { IPPROTO } from '../../../../e2e/lab/packet.ts';
import type { Ipv4Fields, Packet, TransportFields } from '../../../../e2e/lab/packet.ts';
import { countWire, wirePath } from '../../../../e2e/lab/wire.ts';

const FLOW = {
  proto: IPPROTO.tcp,
  client: { pod: { address: '10.10.1.2' }, node: { address: '172.30.0.1' }, port: 40000 },
  server: { pod: { address: '10.10.2.2' }, node: { address: '172.30.0.2' }, port: 80 },
};

function packet(ip: Partial<Ipv4Fields>, ports: readonly [number, number], inner?: Packet): Packet {
  const l4: TransportFields = {
    sport: ports[0],
    dport: ports[1],
    flags: 16,
    seq: 1,
    ack: 1,
    icmpType: undefined,
    icmpCode: undefined,
    payloadLength: 0,
    payloadHash: '',
    checksumValid: true,
  };
  return {
    srcMac: '',
    dstMac: '',
    etherType: 0x0800,
    ip: {
      src: '172.30.0.1',
      dst: '172.30.0.2',
      ttl: 64,
      tos: 0,
      id: 0x8040,
      df: true,
      mf: false,
      fragmentOffset: 0,
      proto: IPPROTO.tcp,
      length: 40,
      headerLength: 20,
      checksumValid: true,
      ...ip,
    },
    ip6: undefined,
    l4,
    vni: inner === undefined ? undefined : 1,
    innerOffset: undefined,
    inner,
  };
}

const masqueraded = packet({}, [40000, 80]);
const answer = packet({ src: '172.30.0.2', dst: '172.30.0.1' }, [80, 40000]);
const inTunnel = packet(
  { proto: IPPROTO.udp },
  [51000, 4789],
  packet({ src: '10.10.1.2', dst: '10.10.2.2', id: 0x8040 }, [40000, 80]),
);

describe('path of a packet on the underlay', () => {
  test.each<[string, Packet, ReturnType<typeof wirePath>]>([
    ['from node to node with marker', masqueraded, 'masqueraded'],
    ['the other direction', answer, 'masqueraded'],
    ['inside VXLAN', inTunnel, 'encapsulated'],
    ['no marker', packet({ id: 0x0040 }, [40000, 80]), 'unmarked'],
    ['no DF', packet({ df: false }, [40000, 80]), 'unmarked'],
    ['another TTL', packet({ ttl: 63 }, [40000, 80]), 'unmarked'],
    ['other ports', packet({}, [40000, 81]), undefined],
    ['ports of the other direction', packet({}, [80, 40000]), undefined],
    ['another protocol', packet({ proto: IPPROTO.udp }, [40000, 80]), undefined],
    ['another pair in the tunnel', packet({}, [51000, 4789], packet({}, [40000, 80])), undefined],
  ])('%s', (_, given, expected) => expect(wirePath(given, FLOW)).toBe(expected));

  test('packets of several flows are counted', () => {
    const other = { ...FLOW, client: { ...FLOW.client, port: 40001 } };
    expect(countWire([masqueraded, answer, inTunnel, packet({}, [40001, 80])], [FLOW, other])).toEqual({
      masqueraded: 3,
      encapsulated: 1,
      unmarked: 0,
    });
  });
});
