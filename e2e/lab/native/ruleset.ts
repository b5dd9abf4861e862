/**
 * The nftables ruleset that stands for Antrea's pipeline on one node: conntrack zone, policy, marks. Text only.
 *
 * Pod traffic (from the gateway bridge or the tunnel, to a pod) is tracked in Antrea's zone; the node's own traffic
 * stays in zone 0; tunnel packets are not tracked, as Antrea arranges it. What a pod sends outside the cluster is
 * masqueraded in zone 0. The rules for new connections run deny list, Antrea's mark by source, test marks, in this order.
 */
import { ANTREA, SERVICE_CIDR, SERVICE_CIDR6, familyOf } from '../lab.ts';
import type { ClusterIpService, DenyRule, Family, Pod } from '../lab.ts';
import { CLUSTER_CIDR, CLUSTER_CIDR6, GATEWAY_DEVICE, TUNNEL_DEVICES, UPLINK, podNetworks } from './addressing.ts';
import type { NodePlan, PodPlan } from './addressing.ts';

/** Name of the table on every node. */
export const TABLE = 'inet xmasqlab';

const TUNNEL_SIDE = `{ ${devices(Object.values(TUNNEL_DEVICES))} }`;
const POD_SIDE = `{ ${devices([GATEWAY_DEVICE, ...Object.values(TUNNEL_DEVICES)])} }`;

/** What differs between the families: how nftables calls them, and Antrea's zone. */
const FAMILIES: Readonly<
  Record<Family, { readonly ip: string; readonly cluster: string; readonly services: string; readonly zone: number }>
> = {
  ipv4: { ip: 'ip', cluster: CLUSTER_CIDR, services: SERVICE_CIDR, zone: ANTREA.zone },
  ipv6: { ip: 'ip6', cluster: CLUSTER_CIDR6, services: SERVICE_CIDR6, zone: ANTREA.zone6 },
};

/** Neighbour discovery is never tracked nor judged. */
const DISCOVERY = 'icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } ';

/** The whole ruleset of a node. */
export function nodeRuleset(node: NodePlan, hostConntrack: boolean): string {
  const untracked = hostConntrack ? '' : 'notrack';
  const tunnelled = node.encapMode !== 'noEncap';
  const tunnel = tunnelled ? `udp dport ${node.tunnel.port} notrack` : '';
  const discovery = (verdict: string): string => (node.ipv6 === undefined ? '' : DISCOVERY + verdict);
  const families = podNetworks(node).map((network) => ({ ...network, ...FAMILIES[network.family] }));
  const each = (rule: (family: (typeof families)[number]) => string): string => families.map(rule).join('\n    ');
  // Without a tunnel pods of other nodes come by the uplink; Antrea takes them for traffic of the gateway.
  const direct: typeof each = (rule) => (node.encapMode === 'encap' ? '' : each(rule));
  return `
table ${TABLE} {
  map portmark { type inet_service : mark; }
  map protomark { type inet_proto : mark; }
  map portzone { typeof th dport : ct zone; }

  ${families
    .map(
      ({ family, zone }) => `chain podzone-${family} {
    meta l4proto { tcp, udp, sctp } ct zone set th dport map @portzone
    meta l4proto { tcp, udp, sctp } ct zone set th sport map @portzone
    ct zone set ${zone}
  }`,
    )
    .join('\n  ')}
  chain prerouting {
    type filter hook prerouting priority raw; policy accept;
    ${discovery('notrack accept')}
    ${each(
      ({ family, ip, cluster, services }) =>
        `iifname ${POD_SIDE} ${ip} daddr { ${cluster}, ${services} } goto podzone-${family}`,
    )}
    ${direct(({ family, ip, podCidr }) => `iifname "${UPLINK}" ${ip} daddr ${podCidr} goto podzone-${family}`)}
    ${tunnel}
    ${untracked}
  }
  chain outgoing {
    type filter hook output priority raw; policy accept;
    ${discovery('notrack accept')}
    ${each(({ family, ip, cluster }) => `oifname ${POD_SIDE} ${ip} daddr ${cluster} goto podzone-${family}`)}
    ${tunnel}
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
    ${each(
      ({ ip, podCidr }) => `${ip} saddr ${podCidr} ct mark set ${ANTREA.markFromPod}
    ${ip} saddr != ${podCidr} ct mark set ${ANTREA.markFromTunnel}`,
    )}
    ${direct(({ ip, podCidr }) => `iifname "${UPLINK}" ${ip} saddr != ${podCidr} ct mark set ${ANTREA.markFromGateway}`)}
    ct status dnat ct mark set ct mark | ${ANTREA.markService}
    meta l4proto { tcp, udp, sctp } ct mark set th dport map @portmark
    ct mark set meta l4proto map @protomark
  }
  chain forward {
    type filter hook forward priority filter; policy accept;
    ${discovery('accept')}
    ${each(({ ip, cluster }) => `iifname ${POD_SIDE} ${ip} daddr ${cluster} goto pods`)}
    ${direct(({ ip, podCidr }) => `iifname "${UPLINK}" ${ip} daddr ${podCidr} goto pods`)}
  }
  chain input {
    type filter hook input priority filter; policy accept;
    ${each(
      ({
        ip,
        cluster,
      }) => `iifname "${GATEWAY_DEVICE}" ${ip} daddr ${cluster} ct state new ct mark set ${ANTREA.markFromPod}
    iifname ${TUNNEL_SIDE} ${ip} daddr ${cluster} ct state new ct mark set ${ANTREA.markFromTunnel}`,
    )}
  }
  chain output {
    type filter hook output priority filter; policy accept;
    ${each(
      ({ ip, cluster }) =>
        `oifname ${POD_SIDE} ${ip} daddr ${cluster} ct state new ct mark set ${ANTREA.markFromGateway}`,
    )}
  }
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    ${each(
      ({ ip, podCidr, cluster }) => `oifname "${UPLINK}" ${ip} saddr ${podCidr} ${ip} daddr != ${cluster} masquerade`,
    )}
  }
}
`;
}

