/** What guards, their changes and their rules have to do with each other. */
import type { Edit, Mutation } from './mutations.ts';
import { directRules } from './rules/direct.ts';
import { encapRules } from './rules/encap.ts';
import { icmpErrorRules } from './rules/icmp-errors.ts';
import { instrumentedRules } from './rules/instrumented.ts';
import { ipv6Rules } from './rules/ipv6.ts';
import { pathRules } from './rules/paths.ts';
import { podEgressFastRules } from './rules/pod-egress-fast.ts';
import { podEgressSlowRules } from './rules/pod-egress-slow.ts';
import { podIngressRules } from './rules/pod-ingress.ts';
import { serviceRules } from './rules/services.ts';
import { uplinkEgressRules } from './rules/uplink-egress.ts';
import { uplinkIngressRules } from './rules/uplink-ingress.ts';
import { uplinkXdpRules } from './rules/uplink-xdp.ts';
import { busyToo, summedToo, type Rule } from './rules/rule.ts';

const rules = new Map<string, Rule>();
for (const rule of [
  ...busyToo(podEgressFastRules),
  ...busyToo(podEgressSlowRules),
  ...podIngressRules,
  ...busyToo(summedToo(uplinkIngressRules)),
  ...uplinkEgressRules,
  ...busyToo(summedToo(serviceRules)),
  ...icmpErrorRules,
  ...summedToo(encapRules),
  ...directRules,
  ...pathRules,
  ...busyToo(summedToo(ipv6Rules)),
  ...uplinkXdpRules,
  ...instrumentedRules,
]) {
  if (rules.has(rule.name)) throw new Error(`two rules are called "${rule.name}"`);
  rules.set(rule.name, rule);
}

/** The rule that proves a guard. @throws Error if there is none */
export function ruleOf({ guard, rule }: Mutation): Rule {
  const found = rules.get(rule);
  if (found === undefined) throw new Error(`guard "${guard}": there is no rule "${rule}"`);
  return found;
}

/** A changed source. @throws Error where the searched text is not there exactly once */
export function apply({ file, search, replace }: Edit, text: string): string {
  const times = text.split(search).length - 1;
  if (times !== 1) throw new Error(`found ${times} times in ${file}, must be there once: ${search}`);
  return text.replace(search, () => replace);
}
