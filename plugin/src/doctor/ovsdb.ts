import { tunnelMismatch } from '../agent/tunnel.ts';
import type { Config } from '../config/config.ts';
import { MAX_ENDPOINTS } from '../dataplane/layout.ts';
import type { PodEventSink } from '../grpc/backend.ts';
import { exclusionsOf, OvsdbSource, type OvsdbState } from '../ovsdb/index.ts';
import { exclusionVerdict } from './exclusions.ts';
import { failed, failure, ok, skipped, warning, type Outcome, type Problem } from './finding.ts';
import { QUIET } from './quiet.ts';

/** Milliseconds for the server to accept, and for a reply. */
const ANSWER_MS = 5000;

const NOBODY: PodEventSink = {
  snapshot: () => Promise.resolve(),
  added: () => Promise.resolve(),
  changed: () => Promise.resolve(),
  removed: () => Promise.resolve(),
};

/** Open vSwitch's database: whether it answers and has Antrea's bridge, and what it tells of Antrea. */
export async function checkOvsdb(config: Config): Promise<Outcome<OvsdbState | undefined>> {
  const { socket, bridge } = config.ovsdb;
  if (socket === undefined) {
    return { verdicts: [skipped('ovsdb.socket is not configured: pods come from PodEvents alone')], value: undefined };
  }
  const { state, problem } = await readOnce(socket, bridge);
  if (state === undefined || problem !== undefined) {
    const what = problem?.what ?? `the database of Open vSwitch did not answer within ${ANSWER_MS} ms`;
    return failure({ what, where: socket, action: advice(what) });
  }
  const where = `${bridge} in the database of Open vSwitch`;
  const mismatches = state.tunnels.flatMap(({ name, port }) => {
    const mismatch = tunnelMismatch(config, port, `port ${name} in Open vSwitch's database`);
    return mismatch === undefined ? [] : [failed(mismatch)];
  });
  const restoring = state.flowRestoreWait
    ? [
        warning({
          what: 'flow-restore-wait is set: nothing new is accelerated until antrea-agent has brought its flows back',
          where: 'other_config of Open vSwitch',
          action: 'wait; if it stays, see the log of antrea-agent',
        }),
      ]
    : [];
  return {
    verdicts: [
      ok(`${bridge} is there, with ${state.pods} pods`),
      // One is enough: all tunnels have one port.
      ...mismatches.slice(0, 1),
      ...restoring,
      ...exclusionsOf(state).node.map((exclusion) => exclusionVerdict(exclusion, where)),
    ],
    value: state,
  };
}

interface Read {
  readonly state?: OvsdbState;
  readonly problem?: Problem;
}

/** The first that the sidecar would know. Reads only, and stops then. */
async function readOnce(socket: string, bridge: string): Promise<Read> {
  const read = Promise.withResolvers<Read>();
  const source = new OvsdbSource({
    socket,
    bridge,
    connectTimeoutMs: ANSWER_MS,
    replyTimeoutMs: ANSWER_MS,
    pods: NOBODY,
    maxPods: MAX_ENDPOINTS - 1,
    exclusions: () => undefined,
    // Whatever is wrong with it is told right after it.
    onState: (state) => state.synced && setImmediate(() => read.resolve({ state })),
    onProblem: (problem) => problem !== undefined && read.resolve({ problem }),
    log: QUIET,
  });
  const timer = setTimeout(() => read.resolve({}), 2 * ANSWER_MS);
  source.start();
  try {
    return await read.promise;
  } finally {
    clearTimeout(timer);
    await source.stop();
  }
}

function advice(what: string): string {
  if (what.includes('ENOENT')) {
    return 'correct ovsdb.socket (with Antrea /var/run/antrea/openvswitch/db.sock), or mount that directory; see whether antrea-ovs runs';
  }
  if (what.includes('ECONNREFUSED')) return 'ovsdb-server has ended and left its socket: see the container antrea-ovs';
  if (what.includes('no bridge')) return 'see whether antrea-agent runs on this node, and ovsdb.bridge is its bridge';
  return 'see whether ovsdb-server works: container antrea-ovs of the antrea-agent pod';
}
