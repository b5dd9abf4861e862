import type { RecordPolicy } from './record.ts';

/** A policy in one word: `K8s data/db-in`, `ACNP allow-shop`, `ANP shop/web:to-db` (rule). */
export function policyText({ type, namespace, name, rule }: RecordPolicy): string {
  const full = namespace === '' ? name : `${namespace}/${name}`;
  return `${type === '' ? '' : `${type} `}${full}${rule === '' ? '' : `:${rule}`}`;
}
