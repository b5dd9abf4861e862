import { busyToo, summedToo } from './rules/rule.ts';
import { testRules } from './rules/run.ts';
import { serviceRules } from './rules/services.ts';

testRules('Services', busyToo(summedToo(serviceRules)));
