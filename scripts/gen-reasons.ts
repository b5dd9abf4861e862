/** Writes the table of reasons in docs/admin.md from plugin/src/cli/reason-texts.ts; a test compares the two. */
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { format, resolveConfig } from 'prettier';
import { filled } from '../e2e/bench/document.ts';
import { reasonRows } from '../plugin/src/cli/reason-texts.ts';
import { REASONS } from '../plugin/src/grpc/reasons.ts';

const DOCUMENT = fileURLToPath(new URL('../docs/admin.md', import.meta.url));

const rows = [['Reason', 'Shown in', 'Meaning', 'What to do'], ['---', '---', '---', '---'], ...reasonRows(REASONS)];
const table = rows.map((cells) => `| ${cells.join(' | ')} |`).join('\n');
const text = filled(readFileSync(DOCUMENT, 'utf8'), 'reasons', table);
writeFileSync(DOCUMENT, await format(text, { ...(await resolveConfig(DOCUMENT)), filepath: DOCUMENT }));
