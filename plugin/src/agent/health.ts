/** Whether the node is ready, and if not, why: for the kubelet and for people who ask it. */
import type { Degradation, NodeState, SourceInfo } from '../grpc/backend.ts';

/** What is told of the node's health. */
export interface Health {
  /** The node does its part, or all of it that it may. */
  readonly ready: boolean;
  /** The state, and a line for each trouble; at most 21. */
  readonly lines: readonly string[];
}

/** States in which a node can be ready. */
const READY: ReadonlySet<NodeState> = new Set(['ready', 'degraded']);
const MAX_TROUBLES = 20;

/**
 * Not ready before every source that is needed has told its state once: a rollout with a mistake in it, such as a missing
 * right, then stops at the first node. A source that is lost later is a degradation.
 */
export function healthOf(
  state: NodeState,
  sources: readonly SourceInfo[],
  degradations: readonly Degradation[],
): Health {
  const awaited = sources.filter(({ required, synced }) => required && !synced);
  const troubles = [
    ...awaited.map(({ name }) => `nothing is known yet from the source ${name}`),
    ...degradations.map(({ what, where, action }) => `${what} (${where}): ${action}`),
  ];
  return { ready: READY.has(state) && awaited.length === 0, lines: [state, ...troubles.slice(0, MAX_TROUBLES)] };
}
