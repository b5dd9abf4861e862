// Bundles one program into a single executable ES module: node scripts/bundle.mjs ENTRY.ts OUT.mjs [LAYOUTS.ts]
// LAYOUTS.ts: generated layouts of other BPF objects than this build's, for tests of upgrades.
// What went into it is listed in OUT.meta.json, for the image's list of parts.
// Packages with native code, and one that is large and seldom needed, stay outside and are found in node_modules beside or above the bundle.
import { chmodSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { build } from 'esbuild';

const [entry, outfile, layouts] = process.argv.slice(2);
if (entry === undefined || outfile === undefined) {
  process.stderr.write('usage: bundle.mjs ENTRY.ts OUT.mjs [LAYOUTS.ts]\n');
  process.exit(2);
}

const otherLayouts = {
  name: 'layouts',
  setup({ onLoad }) {
    onLoad({ filter: /\/gen\/layouts\.ts$/ }, ({ path }) => ({
      contents: readFileSync(layouts, 'utf8'),
      loader: 'ts',
      resolveDir: dirname(path),
    }));
  },
};

try {
  const { metafile } = await build({
    entryPoints: [entry],
    outfile,
    bundle: true,
    platform: 'node',
    format: 'esm',
    target: 'node22',
    external: ['koffi', 'bpf', '@kubernetes/client-node'],
    legalComments: 'linked',
    metafile: true,
    plugins: layouts === undefined ? [] : [otherLayouts],
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
  writeFileSync(outfile.replace(/\.mjs$/, '.meta.json'), JSON.stringify(metafile));
  chmodSync(outfile, 0o755);
} catch {
  process.exit(1); // esbuild has printed what is wrong
}
