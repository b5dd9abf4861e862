/** Follows Open vSwitch's database: pods, exclusions, and when to learn nothing new. */
import type { Config } from '../config/config.ts';
import type { Degradations } from '../dataplane/degradations.ts';
import { MAX_ENDPOINTS, Reason } from '../dataplane/layout.ts';
import type { NodeExclusion } from '../dataplane/node-exclusion.ts';
import type { Log } from '../dataplane/ports.ts';
import type { Exclusions } from '../exclusion/exclusions.ts';
import type { PodEventSink, SourceInfo } from '../grpc/backend.ts';
import { OvsdbSource, type OvsdbState } from '../ovsdb/index.ts';

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
      nodeExclusion.pause(state.flowRestoreWait ? Reason.FLOW_RESTORE : Reason.NONE);
      degradations.put('tunnel-port', tunnelMismatch(config, state));
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
  return { name: 'ovsdb', connected, synced, detail: `${pods} pods, ${skippedNow} unusable rows` };
}

/** The overlay's port must not be masqueraded and carries the control messages, so it must be the real one. */
function tunnelMismatch({ tunnel }: Config, state: OvsdbState): ReturnType<Degradations['list']>[number] | undefined {
  const other = state.tunnels.find(({ port }) => port !== undefined && port !== tunnel.port);
  if (other === undefined) return undefined;
  return {
    what: `the tunnel uses port ${other.port ?? 0}, but tunnel.port is ${tunnel.port}`,
    where: `port ${other.name} in Open vSwitch's database`,
    action: 'correct tunnel.type or tunnel.port in the configuration and start xmasq-agent again',
  };
}
