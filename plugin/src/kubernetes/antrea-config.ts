import type { Log } from '../dataplane/ports.ts';
import { Reason } from '../dataplane/layout.ts';
import type { ExclusionSink, NodeExclusion } from '../exclusion/exclusions.ts';
import { errorMessage } from '../util/errors.ts';
import { agentInfoView, type AgentInfo } from './agent-info.ts';
import { exclusionsOf, parseAntreaConf, type AntreaModes } from './antrea-modes.ts';
import type { ApiClient } from './api-client.ts';
import { confOf, configMapsPath, findConfigMap, type ConfigMapPlace } from './config-map.ts';
import { Reflector, zeroCounts, type FollowedKind, type FollowTimes } from './reflector.ts';
import { Troubles, type TroubleSink } from './troubles.ts';

export interface AntreaConfigOptions extends FollowTimes {
  readonly api: ApiClient;
  readonly nodeName: string;
  readonly configMap?: ConfigMapPlace;
  /** Called when the modes are known first, and after each change. */
  readonly sink: ExclusionSink;
  /** The modes are these now; not called while they are unknown. For the tunnel's port. */
  readonly modes?: (modes: AntreaModes) => void;
  readonly trouble: TroubleSink;
  readonly log: Log;
  /** Milliseconds between looks for a ConfigMap by the beginning of its name; default 60,000. */
  readonly searchMs?: number;
}

/**
 * Antrea's modes from the ConfigMap of antrea-agent, and how antrea-agent is from its AntreaAgentInfo (which tells no modes).
 * A ConfigMap that is not there or cannot be read rules everything out: nobody knows then whether traffic has to be
 * encrypted. While the API is away the last known modes stay in force; at a start without API nothing is said.
 */
export class AntreaConfig {
  readonly #options: AntreaConfigOptions;
  readonly #namespace: string;
  readonly #prefix: string;
  readonly #troubles: Troubles;
  readonly #agentInfo: Reflector<AgentInfo>;
  readonly #stop = new AbortController();
  readonly #configCounts = zeroCounts();
  #config: Reflector<string>;
  #name: string;
  #modes: AntreaModes | undefined;
  #search: NodeJS.Timeout | undefined;
  #ready: (() => void) | undefined;

  /** Resolves when the sink has been told for the first time. */
  readonly ready: Promise<void>;

  constructor(options: AntreaConfigOptions) {
    this.#options = options;
    const { configMap = {}, nodeName } = options;
    this.#namespace = configMap.namespace ?? 'kube-system';
    this.#prefix = configMap.name ?? 'antrea-config';
    this.#name = this.#prefix;
    this.#troubles = new Troubles(options.trouble);
    this.ready = new Promise((resolve) => {
      this.#ready = resolve;
    });
    this.#config = this.#follow(this.#name);
    const path = '/apis/crd.antrea.io/v1beta1/antreaagentinfos';
    this.#agentInfo = new Reflector({
      ...options,
      path,
      query: { fieldSelector: `metadata.name=${nodeName}` },
      optional: true,
      project: agentInfoView,
      changed: () => undefined,
      trouble: (error) => this.#troubles.put(path, error),
    });
  }

  /** undefined: not known (yet). */
  get modes(): AntreaModes | undefined {
    return this.#modes;
  }

  /** What antrea-agent says of itself; undefined: nothing (yet). Refreshed by it every minute. */
  get agentInfo(): AgentInfo | undefined {
    return this.#agentInfo.items.get(this.#options.nodeName);
  }

  /** For metrics. */
  get kinds(): readonly FollowedKind[] {
    return [this.#config.info, this.#agentInfo.info];
  }

  start(): void {
    this.#config.start();
    this.#agentInfo.start();
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    clearTimeout(this.#search);
    await Promise.all([this.#config.stop(), this.#agentInfo.stop()]);
  }

  /** By name, such that a Role for this one ConfigMap is enough. */
  #follow(name: string): Reflector<string> {
    const path = configMapsPath(this.#namespace);
    return new Reflector<string>({
      ...this.#options,
      path,
      query: { fieldSelector: `metadata.name=${name}` },
      counts: this.#configCounts,
      project: confOf,
      changed: () => this.#changed(),
      trouble: (error) => this.#troubles.put(path, error),
    });
  }

  #changed(): void {
    const [text] = this.#config.items.values();
    if (text === undefined) {
      this.#tell([unknown(`no ConfigMap ${this.#name} with antrea-agent.conf in ${this.#namespace}`)]);
      this.#searchSoon(0);
      return;
    }
    try {
      this.#modes = parseAntreaConf(text);
    } catch (error) {
      this.#options.log.warn({ err: error, configMap: this.#name }, 'antrea-agent.conf cannot be read');
      this.#tell([unknown(`ConfigMap ${this.#name}: ${errorMessage(error)}`)]);
      return;
    }
    this.#options.modes?.(this.#modes);
    this.#tell(exclusionsOf(this.#modes));
  }

  #tell(node: readonly NodeExclusion[]): void {
    this.#options.sink({ node, pods: [] });
    this.#ready?.();
  }

  #searchSoon(ms: number): void {
    if (this.#stop.signal.aborted) return;
    clearTimeout(this.#search);
    this.#search = setTimeout(() => void this.#find(), ms);
    this.#search.unref();
  }

  /** Never rejects. */
  async #find(): Promise<void> {
    const { api, log, searchMs = 60_000 } = this.#options;
    try {
      const name = await findConfigMap(api, this.#namespace, this.#prefix, this.#stop.signal);
      if (this.#config.items.size > 0 || this.#stop.signal.aborted) return;
      if (name !== undefined && name !== this.#name) {
        log.info({ configMap: name }, "found antrea-agent's configuration");
        await this.#config.stop();
        this.#name = name;
        this.#config = this.#follow(name);
        this.#config.start();
        return;
      }
    } catch (error) {
      log.debug({ err: error }, 'cannot look for the ConfigMap of antrea-agent');
    }
    // Whichever appears first: the one that is followed, or another one.
    this.#searchSoon(searchMs);
  }
}

function unknown(detail: string): NodeExclusion {
  return { scope: 'node', reason: Reason.ENCAP_MODE, detail };
}
