/** The checks of scripts/check-docs.ts: each finds what it is for, and finds nothing in the documents as they are. */
import { describe, expect, test } from '@jest/globals';
import {
  brokenLinks,
  commandsOfFences,
  missingFiles,
  whatRuns,
  wrongCommands,
  type Repository,
} from '../../../../scripts/docs/checks.ts';
import { allFences, anchors, section } from '../../../../scripts/docs/markdown.ts';
import { readRepository } from '../../../../scripts/docs/repository.ts';
import { RULES } from '../../../../scripts/docs/run-by.ts';
import { simpleCommands } from '../../../../scripts/docs/shell.ts';

/** One document, docs/a.md, beside docs/b.md; files of this name exist besides. */
function repository(markdown: string, files: Readonly<Record<string, string>> = {}): Repository {
  const documents = new Map([
    ['docs/a.md', markdown],
    ['docs/b.md', '# Title\n\n## A `part`: one\n\n## Twice\n\n## Twice\n'],
  ]);
  const known = new Map([...documents, ...Object.entries(files)]);
  return {
    documents,
    exists: (path) => known.has(path),
    read: (path) => known.get(path) ?? '',
    targets: new Set(['test', 'lab-down']),
  };
}

function fence(text: string, info = 'sh'): string {
  return `\`\`\`${info}\n${text}\n\`\`\`\n`;
}

describe('the documents as they are', () => {
  const real = readRepository();

  test('links, files and commands are sound', () => {
    expect(real.documents.size).toBeGreaterThan(20);
    expect([...brokenLinks(real), ...missingFiles(real), ...wrongCommands(real)]).toEqual([]);
  });

  test('each command is run by a test or marked', () => {
    const report = whatRuns(real, RULES);
    expect(report.problems).toEqual([]);
    expect(report.run).toBeGreaterThan(5);
    expect(report.marked).toBeGreaterThan(5);
  });
});

describe('links', () => {
  test.each(['b.md', 'b.md#a-part-one', 'b.md#twice-1', '#here', '../docs/b.md#title', 'https://example.org/x#y'])(
    '%s leads somewhere',
    (target) => expect(brokenLinks(repository(`# Here\n\n[x](${target})\n`))).toEqual([]),
  );

  test.each(['c.md', 'b.md#part', 'b.md#twice-2', '#there', '../b.md'])('%s leads nowhere', (target) =>
    expect(brokenLinks(repository(`# Here\n\n[x](${target})\n`))).toEqual([
      `docs/a.md: the link ${target} leads nowhere`,
    ]),
  );

  test('what is in fences is neither link nor heading', () => {
    expect(brokenLinks(repository(fence('# x\n[x](c.md)')))).toEqual([]);
    expect(anchors(fence('# x'))).toEqual([]);
  });
});

test('files that are named and do not exist', () => {
  const markdown = '`e2e/lab/x.ts` `e2e/lab/NAME.ts` `x.spec.ts` `y.spec.ts` `docs/b.md` `x.ts`\n';
  expect(missingFiles(repository(markdown, { 'e2e/specs-ovs/y.spec.ts': '' }))).toEqual([
    'docs/a.md: there is no file e2e/lab/x.ts',
    'docs/a.md: there is no file x.spec.ts',
  ]);
});

