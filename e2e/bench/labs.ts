/** Labs side by side, the ways through them that are compared, and their removal. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { up } from '../lab/native/native.ts';
import type { NativeLab } from '../lab/native/native.ts';
import type { CounterName } from '../lab/admin.ts';
import { LabError, OFFLOADS_ON } from '../lab/lab.ts';
import type { Lab, LabOptions, OffloadFlags } from '../lab/lab.ts';
import type { Pair } from '../lab/measure.ts';
import { startSidecars } from '../lab/sidecar.ts';
import type { LabSidecars, SidecarOptions } from '../lab/sidecar.ts';

/** A lab and who talks to whom in it. */
export interface Way {
  /** For people. */
  readonly title: string;
  readonly lab: Lab;
  readonly pair: Pair;
  /** Whose fast path has to carry the packets; undefined where no program of XMasq is on the way. */
  readonly sidecars?: LabSidecars;
  /** What counts them (default fast_tx). */
  readonly counter?: CounterName;
}

/** Offloads with which pods and nodes write their checksums: XDP cannot restore what is sent without. */
export const WRITTEN: OffloadFlags = { ...OFFLOADS_ON, tx: false, tso: false };

/** What was begun and has to be removed, also when its beginning is still under way. */
export class Removal {
  readonly #undo: (() => Promise<void>)[] = [];
  #done: Promise<void> | undefined;

  /** Begins something; `undo` is called with it, unless the beginning fails. @throws LabError the removal has begun */
  add<T>(begin: () => Promise<T>, undo: (begun: T) => Promise<void>): Promise<T> {
    if (this.#done !== undefined) return Promise.reject(new LabError('everything is being removed'));
    const begun = begin();
    this.#undo.push(async () => {
      const [outcome] = await Promise.allSettled([begun]);
      if (outcome.status === 'fulfilled') await undo(outcome.value);
    });
    return begun;
  }

  lab(options: LabOptions = { podsPerNode: 1 }): Promise<NativeLab> {
    return this.add(
      () => up(options),
      (lab) => lab.down(),
    );
  }

  sidecars(lab: Lab, settings: SidecarOptions = {}): Promise<LabSidecars> {
    return this.add(
      () => startSidecars(lab, settings),
      (sidecars) => sidecars.down(),
    );
  }

  /** A directory that only this run uses. Begin it before what writes to it. */
  directory(prefix: string): Promise<string> {
    return this.add(
      () => mkdtemp(join(tmpdir(), prefix)),
      (directory) => rm(directory, { recursive: true, force: true }),
    );
  }

  /** Removes everything, the last first; later calls wait for the first one. @throws the first error, after everything */
  run(): Promise<void> {
    this.#done ??= this.#remove();
    return this.#done;
  }

  async #remove(): Promise<void> {
    const errors: unknown[] = [];
    for (const undo of this.#undo.toReversed()) {
      try {
        await undo();
      } catch (error) {
        errors.push(error);
      }
    }
    if (errors.length > 0) throw errors[0];
  }
}

/** From the first node to the second. */
export function nodeToNode(lab: Lab): Pick<Way, 'lab' | 'pair'> {
  return { lab, pair: { from: lab.node(0), to: lab.node(1) } };
}

/** From the first pod of the first node to the first pod of the second. */
export function podToPod(lab: Lab): Pick<Way, 'lab' | 'pair'> {
  return { lab, pair: { from: lab.node(0).pod(0), to: lab.node(1).pod(0) } };
}
