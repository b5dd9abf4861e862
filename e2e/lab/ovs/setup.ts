/** The scripts that set a node's host network up beside Open vSwitch. Text only. */
import { CLUSTER_CIDR, UPLINK } from '../native/addressing.ts';
import type { NodePlan } from '../native/addressing.ts';
import { COMMON_SYSCTLS, LOOSE_REVERSE_PATH, batch, hereDocument, sysctls } from '../native/setup.ts';
import { GATEWAY, GENEVE_PORT } from './names.ts';

/** Script for inside a node, before Open vSwitch runs: uplink, kernel parameters, the rules that Antrea has in iptables. */
export function hostScript(node: NodePlan, hostConntrack: boolean): string {
  return [
    sysctls({
      ...COMMON_SYSCTLS,
      'net/ipv4/ip_forward': 1,
      'net/netfilter/nf_conntrack_acct': 1,
      'net/netfilter/nf_conntrack_timestamp': 1,
    }),
    batch('ip', [
      'link set lo up',
      `address add ${node.address}/${node.prefixLength} dev ${UPLINK}`,
      `link set ${UPLINK} up`,
      ...(node.router === undefined ? [] : [`route add default via ${node.router}`]),
    ]),
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
    ]) + LOOSE_REVERSE_PATH
  );
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
    udp dport ${GENEVE_PORT} notrack
    ${untracked}
  }
  chain outgoing {
    type filter hook output priority raw; policy accept;
    udp dport ${GENEVE_PORT} notrack
    ${untracked}
  }
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    oifname "${UPLINK}" ip saddr ${node.podCidr} ip daddr != ${CLUSTER_CIDR} masquerade
  }
}
`;
}
