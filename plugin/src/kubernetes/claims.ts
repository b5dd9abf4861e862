import type { ClusterNode } from '../state/cluster.ts';
import { rangeOf, type AddressRange } from '../state/addresses.ts';

interface Range extends AddressRange {
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
    const own = ranges.slice(0, node.addresses.length);
    const prefixes = ranges.slice(node.addresses.length);
    if (own.some((address) => prefixes.some(({ first, last }) => first <= address.first && address.first <= last))) {
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
  #indexOf(first: bigint): number {
    let low = 0;
    let high = this.#ranges.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#ranges[middle]?.first ?? 0n) < first) low = middle + 1;
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

/** Of the transport addresses first. */
function rangesOf({ name, addresses, podCIDRs }: ClusterNode): Range[] {
  return [...addresses, ...podCIDRs].map((text) => ({ ...rangeOf(text), owner: name }));
}
