import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { X509Certificate } from 'node:crypto';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { CertificateFiles } from '../../../src/flowexport/certificate-files.ts';
import { issueCa, issueCertificate } from '../../../src/flowexport/certificate-issuer.ts';
import { IssuedCertificates } from '../../../src/flowexport/issued-certificates.ts';
import {
  checkMaterial,
  parseCertificates,
  signedBy,
  type TlsMaterial,
  type TlsProblem,
} from '../../../src/flowexport/tls-material.ts';
import { days, TestCa, until } from './tls.ts';

const DAY = 86_400_000;
let directory: string;
let problem: TlsProblem | undefined;
const onProblem = (next: TlsProblem | undefined): void => {
  problem = next;
};

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'xmasq-certificates-'));
  problem = undefined;
});
afterEach(() => {
  rmSync(directory, { recursive: true, force: true });
});

function first(pem: string): X509Certificate {
  return parseCertificates(pem)[0] as X509Certificate;
}

const authority = await TestCa.make();
const ca = await issueCa('ca', days(-1, 10));
const pair = await issueCertificate(
  ca,
  { commonName: 'x y-1', usage: 'server', ip: ['127.0.0.1', '::1', 'fd00:0:0:1::a'], dns: ['a.b'] },
  days(-1, 1),
);
const cert = first(pair.cert);

describe('what the issuer makes', () => {
  test('is a certificate by the names and the CA', async () => {
    expect(first(ca.cert).ca).toBe(true);
    expect(cert.ca).toBe(false);
    expect(cert.subject).toBe('CN=x y-1');
    expect(cert.issuer).toBe('CN=ca');
    for (const ip of ['127.0.0.1', '::1', 'fd00:0:0:1::a']) expect(cert.checkIP(ip)).toBe(ip);
    expect(cert.checkIP('127.0.0.2')).toBeUndefined();
    expect(cert.checkHost('a.b')).toBe('a.b');
    expect(cert.keyUsage).toEqual(['1.3.6.1.5.5.7.3.1']);
    expect(signedBy(cert, [first(ca.cert)])).toBe(true);
    expect(signedBy(cert, [first((await issueCa('ca', days(-1, 10))).cert)])).toBe(false);
    expect(() => checkMaterial({ ca: ca.cert, ...pair }, Date.now())).not.toThrow();
  });

  test('holds before and after 2050, whose times have other forms', async () => {
    const end = new Date('2051-01-02T03:04:05Z');
    const later = first((await issueCa('ca', { notBefore: new Date('2026-11-23T01:02:03Z'), notAfter: end })).cert);
    expect([later.validFromDate.toISOString(), later.validToDate]).toEqual(['2026-11-23T01:02:03.000Z', end]);
  });

  test('no two have the same number', async () => {
    const numbers = await Promise.all(
      [1, 2, 3].map(async () => first((await issueCa('ca', days(-1, 1))).cert).serialNumber),
    );
    expect(new Set(numbers).size).toBe(3);
  });

  test.each<[string, Partial<TlsMaterial>, number, RegExp]>([
    ['no CA', { ca: 'x' }, 0, /the CA cannot be used: there is no certificate in it/],
    ['no certificate', { cert: '' }, 0, /the certificate cannot be used/],
    ['no key', { key: 'x' }, 0, /the key cannot be used/],
    ['the key of another one', { key: ca.key }, 0, /the key is not that of the certificate/],
    ['an expired one', {}, 2 * DAY, /the certificate has expired/],
    ['an early one', {}, -2 * DAY, /the certificate is not valid before/],
  ])('%s is found out', (...[, part, after, message]) => {
    expect(() => checkMaterial({ ca: ca.cert, ...pair, ...part }, Date.now() + after)).toThrow(message);
  });
});

