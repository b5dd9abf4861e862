/** What a path of the Kubernetes API names. */
export interface Target {
  /** Path of the collection without namespace, e.g. `/api/v1/pods`. */
  readonly kind: string;
  readonly group: string;
  readonly resource: string;
  readonly namespace: string | undefined;
  readonly name: string | undefined;
}

/** undefined: not a path of objects. Subresources are not known here. */
export function targetOf(path: string): Target | undefined {
  const match = /^(\/api|\/apis\/([^/]+))\/([^/]+)\/(.+)$/.exec(path);
  const [, prefix, group = '', version, rest] = match ?? [];
  if (prefix === undefined || version === undefined || rest === undefined) return undefined;
  const parts = rest.split('/').map(decodeURIComponent);
  const inNamespace = parts[0] === 'namespaces' && parts.length > 2;
  const namespace = inNamespace ? parts[1] : undefined;
  const [resource, name, ...more] = inNamespace ? parts.slice(2) : parts;
  if (resource === undefined || more.length > 0) return undefined;
  return { kind: `${prefix}/${version}/${resource}`, group, resource, namespace, name };
}
