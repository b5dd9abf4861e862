import { release } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Config } from '../config/config.ts';
import type { AntreaConntrack, Approvals } from '../dataplane/approvals.ts';
import type { Attacher } from '../dataplane/attach.ts';
import type { ConfigMap } from '../dataplane/config-map.ts';
import { readCounters, readReasons } from '../dataplane/counters.ts';
import type { Degradations } from '../dataplane/degradations.ts';
import type { Drain } from '../dataplane/drain.ts';
import type { Endpoints } from '../dataplane/endpoints.ts';
import type { Events } from '../dataplane/events.ts';
import { countFlows, listFlows, type FlowNames } from '../dataplane/flows.ts';
import { EVERYTHING, flowsOfEndpoint, flowsWithPeer, flush, type FlushSelection } from '../dataplane/flush.ts';
import type { Janitor } from '../dataplane/janitor.ts';
import { ConfigFlag, PROTOCOL_VERSION } from '../dataplane/layout.ts';
import { pathClassOf, pathsOf } from '../dataplane/paths.ts';
import { peerOfPod, type Peers } from '../dataplane/peers.ts';
import type { Clock } from '../dataplane/ports.ts';
import type { Routing } from '../dataplane/routing.ts';
import type { KernelTables } from '../dataplane/tables.ts';
import { flowKeyOf, Trace } from '../dataplane/trace.ts';
import { ACTIVE_FLAGS, type Uplink } from '../dataplane/uplink.ts';
import type { UplinkXdp } from '../dataplane/uplink-xdp.ts';
import {
  NotFoundError,
  type AdminBackend,
  type DrainResult,
  type EndpointInfo,
  type ExclusionInfo,
  type FlowInfo,
  type FlushResult,
  type FlushTarget,
  type FlowTrace,
  type NodeState,
  type PeerInfo,
  type SourceInfo,
  type StatusInfo,
  type TracedFlow,
  type VersionInfo,
} from '../grpc/backend.ts';
import type { FollowedKind } from '../kubernetes/index.ts';
import { podText, type Exclusions } from '../exclusion/exclusions.ts';
import { familyOf } from '../netlink/ip.ts';
import { healthOf, type Health } from './health.ts';
import { versionInfo } from './version.ts';

/** Sums that metrics show, of parts that the configuration may leave out. */
export type OptionalCount = 'flow records' | 'ovsdb' | 'skipped rows' | 'events';

/** The running parts of the sidecar. */
export interface AgentParts {
  readonly config: Config;
  readonly tables: KernelTables;
  readonly configMap: ConfigMap;
  readonly attacher: Attacher;
  readonly endpoints: Endpoints;
  readonly peers: Peers;
  readonly uplink: Uplink;
  readonly uplinkXdp: UplinkXdp;
  readonly routing: Routing;
  readonly drain: Drain;
  readonly janitor: Janitor;
  readonly approvals: Approvals;
  readonly antreaConntrack: AntreaConntrack;
  readonly events: Events;
  readonly exclusions: Exclusions;
  /** What is followed; more are added while the sidecar starts. */
  readonly sources: (() => SourceInfo)[];
  /** Kinds of Kubernetes' objects that are followed. */
  readonly followed: (() => readonly FollowedKind[])[];
  /** What flow records say of a flow; `find` is absent while they are not served. */
  readonly flowWords: { find?: NonNullable<FlowNames['words']> };
  /** Sums of parts that need not be there, by what they are sums of. */
  readonly counts: Map<OptionalCount, () => Iterable<[string, number]>>;
  readonly degradations: Degradations;
  readonly now: Clock;
}

/** How often a caller that waits for a drain is looked after. */
const DRAIN_POLL_MS = 200;

/** What the Admin service asks, answered from the parts. */
export class Backend implements AdminBackend {
  readonly #parts: AgentParts;
  readonly #started: bigint;

  constructor(parts: AgentParts) {
    this.#parts = parts;
    this.#started = parts.now();
  }

  version(): VersionInfo {
    return versionInfo();
  }

  /** The node's state in one word; draining comes before degraded, because it is wanted. */
  state(): NodeState {
    const { drain, degradations, configMap } = this.#parts;
    if (drain.state !== 'off') return drain.state;
    if (degradations.size > 0) return 'degraded';
    return configMap.has(ACTIVE_FLAGS) ? 'ready' : 'starting';
  }

  /** For the kubelet. */
  health(): Health {
    const { sources, degradations } = this.#parts;
    return healthOf(
      this.state(),
      sources.map((source) => source()),
      degradations.list(),
    );
  }

