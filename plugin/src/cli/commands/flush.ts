import { xmasq } from '../../gen/xmasq.js';
import { onePodArgument, type PodArgument } from '../arguments.ts';
import { withClient, type CommandSpec } from '../context.ts';
import { ExitCode, usageError } from '../exit.ts';
import { print } from '../output.ts';

const v1 = xmasq.v1;

interface FlushOptions {
  readonly all?: boolean;
  readonly pod?: PodArgument & { readonly namespace: string };
  readonly peer?: string;
}

export const flushCommand: CommandSpec<FlushOptions> = {
  name: 'flush',
  declare: (command) =>
    command
      .description('Forget flows: they go on the slow path, and become fast again by themselves. Breaks no connection.')
      .option('--all', 'every flow of this node')
      .option('--pod <namespace/name>', 'flows of one pod of this node', onePodArgument)
      .option('--peer <node>', 'flows with one other node'),
  run: (context, options) => {
    const request = toRequest(options);
    return withClient(context, async (client) => {
      const message = await client.call('flush', request);
      await print(context.io, context.output, {
        type: v1.FlushResponse,
        message,
        table: ({ flows, slots }) => `flushed ${flows} flows and ${slots} restore slots\n`,
      });
      return ExitCode.OK;
    });
  },
};

/** @throws CliError USAGE */
function toRequest({ all, pod, peer }: FlushOptions): xmasq.v1.FlushRequest {
  const given = [all === true, pod !== undefined, peer !== undefined].filter(Boolean).length;
  if (given !== 1) throw usageError('flush takes exactly one of --all, --pod <namespace/name>, --peer <node>');
  if (pod !== undefined) return new v1.FlushRequest({ pod });
  return peer !== undefined ? new v1.FlushRequest({ peer }) : new v1.FlushRequest({ all: true });
}
