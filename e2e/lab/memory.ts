/** Memory of processes. */
import { readFileSync } from 'node:fs';
import { LabError } from './errors.ts';

/** What a process has in memory. */
export interface ResidentMemory {
  /** Now, bytes. */
  readonly rssBytes: number;
  /** The most that it ever had, bytes. */
  readonly peakBytes: number;
}

/** As /proc/PID/status says. @throws Error there is no such process; LabError the kernel does not tell */
export function residentMemory(pid: number): ResidentMemory {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  const bytes = (name: string): number => {
    const [, kib] = new RegExp(`^${name}:\\s+(\\d+) kB$`, 'm').exec(status) ?? [];
    if (kib === undefined) throw new LabError(`process ${pid}: no ${name} in its status: it has ended`);
    return Number(kib) * 1024;
  };
  return { rssBytes: bytes('VmRSS'), peakBytes: bytes('VmHWM') };
}
