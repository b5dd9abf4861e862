import { CommanderError, type Command } from 'commander';
import { errorMessage } from '../util/errors.ts';
import { createProgram, type Messages } from './command-tree.ts';
import { createContext, type CommandSpec, type GlobalOptions } from './context.ts';
import { CliError, ExitCode } from './exit.ts';
import type { Io } from './io.ts';

/**
 * Runs one command line.
 * @param args without the names of interpreter and program
 * @returns the exit code; never throws
 */
export async function runProgram(args: readonly string[], io: Io, messages: Messages): Promise<ExitCode> {
  let exitCode: ExitCode = ExitCode.OK;
  const program = createProgram(messages, async <Options>(spec: CommandSpec<Options>, command: Command) => {
    const context = createContext(io, program.opts<Partial<GlobalOptions>>());
    exitCode = await spec.run(context, command.opts() as Options, command.args);
  });
  try {
    await program.parseAsync(args, { from: 'user' });
    return exitCode;
  } catch (error) {
    // Commander has printed its message already; its code is 0 for help and version.
    if (error instanceof CommanderError) return error.exitCode === 0 ? ExitCode.OK : ExitCode.USAGE;
    // Output that nobody reads any more is no error.
    if (io.stopped.aborted && !(error instanceof CliError)) return ExitCode.OK;
    messages.error(`xmasq: ${errorMessage(error)}\n`);
    return error instanceof CliError ? error.exitCode : ExitCode.ERROR;
  }
}
