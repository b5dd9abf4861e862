import { isDeepStrictEqual } from 'node:util';
import type { ClusterDiff, ClusterNode } from '../state/cluster.ts';
import { Claims } from './claims.ts';

/** A difference to hand on. */
export interface Taken {
  readonly diff: ClusterDiff;
  /** The consumer did not take it: it is due again. */
  readonly undo: () => void;
}

/**
 * What the API says of the nodes, what of it is sound, and what the consumer has been told. The work for a change does not
 * depend on the number of nodes, but for nodes that are refused because their addresses overlap others'.
 */
export class NodeBook {
  readonly #said = new Map<string, ClusterNode>();
  /** With the consumer. */
  readonly #told = new Map<string, ClusterNode>();
  readonly #due = new Set<string>();
  readonly #claims = new Claims();
  readonly #claimed = new Map<string, ClusterNode>();
  readonly #refused = new Map<string, string>();

  /** Nodes that are left out, and in whose way they are. */
  get refused(): ReadonlyMap<string, string> {
    return this.#refused;
  }

  /** The API says this of a node (undefined: it is gone). */
  put(name: string, node: ClusterNode | undefined): void {
    if (node === undefined) this.#said.delete(name);
    else this.#said.set(name, node);
    this.#due.add(name);
  }

  /** What has changed since the last call, as told from here on. @param first has the first claim to its addresses */
  take(first: string): Taken {
    const names = [...this.#due].toSorted((a, b) => Number(b === first) - Number(a === first) || compare(a, b));
    this.#due.clear();
    const retry = this.#claim(names);
    const diff = {
      added: [] as ClusterNode[],
      changed: [] as { before: ClusterNode; after: ClusterNode }[],
      removed: [] as ClusterNode[],
    };
    const undone: [string, ClusterNode | undefined][] = [];
    for (const name of new Set([...names, ...retry])) {
      const before = this.#told.get(name);
      const after = this.#claimed.get(name);
      if (isDeepStrictEqual(before, after)) continue;
      undone.push([name, before]);
      if (after === undefined) this.#told.delete(name);
      else this.#told.set(name, after);
      if (before === undefined && after !== undefined) diff.added.push(after);
      else if (before !== undefined && after !== undefined) diff.changed.push({ before, after });
      else if (before !== undefined) diff.removed.push(before);
    }
    const undo = (): void => {
      for (const [name, before] of undone) {
        if (before === undefined) this.#told.delete(name);
        else this.#told.set(name, before);
        this.#due.add(name);
      }
    };
    return { diff, undo };
  }

  /** All nodes that the consumer has been told of, and `own`, sorted by name. */
  list(own: ClusterNode): ClusterNode[] {
    const others = [...this.#told.values()].filter(({ name }) => name !== own.name);
    return [own, ...others].toSorted((a, b) => compare(a.name, b.name));
  }

  /** @returns names of nodes that were refused before: their addresses may be free now */
  #claim(names: readonly string[]): string[] {
    for (const name of names) {
      const before = this.#claimed.get(name);
      if (before === undefined || isDeepStrictEqual(before, this.#said.get(name))) continue;
      this.#claims.release(before);
      this.#claimed.delete(name);
    }
    const changed = new Set(names);
    const retry = [...this.#refused.keys()].filter((name) => !changed.has(name));
    for (const name of [...names, ...retry]) {
      const node = this.#said.get(name);
      this.#refused.delete(name);
      if (node === undefined || this.#claimed.has(name)) continue;
      const owner = this.#claims.claim(node);
      if (owner === undefined) this.#claimed.set(name, node);
      else this.#refused.set(name, owner);
    }
    return retry;
  }
}

function compare(a: string, b: string): number {
  return a < b ? -1 : Number(a > b);
}
