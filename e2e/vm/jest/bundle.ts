/** Bundles a spec file for the micro-VM: one file is read over 9p and compiled by an emulated Node, not hundreds. */
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { build, type Plugin } from 'esbuild';
import { CACHE_ROOT, PROJECT_ROOT } from '../kernels.ts';
import type { RunOptions } from './guest.ts';

const GUEST = path.join(import.meta.dirname, 'guest.ts');
const NATIVE_LAB = path.join(PROJECT_ROOT, 'e2e/lab/native/native.ts');

/** How to bundle a spec file. */
export interface BundleOptions extends RunOptions {
  /** The module to take instead of the native lab's, absolute. */
  readonly lab: string;
}

/**
 * Bundles a spec file with the runner that stands for jest, and returns the program's path.
 * @throws Error with esbuild's message
 */
export async function bundleSpec(specFile: string, options: BundleOptions): Promise<string> {
  const name = path.relative(PROJECT_ROOT, specFile).replaceAll(path.sep, '-').replace(/\.ts$/, '.mjs');
  const outfile = path.join(CACHE_ROOT, 'specs', name);
  const { lab, ...run } = options;
  await build({
    stdin: {
      contents: `import ${JSON.stringify(specFile)};
import { runSpecs } from ${JSON.stringify(GUEST)};
await runSpecs(${JSON.stringify(run)});
process.exit(0);`,
      resolveDir: PROJECT_ROOT,
      loader: 'ts',
    },
    outfile,
    bundle: true,
    platform: 'node',
    format: 'esm',
    target: 'node24',
    external: ['koffi', 'bpf'],
    logLevel: 'silent',
    plugins: [replaceModules(lab), keepLocations()],
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

/* The lab's own modules go on using the native lab: only what specs import is replaced. */
function replaceModules(lab: string): Plugin {
  return {
    name: 'replace-modules',
    setup(pluginBuild) {
      pluginBuild.onResolve({ filter: /^@jest\/globals$/ }, () => ({ path: GUEST }));
      pluginBuild.onResolve({ filter: /\/native\/native\.ts$/ }, ({ path: request, resolveDir }) =>
        path.resolve(resolveDir, request) === NATIVE_LAB && !resolveDir.startsWith(path.dirname(lab))
          ? { path: lab }
          : undefined,
      );
    },
  };
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
