import { encapRules } from './rules/encap.ts';
import { testRules } from './rules/run.ts';

testRules('encapsulation', encapRules);
