import type { ServerResponse } from 'node:http';
import { selects, type Selection } from './selectors.ts';
import type { Store, StoredObject, Write } from './store.ts';

export interface WatchRequest {
  readonly kind: string;
  readonly selection: Selection;
  readonly revision: number;
  readonly bookmarks: boolean;
  readonly timeoutMs: number;
}

/** One watch that is under way: sends what happens, as the real watch cache does. */
export class Watching {
  readonly #store: Store;
  readonly #request: WatchRequest;
  readonly #response: ServerResponse;
  readonly #timers: NodeJS.Timeout[] = [];
  #unfollow: () => void = () => undefined;

  /** @param bookmarkMs between bookmarks */
  constructor(store: Store, request: WatchRequest, response: ServerResponse, bookmarkMs: number) {
    this.#store = store;
    this.#request = request;
    this.#response = response;
    response.writeHead(200, { 'Content-Type': 'application/json' });
    response.flushHeaders();
    const missed = store.since(request.kind, request.revision);
    if (missed === undefined) {
      this.sendGone();
      return;
    }
    for (const write of missed) this.#send(write);
    this.#unfollow = store.follow((write) => {
      if (write.kind === request.kind) this.#send(write);
    });
    if (request.bookmarks) this.#timers.push(setInterval(() => this.bookmark(), bookmarkMs));
    this.#timers.push(setTimeout(() => this.end(), request.timeoutMs));
    response.once('close', () => this.#release());
  }

  /** Tells the version of now. */
  bookmark(): void {
    this.#line('BOOKMARK', { metadata: { resourceVersion: String(this.#store.revision) } });
  }

  /** Ends as when the version that was asked for is too old. */
  sendGone(): void {
    this.#line('ERROR', { kind: 'Status', code: 410, reason: 'Expired', message: 'too old resource version' });
    this.end();
  }

  end(): void {
    this.#release();
    this.#response.end();
  }

  #release(): void {
    this.#unfollow();
    for (const timer of this.#timers) clearInterval(timer);
  }

  #send({ before, after, revision }: Write): void {
    const [was, is] = [before, after].map((object) => selects(this.#request.selection, object));
    if (is === true) this.#line(was === true ? 'MODIFIED' : 'ADDED', after);
    else if (was === true && before !== undefined) this.#line('DELETED', atRevision(after ?? before, revision));
  }

  #line(type: string, object: unknown): void {
    this.#response.write(`${JSON.stringify({ type, object })}\n`);
  }
}

/** What is deleted is shown with the version of its end. */
function atRevision(object: StoredObject, revision: number): StoredObject {
  return { ...object, metadata: { ...object.metadata, resourceVersion: String(revision) } };
}
