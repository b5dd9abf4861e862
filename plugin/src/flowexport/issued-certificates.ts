import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { errorCode, errorMessage } from '../util/errors.ts';
import { issueCa, issueCertificate, type CertificatePair, type Subject, type Validity } from './certificate-issuer.ts';
import { replaceFile } from './replace-file.ts';
import {
  checkMaterial,
  parseCertificates,
  signedBy,
  TlsListeners,
  type OnTlsProblem,
  type TlsMaterial,
  type TlsSource,
} from './tls-material.ts';

export interface IssuedCertificatesOptions {
  /** Made with mode 0700 where it does not exist. Files: ca.crt, ca.key, server.crt, .key, client.crt, .key. */
  readonly directory: string;
  /** Names of the server besides 127.0.0.1, ::1 and localhost. */
  readonly dns?: readonly string[];
  /** How long certificates hold; default 90 days. */
  readonly leafDays?: number;
  /** How long the CA holds; default 3650 days. */
  readonly caDays?: number;
  readonly onProblem: OnTlsProblem;
  /** Milliseconds since 1970; default: the clock. */
  readonly now?: () => number;
  /** Milliseconds between looks at what is due; default an hour. */
  readonly checkMs?: number;
}

const DAY_MS = 86_400_000;
/** Certificates hold from a little before now on: clocks differ. */
const BACKDATE_MS = 3_600_000;
const CA_NAME = 'xmasq flow export CA';
/** CAs that were replaced stay in the bundle until they expire; no more than these. */
const MAX_CAS = 4;

interface Held {
  /** Newest first; the first one is ours to sign with. */
  readonly bundle: string;
  readonly caKey: string;
  readonly server: CertificatePair;
  readonly client: CertificatePair;
}

/** Whether two thirds of a certificate's life are over. */
export function isDue(cert: X509Certificate, now: number): boolean {
  const begin = cert.validFromDate.getTime();
  return now >= begin + ((cert.validToDate.getTime() - begin) * 2) / 3;
}

/**
 * Certificates that the sidecar issues itself: for its server, and for the agent as client. Kept in a directory, so that a
 * restart changes nothing; renewed after two thirds of their lives, while everything goes on. A new CA joins the old one in
 * ca.crt long before it signs anything, so that who copies ca.crt to the agent has weeks to do so.
 */
export class IssuedCertificates implements TlsSource {
  readonly #options: IssuedCertificatesOptions;
  readonly #listeners = new TlsListeners();
  readonly #timer: NodeJS.Timeout;
  #held: Held;
  #renewing = false;

  private constructor(options: IssuedCertificatesOptions, held: Held) {
    this.#options = options;
    this.#held = held;
    this.#timer = setInterval(() => void this.renew(), options.checkMs ?? 3_600_000);
    this.#timer.unref();
  }

  /** Takes what the directory holds; issues what is missing, due, or does not fit together. @throws Error of the directory */
  static async open(options: IssuedCertificatesOptions): Promise<IssuedCertificates> {
    await mkdir(options.directory, { recursive: true, mode: 0o700 });
    const before = read(options.directory);
    const held = await renewed(before, options);
    if (held !== before) await write(options.directory, held, before);
    return new IssuedCertificates(options, held);
  }

