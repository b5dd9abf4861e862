import { readFile } from 'node:fs/promises';
import { FileWatch } from '../state/file-watch.ts';
import { errorMessage } from '../util/errors.ts';
import { checkMaterial, TlsListeners, type OnTlsProblem, type TlsMaterial, type TlsSource } from './tls-material.ts';

export interface CertificateFilesOptions {
  /** PEM: CAs that may sign the other side's certificate. */
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
  readonly onProblem: OnTlsProblem;
  /** Milliseconds since 1970; default: the clock. */
  readonly now?: () => number;
  /** Milliseconds between looks at the files; default 2000. Changes in their directory are seen at once. */
  readonly pollMs?: number;
}

/** A certificate with its key is some kilobytes, a CA bundle a few hundred. */
const MAX_FILE = 1024 * 1024;

async function readPem(path: string): Promise<string> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    throw new Error(`${path} cannot be read: ${errorMessage(error)}`, { cause: error });
  }
  if (text.length > MAX_FILE) throw new Error(`${path} has ${text.length} bytes: that is no certificate`);
  return text;
}

/**
 * Certificates that somebody else puts into files, e.g. a mounted Secret, and may replace at any time. Files that do not fit
 * together (replaced one by one) or are worse than what is in use are not taken, and looked at again with the next change.
 */
export class CertificateFiles implements TlsSource {
  readonly #options: CertificateFilesOptions;
  readonly #listeners = new TlsListeners();
  readonly #watches: FileWatch[];
  #current: TlsMaterial;
  #reading = false;
  #again = false;
  #closed = false;

  private constructor(options: CertificateFilesOptions, first: TlsMaterial) {
    this.#options = options;
    this.#current = first;
    const watch = options.pollMs === undefined ? {} : { pollMs: options.pollMs };
    this.#watches = [options.ca, options.cert, options.key].map(
      (file) => new FileWatch(file, () => void this.#reload(), watch),
    );
  }

  /** @throws Error naming the file or what is wrong with it */
  static async open(options: CertificateFilesOptions): Promise<CertificateFiles> {
    const material = await CertificateFiles.#read(options);
    return new CertificateFiles(options, material);
  }

  static async #read({ ca, cert, key, now = Date.now }: CertificateFilesOptions): Promise<TlsMaterial> {
    const material = { ca: await readPem(ca), cert: await readPem(cert), key: await readPem(key) };
    try {
      checkMaterial(material, now());
    } catch (error) {
      throw new Error(`${cert}, ${key} and ${ca}: ${errorMessage(error)}`, { cause: error });
    }
    return material;
  }

  get current(): TlsMaterial {
    return this.#current;
  }

  onChange(listener: (material: TlsMaterial) => void): () => void {
    return this.#listeners.add(listener);
  }

  close(): void {
    this.#closed = true;
    for (const watch of this.#watches) watch.close();
  }

  async #reload(): Promise<void> {
    if (this.#reading) {
      this.#again = true;
      return;
    }
    this.#reading = true;
    do {
      this.#again = false;
      await this.#take();
    } while (this.#mustRepeat());
    this.#reading = false;
  }

  /** Set by a change while the files were being read. */
  #mustRepeat(): boolean {
    return this.#again && !this.#closed;
  }

  async #take(): Promise<void> {
    const { onProblem } = this.#options;
    try {
      const next = await CertificateFiles.#read(this.#options);
      if (this.#closed) return;
      onProblem(undefined);
      const { ca, cert, key } = this.#current;
      if (next.ca === ca && next.cert === cert && next.key === key) return;
      this.#current = next;
      this.#listeners.tell(next);
    } catch (error) {
      if (this.#closed) return;
      onProblem({
        what: `new certificates are not taken, the former ones stay in use: ${errorMessage(error)}`,
        where: 'flow export',
        action: 'put a certificate, its key and the CA that fit together into the files',
      });
    }
  }
}
