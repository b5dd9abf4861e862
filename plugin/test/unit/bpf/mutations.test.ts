/** Guards of the data plane change; what takes them out has to change with them, or the long suite finds nothing to take out. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { apply, ruleOf } from '../../prog/mutants.ts';
import { instrumentedMutations, mutations } from '../../prog/mutations.ts';

const SOURCES = join(import.meta.dirname, '../../../../bpf-src');
const all = [...mutations, ...instrumentedMutations];

test('every guard has a name of its own', () => {
  const names = all.map(({ guard }) => guard);
  expect(names.filter((name, i) => names.indexOf(name) !== i)).toEqual([]);
});

test.each(all.map((mutation) => [mutation.guard, mutation] as const))(
  '%s: has a rule, and is in the sources',
  (_guard, mutation) => {
    expect(ruleOf(mutation).name).toBe(mutation.rule);
    for (const edit of mutation.edits) {
      const text = readFileSync(join(SOURCES, edit.file), 'utf8');
      expect(apply(edit, text)).not.toBe(text);
    }
  },
);
