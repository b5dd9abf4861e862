/** The other nodes: their numbers, what they declare, and which pod addresses are theirs. */
import ipaddr from 'ipaddr.js';
import { NO_ADDRESS } from '../bpf/address.ts';
import { isFull } from '../bpf/errors.ts';
import type { PathInfo, PeerInfo } from '../grpc/backend.ts';
import { addressOfFamily, canonicalAddress, parseCidr } from '../netlink/ip.ts';
import type { Capability, ClusterDiff, ClusterNode, ClusterState } from '../state/cluster.ts';
import type { Degradations } from './degradations.ts';
import { IdPool } from './ids.ts';
import {
  DestKind,
  MAX_PEERS,
  PeerFlag,
  PROTOCOL_VERSION,
  SEND_LIFE_NS,
  type Destination,
  type Peer,
  type Prefix,
} from './layout.ts';
import type { Notes } from './notes.ts';
import { directFlag, pathIndexes, UNHEARD, UNKNOWN_PATH } from './paths.ts';
import type { Clock, Log } from './ports.ts';
import type { Tables } from './tables.ts';

export interface PeersOptions {
  readonly tables: Pick<Tables, 'peers' | 'peerByAddr' | 'peerState' | 'paths' | 'destinations'>;
  readonly notes: Notes;
  readonly degradations: Degradations;
  readonly log: Log;
  readonly now: Clock;
}

interface Known {
  readonly id: number;
  readonly node: ClusterNode;
}

/** An entry of the longest-prefix-match table by its text. */
type Prefixes = Map<string, { readonly prefix: Prefix; readonly destination: Destination }>;

function isCapable(node: ClusterNode): boolean {
  return node.capability?.protocol === PROTOCOL_VERSION;
}

/** Everything about a peer whose change makes the flows with it invalid. */
function identity(node: ClusterNode): string {
  const { addresses, podCIDRs, capability } = node;
  return JSON.stringify([addresses, podCIDRs, capability?.protocol, capability?.incarnation]);
}

/** A prefix of `destinations` has this many bits more than an IPv4 one says: see struct xmasq_prefix. */
const MAPPED_BITS = 96;

/**
 * The key of "10.1.2.0/24" or "fd00:1::/64"; host bits are dropped.
 * @throws RangeError for anything else
 */
export function parsePrefix(cidr: string): Prefix {
  const parsed = parseCidr(cidr);
  if (parsed === undefined) throw new RangeError(`"${cidr}" is not an IP prefix`);
  const { family, address, bits } = parsed;
  return { prefixlen: family === 4 ? bits + MAPPED_BITS : bits, addr: address };
}

/** The address after that one: 10.1.2.1 after 10.1.2.0. */
function nextAddress(text: string): string {
  const bytes = ipaddr.parse(text).toByteArray();
  for (let at = bytes.length - 1; at >= 0; at--) {
    bytes[at] = ((bytes[at] ?? 0) + 1) & 0xff;
    if (bytes[at] !== 0) break;
  }
  return canonicalAddress(ipaddr.fromByteArray(bytes).toString());
}

function prefixText({ prefixlen, addr }: Prefix): string {
  return `${addr}/${prefixlen}`;
}

/**
 * What `destinations` has to hold: each peer's pod CIDRs lead to it, but for their first address, which is the gateway
 * (Antrea's pkg/agent/controller/noderoute takes it from there).
 */
export function wantedPrefixes(
  peers: readonly { readonly id: number; readonly podCIDRs: readonly string[] }[],
): Prefixes {
  const wanted: Prefixes = new Map();
  const put = (prefix: Prefix, destination: Destination): void => {
    wanted.set(prefixText(prefix), { prefix, destination });
  };
  for (const { id, podCIDRs } of peers) {
    for (const prefix of podCIDRs.map(parsePrefix)) {
      put(prefix, { kind: DestKind.PEER, peer: id });
      // ::ffff:a.b.c.d, too, has its host bits at the end.
      if (prefix.prefixlen < 128) {
        put({ prefixlen: 128, addr: nextAddress(prefix.addr) }, { kind: DestKind.NONE, peer: 0 });
      }
    }
  }
  return wanted;
}

