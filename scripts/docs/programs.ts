/** The command lines that the documents speak of, as trees that run nothing. */
import type { Command } from 'commander';
import * as agent from '../../plugin/src/agent/command-line.ts';
import { createProgram } from '../../plugin/src/cli/command-tree.ts';
import { EXIT_MEANINGS } from '../../plugin/src/cli/exit.ts';

const nothing = (): void => undefined;

/** `xmasq`. */
export function xmasqProgram(): Command {
  return createProgram({ out: nothing, error: nothing }, () => Promise.resolve());
}

/** `xmasq-agent`. */
export function agentProgram(): Command {
  const program = agent.createAgentProgram({
    run: nothing,
    cleanup: nothing,
    certificates: nothing,
    uninstall: nothing,
    version: nothing,
  });
  const silent = { writeOut: nothing, writeErr: nothing };
  for (const command of [program, ...program.commands]) command.configureOutput(silent);
  return program;
}

/** Both, with what their exit codes mean. */
export const PROGRAMS = [
  { program: xmasqProgram(), exitCodes: EXIT_MEANINGS },
  { program: agentProgram(), exitCodes: agent.EXIT_MEANINGS },
] as const;
