/** Bundles programs for the micro-VM: one file is read over 9p and compiled by an emulated Node, not hundreds. */
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { build, type Plugin } from 'esbuild';
import { CACHE_ROOT, PROJECT_ROOT } from './kernels.ts';

/**
 * Bundles what the program `contents` imports, for the guest's Node, and returns the bundle's path.
 * @param source the file that the bundle is named after, absolute
 * @throws Error with esbuild's message
 */
export async function bundleForGuest(
  source: string,
  contents: string,
  plugins: readonly Plugin[] = [],
): Promise<string> {
  const name = path.relative(PROJECT_ROOT, source).replaceAll(path.sep, '-').replace(/\.ts$/, '.mjs');
  const outfile = path.join(CACHE_ROOT, 'specs', name);
  await build({
    stdin: { contents, resolveDir: PROJECT_ROOT, loader: 'ts' },
    outfile,
    bundle: true,
    platform: 'node',
    format: 'esm',
    target: 'node24',
    external: ['koffi', 'bpf'],
    logLevel: 'silent',
    plugins: [...plugins, keepLocations()],
    // What CommonJS dependencies take for granted.
    banner: {
      js: [
        "import { createRequire as bundleCreateRequire } from 'node:module';",
        'const require = bundleCreateRequire(import.meta.url);',
        'const __dirname = import.meta.dirname;',
        'const __filename = import.meta.filename;',
      ].join('\n'),
    },
  });
  return outfile;
}

/* In a bundle, import.meta is the bundle's: files are looked for beside the source. */
function keepLocations(): Plugin {
  return {
    name: 'keep-locations',
    setup(pluginBuild) {
      pluginBuild.onLoad({ filter: /\.ts$/ }, async ({ path: file }) => {
        const values = {
          'import.meta.url': pathToFileURL(file).href,
          'import.meta.dirname': path.dirname(file),
          'import.meta.filename': file,
        };
        let contents = await readFile(file, 'utf8');
        for (const [expression, value] of Object.entries(values)) {
          contents = contents.replaceAll(expression, JSON.stringify(value));
        }
        return { contents: contents.replaceAll('import.meta.main', 'false'), loader: 'ts' };
      });
    },
  };
}
