/** Follows the nodes of the cluster, from a file or from the Kubernetes API. */
import type { Log } from '../dataplane/ports.ts';
import type { ClusterConsumer } from '../state/cluster.ts';
import { StaticCluster } from '../state/static-cluster.ts';
import type { AgentParts } from './backend.ts';
import type { Closers } from './closers.ts';
import type { LinkFollower } from './follow-links.ts';
import { encapMode } from '../kubernetes/index.ts';
import { KubernetesFollower } from './kubernetes.ts';

const PUBLISH_MS = 1000;

/** The nodes of the cluster. */
export async function followCluster(parts: AgentParts, links: LinkFollower, log: Log, closers: Closers): Promise<void> {
  const { config, peers, routing, degradations } = parts;
  const { file, kubernetes } = config.clusterState;
  let known = false;
  const consumer: ClusterConsumer = {
    state(state, diff) {
      // First what decides how peers are reached: entered otherwise, they would lose their flows a moment later.
      if (state.trafficEncapMode !== undefined) routing.setMode(state.trafficEncapMode);
      links.setAddresses(state.own.addresses);
      // The first state is compared with what an earlier start left; after that, work depends on what has changed only.
      if (known) peers.apply(diff, state.own.name);
      else peers.update(state);
      known = true;
    },
    problem: (problem) => degradations.put('cluster-state', problem),
  };
  if (file !== undefined) {
    const cluster = new StaticCluster({ file, nodeName: config.nodeName });
    closers.add(() => cluster.stop());
    await cluster.start(consumer);
  }
  if (kubernetes !== undefined) {
    const { configMap, exclusions } = parts;
    const follower = new KubernetesFollower({
      config,
      kubernetes,
      configMap,
      consumer,
      configured: (modes) => {
        links.configured(modes.trafficEncryptionMode === 'wireguard');
        const mode = encapMode(modes);
        if (mode !== undefined) routing.setMode(mode);
      },
      exclusions,
      degradations,
      log,
    });
    closers.add(() => follower.stop());
    parts.sources.push(() => follower.info);
    parts.followed.push(() => follower.kinds);
    parts.counts.set('events', () => follower.eventCounts());
    closers.every(PUBLISH_MS, log, "publishing this node's capability", () => follower.tick());
    follower.start();
  }
}
