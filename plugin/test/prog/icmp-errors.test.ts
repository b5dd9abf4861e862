import { icmpErrorRules } from './rules/icmp-errors.ts';
import { testRules } from './rules/run.ts';

testRules('ICMP errors', icmpErrorRules);
