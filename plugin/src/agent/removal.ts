/** Detaches the programs and removes what is pinned, of whichever version it is. */
import { ClsactAttacher, TcxAttacher, type Attacher } from '../dataplane/attach.ts';
import { Notes } from '../dataplane/notes.ts';
import type { PinLayout } from '../dataplane/pins.ts';
import type { TcProgramName } from '../dataplane/programs.ts';
import { removeXdp } from '../dataplane/uplink-xdp.ts';

/** What was removed. */
export interface Removed {
  readonly attachments: number;
  readonly pins: number;
}

/** uplink_ingress first, so that nothing is restored any more; uplink_egress last, so that nothing looks masqueraded. */
const ORDER: readonly TcProgramName[] = ['uplink_ingress', 'pod_ingress', 'pod_egress', 'uplink_egress'];

function detachAll(attachers: readonly Attacher[]): number {
  let detached = 0;
  for (const program of ORDER) {
    for (const attacher of attachers) {
      for (const attachment of attacher.list()) {
        if (attachment.program === program && attacher.detach(program, attachment.ifindex)) detached++;
      }
    }
  }
  return detached;
}

/** Removes all but the directory itself, on which the caller holds the lock. Peers must send nothing fast any more. */
export function removeDataPlane(pins: PinLayout): Removed {
  const notes = new Notes(pins.notes);
  // Before uplink_ingress, without which what XDP has restored would be the node's.
  const attachments = removeXdp(pins) + detachAll([new TcxAttacher(pins), new ClsactAttacher(notes)]);
  let removed = 0;
  for (const directory of [pins.links, pins.programs, pins.maps]) removed += pins.removeAll(directory);
  notes.clear();
  return { attachments, pins: removed };
}
