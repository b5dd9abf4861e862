import { Argument, type Command } from 'commander';
import { SHELLS, completionScript, type Shell } from '../completion.ts';
import type { CommandSpec } from '../context.ts';
import { ExitCode } from '../exit.ts';

/** @param program the tree that is completed, this command included */
export function completionCommand(program: Command): CommandSpec<object> {
  return {
    name: 'completion',
    declare: (command) =>
      command
        .description('Print a script that completes this command in a shell: source <(xmasq completion bash).')
        .addArgument(new Argument('<shell>', 'the shell that reads it').choices(SHELLS)),
    run: async ({ io }, _options, [shell]) => {
      // One of these, or the command line was refused.
      await io.out(completionScript(program, shell as Shell));
      return ExitCode.OK;
    },
  };
}
