import type { ApiClient } from './api-client.ts';
import type { KubeObject } from './objects.ts';

export interface ListOptions {
  readonly api: ApiClient;
  readonly path: string;
  readonly query: Readonly<Record<string, string>>;
  /** Objects a page. */
  readonly pageSize: number;
  readonly signal: AbortSignal;
}

/** A server that goes on giving tokens is broken; this many pages of 500 are more than Kubernetes supports. */
const MAX_PAGES = 1000;

/**
 * Reads a list page by page; of the pages nothing is kept. @returns the version from which to watch
 * @throws ApiError; of status 410 when a token has expired: then the list has to begin anew
 */
export async function listPages(
  { api, path, query, pageSize, signal }: ListOptions,
  each: (object: KubeObject) => void,
): Promise<string> {
  let token: string | undefined;
  for (let page = 0; page < MAX_PAGES; page++) {
    const { metadata } = await api.page(
      path,
      { query: { ...query, limit: String(pageSize), continue: token }, signal },
      each,
    );
    token = metadata?.continue;
    const version = metadata?.resourceVersion;
    if (!token) {
      if (!version) throw new Error(`the list of ${path} has no resourceVersion`);
      return version;
    }
  }
  throw new Error(`the list of ${path} does not end after ${MAX_PAGES} pages`);
}
