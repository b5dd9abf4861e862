import { selects, type Selection } from './selectors.ts';
import type { Store, StoredObject } from './store.ts';

/** Lists that somebody reads page by page. */
const MAX_OPEN = 100;

export interface Page {
  readonly kind: 'List';
  readonly metadata: {
    readonly resourceVersion: string;
    readonly continue?: string;
    readonly remainingItemCount?: number;
  };
  readonly items: readonly StoredObject[];
}

/** Pages of one state: the second page shows what there was at the first one's version. */
export class Lists {
  readonly #store: Store;
  readonly #open = new Map<string, { readonly revision: number; readonly rest: readonly StoredObject[] }>();

  constructor(store: Store) {
    this.#store = store;
  }

  /** All tokens that were given out become too old. */
  expire(): void {
    this.#open.clear();
  }

  /** @param limit 0: no limit. @returns undefined: the token is too old */
  page(kind: string, selection: Selection, limit: number, token: string | undefined): Page | undefined {
    const list =
      token === undefined
        ? {
            revision: this.#store.revision,
            rest: this.#store.list(kind).filter((object) => selects(selection, object)),
          }
        : this.#open.get(token);
    if (list === undefined) return undefined;
    const { revision, rest } = list;
    const items = limit > 0 ? rest.slice(0, limit) : rest;
    const remaining = rest.slice(items.length);
    const metadata = { resourceVersion: String(revision) };
    if (remaining.length === 0) return { kind: 'List', metadata, items };
    const next = crypto.randomUUID();
    this.#open.set(next, { revision, rest: remaining });
    const [oldest] = this.#open.keys();
    if (this.#open.size > MAX_OPEN && oldest !== undefined) this.#open.delete(oldest);
    return {
      kind: 'List',
      metadata: { ...metadata, continue: next, remainingItemCount: remaining.length },
      items,
    };
  }
}
