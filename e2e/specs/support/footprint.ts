/** What one node's sidecar has in the kernel: programs, maps, attachments, pins, qdiscs, processes. */
import { LabError, eventually } from '../../lab/lab.ts';
import type { Node, Place } from '../../lab/lab.ts';
import type { Sidecar } from '../../lab/sidecar.ts';

/** Identifiers of objects; the kernel gives none of them twice while the machine runs. */
export interface Footprint {
  readonly programs: readonly number[];
  readonly maps: readonly number[];
  /** Attachments by TCX; one that is gone from here is detached. */
  readonly links: readonly number[];
}

interface ProgramInfo {
  readonly id: number;
  readonly map_ids?: readonly number[];
}

/** The pinned programs and links, and all maps that are pinned or that the programs use. */
export async function footprintOf(node: Node): Promise<Footprint> {
  const programs: ProgramInfo[] = [];
  const maps = new Set<number>();
  for (const path of await listPins(node, 'programs')) {
    const program = (await bpftool(node, ['prog', 'show', 'pinned', path])) as ProgramInfo;
    programs.push(program);
    for (const id of program.map_ids ?? []) maps.add(id);
  }
  for (const path of await listPins(node, 'maps')) {
    maps.add(((await bpftool(node, ['map', 'show', 'pinned', path])) as { id: number }).id);
  }
  const ascending = (ids: Iterable<number>): number[] => [...ids].sort((a, b) => a - b);
  return {
    programs: ascending(programs.map(({ id }) => id)),
    maps: ascending(maps),
    links: ascending((await pinnedLinks(node)).map(({ id }) => id)),
  };
}

/** Which of these objects are still there; empty lists: none. */
export async function remaining(node: Node, footprint: Footprint): Promise<Footprint> {
  const living = async (what: 'prog' | 'map' | 'link', ids: readonly number[]): Promise<number[]> => {
    const live = new Set(((await bpftool(node, [what, 'show'])) as { id: number }[]).map(({ id }) => id));
    return ids.filter((id) => live.has(id));
  };
  return {
    programs: await living('prog', footprint.programs),
    maps: await living('map', footprint.maps),
    links: await living('link', footprint.links),
  };
}

/** What is attached where, `PROGRAM-IFINDEX link ID program ID`, and clsact filters, `PROGRAM KIND DEVICE`; sorted. */
export async function attachments(node: Node): Promise<string[]> {
  const [found] = (await bpftool(node, ['net', 'show'])) as {
    readonly tc: readonly { readonly devname: string; readonly kind: string; readonly name: string }[];
  }[];
  const links = await pinnedLinks(node);
  return [
    ...(found?.tc ?? []).map(({ name, kind, devname }) => `${name} ${kind} ${devname}`),
    ...links.map(({ name, id, program }) => `${name} link ${id} program ${program}`),
  ].sort();
}

/** Number of a device. */
export async function ifindexOf(node: Node, device: string): Promise<number> {
  const { stdout } = await node.exec(['ip', '-j', 'link', 'show', 'dev', device]);
  const [link] = JSON.parse(stdout) as { ifindex: number }[];
  if (link === undefined) throw new LabError(`${node.name} has no device ${device}`);
  return link.ifindex;
}

async function pinnedLinks(node: Node): Promise<{ name: string; id: number; program: number }[]> {
  return Promise.all(
    (await listPins(node, 'links')).map(async (path) => {
      const { id, prog_id: program } = (await bpftool(node, ['link', 'show', 'pinned', path])) as {
        id: number;
        prog_id: number;
      };
      return { name: path.slice(path.lastIndexOf('/') + 1), id, program };
    }),
  );
}

/** Kinds of the qdiscs of all devices, `KIND DEVICE`, sorted. */
export async function qdiscs(place: Place): Promise<string[]> {
  const { stdout } = await place.exec(['tc', '-j', 'qdisc', 'show']);
  return (JSON.parse(stdout) as { kind: string; dev: string }[]).map(({ kind, dev }) => `${kind} ${dev}`).sort();
}

/**
 * Leaves the node as a reboot without XMasq would: filters of a clsact qdisc outlive their pins, which links do not; those the
 * kernel takes away some time after the last pin (RCU, kernel/bpf/inode.c), and packets go on being masqueraded until then.
 */
export async function rebootWithout(sidecar: Sidecar): Promise<void> {
  const { node } = sidecar;
  const links = (await pinnedLinks(node)).map(({ id }) => id);
  await sidecar.kill9();
  await node.exec(['rm', '-rf', node.pinDir]);
  for (const qdisc of await qdiscs(node)) {
    const [kind, device = ''] = qdisc.split(' ');
    if (kind === 'clsact') await node.exec(['tc', 'qdisc', 'del', 'dev', device, 'clsact']);
  }
  await eventually(
    'nothing is attached',
    async () => (await remaining(node, { programs: [], maps: [], links })).links.length === 0,
  );
}

/** Everything below the node's pin directory, sorted; empty if there is none. */
export async function pins(node: Node): Promise<string[]> {
  const { stdout } = await node.exec(['find', node.pinDir], { check: false });
  return stdout
    .split('\n')
    .filter((line) => line !== '')
    .sort();
}

/** Command lines of processes that name this text. */
export async function processes(node: Node, text: string): Promise<string[]> {
  const { stdout } = await node.exec(['ps', '-eo', 'args', '--no-headers'], { check: false });
  return stdout.split('\n').filter((line) => line.includes(text));
}

async function listPins(node: Node, directory: string): Promise<string[]> {
  const { stdout } = await node.exec(['ls', `${node.pinDir}/${directory}`], { check: false });
  return stdout
    .split('\n')
    .filter((name) => name !== '')
    .map((name) => `${node.pinDir}/${directory}/${name}`);
}

async function bpftool(node: Node, args: readonly string[]): Promise<unknown> {
  return JSON.parse((await node.exec(['bpftool', '-j', ...args])).stdout) as unknown;
}
