/** What records say, in words for people. */
import type { FlowWords } from '../dataplane/flows.ts';
import type { FlowNames, NamedFlow } from './flow-names.ts';
import type { RecordPolicy } from './record.ts';

/** A policy in one word: `K8s data/db-in`, `ACNP allow-shop`, `ANP shop/web:to-db` (rule). */
export function policyText({ type, namespace, name, rule }: RecordPolicy): string {
  const full = namespace === '' ? name : `${namespace}/${name}`;
  return `${type === '' ? '' : `${type} `}${full}${rule === '' ? '' : `:${rule}`}`;
}

/** For `xmasq flows`: what records say of a flow. */
export function flowWords(names: Pick<FlowNames, 'lookup'>): (flow: NamedFlow) => FlowWords | undefined {
  return (flow) => {
    const naming = names.lookup(flow);
    if (naming === undefined) return undefined;
    const { sourcePod, destinationPod, service, ingressPolicy, egressPolicy } = naming;
    return {
      ...(sourcePod && { sourcePod }),
      ...(destinationPod && { destinationPod }),
      ...(service && { service: service.name }),
      ...(ingressPolicy && { ingressPolicy: policyText(ingressPolicy) }),
      ...(egressPolicy && { egressPolicy: policyText(egressPolicy) }),
    };
  };
}
