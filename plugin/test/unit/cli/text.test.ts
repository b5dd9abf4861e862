import { describe, expect, test } from '@jest/globals';
import { renderFields, renderTable } from '../../../src/cli/table.ts';
import { addressAndPort, compact, duration, printable, protocolName, protocolNumber } from '../../../src/cli/text.ts';
import { REASONS, reasonCode, reasonName } from '../../../src/grpc/reasons.ts';

describe('values in tables', () => {
  test.each([
    [0, '0'],
    [999, '999'],
    [1000, '1.0k'],
    [1550, '1.6k'],
    [99_940, '99.9k'],
    [99_960, '100k'],
    [999_499, '999k'],
    [999_600, '1.0M'],
    [2 ** 53, '9.0P'],
  ])('compact %d', (value, text) => expect(compact(value)).toBe(text));

  test.each([
    [0, '0ms'],
    [999, '999ms'],
    [1000, '1.0s'],
    [59_999, '59.9s'],
    [60_000, '1m0s'],
    [3_599_000, '59m59s'],
    [3_600_000, '1h0m'],
    [90_000_000, '1d1h'],
  ])('duration %d', (value, text) => expect(duration(value)).toBe(text));

  test('addresses, protocols, control characters', () => {
    expect(addressAndPort('fd00::1', 80)).toBe('[fd00::1]:80');
    expect(addressAndPort('10.0.0.1', 0)).toBe('10.0.0.1');
    expect([protocolName(132), protocolName(99)]).toEqual(['sctp', '99']);
    expect(['TCP', '0', '255', '256', '-1', ''].map(protocolNumber)).toEqual([
      6,
      0,
      255,
      undefined,
      undefined,
      undefined,
    ]);
    expect(printable('a\nb\u009b')).toBe('a?b?');
  });

  test('tables and fields', () => {
    const columns = [{ name: 'NAME' }, { name: 'N', right: true }];
    expect(
      renderTable(columns, [
        ['a', '100'],
        ['', '1'],
      ]),
    ).toBe('NAME    N\na     100\n-       1\n');
    expect(
      renderFields([
        ['a', '1'],
        ['long', '2'],
      ]),
    ).toBe('a:     1\nlong:  2\n');
  });
});

test('reasons have names both ways', () => {
  expect(REASONS.length).toBeGreaterThan(40);
  for (const { code, name } of REASONS) {
    expect(reasonName(code)).toBe(name);
    for (const spelling of [name, name.replaceAll('-', '_').toUpperCase(), `REASON_${name}`]) {
      expect(reasonCode(spelling)).toBe(code);
    }
  }
  expect(reasonName(9999)).toBe('reason-9999');
  expect(reasonCode('nonsense')).toBeUndefined();
});
