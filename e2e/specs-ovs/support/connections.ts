/** Connections as Open vSwitch's datapath has them, labels included, and single attempts to connect. */
import type { Lab, Pod } from '../../lab/lab.ts';
import type { OvsNode } from '../../lab/ovs/node.ts';

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

/** Tries one TCP exchange with a server that need not be there; true if it was answered. */
export async function reaches(
  lab: Lab,
  from: Pod,
  to: { readonly address: string },
  port: number,
  sport?: number,
): Promise<boolean> {
  const common = [
    '--tcp',
    '--to',
    to.address,
    '--port',
    String(port),
    '--count',
    '1',
    '--timeout-ms',
    '2000',
    '--json',
  ];
  const own = sport === undefined ? [] : ['--sport', String(sport)];
  const { code } = await from.exec([lab.tool('rr'), 'client', ...common, ...own], { check: false });
  return code === 0;
}
