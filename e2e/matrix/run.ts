/** Runs the traffic of a set-up's cells in a lab and says what the pods saw, and which path it took. */
import { LabError, OFFLOADS_OFF, OFFLOADS_ON, addressOf, sleep } from '../lab/lab.ts';
import type { ClusterIpService, Family, Lab, Node, OffloadFlags, Place, Pod } from '../lab/lab.ts';
import { freshPort, withServer } from '../lab/measure.ts';
import { network } from '../lab/packet.ts';
import type { CaptureResult, CapturedPacket } from '../lab/pcap.ts';
import { EMULATED, stretched } from '../lab/scale.ts';
import type { LabSidecars, SidecarFlow } from '../lab/sidecar.ts';
import { carriages } from '../specs/support/carriage.ts';
import { protocolNumber } from '../specs/support/delivery.ts';
import { isSameNode, isService } from './cells.ts';
import type { Cell, Offloads, Protocol, Target } from './cells.ts';
import { viewOf } from './view.ts';
import type { View } from './view.ts';

const FLAGS: Readonly<Record<Offloads, OffloadFlags>> = {
  on: OFFLOADS_ON,
  off: OFFLOADS_OFF,
};
const VIP: Readonly<Record<Family, string>> = { ipv4: '10.96.0.20', ipv6: 'fd96::20' };
/** How much a connection sends each second and way: bytes of a TCP stream and of each write, datagrams, pings. */
const PACE = EMULATED
  ? { bytes: 20_000, write: 4096, datagrams: 20, pings: 8 }
  : { bytes: 200_000, write: 16_384, datagrams: 100, pings: 32 };
/** Between two looks at the list of flows. */
const LOOK_MS = 400;

/** A cell's connection: who talks to whom, by which ports. */
export interface Connection {
  readonly cell: Cell;
  readonly client: Pod;
  readonly server: Pod;
  /** Where the client connects to. */
  readonly to: { readonly address: string; readonly port: number };
  /** What the server listens on; for ICMP the identifier, as all ports. */
  readonly port: number;
  readonly sport: number;
}

/** What came of one cell. */
export interface CellResult {
  readonly cell: Cell;
  readonly forward: View;
  readonly backward: View;
  /** The tools' own opinion: nothing lost, nothing corrupt; otherwise what they say. */
  readonly problem: string;
  /** As the client's node says; undefined: it has no such flow, or nobody was asked. */
  readonly flow: SidecarFlow | undefined;
  /** Between two looks towards its end the client's node sent only fast (SCTP's control apart). Undefined: nobody was asked. */
  readonly fast: boolean | undefined;
  /** How packets of the connection crossed the underlay, and how many, from the client and to it. */
  readonly wire: Readonly<Record<'masqueraded' | 'tunnel' | 'plain', readonly [number, number]>>;
  /** How many came to the client's node, as it first sees them, as its pod gets them: restored in XDP, or routed. */
  readonly unchanged: number;
}

/**
 * Switches the offloads of all devices. With XDP, uplinks write checksums in any case: their other end, a veth device, never
 * looks at those that are left out.
 */
export async function setOffloads(lab: Lab, offloads: Offloads, xdp = false): Promise<void> {
  await lab.offload(FLAGS[offloads]);
  if (xdp) await Promise.all(lab.nodes.map((node) => node.offload({ tx: false, tso: false })));
}

function podsOf(lab: Lab, target: Target): readonly [client: Pod, server: Pod] {
  return [lab.node(0).pod(0), isSameNode(target) ? lab.node(0).pod(1) : lab.node(1).pod(0)];
}

let serial = 0;

function connectionOf(lab: Lab, cell: Cell): Connection {
  const [client, server] = podsOf(lab, cell.target);
  serial += 1;
  const port = cell.protocol === 'icmp' ? 6000 + serial : freshPort();
  const sport = cell.protocol === 'icmp' ? port : 10_000 + serial;
  const to = isService(cell.target)
    ? { address: VIP[cell.family], port: freshPort() }
    : { address: addressOf(server, cell.family), port };
  return { cell, client, server, to, port, sport };
}

function serviceOf({ cell, server, to, port }: Connection): ClusterIpService[] {
  const { protocol, target, family } = cell;
  if (!isService(target) || protocol === 'icmp') return [];
  const endpoints = [{ address: addressOf(server, family), port }];
  return [{ clusterIp: to.address, protocol, port: to.port, endpoints }];
}

