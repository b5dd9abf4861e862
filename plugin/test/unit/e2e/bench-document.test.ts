/** Places in docs/performance.md that a program fills. */
import { readFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { FACTS as APPS } from '../../../../e2e/bench/apps/apps.ts';
import { filled } from '../../../../e2e/bench/document.ts';
import { FACTS as MICRO } from '../../../../e2e/bench/micro/tests.ts';
import { FACTS as MODES } from '../../../../e2e/bench/modes/tests.ts';
import { FACTS as SCALE } from '../../../../e2e/bench/scale/figures.ts';

const DOCUMENT = readFileSync(new URL('../../../../docs/performance.md', import.meta.url), 'utf8');

test('a place is filled anew, and nothing else changes', () => {
  const document =
    'before\n<!-- table: a -->\n\nold\n\n<!-- end of a -->\nbehind\n<!-- table: b -->\n<!-- end of b -->\n';
  const once = filled(document, 'a', 'new');
  expect(once).toBe(document.replace('old', 'new'));
  expect(filled(once, 'a', 'new')).toBe(once);
  expect(() => filled(document, 'c', 'new')).toThrow('<!-- table: c -->');
});

test.each([
  ['bench-apps', APPS],
  ['bench-micro', MICRO],
  ['bench-modes', MODES],
  ['bench-scale', SCALE],
])('docs/performance.md has a place for %s; a table in it has all its figures', (name, facts) => {
  const [, place = ''] = new RegExp(`<!-- table: ${name} -->([^]*)<!-- end of ${name} -->`).exec(DOCUMENT) ?? [];
  expect(place.trim()).not.toBe('');
  if (place.trim() === 'No run yet.') return;
  const titles = [...place.matchAll(/^\| (\S.*?) +\|/gm)].map(([, title]) => title).slice(2);
  expect(titles).toEqual(Object.values(facts).map(({ title }) => title));
});
