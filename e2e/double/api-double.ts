/**
 * A double of the Kubernetes API server: lists in pages, watches with bookmarks, gets, creations and merge patches, with
 * versions as the real one gives them; and the faults that a real one has on bad days. It knows no schemas, no admission and
 * no subresources.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import type { Duplex } from 'node:stream';
import { makeServerIdentity, type ServerIdentity } from './certificates.ts';
import { Lists } from './lists.ts';
import type { Deed, Rights } from './rights.ts';
import type { Selection } from './selectors.ts';
import { Conflict, keyOf, mergePatch, Store, type StoredObject } from './store.ts';
import { targetOf, type Target } from './target.ts';
import { Watching } from './watching.ts';

/** Kinds that every cluster has; CRDs are installed by `install`. */
const BUILT_IN = [
  '/api/v1/nodes',
  '/api/v1/pods',
  '/api/v1/namespaces',
  '/api/v1/configmaps',
  '/apis/events.k8s.io/v1/events',
];
const MAX_JOURNAL = 20_000;
const DEFAULT_WATCH_SECONDS = 1800;

export interface ApiDoubleOptions {
  /** The only bearer token that is accepted; default `token-1`. */
  readonly token?: string;
  /** Milliseconds between bookmarks; default 60,000. */
  readonly bookmarkMs?: number;
  /** Default: everything is allowed. */
  readonly rights?: Rights;
}

/** A request that was answered. */
export interface JournalEntry {
  readonly at: number;
  readonly method: string;
  readonly path: string;
  readonly query: Readonly<Record<string, string>>;
  readonly status: number;
}

class Refusal extends Error {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  constructor(status: number, message: string, headers: Readonly<Record<string, string>> = {}) {
    super(message);
    this.status = status;
    this.headers = headers;
  }
}

export class ApiDouble {
  readonly store = new Store();
  /** The last requests. */
  readonly journal: JournalEntry[] = [];
  /** The only bearer token that is accepted. */
  token: string;
  rights: Rights | undefined;
  readonly #bookmarkMs: number;
  readonly #kinds = new Set(BUILT_IN);
  readonly #lists = new Lists(this.store);
  readonly #watches = new Set<{ readonly kind: string; readonly watching: Watching }>();
  readonly #sockets = new Set<Duplex>();
  #identity: ServerIdentity;
  #server: Server;
  #port = 0;
  #throttled = { requests: 0, retryAfter: 0 };
  #stalled = false;

  /** Starts one on 127.0.0.1. */
  static async start(options: ApiDoubleOptions = {}): Promise<ApiDouble> {
    const double = new ApiDouble(options, await makeServerIdentity());
    await double.resume();
    return double;
  }

  private constructor({ token = 'token-1', bookmarkMs = 60_000, rights }: ApiDoubleOptions, identity: ServerIdentity) {
    this.token = token;
    this.rights = rights;
    this.#bookmarkMs = bookmarkMs;
    this.#identity = identity;
    this.#server = this.#makeServer();
  }

  /** For the environment of clients. */
  get url(): string {
    return `https://127.0.0.1:${this.#port}`;
  }

  /** PEM of the authority of now. */
  get ca(): string {
    return this.#identity.ca;
  }

  /** Watches under way. */
  get watchCount(): number {
    return this.#watches.size;
  }

  /** Makes a kind known, as installing a CRD does. @param kind e.g. `/apis/crd.antrea.io/v1alpha2/trafficcontrols` */
  install(...kinds: readonly string[]): void {
    for (const kind of kinds) this.#kinds.add(kind);
  }

