/** The other nodes: their numbers, what they declare, and which pod addresses are theirs. */
import { isFull } from '../bpf/errors.ts';
import type { PeerInfo } from '../grpc/backend.ts';
import { formatIpv4, parseIpv4 } from '../netlink/ip.ts';
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
  type Prefix4,
} from './layout.ts';
import type { Notes } from './notes.ts';
import type { Clock, Log } from './ports.ts';
import type { Tables } from './tables.ts';

export interface PeersOptions {
  readonly tables: Pick<Tables, 'peers' | 'peerByAddr' | 'peerState' | 'destinations'>;
  readonly notes: Notes;
  readonly degradations: Degradations;
  readonly log: Log;
  readonly now: Clock;
}

interface Known {
  readonly id: number;
  readonly node: ClusterNode;
  /** Host-order IPv4. */
  readonly address: number;
}

/** An entry of the longest-prefix-match table by its text "10.1.0.0/16". */
type Prefixes = Map<string, { readonly prefix: Prefix4; readonly destination: Destination }>;

function isCapable(node: ClusterNode): boolean {
  return node.capability?.protocol === PROTOCOL_VERSION;
}

/** Everything about a peer whose change makes the flows with it invalid. */
function identity(node: ClusterNode): string {
  const { address, podCIDRs, capability } = node;
  return JSON.stringify([address, podCIDRs, capability?.protocol, capability?.incarnation]);
}

/**
 * Splits "10.1.2.0/24".
 * @throws RangeError for anything else
 */
export function parsePrefix(cidr: string): Prefix4 {
  const match = /^([\d.]+)\/(\d{1,2})$/.exec(cidr);
  const prefixlen = Number(match?.[2]);
  if (match?.[1] === undefined || !(prefixlen <= 32)) throw new RangeError(`"${cidr}" is not an IPv4 prefix`);
  const mask = prefixlen === 0 ? 0 : (0xffffffff << (32 - prefixlen)) >>> 0;
  return { prefixlen, addr: (parseIpv4(match[1]) & mask) >>> 0 };
}

function prefixText({ prefixlen, addr }: Prefix4): string {
  return `${formatIpv4(addr)}/${prefixlen}`;
}

/**
 * What `destinations` has to hold: each peer's pod CIDRs lead to it, but for their first address, which is the gateway
 * (Antrea's pkg/agent/controller/noderoute takes it from there).
 */
export function wantedPrefixes(
  peers: readonly { readonly id: number; readonly podCIDRs: readonly string[] }[],
): Prefixes {
  const wanted: Prefixes = new Map();
  const put = (prefix: Prefix4, destination: Destination): void => {
    wanted.set(prefixText(prefix), { prefix, destination });
  };
  for (const { id, podCIDRs } of peers) {
    for (const prefix of podCIDRs.map(parsePrefix)) {
      put(prefix, { kind: DestKind.PEER, peer: id });
      if (prefix.prefixlen < 32) put({ prefixlen: 32, addr: prefix.addr + 1 }, { kind: DestKind.NONE, peer: 0 });
    }
  }
  return wanted;
}

function parseNote(text: string | undefined): ClusterNode | undefined {
  if (text === undefined) return undefined;
  try {
    const { name, address, podCIDRs, capability } = JSON.parse(text) as Partial<ClusterNode>;
    if (!name || !address || !Array.isArray(podCIDRs)) return undefined;
    return { name, address, podCIDRs, ...(capability === undefined ? {} : { capability }) };
  } catch {
    return undefined;
  }
}

