/** uplink_ingress: what looks masqueraded, but belongs to a connection of the node itself, told by real sockets. */
import { createSocket, type Socket as UdpSocket } from 'node:dgram';
import { once } from 'node:events';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import {
  Bench,
  byFamily,
  Conversation,
  FAMILIES,
  LOCAL_PEER,
  masquerade,
  Node,
  NODE,
  now,
  PEER,
  Verdict,
  type Outcome,
} from './harness.ts';

/** On the node's address, which the peer's packets come to. */
const NODE_PORT = 40000;
/** On the peer's. */
const PEER_PORT = 8080;

let node: Node;
let bench: Bench;
const closers: (() => void)[] = [];

beforeAll(async () => {
  node = await Node.create();
  bench = new Bench(node);
});
afterAll(() => {
  bench.close();
  node.close();
});
beforeEach(() => {
  bench.reset();
  bench.heard(LOCAL_PEER, now());
});
afterEach(() => {
  for (const close of closers.splice(0)) close();
});

describe.each(FAMILIES)('IPv%i', (family) => {
  const nodeAddr = byFamily<string>(family, NODE.addr, NODE.addr6);
  const peerAddr = byFamily<string>(family, LOCAL_PEER.addr, LOCAL_PEER.addr6);

  /** A packet of the peer for the node's port, with a key that nobody knows. */
  function arrives(kind: 'tcp' | 'udp', sport = PEER_PORT): Outcome {
    const remote = { ...PEER, id: LOCAL_PEER.id, addr: LOCAL_PEER.addr, addr6: LOCAL_PEER.addr6 };
    const talk = new Conversation({ kind, family, sport: NODE_PORT, dport: sport, remote });
    return bench.run('uplink_ingress', talk.masqueraded({ id: masquerade(9) }));
  }

  async function udp(connectTo?: number): Promise<UdpSocket> {
    const socket = createSocket(byFamily(family, 'udp4', 'udp6'));
    closers.push(() => socket.close());
    socket.bind(NODE_PORT, nodeAddr);
    await once(socket, 'listening');
    if (connectTo !== undefined) {
      socket.connect(connectTo, peerAddr);
      await once(socket, 'connect');
    }
    return socket;
  }

  async function listen(address: string, port: number): Promise<Server> {
    const server = createServer((socket) => closers.push(() => socket.destroy()));
    closers.push(() => server.close());
    server.listen(port, address);
    await once(server, 'listening');
    return server;
  }

  function expectPassed({ verdict, counters }: Outcome): void {
    expect({ verdict, counters }).toEqual({ verdict: Verdict.pass, counters: { unknown_passed: 1 } });
  }

  function expectRejected({ verdict, counters }: Outcome): void {
    expect(verdict).toBe(Verdict.redirect);
    expect(counters).toEqual({ unknown_key: 1, reject_sent: 1 });
  }

  test('a connected UDP socket: passed', async () => {
    await udp(PEER_PORT);
    expectPassed(arrives('udp'));
  });

  test('a UDP socket that is connected to another port: rejected', async () => {
    await udp(PEER_PORT + 1);
    expectRejected(arrives('udp'));
  });

  test('a UDP socket that is not connected would take anybody’s packets: rejected', async () => {
    await udp();
    expectRejected(arrives('udp'));
  });

  test('a TCP connection: passed', async () => {
    await listen(peerAddr, PEER_PORT);
    const client: Socket = connect({
      host: peerAddr,
      port: PEER_PORT,
      localAddress: nodeAddr,
      localPort: NODE_PORT,
    });
    closers.push(() => client.resetAndDestroy());
    await once(client, 'connect');
    expectPassed(arrives('tcp'));
    expectRejected(arrives('tcp', PEER_PORT + 1));
  });

  test('a TCP listener: rejected', async () => {
    await listen(nodeAddr, NODE_PORT);
    expectRejected(arrives('tcp'));
  });

  test('no socket at all: rejected', () => {
    expectRejected(arrives('tcp'));
    expectRejected(arrives('udp'));
  });
});
