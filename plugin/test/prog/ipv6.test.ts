import { ipv6Rules } from './rules/ipv6.ts';
import { testRules } from './rules/run.ts';

testRules('IPv6', ipv6Rules);
