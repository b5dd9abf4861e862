import { xmasq } from '../../gen/xmasq.js';
import { PATH_CLASSES } from '../../grpc/convert.ts';
import { reasonName } from '../../grpc/reasons.ts';
import { withClient, type CommandSpec } from '../context.ts';
import { ExitCode } from '../exit.ts';
import { print } from '../output.ts';
import { renderTable } from '../table.ts';
import { duration } from '../text.ts';
import { enumWord, yesNo } from '../words.ts';

const v1 = xmasq.v1;

export const peersCommand: CommandSpec<object> = {
  name: 'peers',
  declare: (command) => command.description('The other nodes, and how packets to their pods go.'),
  run: (context) =>
    withClient(context, async (client) => {
      const message = await client.call('peers', new v1.PeersRequest());
      await print(context.io, context.output, { type: v1.PeersResponse, message, table: peersTable });
      return ExitCode.OK;
    }),
};

/** How many there are. */
const CLASSES = Object.keys(PATH_CLASSES).length;

/** A line of the table: classes of one family that go the same way are one. */
interface Way {
  readonly family: string;
  readonly classes: readonly string[];
  readonly paths: readonly xmasq.v1.Path.$Properties[];
}

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
      { name: 'FAMILY' },
      { name: 'CLASS' },
      { name: 'MODE' },
      { name: 'BECAUSE' },
      { name: 'PROVEN', right: true },
      { name: 'CHANGES', right: true },
    ],
    // Whatever is common to a peer's lines is on each, so that they can be searched and sorted.
    peers.flatMap((peer) => waysOf(peer).map((way) => [...peerColumns(peer), ...wayColumns(way)])),
  );
}

function peerColumns(peer: xmasq.v1.Peer.$Properties): string[] {
  return [
    peer.nodeName ?? '',
    (peer.addresses ?? []).join(','),
    (peer.podCidrs ?? []).join(','),
    peer.capable === true ? `v${peer.protocolVersion ?? 0}` : 'no',
    yesNo(peer.alive),
    peer.lastLifeMs == null ? '' : duration(peer.lastLifeMs),
    String(peer.flows ?? 0),
  ];
}

function waysOf({ paths }: xmasq.v1.Peer.$Properties): Way[] {
  const ways = new Map<string, Way>();
  for (const path of paths ?? []) {
    const family = `IPv${path.family ?? 0}`;
    const key = [family, path.mode ?? 0, path.reason ?? 0].join();
    const before = ways.get(key) ?? { family, classes: [], paths: [] };
    const name = enumWord(v1.PathClass, 'PATH_CLASS_', path.pathClass ?? 0);
    ways.set(key, { family, classes: [...before.classes, name], paths: [...before.paths, path] });
  }
  return ways.size === 0 ? [{ family: '', classes: [], paths: [] }] : [...ways.values()];
}

function wayColumns({ family, classes, paths }: Way): string[] {
  const [path] = paths;
  const reason = path?.reason ?? 0;
  const proven = paths.flatMap(({ provenMs }) => provenMs ?? []);
  return [
    family,
    classes.length === CLASSES ? 'all' : classes.join(','),
    path === undefined ? '' : enumWord(v1.TransmitMode, 'TRANSMIT_MODE_', path.mode ?? 0),
    reason === 0 ? '' : reasonName(reason),
    proven.length === 0 ? '' : duration(Math.min(...proven)),
    path === undefined ? '' : String(paths.reduce((sum, { changes }) => sum + (changes ?? 0), 0)),
  ];
}