  /** Takes a kind away; its watches end. */
  uninstall(kind: string): void {
    this.#kinds.delete(kind);
    for (const watch of this.#watches) if (watch.kind === kind) watch.watching.end();
  }

  /** Fault: the next requests are answered 429. @param retryAfter seconds */
  throttle(requests: number, retryAfter: number): void {
    this.#throttled = { requests, retryAfter };
  }

  /** Fault: connections break; watches end in the middle. */
  dropConnections(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  /** Fault: requests are accepted and not answered, watches say nothing more (on) or as ever (off). */
  stall(on: boolean): void {
    this.#stalled = on;
  }

  /** Fault: nobody is there until `resume`. */
  async outage(): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    this.dropConnections();
    await closed;
  }

  /** The end of an outage: on the same port. */
  async resume(): Promise<void> {
    if (this.#server.listening) return;
    this.#server = this.#makeServer();
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen(this.#port, '127.0.0.1', resolve);
    });
    this.#port = (this.#server.address() as AddressInfo).port;
  }

  /** Fault: history is forgotten, and all watches are told that they are too old. Tokens of lists expire too. */
  expire(): void {
    this.store.compact();
    this.#lists.expire();
    for (const { watching } of this.#watches) watching.sendGone();
  }

  /** Another authority and certificate from now on; connections break. */
  async rotateIdentity(): Promise<void> {
    this.#identity = await makeServerIdentity();
    this.#server.setSecureContext(this.#identity);
    this.dropConnections();
  }

  async stop(): Promise<void> {
    if (this.#server.listening) await this.outage();
  }

  /** Requests so far by method and the beginning of their path. */
  requests(method: string, path: string): JournalEntry[] {
    return this.journal.filter((entry) => entry.method === method && entry.path.startsWith(path));
  }

  #makeServer(): Server {
    const server = createServer({ key: this.#identity.key, cert: this.#identity.cert }, (request, response) => {
      void this.#answer(request, response);
    });
    server.on('connection', (socket: Duplex) => {
      this.#sockets.add(socket);
      socket.once('close', () => this.#sockets.delete(socket));
      socket.on('error', () => undefined);
    });
    server.on('tlsClientError', () => undefined);
    return server;
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', this.url);
    const query = Object.fromEntries(url.searchParams);
    let status = 200;
    try {
      if (this.#stalled) return;
      status = await this.#serve(request, url.pathname, query, response);
    } catch (error) {
      const refusal = error instanceof Refusal ? error : new Refusal(500, String(error));
      status = refusal.status;
      const body = { kind: 'Status', apiVersion: 'v1', status: 'Failure', code: status, message: refusal.message };
      send(response, status, body, refusal.headers);
    } finally {
      if (this.journal.length >= MAX_JOURNAL) this.journal.splice(0, MAX_JOURNAL / 2);
      this.journal.push({ at: Date.now(), method: request.method ?? '', path: url.pathname, query, status });
    }
  }

  async #serve(
    request: IncomingMessage,
    path: string,
    query: Readonly<Record<string, string>>,
    response: ServerResponse,
  ): Promise<number> {
    if (this.#throttled.requests > 0) {
      this.#throttled.requests--;
      throw new Refusal(429, 'too many requests', { 'Retry-After': String(this.#throttled.retryAfter) });
    }
    if (request.headers.authorization !== `Bearer ${this.token}`) throw new Refusal(401, 'Unauthorized');
    const target = targetOf(path);
    const known = target !== undefined && this.#kinds.has(target.kind);
    if (target !== undefined) this.#authorize(target, request.method ?? '', query);
    if (!known) throw new Refusal(404, 'the server could not find the requested resource');
    switch (request.method) {
      case 'GET':
        return this.#read(target, query, response);
      case 'POST':
        return this.#create(target, await readJson(request), response);
      case 'PATCH':
        return this.#patch(target, request.headers['content-type'] ?? '', await readJson(request), response);
      default:
        throw new Refusal(405, `method ${String(request.method)} is not known here`);
    }
  }

  #authorize(
    { group, resource, namespace, name }: Target,
    method: string,
    query: Readonly<Record<string, string>>,
  ): void {
    const read = name === undefined ? (query['watch'] === 'true' ? 'watch' : 'list') : 'get';
    const verbs: Record<string, Deed['verb']> = { POST: 'create', PATCH: 'patch', DELETE: 'delete' };
    const selected = /^metadata\.name=([^,]+)$/.exec(query['fieldSelector'] ?? '')?.[1];
    const deed: Deed = { verb: verbs[method] ?? read, group, resource, namespace, name: name ?? selected };
    if (this.rights === undefined || this.rights(deed)) return;
    throw new Refusal(403, `forbidden: cannot ${deed.verb} resource "${resource}" in API group "${group}"`);
  }

  #read(target: Target, query: Readonly<Record<string, string>>, response: ServerResponse): number {
    const { kind, namespace, name } = target;
    if (name !== undefined) return send(response, 200, this.#present(target));
    const selection: Selection = {
      namespace,
      fieldSelector: query['fieldSelector'],
      labelSelector: query['labelSelector'],
    };
    if (query['watch'] !== 'true') {
      const list = this.#lists.page(kind, selection, Number(query['limit'] ?? 0), query['continue']);
      if (list === undefined) throw new Refusal(410, 'The provided continue parameter is too old');
      return send(response, 200, list);
    }
    const watching = new Watching(
      this.store,
      {
        kind,
        selection,
        revision: Number(query['resourceVersion'] ?? this.store.revision),
        bookmarks: query['allowWatchBookmarks'] === 'true',
        timeoutMs: Number(query['timeoutSeconds'] ?? DEFAULT_WATCH_SECONDS) * 1000,
      },
      response,
      this.#bookmarkMs,
    );
    const entry = { kind, watching };
    this.#watches.add(entry);
    response.once('close', () => this.#watches.delete(entry));
    return 200;
  }

  #create({ kind, namespace }: Target, body: unknown, response: ServerResponse): number {
    const { metadata, ...rest } = body as StoredObject & { readonly metadata: { readonly generateName?: string } };
    const name = metadata.name || `${metadata.generateName ?? ''}${crypto.randomUUID().slice(0, 5)}`;
    const object: StoredObject = {
      ...rest,
      metadata: { ...metadata, name, ...(namespace !== undefined && { namespace }) },
    };
    if (this.store.get(kind, keyOf(object)) !== undefined) throw new Refusal(409, `"${name}" already exists`);
    return send(response, 201, this.store.put(kind, object));
  }

  #patch(target: Target, contentType: string, body: unknown, response: ServerResponse): number {
    if (!contentType.startsWith('application/merge-patch+json')) throw new Refusal(415, `no patches of ${contentType}`);
    const before = this.#present(target);
    const after = mergePatch(before, body) as StoredObject;
    // A patch that changes nothing makes no version.
    if (JSON.stringify(after) === JSON.stringify(before)) return send(response, 200, before);
    try {
      return send(response, 200, this.store.put(target.kind, after));
    } catch (error) {
      throw error instanceof Conflict ? new Refusal(409, error.message) : error;
    }
  }

  #present({ kind, namespace, name = '' }: Target): StoredObject {
    const object = this.store.get(kind, namespace === undefined ? name : `${namespace}/${name}`);
    if (object === undefined) throw new Refusal(404, `"${name}" not found`);
    return object;
  }
}

function send(
  response: ServerResponse,
  status: number,
  body: unknown,
  headers: Readonly<Record<string, string>> = {},
): number {
  response.writeHead(status, { 'Content-Type': 'application/json', ...headers });
  response.end(JSON.stringify(body));
  return status;
}

async function readJson(request: IncomingMessage): Promise<unknown> {
  const chunks: Buffer[] = [];
  for await (const chunk of request as AsyncIterable<Buffer>) chunks.push(chunk);
  return JSON.parse(Buffer.concat(chunks).toString('utf8')) as unknown;
}
