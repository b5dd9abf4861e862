/** FIN and RST after gigabytes that really went over the fast path, where conntrack did not see them. */
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { eventually, sleep } from '../lab/lab.ts';
import { freshPort } from '../lab/measure.ts';
import { up } from '../lab/native/native.ts';
import type { NativeLab } from '../lab/native/native.ts';
import { startSidecars } from '../lab/sidecar.ts';
import type { LabSidecars } from '../lab/sidecar.ts';
import { entries, flowsGone, pathsOf, waitForState, watchClose } from '../specs/support/closing.ts';
import { serverReport, withTransfer } from '../specs/support/streams.ts';
import { TCP } from '../specs/support/wire.ts';

const GIB = 2 ** 30;

let lab: NativeLab;
let sidecars: LabSidecars;

beforeAll(async () => {
  lab = await up();
  sidecars = await startSidecars(lab);
});
afterAll(async () => {
  await sidecars.down();
  await lab.down();
});

describe.each([
  [3, 0],
  [5, 1],
])('after %i GiB in each direction, client on node %i', (gib, node) => {
  test.each([
    // At one pace, so that both get about as far.
    ['FIN', ['--rate', '180M']],
    ['RST', ['--rst', '--hold-ms', '500']],
  ])(
    '%s reaches the peer and conntrack ends the connection',
    async (how, args) => {
      const pair = { from: lab.node(node).pod(0), to: lab.node(1 - node).pod(0) };
      const port = freshPort();
      // The client's FIN ends the fast path for both directions: the server's data has to be through by then.
      const [sent, received] = [(how === 'FIN' ? 1.1 : 1) * gib * GIB, gib * GIB].map(Math.round) as [number, number];
      const stop = await watchClose(pair, port, { closingOnly: true });
      await withTransfer(
        lab,
        pair,
        ['--up', String(sent), '--down', String(received), '--send-size', '262144', ...args],
        async ({ client, server, result }) => {
          // What went fast, as last seen on each node before the end.
          const fast = [0, 0];
          while (client.running) {
            for (const [i, sidecar] of sidecars.nodes.entries()) {
              for (const flow of await sidecar.flows({ port })) fast[i] = Math.max(fast[i] ?? 0, flow.txBytes);
            }
            await sleep(100);
          }
          expect(await result()).toMatchObject({ complete: true, error: '', sent, received });
          // Further than conntrack's window arithmetic reaches; the last look was a moment before the end.
          for (const txBytes of fast) expect(txBytes).toBeGreaterThan((gib - 0.7) * GIB);
          const error = how === 'RST' ? 'at the end: Connection reset by peer' : '';
          expect(await serverReport(server)).toMatchObject({ corrupt: 0, error });
        },
        port,
      );
      await flowsGone(sidecars, port);
      const seen = await stop();
      if (how === 'FIN') {
        await waitForState(lab, port, ['TIME_WAIT']);
        expect(seen).toMatchObject({ client: ['FIN client', 'FIN server'], server: ['FIN client', 'FIN server'] });
        expect(pathsOf(seen.wire, TCP.fin)).toEqual(new Set(['slow']));
      } else {
        await eventually(
          'no entry',
          async () => (await entries(lab, port)).every((entry) => entry === undefined),
          15_000,
        );
        expect(seen).toMatchObject({ client: ['RST client'], server: ['RST client'] });
        expect(pathsOf(seen.wire, TCP.rst)).toEqual(new Set(['fast']));
      }
    },
    180_000,
  );
});
