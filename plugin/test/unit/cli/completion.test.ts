/** The script of `xmasq completion bash` in a real bash, asked as readline asks it. */
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { createProgram } from '../../../src/cli/command-tree.ts';
import { completionScript } from '../../../src/cli/completion.ts';
import { REASONS } from '../../../src/grpc/reasons.ts';

const nothing = (): void => undefined;
const program = createProgram({ out: nothing, error: nothing }, () => Promise.resolve());
const SCRIPT = completionScript(program, 'bash');

let directory: string;

beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'xmasq-completion-'));
  writeFileSync(join(directory, 'my config.yaml'), '');
  mkdirSync(join(directory, 'objects'));
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

/** What bash offers for the last of these words, which readline has taken apart as it does. */
function offers(...words: string[]): string[] {
  const ask = `set -u
${SCRIPT}
COMP_WORDS=(xmasq "$@") COMP_CWORD=$#
# By the name that complete has registered.
function=$(complete -p xmasq) && function=\${function#*-F } && "\${function%% *}"
[ \${#COMPREPLY[@]} = 0 ] || printf '%s\\n' "\${COMPREPLY[@]}"`;
  const { status, stdout, stderr } = spawnSync('bash', ['--norc', '-c', ask, 'bash', ...words], {
    cwd: directory,
    encoding: 'utf8',
    timeout: 20_000,
  });
  expect([status, stderr]).toEqual([0, '']);
  return stdout.split('\n').filter((line) => line !== '');
}

const ALL = ['-V', '--version', '-o', '--output', '--socket', '--timeout', '-h', '--help'];

describe('bash completes', () => {
  test('every command, and the options of all', () => {
    const commands = [...program.commands.map((command) => command.name()), 'help'];
    expect(commands.length).toBeGreaterThan(9);
    expect(offers('').toSorted()).toEqual([...commands, ...ALL].toSorted());
    expect(offers('fl')).toEqual(['flows', 'flush']);
  });

  test.each(program.commands.map((command) => [command.name(), command] as const))(
    'the options of %s, and no others',
    (name, command) => {
      const own = command.options.flatMap(({ short, long }) => [short, long]).filter((option) => option !== undefined);
      expect(offers(name, '-').toSorted()).toEqual([...own, ...ALL].toSorted());
    },
  );

  test.each<[readonly string[], readonly string[]]>([
    [
      ['status', '-o', ''],
      ['table', 'json', 'yaml'],
    ],
    [['-o', 'j'], ['json']],
    [['status', '--output', '=', 'y'], ['yaml']],
    [
      ['status', '--output', '='],
      ['table', 'json', 'yaml'],
    ],
    [
      ['flows', '--path', ''],
      ['fast', 'slow'],
    ],
    [['flows', '-w', '--protocol', 'sc'], ['sctp']],
    [['flows', '--reason', ''], REASONS.map(({ name }) => name)],
    [
      ['completion', ''],
      ['bash', 'zsh'],
    ],
    [['completion', 'bash', '--so'], ['--socket']],
    // A value that is called as a command is none; an option of another command is not this one's.
    [['--socket', 'flows', 'flu'], ['flush']],
    [['flush', '--path', 'f'], []],
    // Only the sidecar knows these.
    [['flows', '--pod', ''], []],
  ])('%j', (words, expected) => {
    expect(offers(...words).filter((word) => words.at(-1) !== '' || !word.startsWith('-'))).toEqual(expected);
  });

  test('files, with blanks in their names, and directories', () => {
    expect(offers('doctor', '--config', 'my')).toEqual(['my config.yaml']);
    expect(offers('--socket', '').toSorted()).toEqual(['my config.yaml', 'objects']);
    expect(offers('doctor', '--bpf-dir', '')).toEqual(['objects']);
  });
});

test('as docs/cli.md has it, in a shell where xmasq is this program', () => {
  const main = fileURLToPath(new URL('../../../src/cli/main.ts', import.meta.url));
  const line = 'source <(xmasq completion bash)';
  const ask = `xmasq() { "$NODE" ${main} "$@"; }; ${line}; complete -p xmasq`;
  const { stdout, stderr } = spawnSync('bash', ['--norc', '-c', ask], {
    env: { PATH: process.env.PATH, NODE: process.execPath },
    encoding: 'utf8',
    timeout: 30_000,
  });
  expect([stdout, stderr]).toEqual(['complete -F _xmasq xmasq\n', '']);
}, 60_000);

test('the script is what shellcheck finds nothing in', () => {
  const { status, stdout } = spawnSync('shellcheck', ['--shell=bash', '-'], { input: SCRIPT, encoding: 'utf8' });
  expect([status, stdout]).toEqual([0, '']);
});
