import { Agent, request, type RequestOptions } from 'node:https';
import type { Agent as AnyAgent, IncomingMessage } from 'node:http';
import { ApiError, isCredentialError, parseRetryAfter } from './api-error.ts';
import type { Access, Credentials } from './credentials.ts';
import { LineSplitter } from './lines.ts';
import { ListScanner } from './list-scanner.ts';
import type { KubeList, KubeObject, WatchEvent } from './objects.ts';

/** Of answers with one object. */
const MAX_BODY_BYTES = 4 * 1024 * 1024;
/** etcd takes objects of 1.5 MB. */
const MAX_LINE_BYTES = 4 * 1024 * 1024;
/** Each watch has a connection of its own; of the rest there are few at a time. */
const MAX_SOCKETS = 24;
const USER_AGENT = 'xmasq-agent';

export interface ApiClientOptions {
  readonly credentials: Credentials;
  /** Milliseconds for a whole request, and for a watch to begin; default 30,000. */
  readonly timeoutMs?: number;
}

export interface CallOptions {
  readonly method?: 'GET' | 'POST' | 'PATCH';
  /** Without leading `?`; undefined values are left out. */
  readonly query?: Readonly<Record<string, string | undefined>>;
  /** Sent as JSON. */
  readonly body?: object;
  /** Of the body; default application/json. */
  readonly contentType?: string;
  readonly signal: AbortSignal;
}

export interface WatchOptions {
  readonly query: Readonly<Record<string, string | undefined>>;
  /** The API server has accepted the watch. */
  readonly opened: () => void;
  readonly event: (event: WatchEvent) => void;
  /** Milliseconds without a byte after which the connection is taken for dead. */
  readonly idleMs: number;
  readonly signal: AbortSignal;
}

/**
 * Requests to the Kubernetes API over node:https. client-node's own Watch ends after 30 s without an event, hides the
 * header Retry-After and keeps the first authority for ever; its informers keep whole objects (40 MB for 5,000 Nodes).
 */
export class ApiClient {
  readonly #credentials: Credentials;
  readonly #timeoutMs: number;
  #agent: { readonly fingerprint: string; readonly agent: Agent } | undefined;

  constructor({ credentials, timeoutMs = 30_000 }: ApiClientOptions) {
    this.#credentials = credentials;
    this.#timeoutMs = timeoutMs;
  }

  /**
   * One request. @returns the JSON body
   * @throws ApiError for answers other than 2xx; Error without `status` where there is none
   */
  async call(path: string, options: CallOptions): Promise<unknown> {
    const signal = AbortSignal.any([options.signal, AbortSignal.timeout(this.#timeoutMs)]);
    return this.#guarded(signal, async () => {
      const response = await this.#send(path, options, signal);
      const text = await readBody(response);
      if (!isSuccess(response)) throw toError(response, text);
      return JSON.parse(text) as unknown;
    });
  }

  /** One page of a list; `each` is called for its objects while they arrive. @returns its metadata @throws as `call` does */
  async page(
    path: string,
    options: Pick<CallOptions, 'query' | 'signal'>,
    each: (object: KubeObject) => void,
  ): Promise<KubeList> {
    const signal = AbortSignal.any([options.signal, AbortSignal.timeout(this.#timeoutMs)]);
    return this.#guarded(signal, async () => {
      const response = await this.#send(path, options, signal);
      if (!isSuccess(response)) throw toError(response, await readBody(response));
      const scanner = new ListScanner((item) => each(item as KubeObject));
      for await (const chunk of response as AsyncIterable<Buffer>) scanner.push(chunk);
      return scanner.end() as KubeList;
    });
  }

  /** Watches until the server ends it; events come while this runs. @throws as `call` does, and ApiError 410 */
  async watch(path: string, { query, opened, event, idleMs, signal }: WatchOptions): Promise<void> {
    const abort = new AbortController();
    let timer = setTimeout(() => abort.abort(new Error('the API server did not answer in time')), this.#timeoutMs);
    const heard = (): void => {
      clearTimeout(timer);
      timer = setTimeout(() => abort.abort(new Error(`nothing heard for ${idleMs} ms`)), idleMs);
    };
    const both = AbortSignal.any([signal, abort.signal]);
    try {
      await this.#guarded(both, async () => {
        const response = await this.#send(path, { query: { ...query, watch: 'true' } }, both);
        if (!isSuccess(response)) throw toError(response, await readBody(response));
        opened();
        heard();
        const lines = new LineSplitter(MAX_LINE_BYTES);
        for await (const chunk of response as AsyncIterable<Buffer>) {
          heard();
          lines.push(chunk, (line) => event(JSON.parse(line) as WatchEvent));
        }
      });
    } finally {
      clearTimeout(timer);
    }
  }

  /** Ends connections that nobody uses. */
  close(): void {
    this.#agent?.agent.destroy();
    this.#agent = undefined;
  }

  async #guarded<T>(signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      // node:https says no more than "aborted".
      if (signal.aborted) throw signal.reason;
      if (isCredentialError(error)) this.#credentials.refused();
      throw error;
    }
  }

  async #send(path: string, options: Omit<CallOptions, 'signal'>, signal: AbortSignal): Promise<IncomingMessage> {
    const access = await this.#credentials.access();
    signal.throwIfAborted();
    const url = new URL(access.server.pathname.replace(/\/$/, '') + path, access.server);
    for (const [name, value] of Object.entries(options.query ?? {})) {
      if (value !== undefined) url.searchParams.set(name, value);
    }
    const body = options.body === undefined ? undefined : JSON.stringify(options.body);
    const headers = {
      ...access.headers,
      Accept: 'application/json',
      'User-Agent': USER_AGENT,
      ...(body !== undefined && {
        'Content-Type': options.contentType ?? 'application/json',
        'Content-Length': String(Buffer.byteLength(body)),
      }),
    };
    const settings: RequestOptions = {
      method: options.method ?? 'GET',
      headers,
      ...access.tls,
      agent: this.#agentFor(access),
      signal,
    };
    return new Promise((resolve, reject) => {
      request(url, settings, resolve).on('error', reject).end(body);
    });
  }

  /** Connections made under another authority are ended, watches too: they go on from their version. */
  #agentFor({ agent, fingerprint, tls }: Access): AnyAgent {
    if (agent !== undefined) return agent;
    if (this.#agent?.fingerprint !== fingerprint) {
      this.#agent?.agent.destroy();
      // The session cache is off: a resumed session would not be verified under the authority of now.
      const fresh = new Agent({ keepAlive: true, maxSockets: MAX_SOCKETS, maxCachedSessions: 0, ...tls });
      this.#agent = { fingerprint, agent: fresh };
    }
    return this.#agent.agent;
  }
}

function isSuccess({ statusCode = 0 }: IncomingMessage): boolean {
  return statusCode >= 200 && statusCode < 300;
}

async function readBody(response: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > MAX_BODY_BYTES) throw new RangeError(`an answer of more than ${MAX_BODY_BYTES} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

/** Of a Status object, or of whatever a proxy in between has to say. */
function toError({ statusCode = 0, statusMessage, headers }: IncomingMessage, text: string): ApiError {
  let message = statusMessage ?? '';
  try {
    const status = JSON.parse(text) as { readonly message?: unknown };
    if (typeof status.message === 'string') message = status.message;
  } catch {
    // Not JSON: the status line has to do.
  }
  return new ApiError(statusCode, message.slice(0, 300), parseRetryAfter(headers['retry-after'], Date.now()));
}
