import type { IConversionOptions } from 'protobufjs';

/** A message class that can be turned into a plain object. */
interface Convertible<T> {
  toObject(message: T, options?: IConversionOptions): Record<string, unknown>;
}

/**
 * The message in proto3's JSON mapping, with unset scalars, enums and lists printed as their defaults: camelCase names,
 * enums by name, 64-bit integers as strings, absent messages and absent optional fields left out.
 */
export function toJson<T>(type: Convertible<T>, message: T): Record<string, unknown> {
  const object = type.toObject(message, { json: true, longs: String, enums: String, bytes: String, defaults: true });
  return withoutNull(object) as Record<string, unknown>;
}

/** protobufjs writes null for an absent message. */
function withoutNull(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutNull);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .filter(([, inner]) => inner !== null)
      .map(([key, inner]) => [key, withoutNull(inner)]),
  );
}
