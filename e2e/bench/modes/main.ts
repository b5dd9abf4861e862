/**
 * `make bench-modes`: XMasq's ways of carrying packets between nodes, side by side with host network and overlay, by the clock.
 * Writes build/bench-modes.json. With --quick two rounds, for trying.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { loadavg } from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { LabError } from '../../lab/lab.ts';
import { WRITTEN, nodeToNode, podToPod } from '../labs.ts';
import type { Removal, Way } from '../labs.ts';
import { runMeasurement } from '../program.ts';
import { measureRounds } from '../rounds.ts';
import { runOf, setRules } from '../run.ts';
import { NAMES, modesLine, rowsOf, tableOf } from './modes.ts';
import type { ModePath } from './modes.ts';
import { FACTS, modeTests } from './tests.ts';

const NAME = 'bench-modes';
const FILE = path.join(import.meta.dirname, '../../../build', `${NAME}.json`);
const SECONDS = 1;
const ROUNDS = { full: 7, quick: 2 };
/** So many of the packets that come masqueraded have to be restored in XDP: it leaves a flow's first ones to tc. */
const XDP_SHARE = 0.9;

const { values } = parseArgs({ options: { quick: { type: 'boolean', default: false } } });
const most = values.quick ? ROUNDS.quick : ROUNDS.full;

/** Each in a lab of its own; XDP restores only what was sent with its checksums, hence a way that differs in nothing else. */
async function buildWays(removal: Removal): Promise<Readonly<Record<ModePath, Way>>> {
  const [hosts, bare, masquerade, encap, direct, written, xdp] = await Promise.all([
    removal.lab({ podsPerNode: 0, hostConntrack: false }),
    removal.lab(),
    removal.lab(),
    removal.lab(),
    removal.lab({ podsPerNode: 1, encapMode: 'noEncap' }),
    removal.lab(),
    removal.lab(),
  ]);
  await setRules(hosts, '');
  await Promise.all([written.offload(WRITTEN), xdp.offload(WRITTEN)]);
  return {
    host: { title: NAMES.host, ...nodeToNode(hosts) },
    overlay: { title: NAMES.overlay, ...podToPod(bare) },
    masquerade: { title: NAMES.masquerade, ...podToPod(masquerade), sidecars: await removal.sidecars(masquerade) },
    encap: {
      ...{ title: NAMES.encap, ...podToPod(encap), counter: 'fast_encap' },
      sidecars: await removal.sidecars(encap, { transmitMode: 'encap' }),
    },
    direct: {
      ...{ title: NAMES.direct, ...podToPod(direct), counter: 'fast_direct' },
      sidecars: await removal.sidecars(direct),
    },
    written: { title: NAMES.written, ...podToPod(written), sidecars: await removal.sidecars(written) },
    xdp: { title: NAMES.xdp, ...podToPod(xdp), sidecars: await removal.sidecars(xdp, { xdp: 'native' }) },
  };
}

/** @throws LabError what was to be restored in XDP was restored in tc */
async function requireXdp({ sidecars }: Way): Promise<void> {
  for (const sidecar of sidecars?.nodes ?? []) {
    const { restored, restored_xdp } = (await sidecar.status()).counters;
    if (restored_xdp < restored * XDP_SHARE) {
      throw new LabError(`${sidecar.node.name}: XDP restored ${restored_xdp} of ${restored} packets`);
    }
  }
}

const [loadBefore = 0] = loadavg();
process.exitCode = await runMeasurement(NAME, async (removal, progress) => {
  progress.step('bringing up seven labs of two nodes, five with XMasq');
  const ways = await buildWays(removal);
  const measured = await measureRounds(ways, modeTests(SECONDS), {
    most,
    goOn: () => true,
    progress: (round, what) => progress.step(`measuring, round ${round} of ${most}`, what),
  });
  await requireXdp(ways.xdp);
  progress.step('removing the labs');
  await removal.run();
  progress.end();
  const [loadAfter = 0] = loadavg();
  const run = runOf(NAME, values.quick, SECONDS, measured, [loadBefore, loadAfter], progress.elapsedMs);
  const rows = rowsOf(measured.samples, FACTS);
  mkdirSync(path.dirname(FILE), { recursive: true });
  writeFileSync(FILE, `${JSON.stringify(rows, undefined, 2)}\n`);
  writeFileSync(FILE.replace('.json', '-run.json'), `${JSON.stringify(run, undefined, 2)}\n`);
  process.stdout.write(`${tableOf(rows, FACTS)}\n\n${modesLine(run)}\n`);
});
