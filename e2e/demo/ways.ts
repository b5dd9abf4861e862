/** The labs of the demo, and the ways through them that it compares. */
import { nodeToNode, podToPod } from '../bench/labs.ts';
import type { Removal, Way } from '../bench/labs.ts';
import type { Lab } from '../lab/lab.ts';
import type { LabSidecars } from '../lab/sidecar.ts';
import type { PathName } from './report.ts';

/**
 * Host network and overlay are measured where no program of XMasq is attached, in turns with XMasq: hence several labs at
 * the same time, built alike.
 */
export interface Labs {
  /** Without sidecars. */
  readonly bare: Lab;
  readonly fast: Lab;
  readonly sidecars: LabSidecars;
}

/** Brings both labs up. */
export async function buildLabs(removal: Removal): Promise<Labs> {
  const [bare, fast] = await Promise.all([removal.lab(), removal.lab()]);
  return { bare, fast, sidecars: await removal.sidecars(fast) };
}

/** The ways to compare. */
export function waysOf({ bare, fast, sidecars }: Labs): Readonly<Record<PathName, Way>> {
  return {
    host: { title: 'host network', ...nodeToNode(bare) },
    overlay: { title: 'overlay', ...podToPod(bare) },
    xmasq: { title: 'XMasq', ...podToPod(fast), sidecars },
    hostBesideXmasq: { title: 'host network beside XMasq', ...nodeToNode(fast) },
  };
}
