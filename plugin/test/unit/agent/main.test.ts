import { afterAll, beforeAll, describe, expect, jest, test } from '@jest/globals';
import { spawnSync } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { findBpfFiles } from '../../../src/agent/bpf-files.ts';
import { VERSION } from '../../../src/agent/version.ts';
import { LAYOUT_VERSION, PROTOCOL_VERSION } from '../../../src/dataplane/layout.ts';

const MAIN = join(import.meta.dirname, '../../../src/agent/main.ts');
let directory: string;

function run(...args: string[]): { code: number | null; out: string; err: string } {
  const argv = ['--experimental-strip-types', '--no-warnings', MAIN, ...args];
  const { status, stdout, stderr } = spawnSync(process.execPath, argv, {
    encoding: 'utf8',
    timeout: 30_000,
    env: { PATH: process.env['PATH'] },
  });
  return { code: status, out: stdout, err: stderr };
}

beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'xd-main-'));
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

/** Each run loads every source file of the sidecar anew. */
jest.setTimeout(60_000);

describe('xmasq-agent', () => {
  test('shows its version', () => {
    const { code, out } = run('version');
    expect([code, out]).toEqual([
      0,
      `xmasq-agent ${VERSION}, protocol ${PROTOCOL_VERSION}, map layout ${LAYOUT_VERSION}\n`,
    ]);
  });

  test('wrong use is exit code 2, help is 0', () => {
    expect(run('fly').code).toBe(2);
    expect(run('run', '--nonsense').code).toBe(2);
    expect(run('--help')).toMatchObject({ code: 0, out: expect.stringContaining('cleanup') });
  });

  test('a missing or wrong configuration is one clear line and exit code 1', () => {
    const missing = run('run', '--config', join(directory, 'none.yaml'));
    expect(missing.code).toBe(1);
    expect(missing.err).toMatch(/^xmasq-agent: .*none\.yaml/);
    const file = join(directory, 'wrong.yaml');
    writeFileSync(file, 'nodeName: n1\nclusterState: {file: /x}\nstartHold: never\n');
    const wrong = run('cleanup', '--config', file);
    expect(wrong.code).toBe(1);
    expect(wrong.err).toContain('startHold');
    expect(wrong.err).not.toContain('    at ');
  });

  test('issues certificates that all nodes can share, and keeps those that are good', () => {
    const tls = join(directory, 'tls');
    expect(run('certificates', tls)).toMatchObject({ code: 0, out: expect.stringContaining('client.crt') });
    const read = (name: string): string => readFileSync(join(tls, name), 'utf8');
    const [ca, server] = [new X509Certificate(read('ca.crt')), new X509Certificate(read('server.crt'))];
    expect(server.checkIssued(ca) && server.checkIP('127.0.0.1') === '127.0.0.1').toBe(true);
    expect(statSync(join(tls, 'server.key')).mode & 0o777).toBe(0o600);
    expect(run('certificates', tls).code).toBe(0);
    expect(new X509Certificate(read('server.crt')).fingerprint256).toBe(server.fingerprint256);
  });

  test('missing BPF objects are told with where they were looked for', () => {
    expect(() => findBpfFiles(directory)).toThrow(new RegExp(`${directory}.*make build`));
  });
});
