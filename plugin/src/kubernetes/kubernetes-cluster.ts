import type { Log } from '../dataplane/ports.ts';
import type {
  Capability,
  ClusterConsumer,
  ClusterNode,
  ClusterProblem,
  ClusterSource,
  ClusterState,
} from '../state/cluster.ts';
import { errorMessage } from '../util/errors.ts';
import type { ApiClient } from './api-client.ts';
import { actionFor, describe } from './api-error.ts';
import { pause } from './backoff.ts';
import { CapabilityPublisher } from './capability.ts';
import { NodeBook } from './node-book.ts';
import { nodeView, type NodeView } from './node-view.ts';
import { Reflector, type Change, type FollowedKind, type FollowTimes, type ReflectorCounts } from './reflector.ts';

const NODES = '/api/v1/nodes';
/** Nodes that a problem names. */
const MAX_NAMED = 3;

export interface KubernetesClusterOptions extends FollowTimes {
  readonly api: ApiClient;
  /** This node's name, as in the API. */
  readonly nodeName: string;
  readonly log: Log;
  /** Milliseconds until a state that the consumer rejected is handed to it again; default 5000. */
  readonly retryMs?: number;
}

/**
 * Cluster state from the Nodes of Kubernetes. While the API is away the last state stays in force. What a change costs does
 * not depend on the number of nodes: the consumer gets differences, and a list of all nodes only if it asks for it.
 */
export class KubernetesCluster implements ClusterSource {
  readonly #options: KubernetesClusterOptions;
  readonly #nodes: Reflector<NodeView>;
  readonly #publisher: CapabilityPublisher;
  readonly #book = new NodeBook();
  readonly #stop = new AbortController();
  readonly #problems = new Map<string, ClusterProblem>();
  #consumer: ClusterConsumer | undefined;
  #told: string | undefined;
  /** Own Node as it was last seen; it stays when it is deleted. */
  #own: ClusterNode | undefined;
  #pump: Promise<void> | undefined;
  #first: { readonly resolve: () => void; readonly reject: (error: unknown) => void } | undefined;