describe('certificates of our own', () => {
  let now: number;
  let opened: IssuedCertificates | undefined;
  const open = async (): Promise<IssuedCertificates> => {
    opened = await IssuedCertificates.open({ directory, dns: ['collector.test'], onProblem, now: () => now });
    return opened;
  };
  beforeEach(() => {
    now = Date.now();
  });
  afterEach(() => opened?.close());

  test('are made once, keys for root only', async () => {
    const one = await open();
    expect(readdirSync(directory).sort()).toEqual([
      'ca.crt',
      'ca.key',
      'client.crt',
      'client.key',
      'server.crt',
      'server.key',
    ]);
    for (const name of ['ca', 'client', 'server']) {
      expect(statSync(join(directory, `${name}.key`)).mode & 0o777).toBe(0o600);
    }
    const server = first(one.current.cert);
    expect([server.checkIP('127.0.0.1'), server.checkIP('::1'), server.checkHost('collector.test')]).toEqual([
      '127.0.0.1',
      '::1',
      'collector.test',
    ]);
    const again = await open();
    expect(again.current).toEqual(one.current);
    expect(again.client).toEqual(one.client);
  });

  test('are renewed after two thirds of their lives, not before', async () => {
    const one = await open();
    const before = one.current;
    const told: TlsMaterial[] = [];
    one.onChange((material) => told.push(material));
    now += 59 * DAY;
    await one.renew();
    expect(told).toEqual([]);
    now += 2 * DAY;
    await one.renew();
    expect(told).toEqual([one.current]);
    expect(one.current.ca).toBe(before.ca);
    expect(one.current.cert).not.toBe(before.cert);
    expect(readFileSync(join(directory, 'server.crt'), 'utf8')).toBe(one.current.cert);
    expect(() => checkMaterial(one.client, now + 80 * DAY)).not.toThrow();
  });

  test('a new CA joins the old one before it signs', async () => {
    const one = await open();
    const old = first(one.current.ca);
    now += 2434 * DAY;
    await one.renew();
    const [next, kept] = parseCertificates(one.current.ca);
    expect(kept?.fingerprint).toBe(old.fingerprint);
    expect(next?.fingerprint).not.toBe(old.fingerprint);
    expect(signedBy(first(one.current.cert), [old])).toBe(true);
    now += 61 * DAY;
    await one.renew();
    expect(signedBy(first(one.current.cert), [next as X509Certificate])).toBe(true);
    expect(parseCertificates(one.current.ca)).toHaveLength(2);
    now += 1500 * DAY;
    await one.renew();
    expect(() => checkMaterial(one.current, now)).not.toThrow();
    expect(signedBy(first(one.client.cert), parseCertificates(one.client.ca))).toBe(true);
  });

  test.each(['ca.key', 'server.key', 'client.crt', 'ca.crt'])(
    'a broken %s is replaced at the next start',
    async (name) => {
      await open();
      writeFileSync(join(directory, name), 'broken');
      const { current, client } = await open();
      for (const material of [current, client]) {
        expect(() => checkMaterial(material, now)).not.toThrow();
        expect(signedBy(first(material.cert), parseCertificates(material.ca))).toBe(true);
      }
    },
  );

  test('a directory that cannot be written is a problem, not an end', async () => {
    const one = await open();
    const before = one.current;
    now += 61 * DAY;
    rmSync(directory, { recursive: true });
    await one.renew();
    expect(problem?.what).toMatch(/certificates that are due cannot be renewed: .*ENOENT/);
    expect(one.current).toEqual(before);
  });
});

describe('certificates from files', () => {
  let files: CertificateFiles | undefined;
  const paths = (): { ca: string; cert: string; key: string } => ({
    ca: join(directory, 'ca.crt'),
    cert: join(directory, 'tls.crt'),
    key: join(directory, 'tls.key'),
  });
  const put = ({ ca, cert, key }: TlsMaterial): void => {
    writeFileSync(paths().ca, ca);
    writeFileSync(paths().cert, cert);
    writeFileSync(paths().key, key);
  };
  afterEach(() => files?.close());

  test('are taken, and taken again when they change', async () => {
    put(await authority.server());
    files = await CertificateFiles.open({ ...paths(), onProblem, pollMs: 20 });
    const told: TlsMaterial[] = [];
    files.onChange((material) => told.push(material));
    const next = await (await TestCa.make()).server();
    put(next);
    await until(() => files?.current.cert === next.cert);
    expect(files.current).toEqual(next);
    expect(told.at(-1)).toEqual(next);
    expect(problem).toBeUndefined();
  });

  test('what does not fit together is not taken', async () => {
    const before = await authority.server();
    put(before);
    files = await CertificateFiles.open({ ...paths(), onProblem, pollMs: 20 });
    writeFileSync(paths().key, (await (await TestCa.make()).server()).key);
    await until(() => problem !== undefined);
    expect(problem?.what).toMatch(
      /^new certificates are not taken, the former ones stay in use: .*tls\.key.*: the key is not that of the certificate/,
    );
    expect(files.current).toEqual(before);
    put(before);
    await until(() => problem === undefined);
  });

  test('missing ones are an error at the start', async () => {
    await expect(CertificateFiles.open({ ...paths(), onProblem })).rejects.toThrow(/ca\.crt cannot be read: ENOENT/);
    put({ ...(await authority.server()), key: 'x' });
    chmodSync(paths().key, 0o600);
    await expect(CertificateFiles.open({ ...paths(), onProblem })).rejects.toThrow(/the key cannot be used/);
  });
});
