import type { NodeExclusion } from '../exclusion/exclusions.ts';
import { reasonName } from '../grpc/reasons.ts';
import { warning, type Verdict } from './finding.ts';

/** Something is not accelerated, and is not meant to be. */
export function exclusionVerdict({ scope, reason, detail }: NodeExclusion, where: string): Verdict {
  return warning({
    what: `excluded (${scope}): ${reasonName(reason)} (${detail})`,
    where,
    action: 'nothing, if it is wanted: see docs/antrea.md, "What is excluded, and why"',
  });
}
