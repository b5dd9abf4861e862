import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { status } from '@grpc/grpc-js';
import { xmasq } from '../../../src/gen/xmasq.js';
import { toJson } from '../../../src/grpc/json.ts';
import { toReason } from '../../../src/grpc/reasons.ts';
import { flow } from './fake-backend.ts';
import { eventually, startHarness, type Harness, type TestClient } from './harness.ts';

const v1 = xmasq.v1;

let harness: Harness;
let client: TestClient;
beforeEach(async () => {
  harness = await startHarness();
  client = harness.connect();
});
afterEach(() => harness.close());

describe('Admin', () => {
  test('Status, as proto3 JSON', async () => {
    const { response } = await client.call('status', new v1.StatusRequest());
    if (response === undefined) throw new Error('no response');
    expect(toJson(v1.StatusResponse, response)).toEqual({
      version: '0.1.0',
      nodeName: 'node-a',
      protocolVersion: 1,
      state: 'NODE_STATE_READY',
      admissionMode: 'ADMISSION_MODE_CONNTRACK',
      attachMode: 'ATTACH_MODE_TCX',
      kernelRelease: '6.18.0',
      uplinks: [{ device: 'eth0', ifindex: 2, address: '192.168.77.1', mtu: 1500 }],
      degradations: [],
      exclusions: [],
      sources: [],
      counters: [{ name: 'fast_tx', value: '9007199254740991' }],
      reasons: [
        { reason: 'REASON_NONE', packets: '0' },
        { reason: 'REASON_TCP_SYN', packets: '17' },
      ],
      maps: [{ name: 'flows', entries: 2, capacity: 65536 }],
      endpoints: 1,
      peers: 1,
      peersAlive: 1,
      flows: 2,
      uptimeMs: '3723000',
      podEvents: { connected: false, synced: false, events: '0', ignored: '0', rejected: '0' },
    });
  });

  test('a count beyond 2^53 stands still there', async () => {
    const counters = [{ name: 'fast_tx', value: 2n ** 64n - 1n }];
    harness.backend.statusInfo = { ...harness.backend.statusInfo, counters };
    const { response } = await client.call('status', new v1.StatusRequest());
    expect(response?.counters[0]?.value).toBe(Number.MAX_SAFE_INTEGER);
  });

  test('Version, Peers, Endpoints', async () => {
    expect((await client.call('version', new v1.VersionRequest())).response).toMatchObject({ commit: 'abc123' });
    const peers = (await client.call('peers', new v1.PeersRequest())).response;
    if (peers === undefined) throw new Error('no response');
    expect(toJson(v1.PeersResponse, peers)).toMatchObject({
      peers: [
        { nodeName: 'node-b', podCidrs: ['10.10.2.0/24'], incarnation: 'boot-1', alive: true, lastLifeMs: '40' },
        { nodeName: 'node-c', protocolVersion: 0, incarnation: '' },
      ],
    });
    // An absent optional field stays absent.
    expect(toJson(v1.PeersResponse, peers).peers).toEqual([
      expect.objectContaining({ lastLifeMs: '40' }),
      expect.not.objectContaining({ lastLifeMs: expect.anything() }),
    ]);
    const endpoints = (await client.call('endpoints', new v1.EndpointsRequest())).response;
    expect(endpoints?.endpoints).toMatchObject([{ pod: 'web-0', ifName: 'veth0', ips: ['10.10.1.2'], attached: true }]);
  });

  test('errors of the backend keep their message', async () => {
    harness.backend.failure = new Error('map counters: EPERM');
    const outcome = await client.call('status', new v1.StatusRequest());
    expect(outcome).toMatchObject({ code: status.INTERNAL, details: 'map counters: EPERM' });
  });

  test('Flush: targets, NOT_FOUND and INVALID_ARGUMENT', async () => {
    const flush = (request: xmasq.v1.FlushRequest.$Properties) => client.call('flush', new v1.FlushRequest(request));
    expect((await flush({ all: true })).response).toMatchObject({ flows: 3, slots: 2 });
    await flush({ pod: { namespace: 'default', name: 'web-0' } });
    await flush({ peer: 'node-b' });
    expect(harness.backend.calls).toEqual([
      { kind: 'all' },
      { kind: 'pod', pod: { namespace: 'default', name: 'web-0' } },
      { kind: 'peer', peer: 'node-b' },
    ]);
    expect(await flush({ peer: 'node-x' })).toEqual({ code: status.NOT_FOUND, details: 'no peer is named node-x' });
    for (const bad of [{}, { all: false }, { pod: { name: 'web-0' } }, { pod: { namespace: 'a' } }, { peer: '' }]) {
      expect((await flush(bad)).code).toBe(status.INVALID_ARGUMENT);
    }
  });

  test('Drain, Undrain, and a waiting drain whose client goes away', async () => {
    const drained = await client.call('drain', new v1.DrainRequest());
    expect(drained.response).toMatchObject({ state: v1.NodeState.NODE_STATE_DRAINING, remainingMs: 35_000 });
    const waiting = await client.call('drain', new v1.DrainRequest({ wait: true }), 100);
    expect(waiting.code).toBe(status.DEADLINE_EXCEEDED);
    await eventually(() => harness.backend.drainAborted, 'drain aborted');
    const undrained = await client.call('undrain', new v1.UndrainRequest());
    expect(undrained.response).toMatchObject({ state: v1.NodeState.NODE_STATE_READY });
  });
});

