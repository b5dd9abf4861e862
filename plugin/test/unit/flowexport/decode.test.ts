import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { EndReason, numbered, record, request, type Flow } from '../../../../e2e/flowgen/records.ts';
import { decodeExport } from '../../../src/flowexport/decode.ts';
import { NamesCache } from '../../../src/flowexport/names-cache.ts';
import { tag, Writer } from '../../../src/flowexport/protobuf.ts';
import type { FlowRecord } from '../../../src/flowexport/record.ts';
import { antrea_io } from '../../../src/gen/antrea.js';
import { canonicalAddress } from '../../../src/netlink/ip.ts';

const v1 = antrea_io.antrea.pkg.apis.flow.v1alpha1;

function decode(message: Buffer): { readonly records: FlowRecord[]; readonly malformed: number } {
  const records: FlowRecord[] = [];
  const malformed = decodeExport(message, new NamesCache(), (one) => records.push(one));
  return { records, malformed };
}

function only(flow: Flow): FlowRecord {
  const { records, malformed } = decode(request(flow));
  expect(malformed).toBe(0);
  expect(records).toHaveLength(1);
  return records[0] as FlowRecord;
}

describe('a record', () => {
  const connection = {
    source: '10.244.1.5',
    destination: '10.244.2.9',
    sourcePort: 41000,
    destinationPort: 8080,
    start: 1_767_225_600_123,
    end: 1_767_225_605_456,
    packets: [12, 2],
    bytes: [1_234_567_890_123, 99],
    reversePackets: [10, 1],
    reverseBytes: [4096, 7],
    service: { ip: '10.96.0.10', port: 80, name: 'shop/db:http' },
  } as const;

  test('of IPv4, with all that is used', () => {
    const flow = record(connection);
    flow.k8s = {
      ...flow.k8s,
      destinationPodNamespace: 'data',
      destinationPodName: 'db-0',
      destinationNodeName: 'node-2',
      ingressNetworkPolicyType: v1.NetworkPolicyType.NETWORK_POLICY_TYPE_K8S,
      ingressNetworkPolicyNamespace: 'data',
      ingressNetworkPolicyName: 'db-in',
    };
    expect(only(flow)).toEqual({
      protocol: 6,
      source: '10.244.1.5',
      destination: '10.244.2.9',
      sourcePort: 41000,
      destinationPort: 8080,
      startUs: 1_767_225_600_123_000,
      endUs: 1_767_225_605_456_000,
      endReason: EndReason.FLOW_END_REASON_ACTIVE_TIMEOUT,
      tcpState: 'ESTABLISHED',
      forward: { packets: 12, packetsDelta: 2, bytes: 1_234_567_890_123, bytesDelta: 99 },
      reverse: { packets: 10, packetsDelta: 1, bytes: 4096, bytesDelta: 7 },
      names: {
        flowType: 'inter-node',
        sourcePod: { namespace: 'shop', name: 'client-10.244.1.5' },
        destinationPod: { namespace: 'data', name: 'db-0' },
        sourceNode: 'node-1',
        destinationNode: 'node-2',
        service: { name: 'shop/db:http', address: '10.96.0.10', port: 80 },
        ingressPolicy: { type: 'K8s', namespace: 'data', name: 'db-in', rule: '' },
        egressPolicy: { type: 'ACNP', namespace: '', name: 'allow-shop', rule: 'to-db' },
      },
    });
  });

  test('of IPv6', () => {
    const { source, destination, names } = only(record(numbered(31)));
    expect(source).toBe('fd00:10:244:1::21');
    expect(destination).toBe('fd00:10:244:2::2');
    expect(names.service).toBeUndefined();
  });

  test('without names has none', () => {
    const { names } = only({ ...record(connection), k8s: null });
    expect(names).toEqual({ flowType: '' });
  });

  test('takes the address of the Service from the old field where there is no other', () => {
    const flow = record(connection);
    flow.k8s = { ...flow.k8s, destinationServiceIp: Buffer.alloc(0) };
    expect(only(flow).names.service?.address).toBe('10.96.0.10');
  });

  test('has its fields in any order', () => {
    const { k8s, ...rest } = record(connection);
    const names = v1.Kubernetes.encode({ ...k8s, destinationClusterIp: Buffer.alloc(0) }).finish();
    const last = v1.Kubernetes.encode({ destinationClusterIp: Buffer.from([10, 96, 0, 99]) }).finish();
    const flow = v1.Flow.encode(rest)
      .uint32(tag(8, 2))
      .bytes(Buffer.concat([names, last]))
      .finish();
    const { records } = decode(Buffer.from(Writer.create().uint32(tag(1, 2)).bytes(flow).finish()));
    expect(records).toMatchObject([
      { source: '10.244.1.5', names: { service: { address: '10.96.0.10', name: 'shop/db:http' } } },
    ]);
  });

  test('keeps strings once', () => {
    const names = new NamesCache();
    const seen: FlowRecord[] = [];
    for (const message of [request(record(connection)), request(record(connection))]) {
      decodeExport(message, names, (one) => seen.push(one));
    }
    expect(seen[0]?.names.service?.name).toBe('shop/db:http');
    expect(seen[1]?.names).toEqual(seen[0]?.names);
  });
});

