/** Admin.Trace over a real socket: what it takes, how long it goes on, and that it lets go of the flow. */
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { status } from '@grpc/grpc-js';
import { xmasq } from '../../../src/gen/xmasq.js';
import { traceLook } from './fake-backend.ts';
import { eventually, startHarness, type Harness } from './harness.ts';

let harness: Harness;
beforeEach(async () => {
  harness = await startHarness();
});
afterEach(() => harness.close());

const FLOW = { sourceIp: '10.10.1.2', destinationIp: '10.10.2.3', sourcePort: 40000, destinationPort: 80, protocol: 6 };

describe('a trace', () => {
  test('looks five times a second until its time is over, and lets go of the flow', async () => {
    harness.backend.looks = [
      traceLook({
        exclusions: [{ reason: 24, detail: 'limited' }],
        events: [{ name: 'demoted', reason: 36, timeMs: 3 }],
      }),
      traceLook({ eventsLost: 2 }),
    ];
    const began = performance.now();
    const { code, response = [] } = await harness.connect().allTraces({ ...FLOW, durationMs: 500 });
    expect(performance.now() - began).toBeGreaterThanOrEqual(499);
    expect(code).toBe(status.OK);
    // At 0, 200, 400 and 500 ms; a busy machine comes late, never early.
    expect(response.length).toBeGreaterThanOrEqual(2);
    expect(response.length).toBeLessThanOrEqual(4);
    expect(response[0]).toMatchObject({
      nodeState: xmasq.v1.NodeState.NODE_STATE_READY,
      flow: { sourcePort: 40000, admitted: true },
      conntrack: { reason: 0, detail: 'ESTABLISHED, replied, assured, mark 0x3' },
      exclusions: [{ reason: 24, detail: 'limited' }],
      events: [{ name: 'demoted', reason: 36, timeMs: 3 }],
    });
    expect(response[1]).toMatchObject({ eventsLost: 2, events: [] });
    expect(harness.backend.calls).toEqual([{ trace: FLOW }]);
    expect(harness.backend.tracesOpen).toBe(0);
  });

  test('lets go of the flow when the client does', async () => {
    const stream = harness.connect().traces({ ...FLOW, durationMs: 300_000 });
    stream.on('error', () => undefined);
    stream.on('data', () => stream.cancel());
    await eventually(() => harness.backend.calls.length === 1 && harness.backend.tracesOpen === 0, 'closed');
  });

  test('is ended by a sidecar that stops', async () => {
    const ended = harness.connect().allTraces({ ...FLOW, durationMs: 300_000 });
    await eventually(() => harness.backend.tracesOpen === 1, 'open');
    await harness.server.stop();
    expect(await ended).toMatchObject({ code: status.UNAVAILABLE });
    expect(harness.backend.tracesOpen).toBe(0);
  });

  test('takes addresses in any spelling, and echo messages', async () => {
    const request = { sourceIp: 'FD00:0::1', destinationIp: 'fd00::2', protocol: 58, icmpId: 7, icmpType: 128 };
    const { code } = await harness.connect().allTraces({ ...request, durationMs: 1 });
    expect(code).toBe(status.NOT_FOUND);
    expect(harness.backend.calls).toEqual([
      {
        trace: {
          ...{ sourceIp: 'fd00::1', destinationIp: 'fd00::2', sourcePort: 0, destinationPort: 0, protocol: 58 },
          icmp: { id: 7, type: 128 },
        },
      },
    ]);
  });

  test.each<[xmasq.v1.TraceRequest.$Properties, string]>([
    [{ durationMs: 0 }, 'field duration_ms is 0; expected 1 to 300000'],
    [{ durationMs: 300_001 }, 'field duration_ms is 300001'],
    [{ sourceIp: '10.1' }, 'field source_ip is "10.1"; expected an IPv4 or IPv6 address'],
    [{ destinationIp: '' }, 'field destination_ip is ""'],
    [{ destinationIp: 'fd00::1' }, 'fields source_ip and destination_ip are of two families'],
    [{ protocol: 256 }, 'field protocol is 256'],
    [{ sourcePort: 65_536 }, 'field source_port is 65536; expected 0 to 65535'],
    [{ icmpId: 65_536 }, 'field icmp_id is 65536'],
  ])('refuses %j', async (values, message) => {
    const { code, details } = await harness.connect().allTraces({ ...FLOW, durationMs: 100, ...values });
    expect([code, details]).toEqual([status.INVALID_ARGUMENT, expect.stringContaining(message)]);
    expect(harness.backend.calls).toEqual([]);
  });
});
