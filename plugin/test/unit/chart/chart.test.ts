/** The Helm chart fits the sidecar: its configuration, rights, paths and metrics. Helm itself is not needed here. */
import { createHash } from 'node:crypto';
import { globSync, readFileSync, statSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { describe, expect, test } from '@jest/globals';
import { parse, parseAllDocuments } from 'yaml';
import type { AgentParts } from '../../../src/agent/backend.ts';
import { metricsRegistry } from '../../../src/agent/metrics.ts';
import type { Config } from '../../../src/config/config.ts';
import { FEATURE_GATES, STAGE_TOGGLES, type Gate } from '../../../src/config/feature-gates.ts';
import { parseConfig } from '../../../src/config/load.ts';
import { counterNames } from '../../../src/dataplane/layout.ts';
import { fences } from '../../../../scripts/docs/markdown.ts';
import {
  CHART,
  configurationOf,
  find,
  GOLDEN,
  objectsOf,
  podOf,
  ROOT,
  SETS,
  type Container,
  type KubeObject,
  type PodSpec,
} from '../../../../e2e/chart/renderings.ts';

const read = (path: string): string => readFileSync(join(ROOT, path), 'utf8');
const config = (set: string): Config => parseConfig(set, configurationOf(set), { NODE_NAME: 'node-a' });
const containersOf = (set: string): Container[] => [...(podOf(set).initContainers ?? []), ...podOf(set).containers];

/** Values below a mapping, by their path; lists count as values. */
function leaves(value: unknown, path = ''): [string, unknown][] {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return [[path, value]];
  return Object.entries(value).flatMap(([key, part]) => leaves(part, path === '' ? key : `${path}.${key}`));
}

describe('charts/golden', () => {
  test('is of this chart (else: make chart-golden)', () => {
    const files = globSync('**', { cwd: CHART })
      .map((file) => join(CHART, file))
      .concat(join(CHART, '.helmignore'))
      .filter((file) => statSync(file).isFile());
    const sums = files.map((file) => {
      const sum = createHash('sha256').update(readFileSync(file)).digest('hex');
      return `${sum}  ${relative(ROOT, file)}`;
    });
    const rendered = readFileSync(join(GOLDEN, 'SHA256SUMS'), 'utf8').trim().split('\n');
    expect(sums.toSorted()).toEqual(rendered.toSorted());
  });

  test('has a rendering for each set of values', () => {
    const sets = globSync('ci/*-values.yaml', { cwd: CHART }).map((file) =>
      file.slice('ci/'.length, -'-values.yaml'.length),
    );
    expect(sets.sort()).toEqual(SETS);
    expect(SETS.length).toBeGreaterThan(3);
  });
});

test('the chart has the version of package.json', () => {
  const { version } = JSON.parse(read('package.json')) as { version: string };
  expect(parse(read('charts/xmasq/Chart.yaml'))).toMatchObject({ version, appVersion: version });
});

describe('values.yaml', () => {
  interface Schema {
    readonly properties?: Readonly<Record<string, Schema>>;
  }
  const values = read('charts/xmasq/values.yaml');

  /** Paths down to what the schema does not name key by key. */
  function paths(value: unknown, schema: Schema, path = ''): string[] {
    const { properties } = schema;
    if (properties === undefined || typeof value !== 'object' || value === null) return [path];
    const entries = Object.entries(value);
    if (entries.length === 0) return [path];
    return entries.flatMap(([key, part]) => paths(part, properties[key] ?? {}, path === '' ? key : `${path}.${key}`));
  }

  const schema = JSON.parse(read('charts/xmasq/values.schema.json')) as Schema;
  const named = paths(parse(values), schema);

  test('explains every value, in the way of helm-docs', () => {
    const lines = values.split('\n');
    /** Line of a key at a path. */
    const lineOf = (path: string): number =>
      path
        .split('.')
        .reduce(
          (from, key, depth) =>
            lines.findIndex((line, i) => i >= from && line.startsWith(`${'  '.repeat(depth)}${key}:`)),
          0,
        );
    const isExplained = (path: string): boolean => {
      let line = lineOf(path) - 1;
      while (/^ *# (?!-- )/.test(lines[line] ?? '')) line--;
      return /^ *# -- \S/.test(lines[line] ?? '');
    };
    // What Kubernetes defines is explained as a whole.
    const unexplained = named.filter((path) => !isExplained(path) && !isExplained(path.split('.')[0] ?? ''));
    expect(named.length).toBeGreaterThan(50);
    expect(unexplained).toEqual([]);
  });

  test('has what the schema has, and nothing else', () => {
    // Given or left out as a whole.
    const free = ['featureGates', 'seLinuxOptions'];
    const known = (part: Schema, path = ''): string[] =>
      part.properties === undefined || free.includes(path)
        ? [path]
        : Object.entries(part.properties).flatMap(([key, below]) => known(below, path === '' ? key : `${path}.${key}`));
    // For what has no default.
    const optional = ['global', 'resources.limits', 'resources.claims', 'seccompProfile.localhostProfile'];
    expect(named.toSorted()).toEqual(
      known(schema)
        .filter((path) => !optional.includes(path))
        .sort(),
    );
  });

  test('knows the feature gates', () => {
    const gates = Object.entries<Gate>(FEATURE_GATES).map(([name, { stage, default: value }]) => ({
      name,
      stage,
      default: value,
    }));
    expect(parse(read('charts/xmasq/conf/feature-gates.yaml'))).toEqual(gates);
    expect(Object.keys(schema.properties?.['featureGates']?.properties ?? {})).toEqual([
      ...Object.keys(FEATURE_GATES),
      ...Object.keys(STAGE_TOGGLES),
    ]);
  });
});

describe('configuration', () => {
  test.each(SETS)('of %s is one that the sidecar takes', (set) => {
    expect(config(set).nodeName).toBe('node-a');
    expect(config(set).clusterState.kubernetes).toBeDefined();
  });

  test("by default has the sidecar's own defaults, and what a pod beside Antrea needs", () => {
    const own = parseConfig('', 'clusterState: {kubernetes: {}}', { NODE_NAME: 'node-a' });
    expect(config('default')).toEqual({
      ...own,
      bpffs: '/bpffs/xmasq',
      ovsdb: { ...own.ovsdb, socket: '/var/run/antrea/openvswitch/db.sock' },
      metrics: { address: '127.0.0.1:9108' },
    });
  });

  test('shows every gate: as a comment with its default, or with its value', () => {
    const text = configurationOf('default');
    for (const [name, gate] of Object.entries<Gate>(FEATURE_GATES))
      expect(text).toContain(`  # ${name}: ${gate.default}\n`);
    expect(configurationOf('accelerate')).toMatch(/^ {2}XMasq: true$/m);
    expect(config('accelerate').featureGates).toMatchObject({ XMasq: true, SameNode: true, FlowExport: false });
    expect(config('full').featureGates).toEqual({
      XMasq: true,
      SameNode: false,
      FlowExport: true,
      FlowAccounting: true,
    });
  });

  test('every other key follows a value', () => {
    const fixed = [
      'nodeName',
      'bpffs',
      'socket',
      'clusterState.file',
      'clusterState.kubernetes.kubeconfig',
      'clusterState.kubernetes.serviceAccount',
      // The release's.
      'clusterState.kubernetes.namespace',
      'ovsdb.socket',
      // Certificates are those of a Secret, the same on all nodes.
      'flowExport.certificates',
    ];
    const full = config('full');
    const inFull = (path: string): unknown =>
      path.split('.').reduce<unknown>((part, key) => (part as Record<string, unknown>)[key], full);
    const unmoved = leaves(config('default')).filter(([path, value]) => isDeepStrictEqual(inFull(path), value));
    expect(unmoved.map(([key]) => key).sort()).toEqual(fixed.sort());
  });
});

describe('pods', () => {
  test.each(SETS)('of %s have what is needed and nothing more', (set) => {
    const pod = podOf(set);
    expect(pod).toMatchObject({ hostNetwork: true, serviceAccountName: 'xmasq' });
    expect([pod.hostPID, pod.hostIPC]).toEqual([undefined, undefined]);
    const sidecar = {
      runAsUser: 0,
      privileged: false,
      allowPrivilegeEscalation: false,
      readOnlyRootFilesystem: true,
      capabilities: { drop: ['ALL'], add: ['BPF', 'NET_ADMIN', 'PERFMON'] },
    };
    const idle = {
      runAsUser: 65534,
      runAsNonRoot: true,
      allowPrivilegeEscalation: false,
      readOnlyRootFilesystem: true,
      capabilities: { drop: ['ALL'] },
    };
    for (const { command, securityContext } of containersOf(set)) {
      expect(securityContext).toEqual(command[0] === 'xmasq-agent' ? sidecar : idle);
    }
    if (set !== 'full') expect(pod.securityContext).toEqual({ seccompProfile: { type: 'RuntimeDefault' } });
  });

  test.each(SETS)('of %s see two directories of the node, and write to one', (set) => {
    expect(podOf(set).volumes.flatMap(({ hostPath }) => hostPath ?? [])).toEqual([
      { path: '/sys/fs/bpf', type: 'Directory' },
      { path: '/var/run/antrea/openvswitch', type: 'Directory' },
    ]);
    const [sidecar] = containersOf(set);
    const writable = sidecar?.volumeMounts
      ?.filter(({ readOnly }) => readOnly !== true)
      .map(({ mountPath }) => mountPath);
    // AppArmor's usual profile for containers denies writing below /sys/fs/bpf.
    expect(writable).toEqual(['/bpffs', '/run/xmasq']);
  });

  test.each(SETS)('of %s have mounted what the configuration names', (set) => {
    const [sidecar] = containersOf(set);
    const mounts = sidecar?.volumeMounts ?? [];
    const paths = mounts.map(({ mountPath }) => mountPath);
    const { bpffs, socket, ovsdb, flowExport, flowAccounting, featureGates } = config(set);
    const named = [
      dirname(bpffs),
      dirname(socket),
      dirname(ovsdb.socket ?? ''),
      ...[flowExport.files, flowAccounting.files]
        .flatMap((files) => (files === undefined ? [] : [files.ca, files.cert, files.key]))
        .map((file) => dirname(file)),
    ];
    expect(named.filter((path) => !paths.includes(path))).toEqual([]);
    expect(flowExport.files !== undefined).toBe(featureGates.FlowExport);
    expect(sidecar?.command.slice(-2)).toEqual(['--config', paths[0]]);
    const volumes = podOf(set).volumes.map(({ name }) => name);
    expect(mounts.map(({ name }) => name).toSorted()).toEqual(volumes.toSorted());
  });

  test.each(SETS.filter((set) => set !== 'cleanup'))('of %s are asked where the sidecar answers', (set) => {
    const [sidecar] = containersOf(set);
    const [port] = sidecar?.ports ?? [];
    expect(config(set).metrics.address).toBe(`${port?.hostIP ?? ''}:${port?.containerPort ?? 0}`);
    const ask = (path: string): object => ({ host: '127.0.0.1', port: port?.name, path });
    expect(sidecar?.startupProbe?.httpGet).toEqual(ask('/healthz'));
    expect(sidecar?.livenessProbe?.httpGet).toEqual(ask('/healthz'));
    expect(sidecar?.readinessProbe?.httpGet).toEqual(ask('/readyz'));
    expect(sidecar?.command.slice(0, 2)).toEqual(['xmasq-agent', 'run']);
  });

  test('of cleanup drain and clean the node before they are ready', () => {
    const { initContainers, containers } = podOf('cleanup');
    expect(initContainers?.map(({ command }) => command.slice(0, 3))).toEqual([['xmasq-agent', 'cleanup', '--wait']]);
    expect(containers.map(({ command }) => command[0])).toEqual(['node']);
  });
});

describe('rights', () => {
  test.each(SETS)('of %s go to the service account of the pods, and antrea-agent', (set) => {
    const objects = objectsOf(set);
    const key = ({ kind, metadata }: KubeObject): string => `${kind} ${metadata.namespace ?? ''}/${metadata.name}`;
    const account = find(set, 'ServiceAccount');
    expect(account?.metadata.name).toBe(podOf(set).serviceAccountName);
    const bindings = objects.filter(({ kind }) => kind.endsWith('Binding'));
    expect(bindings.length).toBeGreaterThan(2);
    for (const { metadata, roleRef, subjects } of bindings) {
      const role = `${roleRef?.kind ?? ''} ${roleRef?.kind === 'Role' ? (metadata.namespace ?? '') : ''}/${roleRef?.name ?? ''}`;
      expect(objects.map(key)).toContain(role);
      const [subject] = subjects ?? [];
      if (metadata.name === 'xmasq-flow-export') expect(subject?.name).toBe('antrea-agent');
      else if (metadata.name === 'xmasq-uninstall') expect(subject?.name).toBe('xmasq-uninstall');
      else expect(subject).toMatchObject({ name: 'xmasq', namespace: account?.metadata.namespace });
    }
  });

  test("reach one ConfigMap in Antrea's namespace, or all of them where that is wanted", () => {
    const rights = { apiGroups: [''], resources: ['configmaps'], verbs: ['list', 'watch'] };
    expect(find('default', 'Role', 'xmasq-antrea-config')).toMatchObject({
      metadata: { namespace: 'kube-system' },
      rules: [{ ...rights, resourceNames: ['antrea-config'] }],
    });
    const all = find('full', 'Role', 'xmasq-antrea-config');
    expect(all?.metadata.namespace).toBe('antrea-system');
    expect(all?.rules).toEqual([rights]);
  });
});

describe('the hook of the uninstallation', () => {
  const HOOK = 'helm.sh/hook';
  const hooksOf = (set: string): KubeObject[] =>
    objectsOf(set).filter(({ metadata }) => metadata.annotations?.[HOOK] !== undefined);
  const jobOf = (set: string): JobSpec => find(set, 'Job', 'xmasq-uninstall')?.spec as JobSpec;
  interface JobSpec {
    readonly backoffLimit: number;
    readonly activeDeadlineSeconds: number;
    readonly template: {
      readonly metadata: { readonly labels: Record<string, string> };
      readonly spec: PodSpec & { readonly restartPolicy: string };
    };
  }

  test('is there where there are sidecars to ask, and wanted', () => {
    expect(SETS.filter((set) => hooksOf(set).length > 0)).toEqual(['accelerate', 'default', 'full']);
    for (const set of SETS) expect(find(set, 'ConfigMap', 'xmasq-uninstall')?.data).toBeUndefined();
  });

  test.each(['default', 'full'])('of %s has its rights only while it runs, and before the Job', (set) => {
    const hooks = hooksOf(set);
    expect(hooks.map(({ kind }) => kind)).toEqual([
      'ServiceAccount',
      'ClusterRole',
      'ClusterRoleBinding',
      'Role',
      'RoleBinding',
      'Job',
    ]);
    for (const { kind, metadata } of hooks) {
      const { annotations = {} } = metadata;
      expect(annotations).toMatchObject({
        [HOOK]: 'pre-delete',
        'helm.sh/hook-delete-policy': 'before-hook-creation,hook-succeeded',
      });
      const weight = Number(annotations['helm.sh/hook-weight']);
      if (kind === 'Job') expect(weight).toBe(0);
      else expect(weight).toBeLessThan(0);
    }
  });

  test.each(['default', 'full'])(
    'of %s runs the command once, with no privilege, as no pod of the DaemonSet',
    (set) => {
      const { backoffLimit, activeDeadlineSeconds, template } = jobOf(set);
      const [container] = template.spec.containers;
      expect(container?.command.slice(0, 4)).toEqual(['xmasq-agent', 'uninstall', '--namespace', 'kube-system']);
      expect(container?.command[4]).toBe('--timeout');
      expect(activeDeadlineSeconds).toBeGreaterThan(Number(container?.command[5]));
      expect(backoffLimit).toBe(0);
      expect(template.metadata.labels).toEqual({ app: 'xmasq-uninstall' });
      expect(template.spec).toMatchObject({
        serviceAccountName: 'xmasq-uninstall',
        restartPolicy: 'Never',
        securityContext: { runAsNonRoot: true },
      });
      expect(template.spec.hostNetwork).toBeUndefined();
      expect(container?.securityContext).toEqual({
        allowPrivilegeEscalation: false,
        readOnlyRootFilesystem: true,
        capabilities: { drop: ['ALL'] },
      });
    },
  );
});

test('flow export: the objects are those of docs/antrea.md', () => {
  const documented = fences(read('docs/antrea.md'), 'yaml')
    .filter((text) => text.startsWith('apiVersion:'))
    .flatMap((text) => parseAllDocuments(text))
    .map((document) => document.toJS() as KubeObject);
  expect(documented.map(({ kind }) => kind)).toEqual(['FlowExporterDestination', 'Role', 'RoleBinding']);
  for (const expected of documented) {
    const made = find('full', expected.kind, expected.metadata.name);
    expect(made?.metadata.namespace).toBe(expected.metadata.namespace);
    if (expected.kind === 'FlowExporterDestination') {
      expect(made?.spec).toEqual({ ...(expected.spec as object), address: config('full').flowExport.address });
    }
    if (expected.kind === 'Role') expect(made?.rules).toEqual(expected.rules);
    if (expected.kind === 'RoleBinding') {
      const [subject] = expected.subjects ?? [];
      expect(made).toMatchObject({ roleRef: expected.roleRef, subjects: [{ ...subject, namespace: 'antrea-system' }] });
    }
  }
});

describe('monitoring', () => {
  interface Rule {
    readonly alert: string;
    readonly expr: string;
  }
  interface Dashboard {
    readonly panels: readonly { readonly title: string; readonly targets: readonly { readonly expr: string }[] }[];
    readonly templating: { readonly list: readonly { readonly query: string }[] };
  }
  const spec = find('monitoring', 'PrometheusRule')?.spec as { groups: readonly { rules: readonly Rule[] }[] };
  const rules = spec.groups.flatMap((group) => group.rules);
  const dashboard = JSON.parse(
    find('monitoring', 'ConfigMap', 'xmasq-dashboard')?.data?.['xmasq.json'] ?? '',
  ) as Dashboard;
  const expressions = [
    ...rules.map(({ expr }) => expr),
    ...dashboard.panels.flatMap(({ targets }) => targets.map(({ expr }) => expr)),
    ...dashboard.templating.list.map(({ query }) => query),
  ];

  test('has the alerts and the dashboard of the files that promtool and people look at', () => {
    expect(spec).toEqual(parse(read('charts/xmasq/alerts/xmasq.yaml')));
    expect(dashboard).toEqual(JSON.parse(read('charts/xmasq/dashboards/xmasq.json')));
    expect(dashboard.panels.length).toBeGreaterThan(10);
  });

  test('asks only for metrics and labels that exist', () => {
    const registry = metricsRegistry({} as AgentParts, () => 'ready');
    const metrics = registry.getMetricsAsArray() as unknown as { name: string; labelNames: string[] }[];
    const known = new Map(metrics.map(({ name, labelNames }) => [name, labelNames]));
    // Given by Prometheus and by the ServiceMonitor.
    const target = ['job', 'instance', 'node'];
    const wrong = expressions.flatMap((expr) =>
      [...expr.matchAll(/\b((?:xmasq|process|nodejs)_\w+)\b(?!")(?:\{([^}]*)\})?/g)].flatMap(([, name, matchers]) => {
        const labels = known.get(name ?? '');
        if (labels === undefined) return [`${name ?? ''} in ${expr}`];
        const used = [...(matchers ?? '').matchAll(/(\w+)[=!]/g)].map((match) => match[1] ?? '');
        return used.filter((label) => ![...labels, ...target].includes(label)).map((label) => `${label} in ${expr}`);
      }),
    );
    expect(wrong).toEqual([]);
    const decisions = expressions.flatMap((expr) =>
      [...expr.matchAll(/decision=~?"([^"]+)"/g)].flatMap((match) => (match[1] ?? '').split('|')),
    );
    expect(decisions.length).toBeGreaterThan(10);
    expect(decisions.filter((name) => !Object.values(counterNames).includes(name))).toEqual([]);
  });

  test('has a test for each alert', () => {
    const tests = read('scripts/chart/alerts-test.yaml');
    expect(rules.map(({ alert }) => alert).filter((alert) => !tests.includes(`alertname="${alert}"`))).toEqual([]);
  });

  test('finds the pods by the Service, whose label gives the job that alerts name', () => {
    const service = find('monitoring', 'Service');
    const [port] = podOf('monitoring').containers[0]?.ports ?? [];
    expect(service?.spec).toMatchObject({
      selector: { app: 'xmasq' },
      ports: [{ name: 'metrics', targetPort: port?.name }],
    });
    expect(find('monitoring', 'ServiceMonitor')?.spec).toMatchObject({
      jobLabel: 'app',
      selector: { matchLabels: service?.metadata.labels },
      endpoints: [{ port: 'metrics' }],
    });
    expect(service?.metadata.labels['app']).toBe('xmasq');
  });
});