/** Number of the peer whose pod has this address; undefined: none. */
export function peerOfPod({ destinations }: Pick<Tables, 'destinations'>, address: string): number | undefined {
  const destination = destinations.get({ prefixlen: 128, addr: address });
  return destination?.kind === DestKind.PEER ? destination.peer : undefined;
}

function parseNote(text: string | undefined): ClusterNode | undefined {
  if (text === undefined) return undefined;
  try {
    const { name, addresses, podCIDRs, capability } = JSON.parse(text) as Partial<ClusterNode>;
    if (!name || !Array.isArray(addresses) || !Array.isArray(podCIDRs)) return undefined;
    return {
      name,
      addresses: texts(addresses),
      podCIDRs: texts(podCIDRs),
      ...(capability === undefined ? {} : { capability }),
    };
  } catch {
    return undefined;
  }
}

function texts(list: readonly unknown[]): string[] {
  return list.filter((one) => typeof one === 'string');
}

/** The peer's addresses as its entry in `peers` has them. */
function entryAddresses({ addresses }: ClusterNode): Pick<Peer, 'addr4' | 'addr6'> {
  return {
    addr4: addressOfFamily(addresses, 4) ?? NO_ADDRESS,
    addr6: addressOfFamily(addresses, 6) ?? NO_ADDRESS,
  };
}

/** Is this entry that node's? */
function hasAddressesOf(entry: Peer, node: ClusterNode): boolean {
  const { addr4, addr6 } = entryAddresses(node);
  return entry.addr4 === addr4 && entry.addr6 === addr6;
}

/** Brings the programs' knowledge of peers in line with the cluster state. */
export class Peers {
  readonly #o: PeersOptions;
  /** By node name. */
  readonly #known = new Map<string, Known>();
  readonly #ids: IdPool;
  readonly #prefixes: Prefixes = new Map();
  /** Names. */
  readonly #byId = new Map<number, string>();
  /** Nodes that found no number. */
  readonly #waiting = new Map<string, ClusterNode>();
  /** Prefixes that found no room. */
  readonly #refused: Prefixes = new Map();
  /** Peers whose addresses found no room. */
  readonly #unfindable = new Set<string>();
  #isDirect: (node: ClusterNode, family: 4 | 6) => boolean = () => false;

