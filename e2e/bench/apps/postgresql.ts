/**
 * PostgreSQL, loaded by pgbench: one SELECT by primary key, prepared, per transaction, on 8 connections. All data is in
 * memory: what is compared is the way there and back.
 */
import { appendFileSync, chownSync, globSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { LabError } from '../../lab/errors.ts';
import { quantile } from '../statistics.ts';
import { addressOfServer, addressToAsk } from './app.ts';
import type { App, Load } from './app.ts';

const PORT = 5432;
const CONNECTIONS = 8;
/** It refuses to run as root; Debian's package makes this user. */
const USER = 'postgres';
const LOG_PREFIX = 'pgbench_log';
const SET_UP_MS = 120_000;

export const POSTGRESQL: App = {
  name: 'postgresql',
  title: 'PostgreSQL',
  operation: 'transaction',
  latencies: ['p50', 'p99'],
  port: PORT,
  // At once: the data directory is thrown away. SIGKILL would leave shared memory behind.
  stopSignal: 'SIGQUIT',
  start: async (way, directory) => {
    const { to } = way.pair;
    const id = async (flag: string): Promise<number> => Number((await to.exec(['id', flag, USER])).stdout);
    chownSync(directory, await id('-u'), await id('-g'));
    const data = join(directory, 'data');
    const locale = ['--locale=C', '--encoding=UTF8'];
    await to.exec([...asUser, program('initdb'), '-D', data, '-U', USER, '-A', 'trust', '--no-sync', ...locale], {
      timeoutMs: SET_UP_MS,
    });
    // The address is the lab's alone; there is no other way in.
    appendFileSync(join(data, 'pg_hba.conf'), 'host all all all trust\n');
    const settings = {
      listen_addresses: addressOfServer(way),
      port: PORT,
      unix_socket_directories: '',
      dynamic_shared_memory_type: 'mmap',
      fsync: 'off',
      autovacuum: 'off',
      jit: 'off',
    };
    const options = Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`]);
    return to.spawn([...asUser, program('postgres'), '-D', data, ...options]);
  },
  ready: async (way, server) => {
    await server.waitFor(/database system is ready to accept connections/, SET_UP_MS);
    await way.pair.from.exec([program('pgbench'), ...connection(addressToAsk(way)), '-i', '-q', USER], {
      timeoutMs: SET_UP_MS,
    });
  },
  client: (way, seconds, directory) => [
    program('pgbench'),
    ...connection(addressToAsk(way)),
    ...['--select-only', '--protocol=prepared', '--no-vacuum', '--client', String(CONNECTIONS), '--jobs', '1'],
    ...['--time', String(seconds), '--log', `--log-prefix=${join(directory, LOG_PREFIX)}`, USER],
  ],
  result: (stdout, directory) => {
    const logs = readdirSync(directory).filter((name) => name.startsWith(LOG_PREFIX));
    const text = logs.map((name) => readFileSync(join(directory, name), 'utf8')).join('');
    for (const name of logs) rmSync(join(directory, name));
    return pgbenchResult(stdout, text);
  },
};

const asUser = ['setpriv', '--reuid', USER, '--regid', USER, '--clear-groups'];

function connection(address: string): string[] {
  return ['-h', address, '-p', String(PORT), '-U', USER];
}

/** Path of one of the server package's programs, which are not in PATH; of the newest version that is installed. */
function program(name: string): string {
  const found = globSync(`/usr/lib/postgresql/*/bin/${name}`);
  const newest = found.toSorted((a, b) => a.localeCompare(b, 'en', { numeric: true })).at(-1);
  if (newest === undefined) throw new LabError(`no /usr/lib/postgresql/*/bin/${name}: is postgresql installed?`);
  return newest;
}

/** What pgbench prints, and its log: `client transaction time-in-us ...` for every transaction. */
export function pgbenchResult(output: string, log: string): Load {
  const [, operations] = /^number of transactions actually processed: (\d+)/m.exec(output) ?? [];
  const [, failed = '0'] = /^number of failed transactions: (\d+)/m.exec(output) ?? [];
  const [, rate] = /^tps = ([\d.]+) \(without initial connection time\)/m.exec(output) ?? [];
  if (operations === undefined || rate === undefined || Number(operations) === 0 || Number(failed) > 0) {
    throw new LabError(`pgbench did not do what it should: ${output.slice(-1000)}`);
  }
  const times = log
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => Number(line.split(' ')[2]));
  if (times.length === 0 || times.some(Number.isNaN)) throw new LabError('the log of pgbench has no times');
  return {
    operations: Number(operations),
    rate: Number(rate),
    p50Us: quantile(times, 0.5),
    p99Us: quantile(times, 0.99),
  };
}
