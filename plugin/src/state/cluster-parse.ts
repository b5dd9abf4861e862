import { YamlFile } from '../config/yaml-file.ts';
import { oneOfEach, rangeOf, transportAddress } from './addresses.ts';
import type { ClusterNode, ClusterState } from './cluster.ts';
import { clusterFileSchema, type ClusterFile } from './cluster-schema.ts';

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
  const { nodes: raw, trafficEncapMode } = yaml.parse(clusterFileSchema);
  const problems = [
    ...addressProblems(raw),
    ...duplicates(names(raw)),
    ...duplicates(raw.flatMap(addressPlaces)),
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
  return { own, nodes, trafficEncapMode };
}

type RawNode = ClusterFile['nodes'][number];

/** A value and where it stands. */
interface Place {
  readonly text: string;
  readonly path: readonly (string | number)[];
}

function toNode(raw: RawNode): ClusterNode {
  const { name, podCIDRs, capability } = raw;
  const addresses = oneOfEach(addressesOf(raw).map((text) => transportAddress(text) ?? text));
  return { name, addresses, podCIDRs: podCIDRs.toSorted(compare), ...(capability !== undefined && { capability }) };
}

function addressesOf({ address, addresses }: RawNode): readonly string[] {
  return addresses ?? (address === undefined ? [] : [address]);
}

function addressProblems(nodes: readonly RawNode[]): Problem[] {
  return nodes.flatMap(({ address, addresses }, index) =>
    (address === undefined) !== (addresses === undefined)
      ? []
      : [
          {
            path: ['nodes', index],
            message:
              address === undefined
                ? 'lacks a transport address; expected address or addresses'
                : 'has address and addresses; expected one of the two',
          },
        ],
  );
}

function names(nodes: readonly RawNode[]): Place[] {
  return nodes.map(({ name }, index) => ({ text: name, path: ['nodes', index, 'name'] }));
}

function addressPlaces(node: RawNode, index: number): Place[] {
  const path = node.addresses === undefined ? ['nodes', index, 'address'] : ['nodes', index, 'addresses'];
  return addressesOf(node).map((text) => ({ text: transportAddress(text) ?? text, path }));
}

function duplicates(places: readonly Place[]): Problem[] {
  const seen = new Map<string, Place>();
  return places.flatMap((place) => {
    const before = seen.get(place.text);
    if (before === undefined) {
      seen.set(place.text, place);
      return [];
    }
    const [, index, field] = before.path;
    return [
      {
        path: [...place.path],
        message: `is ${place.text}, as is nodes[${index ?? ''}].${field ?? ''}; expected one of its own`,
      },
    ];
  });
}

/** Prefixes that overlap each other, and transport addresses inside a prefix. */
function overlaps(nodes: ClusterFile['nodes']): Problem[] {
  const ranges = nodes
    .flatMap((node, index) => [
      ...node.podCIDRs.map((text, n) => ({
        ...rangeOf(text),
        text,
        what: 'prefix',
        path: ['nodes', index, 'podCIDRs', n],
      })),
      ...addressPlaces(node, index).map(({ text, path }) => ({
        ...rangeOf(text),
        text,
        what: 'address',
        path: [...path],
      })),
    ])
    .toSorted((a, b) => compare(a.first, b.first) || compare(b.last, a.last));
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

function compare<T extends string | bigint>(a: T, b: T): number {
  return a < b ? -1 : Number(a > b);
}
