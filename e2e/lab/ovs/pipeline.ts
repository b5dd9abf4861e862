/**
 * The OpenFlow pipeline that behaves like Antrea's for IPv4: text for `ovs-ofctl`, a flow per line. Table names are Antrea's,
 * the numbers are the lab's own. docs/ovs-lab.md says which flow stands for which behaviour.
 *
 * Registers: reg0[0..3] where the packet came from (as in the mark), reg0[9] MAC addresses must be rewritten, reg1 output
 * port, reg3 and reg4[0..15] address and port of a Service's endpoint, reg8[0..15] conntrack zone.
 */
import { ANTREA } from '../lab.ts';
import type { NodePlan, PodPlan } from '../native/addressing.ts';
import { GATEWAY_OFPORT, ROUND, TUNNEL_OFPORT } from './names.ts';
import { gatewayMac } from './setup.ts';

/** OpenFlow tables, in the order in which a packet meets them. */
export const TABLES = {
  PipelineRootClassifier: 0,
  ARPSpoofGuard: 1,
  ARPResponder: 2,
  Classifier: 5,
  SpoofGuard: 10,
  ConntrackZone: 20,
  ConntrackState: 21,
  ServiceLB: 25,
  EndpointDNAT: 26,
  EgressRule: 30,
  L3Forwarding: 33,
  L3DecTTL: 34,
  L2ForwardingCalc: 40,
  IngressSecurityClassifier: 41,
  IngressRule: 42,
  ConntrackCommit: 45,
  Output: 50,
} as const;

/** The two policy stages: their table, what follows, and where a rule's number is in ct_label. */
export const STAGES = {
  egress: { table: 'EgressRule', next: 'L3Forwarding', label: 'NXM_NX_CT_LABEL[32..63]' },
  ingress: { table: 'IngressRule', next: 'ConntrackCommit', label: 'NXM_NX_CT_LABEL[0..31]' },
} as const;

/** What a packet came from; the low nibble of ct_mark once the connection is allowed. */
export const SOURCE = {
  tunnel: ANTREA.markFromTunnel,
  gateway: ANTREA.markFromGateway,
  pod: ANTREA.markFromPod,
} as const;

/** ct_mark bit of a connection that was translated for a Service. */
export const SERVICE_MARK = 0x10;

/** reg0 bit: the packet's MAC addresses must be rewritten. */
export const REWRITE_MAC = 0x200;

/** Categories of flows: the byte below the round in their cookies. */
export const CATEGORY = { base: 1, pod: 2, policy: 3, mark: 4, zone: 5, service: 6 } as const;

/** A cookie as Antrea makes it: round, category, object number (32 bits). */
export function cookie(category: keyof typeof CATEGORY, object = 0): string {
  return `0x${((BigInt(ROUND) << 48n) | (BigInt(CATEGORY[category]) << 40n) | BigInt(object)).toString(16)}`;
}

/** The cookie with a mask, for deleting: every flow of a category, or of one object of it. */
export function cookieMatch(category: keyof typeof CATEGORY, object?: number): string {
  const mask = object === undefined ? '0xffffff0000000000' : '-1';
  return `cookie=${cookie(category, object ?? 0)}/${mask}`;
}

/** One flow. `match` may be empty. */
export function flow(
  table: keyof typeof TABLES,
  priority: number,
  match: string,
  actions: string,
  id: string = cookie('base'),
): string {
  return [`cookie=${id}`, `table=${TABLES[table]}`, `priority=${priority}`, match, `actions=${actions}`]
    .filter((part) => part !== '')
    .join(',');
}

/** Action that ends the flow: go on with a table. */
export function goto(table: keyof typeof TABLES): string {
  return `goto_table:${TABLES[table]}`;
}

/** Action that runs conntrack in the packet's zone and goes on with a table. */
export function ct(next: keyof typeof TABLES, ...parts: readonly string[]): string {
  return `ct(${[...parts, `table=${TABLES[next]}`, 'zone=NXM_NX_REG8[0..15]'].join(',')})`;
}

/** Priorities: Antrea's normal, high and low ones, and those of policy. */
export const PRIORITY = {
  miss: 0,
  low: 190,
  normal: 200,
  high: 210,
  established: 64990,
  deny: 44900,
  allow: 14500,
} as const;

