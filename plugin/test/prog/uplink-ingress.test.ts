import { testRules } from './rules/run.ts';
import { uplinkIngressRules } from './rules/uplink-ingress.ts';

testRules('uplink_ingress', uplinkIngressRules);
