/** Certificates for tests. */
import {
  issueCa,
  issueCertificate,
  type CertificatePair,
  type Subject,
} from '../../../src/flowexport/certificate-issuer.ts';
import { TlsListeners, type TlsMaterial, type TlsSource } from '../../../src/flowexport/tls-material.ts';

const DAY = 86_400_000;

export function days(from: number, to: number): { notBefore: Date; notAfter: Date } {
  return { notBefore: new Date(Date.now() + from * DAY), notAfter: new Date(Date.now() + to * DAY) };
}

/** A CA with certificates of both sides. */
export class TestCa {
  readonly ca: CertificatePair;

  private constructor(ca: CertificatePair) {
    this.ca = ca;
  }

  static async make(): Promise<TestCa> {
    return new TestCa(await issueCa('test CA', days(-1, 1)));
  }

  server(names: Pick<Subject, 'ip' | 'dns'> = { ip: ['127.0.0.1', '::1'], dns: ['localhost'] }): Promise<TlsMaterial> {
    return this.#issue({ commonName: 's', usage: 'server', ...names });
  }

  client(validity = days(-1, 1)): Promise<TlsMaterial> {
    return this.#issue({ commonName: 'c', usage: 'client' }, validity);
  }

  async #issue(subject: Subject, validity = days(-1, 1)): Promise<TlsMaterial> {
    return { ca: this.ca.cert, ...(await issueCertificate(this.ca, subject, validity)) };
  }
}

/** A source that a test replaces by hand. */
export class HandTls implements TlsSource {
  readonly #listeners = new TlsListeners();
  #current: TlsMaterial;

  constructor(first: TlsMaterial) {
    this.#current = first;
  }
  get current(): TlsMaterial {
    return this.#current;
  }
  replace(material: TlsMaterial): void {
    this.#current = material;
    this.#listeners.tell(material);
  }
  onChange(listener: (material: TlsMaterial) => void): () => void {
    return this.#listeners.add(listener);
  }
  close(): void {
    // Nothing is open.
  }
}

/** Waits until the condition holds. @throws Error after `ms` */
export async function until(condition: () => boolean, ms = 5000): Promise<void> {
  const end = Date.now() + ms;
  while (!condition()) {
    if (Date.now() > end) throw new Error(`not within ${ms} ms: ${condition.toString()}`);
    await new Promise<void>((resolve) => void setTimeout(resolve, 5));
  }
}
