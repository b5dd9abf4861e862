/** The machine and this process: what the sidecar needs of them before it touches anything. */
import { release } from 'node:os';
import { findBpfFiles, type BpfFiles } from '../agent/bpf-files.ts';
import {
  bpfRefusal,
  conntrackLoaded,
  conntrackMissing,
  requireBpf,
  requireBtf,
  requireCapabilities,
  requireClock,
} from '../agent/requirements.ts';
import { isRefused, VerifierError } from '../bpf/errors.ts';
import { libbpf } from '../bpf/libbpf.ts';
import { tryDataPlane } from '../dataplane/load.ts';
import { probeKernel, type KernelProbe } from '../dataplane/probe.ts';
import { Ctnetlink } from '../netlink/ctnetlink.ts';
import { conntrackEvents } from '../netlink/sysctl.ts';
import { errorMessage } from '../util/errors.ts';
import { failure, ok, passed, problemOf, warning, type Outcome } from './finding.ts';

const PROCESS = 'this process';
/** Asked for to see whether there is an answer (addresses for documentation, RFC 5737). */
const NO_CONNECTION = { family: 4, src: '203.0.113.1', dst: '203.0.113.2', proto: 17, sport: 1, dport: 2 } as const;
const SEE_NEEDS = 'see docs/admin.md, "What a node needs"';

/** Makes a check of the sidecar's own. */
function required(check: () => void, where: string, good: string): Outcome {
  try {
    check();
    return passed(good);
  } catch (error) {
    return failure(problemOf(error, where, SEE_NEEDS));
  }
}

/** The user, whom pins and sockets belong to. */
export function checkUser(): Outcome {
  const user = process.geteuid?.() ?? 0;
  if (user === 0) return passed('root');
  return failure({
    what: `this process is of user ${user}: nobody but root may look at the pins and the sockets`,
    where: PROCESS,
    action: 'run it as root, with the capabilities of xmasq-agent',
  });
}

export function checkCapabilities(): Outcome {
  return required(requireCapabilities, PROCESS, 'CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON');
}

export function checkBpf(): Outcome {
  return required(requireBpf, PROCESS, 'bpf(2) is allowed');
}

export function checkBtf(): Outcome {
  return required(requireBtf, `Linux ${release()}`, 'the kernel tells its types');
}

export function checkClock(): Outcome {
  return required(requireClock, PROCESS, "CLOCK_MONOTONIC is the kernel's");
}

/** Not as the sidecar does, which loads the module: nothing is changed here. */
export function checkConntrack(): Outcome {
  const where = `Linux ${release()}`;
  if (!conntrackLoaded()) return failure(problemOf(conntrackMissing(), where, ''));
  try {
    const conntrack = new Ctnetlink();
    try {
      conntrack.get(NO_CONNECTION, 0);
    } finally {
      conntrack.close();
    }
  } catch (error) {
    return failure({
      what: `conntrack cannot be read or steered: ${errorMessage(error)}`,
      where,
      action: 'check that the kernel has the module nf_conntrack_netlink and the process CAP_NET_ADMIN',
    });
  }
  if (conntrackEvents() === 'none') {
    const what = 'conntrack reports no ends of connections: their entries are kept longer than needed';
    const action = 'set net.netfilter.nf_conntrack_events to 1 or 2';
    return { verdicts: [warning({ what, where: 'net.netfilter.nf_conntrack_events', action })], value: true };
  }
  return passed('connection tracking is there and answers');
}

export function checkLibbpf(): Outcome {
  return required(() => libbpf(), 'libbpf.so.1', 'libbpf.so.1 is there');
}

/** @param directory where the objects are; undefined: at the usual places */
export function checkBpfFiles(directory: string | undefined): Outcome<BpfFiles> {
  try {
    const files = findBpfFiles(directory);
    return { verdicts: [ok(files.dataPlane)], value: files };
  } catch (error) {
    return failure(
      problemOf(error, directory ?? 'beside the program', 'install the whole of XMasq, or name them by --bpf-dir'),
    );
  }
}

/** Tries the kernel, as the sidecar does. @param probe a test puts another kernel here */
export async function checkKernel(
  files: BpfFiles,
  probe: (path: string) => Promise<KernelProbe> = probeKernel,
): Promise<Outcome<KernelProbe>> {
  const where = `Linux ${release()}`;
  try {
    const found = await probe(files.probe);
    if (found.conntrackZone) {
      return { verdicts: [ok(`${where}: full function, admission by the kernel's conntrack lookup`)], value: found };
    }
    const what = 'reduced function: the conntrack lookup of this kernel takes no zone, flows need approvals';
    return { verdicts: [warning({ what, where, action: 'use Linux 6.11 or later for full function' })], value: found };
  } catch (error) {
    return failure(refusedOr(error, where, 'use Linux 6.1 or later, better 6.11 or later'));
  }
}

/** Loads every program and keeps none. */
export function checkPrograms({ dataPlane }: BpfFiles): Outcome {
  try {
    tryDataPlane(dataPlane);
    return passed('the kernel takes every program of this build');
  } catch (error) {
    const action =
      error instanceof VerifierError
        ? 'use a kernel that docs/antrea.md lists, and report this'
        : 'install the whole of XMasq again; see docs/admin.md, "What a node needs"';
    return failure(refusedOr(error, dataPlane, action));
  }
}

/** Some commands of bpf(2) may be refused where others are allowed. */
function refusedOr(error: unknown, where: string, action: string) {
  return isRefused(error) ? problemOf(bpfRefusal(), where, '') : problemOf(error, where, action);
}
