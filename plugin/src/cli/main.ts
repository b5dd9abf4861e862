import { once } from 'node:events';
import { errorCode, errorMessage } from '../util/errors.ts';
import { ExitCode } from './exit.ts';
import type { Io } from './io.ts';
import { runProgram } from './program.ts';

const stopped = new AbortController();
const output = { failed: false, unread: false };

for (const stream of [process.stdout, process.stderr]) {
  stream.on('error', (error) => {
    // A reader that goes away (`xmasq flows | head`) ends the command quietly; a full disk does not.
    if (errorCode(error) !== 'EPIPE' && !output.failed) {
      output.failed = true;
      process.stderr.write(`xmasq: cannot write the output: ${errorMessage(error)}\n`);
    }
    output.unread = true;
    stopped.abort();
  });
}
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => stopped.abort());

const io: Io = {
  terminal: process.stdout.isTTY,
  env: process.env,
  stopped: stopped.signal,
  out: async (text) => {
    // A command that was interrupted may still say what it found out.
    if (output.unread || process.stdout.write(text) || stopped.signal.aborted) return;
    await once(process.stdout, 'drain', { signal: stopped.signal });
  },
};

const exitCode = await runProgram(process.argv.slice(2), io, {
  out: (text) => process.stdout.write(text),
  error: (text) => process.stderr.write(text),
});
process.exitCode = output.failed ? ExitCode.ERROR : exitCode;
// Errors of standard output may come after the last write has returned.
process.on('exit', () => {
  if (output.failed) process.exitCode = ExitCode.ERROR;
});
