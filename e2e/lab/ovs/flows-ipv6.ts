/** What IPv6 has besides the flows of both families: neighbour discovery, and routes. Empty on a node without IPv6. */
import { ANTREA } from '../lab.ts';
import type { NodePlan, PodPlan } from '../native/addressing.ts';
import { GATEWAY_OFPORT } from './names.ts';
import { DESTINATION, PRIORITY, REWRITE_MAC, cookie, flow, goto } from './pipeline.ts';
import { gatewayMac } from './setup.ts';

const REWRITE = `ipv6,reg0=${REWRITE_MAC}/${REWRITE_MAC}`;

/** A node's flows. */
export function ipv6NodeFlows(node: NodePlan, peers: readonly NodePlan[]): string[] {
  if (node.ipv6 === undefined) return [];
  const { miss, low, normal, high } = PRIORITY;
  const gateway = gatewayMac(node);
  return [
    flow('PipelineRootClassifier', normal, 'ipv6', goto('Classifier')),
    flow('SpoofGuard', normal, `ipv6,in_port=${GATEWAY_OFPORT}`, goto('IPv6')),
    flow('SpoofGuard', normal, 'ipv6,ipv6_src=fe80::/10', goto('IPv6')),
    // Neighbour solicitations and advertisements, and multicast, are switched and not tracked.
    ...['icmp6,icmp_type=135', 'icmp6,icmp_type=136', 'ipv6,ipv6_dst=ff00::/8'].map((match) =>
      flow('IPv6', normal, match, 'NORMAL'),
    ),
    flow('L3Forwarding', high, `${REWRITE},ipv6_dst=${node.ipv6.gateway}`, `mod_dl_dst:${gateway},${goto('L3DecTTL')}`),
    ...peers.flatMap(({ ipv6, transport }) =>
      ipv6 === undefined || transport.ipv6 === undefined
        ? []
        : flow(
            'L3Forwarding',
            normal,
            `ipv6,ipv6_dst=${ipv6.podCidr}`,
            `mod_dl_src:${gateway},mod_dl_dst:${ANTREA.virtualMac},load:${DESTINATION.tunnel}->NXM_NX_REG0[4..7],` +
              `set_field:${transport.ipv6.address}->tun_ipv6_dst,${goto('L3DecTTL')}`,
          ),
    ),
    flow('L3Forwarding', low, `ipv6,ipv6_dst=${node.ipv6.podCidr}`, goto('L2ForwardingCalc')),
    flow('L3DecTTL', miss, 'ipv6', `dec_ttl,${goto('SNATMark')}`),
  ];
}

/** A pod's flows. */
export function ipv6PodFlows(node: NodePlan, pod: PodPlan, ofport: number): string[] {
  if (pod.address6 === undefined) return [];
  const id = cookie('pod', ofport);
  const { normal, high } = PRIORITY;
  return [
    flow('SpoofGuard', normal, `ipv6,in_port=${ofport},dl_src=${pod.mac},ipv6_src=${pod.address6}`, goto('IPv6'), id),
    flow(
      'L3Forwarding',
      high,
      `${REWRITE},ipv6_dst=${pod.address6}`,
      `mod_dl_src:${gatewayMac(node)},mod_dl_dst:${pod.mac},${goto('L3DecTTL')}`,
      id,
    ),
  ];
}
