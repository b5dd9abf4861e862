/** What happened on the nodes between two moments, by the data plane's counters and by the kernel's. */
import type { CounterName, ReasonName } from '../../lab/admin.ts';
import { LabError } from '../../lab/lab.ts';
import type { Place } from '../../lab/lab.ts';
import type { Counters, LabSidecars, Sidecar } from '../../lab/sidecar.ts';

/** Remembers the counters of every node; `since()` says how much they have grown, in the order of the nodes. */
export async function watchCounters(
  sidecars: Pick<LabSidecars, 'nodes'>,
): Promise<{ since: () => Promise<Counters[]> }> {
  const read = (): Promise<Counters[]> =>
    Promise.all(sidecars.nodes.map(async (sidecar) => (await sidecar.status()).counters));
  const before = await read();
  return {
    since: async () => (await read()).map((now, i) => difference(now, before[i] ?? now)),
  };
}

function difference(now: Counters, before: Counters): Counters {
  const names = Object.keys(now) as CounterName[];
  return Object.fromEntries(names.map((name) => [name, now[name] - before[name]])) as Record<CounterName, number>;
}

/**
 * Why packets are slow in the beginning and at the end of a TCP connection that is fast otherwise. Half-closed is an end, too,
 * and may last: it depends on which side is done first.
 */
export const ENDS_OF_A_CONNECTION: readonly ReasonName[] = [
  'tcp_syn',
  'young',
  'tcp_fin',
  'ct_state',
  'key_exchange',
  'mode',
];

/** Remembers why a node's packets were slow; `since()` names the reasons that there were after that. */
export async function watchReasons(sidecar: Sidecar): Promise<{ since: () => Promise<ReasonName[]> }> {
  const before = (await sidecar.status()).reasons;
  return {
    since: async () => {
      const now = (await sidecar.status()).reasons;
      return (Object.keys(now) as ReasonName[]).filter((name) => now[name] > before[name]);
    },
  };
}

/** What a network stack said to strangers: it did not know what to do with packets that reached it. */
export interface StackAnswers {
  /** TCP resets sent. */
  readonly tcpResets: number;
  /** ICMP messages of any kind sent. */
  readonly icmp: number;
  /** UDP datagrams for ports without a socket. */
  readonly udpNoPorts: number;
  /** TCP segments taken in, right or wrong. */
  readonly tcpSegments: number;
}

/** Remembers the place's /proc/net/snmp; `since()` says what was added. */
export async function watchStack(place: Place): Promise<{ since: () => Promise<StackAnswers> }> {
  const before = await readStack(place);
  return {
    since: async () => {
      const now = await readStack(place);
      const names = Object.keys(now) as (keyof StackAnswers)[];
      return Object.fromEntries(names.map((name) => [name, now[name] - before[name]])) as unknown as StackAnswers;
    },
  };
}

async function readStack(place: Place): Promise<StackAnswers> {
  const { stdout } = await place.exec(['cat', '/proc/net/snmp']);
  const lines = stdout.split('\n').map((line) => line.split(/\s+/));
  const value = (protocol: string, field: string): number => {
    const [names, values] = lines.filter((words) => words[0] === `${protocol}:`);
    const number = Number(values?.[names?.indexOf(field) ?? -1]);
    if (Number.isNaN(number)) throw new LabError(`${place.name}: /proc/net/snmp has no ${protocol} ${field}`);
    return number;
  };
  return {
    tcpResets: value('Tcp', 'OutRsts'),
    icmp: value('Icmp', 'OutMsgs'),
    udpNoPorts: value('Udp', 'NoPorts'),
    tcpSegments: value('Tcp', 'InSegs'),
  };
}
