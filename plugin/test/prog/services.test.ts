import { testRules } from './rules/run.ts';
import { serviceRules } from './rules/services.ts';

testRules('Services', serviceRules);
