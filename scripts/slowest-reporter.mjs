// jest reporter: writes the outcome of a run to build/test-results/<suite>.json and, unless scripts/test.sh will do
// it for all suites (XMASQ_SUMMARY=later), prints the ten slowest specs and the closing line.
import { mkdirSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { closingLine, retriedList, slowestTable } from './test-results.mjs';

export default class SlowestReporter {
  /** @param {{rootDir: string}} globalConfig jest's configuration */
  constructor(globalConfig) {
    this.rootDir = globalConfig.rootDir;
  }

  /**
   * @param {unknown} _contexts unused
   * @param {import('@jest/reporters').AggregatedResult} results of all files of this run
   */
  onRunComplete(_contexts, results) {
    const outcome = {
      passed: results.numPassedTests,
      // A file that cannot even be loaded has no failed test, but it is a failure.
      failed: results.numFailedTests + results.numRuntimeErrorTestSuites,
      skipped: results.numPendingTests + results.numTodoTests,
      specs: results.testResults.flatMap((file) =>
        file.testResults
          .filter((spec) => typeof spec.duration === 'number')
          .map((spec) => ({
            file: relative(this.rootDir, file.testFilePath),
            name: spec.fullName,
            ms: spec.duration,
            tries: spec.invocations ?? 1,
          })),
      ),
    };
    const directory = join(this.rootDir, 'build', 'test-results');
    mkdirSync(directory, { recursive: true });
    writeFileSync(
      join(directory, `${process.env.XMASQ_SUITE ?? 'jest'}.json`),
      `${JSON.stringify(outcome, null, 1)}\n`,
    );
    if (process.env.XMASQ_SUMMARY === 'later') return;
    // jest's own summary is written after every reporter's turn; ours is to be the end.
    process.once('exit', () =>
      process.stdout.write(
        `\n${slowestTable(outcome.specs)}\n\n${retriedList(outcome.specs)}${closingLine(outcome)}\n`,
      ),
    );
  }
}
