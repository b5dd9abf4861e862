/** Exit codes of `xmasq`. Scripts rely on them: nothing else is ever returned. */
export const ExitCode = {
  OK: 0,
  ERROR: 1,
  USAGE: 2,
  UNREACHABLE: 3,
  DEGRADED: 4,
} as const;

export type ExitCode = (typeof ExitCode)[keyof typeof ExitCode];

/** What each means, for help and docs/cli.md. */
export const EXIT_MEANINGS: Readonly<Record<ExitCode, string>> = {
  [ExitCode.OK]: 'ok',
  [ExitCode.ERROR]: 'error, e.g. no such pod',
  [ExitCode.USAGE]: 'wrong usage, also a request that the sidecar finds invalid',
  [ExitCode.UNREACHABLE]: 'the sidecar cannot be reached, or does not answer; the message says which',
  [ExitCode.DEGRADED]: 'status: it was answered, and something is degraded; doctor: a check has failed',
};

/** Ends the command with a message on standard error. */
export class CliError extends Error {
  override readonly name: string = 'CliError';
  readonly exitCode: ExitCode;

  constructor(exitCode: ExitCode, message: string) {
    super(message);
    this.exitCode = exitCode;
  }
}

/** The command line is wrong. */
export function usageError(message: string): CliError {
  return new CliError(ExitCode.USAGE, message);
}

/** The sidecar took the request, but the answer did not come in time. */
export class TimeoutError extends CliError {
  override readonly name = 'TimeoutError';

  constructor(message: string) {
    super(ExitCode.UNREACHABLE, message);
  }
}
