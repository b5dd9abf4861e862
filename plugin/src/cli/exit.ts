/** Exit codes of `xmasq`. Scripts rely on them: nothing else is ever returned. */
export const ExitCode = {
  OK: 0,
  ERROR: 1,
  USAGE: 2,
  UNREACHABLE: 3,
  DEGRADED: 4,
} as const;

export type ExitCode = (typeof ExitCode)[keyof typeof ExitCode];

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
