/** The scripts that set a node's host network up beside Open vSwitch. Text only. */
import { ANTREA } from '../lab.ts';
import { CLUSTER_CIDR, UPLINK } from '../native/addressing.ts';
import type { NodePlan } from '../native/addressing.ts';
import { COMMON_SYSCTLS, LOOSE_REVERSE_PATH, batch, hereDocument, sysctls, uplinkLines } from '../native/setup.ts';
import { GATEWAY, L7_PORTS, SERVICE_CIDR, VIRTUAL_SERVICE_ADDRESS } from './names.ts';

/** Script for inside a node, before Open vSwitch runs: uplink, kernel parameters, the rules that Antrea has in iptables. */
export function hostScript(node: NodePlan, hostConntrack: boolean): string {
  return [
    sysctls({
      ...COMMON_SYSCTLS,
      'net/ipv4/ip_forward': 1,
      'net/netfilter/nf_conntrack_acct': 1,
      'net/netfilter/nf_conntrack_timestamp': 1,
    }),
    ipv6HostSysctls(node),
    batch('ip', ['link set lo up', ...uplinkLines(node)]),
    hereDocument('nft -f -', hostRuleset(node, hostConntrack)),
    LOOSE_REVERSE_PATH,
  ].join('');
}

/** Script for inside a node, once the gateway port is there: its addresses, and the routes to the peers' pods. */
export function gatewayScript(node: NodePlan, peers: readonly NodePlan[]): string {
  return (
    batch('ip', [
      `link set ${GATEWAY} address ${gatewayMac(node)} mtu ${node.podMtu} up`,
      `address add ${node.gateway}/24 dev ${GATEWAY}`,
      ...peers.map((peer) => `route add ${peer.podCidr} via ${peer.gateway} dev ${GATEWAY} onlink`),
      `neigh replace ${VIRTUAL_SERVICE_ADDRESS} lladdr ${ANTREA.virtualMac} dev ${GATEWAY} nud permanent`,
      `route add ${VIRTUAL_SERVICE_ADDRESS} dev ${GATEWAY} scope link`,
      `route add ${SERVICE_CIDR} via ${VIRTUAL_SERVICE_ADDRESS} dev ${GATEWAY} onlink`,
      ...ipv6Lines(node, peers),
    ]) + LOOSE_REVERSE_PATH
  );
}

/** Script for inside a node: an L7 engine that lets everything pass. Its ports are there. */
export function l7EngineScript(): string {
  const { to, from } = L7_PORTS;
  return (
    batch('ip', [`link set ${to} up`, `link set ${from} up`]) +
    `tc qdisc add dev ${to} clsact\n` +
    `tc filter add dev ${to} ingress matchall action mirred egress redirect dev ${from}\n`
  );
}

/* Before the uplink has addresses. */
function ipv6HostSysctls(node: NodePlan): string {
  if (node.ipv6 === undefined) return '';
  return sysctls({
    'net/ipv6/conf/all/forwarding': 1,
    'net/ipv6/conf/default/disable_ipv6': 0,
    'net/ipv6/conf/default/accept_dad': 0,
    [`net/ipv6/conf/${UPLINK}/accept_dad`]: 0,
    [`net/ipv6/conf/${UPLINK}/disable_ipv6`]: 0,
  });
}

/* The peer's gateway has the virtual MAC address, and a route of its own. */
function ipv6Lines(node: NodePlan, peers: readonly NodePlan[]): string[] {
  if (node.ipv6 === undefined) return [];
  return [
    `address add ${node.ipv6.gateway}/64 dev ${GATEWAY} nodad`,
    ...peers.flatMap(({ ipv6 }) =>
      ipv6 === undefined
        ? []
        : [
            `neigh replace ${ipv6.gateway} lladdr ${ANTREA.virtualMac} dev ${GATEWAY} nud permanent`,
            `route add ${ipv6.gateway}/128 dev ${GATEWAY}`,
            `route add ${ipv6.podCidr} via ${ipv6.gateway} dev ${GATEWAY}`,
          ],
    ),
  ];
}

/** MAC address of a node's gateway port: its own, unlike the virtual one of the tunnel. */
export function gatewayMac(node: NodePlan): string {
  return node.tunnelMac;
}

/* Tunnel packets are not tracked; what pods send outside the cluster leaves with the node's address. */
function hostRuleset(node: NodePlan, hostConntrack: boolean): string {
  const untracked = hostConntrack ? '' : 'notrack';
  return `
table inet xmasqlab {
  chain prerouting {
    type filter hook prerouting priority raw; policy accept;
    udp dport ${node.tunnel.port} notrack
    ${untracked}
  }
  chain outgoing {
    type filter hook output priority raw; policy accept;
    udp dport ${node.tunnel.port} notrack
    ${untracked}
  }
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    oifname "${UPLINK}" ip saddr ${node.podCidr} ip daddr != ${CLUSTER_CIDR} masquerade
  }
}
`;
}