  /** Takes over what an earlier start left: numbers, epochs and signs of life stay. */
  constructor(options: PeersOptions) {
    this.#o = options;
    const { tables, notes } = options;
    const epochs = new Map<number, number>();
    for (const name of notes.names('peer-')) {
      const id = Number(name.slice('peer-'.length));
      if (!Number.isInteger(id) || id < 1 || id >= MAX_PEERS) continue;
      const node = parseNote(notes.get(name));
      const entry = tables.peers.get(id);
      epochs.set(id, entry.epoch);
      const good = node !== undefined && (entry.flags & PeerFlag.PRESENT) !== 0 && hasAddressesOf(entry, node);
      if (good && !this.#known.has(node.name)) this.#keep({ id, node });
      else notes.delete(name);
    }
    const used = [...this.#known.values()].map(({ id }) => id);
    this.#ids = new IdPool(MAX_PEERS - 1, used, (id) => epochs.get(id) ?? 0);
    this.#dropStale(new Map([...this.#known.values()].map((peer) => [peer.id, peer])));
    for (const [prefix, destination] of tables.destinations.entries()) {
      this.#prefixes.set(prefixText(prefix), { prefix, destination });
    }
  }

  get count(): number {
    return this.#known.size;
  }

  /** Peers with a sign of life in the last XMASQ_SEND_LIFE_NS. */
  get alive(): number {
    const now = this.#o.now();
    return [...this.#known.values()].filter(({ id }) => this.#isAlive(id, now)).length;
  }

  /** Makes the tables say what `state` says. What is gone or changed goes first, so that nothing is ever another's. */
  update(state: ClusterState): void {
    const wanted = new Map(state.nodes.filter((node) => node.name !== state.own.name).map((node) => [node.name, node]));
    this.#waiting.clear();
    for (const peer of [...this.#known.values()]) {
      const node = wanted.get(peer.node.name);
      if (node === undefined) this.#remove(peer);
      else if (identity(node) !== identity(peer.node)) this.#invalidate(peer);
    }
    const kept = this.#number(wanted.values());
    this.#updatePrefixes(wantedPrefixes(kept.map(({ id, node }) => ({ id, podCIDRs: node.podCIDRs }))));
    for (const peer of kept) this.#publish(peer);
    this.#reportFull();
  }

  /**
   * Makes the tables say what has changed since the last `update` or `apply`. The work depends on what has changed only, not
   * on the number of peers. What is gone or changed goes first, as with `update`.
   * @param ownName this node's name; it is no peer
   */
  apply({ added, changed, removed }: ClusterDiff, ownName: string): void {
    const wanted = new Map<string, ClusterNode>();
    for (const node of removed) this.#leave(node.name, undefined);
    for (const { before, after } of changed) this.#leave(before.name, after);
    for (const node of [...this.#waiting.values(), ...added, ...changed.map(({ after }) => after)]) {
      if (node.name !== ownName) wanted.set(node.name, node);
    }
    const kept = this.#number(wanted.values());
    // Prefixes that found no room before may find some where others have gone.
    const prefixes = wantedPrefixes(kept.map(({ id, node }) => ({ id, podCIDRs: node.podCIDRs })));
    this.#addPrefixes(new Map([...this.#refused, ...prefixes]));
    for (const peer of kept) this.#publish(peer);
    this.#reportFull();
  }

  /** Number of a node; undefined if it is none of the peers. */
  idOf(nodeName: string): number | undefined {
    return this.#known.get(nodeName)?.id;
  }

  /** Name of the peer with that number; undefined: none has it. */
  nameOf(id: number): string | undefined {
    return this.#byId.get(id);
  }

  /** Nodes by number. */
  byId(): Map<number, ClusterNode> {
    return new Map([...this.#known.values()].map(({ id, node }) => [id, node]));
  }

  /**
   * Which peers Antrea reaches without a tunnel, by family. Flows with those for which the answer is another one now end.
   * @param isDirect asked again for each peer that changes
   */
  setRouting(isDirect: (node: ClusterNode, family: 4 | 6) => boolean): void {
    this.#isDirect = isDirect;
    for (const peer of this.#known.values()) this.#publish(peer);
  }

  /**
   * @param flows number of flows by peer id
   * @param pathsOf how packets go to a peer; absent: not asked for
   */
  list(
    flows: ReadonlyMap<number, number>,
    pathsOf: (id: number, node: ClusterNode) => readonly PathInfo[] = () => [],
  ): PeerInfo[] {
    return [...this.#known.values()]
      .sort((a, b) => (a.node.name < b.node.name ? -1 : 1))
      .map((peer) => this.#describe(peer, flows.get(peer.id) ?? 0, pathsOf(peer.id, peer.node)));
  }

  /**
   * One peer as `list` tells of it, without its number of flows.
   * @param pathsOf how packets go to it
   * @returns undefined: none has that number
   */
  describe(id: number, pathsOf: (node: ClusterNode) => readonly PathInfo[]): PeerInfo | undefined {
    const name = this.#byId.get(id);
    const peer = name === undefined ? undefined : this.#known.get(name);
    return peer && this.#describe(peer, 0, pathsOf(peer.node));
  }

  #describe({ id, node }: Known, flows: number, paths: readonly PathInfo[]): PeerInfo {
    const now = this.#o.now();
    const { peers, peerState } = this.#o.tables;
    const { lastLife } = peerState.get(id);
    const capability: Capability | undefined = node.capability;
    return {
      nodeName: node.name,
      addresses: node.addresses,
      podCIDRs: node.podCIDRs,
      capable: isCapable(node),
      ...(capability === undefined ? {} : { capability }),
      alive: this.#isAlive(id, now),
      ...(lastLife === 0n ? {} : { lastLifeMs: Math.max(0, Number((now - lastLife) / 1_000_000n)) }),
      flows,
      paths,
      id,
      epoch: peers.get(id).epoch,
    };
  }

  #keep(peer: Known): void {
    this.#known.set(peer.node.name, peer);
    this.#byId.set(peer.id, peer.node.name);
  }

  #isAlive(id: number, now: bigint): boolean {
    const { lastConfirmed } = this.#o.tables.peerState.get(id);
    return lastConfirmed !== 0n && now - lastConfirmed < SEND_LIFE_NS;
  }

  /** Numbers, addresses and prefixes that belong to none of the known peers. */
  #dropStale(known: ReadonlyMap<number, Known>): void {
    const { peers, peerByAddr } = this.#o.tables;
    for (const [address, id] of [...peerByAddr.entries()]) {
      if (known.get(id)?.node.addresses.includes(address) === true) continue;
      peerByAddr.delete(address);
      const entry = peers.get(id);
      if (!known.has(id) && entry.flags !== 0) peers.set(id, { ...entry, flags: 0, epoch: (entry.epoch + 1) >>> 0 });
    }
  }

  /** No flow with this peer is valid any more, and none is admitted until #publish. */
  #invalidate({ id, node }: Known): void {
    const { peers, peerByAddr } = this.#o.tables;
    const entry = peers.get(id);
    if (entry.flags !== 0) peers.set(id, { ...entry, flags: 0, epoch: (entry.epoch + 1) >>> 0 });
    for (const address of node.addresses) if (peerByAddr.get(address) === id) peerByAddr.delete(address);
  }

  #remove(peer: Known): void {
    this.#invalidate(peer);
    this.#o.notes.delete(`peer-${peer.id}`);
    this.#known.delete(peer.node.name);
    this.#byId.delete(peer.id);
    this.#unfindable.delete(peer.node.name);
    this.#ids.release(peer.id);
    this.#o.log.info({ peer: peer.node.name, id: peer.id }, 'peer is gone');
  }

  /** The peer under its number, a new one if it has none; undefined when there is no more. */
  #numbered(node: ClusterNode): Known | undefined {
    const before = this.#known.get(node.name);
    const id = before?.id ?? this.#ids.take();
    if (id === undefined) return undefined;
    const peer = { id, node };
    this.#keep(peer);
    // Signs of life of whoever had the number before are not this one's.
    if (before === undefined) {
      this.#o.tables.peerState.set(id, UNHEARD);
      this.#o.log.info({ peer: node.name, addresses: node.addresses, id, capable: isCapable(node) }, 'peer');
    }
    // Nor is what was found out about the way to another address.
    if (before === undefined || String(before.node.addresses) !== String(node.addresses)) this.#forgetPaths(id);
    return peer;
  }

  /** What was found out about ways from this node's address is not true of another one. */
  forgetPaths(): void {
    for (const { id } of this.#known.values()) this.#forgetPaths(id);
  }

  #forgetPaths(id: number): void {
    for (const index of pathIndexes(id)) this.#o.tables.paths.set(index, UNKNOWN_PATH);
  }

  #publish({ id, node }: Known): void {
    const { tables, notes } = this.#o;
    const entry = tables.peers.get(id);
    const findable = this.#publishAddresses(id, node);
    const flags =
      PeerFlag.PRESENT |
      (isCapable(node) && findable ? PeerFlag.CAPABLE : 0) |
      (this.#isDirect(node, 4) ? directFlag(4) : 0) |
      (this.#isDirect(node, 6) ? directFlag(6) : 0);
    if (!hasAddressesOf(entry, node) || entry.flags !== flags) {
      tables.peers.set(id, { ...entryAddresses(node), flags, epoch: (entry.epoch + 1) >>> 0 });
    }
    // The note last: a start that finds the old one makes the change again.
    const { name, addresses, podCIDRs, capability } = node;
    notes.set(`peer-${id}`, JSON.stringify({ name, addresses, podCIDRs, capability }));
  }

  /** @returns false where there is no room for one: packets from the peer would not be known as such */
  #publishAddresses(id: number, node: ClusterNode): boolean {
    const { peerByAddr } = this.#o.tables;
    try {
      for (const address of node.addresses) peerByAddr.set(address, id);
      this.#unfindable.delete(node.name);
      return true;
    } catch (error) {
      if (!isFull(error)) throw error;
      this.#unfindable.add(node.name);
      return false;
    }
  }

  /** A node goes, or becomes `after`: nothing of what it no longer is may be found any more. */
  #leave(name: string, after: ClusterNode | undefined): void {
    this.#waiting.delete(name);
    const peer = this.#known.get(name);
    if (peer === undefined) return;
    if (after !== undefined && identity(after) === identity(peer.node)) return;
    const { id, node } = peer;
    this.#invalidate(peer);
    const kept: Prefixes =
      after === undefined ? new Map<string, never>() : wantedPrefixes([{ id, podCIDRs: after.podCIDRs }]);
    for (const [text, { prefix }] of wantedPrefixes([{ id, podCIDRs: node.podCIDRs }])) {
      this.#refused.delete(text);
      if (kept.has(text) || !this.#prefixes.has(text)) continue;
      this.#o.tables.destinations.delete(prefix);
      this.#prefixes.delete(text);
    }
    if (after === undefined) this.#remove(peer);
  }

  /** The peers of these nodes; nodes without a number wait for one. */
  #number(nodes: Iterable<ClusterNode>): Known[] {
    const peers: Known[] = [];
    for (const node of nodes) {
      const peer = this.#numbered(node);
      if (peer === undefined) this.#waiting.set(node.name, node);
      else {
        this.#waiting.delete(node.name);
        peers.push(peer);
      }
    }
    return peers;
  }

  #updatePrefixes(wanted: Prefixes): void {
    this.#refused.clear();
    for (const [text, { prefix }] of [...this.#prefixes]) {
      if (wanted.has(text)) continue;
      this.#o.tables.destinations.delete(prefix);
      this.#prefixes.delete(text);
    }
    this.#addPrefixes(wanted);
  }

  #addPrefixes(wanted: Prefixes): void {
    // Gateways first: with its CIDR alone a gateway would pass for a pod.
    const order = [...wanted].sort(([, a], [, b]) => a.destination.kind - b.destination.kind);
    for (const [text, entry] of order) {
      this.#refused.delete(text);
      const before = this.#prefixes.get(text)?.destination;
      if (before?.kind === entry.destination.kind && before.peer === entry.destination.peer) continue;
      try {
        this.#o.tables.destinations.set(entry.prefix, entry.destination);
        this.#prefixes.set(text, entry);
      } catch (error) {
        if (!isFull(error)) throw error;
        this.#refused.set(text, entry);
      }
    }
  }

  #reportFull(): void {
    const { degradations } = this.#o;
    degradations.put(
      'peers-full',
      this.#waiting.size === 0
        ? undefined
        : {
            what: `${this.#waiting.size} nodes are not peers: there is room for ${MAX_PEERS - 1}`,
            where: 'cluster state',
            action: 'nothing can be done in this version; traffic with them stays on the slow path',
          },
    );
    degradations.put(
      'peer-addresses-full',
      this.#unfindable.size === 0
        ? undefined
        : {
            what: `transport addresses of ${this.#unfindable.size} nodes found no room in the table of peers`,
            where: 'cluster state',
            action: 'nothing can be done in this version; nothing is masqueraded to these nodes',
          },
    );
    degradations.put(
      'destinations-full',
      this.#refused.size === 0
        ? undefined
        : {
            what: `${this.#refused.size} pod CIDRs found no room in the table of destinations`,
            where: 'cluster state',
            action: 'nothing can be done in this version; traffic with these pods stays on the slow path',
          },
    );
  }
}
