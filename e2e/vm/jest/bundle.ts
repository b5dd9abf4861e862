/** Bundles a spec file for the micro-VM. */
import path from 'node:path';
import type { Plugin } from 'esbuild';
import { bundleForGuest } from '../bundle.ts';
import { PROJECT_ROOT } from '../kernels.ts';
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
  const { lab, ...run } = options;
  const contents = `import ${JSON.stringify(specFile)};
import { runSpecs } from ${JSON.stringify(GUEST)};
await runSpecs(${JSON.stringify(run)});
process.exit(0);`;
  return bundleForGuest(specFile, contents, [replaceModules(lab)]);
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
