/** The sidecar's life: puts the parts together, feeds them with what happens, and leaves the data plane running at the end. */
import type { Config } from '../config/config.ts';
import type { RingBuffer } from '../bpf/ringbuf.ts';
import { Approvals, type AntreaConntrack } from '../dataplane/approvals.ts';
import { chooseAttacher } from '../dataplane/attach.ts';
import { ConfigMap } from '../dataplane/config-map.ts';
import { Degradations } from '../dataplane/degradations.ts';
import { Drain } from '../dataplane/drain.ts';
import { Endpoints } from '../dataplane/endpoints.ts';
import { Events } from '../dataplane/events.ts';
import { EVERYTHING, flush } from '../dataplane/flush.ts';
import { Janitor } from '../dataplane/janitor.ts';
import { ConfigFlag, MAX_ENDPOINTS, Reason } from '../dataplane/layout.ts';
import { reloadProgram, type LoadedDataPlane, type LoadOptions } from '../dataplane/load.ts';
import { NodeExclusion } from '../dataplane/node-exclusion.ts';
import { Notes } from '../dataplane/notes.ts';
import { directFlag } from '../dataplane/paths.ts';
import { peerOfPod, Peers } from '../dataplane/peers.ts';
import { PinLayout } from '../dataplane/pins.ts';
import { monotonic, SECOND, type Log } from '../dataplane/ports.ts';
import { probeKernel, type KernelProbe } from '../dataplane/probe.ts';
import type { TcProgram } from '../dataplane/programs.ts';
import { Routing } from '../dataplane/routing.ts';
import { setTransmitMode } from '../dataplane/transmit-mode.ts';
import { ACTIVE_FLAGS, Uplink, type UplinkProgram } from '../dataplane/uplink.ts';
import { UplinkXdp } from '../dataplane/uplink-xdp.ts';
import { Exclusions } from '../exclusion/exclusions.ts';
import { Closers } from './closers.ts';
import { flowExportFollower } from './flow-export.ts';
import { followCluster } from './follow-cluster.ts';
import { followConntrack } from './follow-conntrack.ts';
import { followLinks } from './follow-links.ts';
import { gateExclusions } from './gate-exclusions.ts';
import { GrpcServer } from '../grpc/server.ts';
import { probeSocket } from '../grpc/unix-socket.ts';
import { Ctnetlink } from '../netlink/ctnetlink.ts';
import { familyOf } from '../netlink/ip.ts';
import * as rtnetlink from '../netlink/rtnetlink.ts';
import { conntrackTimeout } from '../netlink/sysctl.ts';
import { RequirementError } from '../util/errors.ts';
import { Backend, type AgentParts } from './backend.ts';
import type { BpfFiles } from './bpf-files.ts';
import { serveHttp } from './http.ts';
import { lockDirectory } from './lock.ts';
import { metricsRegistry } from './metrics.ts';
import { followOvsdb, ovsdbActions, ovsdbInfo } from './ovsdb.ts';
import { PodSources } from './pod-sources.ts';
import { loadOrReplace } from './replace.ts';
import { requireMachine } from './requirements.ts';
import { VERSION } from './version.ts';

/** Looks at what waits for an approval. */
const APPROVAL_TICK_MS = 50;
const JANITOR_TICK_MS = 200;
const UPLINK_TICK_MS = 1000;
/** Looks at all devices: events are followed besides, this is for those that were lost. */
const VERIFY_MS = 5000;

/** A started sidecar. */
export interface RunningAgent {
  /** Ends the sidecar; the data plane goes on. */
  stop(): Promise<void>;
  /** Takes the node out of the fast path. Resolves when it is drained; rejects where `signal` ends the waiting, not the drain. */
  drain(signal: AbortSignal): Promise<void>;
  /** Takes that back, whoever began it. */
  undrain(): Promise<void>;
}

/** @throws RequirementError where another sidecar serves the socket: two would undo each other's work */
async function requireNoOther(socket: string): Promise<void> {
  // An error code, unless somebody answered.
  const other = await probeSocket(socket);
  if (other !== undefined) return;
  throw new RequirementError(
    `another xmasq-agent serves ${socket}`,
    'stop it first, or configure another socket and bpffs',
  );
}

function describeProbe(probe: KernelProbe): object {
  return { admission: probe.conntrackZone ? 'conntrack' : 'approvals', hz: probe.hz };
}

