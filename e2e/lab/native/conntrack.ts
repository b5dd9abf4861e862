/** conntrack(8) in a node's namespace. */
import { LabError } from '../lab.ts';
import type { Conntrack, Family, Node } from '../lab.ts';
import { familyOfFilter, filterArgs, matches, parseConntrack, timeoutSysctls } from '../conntrack.ts';
import type { ConntrackEntry, ConntrackFilter, ConntrackTimeouts } from '../conntrack.ts';

export class NativeConntrack implements Conntrack {
  readonly #node: Pick<Node, 'exec' | 'sysctl' | 'name'>;
  readonly #families: readonly Family[];

  /** @param families those that the node has: conntrack(8) is asked for each by itself */
  constructor(node: Pick<Node, 'exec' | 'sysctl' | 'name'>, families: readonly Family[]) {
    this.#node = node;
    this.#families = families;
  }

  async list(filter: ConntrackFilter = {}): Promise<ConntrackEntry[]> {
    const lists = await Promise.all(
      this.#asked(filter).map(async (family) => {
        const which = ['-f', family, ...filterArgs(filter)];
        const { stdout } = await this.#node.exec(['conntrack', '-L', ...which, '-o', 'id,extended']);
        return parseConntrack(stdout).filter((entry) => matches(entry, filter));
      }),
    );
    return lists.flat();
  }

  async delete(filter: ConntrackFilter = {}): Promise<number> {
    const ports = [
      ...(filter.sport === undefined ? [] : ['--orig-port-src', String(filter.sport)]),
      ...(filter.dport === undefined ? [] : ['--orig-port-dst', String(filter.dport)]),
    ];
    if (ports.length > 0 && (filter.proto === undefined || filter.proto.startsWith('icmp'))) {
      throw new LabError(`${this.#node.name}: deleting conntrack entries by port needs proto tcp, udp or sctp`);
    }
    let total = 0;
    for (const family of this.#asked(filter)) {
      const which = ['-f', family, ...filterArgs(filter), ...ports];
      // Exit code 1 also means that nothing matched; the number printed tells it from a failure.
      const result = await this.#node.exec(['conntrack', '-D', ...which], { check: false });
      const deleted = /(\d+) flow entries have been deleted/.exec(result.stderr);
      if (deleted === null) throw new LabError(`${this.#node.name}: conntrack -D: ${result.stderr.trim()}`);
      total += Number(deleted[1]);
    }
    return total;
  }

  #asked(filter: ConntrackFilter): readonly Family[] {
    const family = familyOfFilter(filter);
    return family === undefined ? this.#families : [family];
  }

  async setTimeouts(timeouts: ConntrackTimeouts): Promise<void> {
    await this.#node.sysctl(timeoutSysctls(timeouts));
  }
}
