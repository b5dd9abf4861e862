import { encapRules } from './rules/encap.ts';
import { summedToo } from './rules/rule.ts';
import { testRules } from './rules/run.ts';

testRules('encapsulation', summedToo(encapRules));
