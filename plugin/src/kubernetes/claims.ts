import type { ClusterNode } from '../state/cluster.ts';
import { parseAddress4, parsePrefix4 } from '../state/prefix4.ts';

interface Range {
  readonly first: number;
  readonly last: number;
  readonly owner: string;
}

/**
 * Which node the address ranges belong to: pod CIDRs and transport addresses of all nodes, none overlapping another. Who
 * comes first keeps them; a packet must never have two destinations.
 */
export class Claims {
  /** Sorted; disjoint. */
  readonly #ranges: Range[] = [];

  /** Claims all that is the node's, or nothing. @returns the node in whose way it is (itself: its address is a pod's); undefined: done */
  claim(node: ClusterNode): string | undefined {
    const ranges = rangesOf(node);
    const [own, ...prefixes] = ranges;
    if (prefixes.some(({ first, last }) => own !== undefined && first <= own.first && own.first <= last)) {
      return node.name;
    }
    for (const range of ranges) {
      const owner = this.#ownerOf(range);
      if (owner !== undefined) return owner;
    }
    for (const range of ranges) this.#ranges.splice(this.#indexOf(range.first), 0, range);
    return undefined;
  }

  /** Gives up what `claim` has claimed for this node; nothing happens where it had nothing. */
  release(node: ClusterNode): void {
    for (const { first, owner } of rangesOf(node)) {
      const index = this.#indexOf(first);
      const found = this.#ranges[index];
      if (found?.first === first && found.owner === owner) this.#ranges.splice(index, 1);
    }
  }

  /** Index of the first range that begins at `first` or later. */
  #indexOf(first: number): number {
    let low = 0;
    let high = this.#ranges.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#ranges[middle]?.first ?? 0) < first) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #ownerOf({ first, last }: Range): string | undefined {
    const index = this.#indexOf(first);
    const after = this.#ranges[index];
    if (after !== undefined && after.first <= last) return after.owner;
    const before = this.#ranges[index - 1];
    return before !== undefined && before.last >= first ? before.owner : undefined;
  }
}

function rangesOf({ name, address, podCIDRs }: ClusterNode): Range[] {
  const own = parseAddress4(address) ?? 0;
  const prefixes = podCIDRs.flatMap((text) => parsePrefix4(text) ?? []);
  return [{ first: own, last: own }, ...prefixes].map(({ first, last }) => ({ first, last, owner: name }));
}
