import { webcrypto } from 'node:crypto';

const ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
const DAY_MS = 86_400_000;

/** A new authority and a server certificate of it for 127.0.0.1 and localhost; PEM. */
export interface ServerIdentity {
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
}

/** Makes a key, an authority and a certificate; takes some ms. */
export async function makeServerIdentity(): Promise<ServerIdentity> {
  // One after the other: jest evaluates CommonJS modules before those that are imported ahead of them.
  await import('reflect-metadata');
  const x509 = await import('@peculiar/x509');
  const common = {
    notBefore: new Date(Date.now() - DAY_MS),
    notAfter: new Date(Date.now() + DAY_MS),
    signingAlgorithm: ALGORITHM,
  };
  const [caKeys, keys] = await Promise.all([generate(), generate()]);
  const name = `CN=double-ca-${webcrypto.randomUUID()}`;
  const ca = await x509.X509CertificateGenerator.createSelfSigned({
    ...common,
    serialNumber: '01',
    name,
    keys: caKeys,
    extensions: [new x509.BasicConstraintsExtension(true, 0, true)],
  });
  const cert = await x509.X509CertificateGenerator.create({
    ...common,
    serialNumber: '02',
    subject: 'CN=kubernetes',
    issuer: name,
    publicKey: keys.publicKey,
    signingKey: caKeys.privateKey,
    extensions: [
      new x509.SubjectAlternativeNameExtension([
        { type: 'ip', value: '127.0.0.1' },
        { type: 'dns', value: 'localhost' },
      ]),
    ],
  });
  const pkcs8 = await webcrypto.subtle.exportKey('pkcs8', keys.privateKey);
  return { ca: ca.toString('pem'), cert: cert.toString('pem'), key: x509.PemConverter.encode(pkcs8, 'PRIVATE KEY') };
}

async function generate(): Promise<webcrypto.CryptoKeyPair> {
  return webcrypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify']);
}