/**
 * Starts the sidecar: loads, adopts or replaces the data plane, and returns when the services are up. The hold before the node
 * takes part may still run then.
 * @param signal ends the waiting before a data plane of another layout is replaced
 * @throws RequirementError, IncompatibleStateError and others with a message for people. Until everything is loaded,
 *   nothing that runs is touched
 */
export async function startAgent(
  config: Config,
  files: BpfFiles,
  log: Log,
  signal?: AbortSignal,
): Promise<RunningAgent> {
  requireMachine();
  await requireNoOther(config.socket);
  const pins = new PinLayout(config.bpffs);
  pins.prepare();
  const closers = new Closers();
  try {
    // Behind two sockets they would undo each other's work just the same.
    const lock = lockDirectory(pins.root);
    closers.add(() => lock.release());
    const probe = await probeKernel(files.probe);
    const load: LoadOptions = { pins, objectPath: files.dataPlane, sizes: config.maps };
    const dataPlane = await loadOrReplace(load, log, signal);
    closers.add(() => dataPlane.close());
    log.info(
      {
        version: VERSION,
        pins: pins.root,
        adopted: dataPlane.adopted,
        replaced: dataPlane.replaced,
        ...describeProbe(probe),
      },
      'data plane loaded',
    );
    return runningAgent(await assemble({ config, load, dataPlane, probe, log, closers }), () => closers.closeAll(log));
  } catch (error) {
    await closers.closeAll(log);
    throw error;
  }
}

function runningAgent(backend: Backend, stop: () => Promise<void>): RunningAgent {
  return {
    stop,
    async drain(signal) {
      // Again where a person takes it back.
      while ((await backend.drain({ wait: true, signal })).state !== 'drained');
    },
    async undrain() {
      await backend.undrain();
    },
  };
}

interface Assembly {
  readonly config: Config;
  readonly load: LoadOptions;
  readonly dataPlane: LoadedDataPlane;
  readonly probe: KernelProbe;
  readonly log: Log;
  readonly closers: Closers;
}

