/** How packets go to a peer, for each family and class: what the programs have found out, and what follows from it. */
import { NO_ADDRESS } from '../bpf/address.ts';
import type { PathClassName, PathInfo, TransmitMode } from '../grpc/backend.ts';
import { IpProtocol } from '../netlink/ctnetlink-codec.ts';
import { familyOf } from '../netlink/ip.ts';
import type { ClusterNode } from '../state/cluster.ts';
import {
  ConfigFlag,
  PathClass,
  PeerFlag,
  PROVEN_NS,
  Reason,
  SEND_LIFE_NS,
  type DataPlaneConfig,
  type Path,
  type Peer,
  type PeerState,
} from './layout.ts';
import type { Tables } from './tables.ts';

type Family = 4 | 6;

/** A peer that nothing was heard of. */
export const UNHEARD: PeerState = { lastLife: 0n, lastConfirmed: 0n, rejectWindow: 0n, rejectCount: 0n, mtuTold: 0n };

/** In the order of enum xmasq_path_class. */
export const PATH_CLASSES: readonly PathClassName[] = ['tcp', 'udp', 'other'];

/** What packets of this IP protocol are for a firewall. */
export function pathClassOf(protocol: number): PathClassName {
  return protocol === IpProtocol.tcp ? 'tcp' : protocol === IpProtocol.udp ? 'udp' : 'other';
}

/** Index in `paths`. @param pathClass value of enum xmasq_path_class */
export function pathIndex(peer: number, family: Family, pathClass: number): number {
  return (peer * 2 + (family === 6 ? 1 : 0)) * PathClass.CLASSES + pathClass;
}

/** All elements of `paths` that are a peer's. */
export function pathIndexes(peer: number): number[] {
  const first = pathIndex(peer, 4, 0);
  return Array.from({ length: 2 * PathClass.CLASSES }, (_, offset) => first + offset);
}

/** Families of a node's pods; of a node without pod CIDRs, of its addresses. */
export function podFamilies({ podCIDRs, addresses }: Pick<ClusterNode, 'podCIDRs' | 'addresses'>): Family[] {
  const texts = podCIDRs.length > 0 ? podCIDRs : addresses;
  const found = new Set(texts.map((text) => familyOf(text.split('/')[0] ?? '')));
  return ([4, 6] as const).filter((family) => found.has(family));
}

/** Nothing is known of a way: an element of `paths` as the kernel makes it. */
export const UNKNOWN_PATH: Path = {
  provenAt: 0n,
  probeAt: 0n,
  probeWait: 0n,
  holeAt: 0n,
  probes: 0n,
  answers: 0n,
  changedAt: 0n,
  changes: 0,
  masquerade: 0,
  awaited: 0,
};

/** Flag of a peer to whose pods of this family Antrea routes. */
export function directFlag(family: Family): number {
  return family === 4 ? PeerFlag.DIRECT4 : PeerFlag.DIRECT6;
}

/** What decides about a peer as a whole, for one family. @returns undefined: the paths decide */
function decided(
  { flags, excludedRemote, ...config }: DataPlaneConfig,
  peer: Peer,
  { lastConfirmed }: PeerState,
  family: Family,
  now: bigint,
): Pick<PathInfo, 'mode' | 'reason'> | undefined {
  const has = (flag: number): boolean => (flags & flag) !== 0;
  if (excludedRemote !== Reason.NONE) return { mode: 'slow', reason: excludedRemote };
  if (!has(ConfigFlag.SEND)) return { mode: 'slow', reason: Reason.DRAINING };
  if ((peer.flags & directFlag(family)) !== 0) return { mode: 'direct', reason: Reason.NONE };
  const otherwise: TransmitMode = has(ConfigFlag.ENCAP) ? 'encap' : 'slow';
  if ((peer.flags & PeerFlag.CAPABLE) === 0) return { mode: otherwise, reason: Reason.PEER_NOT_CAPABLE };
  const [own, theirs] = family === 4 ? [config.uplinkAddr4, peer.addr4] : [config.uplinkAddr6, peer.addr6];
  if (!has(ConfigFlag.MASQUERADE) || own === NO_ADDRESS || theirs === NO_ADDRESS) {
    return { mode: otherwise, reason: Reason.MODE };
  }
  if (lastConfirmed === 0n || now - lastConfirmed >= SEND_LIFE_NS) {
    return { mode: otherwise, reason: Reason.PEER_SILENT };
  }
  return has(ConfigFlag.PROBE) ? undefined : { mode: 'masquerade', reason: Reason.NONE };
}

/** Why masqueraded packets of this class are not sent; Reason.NONE: they are. As `path_usable` of bpf-src/path.h. */
function unusable({ masquerade, provenAt, holeAt }: Path, now: bigint): number {
  if (holeAt !== 0n && provenAt <= holeAt) return Reason.BLACK_HOLE;
  const proven = provenAt !== 0n && now - provenAt < PROVEN_NS;
  return proven && masquerade !== 0 ? Reason.NONE : Reason.UNPROVEN;
}

/** The tables that tell of ways to peers. */
export type PathTables = Pick<Tables, 'peers' | 'peerState' | 'paths'>;

/** A way, without what was counted on it. */
export type PathMode = Pick<PathInfo, 'family' | 'pathClass' | 'mode' | 'reason'>;

/**
 * The ways to a peer, as a packet that is admitted now would go: three for each family of its pods.
 * @param config the element of `config`
 * @param id number of the peer
 */
export function modesOf(
  { peers, peerState, paths }: PathTables,
  config: DataPlaneConfig,
  id: number,
  node: Pick<ClusterNode, 'podCIDRs' | 'addresses'>,
  now: bigint,
): PathMode[] {
  const peer = peers.get(id);
  const state = peerState.get(id);
  const otherwise: TransmitMode = (config.flags & ConfigFlag.ENCAP) !== 0 ? 'encap' : 'slow';
  return podFamilies(node).flatMap((family) => {
    const whole = decided(config, peer, state, family, now);
    return PATH_CLASSES.map((pathClass, index): PathMode => {
      if (whole !== undefined) return { family, pathClass, ...whole };
      const reason = unusable(paths.get(pathIndex(id, family, index)), now);
      return { family, pathClass, mode: reason === Reason.NONE ? 'masquerade' : otherwise, reason };
    });
  });
}

/** The same with what was counted on each. */
export function pathsOf(
  tables: PathTables,
  config: DataPlaneConfig,
  id: number,
  node: Pick<ClusterNode, 'podCIDRs' | 'addresses'>,
  now: bigint,
): PathInfo[] {
  return modesOf(tables, config, id, node, now).map((way) => {
    const path = tables.paths.get(pathIndex(id, way.family, PATH_CLASSES.indexOf(way.pathClass)));
    const { changes, probes, answers } = path;
    return {
      ...way,
      ...{ changes, probes, answers },
      ...since('provenMs', path.provenAt, now),
      ...since('changedMs', path.changedAt, now),
    };
  });
}

function since<K extends 'provenMs' | 'changedMs'>(
  key: K,
  time: bigint,
  now: bigint,
): { readonly [key in K]?: number } {
  if (time === 0n) return {};
  return { [key]: Math.max(0, Number((now - time) / 1_000_000n)) } as { readonly [key in K]?: number };
}