  /** For the server. */
  get current(): TlsMaterial {
    return { ca: this.#held.bundle, ...this.#held.server };
  }

  /** For the agent: `ca` belongs into the ConfigMap of its FlowExporterDestination, the rest into the Secret. */
  get client(): TlsMaterial {
    return { ca: this.#held.bundle, ...this.#held.client };
  }

  onChange(listener: (material: TlsMaterial) => void): () => void {
    return this.#listeners.add(listener);
  }

  close(): void {
    clearInterval(this.#timer);
  }

  /** Issues what is due. By itself every hour. */
  async renew(): Promise<void> {
    if (this.#renewing) return;
    this.#renewing = true;
    const { directory, onProblem } = this.#options;
    try {
      const held = await renewed(this.#held, this.#options);
      if (held !== this.#held) {
        await write(directory, held, this.#held);
        this.#held = held;
        this.#listeners.tell(this.current);
      }
      onProblem(undefined);
    } catch (error) {
      onProblem({
        what: `certificates that are due cannot be renewed: ${errorMessage(error)}`,
        where: directory,
        action: 'make the directory writable for the sidecar, and see that there is room on its file system',
      });
    } finally {
      this.#renewing = false;
    }
  }
}

/** What is there; undefined where a part is missing or unreadable: all of it is issued anew then. */
function read(directory: string): Held | undefined {
  const text = (name: string): string => readFileSync(join(directory, name), 'utf8');
  const pair = (name: string): CertificatePair => ({ cert: text(`${name}.crt`), key: text(`${name}.key`) });
  try {
    return { bundle: text('ca.crt'), caKey: text('ca.key'), server: pair('server'), client: pair('client') };
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return undefined;
    throw error;
  }
}

/** Keys before certificates, the CA first: whatever interrupts this, the next start finds out what does not fit. */
async function write(directory: string, held: Held, before: Held | undefined): Promise<void> {
  const files: [name: string, text: string, former: string | undefined][] = [
    ['ca.key', held.caKey, before?.caKey],
    ['ca.crt', held.bundle, before?.bundle],
    ['server.key', held.server.key, before?.server.key],
    ['server.crt', held.server.cert, before?.server.cert],
    ['client.key', held.client.key, before?.client.key],
    ['client.crt', held.client.cert, before?.client.cert],
  ];
  for (const [name, text, former] of files) {
    if (text !== former) await replaceFile(join(directory, name), text, name.endsWith('.key') ? 0o600 : 0o644);
  }
}

function serverSubject({ dns = [] }: IssuedCertificatesOptions): Subject {
  return { commonName: 'xmasq-agent', usage: 'server', ip: ['127.0.0.1', '::1'], dns: ['localhost', ...dns] };
}

const CLIENT: Subject = { commonName: 'antrea-agent', usage: 'client' };

function usable(pair: CertificatePair, bundle: string, names: readonly string[], now: number): boolean {
  try {
    checkMaterial({ ca: bundle, ...pair }, now);
    const cert = new X509Certificate(pair.cert);
    const named = names.every((name) => cert.checkHost(name) !== undefined || cert.checkIP(name) !== undefined);
    return named && signedBy(cert, parseCertificates(bundle)) && !isDue(cert, now);
  } catch {
    return false;
  }
}

/** The CA that signs, if it can be used for at least as long as that. */
function usableCa(held: Held | undefined, now: number): CertificatePair | undefined {
  if (held === undefined) return undefined;
  const ca = { cert: held.bundle, key: held.caKey };
  try {
    checkMaterial({ ca: held.bundle, ...ca }, now);
    return ca;
  } catch {
    return undefined;
  }
}

/** The same object where nothing is due. */
async function renewed(held: Held | undefined, options: IssuedCertificatesOptions): Promise<Held> {
  const { leafDays = 90, caDays = 3650, now = Date.now } = options;
  const time = now();
  const newCa = (): Promise<CertificatePair> => issueCa(CA_NAME, validity(time, caDays * DAY_MS));
  const known = usableCa(held, time);
  const ca = known ?? (await newCa());
  const bundle = known === undefined || held === undefined ? ca.cert : held.bundle;
  const signer = new X509Certificate(ca.cert);
  const caDue = isDue(signer, time);
  const leaf = async (pair: CertificatePair | undefined, subject: Subject): Promise<CertificatePair> => {
    const names = [...(subject.dns ?? []), ...(subject.ip ?? [])];
    // Before a CA is replaced it signs once more: the new one must become known to the other side first.
    if (pair !== undefined && !caDue && usable(pair, bundle, names, time)) return pair;
    const limit = signer.validToDate.getTime() - time;
    return issueCertificate(ca, subject, validity(time, Math.min(leafDays * DAY_MS, limit)));
  };
  const server = await leaf(held?.server, serverSubject(options));
  const client = await leaf(held?.client, CLIENT);
  if (caDue) {
    const next = await newCa();
    return { bundle: joined(next.cert, bundle, time), caKey: next.key, server, client };
  }
  if (held?.server === server && held.client === client && held.bundle === bundle) return held;
  return { bundle, caKey: ca.key, server, client };
}

/** A bundle with a new CA at its head, without expired ones. */
function joined(first: string, bundle: string, now: number): string {
  const rest = parseCertificates(bundle).filter((ca) => ca.validToDate.getTime() > now);
  return [first, ...rest.slice(0, MAX_CAS - 1).map((ca) => ca.toString())].join('');
}

function validity(now: number, lengthMs: number): Validity {
  return { notBefore: new Date(now - BACKDATE_MS), notAfter: new Date(now + lengthMs) };
}
