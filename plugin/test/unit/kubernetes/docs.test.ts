/** docs/kubernetes.md says what the code does. */
import { globSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, test } from '@jest/globals';
import { exclusionsOf, parseAntreaConf } from '../../../src/kubernetes/antrea-modes.ts';
import { REASONS } from '../../../src/grpc/reasons.ts';
import { code, section, table } from '../../../../scripts/docs/markdown.ts';

const ROOT = fileURLToPath(new URL('../../../../', import.meta.url));
const read = (path: string): string => readFileSync(`${ROOT}${path}`, 'utf8');
const document = read('docs/kubernetes.md');
const source = globSync('plugin/src/kubernetes/*.ts', { cwd: ROOT }).map(read).join('\n');

test('troubles are worded as in the code, and all of them are there', () => {
  const texts = table(section(document, '## Troubles'), 'Text').map(([text]) => code(text));
  const parts = texts.flatMap((text) => text.split(/:? ?\.\.\. ?/)).filter((part) => part !== '');
  expect(parts.filter((part) => !source.includes(part))).toEqual([]);
  const worded = [...source.matchAll(/\bwhat: (?:describe\()?[`"']([^`"'$]{10,}?)(?: \$|[`"':])/g)].map(
    ([, text]) => text ?? '',
  );
  expect(worded.length).toBeGreaterThan(3);
  expect(worded.filter((text) => !texts.some((known) => known.startsWith(text.slice(0, 20))))).toEqual([]);
});

test('settings that exclude nodes have the reasons and scopes that are told', () => {
  const rows = table(section(document, '## What is excluded'), 'Setting').slice(0, -1);
  expect(rows).toHaveLength(6);
  const names = new Map(REASONS.map(({ code: number, name }) => [number, name]));
  const samples: Readonly<Record<string, string>> = { trafficEncryptionMode: 'ipsec', tunnelType: 'gre' };
  for (const [setting = '', scope, reason] of rows) {
    const [first = ''] = /`([^`]+)`/.exec(setting)?.slice(1) ?? [];
    const conf = first.includes(':') ? first : `${first}: ${samples[first] ?? ''}`;
    const [, parent, child] = /^(\w+)\.(.*)$/.exec(conf) ?? [];
    const found = exclusionsOf(parseAntreaConf(parent === undefined ? conf : `${parent}:\n  ${child ?? ''}`));
    const told = found.map((exclusion) => [exclusion.scope, names.get(exclusion.reason)]);
    expect({ setting, told }).toEqual({
      setting,
      told: [[scope === 'everything' ? 'node' : 'inter-node', code(reason)]],
    });
  }
});
