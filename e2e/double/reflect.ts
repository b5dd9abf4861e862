/**
 * The part of the metadata proposal that tsyringe, of @peculiar/x509, needs of the global Reflect: metadata of classes by
 * key. To be imported before @peculiar/x509; nothing happens where there is a whole polyfill.
 */
interface Metadata {
  getMetadata?: (key: unknown, target: object) => unknown;
  getOwnMetadata?: (key: unknown, target: object) => unknown;
  defineMetadata?: (key: unknown, value: unknown, target: object) => void;
}

const all = new WeakMap<object, Map<unknown, unknown>>();
const own = (key: unknown, target: object): unknown => all.get(target)?.get(key);
const inherited = (key: unknown, target: object): unknown => {
  for (let at: object | null = target; at !== null; at = Object.getPrototypeOf(at) as object | null) {
    if (all.get(at)?.has(key) === true) return own(key, at);
  }
  return undefined;
};

const reflect = Reflect as unknown as Metadata;
if (reflect.getMetadata === undefined) {
  reflect.getMetadata = inherited;
  reflect.getOwnMetadata = own;
  reflect.defineMetadata = (key, value, target) => {
    const entries = all.get(target) ?? new Map<unknown, unknown>();
    all.set(target, entries.set(key, value));
  };
}
