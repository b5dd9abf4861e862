import type { StoredObject } from './store.ts';

/** What a list or watch asks for. */
export interface Selection {
  readonly namespace: string | undefined;
  /** `path=value`, comma-separated; undefined: all. */
  readonly fieldSelector: string | undefined;
  /** Equality only. */
  readonly labelSelector: string | undefined;
}

/** Whether a selection has an object; false for none. */
export function selects({ namespace, fieldSelector, labelSelector }: Selection, object?: StoredObject): boolean {
  if (object === undefined || (namespace !== undefined && object.metadata.namespace !== namespace)) return false;
  const fields = terms(fieldSelector).every(([path, value]) => fieldOf(object, path.split('.')) === value);
  return fields && terms(labelSelector).every(([label, value]) => object.metadata.labels?.[label] === value);
}

function terms(selector: string | undefined): [string, string][] {
  if (!selector) return [];
  return selector.split(',').map((term) => {
    const match = /^([^=!]+)==?(.*)$/.exec(term);
    if (match?.[1] === undefined || match[2] === undefined)
      throw new RangeError(`selector ${term}: not supported here`);
    return [match[1], match[2]];
  });
}

function fieldOf(value: unknown, [first, ...rest]: readonly string[]): unknown {
  if (first === undefined) return value;
  return typeof value === 'object' && value !== null
    ? fieldOf((value as Record<string, unknown>)[first], rest)
    : undefined;
}
