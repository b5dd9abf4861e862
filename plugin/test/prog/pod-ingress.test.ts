import { podIngressRules } from './rules/pod-ingress.ts';
import { testRules } from './rules/run.ts';

testRules('pod_ingress', podIngressRules);
