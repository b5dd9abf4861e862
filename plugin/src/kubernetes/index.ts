/** Everything that the sidecar gets from and gives to the Kubernetes API. */
import { ApiClient } from './api-client.ts';
import { InClusterCredentials } from './credentials.ts';
import { KubeconfigCredentials } from './kubeconfig.ts';

export type { AgentInfo } from './agent-info.ts';
export { AntreaConfig, type AntreaConfigOptions } from './antrea-config.ts';
export { encapMode, exclusionsOf, parseAntreaConf, type AntreaModes } from './antrea-modes.ts';
export { ApiClient } from './api-client.ts';
export { statusOf } from './api-error.ts';
export { Backoff, pause } from './backoff.ts';
export type { ConfigMapPlace } from './config-map.ts';
export { EventRecorder, type EventRecorderOptions, type NodeEvent } from './event-recorder.ts';
export { listPages } from './list.ts';
export { CAPABILITY_ANNOTATION } from './node-view.ts';
export type { KubeObject } from './objects.ts';
export { KubernetesCluster, type KubernetesClusterOptions } from './kubernetes-cluster.ts';
export { PodExclusions, type PodExclusionsOptions } from './pod-exclusions.ts';
export { Reflector, type FollowedKind, type FollowTimes, type ReflectorCounts } from './reflector.ts';
export {
  parseAnswer,
  persistently,
  putAnswer,
  putRequest,
  UNINSTALL_ANNOTATION,
  UNINSTALL_CONFIG_MAP,
  UninstallFlag,
  type FlagState,
  type UninstallAnswer,
} from './uninstall.ts';

export interface ApiAccessOptions {
  /** File; default: the pod's service account. */
  readonly kubeconfig?: string;
  /** Of the kubeconfig; default: its current one. */
  readonly context?: string;
}

/** A client for all the parts here to share; `close()` it after they have stopped. Nothing is sent or read yet. */
export function apiClient({ kubeconfig, context }: ApiAccessOptions): ApiClient {
  const credentials =
    kubeconfig === undefined ? new InClusterCredentials() : new KubeconfigCredentials(kubeconfig, context);
  return new ApiClient({ credentials });
}
