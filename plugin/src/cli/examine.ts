/** The doctor as commands call it. */
import { DEFAULT_CONFIG_FILE } from '../config/load.ts';
import type { Finding, Report, Result } from '../doctor/index.ts';
import { xmasq } from '../gen/xmasq.js';
import { AdminClient } from './client.ts';
import { DEFAULT_SOCKET, DEFAULT_TIMEOUT_S, type Context } from './context.ts';
import { printable } from './text.ts';

export interface ExamineOptions {
  readonly config?: string;
  readonly bpfDir?: string;
}

/** Makes the doctor's checks. */
export async function examineNode(context: Context, { config, bpfDir }: ExamineOptions): Promise<Report> {
  const { io, givenSocket, timeout = DEFAULT_TIMEOUT_S } = context;
  // With it come the sidecar's parts and what they load (koffi): other commands need none of that.
  const { examine } = await import('../doctor/index.ts');
  return examine({
    configFile: config ?? DEFAULT_CONFIG_FILE,
    environment: { NODE_NAME: io.env.NODE_NAME },
    bpfDirectory: bpfDir,
    socket: givenSocket,
    defaultSocket: DEFAULT_SOCKET,
    ask: async (socket) => {
      const client = await AdminClient.connect({ socket, timeoutMs: timeout * 1000, stopped: io.stopped });
      try {
        return await client.call('status', new xmasq.v1.StatusRequest());
      } finally {
        client.close();
      }
    },
  });
}

/** How many findings have this result. */
export function countOf(findings: readonly Finding[], result: Result): number {
  return findings.filter((finding) => finding.result === result).length;
}

/** The findings as plain values, for JSON. */
export function reportJson(findings: readonly Finding[]): object {
  return { failed: countOf(findings, 'failed'), warnings: countOf(findings, 'warning'), findings };
}

/** The findings for people, in the order of the checks; what is to be done below each. */
export function reportText(findings: readonly Finding[]): string {
  const lines = findings.flatMap(({ check, result, what, where, action }) => [
    `${result.padEnd(7)}  ${check.padEnd(13)}  ${what}`,
    ...(action === '' ? [] : [`${' '.repeat(9)}where: ${where}`, `${' '.repeat(9)}to do: ${action}`]),
  ]);
  const counts = (['ok', 'warning', 'failed', 'skipped'] as const).map((result) => {
    const count = countOf(findings, result);
    return `${count} ${result === 'warning' && count !== 1 ? 'warnings' : result}`;
  });
  return [...lines, counts.join(', ')].map((line) => `${printable(line)}\n`).join('');
}
