/** Makes certificates: a CA of our own, and what it signs (ECDSA P-256 with SHA-256). */
import { createPrivateKey, randomBytes, webcrypto } from 'node:crypto';
import type * as X509 from '@peculiar/x509';

/** A certificate and its key, PEM; the key as PKCS #8. */
export interface CertificatePair {
  readonly cert: string;
  readonly key: string;
}

/** When a certificate holds, in whole seconds. */
export interface Validity {
  readonly notBefore: Date;
  readonly notAfter: Date;
}

/** For whom a certificate is. */
export interface Subject {
  /** Letters, digits, spaces and dashes. */
  readonly commonName: string;
  readonly usage: 'server' | 'client';
  /** Subject alternative names. */
  readonly dns?: readonly string[];
  readonly ip?: readonly string[];
}

const ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };

/** Loaded when it is needed: it takes 7 MB, and nobody needs it where certificates come from files. */
async function library(): Promise<typeof X509> {
  // The other one looks for it when it is evaluated.
  await import('reflect-metadata');
  return import('@peculiar/x509');
}

/** A new CA, for certificates of servers and clients only. */
export async function issueCa(commonName: string, validity: Validity): Promise<CertificatePair> {
  const x509 = await library();
  const keys = await newKeys();
  const { keyCertSign, cRLSign } = x509.KeyUsageFlags;
  const cert = await x509.X509CertificateGenerator.createSelfSigned({
    ...validity,
    serialNumber: serialNumber(),
    name: [{ CN: [commonName] }],
    keys,
    signingAlgorithm: ALGORITHM,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(keyCertSign | cRLSign, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  return pairOf(cert, keys.privateKey);
}

/**
 * A certificate signed by a CA that issueCa() made.
 * @throws Error where the CA or its key is unreadable
 */
export async function issueCertificate(
  ca: CertificatePair,
  subject: Subject,
  validity: Validity,
): Promise<CertificatePair> {
  const x509 = await library();
  const keys = await newKeys();
  const issuer = new x509.X509Certificate(ca.cert);
  const { serverAuth, clientAuth } = x509.ExtendedKeyUsage;
  const names = [
    ...(subject.dns ?? []).map((value) => ({ type: 'dns' as const, value })),
    ...(subject.ip ?? []).map((value) => ({ type: 'ip' as const, value })),
  ];
  const cert = await x509.X509CertificateGenerator.create({
    ...validity,
    serialNumber: serialNumber(),
    subject: [{ CN: [subject.commonName] }],
    issuer: issuer.subjectName,
    publicKey: keys.publicKey,
    signingKey: await signingKey(ca.key),
    signingAlgorithm: ALGORITHM,
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension([subject.usage === 'server' ? serverAuth : clientAuth]),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
      await x509.AuthorityKeyIdentifierExtension.create(issuer.publicKey),
      ...(names.length === 0 ? [] : [new x509.SubjectAlternativeNameExtension(names)]),
    ],
  });
  return pairOf(cert, keys.privateKey);
}

/** Positive, and unlike all others. */
function serialNumber(): string {
  const bytes = randomBytes(16);
  bytes[0] = ((bytes[0] ?? 0) & 0x7f) | 0x40;
  return bytes.toString('hex');
}

function newKeys(): Promise<webcrypto.CryptoKeyPair> {
  return webcrypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify']);
}

function signingKey(pem: string): Promise<webcrypto.CryptoKey> {
  const der = createPrivateKey(pem).export({ type: 'pkcs8', format: 'der' });
  return webcrypto.subtle.importKey('pkcs8', der, ALGORITHM, false, ['sign']);
}

async function pairOf(cert: X509.X509Certificate, key: webcrypto.CryptoKey): Promise<CertificatePair> {
  const der = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', key));
  const pem = createPrivateKey({ key: der, format: 'der', type: 'pkcs8' }).export({ type: 'pkcs8', format: 'pem' });
  return { cert: `${cert.toString('pem')}\n`, key: pem.toString() };
}
