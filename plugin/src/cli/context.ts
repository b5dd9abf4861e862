import type { Command } from 'commander';
import { AdminClient } from './client.ts';
import { CliError, ExitCode } from './exit.ts';
import type { Io } from './io.ts';
import type { OutputFormat } from './output.ts';

export const DEFAULT_SOCKET = '/run/xmasq/xmasq.sock';
export const DEFAULT_TIMEOUT_S = 10;

/** Options that every command takes. */
export interface GlobalOptions {
  readonly output: OutputFormat;
  readonly socket: string;
  /** Seconds; undefined: not given. */
  readonly timeout: number | undefined;
}

/** What a command works with. */
export interface Context extends GlobalOptions {
  readonly io: Io;
  /** The socket that an option or the environment names; undefined: `socket` is the default. */
  readonly givenSocket: string | undefined;
  /** @throws CliError UNREACHABLE */
  connect(defaultTimeoutS?: number): Promise<AdminClient>;
}

/** One command: what it is called and what it takes, and what it does. */
export interface CommandSpec<Options> {
  /** Declares name, options and help. */
  declare(command: Command): Command;
  /** Name, as on the command line. */
  readonly name: string;
  /** @param args words of the command line that are no options @throws CliError */
  run(context: Context, options: Options, args: readonly string[]): Promise<ExitCode>;
}

/** A context for the global options as parsed. */
export function createContext(io: Io, options: Partial<GlobalOptions>): Context {
  const givenSocket = options.socket ?? (io.env.XMASQ_SOCKET || undefined);
  const socket = givenSocket ?? DEFAULT_SOCKET;
  const { output = 'table', timeout } = options;
  return {
    io,
    givenSocket,
    output,
    socket,
    timeout,
    connect: (defaultTimeoutS = DEFAULT_TIMEOUT_S) =>
      AdminClient.connect({ socket, timeoutMs: (timeout ?? defaultTimeoutS) * 1000, stopped: io.stopped }),
  };
}

/** Runs with a connection, and closes it whatever happens. @throws CliError */
export async function withClient<T>(
  context: Context,
  use: (client: AdminClient) => Promise<T>,
  defaultTimeoutS?: number,
): Promise<T> {
  const client = await context.connect(defaultTimeoutS);
  try {
    return await use(client);
  } finally {
    client.close();
  }
}

/**
 * Runs a command that goes on until it is interrupted: that is its regular end, whatever it was waiting for.
 * @throws CliError
 */
export async function untilStopped(io: Io, run: () => Promise<ExitCode>): Promise<ExitCode> {
  try {
    return await run();
  } catch (error) {
    // Where nobody reads the output any more, a call is cancelled just the same.
    if (io.stopped.aborted && (error instanceof CliError || isAbortError(error))) return ExitCode.OK;
    throw error;
  }
}

function isAbortError(error: unknown): boolean {
  return error instanceof Error && error.name === 'AbortError';
}
