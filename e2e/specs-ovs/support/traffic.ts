/** Connections of each protocol that go on until they are stopped, and single attempts to make one. */
import type { Pod, Proc, Protocol } from '../../lab/lab.ts';
import { withServer } from '../../lab/measure.ts';
import type { OvsLab } from '../../lab/ovs/ovs.ts';

/** Traffic goes on for so long at most; it is stopped when the test is over. */
const SECONDS = '600';
/** An attempt that has had no answer by then has failed: a dozen times what a good one takes under emulation. */
const ATTEMPT_SECONDS = '25';

/** Two pods, and the port of the second one's server (for ICMP there is none). */
export interface Way {
  readonly from: Pod;
  readonly to: Pod;
  readonly port: number;
}

/** What of a protocol is needed: its server, a client that goes on, and one that tries once. */
interface Programs {
  readonly server?: (lab: OvsLab, way: Way) => { readonly argv: readonly string[]; readonly ready: RegExp };
  readonly lasting: (lab: OvsLab, way: Way) => readonly string[];
  readonly once: (lab: OvsLab, way: Way) => readonly string[];
}

const PROGRAMS: Readonly<Record<Protocol, Programs>> = {
  tcp: exchanges('--tcp'),
  udp: exchanges('--udp'),
  // Its control connection is TCP.
  sctp: {
    server: (_, { port }) => ({ argv: ['iperf3', '-s', '--forceflush', '-p', String(port)], ready: /listening/ }),
    lasting: (_, way) => [...iperf3(way), '-t', SECONDS, '-b', '1M'],
    once: (_, way) => [...iperf3(way), '-n', '1K'],
  },
  icmp: {
    lasting: (_, { to }) => ['ping', '-q', '-i', '0.1', '-w', SECONDS, to.address],
    once: (_, { to }) => ['ping', '-q', '-c', '1', '-W', '5', to.address],
  },
};

/** Runs `use` while a connection exchanges messages; it is stopped afterwards. */
export async function withTraffic<T>(
  lab: OvsLab,
  proto: Protocol,
  way: Way,
  use: (client: Proc) => Promise<T>,
): Promise<T> {
  return served(lab, proto, way, async () => {
    const client = await way.from.spawn(PROGRAMS[proto].lasting(lab, way));
    try {
      return await use(client);
    } finally {
      await client.stop();
    }
  });
}

/** Tries to make a connection to a server that is there; true if it was answered. */
export async function succeeds(lab: OvsLab, proto: Protocol, way: Way): Promise<boolean> {
  return served(lab, proto, way, async () => {
    const argv = ['timeout', ATTEMPT_SECONDS, ...PROGRAMS[proto].once(lab, way)];
    return (await way.from.exec(argv, { check: false, timeoutMs: 60_000 })).code === 0;
  });
}

function served<T>(lab: OvsLab, proto: Protocol, way: Way, use: () => Promise<T>): Promise<T> {
  const server = PROGRAMS[proto].server?.(lab, way);
  return server === undefined ? use() : withServer(way.to, server.argv, use, server.ready);
}

function exchanges(protocol: '--tcp' | '--udp'): Programs {
  const client = (lab: OvsLab, { to, port }: Way): string[] => [
    ...[lab.tool('rr'), 'client', protocol, '--to', to.address, '--port', String(port), '--json'],
  ];
  return {
    server: (lab, { port }) => ({
      argv: [lab.tool('rr'), 'server', protocol, '--port', String(port)],
      ready: /^ready/,
    }),
    lasting: (lab, way) => [
      ...client(lab, way),
      ...['--seconds', SECONDS, '--interval-us', '50000', '--timeout-ms', '5000'],
    ],
    once: (lab, way) => [...client(lab, way), '--count', '1', '--timeout-ms', '3000'],
  };
}

function iperf3({ to, port }: Way): string[] {
  return ['iperf3', '--sctp', '-c', to.address, '-p', String(port)];
}
