/** What can be wrong with the documents by themselves: links, file names, and the commands in them. */
import { posix } from 'node:path';
import { CommanderError, type Command } from 'commander';
import { allFences, anchors, inlineCode, links } from './markdown.ts';
import { agentProgram, xmasqProgram } from './programs.ts';
import type { Rule } from './run-by.ts';
import { simpleCommands, type Words } from './shell.ts';

/** What the documents are compared with. */
export interface Repository {
  /** Text by path from the top of the checkout, of every document. */
  readonly documents: ReadonlyMap<string, string>;
  /** Whether there is such a file or directory. @param path from the top of the checkout */
  readonly exists: (path: string) => boolean;
  /** @throws Error there is no such file */
  readonly read: (path: string) => string;
  /** Targets of the Makefile. */
  readonly targets: ReadonlySet<string>;
}

/** A fence marked so has commands that no test runs. */
export const NOT_RUN = 'not-run';

/** Marked: in a fence with `not-run`. */
export type Running = 'run' | 'marked';

/** A command of a fence, and where the fence is. */
export interface FencedCommand {
  readonly line: number;
  readonly words: Words;
}

/** Commands in `sh` fences, marked as not run or not. @throws Error with the fence's line, what is not understood */
export function commandsOfFences(markdown: string, which: Running): FencedCommand[] {
  return allFences(markdown)
    .filter(({ language, marks }) => language === 'sh' && marks.includes(NOT_RUN) === (which === 'marked'))
    .flatMap(({ line, text }) => {
      try {
        return simpleCommands(text).map((words) => ({ line, words }));
      } catch (error) {
        throw new Error(`fence in line ${line}: ${error instanceof Error ? error.message : String(error)}`, {
          cause: error,
        });
      }
    });
}

/** Links to files, directories or headings that do not exist. */
export function brokenLinks({ documents, exists }: Repository): string[] {
  return [...documents].flatMap(([path, markdown]) =>
    links(markdown)
      .filter((target) => {
        if (/^[a-z]+:/.test(target)) return false;
        const [file = '', anchor] = target.split('#');
        const document = file === '' ? path : posix.join(posix.dirname(path), file);
        if (!exists(document)) return true;
        return anchor !== undefined && !anchors(documents.get(document) ?? '').includes(anchor);
      })
      .map((target) => `${path}: the link ${target} leads nowhere`),
  );
}

const DIRECTORIES = /^(bpf-src|docs|e2e|plugin|proto|scripts|charts)\/[\w./-]*$/;
const SPEC_DIRECTORIES = [
  'e2e/specs',
  'e2e/specs-image',
  'e2e/specs-kind',
  'e2e/specs-long',
  'e2e/specs-ovs',
  'e2e/specs-vm',
];

/** Files that are named in code and do not exist; NAME stands for any. A spec may go without its directory. */
export function missingFiles({ documents, exists }: Repository): string[] {
  const known = (name: string): boolean =>
    DIRECTORIES.test(name) ? exists(name) : SPEC_DIRECTORIES.some((directory) => exists(`${directory}/${name}`));
  return [...documents].flatMap(([path, markdown]) =>
    inlineCode(markdown)
      .filter((text) => DIRECTORIES.test(text) || /^[\w-]+\.spec\.ts$/.test(text))
      .filter((text) => !text.includes('NAME') && !known(text))
      .map((text) => `${path}: there is no file ${text}`),
  );
}

/** Why the program refuses these arguments; undefined: it takes them. Runs nothing. */
function refusal(program: Command, args: Words, incomplete: boolean): string | undefined {
  try {
    program.parse(args, { from: 'user' });
    return undefined;
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    const fine = error.exitCode === 0 || (incomplete && /missingArgument$/i.test(error.code));
    return fine ? undefined : error.message;
  }
}

/** What is wrong with a command; undefined: nothing that can be seen without running it. */
function problemOf(words: Words, repository: Repository, incomplete = false): string | undefined {
  const { targets, exists } = repository;
  const [program, ...args] = words;
  switch (program) {
    case 'xmasq':
      return refusal(xmasqProgram(), args, incomplete);
    case 'xmasq-agent':
      return refusal(agentProgram(), args, incomplete);
    case 'make': {
      const unknown = args.find((word) => !word.includes('=') && !word.startsWith('-') && !targets.has(word));
      return unknown === undefined ? undefined : `the Makefile has no target ${unknown}`;
    }
    case 'kubectl': {
      // As in `kubectl exec POD -- xmasq status`.
      const separator = args.indexOf('--');
      return separator < 0 ? undefined : problemOf(args.slice(separator + 1), repository);
    }
    case undefined:
    default: {
      const missing = words.find((word) => DIRECTORIES.test(word) && !word.includes('NAME') && !exists(word));
      return missing === undefined ? undefined : `there is no file ${missing}`;
    }
  }
}

/** Commands in fences and in code that the programs refuse, and targets that do not exist. */
export function wrongCommands(repository: Repository): string[] {
  return [...repository.documents].flatMap(([path, markdown]) => {
    const fenced = (['run', 'marked'] as const).flatMap((which) => commandsOfFences(markdown, which));
    const inline = inlineCode(markdown)
      .filter((text) => /^(xmasq|xmasq-agent|make) [a-z]/.test(text))
      .flatMap((text) => simpleCommands(text).map((words) => ({ line: undefined, words })));
    return [...fenced, ...inline].flatMap(({ line, words }) => {
      // In the text a command may be named without all that it takes.
      const problem = problemOf(words, repository, line === undefined);
      const where = line === undefined ? path : `${path}:${line}`;
      return problem === undefined ? [] : [`${where}: ${words.join(' ')}: ${problem}`];
    });
  });
}

/** Commands of all documents by whether a test runs them. */
export interface RunReport {
  readonly run: number;
  /** In fences marked as not run. */
  readonly marked: number;
  /** Neither. */
  readonly problems: readonly string[];
}

/** Counts commands in `sh` fences. Each must be run by a test, as a rule says, or its fence be marked. */
export function whatRuns({ documents, exists, read }: Repository, rules: readonly Rule[]): RunReport {
  const stale = rules
    .filter(({ file, evidence }) => !exists(file) || !read(file).includes(evidence))
    .map(({ command, file, evidence }) => `${String(command)} is run by ${file} no more: it lacks "${evidence}"`);
  const commands = [...documents].flatMap(([path, markdown]) =>
    commandsOfFences(markdown, 'run').map(({ line, words }) => ({ where: `${path}:${line}`, text: words.join(' ') })),
  );
  const unknown = commands.filter(({ text }) => !rules.some(({ command }) => command.test(text)));
  return {
    run: commands.length - unknown.length,
    marked: [...documents.values()].reduce((sum, markdown) => sum + commandsOfFences(markdown, 'marked').length, 0),
    problems: [
      ...stale,
      ...unknown.map(
        ({ where, text }) =>
          `${where}: ${text}: no test is known to run it: mark the fence "sh ${NOT_RUN}", or see scripts/docs/run-by.ts`,
      ),
    ],
  };
}
