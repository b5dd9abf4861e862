/** Memcached, loaded by memaslap (Debian calls it memcaslap): 9 gets to 1 set of 1 KiB on 16 connections. */
import { eventually } from '../../lab/lab.ts';
import { LabError } from '../../lab/errors.ts';
import { addressOfServer, addressToAsk } from './app.ts';
import type { App, Load } from './app.ts';

const PORT = 11211;
const CONNECTIONS = 16;
const READY_MS = 10_000;

export const MEMCACHED: App = {
  name: 'memcached',
  title: 'Memcached',
  operation: 'operation',
  latencies: ['mean'],
  port: PORT,
  stopSignal: 'SIGTERM',
  start: (way) => {
    const listen = ['--listen', addressOfServer(way), '--port', String(PORT), '--udp-port', '0'];
    return way.pair.to.spawn(['memcached', '--user', 'nobody', '--threads', '1', '--memory-limit', '64', ...listen]);
  },
  ready: async (way, server) => {
    const ping = ['memcping', `--servers=${addressToAsk(way)}:${PORT}`];
    await eventually(
      'memcached answers',
      async () => {
        if (!server.running) throw new LabError(`memcached has ended: ${server.output().slice(-500)}`);
        return (await way.pair.from.exec(ping, { check: false })).code === 0;
      },
      READY_MS,
    );
  },
  client: (way, seconds) => [
    'memcaslap',
    ...['-s', `${addressToAsk(way)}:${PORT}`, '-T', '1', '-c', String(CONNECTIONS), '-t', `${seconds}s`],
    // It tells latencies only if it is to tell them now and then, too: later than its end.
    ...['-S', '1000s'],
  ],
  result: memaslapResult,
};

/** What memaslap prints at its end; of latencies it has the mean, and a distribution in powers of two only. */
export function memaslapResult(output: string): Load {
  const [, operations, rate] = /^Run time: \S+ Ops: (\d+) TPS: (\d+) /m.exec(output) ?? [];
  const [, mean] = /^Total Statistics \(\d+ events\)\n(?:.*\n)*? +Avg: +(\d+)/m.exec(output) ?? [];
  if (operations === undefined || mean === undefined || Number(operations) === 0) {
    throw new LabError(`memaslap told no result: ${output.slice(-1000)}`);
  }
  const [, misses] = /^get_misses: (\d+)/m.exec(output) ?? [];
  if (Number(misses) > 0) throw new LabError(`memaslap missed ${misses ?? ''} values that it had set`);
  return { operations: Number(operations), rate: Number(rate), meanUs: Number(mean) };
}
