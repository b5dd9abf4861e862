import { busyToo, summedToo } from './rules/rule.ts';
import { testRules } from './rules/run.ts';
import { uplinkIngressRules } from './rules/uplink-ingress.ts';

testRules(
  'uplink_ingress',
  busyToo(
    summedToo(uplinkIngressRules),
    /conntrack (entry )?is|approval has expired|the flow of the slot|PEER_COMPLETE|that its packets arrive/,
  ),
);
