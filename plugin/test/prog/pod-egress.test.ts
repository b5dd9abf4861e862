import { podEgressFastRules } from './rules/pod-egress-fast.ts';
import { podEgressSlowRules } from './rules/pod-egress-slow.ts';
import { busyToo } from './rules/rule.ts';
import { testRules } from './rules/run.ts';

testRules('pod_egress, slow', busyToo(podEgressSlowRules, /no neighbour|does not lead to the uplink/));
testRules('pod_egress, fast', busyToo(podEgressFastRules, /first fast packet/));
