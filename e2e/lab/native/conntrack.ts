/** conntrack(8) in a node's namespace. */
import { LabError } from '../lab.ts';
import type { Conntrack, Node } from '../lab.ts';
import { filterArgs, matches, parseConntrack, timeoutSysctls } from '../conntrack.ts';
import type { ConntrackEntry, ConntrackFilter, ConntrackTimeouts } from '../conntrack.ts';

export class NativeConntrack implements Conntrack {
  readonly #node: Pick<Node, 'exec' | 'sysctl' | 'name'>;

  constructor(node: Pick<Node, 'exec' | 'sysctl' | 'name'>) {
    this.#node = node;
  }

  async list(filter: ConntrackFilter = {}): Promise<ConntrackEntry[]> {
    const { stdout } = await this.#node.exec(['conntrack', '-L', ...filterArgs(filter), '-o', 'id,extended']);
    return parseConntrack(stdout).filter((entry) => matches(entry, filter));
  }

  async delete(filter: ConntrackFilter = {}): Promise<number> {
    const ports = [
      ...(filter.sport === undefined ? [] : ['--orig-port-src', String(filter.sport)]),
      ...(filter.dport === undefined ? [] : ['--orig-port-dst', String(filter.dport)]),
    ];
    if (ports.length > 0 && (filter.proto === undefined || filter.proto === 'icmp')) {
      throw new LabError(`${this.#node.name}: deleting conntrack entries by port needs proto tcp, udp or sctp`);
    }
    // Exit code 1 also means that nothing matched; the number printed tells it from a failure.
    const result = await this.#node.exec(['conntrack', '-D', ...filterArgs(filter), ...ports], { check: false });
    const deleted = /(\d+) flow entries have been deleted/.exec(result.stderr);
    if (deleted === null) throw new LabError(`${this.#node.name}: conntrack -D: ${result.stderr.trim()}`);
    return Number(deleted[1]);
  }

  async setTimeouts(timeouts: ConntrackTimeouts): Promise<void> {
    await this.#node.sysctl(timeoutSysctls(timeouts));
  }
}