/** The flows that a node has without pods. */
export function baseFlows(node: NodePlan, peers: readonly NodePlan[]): string[] {
  return [
    ...classification(node),
    ...arp(peers),
    ...conntrack(),
    ...policyBypass(),
    ...forwarding(node, peers),
    ...Object.keys(TABLES)
      .filter((table) => !WITH_MISS_FLOW.has(table))
      .map((table) => flow(table as keyof typeof TABLES, PRIORITY.miss, '', 'drop')),
  ];
}

/** The flows of one pod. */
export function podFlows(node: NodePlan, pod: PodPlan, ofport: number): string[] {
  const id = cookie('pod', ofport);
  const { normal, high } = PRIORITY;
  const gateway = gatewayMac(node);
  const own = `arp_spa=${pod.address},arp_sha=${pod.mac}`;
  return [
    flow('ARPSpoofGuard', normal, `arp,in_port=${ofport},${own}`, goto('ARPResponder'), id),
    flow('Classifier', normal, `in_port=${ofport}`, `load:${SOURCE.pod}->NXM_NX_REG0[0..3],${goto('SpoofGuard')}`, id),
    flow(
      'SpoofGuard',
      normal,
      `ip,in_port=${ofport},dl_src=${pod.mac},nw_src=${pod.address}`,
      goto('ConntrackZone'),
      id,
    ),
    // From the tunnel, or of a Service: as if the gateway had routed it.
    flow(
      'L3Forwarding',
      high,
      `ip,reg0=${REWRITE_MAC}/${REWRITE_MAC},nw_dst=${pod.address}`,
      `mod_dl_src:${gateway},mod_dl_dst:${pod.mac},${goto('L3DecTTL')}`,
      id,
    ),
    flow('L2ForwardingCalc', normal, `dl_dst=${pod.mac}`, output(ofport), id),
  ];
}

/** Tables whose last flow is not a drop. */
const WITH_MISS_FLOW: ReadonlySet<string> = new Set([
  'ARPResponder',
  'ServiceLB',
  'EgressRule',
  'L3Forwarding',
  'L3DecTTL',
  'IngressSecurityClassifier',
  'IngressRule',
  'ConntrackState',
  'ConntrackCommit',
  'Output',
]);

function classification(node: NodePlan): string[] {
  const { normal } = PRIORITY;
  const from = (source: number, rest: string): string => `load:${source}->NXM_NX_REG0[0..3],${rest}`;
  return [
    flow('PipelineRootClassifier', normal, 'arp', goto('ARPSpoofGuard')),
    flow('PipelineRootClassifier', normal, 'ip', goto('Classifier')),
    // What comes from the tunnel was guarded where it came from.
    flow(
      'Classifier',
      normal,
      `in_port=${TUNNEL_OFPORT}`,
      from(SOURCE.tunnel, `load:1->NXM_NX_REG0[9],${goto('ConntrackZone')}`),
    ),
    flow('Classifier', normal, `in_port=${GATEWAY_OFPORT}`, from(SOURCE.gateway, goto('SpoofGuard'))),
    flow('SpoofGuard', normal, `ip,in_port=${GATEWAY_OFPORT}`, goto('ConntrackZone')),
    flow(
      'ARPSpoofGuard',
      normal,
      `arp,in_port=${GATEWAY_OFPORT},arp_spa=${node.gateway},arp_sha=${gatewayMac(node)}`,
      goto('ARPResponder'),
    ),
  ];
}

/* The peers' gateways have the virtual MAC address; everything else is switched. */
function arp(peers: readonly NodePlan[]): string[] {
  const mac = ANTREA.virtualMac;
  const reply = (address: string): string =>
    [
      'move:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[]',
      `mod_dl_src:${mac}`,
      'load:2->NXM_OF_ARP_OP[]',
      'move:NXM_NX_ARP_SHA[]->NXM_NX_ARP_THA[]',
      `load:0x${mac.replaceAll(':', '')}->NXM_NX_ARP_SHA[]`,
      'move:NXM_OF_ARP_SPA[]->NXM_OF_ARP_TPA[]',
      `load:${addressNumber(address)}->NXM_OF_ARP_SPA[]`,
      'IN_PORT',
    ].join(',');
  return [
    ...peers.map((peer) =>
      flow('ARPResponder', PRIORITY.normal, `arp,arp_op=1,arp_tpa=${peer.gateway}`, reply(peer.gateway)),
    ),
    flow('ARPResponder', PRIORITY.low, 'arp', 'NORMAL'),
  ];
}

