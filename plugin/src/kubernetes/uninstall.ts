/**
 * How sidecars are told to leave their nodes, and how they answer. A ConfigMap of the release asks with `data.request`, any
 * text; each sidecar answers on its own Node, which it may patch anyway, with the request that it has obeyed: an answer to
 * an earlier request counts for nothing.
 */
import type { Log } from '../dataplane/ports.ts';
import type { ApiClient } from './api-client.ts';
import { ApiError, statusOf } from './api-error.ts';
import { Backoff, pause, type BackoffOptions } from './backoff.ts';
import { CAPABILITY_ANNOTATION } from './node-view.ts';
import type { KubeObject } from './objects.ts';
import { Reflector, type FollowTimes } from './reflector.ts';

/** Name of the ConfigMap. */
export const UNINSTALL_CONFIG_MAP = 'xmasq-uninstall';
/** Key of its data: what asks; absent or empty: nothing is asked. */
export const REQUEST_KEY = 'request';
/** On Nodes: `{"request":"..."}`, or with `"error":"..."` why the node is not clean. */
export const UNINSTALL_ANNOTATION = 'node.xmasq.antrea.io/uninstall';

const MERGE_PATCH = 'application/merge-patch+json';
/** Characters of a request that count, and of an error that is told. */
const MAX_REQUEST = 128;
const MAX_ERROR = 500;

/** What a sidecar says of its node. */
export interface UninstallAnswer {
  readonly request: string;
  /** Why the node is not clean; undefined: it is. */
  readonly error?: string;
}

/**
 * `unknown`: the API has said nothing yet. `absent`: there is no ConfigMap, as where the release is being deleted.
 * `clear`: it asks for nothing. `asked`: leave.
 */
export type FlagState =
  { readonly kind: 'unknown' | 'absent' | 'clear' } | { readonly kind: 'asked'; readonly request: string };

export interface UninstallFlagOptions extends FollowTimes {
  readonly api: ApiClient;
  readonly namespace: string;
  readonly log: Log;
}

export function uninstallFlagPath(namespace: string): string {
  return `/api/v1/namespaces/${namespace}/configmaps`;
}

/** Follows the ConfigMap. While the API is away the last state stays in force. */
export class UninstallFlag {
  readonly #reflector: Reflector<string>;
  readonly #waiting = new Set<() => void>();

  constructor(options: UninstallFlagOptions) {
    this.#reflector = new Reflector<string>({
      ...options,
      path: uninstallFlagPath(options.namespace),
      query: { fieldSelector: `metadata.name=${UNINSTALL_CONFIG_MAP}` },
      project: requestOf,
      changed: () => {
        for (const wake of this.#waiting) wake();
      },
    });
  }

  get state(): FlagState {
    if (!this.#reflector.synced) return { kind: 'unknown' };
    const [request] = this.#reflector.items.values();
    if (request === undefined) return { kind: 'absent' };
    return request === '' ? { kind: 'clear' } : { kind: 'asked', request };
  }

  start(): void {
    this.#reflector.start();
  }

  async stop(): Promise<void> {
    await this.#reflector.stop();
  }

  /** Resolves with true when the state passes, or with false once `signal` is aborted. Never rejects. */
  async until(passes: (state: FlagState) => boolean, signal: AbortSignal): Promise<boolean> {
    while (!signal.aborted) {
      if (passes(this.state)) return true;
      await new Promise<void>((resolve) => {
        const wake = (): void => {
          this.#waiting.delete(wake);
          signal.removeEventListener('abort', wake);
          resolve();
        };
        this.#waiting.add(wake);
        signal.addEventListener('abort', wake);
      });
    }
    return false;
  }
}

function requestOf(object: KubeObject & { readonly data?: Readonly<Record<string, string>> }): string {
  return (object.data?.[REQUEST_KEY] ?? '').slice(0, MAX_REQUEST);
}

/** undefined: absent, or nothing that this version understands. */
export function parseAnswer(text: string | undefined): UninstallAnswer | undefined {
  if (text === undefined) return undefined;
  try {
    const { request, error } = JSON.parse(text) as { readonly [key in keyof UninstallAnswer]?: unknown };
    if (typeof request !== 'string') return undefined;
    return { request, ...(typeof error === 'string' && { error }) };
  } catch {
    return undefined;
  }
}

export interface PatchOptions {
  readonly api: ApiClient;
  readonly signal: AbortSignal;
  readonly backoff?: BackoffOptions;
}

/**
 * Puts the answer on a Node, or (undefined) takes it away. With an answer, and with `forget`, the capability goes, too: a node
 * without data plane is no peer. A Node that is no longer there needs nothing.
 * @throws as `persistently` does
 */
export async function putAnswer(
  options: PatchOptions,
  nodeName: string,
  answer: UninstallAnswer | undefined,
  forget = answer !== undefined,
): Promise<void> {
  const text =
    answer && JSON.stringify({ ...answer, ...(answer.error && { error: answer.error.slice(0, MAX_ERROR) }) });
  const annotations = { [UNINSTALL_ANNOTATION]: text ?? null, ...(forget && { [CAPABILITY_ANNOTATION]: null }) };
  await persistently(options, async () => {
    try {
      await options.api.call(`/api/v1/nodes/${nodeName}`, {
        method: 'PATCH',
        contentType: MERGE_PATCH,
        body: { metadata: { annotations } },
        signal: options.signal,
      });
    } catch (error) {
      if (statusOf(error) !== 404) throw error;
    }
  });
}

/**
 * Asks all sidecars of the release.
 * @throws as `persistently` does; 404 where the release has no such ConfigMap
 */
export async function putRequest(options: PatchOptions, namespace: string, request: string): Promise<void> {
  await persistently(options, () =>
    options.api.call(`${uninstallFlagPath(namespace)}/${UNINSTALL_CONFIG_MAP}`, {
      method: 'PATCH',
      contentType: MERGE_PATCH,
      body: { data: { [REQUEST_KEY]: request } },
      signal: options.signal,
    }),
  );
}

/**
 * Tries until it works, with growing pauses, until `signal` is aborted.
 * @throws ApiError 403 and 404, which trying again does not change; the last error once the signal is aborted
 */
export async function persistently<T>(
  { signal, backoff: times }: Pick<PatchOptions, 'signal' | 'backoff'>,
  work: () => Promise<T>,
): Promise<T> {
  const backoff = new Backoff(times);
  let last: unknown;
  for (;;) {
    try {
      return await work();
    } catch (error) {
      // Once aborted, what came before says more than the abortion.
      if (signal.aborted) throw last ?? error;
      last = error;
      if ([403, 404].includes(statusOf(error) ?? 0)) throw error;
      await pause(Math.max(backoff.next(), error instanceof ApiError ? (error.retryAfterMs ?? 0) : 0), signal);
    }
  }
}
