/** The cluster as this node's sidecar sees it: from the file, or from the Kubernetes API and what that tells of Antrea. */
import { setTimeout as sleep } from 'node:timers/promises';
import { tunnelMismatch } from '../agent/tunnel.ts';
import type { Config, KubernetesConfig } from '../config/config.ts';
import {
  AntreaConfig,
  apiClient,
  encapMode,
  KubernetesCluster,
  PodExclusions,
  type AgentInfo,
  type AntreaModes,
} from '../kubernetes/index.ts';
import type { NodeExclusion } from '../exclusion/exclusions.ts';
import type { ClusterNode, ClusterProblem } from '../state/cluster.ts';
import { StaticCluster } from '../state/static-cluster.ts';
import { fileProblem } from './configuration.ts';
import { exclusionVerdict } from './exclusions.ts';
import { failed, failure, ok, skipped, warning, type Outcome, type Verdict } from './finding.ts';
import { QUIET } from './quiet.ts';

/** Milliseconds for the API to tell everything. */
const LIMIT_MS = 30_000;
/** Milliseconds after the first trouble, or the first that is known of Antrea, in which the rest is told, too. */
const SETTLE_MS = 1500;
const POLL_MS = 20;

/** Releases of Antrea that XMasq was made beside (docs/antrea.md). */
export const ANTREA_RELEASES: readonly string[] = ['2.7', '2.8'];

/** What the API tells of Antrea. */
export interface AntreaSeen {
  /** Undefined: its configuration was not found or understood; `exclusions` say why. */
  readonly modes: AntreaModes | undefined;
  readonly info: AgentInfo | undefined;
  readonly exclusions: readonly NodeExclusion[];
}

export interface ClusterSeen {
  readonly own: ClusterNode;
  /** Undefined: the nodes come from a file. */
  readonly antrea: AntreaSeen | undefined;
}

/** The nodes, and whether the API lets the sidecar read all that it needs. */
export async function checkCluster({ nodeName, clusterState }: Config): Promise<Outcome<ClusterSeen>> {
  const { file, kubernetes } = clusterState;
  return kubernetes === undefined ? readFile(file ?? '', nodeName) : readApi(kubernetes, nodeName);
}

async function readFile(file: string, nodeName: string): Promise<Outcome<ClusterSeen>> {
  const cluster = new StaticCluster({ file, nodeName });
  let own: ClusterNode | undefined;
  let count = 0;
  try {
    await cluster.start({
      state: (state) => {
        own = state.own;
        count = state.nodes.length;
      },
      problem: () => undefined,
    });
  } catch (error) {
    return failure({ what: fileProblem(error), where: file, action: 'correct the file of clusterState.file' });
  } finally {
    await cluster.stop();
  }
  const verdicts = [ok(`${count} nodes in ${file}`)];
  return own === undefined ? { verdicts } : { verdicts, value: { own, antrea: undefined } };
}

async function readApi(kubernetes: KubernetesConfig, nodeName: string): Promise<Outcome<ClusterSeen>> {
  const { antreaNamespace } = kubernetes;
  const api = apiClient(kubernetes);
  const common = { api, nodeName, log: QUIET };
  const troubles = new Map<string, ClusterProblem>();
  let troubledAt = Infinity;
  const trouble = (key: string) => (problem: ClusterProblem | undefined) => {
    if (problem === undefined) troubles.delete(key);
    else troubles.set(key, problem);
    troubledAt = troubles.size === 0 ? Infinity : Math.min(troubledAt, performance.now());
  };
  let own: ClusterNode | undefined;
  let exclusions: readonly NodeExclusion[] | undefined;
  let toldAt = Infinity;
  const cluster = new KubernetesCluster(common);
  const pods = new PodExclusions({ ...common, sink: () => undefined, trouble: trouble('pods') });
  const antrea = new AntreaConfig({
    ...common,
    configMap: { namespace: antreaNamespace },
    sink: ({ node }) => {
      exclusions = node;
      toldAt = Math.min(toldAt, performance.now());
    },
    trouble: trouble('antrea'),
  });
  const settled = (since: number): boolean => performance.now() - since > SETTLE_MS;
  const known = (): boolean =>
    own !== undefined &&
    [...cluster.kinds, ...pods.kinds, ...antrea.kinds].every(({ synced }) => synced) &&
    (antrea.modes !== undefined || settled(toldAt));
  const end = performance.now() + LIMIT_MS;
  cluster.start({ state: (state) => void (own = state.own), problem: trouble('cluster') }).catch(() => undefined);
  pods.start();
  antrea.start();
  while (!known() && !settled(troubledAt) && performance.now() < end) await sleep(POLL_MS);
  // Before they are stopped, which would be troubles.
  const problems = own === undefined ? [...troubles.values()].slice(0, 1) : [...troubles.values()];
  const seen = { modes: antrea.modes, info: antrea.agentInfo, exclusions: exclusions ?? [] };
  await Promise.all([cluster.stop(), pods.stop(), antrea.stop()]);
  api.close();
  return outcome(own, seen, troubles.get('cluster') ?? problems[0], problems);
}

