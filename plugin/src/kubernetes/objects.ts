/**
 * The parts of Kubernetes objects that are read here. What comes from an API server is checked where it is used: every
 * field may be missing, since objects of CRDs are only as good as the CRD's schema.
 */

export interface ObjectMeta {
  readonly name?: string;
  readonly namespace?: string;
  readonly uid?: string;
  readonly resourceVersion?: string;
  /** RFC 3339. */
  readonly creationTimestamp?: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
}

export interface KubeObject {
  readonly metadata?: ObjectMeta;
}

/** A page of a list, but for its items. */
export interface KubeList {
  readonly metadata?: { readonly resourceVersion?: string; readonly continue?: string };
}

/** One line of a watch. */
export interface WatchEvent {
  readonly type: string;
  /** For `ERROR` a Status, else the object. */
  readonly object: KubeObject & { readonly code?: number; readonly message?: string };
}

export interface LabelSelector {
  readonly matchLabels?: Readonly<Record<string, string>>;
  readonly matchExpressions?: readonly {
    readonly key: string;
    /** In, NotIn, Exists, DoesNotExist. */
    readonly operator: string;
    readonly values?: readonly string[];
  }[];
}

/** `namespace/name`, or the name of what has no namespace. */
export function objectKey({ metadata }: KubeObject): string {
  const { namespace, name } = metadata ?? {};
  return namespace === undefined ? (name ?? '') : `${namespace}/${name ?? ''}`;
}
