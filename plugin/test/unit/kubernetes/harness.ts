/** The API double with clients whose times are short. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ApiDouble, type ApiDoubleOptions } from '../../../../e2e/double/api-double.ts';
import type { Log } from '../../../src/dataplane/ports.ts';
import { ApiClient } from '../../../src/kubernetes/api-client.ts';
import { InClusterCredentials } from '../../../src/kubernetes/credentials.ts';
import type { FollowTimes } from '../../../src/kubernetes/reflector.ts';

export const quiet: Log = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
};

/** Back-off and the like in milliseconds that tests can wait for. */
export const QUICK: FollowTimes = {
  batchMs: 5,
  pageSize: 7,
  missingMs: 50,
  backoff: { firstMs: 10, maxMs: 50 },
};

/** Collects what has to be ended after a test. */
export class Harness {
  readonly #closers: (() => unknown)[] = [];

  add(close: () => unknown): void {
    this.#closers.push(close);
  }

  async close(): Promise<void> {
    for (let close = this.#closers.pop(); close !== undefined; close = this.#closers.pop()) await close();
  }

  async double(options: ApiDoubleOptions = {}): Promise<ApiDouble> {
    const double = await ApiDouble.start(options);
    this.add(() => double.stop());
    return double;
  }

  /** A client with the files of a service account. */
  client(double: ApiDouble, timeoutMs = 2000): { readonly api: ApiClient; readonly directory: string } {
    const directory = mkdtempSync(join(tmpdir(), 'xmasq-account-'));
    this.add(() => rmSync(directory, { recursive: true }));
    writeAccount(directory, double);
    const credentials = new InClusterCredentials({ directory, server: double.url });
    const api = new ApiClient({ credentials, timeoutMs });
    this.add(() => api.close());
    return { api, directory };
  }
}

/** What the kubelet does when a token or the authority is new. */
export function writeAccount(directory: string, { token, ca }: ApiDouble): void {
  writeFileSync(join(directory, 'token'), `${token}\n`);
  writeFileSync(join(directory, 'ca.crt'), ca);
}

/** Waits until `condition` holds. @throws after `ms` */
export async function until(condition: () => boolean, ms = 3000): Promise<void> {
  const end = Date.now() + ms;
  while (!condition()) {
    if (Date.now() > end) throw new Error(`not within ${ms} ms: ${condition.toString()}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

export const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
