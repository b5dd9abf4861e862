/**
 * The nftables ruleset that stands for Antrea's pipeline on one node: conntrack zone, policy, marks. Text only.
 *
 * Pod traffic (from the gateway bridge or the tunnel, to a pod) is tracked in Antrea's zone; the node's own traffic
 * stays in zone 0; tunnel packets are not tracked, as Antrea arranges it. What a pod sends outside the cluster is
 * masqueraded in zone 0. The rules for new connections run deny list, Antrea's mark by source, test marks, in this order.
 */
import { ANTREA, SERVICE_CIDR } from '../lab.ts';
import type { ClusterIpService, DenyRule } from '../lab.ts';
import { CLUSTER_CIDR, GATEWAY_DEVICE, TUNNEL_DEVICE, UPLINK } from './addressing.ts';
import type { NodePlan, PodPlan } from './addressing.ts';

/** Name of the table on every node. */
export const TABLE = 'inet xmasqlab';

const POD_SIDE = `{ "${GATEWAY_DEVICE}", "${TUNNEL_DEVICE}" }`;

/** The whole ruleset of a node. */
export function nodeRuleset(node: NodePlan, hostConntrack: boolean): string {
  const untracked = hostConntrack ? '' : 'notrack';
  return `
table ${TABLE} {
  map portmark { type inet_service : mark; }
  map protomark { type inet_proto : mark; }
  map portzone { typeof th dport : ct zone; }

  chain podzone {
    meta l4proto { tcp, udp, sctp } ct zone set th dport map @portzone
    meta l4proto { tcp, udp, sctp } ct zone set th sport map @portzone
    ct zone set ${ANTREA.zone}
  }
  chain prerouting {
    type filter hook prerouting priority raw; policy accept;
    iifname ${POD_SIDE} ip daddr { ${CLUSTER_CIDR}, ${SERVICE_CIDR} } goto podzone
    udp dport ${ANTREA.vxlanPort} notrack
    ${untracked}
  }
  chain outgoing {
    type filter hook output priority raw; policy accept;
    oifname ${POD_SIDE} ip daddr ${CLUSTER_CIDR} goto podzone
    udp dport ${ANTREA.vxlanPort} notrack
    ${untracked}
  }

  chain services {
    type nat hook prerouting priority dstnat; policy accept;
  }
  chain deny {
  }
  chain pods {
    ct state invalid drop
    ct state established,related accept
    jump deny
    ip saddr ${node.podCidr} ct mark set ${ANTREA.markFromPod}
    ip saddr != ${node.podCidr} ct mark set ${ANTREA.markFromTunnel}
    ct status dnat ct mark set ct mark | ${ANTREA.markService}
    meta l4proto { tcp, udp, sctp } ct mark set th dport map @portmark
    ct mark set meta l4proto map @protomark
  }
  chain forward {
    type filter hook forward priority filter; policy accept;
    iifname ${POD_SIDE} ip daddr ${CLUSTER_CIDR} goto pods
  }
  chain input {
    type filter hook input priority filter; policy accept;
    iifname "${GATEWAY_DEVICE}" ip daddr ${CLUSTER_CIDR} ct state new ct mark set ${ANTREA.markFromPod}
    iifname "${TUNNEL_DEVICE}" ip daddr ${CLUSTER_CIDR} ct state new ct mark set ${ANTREA.markFromTunnel}
  }
  chain output {
    type filter hook output priority filter; policy accept;
    oifname ${POD_SIDE} ip daddr ${CLUSTER_CIDR} ct state new ct mark set ${ANTREA.markFromGateway}
  }
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    oifname "${UPLINK}" ip saddr ${node.podCidr} ip daddr != ${CLUSTER_CIDR} masquerade
  }
}
`;
}

/** Commands that replace the rules of the chain `services`. */
export function serviceRules(services: readonly ClusterIpService[]): string {
  const rules = services.flatMap(({ clusterIp, protocol, port, endpoints }) =>
    endpoints.map(({ address, port: endpointPort }, i) => {
      const left = endpoints.length - i;
      // Of those that the rules before have left, one in so many.
      const chance = left > 1 ? `numgen random mod ${left} == 0 ` : '';
      const match = `iifname "${GATEWAY_DEVICE}" ip daddr ${clusterIp} ${protocol} dport ${port}`;
      return `add rule ${TABLE} services ${match} ${chance}dnat ip to ${address}:${endpointPort}\n`;
    }),
  );
  return `flush chain ${TABLE} services\n${rules.join('')}`;
}

/** One deny rule of the chain `deny`. */
export function denyRule(rule: DenyRule): string {
  const parts: string[] = [];
  if (rule.srcPod !== undefined) parts.push(`ip saddr ${rule.srcPod.address}`);
  if (rule.dstPod !== undefined) parts.push(`ip daddr ${rule.dstPod.address}`);
  if (rule.proto !== undefined) parts.push(`meta l4proto ${rule.proto}`);
  if (rule.port !== undefined) parts.push(`th dport ${rule.port}`);
  return `add rule ${TABLE} deny ${parts.join(' ')} counter drop`;
}

/**
 * Antrea's SpoofGuard for one pod: an ingress chain on its host device, which runs after the tc hook, so that it
 * guards the slow path only. It goes when the device goes.
 */
export function spoofGuard(pod: PodPlan): string {
  return `
table netdev xmasqguard {
  chain ${pod.hostDevice} {
    type filter hook ingress device "${pod.hostDevice}" priority 0; policy accept;
    ether saddr != ${pod.mac} counter drop
    ether type ip ip saddr != ${pod.address} counter drop
    ether type arp arp saddr ip != ${pod.address} counter drop
  }
}
`;
}
