/**
 * Connections whose source is translated as well, in a zone of its own: a pod that reaches itself by a Service, the node that
 * reaches itself by one, and what comes from outside by the gateway and goes on to another node. IPv4.
 */
import type { NodePlan, PodPlan } from '../native/addressing.ts';
import { VIRTUAL_SERVICE_ADDRESS } from './names.ts';
import { DESTINATION, HAIRPIN_MARK, PRIORITY, SERVICE_MARK, SNAT_MARK, SOURCE, TABLES, ct, flow } from './pipeline.ts';

/** Antrea's conntrack zone of the second pass. */
export const SNAT_ZONE = 65521;

const NEW = 'ip,ct_state=+new+trk';
const SERVICE = `ct_mark=${SERVICE_MARK}/${SERVICE_MARK}`;
const FROM_GATEWAY = `reg0=${SOURCE.gateway}/0xf`;
/** reg4 bit: the Service's address is for clients outside of the cluster. */
const EXTERNAL = 0x10000;

/** Matches hairpin connections. Both bits, as tests of admission give one of them to connections that go elsewhere. */
export const HAIRPIN = `ct_mark=${SNAT_MARK | HAIRPIN_MARK}/${SNAT_MARK | HAIRPIN_MARK}`;

/** Action of a Service's flow: its address is for clients outside of the cluster. */
export const MARK_EXTERNAL = 'load:1->NXM_NX_REG4[16]';

/** A node's flows. */
export function snatFlows(node: NodePlan): string[] {
  const { low, normal } = PRIORITY;
  const fromGatewayTo = (destination: number): string => `reg0=${(destination << 4) | SOURCE.gateway}/0xff`;
  const sources = [node.gateway, VIRTUAL_SERVICE_ADDRESS];
  return [
    ...sources.map((address) => flow('UnSNAT', normal, `ip,nw_dst=${address}`, again('ConntrackZone', 'nat'))),
    flow(
      'SNATMark',
      normal,
      `${NEW},${SERVICE},${fromGatewayTo(DESTINATION.gateway)}`,
      mark('load:1->NXM_NX_CT_MARK[5]', 'load:1->NXM_NX_CT_MARK[6]'),
    ),
    flow(
      'SNATMark',
      normal,
      `${NEW},${SERVICE},${fromGatewayTo(DESTINATION.tunnel)},reg4=${EXTERNAL}/${EXTERNAL}`,
      mark('load:1->NXM_NX_CT_MARK[5]'),
    ),
    flow('SNAT', normal, `${NEW},${HAIRPIN},${FROM_GATEWAY}`, translate(VIRTUAL_SERVICE_ADDRESS, true)),
    flow('SNAT', normal, `${NEW},${HAIRPIN},reg0=${SOURCE.pod}/0xf`, translate(node.gateway, true)),
    flow('SNAT', low, `${NEW},ct_mark=${SNAT_MARK}/${SNAT_MARK},${FROM_GATEWAY}`, translate(node.gateway, false)),
    flow(
      'SNAT',
      normal,
      `ip,ct_state=-new-rpl+trk,ct_mark=${SNAT_MARK}/${SNAT_MARK}`,
      again('L2ForwardingCalc', 'nat'),
    ),
  ];
}

/** The flow of a pod that a Service sends to itself. */
export function hairpinFlow(pod: PodPlan, id: string): string {
  const match = `${NEW},nw_src=${pod.address},nw_dst=${pod.address}`;
  return flow('SNATMark', PRIORITY.low, match, mark('load:1->NXM_NX_CT_MARK[5]', 'load:1->NXM_NX_CT_MARK[6]'), id);
}

/* Committed before the ingress tables, which do not judge it, with its source. */
function mark(...bits: readonly string[]): string {
  return ct('SNAT', 'commit', `exec(${[...bits, 'move:NXM_NX_REG0[0..3]->NXM_NX_CT_MARK[0..3]'].join(',')})`);
}

function translate(address: string, hairpin: boolean): string {
  // Bit 5 keeps the second entry from the final commit, which is for the main zone.
  const bits = [
    'load:1->NXM_NX_CT_MARK[4]',
    'load:1->NXM_NX_CT_MARK[5]',
    ...(hairpin ? ['load:1->NXM_NX_CT_MARK[6]'] : []),
  ];
  return again('L2ForwardingCalc', 'commit', `nat(src=${address})`, `exec(${bits.join(',')})`);
}

/* Conntrack in the second zone. */
function again(next: keyof typeof TABLES, ...parts: readonly string[]): string {
  return `ct(${[...parts, `table=${TABLES[next]}`, `zone=${SNAT_ZONE}`].join(',')})`;
}
