/** The checkout as the checks of the documents see it. */
import { existsSync, globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Repository } from './checks.ts';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
/** Of every document. */
const PATTERNS = ['*.md', '{docs,charts,e2e,plugin,bpf-src,proto,scripts}/**/*.md'];

/** Reads every document and the Makefile. */
export function readRepository(): Repository {
  const read = (path: string): string => readFileSync(join(ROOT, path), 'utf8');
  const paths = globSync(PATTERNS, { cwd: ROOT }).sort();
  return {
    documents: new Map(paths.map((path) => [path, read(path)])),
    exists: (path) => existsSync(join(ROOT, path)),
    read,
    targets: new Set([...read('Makefile').matchAll(/^([a-z-]+):.*## /gm)].map((match) => match[1] ?? '')),
  };
}
