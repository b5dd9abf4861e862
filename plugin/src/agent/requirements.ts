/** What the sidecar needs from the machine, checked before anything is touched; `xmasq doctor` makes the same checks. */
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { isPermission } from '../bpf/errors.ts';
import { tcxSupported } from '../bpf/link.ts';
import { missingCapabilities } from '../dataplane/probe.ts';
import { RequirementError } from '../util/errors.ts';

/** There in every network namespace once the module is loaded. */
const CONNTRACK_FILE = '/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established';
/** The kernel's own types: its functions cannot be called without them. */
const BTF_FILE = '/sys/kernel/btf/vmlinux';
/** Seconds and nanoseconds that this process's clocks differ from those of the machine. */
const CLOCK_OFFSETS_FILE = '/proc/self/timens_offsets';
const STATUS_FILE = '/proc/self/status';
const USER_MAP_FILE = '/proc/self/uid_map';
/** Of the first user namespace: every user ID is itself. */
const WHOLE_USER_MAP = /^\s*0\s+0\s+4294967295\s*$/;

/** All of the below, in the order in which one explains the next. @throws RequirementError */
export function requireMachine(): void {
  requireCapabilities();
  requireBpf();
  requireBtf();
  requireClock();
  requireConntrack();
}

/** @throws RequirementError naming the capabilities */
export function requireCapabilities(): void {
  const missing = missingCapabilities();
  if (missing.length === 0) return;
  throw new RequirementError(
    `this process lacks ${missing.join(', ')}`,
    'run it as root, or give the container these capabilities (CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON are all it needs)',
  );
}

/**
 * bpf(2) must not be refused to a process that has the capabilities.
 * @throws RequirementError saying who refuses it
 */
export function requireBpf(): void {
  try {
    tcxSupported();
  } catch (error) {
    if (isPermission(error)) throw bpfRefusal();
    throw error;
  }
}

/** Who refuses bpf(2) to this process. */
export function bpfRefusal(): RequirementError {
  const refused = 'bpf(2) is refused (EPERM), though this process has the capabilities';
  if (!WHOLE_USER_MAP.test(readFileSync(USER_MAP_FILE, 'utf8'))) {
    return new RequirementError(
      `${refused}; it has them in a user namespace, where they count for nothing`,
      'run it in the user namespace of the host',
    );
  }
  if (/^Seccomp:\s*2$/m.test(readFileSync(STATUS_FILE, 'utf8'))) {
    return new RequirementError(
      `${refused}; a seccomp filter is in force, and profiles of older container runtimes allow bpf with CAP_SYS_ADMIN only`,
      'upgrade the container runtime, or set a seccomp profile that allows bpf with CAP_BPF',
    );
  }
  return new RequirementError(refused, 'look for a security module or kernel lockdown that does so (dmesg, audit log)');
}

/** @throws RequirementError where the kernel does not tell its types */
export function requireBtf(): void {
  if (existsSync(BTF_FILE)) return;
  throw new RequirementError(
    `there is no ${BTF_FILE}`,
    "use a kernel built with CONFIG_DEBUG_INFO_BTF=y, and in a container mount the host's /sys",
  );
}

/**
 * Times in the maps are the kernel's: CLOCK_MONOTONIC must be the same for this process.
 * @throws RequirementError in a time namespace with another clock
 */
export function requireClock(): void {
  // Kernels without time namespaces have no such file.
  const offsets = existsSync(CLOCK_OFFSETS_FILE) ? readFileSync(CLOCK_OFFSETS_FILE, 'utf8') : '';
  const [, seconds = '0', nanoseconds = '0'] = /^monotonic\s+(-?\d+)\s+(\d+)$/m.exec(offsets) ?? [];
  if (Number(seconds) === 0 && Number(nanoseconds) === 0) return;
  throw new RequirementError(
    `this process is in a time namespace whose CLOCK_MONOTONIC is ${seconds} s off the kernel's`,
    'run it in the time namespace of the host',
  );
}

/** Connection tracking is there in this network namespace. */
export function conntrackLoaded(): boolean {
  return existsSync(CONNTRACK_FILE);
}

/**
 * Connection tracking has to be there: without it nothing is ever admitted.
 * @throws RequirementError
 */
export function requireConntrack(): void {
  if (conntrackLoaded()) return;
  const { error, stderr } = spawnSync('modprobe', ['nf_conntrack'], { encoding: 'utf8', timeout: 10_000 });
  if (conntrackLoaded()) return;
  const why = error === undefined ? stderr.trim() : error.message;
  throw conntrackMissing(why === '' ? '' : ` (modprobe: ${why})`);
}

/** @param detail in brackets, after a blank; may be empty */
export function conntrackMissing(detail = ''): RequirementError {
  return new RequirementError(
    `the kernel module nf_conntrack is not loaded${detail}`,
    'load it on the node; Antrea loads it when it starts',
  );
}
