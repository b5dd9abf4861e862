import { xmasq } from '../../gen/xmasq.js';
import { withClient, type CommandSpec } from '../context.ts';
import { ExitCode } from '../exit.ts';
import { print } from '../output.ts';
import { renderFields } from '../table.ts';
import { VERSION } from '../version.ts';

const v1 = xmasq.v1;

interface VersionOptions {
  readonly client?: boolean;
}

export const versionCommand: CommandSpec<VersionOptions> = {
  name: 'version',
  declare: (command) =>
    command
      .description('Versions of this command and of the sidecar; -o json|yaml prints what the sidecar says.')
      .option('--client', 'of this command only; does not ask the sidecar'),
  run: async (context, { client: clientOnly = false }) => {
    const { io, output } = context;
    if (clientOnly) {
      const message = new v1.VersionResponse({ version: VERSION });
      await print(io, output, { type: v1.VersionResponse, message, table: () => renderFields([['xmasq', VERSION]]) });
      return ExitCode.OK;
    }
    return withClient(context, async (client) => {
      const message = await client.call('version', new v1.VersionRequest());
      await print(io, output, { type: v1.VersionResponse, message, table: versionText });
      return ExitCode.OK;
    });
  },
};

function versionText(sidecar: xmasq.v1.VersionResponse): string {
  const commit = sidecar.commit === '' ? '' : `, commit ${sidecar.commit}`;
  return renderFields([
    ['xmasq', VERSION],
    ['sidecar', `${sidecar.version}${commit}`],
    ['protocol', String(sidecar.protocolVersion)],
    ['map layout', String(sidecar.layoutVersion)],
  ]);
}
