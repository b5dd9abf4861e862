import { directRules } from './rules/direct.ts';
import { testRules } from './rules/run.ts';

testRules('direct', directRules);
