import { pathRules } from './rules/paths.ts';
import { testRules } from './rules/run.ts';

testRules('paths and probes', pathRules);