function conntrack(): string[] {
  const { miss, low, normal } = PRIORITY;
  return [
    flow('ConntrackZone', normal, 'ip', `load:${ANTREA.zone}->NXM_NX_REG8[0..15],${ct('ConntrackState', 'nat')}`),
    flow('ConntrackState', normal, 'ct_state=+inv+trk', 'drop'),
    // Both directions of a Service connection are routed, on one node too.
    flow(
      'ConntrackState',
      normal,
      `ip,ct_state=-new+trk,ct_mark=${SERVICE_MARK}/${SERVICE_MARK}`,
      `load:1->NXM_NX_REG0[9],${goto('EgressRule')}`,
    ),
    flow('ConntrackState', low, 'ip,ct_state=-new+trk', goto('EgressRule')),
    flow('ConntrackState', miss, '', goto('ServiceLB')),
    flow('ServiceLB', miss, '', goto('EgressRule')),
    // The verdict: the source in the mark says that every policy let the connection pass.
    flow(
      'ConntrackCommit',
      normal,
      'ip,ct_state=+new+trk,ct_mark=0/0x20',
      ct('Output', 'commit', 'exec(move:NXM_NX_REG0[0..3]->NXM_NX_CT_MARK[0..3])'),
    ),
    flow('ConntrackCommit', miss, '', goto('Output')),
    flow('Output', miss, '', 'output:NXM_NX_REG1[]'),
  ];
}

/* Established connections are not judged again; the rest meets the rules, which are above the last flows. */
function policyBypass(): string[] {
  const { established, miss } = PRIORITY;
  return Object.values(STAGES).flatMap(({ table, next }) => [
    flow(table, established, 'ip,ct_state=-new+est', goto(next)),
    flow(table, established, 'ip,ct_state=-new+rel', goto(next)),
    flow(table, miss, '', goto(next)),
  ]);
}

function forwarding(node: NodePlan, peers: readonly NodePlan[]): string[] {
  const { miss, low, normal, high } = PRIORITY;
  const gateway = gatewayMac(node);
  const rewrite = `ip,reg0=${REWRITE_MAC}/${REWRITE_MAC}`;
  return [
    flow('L3Forwarding', high, `${rewrite},nw_dst=${node.gateway}`, `mod_dl_dst:${gateway},${goto('L3DecTTL')}`),
    ...peers.map((peer) =>
      flow(
        'L3Forwarding',
        normal,
        `ip,nw_dst=${peer.podCidr}`,
        `mod_dl_src:${gateway},mod_dl_dst:${ANTREA.virtualMac},` +
          `load:${addressNumber(peer.address)}->NXM_NX_TUN_IPV4_DST[],${goto('L3DecTTL')}`,
      ),
    ),
    // Within the pod CIDR nothing changes; what leaves the cluster is routed by the host.
    flow('L3Forwarding', low, `ip,nw_dst=${node.podCidr}`, goto('L2ForwardingCalc')),
    flow('L3Forwarding', miss, '', `mod_dl_dst:${gateway},${goto('L2ForwardingCalc')}`),
    flow('L3DecTTL', high, `ip,in_port=${GATEWAY_OFPORT}`, goto('L2ForwardingCalc')),
    flow('L3DecTTL', miss, 'ip', `dec_ttl,${goto('L2ForwardingCalc')}`),
    flow('L2ForwardingCalc', normal, `dl_dst=${gateway}`, output(GATEWAY_OFPORT)),
    flow('L2ForwardingCalc', normal, `dl_dst=${ANTREA.virtualMac}`, output(TUNNEL_OFPORT)),
    // What leaves the node is not judged by ingress rules.
    ...[GATEWAY_OFPORT, TUNNEL_OFPORT].map((port) =>
      flow('IngressSecurityClassifier', normal, `reg1=${port}`, goto('ConntrackCommit')),
    ),
    flow('IngressSecurityClassifier', miss, '', goto('IngressRule')),
  ];
}

function output(ofport: number): string {
  return `load:${ofport}->NXM_NX_REG1[],${goto('IngressSecurityClassifier')}`;
}

/** An IPv4 address as `load` wants it. */
export function addressNumber(address: string): string {
  return `0x${address
    .split('.')
    .map((part) => Number(part).toString(16).padStart(2, '0'))
    .join('')}`;
}
