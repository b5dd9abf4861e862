/** What one side of a mutual TLS connection needs, and where it comes from. */
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { errorMessage } from '../util/errors.ts';

/** PEM texts. */
export interface TlsMaterial {
  /** One or more certificates: who may sign the other side's. */
  readonly ca: string;
  /** Own certificate, intermediate ones after it. */
  readonly cert: string;
  readonly key: string;
}

/** Material that may be replaced while it is in use. */
export interface TlsSource {
  readonly current: TlsMaterial;
  /** Tells of every replacement. @returns ends that */
  onChange(listener: (material: TlsMaterial) => void): () => void;
  close(): void;
}

/** Something about certificates that needs attention; the same fields as a degradation of the sidecar. */
export interface TlsProblem {
  readonly what: string;
  readonly where: string;
  readonly action: string;
}

/** Called with a problem, and with undefined once there is none any more. */
export type OnTlsProblem = (problem: TlsProblem | undefined) => void;

const PEM_CERTIFICATE = /-----BEGIN CERTIFICATE-----[\s\S]*?-----END CERTIFICATE-----/g;
/** More CAs than this are refused: a bundle of a whole Linux distribution has 150. */
const MAX_CERTIFICATES = 64;

/** The certificates of a PEM text in their order. @throws Error where there is none, too many, or an unreadable one */
export function parseCertificates(pem: string): X509Certificate[] {
  const texts = pem.match(PEM_CERTIFICATE) ?? [];
  if (texts.length === 0) throw new Error('there is no certificate in it');
  if (texts.length > MAX_CERTIFICATES) throw new Error(`${texts.length} certificates are in it, at most 64 are taken`);
  return texts.map((text) => new X509Certificate(text));
}

/** Whether the certificate is signed by one of these. */
export function signedBy(certificate: X509Certificate, cas: readonly X509Certificate[]): boolean {
  return cas.some((ca) => certificate.checkIssued(ca) && certificate.verify(ca.publicKey));
}

/**
 * @throws Error that says what is wrong: an unreadable part, a key of another certificate, a certificate not valid now
 * @param now milliseconds since 1970
 */
export function checkMaterial({ ca, cert, key }: TlsMaterial, now: number): void {
  const part = <T>(name: string, read: () => T): T => {
    try {
      return read();
    } catch (error) {
      throw new Error(`the ${name} cannot be used: ${errorMessage(error)}`, { cause: error });
    }
  };
  part('CA', () => parseCertificates(ca));
  const [own] = part('certificate', () => parseCertificates(cert));
  const privateKey = part('key', () => createPrivateKey(key));
  if (own?.checkPrivateKey(privateKey) !== true) throw new Error('the key is not that of the certificate');
  if (own.validFromDate.getTime() > now) throw new Error(`the certificate is not valid before ${own.validFrom}`);
  if (own.validToDate.getTime() <= now) throw new Error(`the certificate has expired: ${own.validTo}`);
}

/** Listeners of a source. */
export class TlsListeners {
  readonly #listeners = new Set<(material: TlsMaterial) => void>();

  add(listener: (material: TlsMaterial) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  tell(material: TlsMaterial): void {
    for (const listener of this.#listeners) listener(material);
  }
}
