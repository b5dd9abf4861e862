/** ClusterIP Services as groups and flows of the pipeline, as AntreaProxy makes them. Text only. */
import { isIPv6 } from 'node:net';
import type { ClusterIpService } from '../lab.ts';
import { MARK_EXTERNAL } from './flows-snat.ts';
import { FAMILIES, PRIORITY, TABLES, addressNumber, cookie, ct, flow } from './pipeline.ts';

export interface ServiceRule extends ClusterIpService {
  /** The address is for clients outside of the cluster, too, who come by the gateway. Default false. */
  readonly external?: boolean;
}

/** The Service's group and its flows. `number` is the group's. */
export function serviceFlows(
  service: ServiceRule,
  number: number,
): { readonly group: string; readonly flows: readonly string[] } {
  const id = cookie('service', number);
  const six = isIPv6(service.clusterIp);
  const protocol = six ? (`${service.protocol}6` as const) : service.protocol;
  const buckets = service.endpoints.map(({ address, port }) => {
    const endpoint = six
      ? `set_field:${addressNumber(address)}->xxreg3`
      : `load:${addressNumber(address)}->NXM_NX_REG3[]`;
    return `bucket=weight:100,actions=${endpoint},load:${port}->NXM_NX_REG4[0..15],resubmit(,${TABLES.EndpointDNAT})`;
  });
  const translations = service.endpoints.map(({ address, port }) => {
    const match = `${protocol},${six ? 'xxreg3' : 'reg3'}=${addressNumber(address)},reg4=${port}/0xffff`;
    // Committed before any policy has judged it.
    const commit = ct(
      'EgressRule',
      'commit',
      `nat(dst=${six ? `[${address}]` : address}:${port})`,
      'exec(load:1->NXM_NX_CT_MARK[4])',
    );
    return flow('EndpointDNAT', PRIORITY.normal, match, commit, id);
  });
  const match = `${protocol},${FAMILIES[six ? 'ipv6' : 'ipv4'].dst}=${service.clusterIp},tp_dst=${service.port}`;
  const marks = ['load:1->NXM_NX_REG0[9]', ...(service.external === true ? [MARK_EXTERNAL] : [])];
  const balance = flow('ServiceLB', PRIORITY.normal, match, `${marks.join(',')},group:${number}`, id);
  return { group: `group_id=${number},type=select,${buckets.join(',')}`, flows: [balance, ...translations] };
}
