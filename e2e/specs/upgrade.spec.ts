/**
 * Another version of the sidecar starts on a node whose data plane is at work, and the former one again: with other programs,
 * and with another layout of a map, which forces a cold start. Meanwhile the nodes are of mixed versions. Nothing is lost.
 */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, expect, test } from '@jest/globals';
import type { Node, Pod } from '../lab/lab.ts';
import { up } from '../lab/native/native.ts';
import type { NativeLab } from '../lab/native/native.ts';
import { IPPROTO } from '../lab/packet.ts';
import type { Build } from '../lab/programs.ts';
import { startSidecars, type LabSidecars, type Sidecar } from '../lab/sidecar.ts';
import { footprintOf } from './support/footprint.ts';
import { expectUndisturbed, underLoad } from './support/load.ts';
import { waitCarried } from './support/modes.ts';
import { steadily } from './support/steady.ts';
import type { SteadyPorts, SteadyReport } from './support/steady.ts';

/** Until UDP is admitted and the path proven, from the start of the traffic or of a new data plane. */
const FIRST_MS = 15_000;
const PROTOCOLS = ['tcp', 'udp'] as const;
/** 10,000 datagrams per second, both directions together, and TCP besides, while four sidecars start. */
const LOAD = { datagrams: 5000, bytes: 4_000_000, seconds: 30 };
/** A drain takes 32 s. */
const REPLACED_MS = 60_000;

interface PodPair {
  readonly from: Pod;
  readonly to: Pod;
}

let lab: NativeLab;
let sidecars: LabSidecars;
let pairs: { readonly tcp: PodPair; readonly udp: PodPair };

/** A new lab for each test, whatever became of the one before. */
async function start(build: (node: Node) => Build): Promise<void> {
  lab = await up();
  sidecars = await startSidecars(lab, { build });
  pairs = {
    tcp: { from: lab.node(0).pod(0), to: lab.node(1).pod(0) },
    udp: { from: lab.node(0).pod(1), to: lab.node(1).pod(1) },
  };
}
afterEach(async () => {
  await sidecars.down();
  await lab.down();
});

/** Waits until both nodes masquerade both flows. */
async function masqueraded(ports: SteadyPorts): Promise<void> {
  await Promise.all(
    PROTOCOLS.map((proto) =>
      waitCarried(sidecars, { proto: IPPROTO[proto], port: ports[proto] }, 'masquerade', FIRST_MS),
    ),
  );
}

function expectNothingLost({ tcp, udp }: SteadyReport<unknown>): void {
  expect(tcp).toMatchObject({ complete: true, corrupt: 0, peerCorrupt: 0, error: '' });
  expect(udp).toMatchObject({ answered: true, foreign: 0, sendErrors: 0 });
  expect(udp.peer).toMatchObject({ corrupt: 0, lost: 0, duplicates: 0 });
  expect(udp.echo).toMatchObject({ corrupt: 0, lost: 0 });
}

/** How many maps are pinned. */
const mapsOf = ({ node }: Sidecar): number => readdirSync(join(node.pinDir, 'maps')).length;

/** What of a node's kernel objects a start has kept. */
interface Kept {
  readonly programs: number;
  readonly maps: number;
  readonly links: number;
}

/** Starts another version on this node. */
async function upgrade(sidecar: Sidecar, build: Build): Promise<{ readonly kept: Kept; readonly log: string }> {
  const before = await footprintOf(sidecar.node);
  await sidecar.stop();
  sidecar.build = build;
  await sidecar.start(undefined, REPLACED_MS);
  await sidecar.waitReady();
  const after = await footprintOf(sidecar.node);
  const count = (kind: keyof Kept): number => before[kind].filter((id) => after[kind].includes(id)).length;
  return {
    kept: { programs: count('programs'), maps: count('maps'), links: count('links') },
    log: sidecar.proc.output(),
  };
}

test('the same layout: the programs are replaced in place, nothing is lost or slow, and the former ones come back', async () => {
  await start(() => 'this');
  const report = await underLoad(lab, sidecars, pairs.udp, LOAD, async () => {
    for (const build of ['next-programs', 'this'] as const) {
      for (const sidecar of sidecars.nodes) {
        // Between the two nodes: mixed versions.
        const { kept } = await upgrade(sidecar, build);
        // All that the sidecar pins; each program has constants besides.
        expect(kept).toEqual({ programs: 0, maps: mapsOf(sidecar), links: 6 });
      }
    }
  });
  expectUndisturbed(report);
}, 120_000);

test('another layout: a cold start after a drain, forth and back; the flows take the slow path meanwhile and nothing is lost', async () => {
  await start(({ index }) => (index === 0 ? 'this' : 'next-layout'));
  const report = await steadily(lab, pairs, 60, async (ports) => {
    // Between mixed versions.
    await masqueraded(ports);
    await Promise.all(
      sidecars.nodes.map(async (sidecar) => {
        const { kept, log } = await upgrade(sidecar, sidecar.build === 'this' ? 'next-layout' : 'this');
        expect(kept).toEqual({ programs: 0, maps: 0, links: 0 });
        expect(log).toContain('its flows take the slow path until it is drained and replaced');
        expect(log).toMatch(
          /"differences":\["map peer_state has value_size \d+, this build and configuration want \d+"\]/,
        );
      }),
    );
    await masqueraded(ports);
  });
  expectNothingLost(report);
}, 180_000);