function devices(names: readonly string[]): string {
  return names.map((name) => `"${name}"`).join(', ');
}

/** Commands that replace the rules of the chain `services`. */
export function serviceRules(services: readonly ClusterIpService[]): string {
  const rules = services.flatMap(({ clusterIp, protocol, port, endpoints }) =>
    endpoints.map(({ address, port: endpointPort }, i) => {
      const left = endpoints.length - i;
      // Of those that the rules before have left, one in so many.
      const chance = left > 1 ? `numgen random mod ${left} == 0 ` : '';
      const { ip } = FAMILIES[familyOf(clusterIp)];
      const match = `iifname "${GATEWAY_DEVICE}" ${ip} daddr ${clusterIp} ${protocol} dport ${port}`;
      const to = familyOf(address) === 'ipv6' ? `[${address}]:${endpointPort}` : `${address}:${endpointPort}`;
      return `add rule ${TABLE} services ${match} ${chance}dnat ${ip} to ${to}\n`;
    }),
  );
  return `flush chain ${TABLE} services\n${rules.join('')}`;
}

/** Commands that add a deny rule to the chain `deny`, for each family that the pods have. */
export function denyRule(rule: DenyRule): string {
  const common: string[] = [];
  // Both names in either family: a packet has one of them only.
  if (rule.proto !== undefined)
    common.push(`meta l4proto ${rule.proto === 'icmp' ? '{ icmp, ipv6-icmp }' : rule.proto}`);
  if (rule.port !== undefined) common.push(`th dport ${rule.port}`);
  const { srcPod, dstPod } = rule;
  const families = (['ipv4', 'ipv6'] as const).flatMap((family) => {
    const address = (pod: Pod): string | undefined => (family === 'ipv6' ? pod.address6 : pod.address);
    const { ip } = FAMILIES[family];
    const [src, dst] = [srcPod && address(srcPod), dstPod && address(dstPod)];
    if ((srcPod && src === undefined) || (dstPod && dst === undefined)) return [];
    return [[...(src ? [`${ip} saddr ${src}`] : []), ...(dst ? [`${ip} daddr ${dst}`] : []), ...common]];
  });
  // Without addresses one rule is for both families.
  const rules = srcPod === undefined && dstPod === undefined ? [common] : families;
  return rules.map((parts) => `add rule ${TABLE} deny ${parts.join(' ')} counter drop`).join('\n');
}

/**
 * Antrea's SpoofGuard for one pod: an ingress chain on its host device, which runs after the tc hook, so that it
 * guards the slow path only. It goes when the device goes.
 */
export function spoofGuard(pod: PodPlan): string {
  const guard6 =
    pod.address6 === undefined ? '' : `ether type ip6 ip6 saddr != { ${pod.address6}, fe80::/10 } counter drop`;
  return `
table netdev xmasqguard {
  chain ${pod.hostDevice} {
    type filter hook ingress device "${pod.hostDevice}" priority 0; policy accept;
    ether saddr != ${pod.mac} counter drop
    ether type ip ip saddr != ${pod.address} counter drop
    ${guard6}
    ether type arp arp saddr ip != ${pod.address} counter drop
  }
}
`;
}
