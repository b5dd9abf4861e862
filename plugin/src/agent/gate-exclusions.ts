/** What the feature gates exclude. */
import type { FeatureGates, GateName } from '../config/feature-gates.ts';
import { Reason } from '../dataplane/layout.ts';
import type { NodeExclusion, NodeScope } from '../exclusion/exclusions.ts';

/** Gates without which something must stay slow. */
const SCOPES: readonly (readonly [GateName, NodeScope])[] = [
  ['XMasq', 'node'],
  ['SameNode', 'same-node'],
];

export function gateExclusions(gates: FeatureGates): NodeExclusion[] {
  return SCOPES.filter(([gate]) => !gates[gate]).map(([gate, scope]) => ({
    scope,
    reason: Reason.FEATURE_GATE,
    detail: `featureGates.${gate} is false`,
  }));
}
