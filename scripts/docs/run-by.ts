/**
 * Which command of the documents is run by which test. "Run" means: a test starts these very words, with the socket and the
 * configuration of its lab given besides (or, of `make demo` and what precedes it, scripts/test-fresh.sh does so in a clean
 * clone). Everything else stands in a fence marked `not-run`, and is counted.
 */

/** Commands that a test runs. */
export interface Rule {
  /** Of the whole command, its words separated by one blank. */
  readonly command: RegExp;
  /** The test's file. */
  readonly file: string;
  /** Stands in that file while it does so. */
  readonly evidence: string;
}

const DOCUMENTS_SPEC = { file: 'e2e/specs/documents.spec.ts', evidence: "commandsOfFences(document, 'run')" };
const FRESH = 'scripts/test-fresh.sh';

export const RULES: readonly Rule[] = [
  { command: /^xmasq /, ...DOCUMENTS_SPEC },
  { command: /^xmasq-agent (cleanup|certificates|version)\b/, ...DOCUMENTS_SPEC },
  {
    command: /^xmasq-agent run$/,
    file: 'e2e/lab/sidecar.ts',
    evidence: "program('xmasq-agent', this.build), 'run', '--config'",
  },
  {
    command: /^source <\(xmasq completion bash\)$/,
    file: 'plugin/test/unit/cli/completion.test.ts',
    evidence: 'source <(xmasq completion bash)',
  },
  { command: /^make build$/, file: 'scripts/test.sh', evidence: 'stage build make --no-print-directory build' },
  { command: /^make test$/, file: '.ci/run', evidence: 'make --no-print-directory test' },
  { command: /^make demo$/, file: FRESH, evidence: 'set -- demo test' },
  { command: /^git clone \S+ xmasq$/, file: FRESH, evidence: 'git clone --quiet' },
  { command: /^cd xmasq$/, file: FRESH, evidence: 'cd /root/xmasq' },
];
