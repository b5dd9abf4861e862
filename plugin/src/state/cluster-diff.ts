import { isDeepStrictEqual } from 'node:util';
import type { ClusterDiff, ClusterState } from './cluster.ts';

/** What changed from one state to the next; without a former state every node is new. */
export function diffCluster(before: ClusterState | undefined, after: ClusterState): ClusterDiff {
  const old = new Map((before?.nodes ?? []).map((node) => [node.name, node]));
  const now = new Set(after.nodes.map((node) => node.name));
  return {
    added: after.nodes.filter((node) => !old.has(node.name)),
    changed: after.nodes.flatMap((node) => {
      const former = old.get(node.name);
      return former === undefined || isDeepStrictEqual(former, node) ? [] : [{ before: former, after: node }];
    }),
    removed: [...old.values()].filter((node) => !now.has(node.name)),
  };
}

/** Whether nothing changed. */
export function isEmptyDiff({ added, changed, removed }: ClusterDiff): boolean {
  return added.length === 0 && changed.length === 0 && removed.length === 0;
}
