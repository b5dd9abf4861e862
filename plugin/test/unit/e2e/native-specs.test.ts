/** The list of specs that run on Open vSwitch names every spec of the native lab. */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { NATIVE_SPECS } from '../../../../e2e/vm/jest/native-specs.ts';
import { KERNELS } from '../../../../e2e/vm/kernels.ts';

const E2E = join(import.meta.dirname, '../../../../e2e');

test('every spec is in the list, and nothing else', () => {
  const specs = ['matrix', 'specs', 'specs-long'].flatMap((directory) =>
    readdirSync(join(E2E, directory))
      .filter((name) => name.endsWith('.spec.ts'))
      .map((name) => `${directory}/${name.replace('.spec.ts', '')}`),
  );
  expect(Object.keys(NATIVE_SPECS).sort()).toEqual(specs.sort());
});

test('each names kernels, or says why it does not run', () => {
  for (const kernels of Object.values(NATIVE_SPECS)) {
    if (typeof kernels === 'string') expect(kernels).not.toBe('');
    else expect(KERNELS).toEqual(expect.arrayContaining([...kernels]));
  }
});
