/** What the clients of the applications print, in their own words, and what is made of it. */
import { describe, expect, test } from '@jest/globals';
import { APPS, FACTS, latencyNotes } from '../../../../e2e/bench/apps/apps.ts';
import { memaslapResult } from '../../../../e2e/bench/apps/memcached.ts';
import { wrkResult } from '../../../../e2e/bench/apps/nginx.ts';
import { pgbenchResult } from '../../../../e2e/bench/apps/postgresql.ts';
import type { Row } from '../../../../e2e/bench/result.ts';

const MEMASLAP = `servers: 10.10.2.2:11211
threads count: 1
concurrency: 16
run time: 1s
windows size: 10k
set proportion: set_prop=0.10
get proportion: get_prop=0.90
Get Statistics (20196 events)
   Min:        44
   Max:     35751
   Avg:       708
   Geo:    445.59
   Std:   1697.84
   Log2 Dist:
       4:        0        0        2        4
       8:     2010    14738     1502      710

Total Statistics (22448 events)
   Min:        44
   Max:     35751
   Avg:       706
   Geo:    445.77
   Std:   1671.62

cmd_get: 20211
cmd_set: 2253
get_misses: 0
written_bytes: 3902180
read_bytes: 22435576
object_bytes: 2451264

Run time: 1.0s Ops: 22464 TPS: 22461 Net_rate: 25.1M/s
`;

const PGBENCH = `pgbench (15.18 (Debian 15.18-0+deb12u1))
transaction type: <builtin: select only>
scaling factor: 1
query mode: prepared
number of clients: 8
number of threads: 1
maximum number of tries: 1
duration: 1 s
number of transactions actually processed: 12002
number of failed transactions: 0 (0.000%)
latency average = 0.628 ms
initial connection time = 74.797 ms
tps = 12734.514758 (without initial connection time)
`;
const PGBENCH_LOG = '3 1 930 0 1795946870 652680\n6 1 882 0 1795946870 655944\n3 2 241 0 1795946870 656903\n';

const WRK = `Running 2s test @ http://10.10.2.2:8080/file
  1 threads and 8 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency    86.79ms  150.07ms 772.77ms   85.49%
    Req/Sec     1.21k     1.60k    4.89k    90.00%
  Latency Distribution
     50%  578.00us
     75%  116.01ms
     90%  305.92ms
     99%    1.67s
  1919 requests in 2.14s, 449.77KB read
Requests/sec:    897.80
Transfer/sec:    210.42KB
`;

describe('memaslap', () => {
  test('tells the rate and the mean latency of all operations', () => {
    expect(memaslapResult(MEMASLAP)).toEqual({ operations: 22464, rate: 22461, meanUs: 706 });
  });

  test.each([
    ['without latencies', MEMASLAP.replace('Total Statistics', '')],
    ['without operations', MEMASLAP.replace('Ops: 22464', 'Ops: 0')],
    ['with values that were lost', MEMASLAP.replace('get_misses: 0', 'get_misses: 3')],
    ['that says nothing', ''],
  ])('%s is an error', (_, output) => expect(() => memaslapResult(output)).toThrow(/memaslap/));
});

describe('pgbench', () => {
  test('tells the rate, and its log the latencies', () => {
    const expected = { operations: 12002, rate: 12734.514758, p50Us: 882, p99Us: 930 };
    expect(pgbenchResult(PGBENCH, PGBENCH_LOG)).toEqual(expected);
  });

  test.each([
    ['with failed transactions', PGBENCH.replace('failed transactions: 0', 'failed transactions: 1'), PGBENCH_LOG],
    ['that was cut off', PGBENCH.replace(/^tps.*$/m, ''), PGBENCH_LOG],
    ['without a log', PGBENCH, ''],
    ['with a log of something else', PGBENCH, 'failed\n'],
  ])('%s is an error', (_, output, log) => expect(() => pgbenchResult(output, log)).toThrow(/pgbench/));
});

describe('wrk', () => {
  test('tells the rate and latencies in units that change', () => {
    expect(wrkResult(WRK)).toEqual({ operations: 1919, rate: 897.8, p50Us: 578, p99Us: 1_670_000 });
    expect(wrkResult(WRK.replace('578.00us', '  3.14ms')).p50Us).toBeCloseTo(3140, 9);
  });

  test.each([
    ['with errors of connections', `${WRK}  Socket errors: connect 0, read 0, write 0, timeout 12\n`],
    ['with refused requests', `${WRK}  Non-2xx or 3xx responses: 5\n`],
    ['without requests', WRK.replace('1919 requests', '0 requests')],
    ['without latencies', WRK.replace(/^ +\d+%.*\n/gm, '')],
  ])('%s is an error', (_, output) => expect(() => wrkResult(output)).toThrow(/wrk/));
});

test('every application has its rate, latency and processor time, of its server and of a Service', () => {
  expect(Object.keys(FACTS)).toEqual([
    ...['memcached_rate', 'memcached_mean', 'memcached_cpu'],
    ...['postgresql_rate', 'postgresql_p50', 'postgresql_p99', 'postgresql_cpu'],
    ...['nginx_rate', 'nginx_p50', 'nginx_p99', 'nginx_cpu'],
    ...['memcached_service_rate', 'memcached_service_mean', 'memcached_service_cpu'],
    ...['postgresql_service_rate', 'postgresql_service_p50', 'postgresql_service_p99', 'postgresql_service_cpu'],
    ...['nginx_service_rate', 'nginx_service_p50', 'nginx_service_p99', 'nginx_service_cpu'],
  ]);
});

test('latency is compared with the overlay, where the two are distinguishable', () => {
  const row = (metric: string, xmasqLike: Row['xmasqLike']): Row =>
    ({ metric, overlay: 1000, xmasq: 750, xmasqLike }) as unknown as Row;
  const rows = APPS.map(({ name, latencies }) =>
    row(`${name}_${latencies[0] ?? ''}`, name === 'nginx' ? ['overlay'] : []),
  );
  expect(latencyNotes(rows)).toContain('Memcached 25.0 % (28.3 %); PostgreSQL 25.0 % (14.6 %); Nginx not dist');
});
