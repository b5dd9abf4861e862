/** Follows Open vSwitch's database: pods, exclusions, and when to learn nothing new. */
import type { Config } from '../config/config.ts';
import type { Degradations } from '../dataplane/degradations.ts';
import { MAX_ENDPOINTS, Reason } from '../dataplane/layout.ts';
import type { NodeExclusion } from '../dataplane/node-exclusion.ts';
import type { Log } from '../dataplane/ports.ts';
import type { Exclusions } from '../exclusion/exclusions.ts';
import type { PodEventSink, SourceInfo } from '../grpc/backend.ts';
import { OvsdbSource } from '../ovsdb/index.ts';
import { tunnelMismatch } from './tunnel.ts';

export interface FollowOvsdbOptions {
  readonly config: Config;
  readonly pods: PodEventSink;
  readonly exclusions: Exclusions;
  readonly nodeExclusion: NodeExclusion;
  readonly degradations: Degradations;
  readonly log: Log;
}

/** @returns undefined where the configuration names no database */
export function followOvsdb(options: FollowOvsdbOptions): OvsdbSource | undefined {
  const { config, pods, exclusions, nodeExclusion, degradations, log } = options;
  const { socket, bridge } = config.ovsdb;
  if (socket === undefined) return undefined;
  const source = new OvsdbSource({
    socket,
    bridge,
    pods,
    maxPods: MAX_ENDPOINTS - 1,
    exclusions: exclusions.source('Open vSwitch'),
    onState: (state) => {
      if (!state.synced) return;
      nodeExclusion.pause(state.flowRestoreWait ? Reason.FLOW_RESTORE : Reason.NONE);
      const [tunnel] = state.tunnels;
      const where = `port ${tunnel?.name ?? ''} in Open vSwitch's database`;
      degradations.put('tunnel-port', tunnelMismatch(config, tunnel?.port, where));
    },
    onProblem: (problem) => degradations.put('ovsdb', problem),
    log,
  });
  source.start();
  return source;
}

/** For status and metrics. */
export function ovsdbInfo({ info }: OvsdbSource): SourceInfo {
  const { connected, synced, pods, skippedNow } = info;
  return { name: 'ovsdb', connected, synced, required: true, detail: `${pods} pods, ${skippedNow} unusable rows` };
}

/** For metrics. */
export function ovsdbActions({ info }: OvsdbSource): [string, number][] {
  const { connects, failures, syncs, updates } = info;
  return [
    ['connect', connects],
    ['failure', failures],
    ['resync', Math.max(syncs - 1, 0)],
    ['update', updates],
  ];
}
