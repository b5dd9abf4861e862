/** The flows that behave like Antrea's: those of a node, and those of a pod. Text for `ovs-ofctl`, a flow per line. */
import { ANTREA } from '../lab.ts';
import { transportAddress } from '../native/addressing.ts';
import type { NodePlan, PodPlan } from '../native/addressing.ts';
import { ipv6NodeFlows, ipv6PodFlows } from './flows-ipv6.ts';
import { HAIRPIN, hairpinFlow, snatFlows } from './flows-snat.ts';
import { GATEWAY_OFPORT, TUNNEL_OFPORT } from './names.ts';
import {
  DESTINATION,
  FAMILIES,
  PRIORITY,
  REWRITE_MAC,
  SERVICE_MARK,
  SNAT_MARK,
  SOURCE,
  STAGES,
  TABLES,
  addressNumber,
  cookie,
  ct,
  flow,
  goto,
} from './pipeline.ts';
import type { Family } from './pipeline.ts';
import { gatewayMac } from './setup.ts';

/** The flows that a node has without pods. */
export function baseFlows(node: NodePlan, peers: readonly NodePlan[]): string[] {
  const families = node.ipv6 === undefined ? [FAMILIES.ipv4] : Object.values(FAMILIES);
  return [
    ...classification(node),
    ...arp(peers),
    ...families.flatMap(conntrack),
    ...families.flatMap(policyBypass),
    ...forwarding(node, peers),
    ...output(),
    ...snatFlows(node),
    ...ipv6NodeFlows(node, peers),
    ...missFlows(),
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
    flow('SpoofGuard', normal, `ip,in_port=${ofport},dl_src=${pod.mac},nw_src=${pod.address}`, goto('UnSNAT'), id),
    // From the tunnel, or of a Service: as if the gateway had routed it.
    flow(
      'L3Forwarding',
      high,
      `ip,reg0=${REWRITE_MAC}/${REWRITE_MAC},nw_dst=${pod.address}`,
      `mod_dl_src:${gateway},mod_dl_dst:${pod.mac},${goto('L3DecTTL')}`,
      id,
    ),
    flow('L2ForwardingCalc', normal, `dl_dst=${pod.mac}`, to(ofport), id),
    hairpinFlow(pod, id),
    ...ipv6PodFlows(node, pod, ofport),
  ];
}

/** What the host's firewall marks the kubelet's probes with. */
const PROBE_MARK = '0x80000000';

/** What a table does with the rest, where that is not to drop it. */
const MISS: Partial<Record<keyof typeof TABLES, string>> = {
  ARPResponder: '',
  IPv6: goto('ConntrackZone'),
  UnSNAT: goto('ConntrackZone'),
  ConntrackState: goto('ServiceLB'),
  ServiceLB: goto('EgressRule'),
  EgressRule: goto('EgressDefaultRule'),
  EgressDefaultRule: goto('EgressMetric'),
  EgressMetric: goto('L3Forwarding'),
  L3Forwarding: '',
  L3DecTTL: '',
  SNATMark: goto('SNAT'),
  SNAT: goto('L2ForwardingCalc'),
  IngressSecurityClassifier: goto('IngressRule'),
  IngressRule: goto('IngressDefaultRule'),
  IngressDefaultRule: goto('IngressMetric'),
  IngressMetric: goto('ConntrackCommit'),
  ConntrackCommit: goto('Output'),
  Output: 'output:NXM_NX_REG1[]',
};

/* An empty one is installed with the table's other flows. */
function missFlows(): string[] {
  return Object.keys(TABLES).flatMap((name) => {
    const table = name as keyof typeof TABLES;
    const actions = MISS[table] ?? 'drop';
    return actions === '' ? [] : [flow(table, PRIORITY.miss, '', actions)];
  });
}

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
      from(SOURCE.tunnel, `load:1->NXM_NX_REG0[9],${goto('UnSNAT')}`),
    ),
    flow('Classifier', normal, `in_port=${GATEWAY_OFPORT}`, from(SOURCE.gateway, goto('SpoofGuard'))),
    flow('SpoofGuard', normal, `ip,in_port=${GATEWAY_OFPORT}`, goto('UnSNAT')),
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