describe('commands', () => {
  test.each([
    'xmasq status -a',
    'xmasq --output json flows --pod default/web-0 --reason tcp-syn --watch',
    'xmasq flush --help',
    'xmasq-agent cleanup --wait && xmasq-agent version',
    'xmasq-agent certificates tls',
    'make',
    'make test LAB=ovs',
    'kubectl -n kube-system exec daemonset/xmasq -- xmasq status',
    'source <(xmasq completion bash)',
    'ls --bogus',
  ])('%s is right', (line) => expect(wrongCommands(repository(fence(line)))).toEqual([]));

  test.each([
    ['xmasq', 'outputHelp'],
    ['xmasq stat', "unknown command 'stat'"],
    ['xmasq status --bogus', "unknown option '--bogus'"],
    ['xmasq status | xmasq flows extra', 'too many arguments'],
    ['xmasq flows --port 65536', 'Expected a whole number from 1 to 65535'],
    ['xmasq flows -o xml', 'Allowed choices are table, json, yaml'],
    ['xmasq completion', "missing required argument 'shell'"],
    ['xmasq-agent clean', "unknown command 'clean'"],
    ['xmasq-agent run --wait', "unknown option '--wait'"],
    ['make tests', 'the Makefile has no target tests'],
    ['kubectl exec x -- xmasq state', "unknown command 'state'"],
    ['source <(xmasq completion fish)', "'fish' is invalid for argument 'shell'"],
    ['node e2e/none.ts', 'there is no file e2e/none.ts'],
  ])('%s is wrong, also where it is marked as not run', (line, message) => {
    for (const info of ['sh', 'sh not-run']) {
      expect(wrongCommands(repository(`\n${fence(line, info)}`))).toEqual([expect.stringMatching(/^docs\/a\.md:2: /)]);
      expect(wrongCommands(repository(fence(line, info))).join()).toContain(message);
    }
  });

  test('in the text, too, where an argument may be left out', () => {
    const markdown = '`xmasq completion`, `xmasq flows --bogus`, `make none`, `xmasq ...`, `make`\n';
    expect(wrongCommands(repository(markdown))).toEqual([
      expect.stringMatching(/^docs\/a\.md: xmasq flows --bogus: .*unknown option/),
      'docs/a.md: make none: the Makefile has no target none',
    ]);
  });

  test('other fences are no commands', () => {
    expect(wrongCommands(repository(fence('xmasq bogus', '') + fence('xmasq bogus', 'yaml')))).toEqual([]);
  });
});

describe('what runs', () => {
  const rule = { command: /^xmasq /, file: 'e2e/x.ts', evidence: 'runs it' };
  const files = { 'e2e/x.ts': '// runs it' };

  test('commands by a rule, and those of marked fences, are counted', () => {
    const markdown = fence('xmasq status\nxmasq peers # and\n') + fence('make lab; reboot', 'sh not-run');
    expect(whatRuns(repository(markdown, files), [rule])).toEqual({ run: 2, marked: 2, problems: [] });
  });

  test('one that is neither is a problem', () => {
    const { run, problems } = whatRuns(repository(fence('xmasq status\nreboot'), files), [rule]);
    expect([run, problems]).toEqual([1, [expect.stringMatching(/^docs\/a\.md:1: reboot: no test is known to run it/)]]);
  });

  test.each([{}, { 'e2e/x.ts': '// does not' }])('and so is a rule whose test has gone: %j', (without) =>
    expect(whatRuns(repository('', without), [rule]).problems).toEqual([
      expect.stringContaining('is run by e2e/x.ts no more'),
    ]),
  );
});

describe('the grammar', () => {
  test.each<[string, readonly (readonly string[])[]]>([
    ['a b  c', [['a', 'b', 'c']]],
    ['a # b\n# c\nd#e', [['a'], ['d#e']]],
    ['a && b || c; d | e &\nf', [['a'], ['b'], ['c'], ['d'], ['e'], ['f']]],
    ['a "b c" \'d # e\' f\\ g', [['a', 'b c', 'd # e', 'f g']]],
    ['a \\\n  b', [['a', 'b']]],
    ['A=1 B="2 3" a C=4', [['a', 'C=4']]],
    ['a >b 2>&1 c 2>/dev/null <d >> e f', [['a', 'c', 'f']]],
    ['(a; b)', [['a'], ['b']]],
    ['a $(b c) <(d)', [['b', 'c'], ['d'], ['a', '$(b c)', '<(d)']]],
  ])('%j', (script, commands) => expect(simpleCommands(script)).toEqual(commands));

  test.each(["a 'b", 'a $(b', 'cat <<EOF'])('%j is not understood', (script) =>
    expect(() => commandsOfFences(`\n\n${fence(script)}`, 'run')).toThrow(/^fence in line 3: /),
  );

  test('a comment in a fence ends no section', () => {
    expect(section(`# A\n\n${fence('# b\nc')}\n# B\n`, '# A')).toContain('# b\nc');
  });

  test('fences with their language, marks and line', () => {
    const markdown = `x\n\n${fence('a', 'sh not-run')}\n1. y\n\n   \`\`\`sh\n   b\n   \`\`\`\n`;
    expect(allFences(markdown)).toEqual([
      { line: 3, language: 'sh', marks: ['not-run'], text: 'a\n' },
      { line: 9, language: 'sh', marks: [], text: '   b\n' },
    ]);
  });
});
