import { testRules } from './rules/run.ts';
import { uplinkEgressRules } from './rules/uplink-egress.ts';

testRules('uplink_egress', uplinkEgressRules);
