/** A pod goes, another gets its address, and others go on sending: nothing of theirs reaches the new pod by the fast path. */
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import type { Pod } from '../lab/lab.ts';
import { up } from '../lab/native/native.ts';
import type { NativeLab } from '../lab/native/native.ts';
import { EMULATED } from '../lab/scale.ts';
import { startSidecars } from '../lab/sidecar.ts';
import type { LabSidecars } from '../lab/sidecar.ts';
import { atLeast } from './support/matchers.ts';
import { PodReplacement } from './support/replacement.ts';
import type { Learning } from './support/replacement.ts';

/** Pods that are replaced at the same time. */
const TOGETHER = EMULATED ? 1 : 4;

describe('an address that is given to a new pod', () => {
  let lab: NativeLab;
  let sidecars: LabSidecars;
  let replacement: PodReplacement;

  beforeAll(async () => {
    lab = await up({ podsPerNode: 1 });
    sidecars = await startSidecars(lab);
    replacement = new PodReplacement(lab, sidecars, lab.node(0).pod(0), lab.node(1).pod(0));
  });
  afterAll(async () => {
    await sidecars.down();
    await lab.down();
  });

  /** What the rounds before have left; where one failed half-way, as many more as are missing. */
  async function replaceable(): Promise<Pod[]> {
    const node = lab.node(1);
    while (node.pods.length < 1 + TOGETHER) {
      const { endpoint } = await node.addPod();
      await sidecars.node(1).pods.addPod(endpoint);
    }
    return node.pods.slice(1, 1 + TOGETHER);
  }

  const rounds: Learning[] = ['in order', 'late', 'by a snapshot', 'after a restart', 'in order'];
  test.each(rounds.map((learning, i) => ({ learning, round: i + 1 })))(
    'brings it no packet of an old flow, if the sidecar learns of it $learning (round $round)',
    async ({ learning }) => {
      const { results } = await replacement.replace(await replaceable(), learning);
      expect(results).toHaveLength(TOGETHER);
      for (const { before, arrivals } of results) {
        expect(before).toEqual(before.map(({ flow }) => ({ flow, fast: atLeast(1), slow: 0 })));
        expect(arrivals).toEqual(arrivals.map(({ flow }) => ({ flow, fast: 0, slow: atLeast(1) })));
      }
    },
    60_000,
  );
});
