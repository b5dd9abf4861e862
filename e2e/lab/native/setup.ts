/** The commands that build nodes, pods and the underlay, as scripts: one process per namespace, not hundreds. */
import { ANTREA } from '../lab.ts';
import { GATEWAY_DEVICE, POD_DEVICE, TUNNEL_DEVICE, UPLINK, VNI } from './addressing.ts';
import type { NodePlan, PodPlan } from './addressing.ts';
import { nodeRuleset, spoofGuard } from './ruleset.ts';

/** Device of node `index` in the underlay namespace. */
export function underlayPort(index: number): string {
  return `u${index}`;
}

/** `ip -batch` lines, run outside: makes a namespace. */
export function addNamespace(name: string): string {
  return `netns add ${name}\n`;
}

/** `ip -batch` line, run outside: a veth pair with its two ends where they belong. */
export function addVeth(
  a: { device: string; namespace: string; mac?: string },
  b: { device: string; namespace: string; mac?: string },
  mtu: number,
): string {
  const mac = (end: { mac?: string }): string => (end.mac === undefined ? '' : `address ${end.mac} `);
  return (
    `link add name ${a.device} netns ${a.namespace} ${mac(a)}mtu ${mtu} type veth ` +
    `peer name ${b.device} netns ${b.namespace} ${mac(b)}mtu ${mtu}\n`
  );
}

/** Script for inside a node: slow path and policy for its peers. The uplink device exists already. */
export function nodeScript(node: NodePlan, peers: readonly NodePlan[], hostConntrack: boolean): string {
  const links = [
    'link set lo up',
    `address add ${node.address}/${node.prefixLength} dev ${UPLINK}`,
    `link set ${UPLINK} up`,
    ...(node.router === undefined ? [] : [`route add default via ${node.router}`]),
    `link add ${GATEWAY_DEVICE} address ${ANTREA.virtualMac} type bridge forward_delay 0 mcast_snooping 0`,
    `link set ${GATEWAY_DEVICE} mtu ${node.podMtu} up`,
    `address add ${node.gateway}/24 dev ${GATEWAY_DEVICE}`,
    // Outer header as Open vSwitch writes it: DF set, no UDP checksum, TTL 64, ECN of the inner packet only.
    `link add ${TUNNEL_DEVICE} address ${node.tunnelMac} mtu ${node.podMtu} type vxlan id ${VNI} ` +
      `dstport ${ANTREA.vxlanPort} local ${node.address} nolearning ttl 64 df set noudpcsum`,
    `link set ${TUNNEL_DEVICE} up`,
    ...peers.flatMap((peer) => [
      `neigh add ${peer.gateway} lladdr ${peer.tunnelMac} dev ${TUNNEL_DEVICE} nud permanent`,
      `route add ${peer.podCidr} via ${peer.gateway} dev ${TUNNEL_DEVICE} onlink src ${node.gateway}`,
    ]),
  ];
  const fdb = peers.map((peer) => `fdb append ${peer.tunnelMac} dev ${TUNNEL_DEVICE} dst ${peer.address}`);
  return [
    sysctls({
      ...COMMON_SYSCTLS,
      'net/ipv4/ip_forward': 1,
      'net/bridge/bridge-nf-call-iptables': 1,
      'net/bridge/bridge-nf-call-ip6tables': 1,
      'net/netfilter/nf_conntrack_tcp_be_liberal': 1,
      'net/netfilter/nf_conntrack_acct': 1,
      'net/netfilter/nf_conntrack_timestamp': 1,
    }),
    batch('ip', links),
    batch('bridge', fdb),
    hereDocument('nft -f -', nodeRuleset(node, hostConntrack)),
    LOOSE_REVERSE_PATH,
  ].join('');
}

/** Script for inside the node: takes a pod's host device into service. */
export function podHostScript(node: NodePlan, pod: PodPlan, guard: boolean): string {
  return (
    batch('ip', [`link set ${pod.hostDevice} mtu ${node.podMtu} master ${GATEWAY_DEVICE} up`]) +
    (guard ? hereDocument('nft -f -', spoofGuard(pod)) : '')
  );
}

/** Script for inside a pod. */
export function podScript(node: NodePlan, pod: PodPlan): string {
  return (
    sysctls(COMMON_SYSCTLS) +
    batch('ip', [
      'link set lo up',
      `link set ${POD_DEVICE} up`,
      `address add ${pod.address}/24 dev ${POD_DEVICE}`,
      `route add default via ${node.gateway}`,
    ])
  );
}

/** Script for inside the underlay namespace: an IP router between the nodes. */
export function routerScript(nodes: readonly NodePlan[]): string {
  return (
    sysctls({ ...COMMON_SYSCTLS, 'net/ipv4/ip_forward': 1 }) +
    batch('ip', [
      'link set lo up',
      ...nodes.flatMap((node) => [
        `address add ${node.router ?? ''}/${node.prefixLength} dev ${underlayPort(node.index)}`,
        `link set ${underlayPort(node.index)} up`,
      ]),
    ]) +
    LOOSE_REVERSE_PATH
  );
}

/** Script for inside the underlay namespace: a switch between the nodes. */
export function switchScript(nodes: readonly NodePlan[]): string {
  return (
    sysctls(COMMON_SYSCTLS) +
    batch('ip', [
      'link add sw0 type bridge forward_delay 0 mcast_snooping 0',
      'link set sw0 up',
      ...nodes.map((node) => `link set ${underlayPort(node.index)} master sw0 up`),
    ])
  );
}

/** IPv6 off: no router solicitations or multicast reports in the captures. */
export const COMMON_SYSCTLS: Readonly<Record<string, number>> = {
  'net/ipv6/conf/all/disable_ipv6': 1,
  'net/ipv6/conf/default/disable_ipv6': 1,
  'net/ipv4/conf/all/send_redirects': 0,
  'net/ipv4/conf/default/send_redirects': 0,
};

/** The strictest of `all` and the device counts: every device needs it, those made later take it from `default`. */
export const LOOSE_REVERSE_PATH = 'for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 >"$f"; done\n';

/** Shell lines that set kernel parameters of the namespace they run in. */
export function sysctls(values: Readonly<Record<string, string | number>>): string {
  return Object.entries(values)
    .map(([key, value]) => `echo '${value}' >/proc/sys/${key}\n`)
    .join('');
}

/** Shell text that runs these lines as one batch of a program. */
export function batch(program: 'ip' | 'bridge', lines: readonly string[]): string {
  return lines.length === 0 ? '' : hereDocument(`${program} -batch -`, `${lines.join('\n')}\n`);
}

/** Shell text that runs a command with this text as its input. */
export function hereDocument(command: string, text: string): string {
  return `${command} <<'END_OF_INPUT'\n${text}END_OF_INPUT\n`;
}
