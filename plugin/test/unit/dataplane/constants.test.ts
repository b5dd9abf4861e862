import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import * as layout from '../../../src/dataplane/layout.ts';
import { VERSION } from '../../../src/agent/version.ts';

const root = join(import.meta.dirname, '../../../..');
const header = readFileSync(join(root, 'bpf-src/xmasq.h'), 'utf8');

function constant(name: string): bigint {
  const text = new RegExp(`#define ${name}\\s+(.*?)\\s*(?:/\\*.*)?$`, 'm').exec(header)?.[1] ?? '';
  const value = text
    .replace(/XMASQ_SEC/, '1000000000')
    .replace(/XMASQ_MS/, '1000000')
    .replace(/[()]/g, '');
  return value.split('*').reduce((product, factor) => product * BigInt(factor.trim()), 1n);
}

describe('constants that are written twice', () => {
  test.each([
    ['XMASQ_LAYOUT_VERSION', layout.LAYOUT_VERSION],
    ['XMASQ_PROTOCOL_VERSION', layout.PROTOCOL_VERSION],
    ['XMASQ_MAX_ENDPOINTS', layout.MAX_ENDPOINTS],
    ['XMASQ_MAX_PEERS', layout.MAX_PEERS],
    ['XMASQ_SEND_LIFE_NS', layout.SEND_LIFE_NS],
    ['XMASQ_INTERPRET_NS', layout.INTERPRET_NS],
    ['XMASQ_TOMBSTONE_NS', layout.TOMBSTONE_NS],
  ])('%s is that of xmasq.h', (name, value) => expect(BigInt(value)).toBe(constant(name)));

  test('the version is that of package.json', () => {
    const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string };
    expect(VERSION).toBe(version);
  });
});
