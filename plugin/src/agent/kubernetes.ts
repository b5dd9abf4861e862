/** Follows the Kubernetes API: nodes, what excludes pods and nodes; publishes this node's capability and its troubles. */
import { readFileSync } from 'node:fs';
import type { Config, KubernetesConfig } from '../config/config.ts';
import type { ConfigMap } from '../dataplane/config-map.ts';
import type { Degradations } from '../dataplane/degradations.ts';
import { PROTOCOL_VERSION } from '../dataplane/layout.ts';
import type { Log } from '../dataplane/ports.ts';
import { ACTIVE_FLAGS } from '../dataplane/uplink.ts';
import type { Exclusions } from '../exclusion/exclusions.ts';
import type { SourceInfo } from '../grpc/backend.ts';
import {
  AntreaConfig,
  apiClient,
  EventRecorder,
  KubernetesCluster,
  PodExclusions,
  type AgentInfo,
  type AntreaModes,
  type FollowedKind,
} from '../kubernetes/index.ts';
import type { Capability, ClusterConsumer, ClusterProblem } from '../state/cluster.ts';
import { tunnelMismatch } from './tunnel.ts';

export interface FollowKubernetesOptions {
  readonly config: Config;
  readonly kubernetes: KubernetesConfig;
  readonly configMap: ConfigMap;
  readonly consumer: ClusterConsumer;
  /** Told of antrea-agent's configuration each time that it is read. */
  readonly configured: (modes: AntreaModes) => void;
  readonly exclusions: Exclusions;
  readonly degradations: Degradations;
  readonly log: Log;
}

const BOOT_ID = '/proc/sys/kernel/random/boot_id';

/** What is followed; nothing in it waits for an API server that is away. */
export class KubernetesFollower {
  readonly #o: FollowKubernetesOptions;
  readonly #api;
  readonly #cluster: KubernetesCluster;
  readonly #pods: PodExclusions;
  readonly #antrea: AntreaConfig;
  readonly #events: EventRecorder;
  readonly #boot = readFileSync(BOOT_ID, 'utf8').trim();
  readonly #troubles = new Map<string, ClusterProblem>();
  #synced = false;
  readonly #stop = new AbortController();

  constructor(options: FollowKubernetesOptions) {
    this.#o = options;
    const { config, kubernetes, exclusions, degradations, log } = options;
    const { nodeName } = config;
    const { antreaNamespace } = kubernetes;
    this.#api = apiClient(kubernetes);
    const common = { api: this.#api, nodeName, log };
    this.#cluster = new KubernetesCluster(common);
    this.#pods = new PodExclusions({
      ...common,
      sink: exclusions.source('Kubernetes pods'),
      trouble: (problem) => this.#trouble('kubernetes-pods', problem),
    });
    this.#antrea = new AntreaConfig({
      ...common,
      configMap: { namespace: antreaNamespace },
      sink: exclusions.source("Antrea's configuration"),
      modes: (modes) => {
        degradations.put('tunnel-port-config', tunnelMismatch(config, modes.tunnelPort, 'ConfigMap antrea-config'));
        options.configured(modes);
      },
      trouble: (problem) => this.#trouble('antrea-config', problem),
    });
    this.#events = new EventRecorder(common);
    degradations.observe((degradation, over) => {
      const { what, where, action } = degradation;
      if (over) this.#events.emit({ type: 'Normal', reason: 'XMasqRecovered', note: `over: ${what}` });
      else this.#events.emit({ type: 'Warning', reason: 'XMasqDegraded', note: `${what} (${where}): ${action}` });
    });
  }

  /** Begins; returns at once. Exclusions are known before the node learns of any peer. */
  start(): void {
    this.#pods.start();
    this.#antrea.start();
    void this.#follow();
  }

  async #follow(): Promise<void> {
    const { consumer, degradations, log } = this.#o;
    await Promise.all([this.#pods.ready, this.#antrea.ready]);
    if (this.#isStopped()) return;
    try {
      await this.#cluster.start({
        state: consumer.state.bind(consumer),
        problem: (problem) => this.#trouble('cluster-state', problem),
      });
      this.#synced = true;
    } catch (error) {
      if (this.#isStopped()) return;
      log.error({ err: error }, 'the first cluster state could not be put in force');
      degradations.set('cluster-state', {
        what: 'the first cluster state could not be put in force',
        where: 'Kubernetes Nodes',
        action: 'see the log, and start xmasq-agent again',
      });
    }
  }

  /** Once a second: peers may send to this node while it takes part, and only then. */
  tick(): void {
    const { configMap, exclusions } = this.#o;
    const takesPart = configMap.has(ACTIVE_FLAGS) && exclusions.state.interNode === undefined;
    this.#cluster.publishCapability(takesPart ? this.#capability() : undefined);
  }

  /** Of Kubernetes Events, by what became of them. */
  eventCounts(): [string, number][] {
    return Object.entries(this.#events.counts);
  }

  /** For metrics. */
  get kinds(): readonly FollowedKind[] {
    return [...this.#cluster.kinds, ...this.#pods.kinds, ...this.#antrea.kinds];
  }

  get info(): SourceInfo {
    return {
      name: 'kubernetes',
      connected: this.#troubles.size === 0,
      synced: this.#synced,
      required: true,
      detail: `${this.#pods.pods} local pods, Antrea ${describe(this.#antrea.agentInfo)}`,
    };
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await Promise.all([this.#cluster.stop(), this.#pods.stop(), this.#antrea.stop(), this.#events.stop()]);
    this.#api.close();
  }

  #isStopped(): boolean {
    return this.#stop.signal.aborted;
  }

  #capability(): Capability {
    // Flows and keys live as long as the maps: since when, and in which boot.
    return { protocol: PROTOCOL_VERSION, incarnation: `${this.#boot}/${this.#o.configMap.get().stateSince}` };
  }

  #trouble(key: string, problem: ClusterProblem | undefined): void {
    if (problem === undefined) this.#troubles.delete(key);
    else this.#troubles.set(key, problem);
    this.#o.degradations.put(key, problem);
  }
}

/** Antrea's version, and what its agent reports as not up: no flows or policies come to the node then, present ones stay. */
function describe(info: AgentInfo | undefined): string {
  if (info === undefined) return 'not seen';
  const down = Object.entries(info.conditions).flatMap(([type, status]) => (status ? [] : [type]));
  return down.length === 0 ? info.version : `${info.version}, not true: ${down.join(', ')}`;
}
