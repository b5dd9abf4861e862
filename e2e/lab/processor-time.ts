/**
 * Processor time of client and server. What the kernel does for a packet on its way through the lab is charged to the
 * process that sent it, but for the little that is left to the kernel's own threads: other load on the machine plays no
 * part, where it does in every time by the clock.
 */
import { readFileSync, readdirSync } from 'node:fs';
import { LabError } from './errors.ts';
import type { ExecOptions, ExecResult, Place } from './lab.ts';

/** Of the times in /proc/PID/stat; the same on every architecture of Linux that is left. */
const TICKS_PER_SECOND = 100;

/** Runs a command to its end, as `place.exec`, and says how many seconds of processor time it took. */
export async function execTimed(
  place: Place,
  argv: readonly string[],
  options: ExecOptions = {},
): Promise<ExecResult & { readonly processorSeconds: number }> {
  const script = 'TIMEFORMAT="processor time %3U %3S"; time "$@"';
  const result = await place.exec(['bash', '-c', script, 'bash', ...argv], options);
  const [, user, system] = /^processor time ([\d.]+) ([\d.]+)$/m.exec(result.stderr) ?? [];
  if (user === undefined) throw new LabError(`${place.name}: ${argv.join(' ')}: no processor time: ${result.stderr}`);
  return { ...result, processorSeconds: Number(user) + Number(system) };
}

/**
 * Seconds of processor time that a process and its descendants have taken so far, in steps of 10 ms for each; those that
 * have ended count once their parent has waited for them.
 */
export function processorSeconds(pid: number): number {
  const processes = new Map<number, { readonly parent: number; readonly ticks: number }>();
  for (const entry of readdirSync('/proc')) {
    if (!/^\d+$/.test(entry)) continue;
    const stat = statOf(entry);
    if (stat !== undefined) processes.set(Number(entry), stat);
  }
  if (!processes.has(pid)) throw new LabError(`no process ${pid}`);
  const belongs = (id: number): boolean => {
    if (id === pid) return true;
    const parent = processes.get(id)?.parent ?? 0;
    return parent > 1 && belongs(parent);
  };
  const ticks = [...processes].filter(([id]) => belongs(id)).reduce((sum, [, process]) => sum + process.ticks, 0);
  return ticks / TICKS_PER_SECOND;
}

/** Undefined if the process has ended meanwhile. */
function statOf(pid: string): { readonly parent: number; readonly ticks: number } | undefined {
  let text: string;
  try {
    text = readFileSync(`/proc/${pid}/stat`, 'utf8');
  } catch {
    return undefined;
  }
  // The name in parentheses may hold anything; proc_pid_stat(5) counts from 1: 4 ppid, 14 to 17 utime to cstime.
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  const field = (number: number): number => Number(fields[number - 3]);
  return { parent: field(4), ticks: field(14) + field(15) + field(16) + field(17) };
}