describe('Flows', () => {
  const flows = [
    flow(),
    flow({ sourceIp: '10.10.1.9', sourcePod: { namespace: 'prod', name: 'db-0' }, path: 'slow', reason: 10 }),
    flow({
      protocol: 1,
      sourcePort: 0,
      destinationPort: 0,
      icmp: { id: 77, type: 8 },
      peer: 'node-c',
      destinationPod: { namespace: 'prod', name: 'web-0' },
    }),
  ];

  test('the filters for address and port know a Service’s endpoint', async () => {
    const toService = flow({ destinationIp: '10.96.0.1', endpoint: { ip: '10.10.2.9', port: 8080 } });
    const count = async (request: xmasq.v1.FlowsRequest.$Properties): Promise<number> => {
      harness.backend.flowList = [toService];
      const { response } = await client.allFlows(request);
      return (response ?? []).flatMap((message) => message.flows).length;
    };
    const requests = [{ ip: '10.96.0.1' }, { ip: '10.10.2.9' }, { ip: '10.10.2.3' }, { port: 80 }, { port: 8080 }];
    expect(await Promise.all(requests.map(count))).toEqual([1, 1, 0, 1, 1]);
  });

  async function matching(request: xmasq.v1.FlowsRequest.$Properties): Promise<number[]> {
    harness.backend.flowList = flows;
    const { response } = await client.allFlows(request);
    const found = (response ?? []).flatMap((message) => message.flows);
    return found.map((one) => flows.findIndex((f) => f.sourceIp === one.sourceIp && f.protocol === one.protocol));
  }

  test.each<[xmasq.v1.FlowsRequest.$Properties, number[]]>([
    [{}, [0, 1, 2]],
    [{ pod: 'web-0' }, [0, 2]],
    [{ namespace: 'prod' }, [1, 2]],
    [{ pod: 'web-0', namespace: 'prod' }, [2]],
    [{ ip: '10.10.1.9' }, [1]],
    [{ ip: '10.10.2.3' }, [0, 1, 2]],
    [{ peer: 'node-c' }, [2]],
    [{ protocol: 1 }, [2]],
    [{ protocol: 0 }, []],
    [{ port: 80 }, [0, 1]],
    [{ path: v1.FlowPath.FLOW_PATH_FAST }, [0, 2]],
    [{ path: v1.FlowPath.FLOW_PATH_SLOW, reason: v1.Reason.REASON_TCP_SYN }, [1]],
    [{ reason: v1.Reason.REASON_NONE }, [0, 2]],
  ])('filter %j', async (request, expected) => {
    expect(await matching(request)).toEqual(expected);
  });

  test.each<[xmasq.v1.FlowsRequest.$Properties, string]>([
    [{ ip: '10.10.1' }, 'field ip is "10.10.1"; expected an IPv4 or IPv6 address'],
    [{ protocol: 256 }, 'field protocol is 256; expected an IP protocol number, 0 to 255'],
    [{ port: 0 }, 'field port is 0; expected 1 to 65535'],
    [{ path: v1.FlowPath.FLOW_PATH_UNSPECIFIED }, 'field path is 0; expected FLOW_PATH_FAST or FLOW_PATH_SLOW'],
    [{ reason: toReason(9999) }, 'field reason is 9999; expected a value of xmasq.v1.Reason'],
    [{ pod: '' }, 'field pod is empty'],
    [{ watch: true, intervalMs: 5 }, 'field interval_ms is 5; expected 100 to 3600000, or 0 for 2000'],
  ])('bad filter %j', async (request, message) => {
    const outcome = await client.allFlows(request);
    expect(outcome.code).toBe(status.INVALID_ARGUMENT);
    expect(outcome.details).toContain(message);
  });

  test('a flow in JSON', async () => {
    const endpoint = { ip: '10.10.2.9', port: 8080 };
    const named = { service: 'prod/web:http', ingressPolicy: 'K8s prod/web', endpoint };
    harness.backend.flowList = [{ ...(flows[2] ?? flow()), ...named }];
    const { response } = await client.allFlows({});
    expect(toJson(v1.FlowsResponse, response?.[0] ?? new v1.FlowsResponse())).toEqual({
      round: '1',
      last: true,
      truncated: false,
      flows: [
        {
          sourceIp: '10.10.1.2',
          destinationIp: '10.10.2.3',
          sourcePort: 0,
          destinationPort: 0,
          protocol: 1,
          icmpId: 77,
          icmpType: 8,
          sourcePod: { namespace: 'default', name: 'web-0' },
          destinationPod: { namespace: 'prod', name: 'web-0' },
          peer: 'node-c',
          sameNode: false,
          path: 'FLOW_PATH_FAST',
          mode: 'TRANSMIT_MODE_MASQUERADE',
          reason: 'REASON_NONE',
          admitted: true,
          approved: false,
          blocked: false,
          keys: { announced: true, received: true, peerComplete: true },
          txPackets: '1000',
          txBytes: '1500000',
          rxPackets: '500',
          rxBytes: '26000',
          slowPackets: '6',
          ageMs: '61000',
          idleMs: '12',
          lastRxMs: '15',
          service: 'prod/web:http',
          ingressPolicy: 'K8s prod/web',
          egressPolicy: '',
          endpointIp: '10.10.2.9',
          endpointPort: 8080,
        },
      ],
    });
  });

  test('many flows come in batches, the last one marked', async () => {
    harness.backend.flowList = Array.from({ length: 20_000 }, (_, n) => flow({ sourcePort: n % 65536 }));
    const { response } = await client.allFlows({});
    expect(response?.length).toBe(79);
    expect(response?.reduce((sum, message) => sum + message.flows.length, 0)).toBe(20_000);
    expect(response?.map((message) => message.last)).toEqual([...Array<boolean>(78).fill(false), true]);
  });

  test('a limit ends the pass', async () => {
    harness.backend.flowList = Array.from({ length: 1000 }, () => flow());
    const { response } = await client.allFlows({ limit: 10 });
    expect(response?.[0]).toMatchObject({ last: true, truncated: true });
    expect(response?.[0]?.flows.length).toBe(10);
    expect(harness.backend.flowsRead).toBe(11);
  });

  test('a limit that is just enough does not say truncated', async () => {
    const { response } = await client.allFlows({ limit: 1 });
    expect(response).toMatchObject([{ last: true, truncated: false }]);
  });

  test('watch sends rounds until the client cancels', async () => {
    const stream = client.flows({ watch: true, intervalMs: 100 });
    const rounds: number[] = [];
    stream.on('error', () => undefined);
    const messages: AsyncIterable<xmasq.v1.FlowsResponse> = stream;
    for await (const message of messages) {
      rounds.push(message.round);
      if (rounds.length === 3) break;
    }
    stream.cancel();
    expect(rounds).toEqual([1, 2, 3]);
    const { flowsRead } = harness.backend;
    await new Promise((resolve) => setTimeout(resolve, 350));
    expect(harness.backend.flowsRead).toBeLessThanOrEqual(flowsRead + 1);
  });

  test('a backend that fails in the middle: INTERNAL', async () => {
    harness.backend.failure = new Error('map flows: EIO');
    expect(await client.allFlows({})).toMatchObject({ code: status.INTERNAL, details: 'map flows: EIO' });
  });

  test('stopping the server ends a watch with UNAVAILABLE', async () => {
    const outcome = client.allFlows({ watch: true });
    await eventually(() => harness.backend.flowsRead > 0, 'first round');
    const startedAt = performance.now();
    await harness.server.stop();
    expect(performance.now() - startedAt).toBeLessThan(1500);
    expect((await outcome).code).toBe(status.UNAVAILABLE);
  });
});
