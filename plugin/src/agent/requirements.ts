/** What the sidecar needs from the machine, checked before anything is touched. */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { missingCapabilities } from '../dataplane/probe.ts';

/** There in every network namespace once the module is loaded. */
const CONNTRACK_FILE = '/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established';

/** Something is missing that an administrator has to provide. */
export class RequirementError extends Error {
  override readonly name = 'RequirementError';
}

/** @throws RequirementError naming the capabilities */
export function requireCapabilities(): void {
  const missing = missingCapabilities();
  if (missing.length === 0) return;
  throw new RequirementError(
    `this process lacks ${missing.join(', ')}: run it as root, or give the container these capabilities ` +
      '(CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON are all it needs)',
  );
}

/**
 * Connection tracking has to be there: without it nothing is ever admitted.
 * @throws RequirementError
 */
export function requireConntrack(): void {
  if (existsSync(CONNTRACK_FILE)) return;
  const { error, stderr } = spawnSync('modprobe', ['nf_conntrack'], { encoding: 'utf8', timeout: 10_000 });
  if (existsSync(CONNTRACK_FILE)) return;
  const why = error === undefined ? stderr.trim() : error.message;
  throw new RequirementError(
    `the kernel module nf_conntrack is not loaded${why === '' ? '' : ` (modprobe: ${why})`}: load it on the node; ` +
      'Antrea loads it when it starts',
  );
}
