import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll } from '@jest/globals';
import { compileBpf, INSTRUMENTED } from './compile.ts';
import { instrumentedRules } from './rules/instrumented.ts';
import { testRules } from './rules/run.ts';

let directory: string;
let object: string;

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'xp-instrumented-'));
  object = await compileBpf(INSTRUMENTED, join(directory, 'instrumented.bpf.o'));
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

testRules('redirects, copies and VLAN tags', instrumentedRules, () => object);
