/**
 * What must not be accelerated although conntrack allows it, because Antrea or the kernel does something to its packets on the
 * way (antrea-facts: features to keep, reproduce or exclude). Sources say what they know; `Exclusions` puts it together.
 */
import type { NodeScope, PodName, ReasonCode } from '../grpc/backend.ts';

export type { NodeScope };

export interface NodeExclusion {
  readonly scope: NodeScope;
  /** Member of the C enum `xmasq_reason`: what flows and counters show. */
  readonly reason: ReasonCode;
  /** For people: the setting or object that is the cause, e.g. `trafficEncryptionMode: wireGuard`. */
  readonly detail: string;
}

export interface PodExclusion {
  readonly pod: PodName;
  readonly reason: ReasonCode;
  /** For people, e.g. `TrafficControl mirror-web`. */
  readonly detail: string;
}

/** Everything one source excludes now. An empty list: nothing. */
export interface ExclusionList {
  readonly node: readonly NodeExclusion[];
  readonly pods: readonly PodExclusion[];
}

/** Takes what a source excludes; each call replaces all that this source said before. */
export type ExclusionSink = (list: ExclusionList) => void;

/** Nothing is excluded. */
export const NOTHING_EXCLUDED: ExclusionList = { node: [], pods: [] };

/** What holds now, all sources together. Of several exclusions of one thing the first source's first one is told. */
export interface ExclusionState {
  /** Why traffic between pods of this node is excluded, if it is. */
  readonly sameNode: NodeExclusion | undefined;
  /** Why traffic with other nodes is excluded, if it is. */
  readonly interNode: NodeExclusion | undefined;
  /** Every node-level exclusion, for status. */
  readonly all: readonly NodeExclusion[];
  /** All sources are known, and each has spoken. Before, what an earlier start excluded may still hold though no source says so. */
  readonly complete: boolean;
  /** By `namespace/name`. */
  readonly pods: ReadonlyMap<string, PodExclusion>;
}

/** How a pod is named in `ExclusionState.pods`. */
export function podText(pod: PodName): string {
  return `${pod.namespace}/${pod.name}`;
}

/** Puts the sources' lists together and tells when something has changed. */
export class Exclusions {
  /** undefined: the source has not spoken yet. */
  readonly #lists = new Map<string, ExclusionList | undefined>();
  readonly #changed: (state: ExclusionState) => void;
  #allKnown = false;
  #state: ExclusionState = { sameNode: undefined, interNode: undefined, all: [], complete: false, pods: new Map() };

  /** @param changed called after each change, at once */
  constructor(changed: (state: ExclusionState) => void) {
    this.#changed = changed;
  }

  get state(): ExclusionState {
    return this.#state;
  }

  /** A sink for one source. @param name unique; the order in which the sources are made decides what is told first */
  source(name: string): ExclusionSink {
    this.#lists.set(name, undefined);
    return (list) => {
      if (JSON.stringify(list) === JSON.stringify(this.#lists.get(name))) return;
      this.#lists.set(name, list);
      this.#update();
    };
  }

  /** No source will be added any more: once all of them have spoken, what nobody excludes is included. */
  allKnown(): void {
    this.#allKnown = true;
    this.#update();
  }

  #update(): void {
    this.#state = combine([...this.#lists.values()], this.#allKnown);
    this.#changed(this.#state);
  }
}

function combine(said: readonly (ExclusionList | undefined)[], allKnown: boolean): ExclusionState {
  const lists = said.filter((list) => list !== undefined);
  const all = lists.flatMap(({ node }) => node);
  const pods = new Map<string, PodExclusion>();
  for (const exclusion of lists.flatMap((list) => list.pods)) {
    const name = podText(exclusion.pod);
    if (!pods.has(name)) pods.set(name, exclusion);
  }
  return {
    sameNode: all.find(({ scope }) => scope !== 'inter-node'),
    interNode: all.find(({ scope }) => scope !== 'same-node'),
    all,
    complete: allKnown && lists.length === said.length,
    pods,
  };
}
