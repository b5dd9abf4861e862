/**
 * Every kind of connection in every mode: on the path that docs/compatibility.md says, and to the pods as on the slow path. The
 * result, in the native lab, is build/matrix.json. XMASQ_MATRIX=all runs every set-up, otherwise half of them, and under
 * emulation one of each mode.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import type { Lab } from '../lab/lab.ts';
import { PROVIDER, up } from '../lab/native/native.ts';
import { ADMISSION, EMULATED } from '../lab/scale.ts';
import type { LabSidecars } from '../lab/sidecar.ts';
import { watchCounters } from '../specs/support/counters.ts';
import { startInMode } from '../specs/support/modes.ts';
import { WAYS, cellsOf, expectedPath, fewSetups, setups, someSetups } from './cells.ts';
import type { Protocol, Setup, Way } from './cells.ts';
import { runCells, setOffloads } from './run.ts';
import type { CellResult } from './run.ts';
import { measure } from './judge.ts';
import type { Row } from './judge.ts';

/** UDP needs two seconds until conntrack calls it assured; what needs an approval, one until the sidecar has looked. */
const SECONDS: Readonly<Record<Protocol, number>> = EMULATED
  ? { tcp: 12, udp: 15, icmp: 12, sctp: 10 }
  : { tcp: 5, udp: 5, icmp: 5, sctp: 2.5 };
const REFERENCE_SECONDS: Readonly<Record<Protocol, number>> = EMULATED
  ? { tcp: 3, udp: 2, icmp: 3, sctp: 0.4 }
  : { tcp: 1, udp: 1, icmp: 1, sctp: 0.4 };
const REFERENCE_ATTEMPTS = 3;
const FILE = fileURLToPath(new URL('../../build/matrix.json', import.meta.url));

/** By set-up: one that is tried again has new ones. */
const rowsOf = new Map<Setup, readonly Row[]>();
const wanted = process.env['XMASQ_MATRIX'] === 'all' ? setups() : EMULATED ? fewSetups() : someSetups();
const NATIVE = PROVIDER.name === 'native';
/** Open vSwitch has no noEncap here, and devices in emulation restore nothing in XDP faster. */
const ways = WAYS.filter(
  (way) => wanted.some((setup) => isOf(setup, way)) && (NATIVE || (way.mode !== 'direct' && !way.xdp)),
);

/** Connections by the slow path, which a machine in emulation may make too slowly: until none of them failed. */
async function reference(lab: Lab, setup: Setup): Promise<readonly CellResult[]> {
  for (let attempt = 1; ; attempt++) {
    const results = await runCells(lab, cellsOf(setup), REFERENCE_SECONDS);
    if (attempt === REFERENCE_ATTEMPTS || results.every(({ problem }) => problem === '')) return results;
  }
}

function isOf(setup: Setup, { mode, xdp }: Way): boolean {
  return setup.mode === mode && setup.xdp === xdp;
}

afterAll(() => {
  const rows = [...rowsOf.values()].flat();
  if (rows.length === 0 || !NATIVE) return;
  mkdirSync(new URL('.', `file://${FILE}`), { recursive: true });
  writeFileSync(FILE, `${JSON.stringify(rows, null, 1)}\n`);
});

describe.each(ways)('$mode, XDP: $xdp', (way) => {
  const { mode, xdp } = way;
  const mine = wanted.filter((setup) => isOf(setup, way));
  let lab: Lab;
  let sidecars: LabSidecars | undefined;
  const references = new Map<Setup, readonly CellResult[]>();

  beforeAll(async () => {
    lab = await up({ ipv6: true, ...(mode === 'direct' ? { encapMode: 'noEncap' } : {}) });
    const sysctls = 'echo 1 >/proc/sys/net/ipv4/tcp_ecn; echo 1 >/proc/sys/net/ipv4/tcp_reflect_tos';
    await Promise.all(lab.nodes.flatMap(({ pods }) => pods.map((pod) => pod.sh(sysctls))));
    for (const setup of mine) {
      await setOffloads(lab, setup.offloads, xdp);
      references.set(setup, await reference(lab, setup));
    }
    sidecars = await startInMode(lab, mode, { xdp: xdp ? 'native' : 'off' });
  }, 180_000);
  afterAll(async () => {
    await sidecars?.down();
    await lab.down();
  });

  test.each(mine)(
    '$family, offloads $offloads',
    async (setup) => {
      if (sidecars === undefined) throw new Error('the sidecars do not run');
      await setOffloads(lab, setup.offloads, xdp);
      const counters = await watchCounters(sidecars);
      const reference = references.get(setup) ?? [];
      const results = await runCells(lab, cellsOf(setup), SECONDS, sidecars);
      const measured = results.map((result, i) => ({ result, ...measure(result, reference[i], PROVIDER.name) }));
      rowsOf.set(
        setup,
        measured.map(({ row }) => row),
      );
      const wrong = measured.filter(
        ({ row, problems }) =>
          problems.length > 0 ||
          row.path !== expectedPath(row, ADMISSION).path ||
          row.reason !== expectedPath(row, ADMISSION).reason,
      );
      expect(
        wrong.map(({ row: { protocol, target, path, reason }, problems, result: { flow, wire } }) => ({
          ...{ protocol, target, path, reason, problems, wire },
          ...(flow === undefined ? {} : { mode: flow.mode, of: [flow.txPackets, flow.slowPackets, flow.reason] }),
        })),
      ).toEqual([]);
      // On both nodes; of single cells the capture at the first one tells (judge.ts).
      for (const { restored, restored_xdp } of await counters.since()) {
        if (!xdp) expect(restored_xdp).toBe(0);
        else expect(restored_xdp / restored).toBeGreaterThan(0.5);
      }
    },
    90_000,
  );
});
