/** docs/cli.md as the trees of commands give it. */
import type { Argument, Command, Option } from 'commander';
import { allowedBy } from '../../plugin/src/cli/arguments.ts';

/** A program of the document. */
export interface DocumentedProgram {
  readonly program: Command;
  /** By exit code. */
  readonly exitCodes: Readonly<Record<number, string>>;
}

const INTRODUCTION = `# Command line

<!-- Written by scripts/gen-cli.ts from the code, do not edit: node scripts/gen-cli.ts -->

Every command, option and exit code. What the commands print, and what it means, is in
[admin.md](admin.md#the-xmasq-command), the [reasons](admin.md#reasons), too; how to complete them in a shell, at [the end](#completion).
`;

const COMPLETION = `## Completion

\`xmasq completion\` prints a script for bash or zsh, made from the same tree of commands as this document. For this shell:

\`\`\`sh
source <(xmasq completion bash)
\`\`\`

For all of a user's: that line in \`~/.bashrc\`; of zsh, \`source <(xmasq completion zsh)\` after \`compinit\` in \`~/.zshrc\`. It offers
commands, options, their fixed values and files; it does not ask the sidecar, so names of pods and nodes are not offered.
`;

/** The text of a table's cell. */
function cell(text: string): string {
  return text.replaceAll('|', '\\|').replaceAll('\n', ' ');
}

function meaning(text: string): string {
  return cell(`${text.charAt(0).toLowerCase()}${text.slice(1)}`);
}

/** A description as a sentence. */
function sentence(text: string): string {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}${text.endsWith('.') ? '' : '.'}`;
}

/** What may stand there; empty: anything, or there is no value. */
function allowed({ argChoices, parseArg }: Option | Argument): string {
  if (argChoices !== undefined) return argChoices.map((word) => `\`${word}\``).join(', ');
  return cell(allowedBy(parseArg)?.text ?? '');
}

function table(heading: readonly string[], rows: readonly (readonly string[])[]): string {
  if (rows.length === 0) return '';
  const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |\n`;
  return [line(heading), line(heading.map(() => '---')), ...rows.map(line)].join('');
}

function optionTable(options: readonly Option[]): string {
  return table(
    ['Option', 'Meaning', 'Allowed'],
    options.map((option) => {
      const value: unknown = option.defaultValue;
      const suffix = typeof value === 'string' ? `; default \`${value}\`` : '';
      return [`\`${cell(option.flags)}\``, `${meaning(option.description)}${suffix}`, allowed(option)];
    }),
  );
}

function commandPart(program: Command, command: Command): string {
  const takes = [
    ...(command.options.length > 0 ? ['[options]'] : []),
    ...command.registeredArguments.map((argument) => `<${argument.name()}>`),
  ];
  const name = `${program.name()} ${command.name()}`;
  return [
    `### ${name}\n`,
    `\`\`\`\n${[name, ...takes].join(' ')}\n\`\`\`\n`,
    `${sentence(command.description())}\n`,
    table(
      ['Argument', 'Meaning', 'Allowed'],
      command.registeredArguments.map((argument) => [
        `\`<${argument.name()}>\``,
        meaning(argument.description),
        allowed(argument),
      ]),
    ),
    optionTable(command.options),
  ]
    .filter((part) => part !== '')
    .join('\n');
}

function programPart({ program, exitCodes }: DocumentedProgram): string {
  const help = program.createHelp();
  // Those of every command; of xmasq-agent there is none but --help.
  const common = program.options.length > 0 ? help.visibleOptions(program) : [];
  const options = common.length > 0 ? `Options of all commands:\n\n${optionTable(common)}` : '';
  const codes = table(
    ['Exit code', 'Meaning'],
    Object.entries(exitCodes).map(([code, text]) => [code, cell(text)]),
  );
  const parts = program.commands.map((command) => commandPart(program, command));
  return [`## ${program.name()}\n`, `${sentence(program.description())}\n`, options, codes, ...parts]
    .filter((part) => part !== '')
    .join('\n');
}

/** The whole document; prettier has the last word on its looks. */
export function cliMarkdown(programs: readonly DocumentedProgram[]): string {
  return [INTRODUCTION, ...programs.map(programPart), COMPLETION].join('\n');
}
