/** Policy, marks and zones as flows of the pipeline. */
import { LabError } from '../lab.ts';
import type { DenyRule, Family, Node, Pod, Policy, Protocol } from '../lab.ts';
import { redirectMarks } from './flows-l7.ts';
import { FAMILIES, PRIORITY, SOURCE, STAGES, cookie, cookieMatch, ct, flow, goto } from './pipeline.ts';
import type { CATEGORY } from './pipeline.ts';

/** A policy stage: egress for what the node's pods send, ingress for what they receive. */
export type Stage = keyof typeof STAGES;

/** What of a node takes flows. */
export interface FlowTarget extends Node {
  addFlows(flows: readonly string[]): Promise<void>;
  /** Deletes the flows that match (an ovs-ofctl flow match). */
  deleteFlows(match: string): Promise<void>;
}

/** Of a rule's number in ct_label. */
const LABEL_BITS = 32;

const PORT_PROTOCOLS = ['tcp', 'udp', 'sctp'] as const;

export class OvsPolicy implements Policy {
  readonly #nodes: readonly FlowTarget[];
  #rules = 0;
  /** What there is to delete: ovs-ofctl takes a second under emulation, and tests clear more often than they set. */
  readonly #present = new Set<keyof typeof CATEGORY>();

  constructor(nodes: readonly FlowTarget[]) {
    this.#nodes = nodes;
  }

  /**
   * Drops new connections at the egress stage of the nodes whose pods may be the source, and at the ingress stage of those
   * whose pods may be the destination. Restricted to one stage, only there.
   */
  async deny(rule: DenyRule, stages: readonly Stage[] = ['egress', 'ingress']): Promise<void> {
    await this.#apply(rule, stages, (stage, node) =>
      familiesOf(node).flatMap((family) => {
        const match = ruleMatch(rule, stage, family);
        return match === undefined ? [] : flow(STAGES[stage].table, PRIORITY.deny, match, 'drop', cookie('policy'));
      }),
    );
  }

  /**
   * An allow rule of one stage, for IPv4, below every deny rule: the connection is committed with the rule's number in its label,
   * before later tables have judged it. Returns the number.
   * @param l7Vlan the connection's packets all go to the L7 engine (`OvsNode.addL7Engine`), with this VLAN ID
   */
  async allow(rule: DenyRule, stage: Stage, l7Vlan?: number): Promise<number> {
    this.#rules += 1;
    const number = this.#rules;
    const { table, metric, next, labelBit } = STAGES[stage];
    const label = `load:${number}->NXM_NX_CT_LABEL[${labelBit}..${labelBit + LABEL_BITS - 1}]`;
    const commit = ct(
      metric,
      'commit',
      `exec(${[label, ...(l7Vlan === undefined ? [] : redirectMarks(l7Vlan))].join(',')})`,
    );
    const counted = `ip,ct_label=${labelMatch(number, labelBit)}`;
    await this.#apply(rule, [stage], () => [
      flow(
        table,
        PRIORITY.allow,
        `${ruleMatch(rule, stage, 'ipv4') ?? ''},ct_state=+new+trk`,
        commit,
        cookie('policy'),
      ),
      // The agent reads sessions and packets from these.
      ...['+new', '-new'].map((state) =>
        flow(metric, PRIORITY.normal, `${counted},ct_state=${state}`, goto(next), cookie('policy', number)),
      ),
    ]);
    return number;
  }

  /** What of IPv4 no rule allows is dropped: the pod is selected by a policy, for what it sends (egress) or receives (ingress). */
  async isolate(pod: Pod, stage: Stage): Promise<void> {
    const rule = stage === 'egress' ? { srcPod: pod } : { dstPod: pod };
    await this.#apply(rule, [stage], () => [
      flow(STAGES[stage].isolation, PRIORITY.normal, ruleMatch(rule, stage, 'ipv4') ?? '', 'drop', cookie('policy')),
    ]);
  }

  /**
   * Every DNS reply to a pod is sent to the controller and waits for it, as where a rule with a domain name selects the pod.
   * The controller is the test's: `OvsDaemons.controller`.
   */
  async interceptDns(pod: Pod): Promise<void> {
    const reply = (proto: string): string => `${proto},ct_state=+trk+rpl,tp_src=53,nw_dst=${pod.address}`;
    const { table, metric } = STAGES.ingress;
    await this.#apply({ dstPod: pod }, ['ingress'], () =>
      ['udp', 'tcp'].map((proto) =>
        flow(table, PRIORITY.dns, reply(proto), `controller(max_len=65535,pause),${goto(metric)}`, cookie('policy')),
      ),
    );
  }

  clear(): Promise<void> {
    return this.#delete('policy');
  }

  markPort(port: number, mark: number): Promise<void> {
    return this.#add('mark', (family) =>
      PORT_PROTOCOLS.map((proto) => markFlow(`${protocol(proto, family)},tp_dst=${port}`, mark)),
    );
  }

  markProtocol(proto: Protocol, mark: number): Promise<void> {
    return this.#add('mark', (family) => [markFlow(protocol(proto, family), mark)]);
  }

  clearMarks(): Promise<void> {
    return this.#delete('mark');
  }

  zonePort(port: number, zone: number): Promise<void> {
    const actions = `load:${zone}->NXM_NX_REG8[0..15],${ct('ConntrackState', 'nat')}`;
    return this.#add('zone', (family) =>
      PORT_PROTOCOLS.flatMap((proto) =>
        ['tp_dst', 'tp_src'].map((field) =>
          flow('ConntrackZone', PRIORITY.high, `${protocol(proto, family)},${field}=${port}`, actions, cookie('zone')),
        ),
      ),
    );
  }

  clearZones(): Promise<void> {
    return this.#delete('zone');
  }

  async #apply(
    rule: DenyRule,
    stages: readonly Stage[],
    flows: (stage: Stage, node: Node) => readonly string[],
  ): Promise<void> {
    if (rule.port !== undefined && (rule.proto === undefined || rule.proto === 'icmp')) {
      throw new LabError('policy: a port needs proto tcp, udp or sctp');
    }
    this.#present.add('policy');
    await Promise.all(
      this.#nodes
        .filter((node) => rule.nodes?.includes(node) ?? true)
        .map((node) => {
          const concerned = stages.filter((stage) => concerns(rule, stage, node));
          return node.addFlows(concerned.flatMap((stage) => flows(stage, node)));
        }),
    );
  }

  async #add(category: keyof typeof CATEGORY, flows: (family: Family) => readonly string[]): Promise<void> {
    this.#present.add(category);
    await Promise.all(this.#nodes.map((node) => node.addFlows(familiesOf(node).flatMap(flows))));
  }

  async #delete(category: keyof typeof CATEGORY): Promise<void> {
    if (!this.#present.delete(category)) return;
    await Promise.all(this.#nodes.map((node) => node.deleteFlows(cookieMatch(category))));
  }
}