  constructor(options: KubernetesClusterOptions) {
    this.#options = options;
    const { api, nodeName, log } = options;
    this.#nodes = new Reflector<NodeView>({
      ...options,
      path: NODES,
      project: (object) => nodeView(object),
      changed: (changes) => this.#changed(changes),
      trouble: (error) => this.#put('api', error === undefined ? undefined : apiProblem(error)),
    });
    this.#publisher = new CapabilityPublisher({
      api,
      path: `${NODES}/${nodeName}`,
      log,
      ...(options.backoff !== undefined && { backoff: options.backoff }),
      trouble: (error) =>
        this.#put(
          'capability',
          error === undefined
            ? undefined
            : {
                what: describe("cannot publish this node's capability", error),
                where: `Node ${nodeName}`,
                action: `${actionFor(error)}; until then other nodes send nothing fast to this one`,
              },
        ),
    });
  }

  /** Of following the Nodes. */
  get counts(): Readonly<ReflectorCounts> {
    return this.#nodes.counts;
  }

  /** For metrics. */
  get kinds(): readonly FollowedKind[] {
    return [this.#nodes.info];
  }

  /**
   * Resolves after the first state with this node in it. Unlike a file, an API that is away or a Node that is not registered
   * is no reason to give up: it is waited for, and the consumer is told the problem. Rejects after `stop()`, and if the
   * consumer rejects the first state.
   */
  async start(consumer: ClusterConsumer): Promise<void> {
    this.#consumer = consumer;
    const first = new Promise<void>((resolve, reject) => {
      this.#first = { resolve, reject };
    });
    this.#nodes.start();
    await first;
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await Promise.all([this.#nodes.stop(), this.#publisher.stop(), this.#pump]);
    this.#first?.reject(new Error('stopped before the cluster state was known'));
    this.#first = undefined;
  }

  /**
   * Makes our Node say this (undefined: nothing), and see to it that it goes on saying so. Returns at once; it is tried until
   * it holds, and again when somebody changes it.
   */
  publishCapability(capability: Capability | undefined): void {
    this.#publisher.want(capability);
  }

  #changed(changes: readonly Change<NodeView>[]): void {
    const { nodeName } = this.#options;
    for (const { key, after } of changes) this.#book.put(key, after?.node);
    const own = this.#nodes.items.get(nodeName);
    if (this.#nodes.synced) this.#publisher.seen(own?.capabilityText, own !== undefined);
    this.#put('own', own === undefined ? ownProblem(nodeName) : undefined);
    this.#own = own?.node ?? this.#own;
    this.#pump ??= this.#deliver().finally(() => {
      this.#pump = undefined;
    });
  }

  /** Hands over what is due, until nothing is. Never rejects. */
  async #deliver(): Promise<void> {
    const consumer = this.#consumer;
    while (consumer !== undefined && this.#own !== undefined && !this.#stop.signal.aborted) {
      const { diff, undo } = this.#book.take(this.#options.nodeName);
      this.#put('claims', claimProblem(this.#book.refused));
      const isFirst = this.#first !== undefined;
      if (!isFirst && diff.added.length + diff.changed.length + diff.removed.length === 0) return;
      try {
        await consumer.state(new LazyState(this.#own, this.#book), diff);
        this.#put('consumer', undefined);
        this.#first?.resolve();
        this.#first = undefined;
      } catch (error) {
        undo();
        if (isFirst) {
          this.#first?.reject(error);
          this.#first = undefined;
          this.#stop.abort();
          void this.#nodes.stop();
          return;
        }
        this.#options.log.error({ err: error }, 'a new cluster state could not be put in force');
        this.#put('consumer', {
          what: `a new cluster state could not be put in force: ${errorMessage(error)}`,
          where: 'Kubernetes Nodes',
          action: 'see the log; it is tried again by itself',
        });
        await pause(this.#options.retryMs ?? 5000, this.#stop.signal);
      }
    }
  }

  /** One problem is told at a time: the one that has been there for longest. */
  #put(key: string, problem: ClusterProblem | undefined): void {
    if (problem === undefined) this.#problems.delete(key);
    else this.#problems.set(key, problem);
    const [first] = this.#problems.values();
    if (this.#stop.signal.aborted || first?.what === this.#told) return;
    this.#told = first?.what;
    this.#consumer?.problem(first);
  }
}

/** A state whose list of nodes is made when it is asked for. Consistent until the consumer's promise is resolved. */
class LazyState implements ClusterState {
  readonly own: ClusterNode;
  readonly #book: NodeBook;
  #nodes: readonly ClusterNode[] | undefined;

  constructor(own: ClusterNode, book: NodeBook) {
    this.own = own;
    this.#book = book;
  }

  get nodes(): readonly ClusterNode[] {
    this.#nodes ??= this.#book.list(this.own);
    return this.#nodes;
  }
}

function apiProblem(error: unknown): ClusterProblem {
  return { what: describe('the Nodes cannot be followed', error), where: 'Kubernetes API', action: actionFor(error) };
}

function ownProblem(nodeName: string): ClusterProblem {
  return {
    what: `there is no Node ${nodeName} with an IP address`,
    where: 'Kubernetes API',
    action: 'check nodeName of the configuration; it must be spec.nodeName of this pod',
  };
}

function claimProblem(refused: ReadonlyMap<string, string>): ClusterProblem | undefined {
  if (refused.size === 0) return undefined;
  const named = [...refused].slice(0, MAX_NAMED).map(([name, owner]) => `${name} (${owner})`);
  const rest = refused.size - named.length;
  return {
    what: `addresses of nodes overlap those of others: ${named.join(', ')}${rest > 0 ? ` and ${rest} more` : ''}`,
    where: 'Kubernetes Nodes',
    action: 'correct podCIDRs or addresses; traffic with the nodes named first stays on the slow path',
  };
}
