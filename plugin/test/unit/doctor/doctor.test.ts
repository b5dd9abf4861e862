/** The doctor's parts that need no broken machine, and kernels that no machine here has; e2e/specs/doctor has the rest. */
import { describe, expect, test } from '@jest/globals';
import { BpfError, Errno, VerifierError } from '../../../src/bpf/errors.ts';
import { reportJson, reportText } from '../../../src/cli/examine.ts';
import { Examination } from '../../../src/doctor/examination.ts';
import { failure, ok, passed, problemOf } from '../../../src/doctor/finding.ts';
import { checkKernel } from '../../../src/doctor/machine.ts';
import { RequirementError } from '../../../src/util/errors.ts';

const FILES = { dataPlane: '/nowhere/xmasq.bpf.o', probe: '/nowhere/probe.bpf.o' };

describe('an examination', () => {
  test('skips what depends on a failure, and says on which; an error in a check is a failure', async () => {
    const examination = new Examination();
    const a = await examination.look('a', {}, () => passed('good'));
    const b = await examination.look('b', { a }, () => failure({ what: 'bad', where: 'here', action: 'mend it' }));
    const c = await examination.look('c', { a, b }, () => passed('never made'));
    await examination.look('d', { c }, () => passed('never made'));
    await examination.look('e', { a }, () => Promise.reject(new Error('a mistake')));
    expect(examination.findings.map(({ check, result, what }) => `${check} ${result}: ${what}`)).toEqual([
      'a ok: good',
      'b failed: bad',
      'c skipped: not looked at, for want of: b',
      'd skipped: not looked at, for want of: c',
      'e failed: the check itself failed: a mistake',
    ]);
  });

  test('a value may be given in spite of a failure', async () => {
    const examination = new Examination();
    const a = await examination.look('a', {}, () => ({ verdicts: [ok('in part')], value: 7 }));
    expect(await examination.look('b', { a }, (given) => ({ verdicts: [], value: given.a + 1 }))).toBe(8);
  });
});

describe('kernels (fakes: the machine has one kernel)', () => {
  test('one whose conntrack lookup takes no zone works, with reduced function', async () => {
    const { verdicts, value } = await checkKernel(FILES, () => Promise.resolve({ conntrackZone: false, hz: 250 }));
    expect(verdicts).toMatchObject([{ result: 'warning', what: expect.stringContaining('flows need approvals') }]);
    expect(verdicts[0]?.action).toContain('6.11');
    expect(value).toBeDefined();
  });

  test('one that refuses the probes fails', async () => {
    const { verdicts, value } = await checkKernel(FILES, () =>
      Promise.reject(new Error('this kernel refuses the program')),
    );
    expect(verdicts).toMatchObject([{ result: 'failed', what: 'this kernel refuses the program' }]);
    expect(verdicts[0]?.action).toContain('Linux 6.1 or later');
    expect(value).toBeUndefined();
  });

  test('EPERM is not taken for an old kernel', async () => {
    const { verdicts } = await checkKernel(FILES, () => Promise.reject(new BpfError('load', Errno.EPERM)));
    expect(verdicts).toMatchObject([{ result: 'failed', what: expect.stringContaining('(EPERM)') }]);
    expect(verdicts[0]?.action).not.toContain('6.1');
  });

  test('... nor is a program that the verifier refuses taken for EPERM', async () => {
    const error = new VerifierError('load', Errno.EPERM, 'probe_jiffies', 'unknown func', '');
    const { verdicts } = await checkKernel(FILES, () => Promise.reject(error));
    expect(verdicts).toMatchObject([{ result: 'failed', what: expect.stringContaining('unknown func') }]);
    expect(verdicts[0]?.action).toContain('6.1');
  });
});

test('an error that knows what to do is believed', () => {
  expect(problemOf(new RequirementError('what', 'do this'), 'here', 'else')).toEqual({
    what: 'what',
    where: 'here',
    action: 'do this',
  });
  expect(problemOf(new Error('what'), 'here', 'else')).toEqual({ what: 'what', where: 'here', action: 'else' });
});

test('the report: for people and as JSON', () => {
  const findings = [
    { check: 'bpf', ...ok('good') },
    { check: 'uplink', result: 'failed', what: 'no \x1b[31muplink', where: 'eth0', action: 'mend it' },
  ] as const;
  expect(reportText(findings)).toBe(
    [
      'ok       bpf            good',
      'failed   uplink         no ?[31muplink',
      '         where: eth0',
      '         to do: mend it',
      '1 ok, 0 warnings, 1 failed, 0 skipped',
      '',
    ].join('\n'),
  );
  expect(reportJson(findings)).toEqual({ failed: 1, warnings: 0, findings });
});