/* A stage judges the node's own pods only. */
function concerns(rule: DenyRule, stage: Stage, node: Node): boolean {
  const pod = stage === 'egress' ? rule.srcPod : rule.dstPod;
  return pod === undefined || pod.node === node;
}

/* Those of the node's pods. */
function familiesOf(node: Node): readonly Family[] {
  return node.podCidr6 === undefined ? ['ipv4'] : ['ipv4', 'ipv6'];
}

/* ovs-ofctl's word for a protocol of one family. */
function protocol(proto: Protocol, family: Family): string {
  return family === 'ipv6' ? `${proto}6` : proto;
}

/* Undefined if a pod of the rule has no address of the family. */
function ruleMatch(rule: DenyRule, stage: Stage, family: Family): string | undefined {
  const { match, src, dst } = FAMILIES[family];
  const addresses: string[] = [];
  for (const [field, pod] of [
    [src, rule.srcPod],
    [dst, rule.dstPod],
  ] as const) {
    if (pod === undefined) continue;
    const address = family === 'ipv6' ? pod.address6 : pod.address;
    if (address === undefined) return undefined;
    addresses.push(`${field}=${address}`);
  }
  return [
    rule.proto === undefined ? match : protocol(rule.proto, family),
    ...(stage === 'egress' ? [`reg0=${SOURCE.pod}/0xf`] : []),
    ...addresses,
    ...(rule.port === undefined ? [] : [`tp_dst=${rule.port}`]),
  ].join(',');
}

/* Value and mask. */
function labelMatch(number: number, bit: number): string {
  const at = (value: bigint): string => `0x${(value << BigInt(bit)).toString(16)}`;
  return `${at(BigInt(number))}/${at((1n << BigInt(LABEL_BITS)) - 1n)}`;
}

function markFlow(match: string, mark: number): string {
  const commit = ct('Output', 'commit', `exec(load:${mark}->NXM_NX_CT_MARK[])`);
  return flow('ConntrackCommit', PRIORITY.high, `${match},ct_state=+new+trk`, commit, cookie('mark'));
}
