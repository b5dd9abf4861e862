/** Policy and marks of the slow path: the same commands to every node's ruleset. */
import { LabError } from '../lab.ts';
import type { DenyRule, Node, Policy, Protocol } from '../lab.ts';
import { TABLE, denyRule } from './ruleset.ts';

type MapName = 'portmark' | 'protomark' | 'portzone';

export class NativePolicy implements Policy {
  readonly #nodes: readonly Node[];
  readonly #elements: Readonly<Record<MapName, Set<string>>> = {
    portmark: new Set(),
    protomark: new Set(),
    portzone: new Set(),
  };

  constructor(nodes: readonly Node[]) {
    this.#nodes = nodes;
  }

  async deny(rule: DenyRule): Promise<void> {
    if (rule.port !== undefined && (rule.proto === undefined || rule.proto === 'icmp')) {
      throw new LabError('deny: a port needs proto tcp, udp or sctp');
    }
    await this.#nft(denyRule(rule), rule.nodes);
  }

  clear(): Promise<void> {
    return this.#nft(`flush chain ${TABLE} deny`);
  }

  markPort(port: number, mark: number): Promise<void> {
    return this.#setElement('portmark', String(port), mark);
  }

  async markProtocol(proto: Protocol, mark: number): Promise<void> {
    await this.#setElement('protomark', proto, mark);
    if (proto === 'icmp') await this.#setElement('protomark', 'ipv6-icmp', mark);
  }

  async clearMarks(): Promise<void> {
    await this.#flush('portmark');
    await this.#flush('protomark');
  }

  zonePort(port: number, zone: number): Promise<void> {
    return this.#setElement('portzone', String(port), zone);
  }

  clearZones(): Promise<void> {
    return this.#flush('portzone');
  }

  /* nft cannot replace a map element: what was set before is deleted first, in the same transaction. */
  async #setElement(map: MapName, key: string, value: number): Promise<void> {
    const old = this.#elements[map].has(key) ? `delete element ${TABLE} ${map} { ${key} }\n` : '';
    await this.#nft(`${old}add element ${TABLE} ${map} { ${key} : ${value} }`);
    this.#elements[map].add(key);
  }

  async #flush(map: MapName): Promise<void> {
    await this.#nft(`flush map ${TABLE} ${map}`);
    this.#elements[map].clear();
  }

  async #nft(commands: string, nodes: readonly Node[] = this.#nodes): Promise<void> {
    await Promise.all(nodes.map((node) => node.exec(['nft', '-f', '-'], { input: `${commands}\n` })));
  }
}
