import { xmasq } from '../../gen/xmasq.js';
import { withClient, type CommandSpec } from '../context.ts';
import { ExitCode } from '../exit.ts';
import { print } from '../output.ts';
import { renderTable } from '../table.ts';
import { duration } from '../text.ts';
import { yesNo } from '../words.ts';

const v1 = xmasq.v1;

export const peersCommand: CommandSpec<object> = {
  name: 'peers',
  declare: (command) => command.description('The other nodes, and whether flows can be sent to them on the fast path.'),
  run: (context) =>
    withClient(context, async (client) => {
      const message = await client.call('peers', new v1.PeersRequest());
      await print(context.io, context.output, { type: v1.PeersResponse, message, table: peersTable });
      return ExitCode.OK;
    }),
};

function peersTable({ peers }: xmasq.v1.PeersResponse): string {
  return renderTable(
    [
      { name: 'NODE' },
      { name: 'ADDRESS' },
      { name: 'POD CIDRS' },
      { name: 'CAPABLE' },
      { name: 'ALIVE' },
      { name: 'LAST LIFE', right: true },
      { name: 'FLOWS', right: true },
    ],
    peers.map((peer) => [
      peer.nodeName ?? '',
      peer.address ?? '',
      (peer.podCidrs ?? []).join(','),
      peer.capable === true ? `v${peer.protocolVersion ?? 0}` : 'no',
      yesNo(peer.alive),
      peer.lastLifeMs == null ? '' : duration(peer.lastLifeMs),
      String(peer.flows ?? 0),
    ]),
  );
}
