import { describe, expect, test } from '@jest/globals';
import { planNode, planPod } from '../native/addressing.ts';
import type { LabPlan } from '../native/addressing.ts';
import { baseFlows, podFlows } from './flows.ts';
import { l7Flows } from './flows-l7.ts';
import { TABLES } from './pipeline.ts';
import { podExternalIds } from './rows.ts';
import { serviceFlows } from './services.ts';

const NUMBERS = new Set<number>(Object.values(TABLES));

function labPlan(ipv6: boolean): LabPlan {
  return {
    ...{ mtu: 1500, routed: false, ipv6, underlay: ipv6 ? 'dual' : 'ipv4', encapMode: 'encap', uplink: 'plain' },
    tunnel: { type: 'vxlan', port: 4789, checksum: false, vni: 0 },
  };
}

function flowsOf(ipv6: boolean): string[] {
  const lab = labPlan(ipv6);
  const [node, peer] = [planNode('xl', 1, lab), planNode('xl', 2, lab)];
  const pod = planPod(node, 1, { name: 'pod-1-2', ip: '10.10.1.2' });
  const endpoints = [{ address: pod.address, port: 8080 }];
  const service = serviceFlows({ clusterIp: '10.96.0.1', protocol: 'tcp', port: 80, endpoints }, 1);
  const to6 = { address: pod.address6 ?? '', port: 8080 };
  const service6 = ipv6
    ? serviceFlows({ clusterIp: 'fd96::1', protocol: 'tcp', port: 80, endpoints: [to6] }, 2).flows
    : [];
  return [...baseFlows(node, [peer]), ...podFlows(node, pod, 5), ...l7Flows(), ...service.flows, ...service6];
}

describe.each([[false], [true]])('flows, IPv6 %s', (ipv6) => {
  const flows = flowsOf(ipv6);

  test('packets go forward only, to tables that there are', () => {
    for (const flow of flows) {
      const [own = NaN, ...next] = [...flow.matchAll(/(?:goto_table:|table=)(\d+)/g)].map(([, number]) =>
        Number(number),
      );
      expect([flow, NUMBERS.has(own)]).toEqual([flow, true]);
      for (const table of next) expect([flow, table > own && NUMBERS.has(table)]).toEqual([flow, true]);
    }
  });

  test('no two flows have the same table, priority and match', () => {
    const keys = flows.map((flow) => flow.replace(/^cookie=[^,]*,/, '').replace(/,?actions=.*$/, ''));
    expect(keys.filter((key, i) => keys.indexOf(key) !== i)).toEqual([]);
  });

  test('IPv6 is only there where it was asked for', () => {
    expect(flows.some((flow) => /ipv6|icmp6/.test(flow))).toBe(ipv6);
  });
});

test('a pod’s row has its addresses, both families in one key', () => {
  const row = (ipv6: boolean): string | undefined =>
    podExternalIds(planPod(planNode('xl', 1, labPlan(ipv6)), 1, { name: 'web', ip: '10.10.1.2' }))['ip-address'];
  expect([row(false), row(true)]).toEqual(['10.10.1.2', '10.10.1.2,fd10:1::2']);
});
