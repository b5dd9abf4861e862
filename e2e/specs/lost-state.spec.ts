/**
 * A node stops taking part, in mode auto: its hooks and its state are gone, or it drains, or is of another version. The other
 * one uses the tunnel's header within a second, nothing is lost for longer, and both masquerade again when the node is back. A
 * sidecar that is merely absent changes nothing.
 */
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { PROTOCOL_VERSION } from '../../plugin/src/dataplane/layout.ts';
import { PATH_CLASSES, pathIndex } from '../../plugin/src/dataplane/paths.ts';
import { Counter } from '../../plugin/src/gen/layouts.ts';
import type { ReasonName } from '../lab/admin.ts';
import { eventually, sleep } from '../lab/lab.ts';
import type { Pair } from '../lab/measure.ts';
import { up } from '../lab/native/native.ts';
import type { NativeLab } from '../lab/native/native.ts';
import { IPPROTO } from '../lab/packet.ts';
import { EMULATED } from '../lab/scale.ts';
import type { LabSidecars, Sidecar } from '../lab/sidecar.ts';
import { readCounter } from './support/load.ts';
import { atLeast } from './support/matchers.ts';
import { startInMode, waitCarried } from './support/modes.ts';
import type { Carried } from './support/modes.ts';
import { gapLimit, lasting, steadily } from './support/steady.ts';
import type { SteadyPorts, SteadyReport } from './support/steady.ts';

const SECOND_MS = 1000;
/** Until UDP is admitted and the path proven. */
const FIRST_MS = 12_000;
/** Without a sign of life of a peer for so long, `xmasq peers` says that it is silent (XMASQ_SEND_LIFE_NS). */
const SILENT_MS = 5000;
/** Longest pause of probes (XMASQ_PROBE_MAX_NS), and the time that a mode is kept at least (XMASQ_MODE_HOLD_NS). */
const BACK_MS = 8000 + 5000 + SECOND_MS;
const PROTOCOLS = ['tcp', 'udp'] as const;

let lab: NativeLab;
let sidecars: LabSidecars;
/** Of the node that things happen to, and of the other one. */
let victim: Sidecar;
let other: Sidecar;
let pairs: { readonly tcp: Pair; readonly udp: Pair };
/** With nothing happening: what this machine alone does to the traffic. */
let control: SteadyReport<unknown>;

beforeAll(async () => {
  lab = await up();
  sidecars = await startInMode(lab, 'auto');
  [other, victim] = [sidecars.node(0), sidecars.node(1)];
  pairs = {
    tcp: { from: lab.node(0).pod(0), to: lab.node(1).pod(0) },
    udp: { from: lab.node(0).pod(1), to: lab.node(1).pod(1) },
  };
  control = await steadily(lab, pairs, lasting(5), (ports) => carried(ports, sidecars.nodes, 'masquerade', FIRST_MS));
  expectWhole(control);
}, 60_000);
afterAll(async () => {
  await sidecars.down();
  await lab.down();
});

/** Waits until these nodes send both flows in this way. */
async function carried(
  ports: SteadyPorts,
  nodes: readonly Sidecar[],
  how: Carried,
  limitMs = SECOND_MS,
): Promise<void> {
  await Promise.all(
    PROTOCOLS.map((proto) => waitCarried({ nodes }, { proto: IPPROTO[proto], port: ports[proto] }, how, limitMs)),
  );
}

/** Why the other node does not masquerade the flows. */
async function reasons(ports: SteadyPorts): Promise<ReasonName[]> {
  const flows = await Promise.all(PROTOCOLS.map((proto) => other.flows({ proto, port: ports[proto] })));
  return flows.flat().map(({ reason }) => reason);
}

/** What the other node says of the way of TCP and of UDP to the victim. */
async function paths(): Promise<{ mode: string; reason: ReasonName }[]> {
  const [peer] = await other.admin.peers();
  return (peer?.paths ?? [])
    .filter(({ pathClass }) => pathClass !== 'other')
    .map(({ mode, reason }) => ({ mode, reason }));
}

function expectWhole({ tcp, tcpGapMs, udp, udpGapMs }: SteadyReport<unknown>): void {
  // Of the gaps the control's stand beside, for whoever has to judge a failure.
  const quiet = { tcpGapMs: control.tcpGapMs, udpGapMs: control.udpGapMs };
  expect(tcp).toMatchObject({ complete: true, corrupt: 0, peerCorrupt: 0, error: '' });
  expect(udp).toMatchObject({ answered: true, foreign: 0, sendErrors: 0, peer: { corrupt: 0 } });
  const found = { tcpGapMs, udpGapMs, quiet, short: Math.max(tcpGapMs, udpGapMs) < gapLimit(SECOND_MS) };
  expect(found).toEqual({ ...found, short: true });
}

/** How a node stops taking part, and takes part again. */
interface Case {
  readonly what: string;
  /** Long enough for all that follows, and for both nodes to masquerade again. */
  readonly seconds: number;
  readonly leave: () => Promise<unknown>;
  /** What the node does while the other one encapsulates. */
  readonly meanwhile?: () => Promise<unknown>;
  readonly back: () => Promise<unknown>;
  /** Datagrams that may be lost at most. */
  readonly lost?: number;
  /** Why the other node encapsulates: first flows, later what goes to the node at all. */
  readonly first: readonly ReasonName[];
  readonly later: readonly ReasonName[];
}

async function restart(): Promise<void> {
  await victim.start();
  await victim.waitReady();
}

