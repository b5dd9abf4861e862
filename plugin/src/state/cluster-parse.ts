import { YamlFile } from '../config/yaml-file.ts';
import type { ClusterNode, ClusterState } from './cluster.ts';
import { clusterFileSchema, type ClusterFile } from './cluster-schema.ts';
import { parseAddress4, parsePrefix4 } from './prefix4.ts';

interface Problem {
  readonly path: (string | number)[];
  readonly message: string;
}

/**
 * Static cluster state from the text of a file.
 * @param file for messages only
 * @param ownName this node's name
 * @throws FileError that lists every problem
 */
export function parseCluster(file: string, text: string, ownName: string): ClusterState {
  const yaml = new YamlFile(file, text);
  const { nodes: raw } = yaml.parse(clusterFileSchema);
  const problems = [
    ...duplicates(raw, 'name'),
    ...duplicates(raw, 'address'),
    ...overlaps(raw),
    ...(raw.some((node) => node.name === ownName)
      ? []
      : [
          {
            path: ['nodes'],
            message: `lack this node, ${ownName}; expected an entry with that name (nodeName of the configuration)`,
          },
        ]),
  ];
  if (problems.length > 0) throw yaml.error(problems);

  const nodes = raw.map(toNode).toSorted((a, b) => compare(a.name, b.name));
  const own = nodes.find((node) => node.name === ownName);
  if (own === undefined) throw new Error('unreachable: own node was checked above');
  return { own, nodes };
}

function toNode({ name, address, podCIDRs, capability }: ClusterFile['nodes'][number]): ClusterNode {
  return { name, address, podCIDRs: podCIDRs.toSorted(compare), ...(capability !== undefined && { capability }) };
}

function duplicates(nodes: ClusterFile['nodes'], field: 'name' | 'address'): Problem[] {
  const seen = new Map<string, number>();
  return nodes.flatMap((node, index) => {
    const before = seen.get(node[field]);
    if (before === undefined) {
      seen.set(node[field], index);
      return [];
    }
    return [
      {
        path: ['nodes', index, field],
        message: `is ${node[field]}, as is nodes[${before}].${field}; expected one of its own`,
      },
    ];
  });
}

/** Prefixes that overlap each other, and transport addresses inside a prefix. */
function overlaps(nodes: ClusterFile['nodes']): Problem[] {
  const ranges = nodes
    .flatMap((node, index) => [
      ...node.podCIDRs.map((text, n) => ({
        ...range(text),
        text,
        what: 'prefix',
        path: ['nodes', index, 'podCIDRs', n],
      })),
      { ...range(node.address), text: node.address, what: 'address', path: ['nodes', index, 'address'] },
    ])
    .toSorted((a, b) => a.first - b.first || b.last - a.last);
  const problems: Problem[] = [];
  let widest: (typeof ranges)[number] | undefined;
  for (const next of ranges) {
    // Equal addresses are reported as duplicates.
    if (widest !== undefined && next.first <= widest.last && (widest.what === 'prefix' || next.what === 'prefix')) {
      problems.push({
        path: next.path,
        message: `is ${next.text}, which overlaps ${widest.text} of ${nodes[Number(widest.path[1])]?.name ?? ''}; expected no overlaps`,
      });
    }
    if (widest === undefined || next.last > widest.last) widest = next;
  }
  return problems;
}

/** Of a prefix or address that the schema has let through. */
function range(text: string): { readonly first: number; readonly last: number } {
  const prefix = parsePrefix4(text.includes('/') ? text : `${text}/32`);
  return prefix ?? { first: parseAddress4(text) ?? 0, last: 0 };
}

function compare(a: string, b: string): number {
  return a < b ? -1 : Number(a > b);
}
