/**
 * Makes certificates: a CA of our own, and what it signs (RFC 5280, ECDSA P-256 with SHA-256). Keys and signatures are
 * Node's; what is written here is the form.
 */
import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  randomBytes,
  sign,
  X509Certificate,
  type KeyObject,
} from 'node:crypto';
import {
  bitString,
  context,
  integer,
  ipBytes,
  octetString,
  oid,
  sequence,
  set,
  time,
  TRUE,
  utf8String,
} from './der.ts';

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
  readonly commonName: string;
  readonly usage: 'server' | 'client';
  /** Subject alternative names. */
  readonly dns?: readonly string[];
  readonly ip?: readonly string[];
}

const OID = {
  commonName: '2.5.4.3',
  ecdsaWithSha256: '1.2.840.10045.4.3.2',
  subjectKeyIdentifier: '2.5.29.14',
  keyUsage: '2.5.29.15',
  subjectAltName: '2.5.29.17',
  basicConstraints: '2.5.29.19',
  authorityKeyIdentifier: '2.5.29.35',
  extKeyUsage: '2.5.29.37',
  serverAuth: '1.3.6.1.5.5.7.3.1',
  clientAuth: '1.3.6.1.5.5.7.3.2',
} as const;

const VERSION_3 = context(0, true, integer(Buffer.from([2])));
const ALGORITHM = sequence(oid(OID.ecdsaWithSha256));
/** Bits of keyUsage, the first one being the highest. */
const KEY_CERT_SIGN_CRL_SIGN = bitString(Buffer.from([0b0000_0110]), 1);
const DIGITAL_SIGNATURE = bitString(Buffer.from([0b1000_0000]), 7);

function nameOf(commonName: string): Buffer {
  return sequence(set(sequence(oid(OID.commonName), utf8String(commonName))));
}

function extension(id: string, critical: boolean, value: Uint8Array): Buffer {
  return sequence(oid(id), ...(critical ? [TRUE] : []), octetString(value));
}

/** As RFC 5280 proposes, of the whole public key information: unique is what counts. */
function keyIdentifier(publicKey: KeyObject): Buffer {
  return createHash('sha1')
    .update(publicKey.export({ type: 'spki', format: 'der' }))
    .digest();
}

interface Contents extends Validity {
  readonly issuer: Uint8Array;
  readonly subject: Uint8Array;
  readonly publicKey: KeyObject;
  readonly extensions: readonly Uint8Array[];
}

function signed({ issuer, subject, publicKey, notBefore, notAfter, extensions }: Contents, signer: KeyObject): string {
  const serial = randomBytes(16);
  const body = sequence(
    VERSION_3,
    integer(serial),
    ALGORITHM,
    issuer,
    sequence(time(notBefore), time(notAfter)),
    subject,
    publicKey.export({ type: 'spki', format: 'der' }),
    context(3, true, sequence(...extensions)),
  );
  const der = sequence(body, ALGORITHM, bitString(sign('sha256', body, signer)));
  const lines = der.toString('base64').match(/.{1,64}/g) ?? [];
  return `-----BEGIN CERTIFICATE-----\n${lines.join('\n')}\n-----END CERTIFICATE-----\n`;
}

function newKeys(): { readonly publicKey: KeyObject; readonly privateKey: KeyObject; readonly pem: string } {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  return { publicKey, privateKey, pem: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString() };
}

/** A new CA, for certificates of servers and clients only. */
export function issueCa(commonName: string, validity: Validity): CertificatePair {
  const { publicKey, privateKey, pem } = newKeys();
  const name = nameOf(commonName);
  const identifier = keyIdentifier(publicKey);
  const extensions = [
    extension(OID.basicConstraints, true, sequence(TRUE, integer(Buffer.from([0])))),
    extension(OID.keyUsage, true, KEY_CERT_SIGN_CRL_SIGN),
    extension(OID.subjectKeyIdentifier, false, octetString(identifier)),
  ];
  const cert = signed({ issuer: name, subject: name, publicKey, extensions, ...validity }, privateKey);
  return { cert, key: pem };
}

function alternativeNames({ dns = [], ip = [] }: Subject): Buffer | undefined {
  const names = [
    ...dns.map((name) => context(2, false, Buffer.from(name, 'ascii'))),
    ...ip.map((address) => context(7, false, ipBytes(address))),
  ];
  return names.length === 0 ? undefined : extension(OID.subjectAltName, false, sequence(...names));
}

/** The only part of a common name that our CAs have. */
function issuerName(ca: X509Certificate): string {
  const name = /^CN=(.*)$/.exec(ca.subject)?.[1];
  if (name === undefined) throw new Error(`the subject of the CA is "${ca.subject}", not a single common name`);
  return name;
}

/**
 * A certificate signed by a CA that issueCa() made.
 * @throws Error where it is another one, or its key is unreadable
 */
export function issueCertificate(ca: CertificatePair, subject: Subject, validity: Validity): CertificatePair {
  const { publicKey, pem } = newKeys();
  const issuer = issuerName(new X509Certificate(ca.cert));
  const caKey = createPrivateKey(ca.key);
  const names = alternativeNames(subject);
  const usage = oid(subject.usage === 'server' ? OID.serverAuth : OID.clientAuth);
  const caIdentifier = context(0, false, keyIdentifier(createPublicKey(caKey)));
  const extensions = [
    extension(OID.basicConstraints, true, sequence()),
    extension(OID.keyUsage, true, DIGITAL_SIGNATURE),
    extension(OID.extKeyUsage, false, sequence(usage)),
    extension(OID.subjectKeyIdentifier, false, octetString(keyIdentifier(publicKey))),
    extension(OID.authorityKeyIdentifier, false, sequence(caIdentifier)),
    ...(names === undefined ? [] : [names]),
  ];
  const contents = {
    issuer: nameOf(issuer),
    subject: nameOf(subject.commonName),
    publicKey,
    extensions,
    ...validity,
  };
  return { cert: signed(contents, caKey), key: pem };
}
