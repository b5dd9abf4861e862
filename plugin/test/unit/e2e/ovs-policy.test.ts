import { describe, expect, test } from '@jest/globals';
import type { DenyRule, Node, Pod } from '../../../../e2e/lab/lab.ts';
import { cookie, cookieMatch } from '../../../../e2e/lab/ovs/pipeline.ts';
import { OvsPolicy } from '../../../../e2e/lab/ovs/policy.ts';
import type { FlowTarget } from '../../../../e2e/lab/ovs/policy.ts';
import { serviceFlows } from '../../../../e2e/lab/ovs/services.ts';

/** Two nodes that record what is sent to them, with a pod each. */
function recording(options: { readonly ipv6?: boolean } = {}): {
  policy: OvsPolicy;
  sent: string[][];
  pods: Pod[];
  nodes: Node[];
} {
  const sent: string[][] = [[], []];
  const nodes = sent.map((list, i) => ({
    podCidr6: options.ipv6 === true ? `fd10:${i + 1}::/64` : undefined,
    addFlows: (flows: readonly string[]) => {
      list.push(...flows);
      return Promise.resolve();
    },
    deleteFlows: (match: string) => {
      list.push(`delete ${match}`);
      return Promise.resolve();
    },
  })) as unknown as FlowTarget[];
  const pods = nodes.map((node, i) => {
    const address6 = options.ipv6 === true ? `fd10:${i + 1}::2` : undefined;
    return { node, address: `10.10.${i + 1}.2`, address6 } as unknown as Pod;
  });
  return { policy: new OvsPolicy(nodes), sent, pods, nodes };
}

const EGRESS = /table=30,/;
const INGRESS = /table=42,/;

describe('policy of the lab on Open vSwitch', () => {
  test('denies at egress where the source may be, at ingress where the destination may be', async () => {
    const { policy, sent, pods } = recording();
    const [srcPod, dstPod] = pods as [Pod, Pod];
    await policy.deny({ srcPod, dstPod, proto: 'tcp', port: 80 });
    expect(sent).toEqual([[expect.stringMatching(EGRESS)], [expect.stringMatching(INGRESS)]]);
    expect(sent[0]?.[0]).toContain('tcp,reg0=3/0xf,nw_src=10.10.1.2,nw_dst=10.10.2.2,tp_dst=80,actions=drop');
    expect(sent[1]?.[0]).toContain('tcp,nw_src=10.10.1.2,nw_dst=10.10.2.2,tp_dst=80,actions=drop');
  });

  test('denies and marks both families where pods have IPv6', async () => {
    const { policy, sent, pods } = recording({ ipv6: true });
    const [srcPod, dstPod] = pods as [Pod, Pod];
    await policy.deny({ srcPod, dstPod, proto: 'icmp' });
    expect(sent[0]?.[0]).toContain('icmp,reg0=3/0xf,nw_src=10.10.1.2,nw_dst=10.10.2.2,actions=drop');
    expect(sent[0]?.[1]).toContain('icmp6,reg0=3/0xf,ipv6_src=fd10:1::2,ipv6_dst=fd10:2::2,actions=drop');
    expect(sent[1]?.[1]).toContain('icmp6,ipv6_src=fd10:1::2,ipv6_dst=fd10:2::2,actions=drop');
    await policy.markProtocol('sctp', 5);
    expect(sent[0]?.slice(2)).toEqual([expect.stringContaining('sctp,ct'), expect.stringContaining('sctp6,ct')]);
  });

  test('keeps to the nodes and stages that are named', async () => {
    const { policy, sent, nodes } = recording();
    const [, second] = nodes as [Node, Node];
    await policy.deny({ proto: 'udp', nodes: [second] }, ['ingress']);
    expect(sent).toEqual([[], [expect.stringMatching(INGRESS)]]);
  });

  test('an allow rule commits its number and goes on with the next stage', async () => {
    const { policy, sent, pods } = recording();
    const [srcPod] = pods as [Pod];
    expect(await policy.allow({ srcPod }, 'egress')).toBe(1);
    expect(await policy.allow({ srcPod }, 'egress')).toBe(2);
    // The allow rule and two flows of the metric table each.
    const [, , , second, ...counted] = sent[0] ?? [];
    expect(second).toContain('ct(commit,exec(load:2->NXM_NX_CT_LABEL[32..63]),table=32,zone=NXM_NX_REG8[0..15])');
    const label = 'ct_label=0x200000000/0xffffffff00000000';
    expect(counted).toEqual(
      ['+new', '-new'].map((state) => expect.stringContaining(`${label},ct_state=${state},actions=goto_table:33`)),
    );
    expect(sent[1]).toEqual([]);
  });

  test('a port needs a protocol that has ports', async () => {
    const { policy } = recording();
    const rules: DenyRule[] = [{ port: 1 }, { port: 1, proto: 'icmp' }];
    for (const rule of rules) await expect(policy.deny(rule)).rejects.toThrow(/needs proto/);
  });

  test('clear deletes what it added and nothing else', async () => {
    const { policy, sent } = recording();
    await policy.clear();
    expect(sent).toEqual([[], []]);
    await policy.deny({ nodes: [] });
    await policy.clear();
    await policy.clear();
    expect(sent[0]).toEqual(['delete cookie=0x1030000000000/0xffffff0000000000']);
    expect(cookie('policy')).toBe('0x1030000000000');
    expect(cookieMatch('pod', 5)).toBe('cookie=0x1020000000005/-1');
  });
});

test('a Service has a bucket and a translation per endpoint', () => {
  const endpoints = [
    { address: '10.10.1.2', port: 8080 },
    { address: '10.10.2.3', port: 8081 },
  ];
  const { group, flows } = serviceFlows({ clusterIp: '10.96.0.1', protocol: 'tcp', port: 80, endpoints }, 7);
  expect(group).toMatch(/^group_id=7,type=select,bucket=.*0x0a0a0102->NXM_NX_REG3.*,bucket=.*0x0a0a0203->NXM_NX_REG3/);
  expect(flows).toHaveLength(3);
  expect(flows[0]).toContain('tcp,nw_dst=10.96.0.1,tp_dst=80,actions=load:1->NXM_NX_REG0[9],group:7');
  expect(flows[2]).toContain('reg3=0x0a0a0203,reg4=8081/0xffff,actions=ct(commit,nat(dst=10.10.2.3:8081)');
});
