import { ipv6Rules } from './rules/ipv6.ts';
import { busyToo, summedToo } from './rules/rule.ts';
import { testRules } from './rules/run.ts';

testRules('IPv6', busyToo(summedToo(ipv6Rules)));
