/** What the command line takes: the tree of commands, options and help. Nothing is run here. */
import { Command, Option } from 'commander';
import { secondsArgument } from './arguments.ts';
import { completionCommand } from './commands/completion.ts';
import { doctorCommand } from './commands/doctor.ts';
import { drainCommand } from './commands/drain.ts';
import { endpointsCommand } from './commands/endpoints.ts';
import { flowsCommand } from './commands/flows.ts';
import { flushCommand } from './commands/flush.ts';
import { peersCommand } from './commands/peers.ts';
import { statusCommand } from './commands/status.ts';
import { supportBundleCommand } from './commands/support-bundle.ts';
import { topCommand } from './commands/top.ts';
import { traceCommand } from './commands/trace.ts';
import { versionCommand } from './commands/version.ts';
import { DEFAULT_SOCKET, type CommandSpec } from './context.ts';
import { EXIT_MEANINGS } from './exit.ts';
import { OUTPUT_FORMATS } from './output.ts';
import { VERSION } from './version.ts';

const EXIT_CODES = Object.entries(EXIT_MEANINGS)
  .map(([code, meaning]) => `  ${code}  ${meaning}\n`)
  .join('');

/** Output of the tree itself. */
export interface Messages {
  /** Help that was asked for. */
  out(text: string): void;
  error(text: string): void;
}

/** Runs a command whose options have been parsed. @param command `opts()` are those that the spec declares */
export type CommandRunner = <Options>(spec: CommandSpec<Options>, command: Command) => Promise<void>;

/**
 * The program `xmasq`. Parsing a command line calls `run` for its command, or throws CommanderError after help, version and
 * every mistake.
 */
export function createProgram(messages: Messages, run: CommandRunner): Command {
  const program = new Command('xmasq')
    .description("XMasq's view of this node: asks the sidecar over its Unix socket.")
    .version(VERSION, '-V, --version', 'version of this command')
    .addOption(new Option('-o, --output <format>', 'how to print (default: table)').choices(OUTPUT_FORMATS))
    .option('--socket <path>', `socket of the sidecar (default: ${DEFAULT_SOCKET}, or environment XMASQ_SOCKET)`)
    .option('--timeout <seconds>', 'for an answer (default: 10)', secondsArgument(0.1, 3600))
    .configureHelp({ showGlobalOptions: true })
    .configureOutput({ writeOut: (text) => messages.out(text), writeErr: (text) => messages.error(text) })
    .addHelpText('after', `\nExit codes:\n${EXIT_CODES}`)
    .showHelpAfterError('(see --help)')
    .exitOverride();

  function add<Options>(spec: CommandSpec<Options>): void {
    // The command is the last argument: how many come before it depends on what it takes.
    spec.declare(program.command(spec.name)).action((...received: unknown[]) => run(spec, received.at(-1) as Command));
  }
  add(statusCommand);
  add(peersCommand);
  add(endpointsCommand);
  add(flowsCommand);
  add(topCommand);
  add(traceCommand);
  add(flushCommand);
  add(drainCommand);
  add(versionCommand);
  add(doctorCommand);
  add(supportBundleCommand);
  add(completionCommand(program));
  return program;
}
