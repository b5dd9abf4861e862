/** Takes the data plane away: nothing that XMasq made is left. Needs no running sidecar. */
import { existsSync, rmdirSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { unpin } from '../bpf/pins.ts';
import type { Config } from '../config/config.ts';
import { CommonConfig } from '../dataplane/common-config.ts';
import { Drain } from '../dataplane/drain.ts';
import { Notes } from '../dataplane/notes.ts';
import { PinLayout } from '../dataplane/pins.ts';
import { monotonic } from '../dataplane/ports.ts';
import { ACTIVE_FLAGS } from '../dataplane/uplink.ts';
import { probeSocket } from '../grpc/unix-socket.ts';
import { RequirementError } from '../util/errors.ts';
import { lockDirectory } from './lock.ts';
import { removeDataPlane, type Removed } from './removal.ts';

export interface CleanupOptions {
  /** Do not wait for peers: packets that they send fast are lost until they notice. */
  readonly force: boolean;
  /** Drain if necessary and wait until drained. */
  readonly wait: boolean;
  /** Tells a person what goes on. */
  readonly say: (line: string) => void;
  /** Ends the waiting. */
  readonly signal?: AbortSignal;
}

/** Peers may still send fast, or take this node's packets for masqueraded ones. */
export class NotDrainedError extends Error {
  override readonly name = 'NotDrainedError';
}

/** @throws NotDrainedError unless forced, or waited for */
async function requireDrained(pins: PinLayout, notes: Notes, options: CleanupOptions): Promise<void> {
  if (!pins.exists()) return;
  using config = CommonConfig.open(pins.map('config'));
  if (config === undefined) {
    if (options.force) return;
    throw new NotDrainedError(
      `what is pinned at ${pins.root} is no data plane that could be drained: use the version that loaded it, or --force ` +
        '(connections then stall until the peers notice)',
    );
  }
  const drain = new Drain(config, notes, monotonic);
  if (options.force || isNeverActive(config, drain)) {
    config.setFlags(0, ACTIVE_FLAGS);
    return;
  }
  if (options.wait) {
    drain.start();
    if (drain.remainingMs > 0) options.say(`draining: ${Math.ceil(drain.remainingMs / 1000)} s left`);
    const { signal } = options;
    while (drain.state === 'draining') await sleep(drain.remainingMs, undefined, signal && { signal });
    return;
  }
  if (!drain.active) {
    throw new NotDrainedError(
      'the node is not drained, peers may still send to it on the fast path: run "xmasq drain --wait" before stopping ' +
        'xmasq-agent, or repeat this with --wait, or with --force (connections then stall until the peers notice)',
    );
  }
  if (drain.state === 'draining') {
    throw new NotDrainedError(
      `the node is still draining, for ${Math.ceil(drain.remainingMs / 1000)} s: wait, or repeat this with --wait or --force`,
    );
  }
}

/** It has never sent or restored anything: there is nobody to wait for. */
function isNeverActive(config: CommonConfig, drain: Drain): boolean {
  if (drain.active || (config.flags & ACTIVE_FLAGS) !== 0) return false;
  // Of another version it is not known.
  const { whole, layoutVersion } = config;
  return whole === undefined ? layoutVersion === 0 : whole.uplinkIfindex4 + whole.uplinkIfindex6 === 0;
}

/**
 * Detaches every program and removes every pin, map and qdisc of ours.
 * @throws RequirementError while a sidecar is running, NotDrainedError; the reason of `signal` where that ended the waiting
 */
export async function cleanup(config: Config, options: CleanupOptions): Promise<Removed> {
  // An error code, unless somebody answered.
  const refusal = await probeSocket(config.socket);
  if (refusal === undefined) {
    throw new RequirementError(
      `xmasq-agent is running (it serves ${config.socket}) and would attach everything again`,
      'stop it first',
    );
  }
  const pins = new PinLayout(config.bpffs);
  const result = existsSync(pins.root) ? await removeAll(pins, options) : { attachments: 0, pins: 0 };
  unpin(config.socket);
  return result;
}

async function removeAll(pins: PinLayout, options: CleanupOptions): Promise<Removed> {
  // Its socket may be another than the configured one.
  const lock = lockDirectory(pins.root);
  try {
    return await removeLocked(pins, options);
  } finally {
    lock.release();
  }
}

async function removeLocked(pins: PinLayout, options: CleanupOptions): Promise<Removed> {
  const notes = new Notes(pins.notes);
  await requireDrained(pins, notes, options);
  const removed = removeDataPlane(pins);
  if (existsSync(pins.root)) rmdirSync(pins.root);
  return removed;
}
