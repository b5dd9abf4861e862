import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { ROOT } from './harness.ts';

/**
 * Compiles a BPF object as the Makefile does.
 * @param sources the directory with the data plane's headers; default the one that is shipped
 * @throws Error with the compiler's messages
 */
export async function compileBpf(source: string, object: string, sources = join(ROOT, 'bpf-src')): Promise<string> {
  // -fno-color-diagnostics: the messages end up in a test report.
  const flags = ['-O2', '-g', '-target', 'bpf', '-mcpu=v3', '-fno-color-diagnostics'];
  const includes = [`-I/usr/include/${multiarch()}`, `-I${sources}`];
  await promisify(execFile)('clang', [...flags, ...includes, '-c', source, '-o', object], { timeout: 300_000 });
  return object;
}

/** linux/types.h wants asm/types.h, which Debian keeps per architecture. */
function multiarch(): string {
  return process.arch === 'arm64' ? 'aarch64-linux-gnu' : 'x86_64-linux-gnu';
}

/** The data plane with instruments; see the file. */
export const INSTRUMENTED = join(import.meta.dirname, 'fixtures/instrumented.bpf.c');
