/**
 * Generates the TypeScript codecs of the BPF maps from the objects' BTF, so that no layout is typed twice.
 *
 *   gen-layouts.ts OBJECT... [--out FILE] [--struct REGEX]... [--reasons-proto FILE] [--check]
 *
 * --out            default plugin/src/gen/layouts.ts
 * --struct         structs and enums beyond the maps' keys and values, default ^xmasq_
 * --reasons-proto  also writes enum xmasq_reason as a proto3 file
 * --check          writes nothing, fails where a file is not up to date
 *
 * Integers of up to 32 bits become number, of 64 bits bigint; __be16, __be32 and __be64 are converted, so their values
 * are in host order; byte arrays and struct in6_addr become Uint8Array; struct xmasq_addr becomes text; of a union the first member counts; members
 * named pad or reserved are written as zero.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { parseArgs } from 'node:util';
import { format } from 'prettier';
import { Btf } from './gen-layouts/btf.ts';
import { emitReasonsProto } from './gen-layouts/emit-proto.ts';
import { emitTypeScript } from './gen-layouts/emit-ts.ts';
import { mergeModels, readModel } from './gen-layouts/model.ts';

const DEFAULT_OUT = join(import.meta.dirname, '../plugin/src/gen/layouts.ts');
/** The repository's style, given here so that the output does not depend on what configuration prettier finds. */
const STYLE = { parser: 'typescript', singleQuote: true, printWidth: 120, trailingComma: 'all' } as const;

function current(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}

/** Writes only what differs, so that timestamps say something to make. */
function deliver(path: string, text: string, checkOnly: boolean): boolean {
  if (current(path) === text) return true;
  if (checkOnly) return false;
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, text);
  return true;
}

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      out: { type: 'string', default: DEFAULT_OUT },
      struct: { type: 'string', multiple: true, default: ['^xmasq_'] },
      'reasons-proto': { type: 'string' },
      check: { type: 'boolean', default: false },
    },
  });
  if (positionals.length === 0) {
    process.stderr.write('gen-layouts: name at least one BPF object file\n');
    return 2;
  }
  const wanted = values.struct.map((pattern) => new RegExp(pattern));
  const model = mergeModels(
    positionals.map((path) =>
      readModel(Btf.ofObject(path), wanted, (message) => process.stderr.write(`gen-layouts: ${path}: ${message}\n`)),
    ),
  );
  const files = [
    { path: values.out, text: await format(emitTypeScript(model), STYLE) },
    ...(values['reasons-proto'] === undefined
      ? []
      : [{ path: values['reasons-proto'], text: emitReasonsProto(model) }]),
  ];
  const stale = files.filter(({ path, text }) => !deliver(path, text, values.check));
  for (const { path } of stale) {
    process.stderr.write(`gen-layouts: ${path} is not what the objects say; generate it anew\n`);
  }
  return stale.length === 0 ? 0 : 1;
}

process.exitCode = await main();
