/** Tells the programs what is excluded for the whole node, and ends the flows that must not go on. */
import type { ExclusionState } from '../exclusion/exclusions.ts';
import type { ConfigMap } from './config-map.ts';
import { EVERYTHING, flush } from './flush.ts';
import { reasonNames } from './layout.ts';
import type { Clock, Log } from './ports.ts';
import type { Tables } from './tables.ts';

export interface NodeExclusionOptions {
  readonly config: ConfigMap;
  readonly tables: Pick<Tables, 'flows' | 'slots' | 'translated' | 'refusals'>;
  readonly log: Log;
  readonly now: Clock;
}

/** The node-level part of exclusions. */
export class NodeExclusion {
  readonly #o: NodeExclusionOptions;

  constructor(options: NodeExclusionOptions) {
    this.#o = options;
  }

  /**
   * Makes the programs follow. Flows that are excluded from now on end before the promise does. While the state is not
   * complete, what an earlier start excluded stays so.
   */
  async apply({ sameNode, interNode, complete }: Omit<ExclusionState, 'all' | 'pods'>): Promise<void> {
    const { config, tables, log, now } = this.#o;
    const before = config.get();
    const none = { excludedLocal: 0, excludedRemote: 0 };
    const kept = complete ? none : before;
    const after = {
      excludedLocal: sameNode?.reason ?? kept.excludedLocal,
      excludedRemote: interNode?.reason ?? kept.excludedRemote,
    };
    if (before.excludedLocal === after.excludedLocal && before.excludedRemote === after.excludedRemote) return;
    config.update(after);
    const cause = interNode ?? sameNode;
    if (cause === undefined) {
      log.info({}, 'nothing is excluded for the whole node any more');
      return;
    }
    log.warn({ reason: reasonNames[cause.reason], scope: cause.scope }, `excluded: ${cause.detail}`);
    // Programs look again at a flow when it sends; one that only receives would go on.
    await flush(tables, EVERYTHING, now);
  }

  /** No new flow is admitted while there is a reason (0: there is none); present ones go on. */
  pause(reason: number): void {
    this.#o.config.update({ paused: reason });
  }
}
