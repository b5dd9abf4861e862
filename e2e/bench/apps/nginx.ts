/** Nginx, loaded by wrk: a file of 1 KiB on 16 connections that stay open. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { LabError } from '../../lab/errors.ts';
import { addressOfServer, addressToAsk } from './app.ts';
import type { App, Load } from './app.ts';

const PORT = 8080;
const CONNECTIONS = 16;
const FILE_BYTES = 1024;
const READY_MS = 10_000;

export const NGINX: App = {
  name: 'nginx',
  title: 'Nginx',
  operation: 'request',
  latencies: ['p50', 'p99'],
  port: PORT,
  stopSignal: 'SIGTERM',
  start: (way, directory) => {
    const root = join(directory, 'root');
    mkdirSync(root, { mode: 0o755 });
    writeFileSync(join(root, 'file'), 'x'.repeat(FILE_BYTES), { mode: 0o644 });
    const file = join(directory, 'nginx.conf');
    writeFileSync(file, configuration(directory, root, addressOfServer(way)));
    return way.pair.to.spawn(['nginx', '-p', directory, '-e', 'stderr', '-c', file]);
  },
  ready: async (_, server) => {
    await server.waitFor(/start worker process \d/, READY_MS);
  },
  client: (way, seconds) => [
    ...['wrk', '--threads', '1', '--connections', String(CONNECTIONS), '--duration', `${seconds}s`, '--latency'],
    `http://${addressToAsk(way)}:${PORT}/file`,
  ],
  result: wrkResult,
};

/** One worker, as there is one client; nothing of it outside its directory. */
function configuration(directory: string, root: string, address: string): string {
  const paths = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(
    (kind) => `  ${kind}_temp_path ${join(directory, kind)};`,
  );
  return `daemon off;
user nobody nogroup;
worker_processes 1;
pid ${join(directory, 'pid')};
error_log stderr notice;
events { worker_connections 256; }
http {
  access_log off;
  keepalive_requests 1000000000;
${paths.join('\n')}
  server {
    listen ${address}:${PORT};
    root ${root};
  }
}
`;
}

const MICROSECONDS: Readonly<Record<string, number>> = { us: 1, ms: 1000, s: 1e6, m: 60e6 };

/** What wrk prints with --latency. */
export function wrkResult(output: string): Load {
  const [, operations] = /^ +(\d+) requests in /m.exec(output) ?? [];
  const [, rate] = /^Requests\/sec: +([\d.]+)$/m.exec(output) ?? [];
  const errors = /^ +(Socket errors: .*|Non-2xx .*)$/m.exec(output)?.[1];
  if (operations === undefined || rate === undefined || Number(operations) === 0 || errors !== undefined) {
    throw new LabError(`wrk did not do what it should: ${output.slice(-1000)}`);
  }
  const latency = (percent: number): number => {
    const [, value, unit = ''] = new RegExp(`^ +${percent}% +([\\d.]+)(us|ms|s|m)$`, 'm').exec(output) ?? [];
    if (value === undefined) throw new LabError(`wrk told no latency at ${percent} %: ${output.slice(-1000)}`);
    return Number(value) * (MICROSECONDS[unit] ?? NaN);
  };
  return { operations: Number(operations), rate: Number(rate), p50Us: latency(50), p99Us: latency(99) };
}
