import { podEgressFastRules } from './rules/pod-egress-fast.ts';
import { podEgressSlowRules } from './rules/pod-egress-slow.ts';
import { testRules } from './rules/run.ts';

testRules('pod_egress, slow', podEgressSlowRules);
testRules('pod_egress, fast', podEgressFastRules);
