/** Policy, marks and zones as flows of the pipeline. */
import { LabError } from '../lab.ts';
import type { DenyRule, Node, Policy, Protocol } from '../lab.ts';
import { PRIORITY, SOURCE, STAGES, cookie, cookieMatch, ct, flow } from './pipeline.ts';
import type { CATEGORY } from './pipeline.ts';

/** A policy stage: egress for what the node's pods send, ingress for what they receive. */
export type Stage = keyof typeof STAGES;

/** What of a node takes flows. */
export interface FlowTarget extends Node {
  addFlows(flows: readonly string[]): Promise<void>;
  /** Deletes the flows that match (an ovs-ofctl flow match). */
  deleteFlows(match: string): Promise<void>;
}

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
    await this.#apply(rule, stages, (stage) => [
      flow(STAGES[stage].table, PRIORITY.deny, ruleMatch(rule, stage), 'drop', cookie('policy')),
    ]);
  }

  /**
   * An allow rule of one stage, below every deny rule: the connection is committed with the rule's number in its label,
   * before later tables have judged it. Returns the number.
   */
  async allow(rule: DenyRule, stage: Stage): Promise<number> {
    this.#rules += 1;
    const number = this.#rules;
    const { table, next, label } = STAGES[stage];
    const commit = ct(next, 'commit', `exec(load:${number}->${label})`);
    await this.#apply(rule, [stage], () => [
      flow(table, PRIORITY.allow, `${ruleMatch(rule, stage)},ct_state=+new+trk`, commit, cookie('policy')),
    ]);
    return number;
  }

  clear(): Promise<void> {
    return this.#delete('policy');
  }

  markPort(port: number, mark: number): Promise<void> {
    return this.#add(
      'mark',
      PORT_PROTOCOLS.map((proto) => markFlow(`${proto},tp_dst=${port}`, mark)),
    );
  }

  markProtocol(proto: Protocol, mark: number): Promise<void> {
    return this.#add('mark', [markFlow(proto, mark)]);
  }

  clearMarks(): Promise<void> {
    return this.#delete('mark');
  }

  zonePort(port: number, zone: number): Promise<void> {
    const actions = `load:${zone}->NXM_NX_REG8[0..15],${ct('ConntrackState', 'nat')}`;
    return this.#add(
      'zone',
      PORT_PROTOCOLS.flatMap((proto) =>
        ['tp_dst', 'tp_src'].map((field) =>
          flow('ConntrackZone', PRIORITY.high, `${proto},${field}=${port}`, actions, cookie('zone')),
        ),
      ),
    );
  }

  clearZones(): Promise<void> {
    return this.#delete('zone');
  }

  async #apply(rule: DenyRule, stages: readonly Stage[], flows: (stage: Stage) => readonly string[]): Promise<void> {
    if (rule.port !== undefined && (rule.proto === undefined || rule.proto === 'icmp')) {
      throw new LabError('policy: a port needs proto tcp, udp or sctp');
    }
    this.#present.add('policy');
    await Promise.all(
      this.#nodes
        .filter((node) => rule.nodes?.includes(node) ?? true)
        .map((node) => node.addFlows(stages.filter((stage) => concerns(rule, stage, node)).flatMap(flows))),
    );
  }

  async #add(category: keyof typeof CATEGORY, flows: readonly string[]): Promise<void> {
    this.#present.add(category);
    await Promise.all(this.#nodes.map((node) => node.addFlows(flows)));
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

function ruleMatch(rule: DenyRule, stage: Stage): string {
  return [
    rule.proto ?? 'ip',
    ...(stage === 'egress' ? [`reg0=${SOURCE.pod}/0xf`] : []),
    ...(rule.srcPod === undefined ? [] : [`nw_src=${rule.srcPod.address}`]),
    ...(rule.dstPod === undefined ? [] : [`nw_dst=${rule.dstPod.address}`]),
    ...(rule.port === undefined ? [] : [`tp_dst=${rule.port}`]),
  ].join(',');
}

function markFlow(match: string, mark: number): string {
  const commit = ct('Output', 'commit', `exec(load:${mark}->NXM_NX_CT_MARK[])`);
  return flow('ConntrackCommit', PRIORITY.high, `${match},ct_state=+new+trk`, commit, cookie('mark'));
}
