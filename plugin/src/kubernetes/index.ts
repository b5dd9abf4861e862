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
  /** File; default: a service account. */
  readonly kubeconfig?: string | undefined;
  /** Of the kubeconfig; default: its current one. */
  readonly context?: string | undefined;
  /** Directory with `token` and `ca.crt`; default: that of every pod. */
  readonly serviceAccount?: string | undefined;
}

/** A client for all the parts here to share; `close()` it after they have stopped. Nothing is sent or read yet. */
export function apiClient({ kubeconfig, context, serviceAccount }: ApiAccessOptions): ApiClient {
  const credentials =
    kubeconfig === undefined
      ? new InClusterCredentials(serviceAccount === undefined ? {} : { directory: serviceAccount })
      : new KubeconfigCredentials(kubeconfig, context);
  return new ApiClient({ credentials });
}
