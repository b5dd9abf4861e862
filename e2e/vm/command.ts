/** Running host commands for the runner's own set-up. */
import { execFile } from 'node:child_process';

/** How to run a host command. */
export interface HostCommandOptions {
  /** Working directory. */
  readonly cwd?: string;
  /** Milliseconds after which the command is killed; 120 s by default. */
  readonly timeoutMs?: number;
  /** Written to the command's standard input. */
  readonly stdin?: string;
}

/** Output of at most this many bytes is taken (the largest user decompresses one kernel module). */
const MAX_OUTPUT = 64 * 1024 * 1024;

/**
 * Runs a program of the host without a shell and returns its standard output.
 * @throws Error with the command line and the end of its standard error, when it cannot start, fails or takes too long.
 */
export async function hostCommand(
  program: string,
  args: readonly string[],
  options: HostCommandOptions = {},
): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const child = execFile(
      program,
      [...args],
      {
        encoding: 'buffer',
        env: { ...process.env, LC_ALL: 'C' },
        maxBuffer: MAX_OUTPUT,
        timeout: options.timeoutMs ?? 120_000,
        killSignal: 'SIGKILL',
        ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
      },
      (error, stdout, stderr) => {
        if (error === null) {
          resolve(stdout);
          return;
        }
        const detail = error.code === 'ENOENT' ? 'the program is not installed' : stderr.toString().trim().slice(-2000);
        reject(new Error(`${[program, ...args].join(' ')}: ${detail || error.message}`, { cause: error }));
      },
    );
    // A program that ends without reading its input is judged by its exit code, not by the broken pipe.
    child.stdin?.on('error', () => undefined);
    child.stdin?.end(options.stdin ?? '');
  });
}
