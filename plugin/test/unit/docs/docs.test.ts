/** The documents say what the code does: names, tables and links. */
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from '@jest/globals';
import { format, resolveConfig } from 'prettier';
import { parse, parseAllDocuments, stringify } from 'yaml';
import { z } from 'zod';
import type { AgentParts } from '../../../src/agent/backend.ts';
import { metricsRegistry } from '../../../src/agent/metrics.ts';
import { reasonRows } from '../../../src/cli/reason-texts.ts';
import { FEATURE_GATES, type Gate } from '../../../src/config/feature-gates.ts';
import { parseConfig } from '../../../src/config/load.ts';
import { configSchema } from '../../../src/config/schema.ts';
import { ANTREA_RELEASES } from '../../../src/doctor/cluster.ts';
import { DRAINED_NS } from '../../../src/dataplane/drain.ts';
import { counterNames, MAX_ENDPOINTS, MAX_PEERS, PROTOCOL_VERSION } from '../../../src/dataplane/layout.ts';
import { SIZED_MAPS } from '../../../src/dataplane/tables.ts';
import { REASONS } from '../../../src/grpc/reasons.ts';
import { parseCluster } from '../../../src/state/cluster-parse.ts';
import { clusterFileSchema } from '../../../src/state/cluster-schema.ts';
import { cliMarkdown } from '../../../../scripts/docs/cli-markdown.ts';
import { code, fences, inlineCode, section, table } from '../../../../scripts/docs/markdown.ts';
import { PROGRAMS } from '../../../../scripts/docs/programs.ts';
import { readRepository } from '../../../../scripts/docs/repository.ts';

const ROOT = fileURLToPath(new URL('../../../../', import.meta.url));
const DOCUMENTS = globSync(['*.md', '{docs,charts,e2e,plugin,bpf-src,proto,scripts}/**/*.md'], { cwd: ROOT }).sort();

function read(path: string): string {
  return readFileSync(join(ROOT, path), 'utf8');
}

/** All sources below these patterns as one text. */
function sources(...patterns: string[]): string {
  return globSync(patterns, { cwd: ROOT }).sort().map(read).join('\n');
}

const admin = read('docs/admin.md');
const design = read('docs/design.md');
const configuration = read('docs/configuration.md');