describe('what cannot be read', () => {
  const good = record(numbered(1));

  test.each<[string, Flow]>([
    ['no addresses', { ...good, ip: null }],
    ['one address', { ...good, ip: { source: Buffer.alloc(4) } }],
    ['addresses of two families', { ...good, ip: { source: Buffer.alloc(4), destination: Buffer.alloc(16) } }],
    ['an address of 5 bytes', { ...good, ip: { source: Buffer.alloc(5), destination: Buffer.alloc(5) } }],
    ['no protocol', { ...good, transport: null }],
    ['protocol 256', { ...good, transport: { protocolNumber: 256 } }],
    ['port 65536', { ...good, transport: { protocolNumber: 6, sourcePort: 65536 } }],
    ['a name of 600 characters', { ...good, k8s: { sourcePodName: 'x'.repeat(600) } }],
  ])('%s: left out, the next one is read', (...[, flow]) => {
    expect(decode(request(flow, good))).toMatchObject({ malformed: 1, records: [{ sourcePort: 1024 }] });
  });

  test('every truncation is counted, none throws', () => {
    const whole = request(good);
    for (let length = 1; length < whole.length; length++) {
      expect(decode(whole.subarray(0, length))).toEqual({ malformed: 1, records: [] });
    }
  });

  test('no bytes at all throw', () => {
    const property = fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      decode(Buffer.from(bytes));
      decode(Buffer.concat([Buffer.from([0x0a, bytes.length]), bytes]));
    });
    fc.assert(property, { numRuns: 3000 });
  });

  test('a changed byte never throws', () => {
    const whole = request(good);
    const property = fc.property(fc.nat(whole.length - 1), fc.nat(255), (at, value) => {
      const changed = Buffer.from(whole);
      changed[at] = value;
      decode(changed);
    });
    fc.assert(property, { numRuns: 3000 });
  });

  test('deep nesting ends', () => {
    const groups = Buffer.alloc(100_000, 0x0b);
    expect(decode(groups)).toEqual({ malformed: 1, records: [] });
  });
});

test('unknown fields are skipped, known ones of another type too', () => {
  const raw = Buffer.from(v1.Flow.encode(new v1.Flow(record(numbered(1)))).finish());
  // Fields 100 (varint), 101 (bytes), 102 (32 bits), 103 (64 bits), 104 (a group), and field 5 as bytes.
  const more = Buffer.from(
    'a00601aa060201ffb506010203 04b9060102030405060708c306c4062a0178'.replaceAll(' ', ''),
    'hex',
  );
  const flow = Buffer.concat([more, raw, more]);
  const length = Buffer.from([0x0a, (flow.length & 0x7f) | 0x80, flow.length >> 7]);
  const message = Buffer.concat([Buffer.from([0xa0, 0x06, 0x01]), length, flow]);
  expect(decode(message)).toMatchObject({ malformed: 0, records: [{ sourcePort: 1024, endReason: 2 }] });
});

test('nothing in a message is no flow, and no error', () => {
  expect(decode(Buffer.alloc(0))).toEqual({ malformed: 0, records: [] });
});

test('the hand-written decoder agrees with the generated one', () => {
  for (let number = 0; number < 500; number++) {
    const connection = numbered(number);
    const { forward, reverse, protocol, sourcePort, source } = only(record(connection));
    expect([protocol, sourcePort, forward.packets, reverse.bytes]).toEqual([
      connection.protocol,
      connection.sourcePort,
      connection.packets?.[0],
      connection.bytes?.[0],
    ]);
    expect(source).toBe(canonicalAddress(connection.source));
  }
});
