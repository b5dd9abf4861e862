/** ClusterIP Services as groups and flows of the pipeline, as AntreaProxy makes them. Text only. */
import { PRIORITY, TABLES, addressNumber, cookie, ct, flow } from './pipeline.ts';

export interface ClusterIpService {
  readonly clusterIp: string;
  readonly protocol: 'tcp' | 'udp';
  readonly port: number;
  /** At least one; each connection gets one of them. */
  readonly endpoints: readonly { readonly address: string; readonly port: number }[];
}

/** The Service's group and its flows. `number` is the group's. */
export function serviceFlows(
  service: ClusterIpService,
  number: number,
): { readonly group: string; readonly flows: readonly string[] } {
  const id = cookie('service', number);
  const { protocol } = service;
  const buckets = service.endpoints.map(({ address, port }) => {
    const registers = `load:${addressNumber(address)}->NXM_NX_REG3[],load:${port}->NXM_NX_REG4[0..15]`;
    return `bucket=weight:100,actions=${registers},resubmit(,${TABLES.EndpointDNAT})`;
  });
  const translations = service.endpoints.map(({ address, port }) => {
    const match = `${protocol},reg3=${addressNumber(address)},reg4=${port}/0xffff`;
    // Committed before any policy has judged it.
    const commit = ct('EgressRule', 'commit', `nat(dst=${address}:${port})`, 'exec(load:1->NXM_NX_CT_MARK[4])');
    return flow('EndpointDNAT', PRIORITY.normal, match, commit, id);
  });
  const match = `${protocol},nw_dst=${service.clusterIp},tp_dst=${service.port}`;
  const balance = flow('ServiceLB', PRIORITY.normal, match, `load:1->NXM_NX_REG0[9],group:${number}`, id);
  return { group: `group_id=${number},type=select,${buckets.join(',')}`, flows: [balance, ...translations] };
}
