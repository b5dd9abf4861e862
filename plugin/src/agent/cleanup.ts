/** Takes the data plane away: nothing that XMasq made is left. Needs no running sidecar. */
import { existsSync, rmdirSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { unpin } from '../bpf/pins.ts';
import { ArrayMap } from '../bpf/map.ts';
import type { Config } from '../config/config.ts';
import { ClsactAttacher, TcxAttacher, type Attacher } from '../dataplane/attach.ts';
import { ConfigMap } from '../dataplane/config-map.ts';
import { Drain } from '../dataplane/drain.ts';
import { Notes } from '../dataplane/notes.ts';
import { PinLayout } from '../dataplane/pins.ts';
import { monotonic } from '../dataplane/ports.ts';
import type { TcProgramName } from '../dataplane/programs.ts';
import { ACTIVE_FLAGS } from '../dataplane/uplink.ts';
import { removeXdp } from '../dataplane/uplink-xdp.ts';
import { maps } from '../gen/layouts.ts';
import { probeSocket } from '../grpc/unix-socket.ts';
import { RequirementError } from '../util/errors.ts';
import { lockDirectory } from './lock.ts';

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

/** What was removed. */
export interface CleanupResult {
  readonly attachments: number;
  readonly pins: number;
}

/** uplink_ingress first, so that nothing is restored any more; uplink_egress last, so that nothing looks masqueraded. */
const ORDER: readonly TcProgramName[] = ['uplink_ingress', 'pod_ingress', 'pod_egress', 'uplink_egress'];

/** The config map, if it has this build's layout. */
function openConfigMap(pins: PinLayout): { map: ArrayMap<ReturnType<typeof maps.config.value.decode>> } | undefined {
  try {
    return { map: new ArrayMap({ path: pins.map('config') }, maps.config.value) };
  } catch (error) {
    if (error instanceof RangeError || error instanceof TypeError) return undefined;
    throw error;
  }
}

/** @throws NotDrainedError unless forced, or waited for */
async function requireDrained(pins: PinLayout, notes: Notes, options: CleanupOptions): Promise<void> {
  if (!pins.exists()) return;
  const opened = openConfigMap(pins);
  if (opened === undefined) {
    if (options.force) return;
    throw new NotDrainedError(
      `the data plane at ${pins.root} is of another version, so that it cannot be drained by this one: use the version ` +
        'that loaded it, or --force (connections then stall until the peers notice)',
    );
  }
  using map = opened.map;
  const configMap = new ConfigMap(map, monotonic);
  const drain = new Drain(configMap, notes, monotonic);
  const neverActive =
    !configMap.has(ACTIVE_FLAGS) &&
    !drain.active &&
    configMap.get().uplinkIfindex4 + configMap.get().uplinkIfindex6 === 0;
  if (options.force || neverActive) {
    configMap.setFlags(0, ACTIVE_FLAGS);
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

/**
 * Detaches every program and removes every pin, map and qdisc of ours.
 * @throws RequirementError while a sidecar is running, NotDrainedError; the reason of `signal` where that ended the waiting
 */
export async function cleanup(config: Config, options: CleanupOptions): Promise<CleanupResult> {
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

async function removeAll(pins: PinLayout, options: CleanupOptions): Promise<CleanupResult> {
  // Its socket may be another than the configured one.
  const lock = lockDirectory(pins.root);
  try {
    return await removeLocked(pins, options);
  } finally {
    lock.release();
  }
}

async function removeLocked(pins: PinLayout, options: CleanupOptions): Promise<CleanupResult> {
  const notes = new Notes(pins.notes);
  await requireDrained(pins, notes, options);
  // Before uplink_ingress, without which what XDP has restored would be the node's.
  const attachments = removeXdp(pins) + detachAll([new TcxAttacher(pins), new ClsactAttacher(notes)]);
  let removed = 0;
  for (const directory of [pins.links, pins.programs, pins.maps]) removed += pins.removeAll(directory);
  notes.clear();
  if (existsSync(pins.root)) rmdirSync(pins.root);
  return { attachments, pins: removed };
}