/** Lets nodes declare this version, and waits until the peers know. */
async function declare(which: () => readonly Sidecar[], protocol: number): Promise<void> {
  const names = which().map(({ node }) => node.name);
  for (const { node } of which()) sidecars.setCapability(node, { protocol, incarnation: `${node.name}-1` });
  await eventually('known to the peers', async () => {
    const lists = await Promise.all(sidecars.nodes.map((sidecar) => sidecar.admin.peers()));
    return lists
      .flat()
      .filter(({ nodeName }) => names.includes(nodeName))
      .every(({ capable }) => capable === (protocol === PROTOCOL_VERSION));
  });
}

const LOST: readonly ReasonName[] = ['black_hole', 'unproven', 'key_exchange', 'key_rejected'];

const cases: readonly Case[] = [
  {
    what: 'loses its hooks, its maps and its sidecar without a word',
    seconds: 30,
    leave: async () => {
      await victim.kill9();
      await victim.node.exec(['rm', '-rf', victim.node.pinDir]);
    },
    back: restart,
    first: LOST,
    later: ['peer_silent'],
  },
  ...(
    [
      ['is declared to be of another version', () => [victim]],
      ['is of another version, as the other one is to it', () => sidecars.nodes],
    ] as const
  ).map(([what, which]): Case => ({
    what,
    seconds: 16,
    leave: () => declare(which, PROTOCOL_VERSION + 1),
    back: () => declare(which, PROTOCOL_VERSION),
    first: ['peer_not_capable'],
    later: ['peer_not_capable'],
  })),
  {
    what: 'drains, is cleaned up and started anew',
    // The command line starts four times.
    seconds: EMULATED ? 110 : 62,
    leave: () => victim.admin.drain(false),
    meanwhile: async () => {
      await victim.drain();
      await victim.stop();
      await victim.cleanup();
      await sleep(SECOND_MS);
    },
    back: restart,
    lost: 0,
    first: [...LOST, 'peer_silent'],
    later: ['black_hole', 'peer_silent'],
  },
];

test.each(cases)(
  'a node that $what: its peer encapsulates within a second, and masquerades again when it is back',
  async ({ seconds, leave, meanwhile, back, first, later, lost = Infinity }) => {
    const report = await steadily(lab, pairs, lasting(seconds), async (ports) => {
      await carried(ports, sidecars.nodes, 'masquerade', FIRST_MS);
      try {
        await leave();
        // How long that took is judged by what the pods miss; a busy sidecar says it later.
        await carried(ports, [other], 'encap', 1.5 * SECOND_MS);
        const why = await reasons(ports);
        await sleep(SECOND_MS);
        await carried(ports, [other], 'encap');
        expect(first).toEqual(expect.arrayContaining(why));
        await eventually(
          'said of the peer',
          async () => (await paths()).every(({ mode, reason }) => mode === 'encap' && later.includes(reason)),
          SILENT_MS + SECOND_MS,
        );
        await meanwhile?.();
        await carried(ports, [other], 'encap');
      } finally {
        await back();
      }
      await carried(ports, sidecars.nodes, 'masquerade', BACK_MS);
    });
    expectWhole(report);
    expect(Math.max(report.udp.peer.lost, report.udp.echo?.lost ?? Infinity)).toBeLessThanOrEqual(lost);
  },
  90_000,
);

test('a node whose tables are emptied is masqueraded to again at once', async () => {
  const report = await steadily(lab, pairs, lasting(8), async (ports) => {
    await carried(ports, sidecars.nodes, 'masquerade', FIRST_MS);
    const before = (await other.status()).counters;
    expect(victim.maps.wipe()).toEqual({ flows: atLeast(2), slots: atLeast(2) });
    // The emptied one first: it has no flows to speak of until they are admitted anew.
    await carried(ports, [victim, other], 'masquerade', 3 * SECOND_MS);
    expect((await other.status()).counters.black_hole).toBe(before.black_hole);
  });
  expectWhole(report);
}, 60_000);

test('a sidecar that is merely absent changes nothing: paths are proven anew without it', async () => {
  const report = await steadily(lab, pairs, lasting(7), async (ports) => {
    await carried(ports, sidecars.nodes, 'masquerade', FIRST_MS);
    await victim.kill9();
    const slow = readCounter(victim, Counter.SLOW_TX);
    const answered = (): bigint[] =>
      victim.maps.use((tables) => {
        const id = tables.peerByAddr.get(other.node.address) ?? 0;
        return PROTOCOLS.map((name) => tables.paths.get(pathIndex(id, 4, PATH_CLASSES.indexOf(name))).answers);
      });
    const before = answered();
    victim.maps.use((tables) => {
      const id = tables.peerByAddr.get(other.node.address) ?? 0;
      for (const name of PROTOCOLS) {
        const index = pathIndex(id, 4, PATH_CLASSES.indexOf(name));
        tables.paths.set(index, { ...tables.paths.get(index), probeAt: 0n });
      }
    });
    await eventually('asked and answered', () => answered().every((answers, i) => answers > (before[i] ?? 0n)), 2000);
    await sleep(SECOND_MS);
    await carried(ports, [other], 'masquerade', 0);
    expect(readCounter(victim, Counter.SLOW_TX)).toBe(slow);
  });
  await restart();
  expectWhole(report);
  expect(report.udp).toMatchObject({ peer: { lost: 0 }, echo: { lost: 0 } });
}, 60_000);
