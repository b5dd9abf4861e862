/** Connections as Open vSwitch's datapath has them, labels included. */
import type { OvsNode } from '../../lab/ovs/node.ts';
import { STAGES, TABLES } from '../../lab/ovs/pipeline.ts';
import type { Stage } from '../../lab/ovs/policy.ts';

/** An entry of Antrea's zone. */
export interface Connection {
  readonly mark: number;
  /** Numbers of the rules that allowed it; 0: none did. */
  readonly ingressRule: number;
  readonly egressRule: number;
  readonly assured: boolean;
  /** The line that says so. */
  readonly text: string;
}

const RULE_BITS = 32n;
const RULE_MASK = 0xffffffffn;

/** The entries of a conntrack zone whose original destination port is this one. */
export async function connections(node: OvsNode, port: number, zone = 65520): Promise<Connection[]> {
  const dump = await node.ovs.appctl(['dpctl/dump-conntrack', '-m', `zone=${zone}`]);
  return dump
    .split('\n')
    .filter((line) => new RegExp(`^[^)]*dport=${port}\\b`).test(line))
    .map((text) => {
      const label = BigInt(/labels=(0x[0-9a-f]+)/.exec(text)?.[1] ?? '0');
      return {
        mark: Number(/mark=(\d+)/.exec(text)?.[1] ?? '0'),
        ingressRule: Number(label & RULE_MASK),
        egressRule: Number((label >> RULE_BITS) & RULE_MASK),
        assured: /status=[^,]*ASSURED/.test(text),
        text,
      };
    });
}

/** Packets that a policy stage counted for a rule: of new connections and of established ones, as the agent reads them. */
export async function ruleCounts(
  node: OvsNode,
  rule: number,
  stage: Stage,
): Promise<{ readonly sessions: number; readonly later: number }> {
  const { metric, labelBit } = STAGES[stage];
  const flows = await node.ovs.ofctl(['dump-flows'], [`table=${TABLES[metric]}`]);
  const label = `ct_label=0x${(BigInt(rule) << BigInt(labelBit)).toString(16)}/`;
  const count = (state: string): number => {
    const line = flows.split('\n').find((each) => each.includes(label) && each.includes(`ct_state=${state}`));
    return Number(/n_packets=(\d+)/.exec(line ?? '')?.[1] ?? NaN);
  };
  return { sessions: count('+new'), later: count('-new') };
}
