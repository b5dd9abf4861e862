import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import type { Agent } from 'node:http';
import type { RequestOptions } from 'node:https';
import { isIPv6 } from 'node:net';
import { join } from 'node:path';
import { errorMessage } from '../util/errors.ts';

/** How to reach the API server now. */
export interface Access {
  readonly server: URL;
  readonly headers: Readonly<Record<string, string>>;
  readonly tls: Pick<RequestOptions, 'ca' | 'cert' | 'key' | 'servername' | 'rejectUnauthorized'>;
  /** Connections may be used again as long as this is the same. */
  readonly fingerprint: string;
  /** Given where connections go through a proxy. */
  readonly agent?: Agent;
}

/** Where access comes from. It changes while the sidecar runs: tokens live for an hour, authorities are replaced. */
export interface Credentials {
  /** Called for each request. @throws Error that names the file or setting that is missing or wrong */
  access(): Promise<Access>;
  /** The API server refused what `access` gave: whatever is cached must be read anew. */
  refused(): void;
}

const SERVICE_ACCOUNT = '/var/run/secrets/kubernetes.io/serviceaccount';

export interface InClusterOptions {
  /** Directory with `token` and `ca.crt`; default that of every pod. */
  readonly directory?: string;
  /** Default: of the environment variables KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT. */
  readonly server?: string;
}

/** Identifies what a connection depends on besides the token. */
export function fingerprintOf(server: URL, tls: Access['tls']): string {
  return createHash('sha256')
    .update(JSON.stringify([server.origin, tls]))
    .digest('hex');
}

/**
 * The pod's own service account. Its files are read for each request, which is some a minute: a token or an authority that
 * the kubelet has replaced is never missed. Not through client-node, whose import takes 85 MB on every node of the cluster.
 */
export class InClusterCredentials implements Credentials {
  readonly #directory: string;
  readonly #server: string | undefined;

  constructor({ directory = SERVICE_ACCOUNT, server }: InClusterOptions = {}) {
    this.#directory = directory;
    this.#server = server;
  }

  async access(): Promise<Access> {
    const [token, ca] = await Promise.all([this.#read('token'), this.#read('ca.crt')]);
    const server = new URL(this.#server ?? serverOfEnvironment());
    const tls = { ca };
    return {
      server,
      headers: { Authorization: `Bearer ${token.trim()}` },
      tls,
      fingerprint: fingerprintOf(server, tls),
    };
  }

  refused(): void {
    // Nothing is cached.
  }

  async #read(name: string): Promise<string> {
    const file = join(this.#directory, name);
    try {
      return await readFile(file, 'utf8');
    } catch (error) {
      throw new Error(
        `no credentials for the Kubernetes API: ${errorMessage(error)}; run in a pod with a service account, or configure a kubeconfig`,
        { cause: error },
      );
    }
  }
}

function serverOfEnvironment(): string {
  const { KUBERNETES_SERVICE_HOST: host, KUBERNETES_SERVICE_PORT: port } = process.env;
  if (!host || !port) {
    throw new Error(
      'KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set; run in a pod, or configure a kubeconfig',
    );
  }
  return `https://${isIPv6(host) ? `[${host}]` : host}:${port}`;
}