async function assemble({ config, load, dataPlane, probe, log, closers }: Assembly): Promise<Backend> {
  const { pins, tables, programs } = dataPlane;
  const notes = new Notes(pins.notes);
  const degradations = new Degradations(log);
  const configMap = new ConfigMap(tables.config, monotonic);
  const { tunnelPort: formerPort } = configMap.get();
  configMap.update({
    hz: probe.hz,
    ctZone4: config.conntrack.zone,
    ctZone6: config.conntrack.zone6,
    tunnelPort: config.tunnel.port,
  });
  // Which ports are reserved is looked at before a flow is admitted, and not with each of its packets.
  if (formerPort !== config.tunnel.port) await flush(tables, EVERYTHING, monotonic);
  configMap.setFlags(probe.conntrackZone ? ConfigFlag.CT_LOOKUP : 0, probe.conntrackZone ? 0 : ConfigFlag.CT_LOOKUP);
  setTransmitMode(configMap, config.transmitMode);
  const drain = new Drain(configMap, notes, monotonic);
  if (drain.active) configMap.setFlags(0, ACTIVE_FLAGS);

  const attacher = chooseAttacher(pins, notes);
  const endpoints = new Endpoints({
    tables,
    attacher,
    programs,
    links: { byName: rtnetlink.linkByName, all: rtnetlink.links },
    notes,
    degradations,
    log,
    now: monotonic,
  });
  const peers = new Peers({ tables, notes, degradations, log, now: monotonic });
  const reload = (name: UplinkProgram): TcProgram => {
    const { program, fd } = reloadProgram(load, name);
    closers.add(() => fd.close());
    return program;
  };
  const uplink = new Uplink({
    config: configMap,
    attacher,
    programs,
    reload,
    degradations,
    log,
    now: monotonic,
    startHold: config.startHold,
    draining: () => drain.active,
    moved: () => peers.forgetPaths(),
  });
  const uplinkXdp = new UplinkXdp({
    program: programs.uplink_xdp,
    pins: load.pins,
    config: configMap,
    degradations,
    log,
  });
  const conntrack = new Ctnetlink();
  closers.add(() => conntrack.close());
  const antreaConntrack: AntreaConntrack = {
    conntrack,
    zones: { 4: config.conntrack.zone, 6: config.conntrack.zone6 },
    isRouted: (address) => {
      const peer = peerOfPod(tables, address);
      return peer !== undefined && (tables.peers.get(peer).flags & directFlag(familyOf(address) ?? 4)) !== 0;
    },
  };
  const approvals = new Approvals({
    tables,
    ...antreaConntrack,
    timeout: conntrackTimeout,
    leaseNs: BigInt(Math.round(config.approvals.lease * 1000)) * (SECOND / 1000n),
    deviceOf: (address) => endpoints.addresses.get(address),
    degradations,
    log,
    now: monotonic,
  });
  const janitor = new Janitor(tables, monotonic, config.maps.flows);
  const events = new Events(
    {
      wantApproval: ({ flow }) => approvals.want(flow),
      reset: ({ flow }) => approvals.reset(flow),
      peerName: (id) => peers.nameOf(id),
    },
    log,
    monotonic,
  );
  const nodeExclusion = new NodeExclusion({ config: configMap, tables, log, now: monotonic });
  const exclusions = new Exclusions((state) => {
    endpoints.setExclusions(state.pods, state.complete);
    nodeExclusion.apply(state).catch((error: unknown) => log.error({ err: error }, 'ending excluded flows'));
  });
  exclusions.source('feature gates')({ node: gateExclusions(config.featureGates), pods: [] });
  // Open vSwitch's database is believed first.
  const podSources = new PodSources(endpoints);
  const ovsdbPods = config.ovsdb.socket === undefined ? undefined : podSources.source({ required: true });
  const eventPods = podSources.source();
  const parts: AgentParts = {
    config,
    tables,
    configMap,
    attacher,
    endpoints,
    peers,
    uplink,
    uplinkXdp,
    routing: new Routing(configMap, peers, log),
    drain,
    janitor,
    approvals,
    antreaConntrack,
    events,
    exclusions,
    sources: [],
    followed: [],
    flowWords: {},
    counts: new Map(),
    degradations,
    now: monotonic,
  };

  const links = followLinks(parts, notes, log, closers);
  followConntrack(conntrack, parts, log, closers);
  const ring: RingBuffer = events.follow(dataPlane.eventsPath);
  closers.add(() => ring.close());
  await followCluster(parts, links, log, closers);
  // Only the database can say that it is over.
  if (ovsdbPods === undefined) nodeExclusion.pause(Reason.NONE);
  const ovsdb = ovsdbPods && followOvsdb({ config, pods: ovsdbPods, exclusions, nodeExclusion, degradations, log });
  if (ovsdb !== undefined) {
    closers.add(() => ovsdb.stop());
    parts.sources.push(() => ovsdbInfo(ovsdb));
    parts.counts.set('ovsdb', () => ovsdbActions(ovsdb));
    parts.counts.set('skipped rows', () => ovsdb.info.skippedTotal);
  }
  exclusions.allKnown();

  const flowExport = flowExportFollower(parts, log);
  if (flowExport !== undefined) {
    closers.add(() => flowExport.stop());
    parts.sources.push(() => flowExport.info);
    parts.counts.set('flow records', () => flowExport.recordCounts());
    parts.flowWords.find = (key) => flowExport.words(key);
    await flowExport.start();
  }

  closers.every(APPROVAL_TICK_MS, log, 'approving flows', () => approvals.tick());
  closers.every(config.approvals.pollInterval * 1000, log, 'renewing approvals', () => approvals.renew());
  closers.every(JANITOR_TICK_MS, log, 'sweeping the maps', () => janitor.tick());
  closers.every(UPLINK_TICK_MS, log, 'watching the uplink', () => uplink.tick());
  closers.every(VERIFY_MS, log, 'checking the attachments', () => links.verify());

  const backend = new Backend(parts);
  if (config.metrics.address !== undefined) {
    const registry = metricsRegistry(parts, () => backend.state());
    const server = await serveHttp({ address: config.metrics.address, registry, health: () => backend.health() });
    closers.add(() => {
      server.closeAllConnections();
      server.close();
    });
  }
  const grpc = await GrpcServer.start({
    socket: config.socket,
    admin: backend,
    pods: eventPods,
    maxPods: MAX_ENDPOINTS - 1,
  });
  closers.add(() => grpc.stop());
  log.info({ socket: config.socket, attach: attacher.mode, endpoints: endpoints.count, peers: peers.count }, 'serving');
  return backend;
}