  async status(): Promise<StatusInfo> {
    const {
      config,
      configMap,
      attacher,
      uplink,
      tables,
      janitor,
      endpoints,
      peers,
      degradations,
      exclusions,
      sources,
      now,
    } = this.#parts;
    const { total } = await countFlows(tables);
    return {
      version: versionInfo().version,
      nodeName: config.nodeName,
      protocolVersion: PROTOCOL_VERSION,
      state: this.state(),
      admission: configMap.has(ConfigFlag.CT_LOOKUP) ? 'conntrack' : 'approvals',
      attach: attacher.mode,
      kernelRelease: release(),
      uplinks: uplink.devices,
      degradations: degradations.list(),
      exclusions: exclusions.state.all,
      sources: sources.map((source) => source()),
      counters: readCounters(tables),
      reasons: readReasons(tables),
      maps: janitor.fill(tables.capacity),
      endpoints: endpoints.count,
      peers: peers.count,
      peersAlive: peers.alive,
      flows: total,
      uptimeMs: Number((now() - this.#started) / 1_000_000n),
    };
  }

  async peers(): Promise<readonly PeerInfo[]> {
    const { tables, configMap, peers, now } = this.#parts;
    const { byPeer } = await countFlows(tables);
    const config = configMap.get();
    const time = now();
    return peers.list(byPeer, (id, node) => pathsOf(tables, config, id, node, time));
  }

  async endpoints(): Promise<readonly EndpointInfo[]> {
    const { byEndpoint } = await countFlows(this.#parts.tables);
    return this.#parts.endpoints.list(byEndpoint);
  }

  flows(): AsyncIterable<FlowInfo> {
    const { tables, peers, now } = this.#parts;
    return listFlows(tables, this.#names(peers.byId()), now);
  }

  trace(flow: TracedFlow): FlowTrace {
    const { tables, antreaConntrack, configMap, endpoints, events, peers, now } = this.#parts;
    const ifindex = endpoints.addresses.get(flow.sourceIp);
    if (ifindex === undefined) throw new NotFoundError(`no attached pod of this node has the address ${flow.sourceIp}`);
    const nameOf = (id: number): { readonly name: string } | undefined => {
      const name = peers.nameOf(id);
      return name === undefined ? undefined : { name };
    };
    return new Trace(
      {
        tables,
        ...antreaConntrack,
        lookup: () => configMap.has(ConfigFlag.CT_LOOKUP),
        events,
        // One peer's name is looked for, not a list of all made.
        names: () => this.#names({ get: nameOf }),
        nodeState: () => this.state(),
        peerOf: (address, protocol) => this.#peerOf(address, protocol),
        exclusionsOf: (source, destination) => this.#exclusionsOf(source, destination),
        now,
      },
      flowKeyOf(flow, ifindex),
    );
  }

  async flush(target: FlushTarget): Promise<FlushResult> {
    const selection = this.#select(target);
    if (selection === undefined) return { flows: 0n, slots: 0n };
    return flush(this.#parts.tables, selection, this.#parts.now);
  }

  async drain({ wait, signal }: { readonly wait: boolean; readonly signal: AbortSignal }): Promise<DrainResult> {
    const { drain } = this.#parts;
    drain.start();
    while (wait && drain.state === 'draining') {
      signal.throwIfAborted();
      await sleep(Math.min(DRAIN_POLL_MS, drain.remainingMs), undefined, { signal });
    }
    return this.#drainResult();
  }

  undrain(): Promise<DrainResult> {
    const { drain, uplink } = this.#parts;
    if (drain.active) {
      drain.stop();
      uplink.resume();
    }
    return Promise.resolve(this.#drainResult());
  }

  #names(peers: FlowNames['peers']): FlowNames {
    const { config, endpoints, flowWords } = this.#parts;
    return {
      nodeName: config.nodeName,
      podsByIfindex: endpoints.podsByIfindex(),
      addresses: endpoints.addresses,
      peers,
      ...(flowWords.find === undefined ? {} : { words: flowWords.find }),
    };
  }

  /** The node of a pod, with the one path there that packets of this protocol take. */
  #peerOf(address: string, protocol: number): PeerInfo | undefined {
    const { tables, configMap, peers, now } = this.#parts;
    const id = peerOfPod(tables, address);
    if (id === undefined) return undefined;
    const [family, pathClass] = [familyOf(address), pathClassOf(protocol)];
    return peers.describe(id, (node) =>
      pathsOf(tables, configMap.get(), id, node, now()).filter(
        (path) => path.family === family && path.pathClass === pathClass,
      ),
    );
  }

  /** What excludes traffic from this device's pod to that address: of the pods, then of the node. */
  #exclusionsOf(ifindex: number, destination: string): ExclusionInfo[] {
    const { endpoints, exclusions } = this.#parts;
    const { pods, all } = exclusions.state;
    const other = endpoints.addresses.get(destination);
    const byIfindex = endpoints.podsByIfindex();
    const ofPods = [ifindex, ...(other === undefined ? [] : [other])].flatMap((device) => {
      const pod = byIfindex.get(device);
      const exclusion = pod && pods.get(podText(pod));
      return exclusion === undefined ? [] : [{ reason: exclusion.reason, detail: exclusion.detail }];
    });
    const notOurs = other === undefined ? 'same-node' : 'inter-node';
    return [...ofPods, ...all.filter(({ scope }) => scope !== notOurs)];
  }

  #drainResult(): DrainResult {
    return { state: this.state(), remainingMs: this.#parts.drain.remainingMs };
  }

  /** @returns undefined for a pod that has no flows because it is no endpoint now */
  #select(target: FlushTarget): FlushSelection | undefined {
    const { endpoints, peers, tables } = this.#parts;
    switch (target.kind) {
      case 'all':
        return EVERYTHING;
      case 'pod': {
        const found = endpoints.find(target.pod);
        if (found !== undefined) return flowsOfEndpoint(found.id, found.ifindex, found.addresses);
        if (endpoints.knows(target.pod)) return undefined;
        throw new NotFoundError(`no pod ${target.pod.namespace}/${target.pod.name} on this node`);
      }
      case 'peer': {
        const id = peers.idOf(target.peer);
        if (id === undefined) throw new NotFoundError(`no peer ${target.peer}`);
        return flowsWithPeer(id, (addr) => {
          return peerOfPod(tables, addr) === id;
        });
      }
    }
  }
}
