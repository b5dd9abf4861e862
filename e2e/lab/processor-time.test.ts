/** Processor time of processes of this machine. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { expect, test } from '@jest/globals';
import type { Place } from './lab.ts';
import { run } from './native/process.ts';
import { execTimed, processorSeconds } from './processor-time.ts';

/** Takes some tenths of a second of processor time. */
const BUSY = 'i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done';

const here: Pick<Place, 'name' | 'exec'> = { name: 'here', exec: (argv, options) => run(argv, 'here', options) };

test('a command has that of its descendants, its output and its exit code', async () => {
  const idle = await execTimed(here as Place, ['sh', '-c', 'sleep 0.3; echo out; echo err >&2; exit 3'], {
    check: false,
  });
  expect(idle).toMatchObject({ code: 3, stdout: 'out\n' });
  expect(idle.stderr).toContain('err\n');
  const busy = await execTimed(here as Place, ['sh', '-c', `sh -c '${BUSY}'`]);
  expect(busy.processorSeconds).toBeGreaterThan(0.05);
  expect(idle.processorSeconds).toBeLessThan(busy.processorSeconds / 2);
});

test('a process has that of its children, also when they have ended', async () => {
  const child = spawn(
    'sh',
    ['-c', `read -r go; sh -c '${BUSY}'; echo done; read -r go; sh -c '${BUSY}; echo again; sleep 60'; exit`],
    {
      stdio: ['pipe', 'pipe', 'inherit'],
      detached: true,
    },
  );
  try {
    const pid = child.pid ?? 0;
    expect(processorSeconds(pid)).toBeLessThan(0.05);
    child.stdin.write('\n');
    await once(child.stdout, 'data');
    const ended = processorSeconds(pid);
    expect(ended).toBeGreaterThan(0.05);
    child.stdin.write('\n');
    await once(child.stdout, 'data');
    expect(processorSeconds(pid)).toBeGreaterThan(ended * 1.3);
  } finally {
    process.kill(-(child.pid ?? 0), 'SIGKILL');
    await once(child, 'close');
  }
});

test('of no process is an error', () => {
  expect(() => processorSeconds(2 ** 30)).toThrow(/no process/);
});
