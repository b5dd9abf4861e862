/** What the node's devices tell of Antrea's modes, for clusters whose configuration is not read. */
import { Reason } from '../dataplane/layout.ts';
import type { NodeExclusion } from '../exclusion/exclusions.ts';

/**
 * Antrea's WireGuard device (antrea-facts 7.3). It may be left over from before WireGuard was switched off, so where the
 * Kubernetes API is followed, the configuration decides.
 */
const WIREGUARD_DEVICE = 'antrea-wg0';

/** @param devices names of all devices of the node's network namespace */
export function deviceExclusions(devices: Iterable<string>): NodeExclusion[] {
  for (const device of devices) {
    if (device !== WIREGUARD_DEVICE) continue;
    return [{ scope: 'inter-node', reason: Reason.ENCRYPTION, detail: `device ${WIREGUARD_DEVICE}: WireGuard` }];
  }
  return [];
}