function conntrack({ match, zone }: Family): string[] {
  const { low, normal } = PRIORITY;
  return [
    flow('ConntrackZone', normal, match, `load:${zone}->NXM_NX_REG8[0..15],${ct('ConntrackState', 'nat')}`),
    flow('ConntrackState', normal, `${match},ct_state=+inv+trk`, 'drop'),
    // Both directions of a Service connection are routed, on one node too.
    flow(
      'ConntrackState',
      normal,
      `${match},ct_state=-new+trk,ct_mark=${SERVICE_MARK}/${SERVICE_MARK}`,
      `load:1->NXM_NX_REG0[9],${goto('EgressRule')}`,
    ),
    flow('ConntrackState', low, `${match},ct_state=-new+trk`, goto('EgressRule')),
    // The verdict: the source in the mark says that every policy let the connection pass.
    flow(
      'ConntrackCommit',
      normal,
      `${match},ct_state=+new+trk,ct_mark=0/${SNAT_MARK}`,
      ct('Output', 'commit', 'exec(move:NXM_NX_REG0[0..3]->NXM_NX_CT_MARK[0..3])'),
    ),
  ];
}

/* Established connections are not judged again; the rest meets the rules. */
function policyBypass({ match }: Family): string[] {
  return Object.values(STAGES).flatMap(({ table, metric }) => [
    flow(table, PRIORITY.established, `${match},ct_state=-new+est`, goto(metric)),
    flow(table, PRIORITY.established, `${match},ct_state=-new+rel`, goto(metric)),
  ]);
}

function forwarding(node: NodePlan, peers: readonly NodePlan[]): string[] {
  const { miss, low, normal, high } = PRIORITY;
  const gateway = gatewayMac(node);
  const rewrite = `ip,reg0=${REWRITE_MAC}/${REWRITE_MAC}`;
  const destination = (value: number): string => `load:${value}->NXM_NX_REG0[4..7]`;
  return [
    flow('L3Forwarding', high, `${rewrite},nw_dst=${node.gateway}`, `mod_dl_dst:${gateway},${goto('L3DecTTL')}`),
    ...peers.map((peer) =>
      flow(
        'L3Forwarding',
        normal,
        `ip,nw_dst=${peer.podCidr}`,
        `mod_dl_src:${gateway},mod_dl_dst:${ANTREA.virtualMac},${destination(DESTINATION.tunnel)},` +
          `load:${addressNumber(transportAddress(peer, 'ipv4'))}->NXM_NX_TUN_IPV4_DST[],${goto('L3DecTTL')}`,
      ),
    ),
    // Within the pod CIDR nothing changes; what leaves the cluster is routed by the host.
    flow('L3Forwarding', low, `ip,nw_dst=${node.podCidr}`, goto('L2ForwardingCalc')),
    flow('L3Forwarding', miss, '', `mod_dl_dst:${gateway},${destination(DESTINATION.gateway)},${goto('SNATMark')}`),
    flow('L3DecTTL', high, `in_port=${GATEWAY_OFPORT}`, goto('SNATMark')),
    flow('L3DecTTL', miss, 'ip', `dec_ttl,${goto('SNATMark')}`),
    flow('L2ForwardingCalc', normal, `dl_dst=${gateway}`, to(GATEWAY_OFPORT)),
    flow('L2ForwardingCalc', normal, `dl_dst=${ANTREA.virtualMac}`, to(TUNNEL_OFPORT)),
  ];
}

function output(): string[] {
  const { normal, high } = PRIORITY;
  const hairpin = `ip,${HAIRPIN}`;
  return [
    // What leaves the node is not judged by ingress rules.
    ...[GATEWAY_OFPORT, TUNNEL_OFPORT].map((port) =>
      flow('IngressSecurityClassifier', normal, `reg1=${port}`, goto('IngressMetric')),
    ),
    flow('IngressSecurityClassifier', normal, hairpin, goto('ConntrackCommit')),
    // The kubelet's probes: the host marks them.
    flow(
      'IngressSecurityClassifier',
      high,
      `ip,in_port=${GATEWAY_OFPORT},ct_state=-rpl+trk,pkt_mark=${PROBE_MARK}/${PROBE_MARK}`,
      goto('ConntrackCommit'),
    ),
    flow('Output', high, hairpin, 'IN_PORT'),
  ];
}

function to(ofport: number): string {
  return `load:${ofport}->NXM_NX_REG1[],${goto('IngressSecurityClassifier')}`;
}
