/** The same as the spec of this name in `specs`, two hundred times (twenty under emulation). */
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import type { Pod } from '../lab/lab.ts';
import { up } from '../lab/native/native.ts';
import type { NativeLab } from '../lab/native/native.ts';
import { rounds } from '../lab/scale.ts';
import { startSidecars } from '../lab/sidecar.ts';
import type { LabSidecars } from '../lab/sidecar.ts';
import { atLeast } from '../specs/support/matchers.ts';
import { PodReplacement } from '../specs/support/replacement.ts';
import type { Learning } from '../specs/support/replacement.ts';

const ROUNDS = rounds(200);
/** Pods that are replaced at the same time. */
const TOGETHER = 5;
/** Tried in turn: the first one more often, because it is what happens every day. */
const LEARNING: readonly Learning[] = ['in order', 'late', 'in order', 'by a snapshot', 'in order', 'after a restart'];

describe('an address that is given to a new pod', () => {
  let lab: NativeLab;
  let sidecars: LabSidecars;

  beforeAll(async () => {
    lab = await up({ podsPerNode: 1 });
    sidecars = await startSidecars(lab, { withoutPods: true, withoutWaiting: true });
  });
  afterAll(async () => {
    await sidecars.down();
    await lab.down();
  });

  test(`brings it no packet of an old flow in ${ROUNDS} rounds`, async () => {
    const node = lab.node(1);
    let pods: Pod[] = [];
    for (let i = 0; i < TOGETHER; i++) pods.push(await node.addPod());
    sidecars.nodes.forEach((sidecar) => sidecar.pods.snapshot(sidecar.node.pods.map(({ endpoint }) => endpoint)));
    await sidecars.waitReady();
    const replacement = new PodReplacement(lab, sidecars, lab.node(0).pod(0), node.pod(0));
    let rounds = 0;
    for (let i = 0; rounds < ROUNDS; i++) {
      const learning = LEARNING[i % LEARNING.length] ?? 'in order';
      const { results, pods: next } = await replacement.replace(pods, learning);
      pods = next;
      for (const { before, arrivals } of results) {
        const round = { learning, rounds };
        expect({ round, before }).toEqual({
          round,
          before: before.map(({ flow }) => ({ flow, fast: atLeast(1), slow: 0 })),
        });
        expect({ round, arrivals }).toEqual({
          round,
          arrivals: arrivals.map(({ flow }) => ({ flow, fast: 0, slow: atLeast(1) })),
        });
        rounds++;
      }
    }
  }, 900_000);
});
