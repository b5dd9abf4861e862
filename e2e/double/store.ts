/** The objects of the API double, with versions and a history as etcd and the watch cache keep them. */

export interface StoredObject {
  readonly apiVersion?: string;
  readonly kind?: string;
  readonly metadata: {
    readonly name: string;
    readonly namespace?: string;
    readonly uid?: string;
    readonly resourceVersion?: string;
    readonly creationTimestamp?: string;
    readonly labels?: Readonly<Record<string, string>>;
    readonly annotations?: Readonly<Record<string, string>>;
  };
  readonly [field: string]: unknown;
}

/** One write. */
export interface Write {
  readonly revision: number;
  readonly kind: string;
  readonly before: StoredObject | undefined;
  readonly after: StoredObject | undefined;
}

/** Writes that can be asked for; what is older is compacted, as etcd does. */
const MAX_HISTORY = 20_000;

export class Conflict extends Error {}

/** Objects by kind (the path of their collection without namespaces, e.g. `/api/v1/pods`). */
export class Store {
  readonly #kinds = new Map<string, Map<string, StoredObject>>();
  readonly #listeners = new Set<(write: Write) => void>();
  #history: Write[] = [];
  #revision = 1000;
  #compacted = 1000;

  get revision(): number {
    return this.#revision;
  }

  /** Makes the store forget its history: whoever watches from an older version is told so. */
  compact(): void {
    this.#history = [];
    this.#compacted = this.#revision;
  }

  get(kind: string, key: string): StoredObject | undefined {
    return this.#kinds.get(kind)?.get(key);
  }

  /** Sorted by key, as etcd lists. */
  list(kind: string): StoredObject[] {
    return [...(this.#kinds.get(kind) ?? new Map<string, StoredObject>())]
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([, object]) => object);
  }

  /** Creates or replaces. @throws Conflict when the object names a version that is not the present one */
  put(kind: string, object: StoredObject): StoredObject {
    const key = keyOf(object);
    const before = this.get(kind, key);
    const asked = object.metadata.resourceVersion;
    if (asked !== undefined && asked !== before?.metadata.resourceVersion) {
      throw new Conflict('the object has been modified; please apply your changes to the latest version and try again');
    }
    const after: StoredObject = {
      ...object,
      metadata: {
        ...object.metadata,
        uid: before?.metadata.uid ?? object.metadata.uid ?? crypto.randomUUID(),
        creationTimestamp:
          before?.metadata.creationTimestamp ?? object.metadata.creationTimestamp ?? new Date().toISOString(),
        resourceVersion: String(this.#revision + 1),
      },
    };
    const objects = this.#kinds.get(kind) ?? new Map<string, StoredObject>();
    this.#kinds.set(kind, objects);
    objects.set(key, after);
    this.#write({ kind, before, after });
    return after;
  }

  delete(kind: string, key: string): boolean {
    const before = this.get(kind, key);
    if (before === undefined) return false;
    this.#kinds.get(kind)?.delete(key);
    this.#write({ kind, before, after: undefined });
    return true;
  }

  /** Writes to a kind after a revision; undefined: too long ago. */
  since(kind: string, revision: number): Write[] | undefined {
    if (revision < this.#compacted) return undefined;
    return this.#history.filter((write) => write.kind === kind && write.revision > revision);
  }

  /** Calls `listener` for each write from now on. @returns ends that */
  follow(listener: (write: Write) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  #write(write: Omit<Write, 'revision'>): void {
    this.#revision++;
    const full = { ...write, revision: this.#revision };
    this.#history.push(full);
    if (this.#history.length > MAX_HISTORY) {
      this.#compacted = this.#history[MAX_HISTORY / 2]?.revision ?? this.#revision;
      this.#history.splice(0, MAX_HISTORY / 2 + 1);
    }
    for (const listener of this.#listeners) listener(full);
  }
}

export function keyOf({ metadata: { namespace, name } }: StoredObject): string {
  return namespace === undefined ? name : `${namespace}/${name}`;
}

/** JSON merge patch (RFC 7396). */
export function mergePatch(target: unknown, patch: unknown): unknown {
  if (!isObject(patch)) return patch;
  const result = new Map(Object.entries(isObject(target) ? target : {}));
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) result.delete(key);
    else result.set(key, mergePatch(result.get(key), value));
  }
  return Object.fromEntries(result);
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