function outcome(
  own: ClusterNode | undefined,
  antrea: AntreaSeen,
  first: ClusterProblem | undefined,
  problems: readonly ClusterProblem[],
): Outcome<ClusterSeen> {
  if (own === undefined) {
    return failure(
      first ?? {
        what: `the Kubernetes API did not tell of this node within ${LIMIT_MS / 1000} s`,
        where: 'Kubernetes API',
        action: 'see that this node reaches the API server, and that it answers in time',
      },
    );
  }
  const verdicts = problems.length > 0 ? problems.map(failed) : [ok('the Kubernetes API tells all that is needed')];
  return { verdicts, value: { own, antrea } };
}

/** Antrea's version and modes, as far as the API tells them. */
export function checkAntrea(config: Config, { antrea }: ClusterSeen): Outcome {
  if (antrea === undefined) {
    const what = 'not known: the nodes come from a file, so that nobody tells what Antrea is like';
    return { verdicts: [skipped(what)], value: true };
  }
  const namespace = config.clusterState.kubernetes?.antreaNamespace ?? '';
  const where = `ConfigMap antrea-config in ${namespace}`;
  const verdicts = [...modesVerdicts(config, antrea, where), ...infoVerdicts(antrea.info)];
  return { verdicts, value: true };
}

function modesVerdicts(config: Config, { modes, exclusions }: AntreaSeen, where: string): Verdict[] {
  if (modes === undefined) {
    return [
      failed({
        what: exclusions[0]?.detail ?? "antrea-agent's configuration is not known",
        where,
        action:
          'see whether Antrea runs in that namespace (clusterState.kubernetes.antreaNamespace) and may be read; until then nothing is accelerated',
      }),
    ];
  }
  const mismatch = tunnelMismatch(config, encapMode(modes) === 'noEncap' ? undefined : modes.tunnelPort, where);
  return [
    ...(mismatch === undefined ? [] : [failed(mismatch)]),
    ...exclusions.map((exclusion) => exclusionVerdict(exclusion, where)),
    ok(
      `trafficEncapMode ${modes.trafficEncapMode}, tunnelType ${modes.tunnelType}, encryption ${modes.trafficEncryptionMode}`,
    ),
  ];
}

function infoVerdicts(info: AgentInfo | undefined): Verdict[] {
  const where = 'AntreaAgentInfo of this node';
  if (info === undefined) {
    const what = 'antrea-agent of this node has not told its version';
    return [warning({ what, where, action: 'see whether antrea-agent runs on this node' })];
  }
  const { version, conditions } = info;
  const down = Object.entries(conditions).flatMap(([type, status]) => (status ? [] : [type]));
  const known = ANTREA_RELEASES.some((release) => version.replace(/^v/, '').startsWith(`${release}.`));
  return [
    known
      ? ok(`Antrea ${version}`)
      : warning({
          what: `Antrea ${version} is not among the releases that XMasq was made beside (${ANTREA_RELEASES.join(', ')})`,
          where,
          action: 'try it on few nodes first; see docs/antrea.md, "Versions"',
        }),
    ...(down.length === 0
      ? []
      : [
          warning({
            what: `antrea-agent says that these are not true: ${down.join(', ')}`,
            where,
            action: 'see the log of antrea-agent; new flows and policies do not come to the node meanwhile',
          }),
        ]),
  ];
}
