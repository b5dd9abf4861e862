import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { describe, expect, test } from '@jest/globals';
import { parseTarGzip } from 'nanotar';
import { Bundle, MAX_BUNDLE_BYTES, MAX_PART_BYTES } from '../../../src/support/bundle.ts';
import { redact, REDACTED } from '../../../src/support/redact.ts';

async function filesOf(archive: Buffer): Promise<Map<string, string>> {
  return new Map((await parseTarGzip(archive)).map(({ name, text }) => [name, text]));
}

describe('redact', () => {
  const { privateKey } = generateKeyPairSync('ec', {
    namedCurve: 'P-256',
    privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
    publicKeyEncoding: { type: 'spki', format: 'pem' },
  });
  const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url');
  const jwt = `${part({ alg: 'RS256', kid: 'x' })}.${part({ sub: 'system:serviceaccount' })}.${randomBytes(32).toString('base64url')}`;
  const secret = 'hunter2hunter2';

  test.each([
    ['a key in PEM', `before\n${privateKey}after`, privateKey.slice(40, 80)],
    ['... that was cut off', privateKey.slice(0, 100), privateKey.slice(40, 80)],
    ['... in a string of JSON', JSON.stringify({ key: privateKey }), privateKey.slice(40, 80)],
    ['a token of a service account', `is "${jwt}"; expected`, jwt.slice(-30)],
    ['a header', `Authorization: Bearer ${secret}`, secret],
    ['a password in an address', `https://admin:${secret}@10.0.0.1/x`, secret],
    ['a setting of YAML', `token: ${secret}\n`, secret],
    ['... of JSON', JSON.stringify({ clientSecret: secret }), secret],
    ['... of Open vSwitch', `psk="${secret}"`, secret],
    ['... of a kubeconfig', `client-key-data: ${secret}`, secret],
  ])('takes out %s', (_what, text, inside) => {
    expect(text).toContain(inside);
    expect(redact(text)).not.toContain(inside);
    expect(redact(text)).toContain(REDACTED);
  });

  test.each([
    '{"key":"/etc/xmasq/tls.key","cert":"/etc/xmasq/tls.crt"}',
    'keys: both; map flows has key_size 40',
    '[fd00::1]:7000 default/token-review-0 10.10.1.2:40984',
    'xmasq_counters_total{counter="key-learned"} 3',
    '-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----',
  ])('leaves %s', (text) => {
    expect(redact(text)).toBe(text);
  });
});

describe('a bundle', () => {
  test('has what was collected, and says what was not', async () => {
    const bundle = new Bundle('support-n1');
    await bundle.add('a.txt', () => 'text');
    await bundle.addJson('b.json', () => ({ big: 9007199254740993n }));
    await bundle.add('c.txt', () => Promise.reject(new Error('not there, token: hunter2')));
    const files = await filesOf(bundle.archive({ node: 'n1' }));
    expect([...files.keys()]).toEqual(['support-n1/contents.json', 'support-n1/a.txt', 'support-n1/b.json']);
    expect(files.get('support-n1/a.txt')).toBe('text');
    expect(JSON.parse(files.get('support-n1/b.json') ?? '')).toEqual({ big: '9007199254740993' });
    expect(JSON.parse(files.get('support-n1/contents.json') ?? '')).toEqual({
      node: 'n1',
      parts: [
        { name: 'a.txt', bytes: 4 },
        { name: 'b.json', bytes: 32 },
        { name: 'c.txt', bytes: 0, error: `not there, token: ${REDACTED}` },
      ],
    });
  });

  test('has a bound for each part and for all of them', async () => {
    const bundle = new Bundle('x');
    const parts = MAX_BUNDLE_BYTES / MAX_PART_BYTES + 1;
    for (let n = 0; n < parts; n++) await bundle.add(`${n}`, () => 'a'.repeat(MAX_PART_BYTES + 10));
    const { entries } = bundle;
    expect(entries.slice(0, -1).every(({ bytes, cut }) => bytes === MAX_PART_BYTES && cut === 10)).toBe(true);
    expect(entries.at(-1)).toMatchObject({ bytes: 0, cut: MAX_PART_BYTES + 10 });
    expect(entries.reduce((sum, { bytes }) => sum + bytes, 0)).toBe(MAX_BUNDLE_BYTES);
  });
});
