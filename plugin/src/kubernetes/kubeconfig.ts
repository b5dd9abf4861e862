import { stat } from 'node:fs/promises';
import type { RequestOptions } from 'node:https';
import { fingerprintOf, type Access, type Credentials } from './credentials.ts';

interface Loaded {
  readonly config: import('@kubernetes/client-node').KubeConfig;
  /** When the file was changed last. */
  readonly mtimeMs: number;
}

/**
 * A kubeconfig file, with all its ways to authenticate (certificates, tokens, exec plugins, OIDC). client-node reads it; it
 * is imported no sooner than here, since it takes 85 MB.
 */
export class KubeconfigCredentials implements Credentials {
  readonly #file: string;
  readonly #context: string | undefined;
  #loaded: Loaded | undefined;

  /** @param context default: the file's current one */
  constructor(file: string, context?: string) {
    this.#file = file;
    this.#context = context;
  }

  async access(): Promise<Access> {
    const { config } = await this.#load();
    const cluster = config.getCurrentCluster();
    if (cluster === null) throw new Error(`${this.#file}: no cluster in the current context; set current-context`);
    const options: RequestOptions = {};
    await config.applyToHTTPSOptions(options);
    const server = new URL(cluster.server);
    const tls = {
      ...(options.ca !== undefined && { ca: options.ca }),
      ...(options.cert !== undefined && { cert: options.cert }),
      ...(options.key !== undefined && { key: options.key }),
      ...(options.servername !== undefined && { servername: options.servername }),
      ...(options.rejectUnauthorized !== undefined && { rejectUnauthorized: options.rejectUnauthorized }),
    };
    const headers = { ...(options.headers as Record<string, string> | undefined) };
    if (typeof options.auth === 'string') {
      headers['Authorization'] ??= `Basic ${Buffer.from(options.auth).toString('base64')}`;
    }
    // client-node keeps its agents for ever, whatever becomes of the authority: only where there is a proxy.
    const agent = cluster.proxyUrl === undefined ? undefined : options.agent;
    return {
      server,
      headers,
      tls,
      fingerprint: fingerprintOf(server, tls),
      ...(typeof agent === 'object' && { agent }),
    };
  }

  refused(): void {
    this.#loaded = undefined;
  }

  async #load(): Promise<Loaded> {
    const { mtimeMs } = await stat(this.#file);
    if (this.#loaded?.mtimeMs === mtimeMs) return this.#loaded;
    const { KubeConfig } = await import('@kubernetes/client-node');
    const config = new KubeConfig();
    config.loadFromFile(this.#file);
    if (this.#context !== undefined) config.setCurrentContext(this.#context);
    this.#loaded = { config, mtimeMs };
    return this.#loaded;
  }
}
