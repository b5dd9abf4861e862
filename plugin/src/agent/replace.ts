/** A data plane that this build cannot take over makes room: nothing is lost, its flows take the slow path meanwhile. */
import { setTimeout as sleep } from 'node:timers/promises';
import { CommonConfig } from '../dataplane/common-config.ts';
import { Drain, DRAINED_NS } from '../dataplane/drain.ts';
import { loadDataPlane, IncompatibleStateError, type LoadedDataPlane, type LoadOptions } from '../dataplane/load.ts';
import { Notes } from '../dataplane/notes.ts';
import type { PinLayout } from '../dataplane/pins.ts';
import { monotonic, MS, type Log } from '../dataplane/ports.ts';
import { ACTIVE_FLAGS } from '../dataplane/uplink.ts';
import { removeDataPlane } from './removal.ts';

/**
 * Loads or adopts the data plane. One of another layout, or with maps of other sizes, is drained and removed first: 32 s, or
 * what is left of a drain that had begun. The lock on the pins is the caller's.
 * @param signal ends the waiting: nothing is removed then, and whoever starts next, of either version, makes the node take part
 * @throws IncompatibleStateError where what is pinned is no data plane of any version
 * @throws VerifierError, BpfError as `loadDataPlane`
 */
export async function loadOrReplace(load: LoadOptions, log: Log, signal?: AbortSignal): Promise<LoadedDataPlane> {
  try {
    return loadDataPlane(load);
  } catch (error) {
    if (!(error instanceof IncompatibleStateError)) throw error;
    await makeRoom(load.pins, error, log, signal);
  }
  return loadDataPlane(load);
}

async function makeRoom(pins: PinLayout, why: IncompatibleStateError, log: Log, signal?: AbortSignal): Promise<void> {
  const notes = new Notes(pins.notes);
  // A person's drain goes on in the new data plane.
  const kept = notes.get(Drain.NOTE);
  const waitMs = takeOut(pins, notes, why);
  log.warn(
    { differences: why.differences, waitMs },
    'the data plane that is loaded cannot be taken over: its flows take the slow path until it is drained and replaced',
  );
  await sleep(waitMs, undefined, signal && { signal });
  const removed = removeDataPlane(pins);
  if (kept !== undefined) notes.set(Drain.NOTE, kept);
  log.info({ ...removed }, 'the former data plane is removed');
}

/** Stops its part in the fast path. @returns milliseconds until peers neither send to it nor interpret what it sends */
function takeOut(pins: PinLayout, notes: Notes, why: IncompatibleStateError): number {
  // A removal that was cut short: the hooks went before the maps.
  if (!pins.exists()) return 0;
  using config = CommonConfig.open(pins.map('config'));
  // Not known to be ours.
  if (config === undefined) throw why;
  const { layoutVersion } = config;
  const drain = new Drain(config, notes, monotonic);
  config.setFlags(0, ACTIVE_FLAGS);
  if (layoutVersion === 0) return 0;
  // No note: were the former version to come back meanwhile, it would be drained for good.
  return drain.active ? drain.remainingMs : Number(DRAINED_NS / MS);
}