/** Runs a connection for so many seconds. Resolves with what is wrong, or an empty text. */
async function talk(lab: Lab, connection: Connection, seconds: number): Promise<string> {
  const { cell, client, server, to, port, sport } = connection;
  const { protocol, family } = cell;
  if (protocol === 'icmp') return pings(client, to.address, port, seconds);
  const [here, there] = [addressOf(client, family), addressOf(server, family)];
  const tool = lab.tool(protocol === 'sctp' ? 'sctp' : 'stream');
  const kind = protocol === 'sctp' ? [] : [`--${protocol}`];
  const serving = [tool, 'server', ...kind, '--port', String(port), '--bind', there];
  return withServer(server, serving, async () => {
    const ends = ['--to', to.address, '--port', String(to.port), '--bind', here, '--sport', String(sport)];
    const argv = [tool, 'client', ...kind, ...ends, ...much(protocol, seconds)];
    const { stdout, stderr } = await client.exec(argv, { timeoutMs: stretched(seconds * 1000 + 25_000), check: false });
    const line = stdout.split('\n').findLast((candidate) => candidate.startsWith('{'));
    const report = JSON.parse(line ?? '{}') as Record<string, unknown>;
    return wholly(protocol, report) ? '' : `${stdout}${stderr}`.slice(-600);
  });
}

function much(protocol: Exclude<Protocol, 'icmp'>, seconds: number): string[] {
  switch (protocol) {
    case 'tcp': {
      const size = String(Math.round(seconds * PACE.bytes));
      const pace = ['--rate', String(PACE.bytes), '--send-size', String(PACE.write)];
      return ['--up', size, '--down', size, ...pace, '--tos', '0x28'];
    }
    case 'udp': {
      const pace = ['--rate', String(PACE.datagrams), '--seconds', String(seconds)];
      return ['--reply', ...pace, '--size', '333', '--tos', '0xb9'];
    }
    case 'sctp':
      return ['--count', String(Math.round(seconds * 25)), '--interval-ms', '30', '--size', '2000'];
  }
}

function wholly(protocol: Protocol, report: Record<string, unknown>): boolean {
  const side = (name: string): Record<string, unknown> => (report[name] ?? {}) as Record<string, unknown>;
  switch (protocol) {
    case 'tcp':
      return report['complete'] === true && report['corrupt'] === 0 && report['peerCorrupt'] === 0;
    case 'udp':
      return ['peer', 'echo'].every((name) => side(name)['lost'] === 0 && side(name)['corrupt'] === 0);
    default:
      return report['corrupt'] === 0 && report['error'] === '' && report['sent'] === report['received'];
  }
}

async function pings(client: Pod, address: string, id: number, seconds: number): Promise<string> {
  const count = Math.round(seconds * PACE.pings);
  const pace = ['-c', String(count), '-i', String(1 / PACE.pings)];
  const argv = ['ping', '-n', '-q', '-e', String(id), ...pace, '-W', '2', '-Q', '0x40'];
  const { stdout, stderr } = await client.exec([...argv, address], {
    timeoutMs: stretched(seconds * 1000 + 20_000),
    check: false,
  });
  return new RegExp(` ${count} received`).test(stdout) ? '' : `${stdout}${stderr}`.slice(-600);
}

/**
 * Runs all cells at once, but SCTP's one after the other (two user space stacks in one pod abort each other's associations), and
 * the others two at a time where emulation has to carry them.
 * @param sidecars they are asked for the path when a connection is in its last second; undefined: they do not run
 */
export async function runCells(
  lab: Lab,
  cells: readonly Cell[],
  seconds: Readonly<Record<Protocol, number>>,
  sidecars?: LabSidecars,
): Promise<CellResult[]> {
  const connections = cells.map((cell) => connectionOf(lab, cell));
  const services = connections.flatMap(serviceOf);
  await Promise.all(lab.nodes.map((node) => node.setServices(services)));
  const pods = [...new Set(connections.flatMap(({ client, server }) => [client, server]))];
  const places: readonly Place[] = [lab.node(0), ...pods];
  const captures = await Promise.all(places.map((place) => place.capture()));
  const run = async (connection: Connection): Promise<Spoken> => {
    const length = seconds[connection.cell.protocol];
    let ended = false;
    const talking = talk(lab, connection, length).finally(() => (ended = true));
    const looking = sidecars && look(sidecars, connection, length * 1000 - stretched(LOOK_MS * 3), () => ended);
    const [problem, looked] = await Promise.all([talking, looking]);
    return { problem, ...looked };
  };
  const inTurn = async (some: readonly Connection[]): Promise<Map<Connection, Spoken>> => {
    const spoken = new Map<Connection, Spoken>();
    for (const connection of some) spoken.set(connection, await run(connection));
    return spoken;
  };
  const single = connections.filter(({ cell }) => cell.protocol === 'sctp');
  const others = connections.filter((connection) => !single.includes(connection));
  const width = EMULATED ? 2 : others.length;
  const rows = Array.from({ length: width }, (_, row) => others.filter((_other, i) => i % width === row));
  const spoken = await Promise.all([single, ...rows].map(inTurn));
  const results = await Promise.all(captures.map((capture) => capture.stop()));
  for (const [i, { dropped }] of results.entries()) {
    if (dropped > 0) throw new LabError(`the capture at ${places[i]?.name ?? ''} lost ${dropped} packets`);
  }
  const seen = new Map(places.map((place, i) => [place, results[i] ?? { packets: [], dropped: 0 }]));
  return connections.map((connection) => {
    const { problem = 'did not run', flow, fast } = spoken.find((map) => map.has(connection))?.get(connection) ?? {};
    return { ...judge(lab.node(0), connection, seen), problem, flow, fast };
  });
}

