/** Each capability of the chart's container is needed, and with these three alone everything works: pins, and nothing by its ID. */
import { execFileSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { BPFFS, ensureBpffs } from '../../src/bpf/pins.ts';
import { grantedCapabilities } from '../../../e2e/chart/renderings.ts';

const OBJECT = join(import.meta.dirname, '../../../build/bpf/xmasq.bpf.o');
const FIXTURE = join(import.meta.dirname, 'fixtures/capable.ts');
const LIMIT_MS = 60_000;

let pins: string;
let serial = 0;

/** How each step of the fixture ended, in a process with these capabilities. */
function withCapabilities(names: readonly string[]): Record<string, string> {
  const bounding = ['-all', ...names.map((name) => `+${name.toLowerCase()}`)].join(',');
  const confined = ['setpriv', `--bounding-set=${bounding}`, '--inh-caps=-all', '--no-new-privs'];
  const argv = ['--net', ...confined, process.execPath, FIXTURE, OBJECT, pins];
  // Everything in one namespace: the fixture may not enter another.
  const output = execFileSync('unshare', argv, {
    encoding: 'utf8',
    timeout: LIMIT_MS,
    env: { PATH: process.env['PATH'] },
  });
  return JSON.parse(output) as Record<string, string>;
}

beforeAll(() => {
  ensureBpffs();
});
beforeEach(() => {
  pins = join(BPFFS, `xc-${process.pid}-${serial++}`);
});
afterEach(() => {
  rmSync(pins, { recursive: true, force: true });
});

describe('a process with the capabilities of the chart', () => {
  test(
    'loads, attaches, takes over what is pinned, and reads conntrack',
    () => {
      expect(withCapabilities(grantedCapabilities())).toEqual({
        load: 'done',
        attach: 'done',
        adopt: 'done',
        conntrack: 'done',
      });
    },
    LIMIT_MS,
  );

  test.each([
    ['BPF', 'load', /EPERM/],
    ['PERFMON', 'load', /EACCES|EPERM/],
    ['NET_ADMIN', 'load', /EPERM/],
    ['NET_ADMIN', 'conntrack', /EPERM/],
  ])(
    'without %s is refused by the kernel: %s',
    (without, step, refusal) => {
      const ended = withCapabilities(grantedCapabilities().filter((name) => name !== without));
      expect(ended[step]).toMatch(refusal);
    },
    LIMIT_MS,
  );
});
