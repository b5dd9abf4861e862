/** The seccomp profile that container runtimes give by default, for certain capabilities. */
import { readFileSync } from 'node:fs';

/** Debian's golang-github-containers-common; the rules are those of every runtime's, which come from one source. */
const PROFILE = '/usr/share/containers/seccomp.json';
/** What containerd 1.7 and later releases of 1.6 allow besides (contrib/seccomp/seccomp_default.go); Debian 12's file is older. */
const SINCE_1_7: Readonly<Record<string, readonly string[]>> = { BPF: ['bpf'], PERFMON: ['perf_event_open'] };

interface Condition {
  readonly caps?: readonly string[];
  readonly arches?: readonly string[];
}

interface Rule {
  readonly names: readonly string[];
  readonly action: string;
  readonly args?: readonly object[];
  readonly errnoRet?: number;
  readonly includes?: Condition;
  readonly excludes?: Condition;
}

/**
 * `linux.seccomp` of the runtime specification, on amd64.
 * @param capabilities by Kubernetes's names
 * @param older as runtimes had it that know neither CAP_BPF nor CAP_PERFMON
 */
export function defaultProfile(capabilities: readonly string[], { older = false } = {}): object {
  const { defaultAction, defaultErrnoRet, syscalls } = JSON.parse(readFileSync(PROFILE, 'utf8')) as {
    defaultAction: string;
    defaultErrnoRet?: number;
    syscalls: readonly Rule[];
  };
  const has = (name: string): boolean => capabilities.includes(name.replace(/^CAP_/, ''));
  const applies = ({ includes = {}, excludes = {} }: Rule): boolean =>
    (includes.caps ?? []).every(has) &&
    !(excludes.caps ?? []).some(has) &&
    (includes.arches?.includes('amd64') ?? true) &&
    excludes.arches?.includes('amd64') !== true;
  const allowed = older ? [] : capabilities.flatMap((name) => SINCE_1_7[name] ?? []);
  const rules = syscalls.filter(applies).map(({ names, action, args, errnoRet }) => ({
    // One rule for a system call: an answer is not overruled by another.
    names: names.filter((name) => !allowed.includes(name)),
    ...{ action, args, errnoRet },
  }));
  return {
    ...{ defaultAction, defaultErrnoRet },
    architectures: ['SCMP_ARCH_X86_64', 'SCMP_ARCH_X86', 'SCMP_ARCH_X32'],
    syscalls: [...rules.filter(({ names }) => names.length > 0), { names: allowed, action: 'SCMP_ACT_ALLOW' }].filter(
      ({ names }) => names.length > 0,
    ),
  };
}