describe('docs/admin.md has every', () => {
  test('reason', () => {
    // To be made anew by: node scripts/gen-reasons.ts
    expect(table(section(admin, '## Reasons'), 'Reason')).toEqual(reasonRows(REASONS));
  });

  test('counter', () => {
    const documented = table(section(admin, '## Counters'), 'Counter').map(([name]) => code(name));
    expect(documented).toEqual(Object.values(counterNames).map((name) => name.replaceAll('_', '-')));
  });

  test('metric with its type and label', () => {
    const registry = metricsRegistry({} as AgentParts, () => 'ready');
    const metrics = registry.getMetricsAsArray() as unknown as { name: string; type: string; labelNames: string[] }[];
    const expected = metrics
      .filter(({ name }) => name.startsWith('xmasq_'))
      .map(({ name, type, labelNames }) => [name, type, labelNames.join(',')]);
    const documented = table(section(admin, '## Metrics'), 'Metric');
    expect(documented.map(([name, type, label]) => [code(name), type, code(label)])).toEqual(expected);
  });

  test('feature gate', () => {
    const documented = table(read('docs/feature-gates.md'), 'Gate').map((row) => row.map(code));
    const gates = Object.entries<Gate>(FEATURE_GATES);
    expect(documented).toEqual(
      gates.map(([name, gate]) => [name, `${gate.default}`, gate.stage, gate.since, gate.what]),
    );
  });

  test('check of doctor, in docs/troubleshooting.md', () => {
    const made = [...read('plugin/src/doctor/index.ts').matchAll(/\blook\('([a-z]+)'/g)].map((match) => match[1]);
    expect(table(read('docs/troubleshooting.md'), 'Check').map(([name]) => code(name))).toEqual(made);
    expect(made.length).toBeGreaterThan(15);
  });

  test('release of Antrea that doctor knows, in docs/antrea.md', () => {
    expect(section(read('docs/antrea.md'), '## Versions')).toContain(`Antrea ${ANTREA_RELEASES.join(' and ')} with`);
  });

  test('field of a pod event', () => {
    const message = /^message Pod \{\n([\s\S]*?)^\}/m.exec(read('proto/xmasq/v1/pod_events.proto'))?.[1] ?? '';
    const fields = [...message.matchAll(/^ {2}(?:repeated )?string (\w+) = /gm)].map((match) => match[1]);
    expect(table(section(admin, '## Pod events'), 'Field').map(([name]) => code(name))).toEqual(fields);
  });

  test('degradation as the code words it', () => {
    const said = sources('plugin/src/{agent,dataplane,state,ovsdb,kubernetes,flowexport}/*.ts');
    const documented = table(section(admin, '## Degradations'), 'Text').map(([text]) => code(text));
    const unknown = documented.flatMap((text) => text.split('...')).filter((part) => !said.includes(part.trim()));
    expect(unknown).toEqual([]);
    const worded = [...said.matchAll(/\bwhat: *\n? *(?:`(?:\$\{[^}]*\})?([^`$]+)|["']([^"']+))/g)]
      .map(([, template, plain]) => (template ?? plain ?? '').trim().slice(0, 20))
      .filter((text) => text.includes(' ') && !text.includes('more problems'));
    const all = documented.join('\n');
    expect(worded.length).toBeGreaterThan(5);
    expect(worded.filter((text) => !all.includes(text))).toEqual([]);
  });

  test('degradation that a test provokes, in these words', () => {
    const tests = sources('plugin/test/{unit,prog}/**/!(docs).test.ts', 'e2e/specs*/**/*.ts').replaceAll('\\', '');
    const longest = (text: string): string =>
      text
        .split('...')
        .map((part) => part.replace(/^[ :]+|[ :]+$/g, ''))
        .reduce((best, part) => (part.length > best.length ? part : best));
    const documented = table(section(admin, '## Degradations'), 'Text').map(([text]) => longest(code(text)));
    expect(documented.filter((part) => !tests.includes(part.slice(0, 24).trim()))).toEqual([]);
  });

  test('limit and time', () => {
    const limits = section(admin, '## Limits');
    expect(limits).toMatch(new RegExp(`^\\| pods per node +\\| ${MAX_ENDPOINTS - 1} `, 'm'));
    expect(limits).toMatch(new RegExp(`^\\| other nodes +\\| ${MAX_PEERS - 1} `, 'm'));
    const drain = table(section(admin, '## Drain and cleanup'), 'Time');
    expect(drain.find(([, what]) => what === '`drained`')?.[0]).toBe(`${DRAINED_NS / 1_000_000_000n} s`);
  });
});

describe('docs/configuration.md', () => {
  /** Keys of a schema as the documents write them, in its order. */
  function keys(schema: z.core.$ZodType, prefix = ''): string[] {
    if (schema instanceof z.ZodObject) {
      const shape = schema.shape as Readonly<Record<string, z.core.$ZodType>>;
      return Object.entries(shape).flatMap(([name, value]) => keys(value, prefix === '' ? name : `${prefix}.${name}`));
    }
    if (schema instanceof z.ZodOptional || schema instanceof z.ZodDefault || schema instanceof z.ZodPrefault) {
      return keys(schema.unwrap(), prefix);
    }
    if (schema instanceof z.ZodArray && schema.element instanceof z.ZodObject) {
      return keys(schema.element, `${prefix}[]`);
    }
    return [prefix];
  }

  const [main, cluster] = configuration.split('## Static cluster state') as [string, string];

  test('has every key', () => {
    expect(table(main, 'Key').map(([key]) => code(key))).toEqual(keys(configSchema));
    expect(table(cluster, 'Key').map(([key]) => code(key))).toEqual(keys(clusterFileSchema));
  });

  test('has the defaults', () => {
    const config = parseConfig('x', 'nodeName: n1\nclusterState: {kubernetes: {}}');
    for (const [key, cell] of table(main, 'Key')) {
      if (!/^(`.*`|[0-9.]+)$/.test(cell ?? '')) continue;
      const value = code(key)
        .split('.')
        .reduce<unknown>((parent, name) => (parent as Record<string, unknown>)[name], config);
      expect({ key, value: String(value) }).toEqual({ key, value: code(cell) });
    }
  });

  test('its keys are meant wherever one is named', () => {
    const known = keys(configSchema);
    const sections = [...new Set(known.filter((key) => key.includes('.')).map((key) => key.split('.')[0]))].join('|');
    const named = DOCUMENTS.flatMap((path) => inlineCode(read(path))).filter((text) =>
      new RegExp(`^(${sections})\\.[A-Za-z]+$`).test(text),
    );
    expect(named.filter((key) => !known.some((one) => `${one}.`.startsWith(`${key}.`)))).toEqual([]);
  });
});

describe('docs/operations.md', () => {
  const operations = read('docs/operations.md');

  test('has every alert of the chart', () => {
    const { groups } = z
      .object({ groups: z.array(z.object({ rules: z.array(z.object({ alert: z.string() })) })) })
      .parse(parse(read('charts/xmasq/alerts/xmasq.yaml')));
    const alerts = groups.flatMap(({ rules }) => rules.map(({ alert }) => alert));
    expect(table(operations, 'Alert').map(([name]) => code(name))).toEqual(alerts);
  });

  test('names no metric that does not exist', () => {
    const known = table(section(admin, '## Metrics'), 'Metric').map(([name]) => code(name));
    const named = [...operations.matchAll(/\bxmasq_[a-z_]+/g)].map(([name]) => name);
    expect(named.length).toBeGreaterThan(5);
    expect(named.filter((name) => !known.includes(name))).toEqual([]);
  });

  test('has a line for each map whose size can be chosen', () => {
    expect(table(operations, 'Map').map(([name]) => code(name))).toEqual(SIZED_MAPS);
  });
});

test('docs/security.md has the capabilities of the chart', () => {
  const added = /^ {2}add: \[(.*)\]$/m.exec(read('charts/xmasq/templates/_helpers.tpl'))?.[1]?.split(', ') ?? [];
  const documented = table(read('docs/security.md'), 'Capability').map(([name]) => name);
  expect(documented.toSorted()).toEqual(added.map((name) => `CAP_${name}`).toSorted());
});

describe('commands', () => {
  test('docs/cli.md is what the code gives', async () => {
    const file = join(ROOT, 'docs/cli.md');
    const text = await format(cliMarkdown(PROGRAMS), { ...(await resolveConfig(file)), filepath: file });
    expect(read('docs/cli.md')).toBe(text);
    for (const { program } of PROGRAMS) {
      for (const command of program.commands) {
        const part = section(text, `### ${program.name()} ${command.name()}`);
        for (const { long } of command.options) expect(part).toContain(long);
      }
    }
  });

  test('every command of xmasq has its part in docs/admin.md', () => {
    const headings = [...admin.matchAll(/^### xmasq ([\w-]+)$/gm)].map((match) => match[1] ?? '');
    const [{ program }] = PROGRAMS;
    expect(headings.toSorted()).toEqual(program.commands.map((command) => command.name()).toSorted());
  });

  test('README has every make target', () => {
    const documented = table(section(read('README.md'), '## Make targets'), 'Target').map(([name]) => code(name));
    expect(documented.toSorted()).toEqual([...readRepository().targets].toSorted());
  });
});

describe('docs/design.md and docs/packet-walk.md', () => {
  const headers = sources('bpf-src/*.{h,c}');

  test('have the times of bpf-src/xmasq.h', () => {
    const UNITS: Readonly<Record<string, number>> = { XMASQ_MS: 1, XMASQ_SEC: 1000 };
    const inHeader = [...headers.matchAll(/^#define (XMASQ_\w+_NS) \(?(?:(\d+) \* )?(XMASQ_MS|XMASQ_SEC)\)?/gm)]
      // Those that nothing uses are not worth a word.
      .filter(([, name]) => headers.split(new RegExp(`\\b${name ?? ''}\\b`)).length > 2)
      .map(([, name, count, unit]) => [name, Number(count ?? 1) * (UNITS[unit ?? ''] ?? NaN)]);
    const documented = table(section(design, '## 10. Times'), 'constant').map(([name, value]) => {
      const [, count, unit] = /^(\d+) (ms|s)$/.exec(value ?? '') ?? [];
      return [code(name), Number(count) * (unit === 's' ? 1000 : 1)];
    });
    expect(Object.fromEntries(documented)).toEqual(Object.fromEntries(inHeader));
  });

  test.each(['docs/design.md', 'docs/packet-walk.md'])('%s names nothing that does not exist', (path) => {
    const markdown = read(path);
    const italics = [...markdown.matchAll(/(?<![\w`])_([a-z_]+)_(?![\w`])/g)].map((match) => match[1] ?? '');
    const names = [...inlineCode(markdown), ...italics]
      .map((text) => text.replace(/\(\)$/, ''))
      .filter((text) => /^[a-z][a-z0-9]*(_[a-z0-9]+)+$/.test(text));
    // Names of enums are in lower case here, as people see them.
    const known = headers.toLowerCase().replaceAll(/xmasq_(reason|counter|event)_/g, '');
    const unknown = [...new Set(names)].filter((name) => !new RegExp(`\\b${name}\\b`).test(known));
    expect(unknown).toEqual([]);
  });
});

test('examples are of this protocol version: with another one nodes would not be peers', () => {
  const versions = DOCUMENTS.flatMap((path) =>
    [...read(path).matchAll(/\bprotocol"?:? *(\d+)\b/g)].map(([, n]) => Number(n)),
  );
  expect(versions.length).toBeGreaterThan(4);
  expect(new Set(versions)).toEqual(new Set([PROTOCOL_VERSION]));
});

describe('examples in YAML', () => {
  const examples = DOCUMENTS.flatMap((path) => fences(read(path), 'yaml').map((text) => ({ path, text })));
  const isCluster = (text: string): boolean => text.startsWith('nodes:');
  const isObject = (text: string): boolean => text.startsWith('apiVersion:');

  test('are configurations that the sidecar takes', () => {
    const configurations = examples.filter(({ text }) => !isCluster(text) && !isObject(text));
    expect(configurations.length).toBeGreaterThan(4);
    // What an example leaves out because another one has it.
    const rest = { nodeName: 'node-a', clusterState: { file: '/etc/xmasq/nodes.yaml' } };
    for (const { path, text } of configurations) {
      const whole = { ...rest, ...(parse(text) as object) };
      expect(() => parseConfig(path, stringify(whole))).not.toThrow();
    }
  });

  test('are nodes that the sidecar takes', () => {
    const clusters = examples.filter(({ text }) => isCluster(text));
    expect(clusters.map(({ path }) => path)).toEqual(['docs/admin.md', 'docs/configuration.md']);
    for (const { path, text } of clusters) expect(() => parseCluster(path, text, 'node-a')).not.toThrow();
  });

  test('docs/antrea.md: the objects name each other, what the commands create, and the port of the sidecar', () => {
    const antrea = read('docs/antrea.md');
    const shape = z.looseObject({ kind: z.string() });
    const objects = fences(antrea, 'yaml')
      .filter(isObject)
      .flatMap((text) => parseAllDocuments(text))
      .map((document) => shape.parse(document.toJS()));
    const object = (kind: string): Readonly<Record<string, unknown>> | undefined =>
      objects.find((each) => each.kind === kind);
    const created = [...antrea.matchAll(/^kubectl -n (\S+) create (configmap|secret \w+) (\S+)/gm)].map(
      ([, namespace, , name]) => ({ namespace, name }),
    );
    const [ca, client] = created;
    expect(created).toHaveLength(3);
    expect(object('FlowExporterDestination')?.['spec']).toEqual({
      address: parseConfig('', stringify({ nodeName: 'a', clusterState: { file: '/f' } })).flowExport.address,
      protocol: { grpc: {} },
      tlsConfig: { caConfigMap: ca, clientSecret: client },
    });
    const role = object('Role');
    expect(role).toMatchObject({
      metadata: { namespace: ca?.namespace },
      rules: [
        { apiGroups: [''], resources: ['configmaps'], resourceNames: [ca?.name], verbs: ['get'] },
        { apiGroups: [''], resources: ['secrets'], resourceNames: [client?.name], verbs: ['get'] },
      ],
    });
    expect(object('RoleBinding')).toMatchObject({
      metadata: { namespace: client?.namespace },
      roleRef: { kind: 'Role', name: (role?.['metadata'] as { name: string }).name },
      subjects: [{ kind: 'ServiceAccount', name: 'antrea-agent', namespace: 'kube-system' }],
    });
  });
});
