/** Follows the ends of connections in Antrea's zones. */
import { monotonic, type Log } from '../dataplane/ports.ts';
import { Throttle } from '../dataplane/throttle.ts';
import type { Ctnetlink } from '../netlink/ctnetlink.ts';
import type { Watch } from '../netlink/subscription.ts';
import type { AgentParts } from './backend.ts';
import type { Closers } from './closers.ts';

/** A watch of the kernel that ended is begun anew after this. */
const REWATCH_MS = 1000;

/** Ends of connections. */
export function followConntrack(
  conntrack: Ctnetlink,
  { approvals, config }: AgentParts,
  log: Log,
  closers: Closers,
): void {
  let stopped = false;
  let watch: Watch | undefined;
  const throttle = new Throttle(monotonic);
  const begin = (): void => {
    if (stopped) return;
    watch = conntrack.watchDestroy({
      zones: [config.conntrack.zone, config.conntrack.zone6],
      onDestroy: (entry) => approvals.destroyed(entry),
      onOverrun: () => approvals.distrust(),
      onError: (error, ended) => {
        if (throttle.allows('error')) log.warn({ err: error }, 'watching conntrack');
        if (ended) setTimeout(begin, REWATCH_MS).unref();
      },
    });
    approvals.distrust();
  };
  begin();
  closers.add(() => {
    stopped = true;
    watch?.close();
  });
}
