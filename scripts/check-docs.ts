/**
 * Checks the documents without running anything: links and anchors, names of files, that the programs take every xmasq and
 * xmasq-agent command line, that make targets exist, and that each command in an `sh` fence is run by a test or marked as not
 * run (`sh not-run`). Prints how many are not run. What counts as run: scripts/docs/run-by.ts.
 */
import { brokenLinks, missingFiles, whatRuns, wrongCommands } from './docs/checks.ts';
import { readRepository } from './docs/repository.ts';
import { RULES } from './docs/run-by.ts';

const repository = readRepository();
const { run, marked, problems } = whatRuns(repository, RULES);
const all = [...brokenLinks(repository), ...missingFiles(repository), ...wrongCommands(repository), ...problems];
for (const problem of all) process.stderr.write(`check-docs: ${problem}\n`);
process.stdout.write(
  `check-docs: ${repository.documents.size} documents, ${run + marked} commands in their sh fences: ${run} are run by a test, ` +
    `${marked} are marked as not run\n`,
);
process.exitCode = all.length === 0 ? 0 : 1;
