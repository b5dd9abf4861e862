/** Completion for shells, made from the tree of commands: no list of names is kept beside it. */
import type { Argument, Command, Option } from 'commander';
import { allowedBy } from './arguments.ts';

export const SHELLS = ['bash', 'zsh'] as const;
export type Shell = (typeof SHELLS)[number];

/** What the shell itself completes. */
const FILES = '@files';
const DIRECTORIES = '@directories';

/** The words that an option or argument offers, FILES or DIRECTORIES; '': nothing can be offered. */
function offered({ argChoices, parseArg }: Option | Argument, placeholder: string): string {
  const words = argChoices ?? allowedBy(parseArg)?.words;
  if (words !== undefined) return words.join(' ');
  if (/<(file|path)>/.test(placeholder)) return FILES;
  return placeholder.includes('<directory>') ? DIRECTORIES : '';
}

function namesOf({ short, long }: Option): string[] {
  return [short, long].filter((name) => name !== undefined);
}

/** What an argument offers, and the options that may stand before it; the shell completes files alone. */
function withOptions(words: string, options: readonly string[]): string {
  return words.startsWith('@') ? words : [words, ...options].join(' ').trim();
}

/** A word of the script that means itself. */
function quoted(word: string): string {
  return `'${word.replaceAll("'", `'\\''`)}'`;
}

/** One branch of `case "$command $option"`; of an option of all commands for each. */
function pattern(command: string | undefined, option: Option): string {
  return namesOf(option)
    .map((name) => (command === undefined ? `*${quoted(` ${name}`)}` : quoted(`${command} ${name}`)))
    .join(' | ');
}

interface ValueOption {
  /** Undefined: of all commands. */
  readonly command: string | undefined;
  readonly option: Option;
}

function valueOptions(program: Command): ValueOption[] {
  const own = program.commands.flatMap((command) =>
    command.options.map((option) => ({ command: command.name(), option })),
  );
  const all = program.options.map((option) => ({ command: undefined, option }));
  return [...own, ...all].filter(({ option }) => option.required);
}

/**
 * A function of any POSIX shell with `local`: from the words between program and cursor to the candidates for the word at the
 * cursor, in one line.
 */
function candidatesFunction(program: Command, name: string): string {
  const help = program.createHelp();
  const optionsOf = (command: Command): string[] =>
    [...help.visibleOptions(command), ...(command === program ? [] : help.visibleGlobalOptions(command))].flatMap(
      namesOf,
    );
  const options = valueOptions(program);
  const values = options.flatMap(({ command, option }) => {
    const words = offered(option, option.flags);
    return words === '' ? [] : [`      ${pattern(command, option)}) echo ${quoted(words)} ;;`];
  });
  const commands = program.commands.flatMap((command) =>
    [
      ...command.registeredArguments.map((argument, i) => ({
        when: quoted(`${command.name()} ${i}`),
        words: withOptions(offered(argument, `<${argument.name()}>`), optionsOf(command)),
      })),
      { when: quoted(`${command.name()} `) + '*', words: optionsOf(command).join(' ') },
    ].map(({ when, words }) => `    ${when}) echo ${quoted(words)} ;;`),
  );
  const first = [...help.visibleCommands(program).map((command) => command.name()), ...optionsOf(program)].join(' ');
  return `${name}() {
  local command='' option='' given=0 word
  for word in "$@"; do
    if [ -n "$option" ]; then
      # bash takes --output=json apart into three words.
      [ "$word" = = ] || option=''
      continue
    fi
    case "$command $word" in
      ${options.map(({ command, option }) => pattern(command, option)).join(' | \\\n      ')}) option=$word ;;
      *' -'*) ;;
      ' '*) command=$word ;;
      *) given=$((given + 1)) ;;
    esac
  done
  if [ -n "$option" ]; then
    case "$command $option" in
${values.join('\n')}
    esac
    return
  fi
  case "$command $given" in
    ' '*) echo ${quoted(first)} ;;
${commands.join('\n')}
  esac
}
`;
}

/** The script for a shell, to be sourced. @param program its tree, without anything but names read from it */
export function completionScript(program: Command, shell: Shell): string {
  const name = `_${program.name()}`;
  const common = candidatesFunction(program, `${name}_candidates`);
  switch (shell) {
    case 'bash':
      return `# Completion of ${program.name()} for bash: source <(${program.name()} completion bash)
${common}
${name}() {
  local current=\${COMP_WORDS[COMP_CWORD]} candidates
  candidates=$(${name}_candidates "\${COMP_WORDS[@]:1:COMP_CWORD-1}")
  [ "$current" != = ] || current=''
  COMPREPLY=()
  case $candidates in
    ${FILES}) mapfile -t COMPREPLY < <(compgen -f -- "$current") && compopt -o filenames 2>/dev/null ;;
    ${DIRECTORIES}) mapfile -t COMPREPLY < <(compgen -d -- "$current") && compopt -o filenames 2>/dev/null ;;
    *) mapfile -t COMPREPLY < <(compgen -W "$candidates" -- "$current") ;;
  esac
}
complete -F ${name} ${program.name()}
`;
    case 'zsh':
      return `#compdef ${program.name()}
# Completion of ${program.name()} for zsh: source <(${program.name()} completion zsh), after compinit
${common}
${name}() {
  local candidates
  if [[ $PREFIX == --*=* ]]; then
    candidates=$(${name}_candidates "\${(@)words[2,CURRENT-1]}" "\${PREFIX%%=*}")
    compset -P '*='
  else
    candidates=$(${name}_candidates "\${(@)words[2,CURRENT-1]}")
  fi
  case $candidates in
    ${FILES}) _files ;;
    ${DIRECTORIES}) _files -/ ;;
    *) compadd -- \${=candidates} ;;
  esac
}
compdef ${name} ${program.name()}
`;
  }
}
