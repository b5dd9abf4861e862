import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { loadConfig, parseConfig } from '../../../src/config/load.ts';
import { configSchema } from '../../../src/config/schema.ts';

const MINIMAL = 'nodeName: node-a\nclusterState: { file: /etc/xmasq/nodes.yaml }\n';

function failure(text: string): string {
  try {
    parseConfig('x.yaml', text);
  } catch (error) {
    return (error as Error).message;
  }
  throw new Error('no error');
}

describe('configuration file', () => {
  test('defaults', () => {
    expect(parseConfig('x.yaml', MINIMAL)).toEqual({
      nodeName: 'node-a',
      featureGates: { XMasq: false, SameNode: true, FlowExport: false, FlowAccounting: false },
      uplink: { devices: [], xdp: 'off' },
      bpffs: '/sys/fs/bpf/xmasq',
      socket: '/run/xmasq/xmasq.sock',
      clusterState: { file: '/etc/xmasq/nodes.yaml', kubernetes: undefined },
      ovsdb: { socket: undefined, bridge: 'br-int' },
      tunnel: { type: 'geneve', port: 6081 },
      conntrack: { zone: 65520, zone6: 65510 },
      transmitMode: 'auto',
      maps: { flows: 65536, slots: 131072, approvals: 65536, refusals: 65536 },
      startHold: 10,
      approvals: { pollInterval: 0.5, lease: 5 },
      flowExport: {
        address: '127.0.0.1:14740',
        certificates: '/var/lib/xmasq/flow-export',
        files: undefined,
        records: 65536,
      },
      flowAccounting: { address: undefined, serverName: undefined, files: undefined, interval: 5 },
      metrics: { address: undefined },
      log: { level: 'info' },
    });
  });

  test('everything set', () => {
    const config = parseConfig(
      'x.yaml',
      JSON.stringify({
        nodeName: 'node-a.example',
        uplink: { device: 'eth0.12' },
        bpffs: '/sys/fs/bpf/a',
        socket: '/run/a/b.sock',
        clusterState: { file: '/n.json' },
        tunnel: { type: 'vxlan' },
        conntrack: { zone: 0, zone6: 1 },
        transmitMode: 'encap',
        maps: { flows: 2048, slots: 4096, approvals: 1024, refusals: 1024 },
        startHold: 0.5,
        approvals: { pollInterval: 0.2, lease: 1 },
        metrics: { address: '[::1]:9090' },
        log: { level: 'debug' },
      }),
    );
    expect(config).toMatchObject({
      tunnel: { type: 'vxlan', port: 4789 },
      uplink: { devices: ['eth0.12'], xdp: 'off' },
      transmitMode: 'encap',
      startHold: 0.5,
    });
    expect(config.metrics.address).toBe('[::1]:9090');
  });

  test('a device for each family', () => {
    const text = 'nodeName: a\nclusterState: { file: /n }\nuplink: { device: [eth0, eth1] }';
    expect(parseConfig('x.yaml', text).uplink.devices).toEqual(['eth0', 'eth1']);
  });

  test('NODE_NAME is the default of nodeName', () => {
    const text = 'clusterState: { file: /n }';
    expect(parseConfig('x.yaml', text, { NODE_NAME: 'node-b' }).nodeName).toBe('node-b');
    expect(parseConfig('x.yaml', `nodeName: node-a\n${text}`, { NODE_NAME: 'node-b' }).nodeName).toBe('node-a');
    expect(failure(text)).toBe(
      'x.yaml: nodeName: is missing; expected it here or in the environment variable NODE_NAME',
    );
  });

  test('several problems, in the order of the file', () => {
    expect(
      failure('nodeName: A\nclusterState:\n  file: n\ntunnel:\n  port: 0\n  kind: x\nlog: { level: loud }\n'),
    ).toBe(
      [
        'x.yaml:1: nodeName: is "A"; expected a node name (lower-case letters, digits, -, .; up to 253)',
        'x.yaml:3: clusterState.file: is "n"; expected an absolute path of at most 4095 bytes',
        'x.yaml:5: tunnel.port: is 0; expected a whole number from 1 to 65535',
        'x.yaml:6: tunnel.kind: is not a known key; known here: type, port',
        'x.yaml:7: log.level: is "loud"; expected one of fatal, error, warn, info, debug, trace',
      ].join('\n'),
    );
  });

  test.each([
    ['colour: red', 'x.yaml:3: colour: is not a known key; known here: nodeName, featureGates, uplink,'],
    ['startHold: 301', 'x.yaml:3: startHold: is 301; expected seconds, from 0 to 300'],
    ['startHold: "10"', 'startHold: is "10"; expected seconds, from 0 to 300'],
    ['startHold: .nan', 'startHold: is null; expected seconds'],
    ['conntrack: { zone: 1.5 }', 'conntrack.zone: is 1.5; expected a whole number from 0 to 65535'],
    ['maps: { flows: 1000 }', 'maps.flows: is 1000; expected a whole number from 1024 to 1048576'],
    ['maps: { flows: 200000 }', 'maps.slots: is 131072; expected at least maps.flows (200000)'],
    ['approvals:\n  lease: 1\n  pollInterval: 1', 'x.yaml:4: approvals.lease: is 1; expected at least twice'],
    ['uplink: { device: a/b }', 'uplink.device: is "a/b"; expected the name of a network interface'],
    ['uplink: { device: [a, b, c] }', 'uplink.device: is a list; expected the name of a network interface'],
    ['transmitMode: direct', 'transmitMode: is "direct"; expected one of auto, masquerade, encap'],
    ['uplink:', 'x.yaml:3: uplink: is null; expected a mapping of device'],
    ['tunnel: geneve', 'tunnel: is "geneve"; expected a mapping of type, port'],
    ['maps: [1]', 'maps: is a list; expected a mapping of flows, slots, approvals, refusals'],
    ['bpffs: /sys/../etc', 'bpffs: is "/sys/../etc"; expected an absolute path'],
    [`socket: /${'x'.repeat(80)}`, 'expected an absolute path of at most 80 bytes'],
    ['metrics: { address: "localhost:1" }', 'metrics.address: is "localhost:1"; expected an address and a port'],
    ['metrics: { address: ":0" }', 'metrics.address: is ":0"'],
    ['nodeName: other', 'x.yaml:3: is not valid YAML: Map keys must be unique'],
    ['a: [', 'is not valid YAML'],
    ['---\nb: 1', 'is not valid YAML'],
    ['a: !!js/function x', 'is not valid YAML'],
  ])('rejects %j', (line, message) => {
    expect(failure(`${MINIMAL}${line}\n`)).toContain(message);
  });

  test.each([
    ['', 'x.yaml: clusterState: is missing; expected a mapping of file, kubernetes'],
    ['nodeName: n\nclusterState: {}', 'x.yaml:2: clusterState: names no source; expected file, or kubernetes'],
    [
      'nodeName: n\nclusterState: {file: /n, kubernetes: {}}',
      'x.yaml:2: clusterState: names two sources; expected either file or kubernetes',
    ],
    [
      'nodeName: n\nclusterState: {kubernetes: {kubeconfig: /k, serviceAccount: /s}}',
      'x.yaml:2: clusterState.kubernetes: names two ways to the API; expected either kubeconfig or serviceAccount',
    ],
    [
      'nodeName: n\nclusterState: {file: /n}\nfeatureGates: {FlowAccounting: true}',
      'flowAccounting: lacks address or files; expected both',
    ],
    [
      'nodeName: n\nclusterState: {file: /n}\nflowExport: {address: "0.0.0.0:14740"}',
      'flowExport.address: is "0.0.0.0:14740"; expected a loopback address',
    ],
    ['- a\n- b', 'x.yaml: is a list; expected a mapping of nodeName'],
    ['nodeName', 'x.yaml: is "nodeName"; expected a mapping'],
    ['nodeName: 5\nclusterState: {file: /n}', 'x.yaml:1: nodeName: is 5; expected a node name'],
  ])('rejects the file %j', (text, message) => {
    expect(failure(text)).toContain(message);
  });

  test('refuses to expand aliases without end', () => {
    const levels = Array.from({ length: 12 }, (_, n) => `l${n + 1}: &l${n + 1} [${Array(9).fill(`*l${n}`).join(',')}]`);
    expect(failure(`l0: &l0 [x]\n${levels.join('\n')}\n`)).toContain('is not valid YAML: Excessive alias count');
  });

  test('lists a bounded number of problems', () => {
    const keys = Array.from({ length: 50 }, (_, n) => `k${n}: 1`).join('\n');
    const lines = failure(`${MINIMAL}${keys}`).split('\n');
    expect(lines.length).toBe(21);
    expect(lines.at(-1)).toBe('x.yaml: and 30 more problems');
  });

  test('reads a file; says so if it is missing, a directory or too large', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'xm-'));
    try {
      const file = join(directory, 'x.yaml');
      await expect(loadConfig(file)).rejects.toThrow(`${file}: cannot be read: no such file`);
      await expect(loadConfig(directory)).rejects.toThrow('cannot be read: EISDIR');
      await writeFile(file, MINIMAL);
      expect((await loadConfig(file)).nodeName).toBe('node-a');
      await writeFile(file, `${MINIMAL}#${' '.repeat(300_000)}`);
      await expect(loadConfig(file)).rejects.toThrow(/has 3\d{5} bytes; at most 262144 are allowed/);
    } finally {
      await rm(directory, { recursive: true });
    }
  });

  test('every key is documented', async () => {
    const documentation = await readFile(new URL('../../../../docs/configuration.md', import.meta.url), 'utf8');
    const keys = leaves(configSchema);
    expect(keys.length).toBeGreaterThan(15);
    for (const key of keys) expect(documentation).toContain(`| \`${key}\` `);
  });
});

/** Paths of all keys that hold values. */
function leaves(schema: unknown, prefix = ''): string[] {
  let inner = schema as { shape?: Record<string, unknown>; def?: { innerType?: unknown } };
  while (inner.shape === undefined && inner.def?.innerType !== undefined) inner = inner.def.innerType as typeof inner;
  if (inner.shape === undefined) return [prefix];
  return Object.entries(inner.shape).flatMap(([key, value]) => leaves(value, prefix === '' ? key : `${prefix}.${key}`));
}
