import type { Log } from '../dataplane/ports.ts';
import type { ExclusionSink } from '../exclusion/exclusions.ts';
import type { ApiClient } from './api-client.ts';
import { podExclusions, REFUSED } from './pod-rules.ts';
import { namespaceView, packetCaptureView, podView, traceflowView, trafficControlView } from './pod-view.ts';
import { Reflector, type FollowedKind, type FollowTimes } from './reflector.ts';
import { Troubles, type TroubleSink } from './troubles.ts';

export interface PodExclusionsOptions extends FollowTimes {
  readonly api: ApiClient;
  readonly nodeName: string;
  /** Called with everything that holds as soon as all kinds are known, and after each change. */
  readonly sink: ExclusionSink;
  readonly trouble: TroubleSink;
  readonly log: Log;
}

const CRD = '/apis/crd.antrea.io';

/**
 * Pods of this node that must not be accelerated, from Pods, Namespaces, TrafficControls and PacketCaptures. Traceflows are
 * only counted: their packets are known by DSCP in the data plane.
 */
export class PodExclusions {
  readonly #options: PodExclusionsOptions;
  readonly #kinds;
  #ready: (() => void) | undefined;

  /** Resolves when every kind has been listed once, is known not to be installed, or may not be read. */
  readonly ready: Promise<void>;

  constructor(options: PodExclusionsOptions) {
    this.#options = options;
    const { nodeName } = options;
    this.ready = new Promise((resolve) => {
      this.#ready = resolve;
    });
    const troubles = new Troubles(options.trouble);
    const common = (path: string) => ({
      ...options,
      path,
      changed: () => this.#evaluate(),
      trouble: (error: unknown) => troubles.put(path, error),
    });
    this.#kinds = {
      pods: new Reflector({
        ...common('/api/v1/pods'),
        query: { fieldSelector: `spec.nodeName=${nodeName}` },
        project: podView,
      }),
      namespaces: new Reflector({ ...common('/api/v1/namespaces'), project: namespaceView }),
      trafficControls: new Reflector({
        ...common(`${CRD}/v1alpha2/trafficcontrols`),
        optional: true,
        project: trafficControlView,
      }),
      packetCaptures: new Reflector({
        ...common(`${CRD}/v1alpha1/packetcaptures`),
        optional: true,
        project: packetCaptureView,
      }),
      traceflows: new Reflector({
        ...common(`${CRD}/v1beta1/traceflows`),
        optional: true,
        project: traceflowView,
      }),
    };
  }

  /** Traceflows that have not ended. */
  get runningTraceflows(): number {
    return this.#kinds.traceflows.items.size;
  }

  /** Pods of this node that have a port. */
  get pods(): number {
    return this.#kinds.pods.items.size;
  }

  /** For metrics. */
  get kinds(): readonly FollowedKind[] {
    return Object.values(this.#kinds).map(({ info }) => info);
  }

  start(): void {
    for (const kind of Object.values(this.#kinds)) kind.start();
  }

  async stop(): Promise<void> {
    await Promise.all(Object.values(this.#kinds).map((kind) => kind.stop()));
  }

  /** Half of the truth would be wrong: nothing is said before everything has been heard once. */
  #evaluate(): void {
    const { pods, namespaces, trafficControls, packetCaptures } = this.#kinds;
    if (!Object.values(this.#kinds).every(({ synced, refused }) => synced || refused)) return;
    this.#options.sink({
      node: [],
      pods: podExclusions({
        pods: pods.items,
        namespaces: namespaces.items,
        trafficControls: trafficControls.refused ? REFUSED : trafficControls.items,
        packetCaptures: packetCaptures.refused ? REFUSED : packetCaptures.items,
      }),
    });
    this.#ready?.();
  }
}