/** Brings the programs' knowledge of peers in line with the cluster state. */
export class Peers {
  readonly #o: PeersOptions;
  /** By node name. */
  readonly #known = new Map<string, Known>();
  readonly #ids: IdPool;
  readonly #prefixes: Prefixes = new Map();
  /** Nodes that found no number. */
  readonly #waiting = new Map<string, ClusterNode>();
  /** Prefixes that found no room. */
  readonly #refused: Prefixes = new Map();

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
      const good =
        node !== undefined && (entry.flags & PeerFlag.PRESENT) !== 0 && formatIpv4(entry.addr4) === node.address;
      if (good && !this.#known.has(node.name)) this.#known.set(node.name, { id, node, address: entry.addr4 });
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

  /** Host-order address of a node; undefined if it is none of the peers. */
  addressOf(nodeName: string): number | undefined {
    return this.#known.get(nodeName)?.address;
  }

  /** Node names and host-order addresses by number. */
  byId(): Map<number, { readonly name: string; readonly address: number }> {
    return new Map([...this.#known.values()].map(({ id, node, address }) => [id, { name: node.name, address }]));
  }

  /** @param flows number of flows by peer id */
  list(flows: ReadonlyMap<number, number>): PeerInfo[] {
    const now = this.#o.now();
    const { peers, peerState } = this.#o.tables;
    return [...this.#known.values()]
      .sort((a, b) => (a.node.name < b.node.name ? -1 : 1))
      .map(({ id, node }) => {
        const { lastLife } = peerState.get(id);
        const capability: Capability | undefined = node.capability;
        return {
          nodeName: node.name,
          address: node.address,
          podCIDRs: node.podCIDRs,
          capable: isCapable(node),
          ...(capability === undefined ? {} : { capability }),
          alive: this.#isAlive(id, now),
          ...(lastLife === 0n ? {} : { lastLifeMs: Math.max(0, Number((now - lastLife) / 1_000_000n)) }),
          flows: flows.get(id) ?? 0,
          id,
          epoch: peers.get(id).epoch,
        };
      });
  }

  #isAlive(id: number, now: bigint): boolean {
    const { lastConfirmed } = this.#o.tables.peerState.get(id);
    return lastConfirmed !== 0n && now - lastConfirmed < SEND_LIFE_NS;
  }

  /** Numbers, addresses and prefixes that belong to none of the known peers. */
  #dropStale(known: ReadonlyMap<number, Known>): void {
    const { peers, peerByAddr } = this.#o.tables;
    for (const [address, id] of [...peerByAddr.entries()]) {
      if (known.get(id)?.address === address) continue;
      peerByAddr.delete(address);
      const entry = peers.get(id);
      if (!known.has(id) && entry.flags !== 0) peers.set(id, { ...entry, flags: 0, epoch: (entry.epoch + 1) >>> 0 });
    }
  }

  /** No flow with this peer is valid any more, and none is admitted until #publish. */
  #invalidate({ id, address }: Known): void {
    const { peers, peerByAddr } = this.#o.tables;
    const entry = peers.get(id);
    if (entry.flags !== 0) peers.set(id, { ...entry, flags: 0, epoch: (entry.epoch + 1) >>> 0 });
    if (peerByAddr.get(address) === id) peerByAddr.delete(address);
  }

  #remove(peer: Known): void {
    this.#invalidate(peer);
    this.#o.notes.delete(`peer-${peer.id}`);
    this.#known.delete(peer.node.name);
    this.#ids.release(peer.id);
    this.#o.log.info({ peer: peer.node.name, id: peer.id }, 'peer is gone');
  }

  /** The peer under its number, a new one if it has none; undefined when there is no more. */
  #numbered(node: ClusterNode): Known | undefined {
    const before = this.#known.get(node.name);
    const id = before?.id ?? this.#ids.take();
    if (id === undefined) return undefined;
    const peer = { id, node, address: parseIpv4(node.address) };
    this.#known.set(node.name, peer);
    // Signs of life of whoever had the number before are not this one's.
    if (before === undefined) {
      this.#o.tables.peerState.set(id, { lastLife: 0n, lastConfirmed: 0n, rejectWindow: 0n, rejectCount: 0n });
      this.#o.log.info({ peer: node.name, address: node.address, id, capable: isCapable(node) }, 'peer');
    }
    return peer;
  }

  #publish({ id, node, address }: Known): void {
    const { tables, notes } = this.#o;
    const entry = tables.peers.get(id);
    const flags = PeerFlag.PRESENT | (isCapable(node) ? PeerFlag.CAPABLE : 0);
    if (entry.addr4 !== address || entry.flags !== flags) {
      tables.peers.set(id, { addr4: address, flags, epoch: (entry.epoch + 1) >>> 0 });
    }
    // The note last: a start that finds the old one makes the change again.
    tables.peerByAddr.set(address, id);
    const { name, podCIDRs, capability } = node;
    notes.set(`peer-${id}`, JSON.stringify({ name, address: node.address, podCIDRs, capability }));
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