interface Spoken {
  readonly problem?: string;
  readonly flow?: SidecarFlow | undefined;
  readonly fast?: boolean;
}

/**
 * What the client's node says of the connection from then on until it ends, and whether all of it was fast between two looks:
 * a busy machine has late ones, of which the last sees the end.
 */
async function look(
  sidecars: LabSidecars,
  { cell, sport }: Connection,
  afterMs: number,
  ended: () => boolean,
): Promise<{ readonly flow: SidecarFlow | undefined; readonly fast: boolean }> {
  const find = async (): Promise<SidecarFlow | undefined> => {
    const flows = await sidecars.node(0).flows({ proto: protocolNumber(cell.protocol, cell.family) });
    return flows.find((flow) =>
      cell.protocol === 'icmp' ? flow.icmpId === sport && isRequest(flow) : flow.sourcePort === sport,
    );
  };
  await sleep(afterMs);
  let seen = await find();
  while (!ended()) {
    await sleep(stretched(LOOK_MS));
    const flow = await find();
    const sent = (flow?.txPackets ?? 0) - (seen?.txPackets ?? 0);
    const slow = (flow?.slowPackets ?? 0) - (seen?.slowPackets ?? 0);
    if (flow?.path === 'fast' && sent >= 5 && (cell.protocol === 'sctp' || slow === 0)) return { flow, fast: true };
    if (flow !== undefined && !ended()) seen = flow;
  }
  return { flow: seen, fast: false };
}

const ECHO_REQUESTS: readonly unknown[] = [8, 128];

function isRequest({ icmpType }: SidecarFlow): boolean {
  return ECHO_REQUESTS.includes(icmpType);
}

function judge(
  first: Node,
  connection: Connection,
  seen: ReadonlyMap<Place, CaptureResult>,
): Pick<CellResult, 'cell' | 'forward' | 'backward' | 'wire' | 'unchanged'> {
  const { cell, client, server, to, port, sport } = connection;
  const names = new Map([
    [to.port, 'service'],
    [port, 'server'],
  ]);
  const at = (place: Place): readonly CapturedPacket[] => seen.get(place)?.packets ?? [];
  const of = (packets: readonly CapturedPacket[], forward: boolean): CapturedPacket[] =>
    packets.filter((packet) => isOf(connection, packet, forward));
  const comparison = {
    ...{ clientPort: sport, names, translated: isService(cell.target), offloads: cell.offloads === 'on' },
    whole: cell.protocol === 'tcp' && cell.offloads === 'on',
  };
  const view = (from: Pod, pod: Pod, forward: boolean): View =>
    viewOf({ sent: of(at(from), forward), received: of(at(pod), forward), ...comparison });
  const { protocol: proto, family } = cell;
  const crossed = carriages(seen.get(first) ?? { packets: [], dropped: 0 }, {
    ...{ from: client, to: server, proto, port, family },
    ...(proto === 'icmp' ? {} : { sport }),
  });
  const count = (how: 'masqueraded' | 'tunnel' | 'plain'): readonly [number, number] => {
    const those = crossed.filter((each) => each.how === how);
    const forward = those.filter((each) => each.forward).length;
    return [forward, those.length - forward];
  };
  return {
    cell,
    forward: view(client, server, true),
    backward: view(server, client, false),
    wire: { masqueraded: count('masqueraded'), tunnel: count('tunnel'), plain: count('plain') },
    unchanged: of(at(first), false).filter((packet) => network(packet)?.dst === addressOf(client, family)).length,
  };
}

/** Is it a packet of the connection in this direction, as one of its pods sees it? Client ports are not used twice. */
function isOf({ cell, sport }: Connection, packet: CapturedPacket, forward: boolean): boolean {
  const { protocol, family } = cell;
  const { l4 } = packet;
  if (l4 === undefined || network(packet)?.proto !== protocolNumber(protocol, family)) return false;
  if (protocol !== 'icmp') return (forward ? l4.sport : l4.dport) === sport;
  return l4.sport === sport && ECHO_REQUESTS.includes(l4.icmpType) === forward;
}
