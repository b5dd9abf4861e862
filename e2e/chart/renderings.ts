/** What Helm has made of the chart: charts/golden, which `make chart-check` compares with what it makes now. */
import { globSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseAllDocuments } from 'yaml';

export const ROOT = fileURLToPath(new URL('../../', import.meta.url));
export const CHART = join(ROOT, 'charts/xmasq');
export const GOLDEN = join(ROOT, 'charts/golden');

/** Sets of values, by name. */
export const SETS: readonly string[] = globSync('*.yaml', { cwd: GOLDEN })
  .map((file) => basename(file, '.yaml'))
  .sort();

/** As much of an object as the tests look at. */
export interface KubeObject {
  readonly kind: string;
  readonly metadata: {
    readonly name: string;
    readonly namespace?: string;
    readonly labels: Record<string, string>;
    readonly annotations?: Record<string, string>;
  };
  readonly spec?: unknown;
  readonly data?: Readonly<Record<string, string>>;
  readonly roleRef?: { readonly kind: string; readonly name: string };
  readonly subjects?: readonly { readonly kind: string; readonly name: string; readonly namespace: string }[];
  readonly rules?: readonly object[];
}

export interface Container {
  readonly name: string;
  readonly command: readonly string[];
  readonly ports?: readonly { readonly name: string; readonly containerPort: number; readonly hostIP?: string }[];
  readonly securityContext: object;
  readonly volumeMounts?: readonly { readonly name: string; readonly mountPath: string; readonly readOnly?: boolean }[];
  readonly startupProbe?: Probe;
  readonly livenessProbe?: Probe;
  readonly readinessProbe?: Probe;
}

export interface Probe {
  readonly httpGet: { readonly host: string; readonly port: string; readonly path: string };
}

export interface PodSpec {
  readonly serviceAccountName: string;
  readonly hostNetwork: boolean;
  readonly hostPID?: boolean;
  readonly hostIPC?: boolean;
  readonly securityContext: object;
  readonly initContainers?: readonly Container[];
  readonly containers: readonly Container[];
  readonly volumes: readonly { readonly name: string; readonly hostPath?: { path: string; type: string } }[];
}

/** All objects of a rendering. */
export function objectsOf(set: string): readonly KubeObject[] {
  return parseAllDocuments(readFileSync(join(GOLDEN, `${set}.yaml`), 'utf8'))
    .map((document) => document.toJS() as KubeObject | null)
    .filter((object) => object !== null);
}

/** The only one of its kind and name; undefined: there is none. */
export function find(set: string, kind: string, name?: string): KubeObject | undefined {
  return objectsOf(set).find((object) => object.kind === kind && (name === undefined || object.metadata.name === name));
}

/** The pods of the DaemonSet. */
export function podOf(set: string): PodSpec {
  const spec = find(set, 'DaemonSet')?.spec as { template: { spec: PodSpec } } | undefined;
  if (spec === undefined) throw new Error(`no DaemonSet in ${set}`);
  return spec.template.spec;
}

/** What the sidecar's container may do, by names as Kubernetes has them. */
export function grantedCapabilities(): readonly string[] {
  const [container] = podOf('accelerate').containers;
  return (container?.securityContext as { capabilities: { add: readonly string[] } }).capabilities.add;
}

/** The sidecar's configuration file. */
export function configurationOf(set: string): string {
  return find(set, 'ConfigMap', 'xmasq-config')?.data?.['xmasq.yaml'] ?? '';
}
