import { expect, test } from '@jest/globals';
import { sharesOf, tableOf } from '../../../../e2e/flowgen/profile.ts';
import type { CpuProfile } from '../../../../e2e/flowgen/profile.ts';

const FRAMES: readonly (readonly [string, string, number])[] = [
  ['(idle)', '', 500],
  ['(garbage collector)', '', 10],
  ['(program)', '', 20],
  ['push', 'node:internal/streams/readable', 30],
  ['write', 'file:///x/node_modules/@grpc/grpc-js/build/src/stream-decoder.js', 5],
  ['decodeFlow', 'file:///x/plugin/flowexport/decode.ts', 15],
  ['uint32', 'file:///x/node_modules/protobufjs/src/reader.js', 5],
  ['put', 'file:///x/plugin/flowexport/store.ts', 10],
  ['count', 'file:///x/plugin/flowexport/intake.ts', 3],
  ['parse', 'file:///x/plugin/config/parse.ts', 2],
];

function profileOf(frames: typeof FRAMES): CpuProfile {
  return {
    nodes: frames.map(([functionName, url], id) => ({ id, callFrame: { functionName, url } })),
    // Each in two samples.
    samples: frames.flatMap((_, id) => [id, id]),
    timeDeltas: frames.flatMap(([, , us]) => [us / 2, us / 2]),
  };
}

test('shares are of the time that is not idle, by the file of a function, the greatest first', () => {
  expect(sharesOf(profileOf(FRAMES))).toEqual([
    { part: 'modules of Node: HTTP/2, streams, buffers', pct: 30 },
    { part: 'native code: system calls, TLS, HTTP/2', pct: 20 },
    { part: 'reading a record', pct: 20 },
    { part: 'garbage collections', pct: 10 },
    { part: 'what is known of its connection', pct: 10 },
    { part: '`@grpc/grpc-js`', pct: 5 },
    { part: 'taking and passing it on', pct: 3 },
    { part: 'the rest of the sidecar, and what it uses', pct: 2 },
  ]);
});

test('a profile of nothing is an error', () => {
  expect(() => sharesOf(profileOf(FRAMES.slice(0, 1)))).toThrow('the profile has no samples');
});

test('a table has a line for each part', () => {
  expect(tableOf([{ part: 'a', pct: 66.66 }])).toBe('| part | processor time |\n| --- | ---: |\n| a | 66.7 % |');
});
