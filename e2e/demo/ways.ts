/** The ways that the demo compares. */
import { nodeToNode, podToPod } from '../bench/labs.ts';
import type { Labs, Way } from '../bench/labs.ts';
import type { PathName } from './report.ts';

/** The ways to compare. */
export function waysOf({ bare, fast, sidecars }: Labs): Readonly<Record<PathName, Way>> {
  return {
    host: { title: 'host network', ...nodeToNode(bare) },
    overlay: { title: 'overlay', ...podToPod(bare) },
    xmasq: { title: 'XMasq', ...podToPod(fast), sidecars },
    hostBesideXmasq: { title: 'host network beside XMasq', ...nodeToNode(fast) },
  };
}
