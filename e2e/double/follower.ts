/**
 * A process that follows the API as the sidecar does, for measurements of its memory and time: all kinds, with the tables of
 * peers in memory. Started by `fork` with a FollowerSetup in the argument; answers the message `stats` with FollowerStats.
 */
import { Degradations } from '../../plugin/src/dataplane/degradations.ts';
import { MAX_PEERS, type Destination, type Peer, type Prefix } from '../../plugin/src/dataplane/layout.ts';
import type { Notes } from '../../plugin/src/dataplane/notes.ts';
import { UNHEARD, UNKNOWN_PATH } from '../../plugin/src/dataplane/paths.ts';
import { Peers } from '../../plugin/src/dataplane/peers.ts';
import { monotonic, type HashTable, type Log } from '../../plugin/src/dataplane/ports.ts';
import { AntreaConfig, KubernetesCluster, PodExclusions } from '../../plugin/src/kubernetes/index.ts';
import { ApiClient } from '../../plugin/src/kubernetes/api-client.ts';
import { InClusterCredentials } from '../../plugin/src/kubernetes/credentials.ts';

export interface FollowerSetup {
  /** Directory with `token` and `ca.crt`. */
  readonly account: string;
  readonly server: string;
  readonly nodeName: string;
}

export interface FollowerStats {
  /** Milliseconds from the process's start until everything was known; undefined: not yet. */
  readonly readyMs: number | undefined;
  readonly rssBytes: number;
  readonly maxRssBytes: number;
  readonly peers: number;
  /** To the tables of peers, since the start. */
  readonly writes: number;
  /** To notes, which are files. */
  readonly notes: number;
  /** Calls of the consumer. */
  readonly states: number;
  readonly lists: number;
  readonly localPods: number;
  readonly problem: string | undefined;
}

const log: Log = { debug: () => undefined, info: () => undefined, warn: () => undefined, error: () => undefined };
const counts = { writes: 0, notes: 0, states: 0 };
let problem: string | undefined;
let readyMs: number | undefined;

function hash<K, V>(): HashTable<K, V> {
  const entries = new Map<string, [K, V]>();
  return {
    get: (key) => entries.get(JSON.stringify(key))?.[1],
    set: (key, value) => {
      counts.writes++;
      entries.set(JSON.stringify(key), [key, value]);
    },
    delete: (key) => {
      counts.writes++;
      return entries.delete(JSON.stringify(key));
    },
    entries: () => entries.values(),
  };
}

function array<V>(zero: V) {
  const values = Array.from({ length: MAX_PEERS }, () => zero);
  return {
    length: MAX_PEERS,
    get: (index: number): V => values[index] ?? zero,
    set: (index: number, value: V): void => {
      counts.writes++;
      values[index] = value;
    },
  };
}

function memoryNotes(): Notes {
  const notes = new Map<string, string>();
  const change = (work: () => unknown): void => {
    counts.notes++;
    work();
  };
  return {
    get: (name: string) => notes.get(name),
    set: (name: string, text: string) => change(() => notes.set(name, text)),
    delete: (name: string) => change(() => notes.delete(name)),
    names: () => [],
  } as unknown as Notes;
}

async function main({ account, server, nodeName }: FollowerSetup): Promise<void> {
  const api = new ApiClient({ credentials: new InClusterCredentials({ directory: account, server }) });
  const peers = new Peers({
    tables: {
      peers: array<Peer>({ addr4: '', addr6: '', flags: 0, epoch: 0 }),
      peerState: array(UNHEARD),
      paths: array(UNKNOWN_PATH),
      peerByAddr: hash<string, number>(),
      destinations: hash<Prefix, Destination>(),
    },
    notes: memoryNotes(),
    degradations: new Degradations(log),
    log,
    now: monotonic,
  });
  const common = { api, nodeName, log, sink: () => undefined, trouble: () => undefined };
  const cluster = new KubernetesCluster(common);
  const pods = new PodExclusions(common);
  const antrea = new AntreaConfig(common);
  process.on('message', () => {
    const stats: FollowerStats = {
      readyMs,
      rssBytes: process.memoryUsage.rss(),
      maxRssBytes: process.resourceUsage().maxRSS * 1024,
      peers: peers.count,
      ...counts,
      lists: cluster.counts.lists,
      localPods: pods.pods,
      problem,
    };
    process.send?.(stats);
  });
  pods.start();
  antrea.start();
  await cluster.start({
    state(state, diff) {
      if (counts.states++ === 0) peers.update(state);
      else peers.apply(diff, nodeName);
    },
    problem(next) {
      problem = next?.what;
    },
  });
  await Promise.all([pods.ready, antrea.ready]);
  readyMs = process.uptime() * 1000;
}

await main(JSON.parse(process.argv[2] ?? '') as FollowerSetup);
