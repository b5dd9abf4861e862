/** Pods, signals and exclusions from the database of the node's Open vSwitch. */
import { monotonic, type Clock } from '../dataplane/ports.ts';
import { Throttle } from '../dataplane/throttle.ts';
import type { ExclusionSink } from '../exclusion/exclusions.ts';
import type { PodEventSink } from '../grpc/backend.ts';
import type { ClusterProblem } from '../state/cluster.ts';
import { MONITORED, readBridge } from './bridge.ts';
import { OvsdbClient, type ClientCounts, type ClientOptions } from './client.ts';
import { exclusionsOf } from './exclusions.ts';
import { PodFeed } from './pod-feed.ts';
import { PodPorts, type SkipCause } from './pod-ports.ts';
import type { Replica } from './replica.ts';
import { readState, sameState, UNKNOWN_STATE, type OvsdbState, type VlanPod } from './state.ts';

const DATABASE = 'Open_vSwitch';

export interface OvsdbSourceOptions extends Omit<ClientOptions, 'database' | 'columns'> {
  /** Antrea's bridge; default `br-int`. */
  readonly bridge?: string;
  /** Takes pods over. */
  readonly pods: PodEventSink;
  /** How many pods the node can have. */
  readonly maxPods: number;
  /** Takes what is excluded; a pod's exclusion comes before the pod, and goes after it. */
  readonly exclusions: ExclusionSink;
  /** Told of each state that differs from the one before, the first one included. */
  readonly onState: (state: OvsdbState) => void;
  /** The present trouble with the database; undefined: none. Told when it changes. */
  readonly onProblem: (problem: ClusterProblem | undefined) => void;
  /** Milliseconds until pods that the sink rejected are handed to it again; default 1000. */
  readonly retryMs?: number;
  readonly now?: Clock;
}

/** For status and metrics. */
export interface OvsdbInfo extends ClientCounts {
  readonly synced: boolean;
  readonly pods: number;
  /** Rows that cannot be used now. */
  readonly skippedNow: number;
  /** ... and all so far, by cause. */
  readonly skippedTotal: ReadonlyMap<SkipCause, number>;
}

/**
 * Follows the database. While there is no connection the last state and the last pods stay; after a new one only what
 * differs is told.
 */
export class OvsdbSource {
  readonly #o: OvsdbSourceOptions;
  readonly #bridge: string;
  readonly #client: OvsdbClient;
  readonly #podPorts: PodPorts;
  readonly #feed: PodFeed;
  readonly #throttle: Throttle;
  #retry: NodeJS.Timeout | undefined;
  #copy: Replica | undefined;
  #state: OvsdbState = UNKNOWN_STATE;
  /** Pods with a VLAN, by container ID, that the sink may still have, though the state has them no more. */
  readonly #leaving = new Map<string, VlanPod>();
  #problem: ClusterProblem | undefined;
  #stopped = false;
  #waiting = false;

  constructor(options: OvsdbSourceOptions) {
    this.#o = options;
    this.#bridge = options.bridge ?? 'br-int';
    const throttle = new Throttle(options.now ?? monotonic);
    this.#throttle = throttle;
    this.#podPorts = new PodPorts(this.#bridge, options.maxPods, options.log, throttle);
    this.#feed = new PodFeed({
      sink: options.pods,
      log: options.log,
      throttle,
      retryMs: options.retryMs ?? 1000,
      onIdle: () => {
        this.#leaving.clear();
        this.#guard(() => {
          this.#exclude();
        });
      },
    });
    this.#client = new OvsdbClient(
      { ...options, database: DATABASE, columns: MONITORED },
      {
        synced: (copy) => {
          this.#copy = copy;
          this.#readSoon();
        },
        changed: () => {
          this.#readSoon();
        },
        disconnected: (reason) => {
          this.#guard(() => {
            this.#setState({ ...this.#state, connected: false });
          });
          this.#report(this.#lost(reason));
        },
      },
    );
  }

  get state(): OvsdbState {
    return this.#state;
  }

  get info(): OvsdbInfo {
    return {
      ...this.#client.counts,
      synced: this.#state.synced,
      pods: this.#state.pods,
      skippedNow: this.#podPorts.skippedNow,
      skippedTotal: this.#podPorts.skippedTotal,
    };
  }

  /** Begins to follow the database, which need not be there yet. */
  start(): void {
    this.#client.start();
  }

  /** Stops; resolves once no call to a sink is under way. Pods and exclusions stay as they were told. */
  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#retry);
    await this.#client.stop();
    await this.#feed.stop();
  }

  /** Once for all that came in one packet. */
  #readSoon(): void {
    if (this.#waiting) return;
    this.#waiting = true;
    queueMicrotask(() => {
      this.#waiting = false;
      this.#guard(() => {
        this.#read();
      });
    });
  }

  /** Does what calls others; what they could not take over is told again later. */
  #guard(work: () => void): void {
    if (this.#stopped) return;
    try {
      work();
    } catch (error) {
      const { log, retryMs = 1000 } = this.#o;
      if (this.#throttle.allows('state'))
        log.error({ err: error }, 'a state could not be put in force; it is told again');
      clearTimeout(this.#retry);
      this.#retry = setTimeout(() => {
        this.#readSoon();
      }, retryMs);
      this.#retry.unref();
    }
  }

  #read(): void {
    if (this.#copy === undefined) return;
    const view = readBridge(this.#copy, this.#bridge);
    const pods = this.#podPorts.read(view.ports);
    const { connected } = this.#client.counts;
    for (const pod of this.#state.vlanPods) this.#leaving.set(pod.containerId, pod);
    this.#setState(readState(view, pods, connected));
    this.#exclude();
    this.#feed.want(new Map([...pods].map(([id, { pod }]) => [id, pod])));
    if (connected) this.#report(view.present ? undefined : this.#noBridge());
  }

  #setState(state: OvsdbState): void {
    if (sameState(state, this.#state)) return;
    // First: a state that was not taken over is told again.
    this.#o.onState(state);
    this.#state = state;
  }

  #exclude(): void {
    const vlanPods = new Map(this.#leaving);
    for (const pod of this.#state.vlanPods) vlanPods.set(pod.containerId, pod);
    this.#o.exclusions(exclusionsOf({ ...this.#state, vlanPods: [...vlanPods.values()] }));
  }

  #report(problem: ClusterProblem | undefined): void {
    if (this.#stopped || problem?.what === this.#problem?.what) return;
    this.#problem = problem;
    this.#o.onProblem(problem);
  }

  #lost(reason: string): ClusterProblem {
    return {
      what: `no connection to the database of Open vSwitch: ${reason}`,
      where: this.#o.socket,
      action:
        'see whether ovsdb-server runs and the path is right; the last pods stay, and it is tried again by itself',
    };
  }

  #noBridge(): ClusterProblem {
    return {
      what: `the database of Open vSwitch has no bridge ${this.#bridge}`,
      where: this.#o.socket,
      action: 'see whether antrea-agent runs on this node; there are no pods without its bridge',
    };
  }
}
