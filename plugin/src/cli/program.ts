import { Command, CommanderError, Option } from 'commander';
import { errorMessage } from '../util/errors.ts';
import { secondsArgument } from './arguments.ts';
import { doctorCommand } from './commands/doctor.ts';
import { drainCommand } from './commands/drain.ts';
import { endpointsCommand } from './commands/endpoints.ts';
import { flowsCommand } from './commands/flows.ts';
import { flushCommand } from './commands/flush.ts';
import { peersCommand } from './commands/peers.ts';
import { statusCommand } from './commands/status.ts';
import { supportBundleCommand } from './commands/support-bundle.ts';
import { versionCommand } from './commands/version.ts';
import { DEFAULT_SOCKET, createContext, type CommandSpec, type GlobalOptions } from './context.ts';
import { CliError, ExitCode } from './exit.ts';
import type { Io } from './io.ts';
import { OUTPUT_FORMATS } from './output.ts';
import { VERSION } from './version.ts';

const EXIT_CODES = `
Exit codes:
  0  ok
  1  error
  2  wrong usage
  3  the sidecar cannot be reached, or does not answer
  4  status: something is degraded; doctor: a check has failed
`;

/** Output for people that is no result. */
export interface Messages {
  /** Help that was asked for. */
  out(text: string): void;
  error(text: string): void;
}

/**
 * Runs one command line.
 * @param args without the names of interpreter and program
 * @returns the exit code; never throws
 */
export async function runProgram(args: readonly string[], io: Io, messages: Messages): Promise<ExitCode> {
  let exitCode: ExitCode = ExitCode.OK;
  const program = new Command('xmasq')
    .description("XMasq's view of this node: asks the sidecar over its Unix socket.")
    .version(VERSION, '-V, --version', 'version of this command')
    .addOption(new Option('-o, --output <format>', 'how to print (default: table)').choices(OUTPUT_FORMATS))
    .option('--socket <path>', `socket of the sidecar (default: ${DEFAULT_SOCKET}, or environment XMASQ_SOCKET)`)
    .option('--timeout <seconds>', 'for an answer (default: 10)', secondsArgument(0.1, 3600))
    .configureHelp({ showGlobalOptions: true })
    .configureOutput({ writeOut: (text) => messages.out(text), writeErr: (text) => messages.error(text) })
    .addHelpText('after', EXIT_CODES)
    .showHelpAfterError('(see --help)')
    .exitOverride();

  function add<Options>(spec: CommandSpec<Options>): void {
    spec.declare(program.command(spec.name)).action(async (_options: unknown, command: Command) => {
      const context = createContext(io, program.opts<Partial<GlobalOptions>>());
      exitCode = await spec.run(context, command.opts() as Options);
    });
  }
  add(statusCommand);
  add(peersCommand);
  add(endpointsCommand);
  add(flowsCommand);
  add(flushCommand);
  add(drainCommand);
  add(versionCommand);
  add(doctorCommand);
  add(supportBundleCommand);

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
