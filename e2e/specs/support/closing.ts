/** What the end of a connection looks like: in conntrack, in the flow tables, in the pods and on the underlay. */
import type { ConntrackEntry } from '../../lab/conntrack.ts';
import { ANTREA, LabError, eventually } from '../../lab/lab.ts';
import type { Lab, Pod } from '../../lab/lab.ts';
import type { LabSidecars } from '../../lab/sidecar.ts';
import type { CaptureResult } from '../../lab/pcap.ts';
import { TCP, crossings } from './wire.ts';
import type { Crossing } from './wire.ts';

/** pcap filter for what ends a connection. */
export const FIN_OR_RST = 'tcp[tcpflags] & (tcp-fin | tcp-rst) != 0';

/** Client and server of a connection between two nodes. */
export interface PodPair {
  readonly from: Pod;
  readonly to: Pod;
}

/** What was seen of a connection's end. */
export interface CloseReport {
  /** `FIN client`, `RST server`, ...: what passed by in the client's pod, by sender; sorted. */
  readonly client: string[];
  /** The same in the server's pod. */
  readonly server: string[];
  /** Packets of the connection on the underlay. */
  readonly wire: Crossing[];
}

/** The connection's entry in Antrea's zone on every node, in their order; undefined where there is none. */
export function entries(lab: Lab, port: number): Promise<(ConntrackEntry | undefined)[]> {
  return Promise.all(
    lab.nodes.map(async (node) => (await node.conntrack.list({ zone: ANTREA.zone, proto: 'tcp', dport: port }))[0]),
  );
}

/** Waits until both nodes' conntrack is in one of these states. */
export async function waitForState(lab: Lab, port: number, states: readonly string[]): Promise<void> {
  await eventually(`${states.join(' or ')} on both nodes`, async () =>
    (await entries(lab, port)).every((entry) => states.includes(entry?.state ?? '')),
  );
}

/** Waits until no node has the connection in its flow table. */
export async function flowsGone(sidecars: LabSidecars, port: number, timeoutMs = 2000): Promise<void> {
  for (const sidecar of sidecars.nodes) {
    await eventually(
      `no flow of port ${port} on ${sidecar.node.name}`,
      async () => (await sidecar.flows({ port })).every(({ admitted }) => !admitted),
      timeoutMs,
    );
  }
}

/**
 * Captures FIN and RST in both pods, and the connection on the underlay: all of it, or with `closingOnly` what is in the
 * tunnel and, of the rest, FIN and RST. The result ends the captures.
 */
export async function watchClose(
  { from, to }: PodPair,
  port: number,
  options: { readonly closingOnly?: boolean } = {},
): Promise<() => Promise<CloseReport>> {
  const closing = `tcp port ${port} and ${FIN_OR_RST}`;
  const masqueraded = options.closingOnly === true ? `(${closing})` : `tcp port ${port}`;
  const clientCapture = await from.capture({ filter: closing });
  const serverCapture = await to.capture({ filter: closing });
  const wireCapture = await from.node.capture({ filter: `${masqueraded} or udp port ${from.node.tunnel.port}` });
  return async () => {
    const [client, server, wire] = [await clientCapture.stop(), await serverCapture.stop(), await wireCapture.stop()];
    for (const { dropped } of [client, server, wire]) {
      if (dropped !== 0) throw new LabError(`a capture of port ${port} lost ${dropped} packets`);
    }
    return {
      client: closingOf(client, from),
      server: closingOf(server, from),
      wire: crossings(wire, { from, to, proto: 'tcp', port }),
    };
  };
}

/** How packets with one of these flags crossed the underlay. */
export function pathsOf(wire: readonly Crossing[], flags: number): Set<string> {
  return new Set(wire.filter(({ l4 }) => ((l4?.flags ?? 0) & flags) !== 0).map(({ path }) => path));
}

function closingOf({ packets }: CaptureResult, client: Pod): string[] {
  const names = packets.map(({ ip, l4 }) => {
    const what = ((l4?.flags ?? 0) & TCP.rst) === 0 ? 'FIN' : 'RST';
    return `${what} ${ip?.src === client.address ? 'client' : 'server'}`;
  });
  return [...new Set(names)].sort();
}
