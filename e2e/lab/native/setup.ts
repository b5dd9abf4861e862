/** The commands that build nodes, pods and the underlay, as scripts: one process per namespace, not hundreds. */
import { ANTREA } from '../lab.ts';
import type { Family, UplinkKind } from '../lab.ts';
import {
  GATEWAY_DEVICE,
  POD_DEVICE,
  TUNNEL_DEVICES,
  UPLINK,
  UPLINK_VLAN,
  carrier,
  carriers,
  isDirect,
  lowerDevices,
  podNetworks,
  transportAddress,
} from './addressing.ts';
import type { NodePlan, PodPlan } from './addressing.ts';
import { nodeRuleset, spoofGuard } from './ruleset.ts';

/** Device of node `index` in the underlay namespace. */
export function underlayPort(index: number): string {
  return `u${index}`;
}

/** A bond looks at its devices this often. */
const BOND_MONITOR_MS = 50;

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
    ...uplinkLines(node),
    `link add ${GATEWAY_DEVICE} address ${ANTREA.virtualMac} type bridge forward_delay 0 mcast_snooping 0`,
    `link set ${GATEWAY_DEVICE} mtu ${node.podMtu} up`,
    ...podNetworks(node).map(({ family, gateway }) => addressLine(family, gateway, GATEWAY_DEVICE)),
    ...carriers(node).flatMap((family) => tunnelLines(node, family)),
    ...peers.flatMap((peer) => peerLines(node, peer)),
  ];
  const fdb = peers.flatMap((peer) => carriers(node).map((family) => peerForwarding(peer, family)));
  return [
    sysctls({
      ...(hasIpv6(node) ? IPV6_SYSCTLS : COMMON_SYSCTLS),
      'net/ipv4/ip_forward': 1,
      // What the underlay says of the tunnel's path MTU reaches the pods, as from Open vSwitch's tunnel port.
      'net/ipv4/ip_forward_use_pmtu': 1,
      ...(hasIpv6(node) ? { 'net/ipv6/conf/all/forwarding': 1, ...quietIpv6(UPLINK) } : {}),
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

/** True if a node has any IPv6 address. */
export function hasIpv6(node: NodePlan): boolean {
  return node.ipv6 !== undefined || node.transport.ipv6 !== undefined;
}

/** `ip -batch` lines for inside a namespace: makes one end of an uplink, unless it is there with the devices below it. */
export function cableEndLines(device: string, kind: UplinkKind, mtu: number, mac?: string): string[] {
  const lower = lowerDevices(device, kind);
  const [parent = '', ...others] = lower;
  switch (kind) {
    case 'plain':
      return [];
    case 'vlan':
      return [`link set ${parent} up`, `link add link ${parent} name ${device} type vlan id ${UPLINK_VLAN}`];
    case 'bond':
      return [
        `link add name ${device} mtu ${mtu}${mac === undefined ? '' : ` address ${mac}`} ` +
          `type bond mode active-backup miimon ${BOND_MONITOR_MS}`,
        ...[parent, ...others].map((each) => `link set ${each} master ${device}`),
        `link set ${device} type bond primary ${parent}`,
      ];
  }
}

/** `ip -batch` lines for inside a node: its uplink. */
export function uplinkLines(node: NodePlan): string[] {
  const { ipv4, ipv6 } = node.transport;
  return [
    ...cableEndLines(UPLINK, node.uplink, node.mtu, node.uplinkMac),
    ...(ipv4 === undefined ? [] : [`address add ${ipv4.address}/${ipv4.prefixLength} dev ${UPLINK}`]),
    ...(ipv6 === undefined ? [] : [`address add ${ipv6.address}/${ipv6.prefixLength} dev ${UPLINK} nodad`]),
    `link set ${UPLINK} up`,
    ...[ipv4, ipv6].flatMap((each) => (each?.router === undefined ? [] : [`route add default via ${each.router}`])),
    ...[ipv4, ipv6].flatMap((each) => (each?.segment === undefined ? [] : [`route add ${each.segment} dev ${UPLINK}`])),
  ];
}

function addressLine(family: Family, address: string, device: string): string {
  return family === 'ipv4'
    ? `address add ${address}/24 dev ${device}`
    : `address add ${address}/64 dev ${device} nodad`;
}

/* Outer header as Open vSwitch writes it: DF set, no UDP checksum by default, TTL 64, ECN of the inner packet only. */
function tunnelLines(node: NodePlan, family: Family): string[] {
  const device = TUNNEL_DEVICES[family];
  const { port, checksum, vni } = node.tunnel;
  const ownFamily =
    family === 'ipv4'
      ? `df set ${checksum ? 'udpcsum' : 'noudpcsum'}`
      : `${checksum ? 'noudp6zerocsumtx' : 'udp6zerocsumtx'} udp6zerocsumrx`;
  return [
    `link add ${device} address ${node.tunnelMac} mtu ${node.podMtu} type vxlan id ${vni} ` +
      `dstport ${port} local ${transportAddress(node, family)} nolearning ttl 64 ${ownFamily}`,
    `link set ${device} up`,
  ];
}

/** `bridge -batch` line for inside a node: where a peer's tunnel of this outer family is. */
export function peerForwarding(peer: NodePlan, family: Family): string {
  return `fdb replace ${peer.tunnelMac} dev ${TUNNEL_DEVICES[family]} dst ${transportAddress(peer, family)}`;
}

/** `ip -batch` lines for inside a node: the way to a peer's pods. */
export function peerLines(node: NodePlan, peer: NodePlan): string[] {
  const own = podNetworks(node);
  return podNetworks(peer).flatMap(({ family, podCidr, gateway }, i) => {
    const source = own[i]?.gateway ?? '';
    if (isDirect(node, peer, family)) {
      const next = node.transport[family]?.router ?? transportAddress(peer, family);
      return [`route add ${podCidr} via ${next} dev ${UPLINK} src ${source}`];
    }
    const device = TUNNEL_DEVICES[carrier(node, family)];
    return [
      `neigh add ${gateway} lladdr ${peer.tunnelMac} dev ${device} nud permanent`,
      `route add ${podCidr} via ${gateway} dev ${device} onlink src ${source}`,
    ];
  });
}

/** Script for inside the node: takes a pod's host device into service. */
export function podHostScript(node: NodePlan, pod: PodPlan, guard: boolean): string {
  return (
    // A port of a bridge has no use for addresses; with one it would report its multicast groups to the pod.
    (hasIpv6(node) ? sysctls({ [`net/ipv6/conf/${pod.hostDevice}/disable_ipv6`]: 1 }) : '') +
    batch('ip', [`link set ${pod.hostDevice} mtu ${node.podMtu} master ${GATEWAY_DEVICE} up`]) +
    (guard ? hereDocument('nft -f -', spoofGuard(pod)) : '')
  );
}

/** Script for inside a pod. */
export function podScript(node: NodePlan, pod: PodPlan): string {
  const { ipv6 } = node;
  return (
    sysctls(ipv6 === undefined ? COMMON_SYSCTLS : { ...IPV6_SYSCTLS, ...quietIpv6(POD_DEVICE) }) +
    batch('ip', [
      'link set lo up',
      `link set ${POD_DEVICE} up`,
      `address add ${pod.address}/24 dev ${POD_DEVICE}`,
      `route add default via ${node.gateway}`,
      ...(ipv6 === undefined || pod.address6 === undefined
        ? []
        : [`address add ${pod.address6}/64 dev ${POD_DEVICE} nodad`, `route add default via ${ipv6.gateway}`]),
    ])
  );
}

/** `ip -batch` lines for inside the router, which without a tunnel knows where the pods are. */
export function podRoutes(node: NodePlan): string[] {
  return podNetworks(node).map(({ family, podCidr }) => `route add ${podCidr} via ${transportAddress(node, family)}`);
}

/** Script for inside the underlay namespace: an IP router between the nodes. */
export function routerScript(nodes: readonly NodePlan[]): string {
  const ipv6 = nodes.some(hasIpv6);
  return (
    sysctls({
      ...(ipv6 ? IPV6_SYSCTLS : COMMON_SYSCTLS),
      'net/ipv4/ip_forward': 1,
      ...(ipv6 ? { 'net/ipv6/conf/all/forwarding': 1 } : {}),
    }) +
    nodes.map(({ index }) => (ipv6 ? sysctls(quietIpv6(underlayPort(index))) : '')).join('') +
    batch('ip', [
      'link set lo up',
      ...nodes.flatMap(({ index, uplink, mtu }) => cableEndLines(underlayPort(index), uplink, mtu)),
      ...nodes.flatMap(({ index, transport }) => [
        ...(['ipv4', 'ipv6'] as const).flatMap((family) => {
          const router = transport[family]?.router;
          return router === undefined ? [] : [addressLine(family, router, underlayPort(index))];
        }),
        `link set ${underlayPort(index)} up`,
      ]),
      ...nodes.filter(({ encapMode }) => encapMode === 'noEncap').flatMap(podRoutes),
    ]) +
    LOOSE_REVERSE_PATH
  );
}

/**
 * Script for inside any namespace: waits, 3 s at most, until these devices answer for their IPv6 addresses. A new device's
 * carrier is noticed late, and until then neighbour solicitations for it get lost, which costs the asker a second.
 */
export function ipv6ReadyScript(devices: readonly string[]): string {
  return devices
    .map((device) => {
      const ready = `ip -6 addr show dev ${device} scope link -tentative | grep -q .`;
      return `for i in $(seq 60); do if ${ready}; then break; fi; sleep 0.05; done\n${ready}\n`;
    })
    .join('');
}

/** Script for inside the underlay namespace: a switch between the nodes. */
export function switchScript(nodes: readonly NodePlan[]): string {
  return (
    sysctls(COMMON_SYSCTLS) +
    batch('ip', [
      'link add sw0 type bridge forward_delay 0 mcast_snooping 0',
      'link set sw0 up',
      ...nodes.flatMap(({ index, uplink, mtu }) => cableEndLines(underlayPort(index), uplink, mtu)),
      ...nodes.map((node) => `link set ${underlayPort(node.index)} master sw0 up`),
    ])
  );
}

const NO_REDIRECTS: Readonly<Record<string, number>> = {
  'net/ipv4/conf/all/send_redirects': 0,
  'net/ipv4/conf/default/send_redirects': 0,
};

/** IPv6 off: no router solicitations or multicast reports in the captures. */
export const COMMON_SYSCTLS: Readonly<Record<string, number>> = {
  'net/ipv6/conf/all/disable_ipv6': 1,
  'net/ipv6/conf/default/disable_ipv6': 1,
  ...NO_REDIRECTS,
};

/** With IPv6: addresses count at once, and nobody waits for routers. For devices to come. */
const IPV6_SYSCTLS: Readonly<Record<string, number>> = {
  ...quietIpv6('default'),
  ...NO_REDIRECTS,
};

/* The same for one device. */
function quietIpv6(device: string): Record<string, number> {
  return {
    [`net/ipv6/conf/${device}/accept_dad`]: 0,
    [`net/ipv6/conf/${device}/accept_ra`]: 0,
    [`net/ipv6/conf/${device}/router_solicitations`]: 0,
  };
}

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
