import { listPages } from './list.ts';
import type { ApiClient } from './api-client.ts';
import type { KubeObject } from './objects.ts';

export const CONF_KEY = 'antrea-agent.conf';

/** Where antrea-agent's configuration is. */
export interface ConfigMapPlace {
  /** Default `kube-system`. */
  readonly namespace?: string;
  /** Default `antrea-config`. Of old releases the name has a hash after it; such a one is found by this as its beginning. */
  readonly name?: string;
}

interface ConfigMapObject extends KubeObject {
  readonly data?: Readonly<Record<string, string>>;
}

/** The text of antrea-agent.conf; undefined: this ConfigMap has none. */
export function confOf(object: ConfigMapObject): string | undefined {
  return object.data?.[CONF_KEY];
}

export function configMapsPath(namespace: string): string {
  return `/api/v1/namespaces/${namespace}/configmaps`;
}

/**
 * Looks for a ConfigMap of Antrea whose name begins with `prefix`, the newest one: old ones stay behind after upgrades.
 * @returns its name @throws ApiError 403 where the service account may read but the one ConfigMap
 */
export async function findConfigMap(
  api: ApiClient,
  namespace: string,
  prefix: string,
  signal: AbortSignal,
): Promise<string | undefined> {
  let best: { readonly name: string; readonly born: string } | undefined;
  const query = { labelSelector: 'app=antrea' };
  await listPages({ api, path: configMapsPath(namespace), query, pageSize: 100, signal }, (object) => {
    const { name = '', creationTimestamp: born = '' } = object.metadata ?? {};
    if (!name.startsWith(prefix) || confOf(object) === undefined) return;
    if (best === undefined || born > best.born) best = { name, born };
  });
  return best?.name;
}
