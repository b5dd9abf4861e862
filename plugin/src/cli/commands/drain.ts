import { xmasq } from '../../gen/xmasq.js';
import type { AdminClient } from '../client.ts';
import { withClient, type CommandSpec } from '../context.ts';
import { CliError, ExitCode, TimeoutError, usageError } from '../exit.ts';
import { print } from '../output.ts';
import { duration } from '../text.ts';
import { enumWord } from '../words.ts';

const v1 = xmasq.v1;

/** Longer than a drain takes: the interpreting time of 30 s and a margin. */
const WAIT_TIMEOUT_S = 120;

interface DrainOptions {
  readonly wait?: boolean;
  readonly undo?: boolean;
}

export const drainCommand: CommandSpec<DrainOptions> = {
  name: 'drain',
  declare: (command) =>
    command
      .description('Stop accelerating without losing a packet, e.g. before an uninstall. Takes about 32 seconds.')
      .option('-w, --wait', `come back when drained (default --timeout: ${WAIT_TIMEOUT_S})`)
      .option('--undo', 'accelerate again'),
  run: async (context, { wait = false, undo = false }) => {
    if (wait && undo) throw usageError('--undo needs no --wait: it takes effect at once');
    return withClient(
      context,
      async (client) => {
        const message = undo ? await client.call('undrain', new v1.UndrainRequest()) : await drain(client, wait);
        await print(context.io, context.output, { type: v1.DrainResponse, message, table: drainText });
        return ExitCode.OK;
      },
      wait ? WAIT_TIMEOUT_S : undefined,
    );
  },
};

async function drain(client: AdminClient, wait: boolean): Promise<xmasq.v1.DrainResponse> {
  try {
    return await client.call('drain', new v1.DrainRequest({ wait }));
  } catch (error) {
    if (!wait || !(error instanceof TimeoutError)) throw error;
    throw new CliError(ExitCode.ERROR, 'not drained in time; the drain goes on (see xmasq status, or --timeout)');
  }
}

function drainText({ state, remainingMs }: xmasq.v1.DrainResponse): string {
  const word = enumWord(v1.NodeState, 'NODE_STATE_', state);
  return remainingMs > 0 ? `${word}, drained in ${duration(remainingMs)}\n` : `${word}\n`;
}
