/** Which cluster the specs run in: what e2e/kind/test.sh says by the environment. */
import { LabError } from '../errors.ts';
import type { Family } from '../lab.ts';

/** A kind cluster, as its user knows it. */
export interface ClusterSettings {
  /** Name of the cluster. */
  readonly name: string;
  /** Context of kubectl. */
  readonly context: string;
  /** Families of the cluster's pods, the preferred one first. */
  readonly families: readonly Family[];
}

const FAMILIES: Readonly<Record<string, readonly Family[]>> = {
  ipv4: ['ipv4'],
  ipv6: ['ipv6'],
  dual: ['ipv4', 'ipv6'],
};

/**
 * Reads XMASQ_KIND_CLUSTER (default `xmasq`) and XMASQ_KIND_IP_FAMILY (ipv4, ipv6 or dual; default ipv4).
 * @throws LabError there is no such family
 */
export function clusterSettings(env: Readonly<Record<string, string | undefined>> = process.env): ClusterSettings {
  const name = env['XMASQ_KIND_CLUSTER'] ?? 'xmasq';
  const word = env['XMASQ_KIND_IP_FAMILY'] ?? 'ipv4';
  const families = FAMILIES[word];
  if (families === undefined)
    throw new LabError(`XMASQ_KIND_IP_FAMILY is "${word}"; expected ${Object.keys(FAMILIES).join(', ')}`);
  return { name, context: `kind-${name}`, families };
}
