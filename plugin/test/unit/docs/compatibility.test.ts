/** The table of docs/compatibility.md is what the matrix test expects of real packets. */
import { readFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { cellsOf, setups, someSetups } from '../../../../e2e/matrix/cells.ts';
import { FIRST_HEADING, expectedRows, tableOf } from '../../../../e2e/matrix/table.ts';
import { REASONS } from '../../../src/grpc/reasons.ts';
import { table } from '../../../../scripts/docs/markdown.ts';

const document = readFileSync(new URL('../../../../docs/compatibility.md', import.meta.url), 'utf8');

test('docs/compatibility.md has the table that the matrix test expects', () => {
  const [heading, ...rows] = tableOf(expectedRows());
  expect(table(document, FIRST_HEADING)).toEqual(rows);
  expect(document).toMatch(new RegExp(heading?.map((cell) => `\\| ${cell} +`).join('') ?? ''));
});

test('its reasons are reasons', () => {
  const known = REASONS.map(({ name }) => name);
  const named = expectedRows().flatMap(({ path, reason }) => (path === 'slow' ? [reason.replaceAll('_', '-')] : []));
  expect(named.filter((reason) => !known.includes(reason))).toEqual([]);
});

test('the matrix has no cell twice, and a quick run has every mode with every family and every offload setting', () => {
  const cells = setups()
    .flatMap(cellsOf)
    .map((cell) => JSON.stringify(cell));
  expect(new Set(cells).size).toBe(cells.length);
  expect(cells).toHaveLength(16 * 14);
  const pairs = (of: typeof setups): Set<string> =>
    new Set(
      of().flatMap(({ mode, xdp, family, offloads }) => [
        ...(xdp ? ['in XDP'] : [`${mode} ${family}`, `${mode} ${offloads}`]),
        `${family} ${offloads}`,
      ]),
    );
  expect(pairs(someSetups)).toEqual(pairs(setups));
});
