/**
 * Writes docs/cli.md from the commands' own code.
 *
 *   gen-cli.ts [--check]
 *
 * --check  writes nothing, fails where the file is not up to date
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { format, resolveConfig } from 'prettier';
import { cliMarkdown } from './docs/cli-markdown.ts';
import { PROGRAMS } from './docs/programs.ts';

const DOCUMENT = fileURLToPath(new URL('../docs/cli.md', import.meta.url));

function current(): string | undefined {
  try {
    return readFileSync(DOCUMENT, 'utf8');
  } catch {
    return undefined;
  }
}

const { values } = parseArgs({ options: { check: { type: 'boolean', default: false } } });
const text = await format(cliMarkdown(PROGRAMS), { ...(await resolveConfig(DOCUMENT)), filepath: DOCUMENT });
if (current() !== text) {
  if (values.check) {
    process.stderr.write('gen-cli: docs/cli.md is not what the code gives: run node scripts/gen-cli.ts\n');
    process.exitCode = 1;
  } else {
    writeFileSync(DOCUMENT, text);
  }
}
