/**
 * Runs every `xmasq` and `xmasq-agent` command of the documents' `sh` fences as it stands there, on a node whose sidecar carries a
 * flow. What is given besides is where this lab has socket and configuration. Each must end with exit code 0 and say something.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { commandsOfFences } from '../../scripts/docs/checks.ts';
import { readRepository } from '../../scripts/docs/repository.ts';
import { freshPort, withServer } from '../lab/measure.ts';
import { up } from '../lab/native/native.ts';
import type { NativeLab } from '../lab/native/native.ts';
import { startSidecars } from '../lab/sidecar.ts';
import type { LabSidecars, Sidecar } from '../lab/sidecar.ts';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
/** Drained after 32 s. */
const LIMIT_MS = 60_000;

const commands = [
  ...new Set(
    [...readRepository().documents.values()].flatMap((document) =>
      commandsOfFences(document, 'run').map(({ words }) => words.join(' ')),
    ),
  ),
];
/** These end the lab: the last ones, in this order. Without the sidecar: the second and third. */
const LAST = ['xmasq drain --wait', 'xmasq-agent cleanup', 'xmasq-agent cleanup --wait'];
// The sidecars of this lab, and of every other one, are run so.
const xmasq = commands.filter((command) => /^xmasq(-agent)? /.test(command) && command !== 'xmasq-agent run');
const alive = xmasq.filter((command) => !LAST.includes(command));

let lab: NativeLab;
let sidecars: LabSidecars;
let first: Sidecar;
let directory: string;

/** A program of this name that runs the bundle; the commands of `configured` are given the lab's configuration. */
function install(name: string, configured: string): void {
  const script = `#!/bin/bash
case $1 in ${configured}) set -- "$@" --config ${first.configFile} ;; esac
exec ${process.execPath} ${join(ROOT, `build/${name}.mjs`)} "$@"
`;
  writeFileSync(join(directory, name), script, { mode: 0o755 });
}

async function run(command: string): Promise<string> {
  const environment = [`PATH=${directory}:${process.env['PATH'] ?? ''}`, `XMASQ_SOCKET=${first.socket}`];
  const argv = ['env', ...environment, 'bash', '-c', `cd ${directory} && ${command}`];
  const { code, stdout, stderr } = await first.node.exec(argv, { check: false, timeoutMs: LIMIT_MS });
  expect({ command, code, stderr }).toEqual({ command, code: 0, stderr: '' });
  expect(stdout).not.toBe('');
  return stdout;
}

beforeAll(async () => {
  lab = await up();
  sidecars = await startSidecars(lab);
  first = sidecars.node(0);
  directory = mkdtempSync(join(tmpdir(), `${lab.id}-documents-`));
  install('xmasq', 'doctor|support-bundle');
  install('xmasq-agent', 'run|cleanup');
}, 120_000);
afterAll(async () => {
  rmSync(directory, { recursive: true, force: true });
  await sidecars.down();
  await lab.down();
});

test('there are commands of both programs, and all of those that end a lab', () => {
  expect(alive).toEqual(expect.arrayContaining(['xmasq status', 'xmasq flows', 'xmasq doctor']));
  expect(xmasq).toEqual(expect.arrayContaining(LAST));
});

test.each(alive)(
  '%s',
  async (command) => {
    const [a, b] = [lab.node(0).pod(0), lab.node(1).pod(0)];
    const port = freshPort();
    const rr = lab.tool('rr');
    await withServer(b, [rr, 'server', '--tcp', '--port', String(port)], async () => {
      const client = await a.spawn([
        rr,
        'client',
        '--tcp',
        '--to',
        b.address,
        '--port',
        String(port),
        '--seconds',
        '60',
      ]);
      try {
        await sidecars.waitFast({ port });
        const stdout = await run(command);
        if (command === 'xmasq flows') expect(stdout).toMatch(new RegExp(`:${port} +tcp +\\S+ +fast `));
        if (command === 'xmasq status') expect(stdout).toMatch(/^state: +ready$/m);
      } finally {
        await client.stop();
      }
    });
  },
  120_000,
);

test('drain, stop, clean up', async () => {
  const [drain = '', cleanup = '', again = ''] = LAST;
  expect(await run(drain)).toBe('drained\n');
  await first.stop();
  expect(await run(cleanup)).toMatch(/^removed \d+ attachments and \d+ pins/);
  expect(await run(again)).toMatch(/^nothing to remove/);
}, 180_000);
