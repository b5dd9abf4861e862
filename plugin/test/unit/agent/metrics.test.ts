import { describe, expect, test } from '@jest/globals';
import type { AgentParts } from '../../../src/agent/backend.ts';
import { serveHttp } from '../../../src/agent/http.ts';
import { metricsRegistry } from '../../../src/agent/metrics.ts';
import type { Health } from '../../../src/agent/health.ts';
import { ConfigFlag, Counter, Reason } from '../../../src/dataplane/layout.ts';
import { UNHEARD, UNKNOWN_PATH } from '../../../src/dataplane/paths.ts';
import { zeroConfig, zeroPeer } from '../dataplane/fakes.ts';
import { zeroCounts } from '../../../src/kubernetes/reflector.ts';

/** What the metrics read of the parts. */
function parts(): AgentParts {
  const counters = Array.from({ length: Counter.COUNT }, () => 0n);
  const reasons = Array.from({ length: Reason.COUNT }, () => 0n);
  counters[Counter.FAST_TX] = 12_345n;
  reasons[Reason.TCP_SYN] = 7n;
  const fake = {
    tables: {
      capacity: { flows: 1024 },
      counters: { allSums: () => counters },
      reasons: { allSums: () => reasons },
      peers: { get: () => zeroPeer },
      peerState: { get: () => UNHEARD },
      paths: { get: () => UNKNOWN_PATH },
    },
    janitor: {
      fill: () => [{ name: 'flows', entries: 3, capacity: 1024 }],
      counts: { idleFlows: 2 },
    },
    endpoints: { count: 4 },
    peers: { count: 2, alive: 1, byId: () => new Map([[1, { podCIDRs: ['10.1.0.0/24'], addresses: ['10.0.0.2'] }]]) },
    configMap: { get: () => ({ ...zeroConfig, flags: ConfigFlag.SEND | ConfigFlag.ENCAP }) },
    now: () => 1n,
    degradations: { size: 0 },
    approvals: { sizes: { granted: 5, wanted: 0 }, counts: { granted: 9 } },
    events: { counts: new Map([['black_hole', 1]]) },
    uplink: { displaced: 0 },
    counts: new Map([
      ['flow records', () => [['new', 3]]],
      ['ovsdb', () => [['resync', 2]]],
    ]),
    sources: [() => ({ name: 'ovsdb', connected: true, synced: false, required: true, detail: '' })],
    followed: [
      () => [{ kind: 'pods', counts: { ...zeroCounts(), lists: 3, gone: 2, retries: 4 }, objects: 7, synced: true }],
    ],
    exclusions: {
      state: { all: [{ reason: Reason.ENCRYPTION }], pods: new Map([['a/b', { reason: Reason.BANDWIDTH }]]) },
    },
  };
  return fake as unknown as AgentParts;
}

describe('metrics', () => {
  test('tell decisions, reasons, maps and states; reading twice does not add up', async () => {
    const registry = metricsRegistry(parts(), () => 'ready');
    await registry.metrics();
    const text = await registry.metrics();
    for (const line of [
      'xmasq_decisions_total{decision="fast_tx"} 12345',
      'xmasq_decisions_total{decision="restored"} 0',
      'xmasq_slow_packets_total{reason="tcp_syn"} 7',
      'xmasq_map_entries{map="flows"} 3',
      'xmasq_map_capacity{map="flows"} 1024',
      'xmasq_endpoints 4',
      'xmasq_flow_records_total{result="new"} 3',
      'xmasq_source_connected{source="ovsdb"} 1',
      'xmasq_source_ready{source="ovsdb"} 0',
      'xmasq_ovsdb_actions_total{action="resync"} 2',
      'xmasq_kubernetes_actions_total{kind="pods",action="list"} 3',
      'xmasq_kubernetes_actions_total{kind="pods",action="gone"} 2',
      'xmasq_kubernetes_actions_total{kind="pods",action="retry"} 4',
      'xmasq_kubernetes_actions_total{kind="pods",action="failure"} 0',
      'xmasq_kubernetes_objects{kind="pods"} 7',
      'xmasq_kubernetes_kind_ready{kind="pods"} 1',
      'xmasq_excluded_pods{reason="bandwidth"} 1',
      'xmasq_node_exclusions{reason="encryption"} 1',
      'xmasq_peers_alive 1',
      'xmasq_peer_paths{family="ipv4",class="tcp",mode="encap"} 1',
      'xmasq_peer_paths{family="ipv4",class="other",mode="encap"} 1',
      'xmasq_state{state="ready"} 1',
      'xmasq_state{state="drained"} 0',
      'xmasq_swept_total{what="idle_flows"} 2',
      'xmasq_approvals{state="granted"} 5',
      'xmasq_events_total{event="black_hole"} 1',
    ]) {
      expect(text.split('\n')).toContain(line);
    }
    expect(text).toContain('nodejs_eventloop_lag_seconds');
  });

  test('what is not excluded any more has no value', async () => {
    const now = parts();
    const registry = metricsRegistry(now, () => 'ready');
    expect(await registry.metrics()).toContain('xmasq_excluded_pods{reason="bandwidth"} 1');
    (now.exclusions.state.pods as Map<string, unknown>).clear();
    expect(await registry.metrics()).not.toContain('xmasq_excluded_pods{');
  });

  test('are served on the address, and only there', async () => {
    const registry = metricsRegistry(parts(), () => 'ready');
    let health: Health = { ready: false, lines: ['starting', 'why'] };
    const options = { registry, health: () => health };
    const server = await serveHttp({ ...options, address: '127.0.0.1:0' });
    const address = server.address();
    const port = typeof address === 'object' && address !== null ? address.port : 0;
    try {
      const good = await fetch(`http://127.0.0.1:${port}/metrics`);
      expect([good.status, good.headers.get('content-type')]).toEqual([200, registry.contentType]);
      expect(await good.text()).toContain('xmasq_endpoints 4');
      const status = async (path: string): Promise<number> => (await fetch(`http://127.0.0.1:${port}${path}`)).status;
      expect(await status('/')).toBe(404);
      expect([await status('/healthz'), await status('/readyz')]).toEqual([200, 503]);
      expect(await (await fetch(`http://127.0.0.1:${port}/readyz`)).text()).toBe('starting\nwhy\n');
      health = { ready: true, lines: ['degraded'] };
      expect(await status('/readyz')).toBe(200);
      await expect(serveHttp({ ...options, address: `127.0.0.1:${port}` })).rejects.toThrow(
        /cannot be served on 127.0.0.1:.*EADDRINUSE/,
      );
    } finally {
      server.closeAllConnections();
      server.close();
    }
  });
});
