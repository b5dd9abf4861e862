import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { ProtocolError } from '../../../src/ovsdb/errors.ts';
import { Splitter } from '../../../src/ovsdb/splitter.ts';

/** What comes of these bytes in pieces of this length. */
function split(text: string, length: number, max = 1_000_000): unknown[] {
  const splitter = new Splitter(max);
  const bytes = Buffer.from(text);
  const objects: unknown[] = [];
  for (let i = 0; i < bytes.length; i += length) objects.push(...splitter.push(bytes.subarray(i, i + length)));
  expect(splitter.pending).toBe(0);
  return objects;
}

describe('a stream of JSON objects', () => {
  const objects = [
    { a: 1 },
    {},
    { braces: '}{ "quoted" \\', key: { '}': ['{', '\\"}'] } },
    { text: 'grüße, 日本, 💡', escaped: '\u0001\n' },
  ];

  test.each([1, 2, 3, 7, 1000])('is cut at the right places, however it comes (pieces of %d bytes)', (length) => {
    expect(split(objects.map((object) => JSON.stringify(object)).join(''), length)).toEqual(objects);
    expect(split(objects.map((object) => JSON.stringify(object, null, 2)).join('\r\n\t '), length)).toEqual(objects);
  });

  test('whatever the objects say', () => {
    const value = fc.dictionary(fc.string({ unit: 'binary' }), fc.jsonValue());
    fc.assert(
      fc.property(fc.array(value, { maxLength: 3 }), fc.integer({ min: 1, max: 50 }), (values, length) => {
        const texts = values.map((entry) => JSON.stringify(entry));
        expect(split(texts.join(''), length)).toEqual(texts.map((text) => JSON.parse(text) as unknown));
      }),
      { numRuns: 60 },
    );
  });

  test('that is too long is refused before it is complete, and one that fits is not', () => {
    const splitter = new Splitter(100);
    expect(splitter.push(Buffer.from(`{"a":"${'x'.repeat(92)}"}`))).toHaveLength(1);
    splitter.push(Buffer.from(`{"a":"${'x'.repeat(93)}`));
    expect(splitter.pending).toBe(99);
    expect(() => splitter.push(Buffer.from('xx'))).toThrow(ProtocolError);
  });

  test.each(['[1]', 'null', '}', '"a"', '{"a":1}x', '{"a":}', '{"a":[}]}'])('that is none is refused: %s', (text) => {
    expect(() => split(text, 3)).toThrow(ProtocolError);
  });
});
