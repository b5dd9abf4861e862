import type { Model } from './model.ts';
import { enumerators } from './names.ts';

/**
 * A proto3 file with the values of enum xmasq_reason.
 * @throws Error where the enum is missing or has no value 0
 */
export function emitReasonsProto({ enums }: Model): string {
  const reason = enums.find(({ name }) => name === 'xmasq_reason');
  if (reason === undefined) throw new Error('no enum xmasq_reason in the BTF: is it used by any program or variable?');
  const values = enumerators(reason).filter(({ sentinel }) => !sentinel);
  const zero = values.find(({ value }) => value === 0);
  if (zero === undefined) throw new Error('enum xmasq_reason needs a value 0 for proto3');
  // proto3 wants the zero value first.
  const ordered = [zero, ...values.filter((value) => value !== zero)];
  return [
    '// Generated from enum xmasq_reason of the C headers by scripts/gen-layouts.ts. Do not edit.',
    'syntax = "proto3";',
    '',
    'package xmasq.v1;',
    '',
    '// Why a packet or flow was treated as it was.',
    'enum Reason {',
    ...ordered.map(({ name, value }) => `  REASON_${name} = ${value};`),
    '}',
    '',
  ].join('\n');
}
