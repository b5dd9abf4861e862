// Bundles one program into a single executable ES module: node scripts/bundle.mjs ENTRY.ts OUT.mjs
// Packages with native code, and one that is large and seldom needed, stay outside and are found in node_modules beside or above the bundle.
import { chmodSync } from 'node:fs';
import { build } from 'esbuild';

const [entry, outfile] = process.argv.slice(2);
if (entry === undefined || outfile === undefined) {
  process.stderr.write('usage: bundle.mjs ENTRY.ts OUT.mjs\n');
  process.exit(2);
}

try {
  await build({
    entryPoints: [entry],
    outfile,
    bundle: true,
    platform: 'node',
    format: 'esm',
    target: 'node22',
    external: ['koffi', 'bpf', '@kubernetes/client-node'],
    legalComments: 'linked',
    logLevel: 'warning',
    // CommonJS dependencies call require(), which an ES module lacks.
    banner: {
      js: [
        '#!/usr/bin/env node',
        "import { createRequire as bundleCreateRequire } from 'node:module';",
        'const require = bundleCreateRequire(import.meta.url);',
      ].join('\n'),
    },
  });
  chmodSync(outfile, 0o755);
} catch {
  process.exit(1); // esbuild has printed what is wrong
}
