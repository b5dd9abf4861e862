/**
 * Runs the netlink modules in the namespace of this process, one JSON command per line of standard input, one JSON
 * answer per line of standard output. Driven by netlink.test.ts.
 */
import { createSocket } from 'node:dgram';
import type { Socket as UdpSocket } from 'node:dgram';
import { readdirSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import type { Server, Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { Ctnetlink } from '../../src/netlink/ctnetlink.ts';
import type { CtDirection, CtFilter, CtTuple } from '../../src/netlink/ctnetlink.ts';
import { NetlinkError } from '../../src/netlink/errors.ts';
import * as rtnetlink from '../../src/netlink/rtnetlink.ts';
import type { Watch } from '../../src/netlink/subscription.ts';
import { conntrackEvents, conntrackTimeouts } from '../../src/netlink/sysctl.ts';

/** What the probe can be asked. */
export type ProbeCommand =
  | { op: 'get'; tuple: CtTuple; zone: number; direction?: CtDirection }
  | { op: 'dump'; filter: CtFilter }
  | { op: 'dumpFirst'; filter: CtFilter }
  | { op: 'setTimeout'; tuple: CtTuple; zone: number; seconds: number }
  | { op: 'delete'; tuple: CtTuple; zone: number; id?: number }
  | { op: 'watchDestroy'; zones?: readonly number[]; receiveBufferBytes?: number; readsPerTurn?: number }
  | { op: 'deleteAll'; zone: number }
  | { op: 'watchLinks'; receiveBufferBytes?: number }
  | { op: 'events' }
  | { op: 'links' | 'addresses' | 'sysctl' | 'descriptors' }
  | { op: 'link'; by: string | number }
  | { op: 'tc'; ifindex: number }
  | { op: 'udpEcho' | 'tcpServe'; port: number }
  | { op: 'udpSend'; from: number; to: string; port: number; times: number; targets?: number }
  | { op: 'tcpConnect'; from: number; to: string; port: number }
  | { op: 'tcpClose' | 'unwatch' };

const ct = new Ctnetlink();
/** Ends what would keep the process alive. The watches are left out: they must not. */
const closers: (() => void)[] = [];
const watches: Watch[] = [];
let events: unknown[] = [];
let client: Socket | undefined;

const report = {
  onOverrun: (): void => void events.push('overrun'),
  onError: (error: unknown, ended: boolean): void => void events.push({ error: String(error), ended }),
};

async function once(emitter: Server | Socket | UdpSocket, event: string): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    emitter.once(event, () => resolve());
    emitter.once('error', reject);
  });
}

async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of items) all.push(item);
  return all;
}

async function udpSend(from: number, to: string, port: number, times: number, targets: number): Promise<number> {
  const socket = createSocket('udp4');
  let answers = 0;
  socket.on('message', () => answers++);
  socket.bind(from);
  await once(socket, 'listening');
  for (let round = 0; round < times; round++) {
    for (let target = 0; target < targets; target++) {
      await new Promise((resolve) => socket.send('x', port + target, to, resolve));
    }
    await sleep(times > 1 ? 20 : 0);
  }
  socket.close();
  return answers;
}

async function run(command: ProbeCommand): Promise<unknown> {
  switch (command.op) {
    case 'get':
      return ct.get(command.tuple, command.zone, command.direction) ?? null;
    case 'dump':
      return collect(ct.dump(command.filter));
    case 'dumpFirst':
      for await (const entry of ct.dump(command.filter)) return entry;
      return null;
    case 'setTimeout':
      return ct.setTimeout(command.tuple, command.zone, command.seconds);
    case 'delete':
      return ct.delete(command.tuple, command.zone, command.id);
    case 'deleteAll': {
      // In one turn of the event loop, so that the watch cannot read in between.
      const entries = await collect(ct.dump({ zone: command.zone }));
      return entries.filter((entry) => ct.delete(entry.origin, command.zone)).length;
    }
    case 'watchDestroy':
      watches.push(ct.watchDestroy({ ...command, ...report, onDestroy: (entry) => void events.push(entry) }));
      return null;
    case 'watchLinks':
      watches.push(
        rtnetlink.watch({
          ...command,
          ...report,
          onLink: (link) => void events.push({ link: link.name }),
          onLinkDeleted: (link) => void events.push({ linkDeleted: link.name }),
          onAddress: (address, deleted) => void events.push({ address: address.address, deleted }),
        }),
      );
      return null;
    case 'unwatch':
      for (const watch of watches.splice(0)) watch.close();
      return null;
    case 'events': {
      const seen = events;
      events = [];
      return seen;
    }
    case 'links':
      return rtnetlink.links();
    case 'addresses':
      return rtnetlink.addresses();
    case 'link':
      return (
        (typeof command.by === 'string' ? rtnetlink.linkByName(command.by) : rtnetlink.linkByIndex(command.by)) ?? null
      );
    case 'tc':
      return {
        qdiscs: rtnetlink.qdiscs(command.ifindex),
        ingress: rtnetlink.filters(command.ifindex, 'ingress'),
        egress: rtnetlink.filters(command.ifindex, 'egress'),
      };
    case 'sysctl':
      return { timeouts: conntrackTimeouts(), events: conntrackEvents() };
    case 'descriptors':
      return readdirSync('/proc/self/fd').length;
    case 'udpEcho': {
      const socket = createSocket('udp4');
      socket.on('message', (data, from) => socket.send(data, from.port, from.address));
      socket.bind(command.port);
      await once(socket, 'listening');
      closers.push(() => socket.close());
      return null;
    }
    case 'udpSend':
      return udpSend(command.from, command.to, command.port, command.times, command.targets ?? 1);
    case 'tcpServe': {
      const server = createServer((socket) => socket.on('error', () => undefined).pipe(socket));
      server.listen(command.port);
      await once(server, 'listening');
      closers.push(() => server.close());
      return null;
    }
    case 'tcpConnect':
      client = connect({ localPort: command.from, host: command.to, port: command.port });
      await once(client, 'connect');
      client.write('hello');
      await once(client, 'data');
      return null;
    case 'tcpClose':
      client?.destroy();
      return null;
  }
}

// Standard input and the traffic sockets keep this process alive, the watches do not: its end is part of the test.
const lines = createInterface({ input: process.stdin });
let queue = Promise.resolve();
lines.on('line', (line) => {
  queue = queue.then(async () => {
    try {
      const value = await run(JSON.parse(line) as ProbeCommand);
      process.stdout.write(`${JSON.stringify({ value })}\n`);
    } catch (error) {
      const code = error instanceof NetlinkError ? error.code : undefined;
      process.stdout.write(`${JSON.stringify({ error: String(error), code })}\n`);
    }
  });
});
lines.on('close', () => {
  client?.destroy();
  for (const close of closers) close();
});
