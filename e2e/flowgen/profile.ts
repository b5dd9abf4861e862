/** Where a collector's time goes: what Node's sampling profiler saw, by part. */
import { readFileSync, writeFileSync } from 'node:fs';
import { Session } from 'node:inspector/promises';

/** Of the profiler's output (Chrome DevTools Protocol, Profiler.Profile) what is used here. */
export interface CpuProfile {
  readonly nodes: readonly {
    readonly id: number;
    readonly callFrame: { readonly functionName: string; readonly url: string };
  }[];
  /** Identifiers of nodes, one for each sample. */
  readonly samples: readonly number[];
  /** Microseconds since the sample before. */
  readonly timeDeltas: readonly number[];
}

/** Begins to profile this process. @returns what ends it and writes the file */
export async function profileSelf(file: string): Promise<() => Promise<void>> {
  const session = new Session();
  session.connect();
  await session.post('Profiler.enable');
  await session.post('Profiler.start');
  return async () => {
    const { profile } = await session.post('Profiler.stop');
    session.disconnect();
    writeFileSync(file, JSON.stringify(profile));
  };
}

const GARBAGE = 'garbage collections';
const NATIVE = 'native code: system calls, TLS, HTTP/2';
const OTHER = 'the rest of the sidecar, and what it uses';

/** By the file of a function, the first that fits. */
const PARTS: readonly (readonly [RegExp, string])[] = [
  [/\/@grpc\/grpc-js\//, '`@grpc/grpc-js`'],
  [/^node:/, 'modules of Node: HTTP/2, streams, buffers'],
  [
    /\/flowexport\/(decode|decode-names|names-cache|address|protobuf)\.ts$|\/protobufjs\/|\/netlink\/ip\.ts$/,
    'reading a record',
  ],
  [/\/flowexport\/(store|age-list|words|interner|record)\.ts$/, 'what is known of its connection'],
  [/\/flowexport\/(server|intake|index)\.ts$/, 'taking and passing it on'],
];

export interface Share {
  readonly part: string;
  /** Of all that is not idle. */
  readonly pct: number;
}

/** Shares of the time that is not idle, the greatest first. @throws Error where there is none */
export function sharesOf({ nodes, samples, timeDeltas }: CpuProfile): Share[] {
  const parts = new Map(nodes.map(({ id, callFrame }) => [id, partOf(callFrame)]));
  const sums = new Map<string, number>();
  let all = 0;
  samples.forEach((id, i) => {
    const part = parts.get(id);
    if (part === undefined) return;
    const us = timeDeltas[i] ?? 0;
    all += us;
    sums.set(part, (sums.get(part) ?? 0) + us);
  });
  if (all === 0) throw new Error('the profile has no samples');
  return [...sums].map(([part, us]) => ({ part, pct: (us / all) * 100 })).sort((a, b) => b.pct - a.pct);
}

/** Undefined: idle. */
function partOf({ functionName, url }: CpuProfile['nodes'][number]['callFrame']): string | undefined {
  if (functionName === '(idle)') return undefined;
  if (functionName === '(garbage collector)') return GARBAGE;
  if (url === '') return NATIVE;
  return PARTS.find(([files]) => files.test(url))?.[1] ?? OTHER;
}

export function readProfile(file: string): CpuProfile {
  return JSON.parse(readFileSync(file, 'utf8')) as CpuProfile;
}

/** In Markdown. */
export function tableOf(shares: readonly Share[]): string {
  const lines = shares.map(({ part, pct }) => `| ${part} | ${pct.toFixed(1)} % |`);
  return ['| part | processor time |', '| --- | ---: |', ...lines].join('\n');
}
