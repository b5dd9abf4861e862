/**
 * Writes the table of docs/compatibility.md from build/matrix.json, the result of `make test-matrix`. Refuses a result that is
 * incomplete, or in which pods could tell the paths apart.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { format, resolveConfig } from 'prettier';
import { expectedRows, markdownOf } from '../e2e/matrix/table.ts';
import type { Row } from '../e2e/matrix/judge.ts';

const MATRIX = fileURLToPath(new URL('../build/matrix.json', import.meta.url));
const DOCUMENT = fileURLToPath(new URL('../docs/compatibility.md', import.meta.url));
const BEGIN = '<!-- table: scripts/gen-compatibility.ts -->';
const END = '<!-- end of table -->';

function fail(message: string): never {
  process.stderr.write(`gen-compatibility.ts: ${message}\n`);
  process.exit(1);
}

const rows = JSON.parse(readFileSync(MATRIX, 'utf8')) as Row[];
const nameOf = ({
  protocol,
  target,
  family,
  mode,
  xdp,
  offloads,
}: Omit<Row, 'provider' | 'identical' | 'path' | 'reason'>): string =>
  [protocol, target, family, mode, ...(xdp ? ['XDP'] : []), `offloads ${offloads}`].join(', ');
const ran = new Set(rows.map(nameOf));
const missing = expectedRows()
  .map(nameOf)
  .filter((name) => !ran.has(name));
if (missing.length > 0)
  fail(`${MATRIX} lacks ${missing.length} cells, e.g. "${missing[0] ?? ''}": run make test-matrix`);
const different = rows.filter(({ identical }) => !identical).map(nameOf);
if (different.length > 0) fail(`pods see a difference: ${different.join('; ')}`);

const document = readFileSync(DOCUMENT, 'utf8');
const [begin, end] = [document.indexOf(BEGIN), document.indexOf(END)];
if (begin < 0 || end < begin) fail(`${DOCUMENT} has no place for the table: ${BEGIN} ... ${END}`);
const text = `${document.slice(0, begin)}${BEGIN}\n\n${markdownOf(rows)}\n\n${document.slice(end)}`;
writeFileSync(DOCUMENT, await format(text, { ...(await resolveConfig(DOCUMENT)), filepath: DOCUMENT }));
