import { testRules } from './rules/run.ts';
import { uplinkXdpRules } from './rules/uplink-xdp.ts';

testRules('uplink_xdp', uplinkXdpRules);
