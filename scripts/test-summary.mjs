// Closes scripts/test.sh: a table of its stages, the ten slowest specs of all suites and `N passed, N failed`.
// Exit code 1 if anything failed. A stage that fails without a failed spec (lint, build, a crash, a time-out)
// counts as one failure.
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { closingLine, retriedList, slowestTable } from './test-results.mjs';

const directory = process.argv[2];
if (directory === undefined) {
  process.stderr.write('usage: test-summary.mjs RESULTS_DIRECTORY\n');
  process.exit(2);
}

const total = { passed: 0, failed: 0, skipped: 0, specs: [] };
const rows = [];
for (const line of readFileSync(join(directory, 'stages.jsonl'), 'utf8').trimEnd().split('\n')) {
  const { stage, code, seconds } = JSON.parse(line);
  const file = join(directory, `${stage}.json`);
  const outcome = existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : undefined;
  let failed = outcome?.failed ?? 0;
  if (code !== 0 && failed === 0) failed = 1;
  total.passed += outcome?.passed ?? 0;
  total.failed += failed;
  total.skipped += outcome?.skipped ?? 0;
  total.specs.push(...(outcome?.specs ?? []));
  const counts = outcome === undefined ? '' : closingLine(outcome);
  const verdict = code === 0 && failed === 0 ? 'ok' : `FAILED (${code})`;
  rows.push(`  ${stage.padEnd(8)} ${verdict.padEnd(12)} ${`${seconds} s`.padStart(7)}  ${counts}`.trimEnd());
}
writeFileSync(join(directory, 'closing-line'), `${closingLine(total)}\n`); // for .ci/run
process.stdout.write(
  `Stages:\n${rows.join('\n')}\n\n${slowestTable(total.specs)}\n\n${retriedList(total.specs)}${closingLine(total)}\n`,
);
process.exitCode = total.failed === 0 ? 0 : 1;
