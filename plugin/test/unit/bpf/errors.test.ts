import { describe, expect, test } from '@jest/globals';
import {
  BpfError,
  check,
  Errno,
  errnoCode,
  isEEXIST,
  isENOENT,
  isFull,
  isPermission,
  LayoutMismatchError,
  VerifierError,
} from '../../../src/bpf/errors.ts';

describe('error numbers', () => {
  test.each([
    [2, 'ENOENT'],
    [524, 'ENOTSUPP'],
    [4007, 'LIBBPF_VERIFY'],
    [123456, 'E123456'],
  ])('%d is %s', (errno, code) => expect(errnoCode(errno)).toBe(code));

  test('classify errors', () => {
    expect(isENOENT(new BpfError('open', Errno.ENOENT))).toBe(true);
    expect(isENOENT(new Error('ENOENT'))).toBe(false);
    expect(isEEXIST(new BpfError('pin', Errno.EEXIST))).toBe(true);
    expect(isPermission(new BpfError('load', Errno.EPERM))).toBe(true);
    expect(isFull(new BpfError('set', Errno.E2BIG)) && isFull(new BpfError('set', Errno.ENOSPC))).toBe(true);
  });
});

describe('messages', () => {
  test('say what, why and what to do', () => {
    expect(new BpfError('mount x', Errno.EPERM, '', 'run as root').message).toBe('mount x: EPERM (run as root)');
    expect(new BpfError('mount x', Errno.EPERM, '').libbpfLog).toBeUndefined();
    expect(check('read', 3)).toBe(3);
    expect(() => check('read', -Errno.EBADF, 'why')).toThrow('read: EBADF');
  });

  test('of the verifier are short, its log is complete', () => {
    const log = `0: R1=ctx()\n${'x'.repeat(5000)}\nR2 is not a pointer\nprocessed 9 insns (limit 1000000)\n`;
    const error = new VerifierError('load o', Errno.EACCES, 'p', log, 'all');
    expect(error.message.length).toBeLessThan(400);
    expect(new VerifierError('load o', 13, 'p', 'a\nb\nR2 bad\nprocessed 1 insns\n', '').message).toBe(
      'load o: EACCES (b | R2 bad)',
    );
    expect(error.verifierLog).toBe(log);
  });

  test('of a layout mismatch name map, field, both values and the pin', () => {
    const error = new LayoutMismatchError([
      { map: 'flows', pinPath: '/p/flows', field: 'value_size', pinned: 8, wanted: 16 },
    ]);
    expect(error.message).toBe('pinned maps have another layout: flows.value_size is 8 at /p/flows, wanted 16');
  });
});
