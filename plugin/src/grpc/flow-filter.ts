import { xmasq } from '../gen/xmasq.js';
import { canonicalAddress } from './addresses.ts';
import type { FlowInfo, PodName } from './backend.ts';
import { TRANSMIT_MODES } from './convert.ts';
import { invalidArgument } from './errors.ts';
import { isReason } from './reasons.ts';

const { FlowPath } = xmasq.v1;

/** Whether a flow is asked for. */
export type FlowPredicate = (flow: FlowInfo) => boolean;

/**
 * The conditions of a request, as one predicate.
 * @throws RpcError INVALID_ARGUMENT that names the field
 */
export function flowFilter(request: xmasq.v1.FlowsRequest.$Properties): FlowPredicate {
  const conditions: FlowPredicate[] = [];
  const { pod, namespace, ip, peer, protocol, port, path, mode, reason } = request;

  // Pod and namespace must hold for the same end: "web in prod" is one pod, not two.
  if (pod != null || namespace != null) {
    if (pod === '') throw invalidArgument('field pod is empty; expected a pod name');
    if (namespace === '') throw invalidArgument('field namespace is empty; expected a namespace name');
    const matches = (end: PodName | undefined): boolean =>
      end !== undefined && (pod == null || end.name === pod) && (namespace == null || end.namespace === namespace);
    conditions.push((flow) => matches(flow.sourcePod) || matches(flow.destinationPod));
  }
  if (ip != null) {
    const address = canonicalAddress('ip', ip);
    conditions.push(({ sourceIp, destinationIp, endpoint }) =>
      [sourceIp, destinationIp, endpoint?.ip].includes(address),
    );
  }
  if (peer != null) {
    if (peer === '') throw invalidArgument('field peer is empty; expected a node name');
    conditions.push((flow) => flow.peer === peer);
  }
  if (protocol != null) {
    if (protocol > 255)
      throw invalidArgument(`field protocol is ${protocol}; expected an IP protocol number, 0 to 255`);
    conditions.push((flow) => flow.protocol === protocol);
  }
  if (port != null) {
    if (port < 1 || port > 65535) throw invalidArgument(`field port is ${port}; expected 1 to 65535`);
    conditions.push(({ sourcePort, destinationPort, endpoint }) =>
      [sourcePort, destinationPort, endpoint?.port].includes(port),
    );
  }
  if (path != null) {
    if (path !== FlowPath.FLOW_PATH_FAST && path !== FlowPath.FLOW_PATH_SLOW) {
      throw invalidArgument(`field path is ${path}; expected FLOW_PATH_FAST or FLOW_PATH_SLOW`);
    }
    const wanted = path === FlowPath.FLOW_PATH_FAST ? 'fast' : 'slow';
    conditions.push((flow) => flow.path === wanted);
  }
  if (mode != null) {
    const wanted = Object.entries(TRANSMIT_MODES).find(([, value]) => value === mode)?.[0];
    if (wanted === undefined) throw invalidArgument(`field mode is ${mode}; expected a value of xmasq.v1.TransmitMode`);
    conditions.push((flow) => flow.mode === wanted);
  }
  if (reason != null) {
    if (!isReason(reason)) throw invalidArgument(`field reason is ${reason}; expected a value of xmasq.v1.Reason`);
    conditions.push((flow) => flow.reason === (reason as number));
  }
  return (flow) => conditions.every((condition) => condition(flow));
}
