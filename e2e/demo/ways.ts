/** The two labs of the demo, side by side, and the ways through them that are compared. */
import { up } from '../lab/native/native.ts';
import type { NativeLab } from '../lab/native/native.ts';
import type { Lab } from '../lab/lab.ts';
import type { Pair } from '../lab/measure.ts';
import { startSidecars } from '../lab/sidecar.ts';
import type { LabSidecars } from '../lab/sidecar.ts';
import type { PathName } from './report.ts';

/** A lab and who talks to whom in it. */
export interface Way {
  readonly lab: Lab;
  readonly pair: Pair;
}

/**
 * Both labs. Host network and overlay are measured where no program of XMasq is attached, in turns with XMasq: hence two
 * labs at the same time, built alike.
 */
export interface DemoLabs {
  /** Without sidecars. */
  readonly bare: Lab;
  readonly fast: Lab;
  readonly sidecars: LabSidecars;
}

/** What was begun and has to be removed, also when its beginning is still under way. */
export class Removal {
  readonly #labs: Promise<NativeLab>[] = [];
  readonly #sidecars: Promise<LabSidecars>[] = [];
  #done: Promise<void> | undefined;

  lab(): Promise<NativeLab> {
    const lab = up({ podsPerNode: 1 });
    this.#labs.push(lab);
    return lab;
  }

  sidecars(lab: Lab): Promise<LabSidecars> {
    const sidecars = startSidecars(lab);
    this.#sidecars.push(sidecars);
    return sidecars;
  }

  /** Removes everything; later calls wait for the first one. */
  run(): Promise<void> {
    this.#done ??= this.#remove();
    return this.#done;
  }

  async #remove(): Promise<void> {
    for (const outcome of await Promise.allSettled(this.#sidecars)) {
      if (outcome.status === 'fulfilled') await outcome.value.down();
    }
    for (const outcome of await Promise.allSettled(this.#labs)) {
      if (outcome.status === 'fulfilled') await outcome.value.down();
    }
  }
}

/** Brings both labs up. */
export async function buildLabs(removal: Removal): Promise<DemoLabs> {
  const [bare, fast] = await Promise.all([removal.lab(), removal.lab()]);
  return { bare, fast, sidecars: await removal.sidecars(fast) };
}

/** The ways to compare. */
export function waysOf({ bare, fast }: DemoLabs): Readonly<Record<PathName, Way>> {
  const nodes = (lab: Lab): Way => ({ lab, pair: { from: lab.node(0), to: lab.node(1) } });
  const pods = (lab: Lab): Way => ({ lab, pair: { from: lab.node(0).pod(0), to: lab.node(1).pod(0) } });
  return { host: nodes(bare), overlay: pods(bare), xmasq: pods(fast), hostBesideXmasq: nodes(fast) };
}
