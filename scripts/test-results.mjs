// What the reporter and the summary of several suites share.

/**
 * @typedef {{file: string, name: string, ms: number, tries: number}} Spec one test, how long it took and how often it was tried
 * @typedef {{passed: number, failed: number, skipped: number, specs: Spec[]}} Outcome of one suite
 */

/**
 * The ten slowest specs as printable lines, slowest first.
 * @param {Spec[]} specs
 */
export function slowestTable(specs) {
  const slowest = [...specs].sort((a, b) => b.ms - a.ms).slice(0, 10);
  if (slowest.length === 0) return 'No specs ran.';
  const rows = slowest.map(({ file, name, ms }) => `${(ms / 1000).toFixed(1).padStart(8)} s  ${file}: ${name}`);
  return ['Slowest specs:', ...rows].join('\n');
}

/**
 * Specs that needed a second try, one per line, and an empty line; nothing if there are none.
 * @param {Spec[]} specs
 */
export function retriedList(specs) {
  const rows = specs.filter(({ tries }) => tries > 1).map(({ file, name }) => `  ${file}: ${name}`);
  return rows.length === 0 ? '' : `Tried twice (the first error is in the output above):\n${rows.join('\n')}\n\n`;
}

/**
 * `N passed, N failed`, and how many were skipped if any.
 * @param {Pick<Outcome, 'passed' | 'failed' | 'skipped'>} counts
 */
export function closingLine({ passed, failed, skipped }) {
  return `${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`;
}
