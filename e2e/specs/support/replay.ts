/** Old packets: a masqueraded packet of a flow, taken from the wire and sent again later. */
import { sleep } from '../../lab/lab.ts';
import type { Lab, Pod } from '../../lab/lab.ts';
import type { CapturedPacket } from '../../lab/pcap.ts';
import type { Counters, LabSidecars } from '../../lab/sidecar.ts';
import type { Slot } from '../../../plugin/src/gen/layouts.ts';
import { watchCounters } from './counters.ts';
import { rawInput } from './frames.ts';
import { isMasqueraded } from './wire.ts';

/** A UDP flow between pods of two nodes. */
export interface ReplayFlow {
  readonly from: Pod;
  readonly to: Pod;
  readonly sport: number;
  readonly port: number;
}

/** Copies sent of a packet: one would do, but a count of exactly these cannot be an accident. */
const COPIES = 20;

/** A masqueraded packet from client to server, as it arrives at the server's node while the flow is fast. */
export async function recordPacket(flow: ReplayFlow): Promise<CapturedPacket> {
  const { from, to, sport, port } = flow;
  const filter = `udp and src host ${from.node.address} and src port ${sport} and dst port ${port}`;
  const capture = await to.node.capture({ direction: 'in', filter });
  await sleep(300); // some packets of a flow that sends all the time
  const { packets } = await capture.stop();
  const packet = packets.find((candidate) => isMasqueraded(candidate, from.node, to.node));
  if (packet === undefined) throw new Error(`no masqueraded packet among ${packets.length} on ${to.node.name}`);
  return packet;
}

/** What became of copies of an old packet. */
export interface Replayed {
  /** Copies sent. */
  readonly copies: number;
  /** Counters of the node that they arrived at. */
  readonly counters: Counters;
  /** Copies that each of the pods saw. */
  readonly seen: readonly number[];
}

/**
 * Sends copies of an old packet from its sender's node, past every program there, and says who saw them.
 * @param pods where to look
 */
export async function replay(
  lab: Lab,
  sidecars: LabSidecars,
  packet: CapturedPacket,
  flow: Pick<ReplayFlow, 'from' | 'to'>,
  pods: readonly Pod[],
): Promise<Replayed> {
  const node = lab.nodes.indexOf(flow.to.node);
  const captures = await Promise.all(pods.map((pod) => pod.capture({ filter: 'udp' })));
  const counters = await watchCounters(sidecars);
  await flow.from.node.exec(
    [lab.tool('raw'), 'send', '--dev', flow.from.node.device, '--bypass', '--repeat', String(COPIES), '--rate', '200'],
    { input: rawInput([packet.bytes]) },
  );
  const results = await Promise.all(captures.map((capture) => capture.stop()));
  const grown = (await counters.since())[node];
  if (grown === undefined) throw new Error(`no counters of ${flow.to.node.name}`);
  const payload = packet.l4?.payloadHash;
  return {
    copies: COPIES,
    counters: grown,
    seen: results.map(({ packets }) => packets.filter(({ l4 }) => l4?.payloadHash === payload).length),
  };
}

/** The slot at the server's node that the flow's packets are restored by; undefined: none. */
export function slotOf(lab: Lab, sidecars: LabSidecars, { to, sport, port }: ReplayFlow): Slot | undefined {
  return sidecars
    .node(lab.nodes.indexOf(to.node))
    .maps.slots()
    .find(([key]) => key.sport === sport && key.dport === port)?.[1];
}
