/**
 * Exchanges requests and responses by one way inside the micro-VM until it is stopped (main.ts). Says GO on standard error once all
 * that is left to run is the exchange.
 */
import { requestResponse } from '../../lab/measure.ts';
import { up as upNative } from '../../lab/native/native.ts';
import { up as upOvs } from '../../lab/ovs/ovs.ts';
import { startSidecars } from '../../lab/sidecar.ts';
import { podToPod, nodeToNode } from '../labs.ts';
import { sleep } from '../../lab/lab.ts';
import { GO } from './functions.ts';
import type { TracedPath } from './functions.ts';

/** More than are ever traced; of connections fewer than there are ports. */
const TRANSACTIONS = { rr: 1_000_000, crr: 25_000 };
/** Of the guest's clock: until the connection has its keys, and nothing that began with it is still at work. */
const SETTLED_MS = 4000;
/** Of the server. */
const PORT = 7000;

const path = process.env['XMASQ_TRACE_PATH'] as TracedPath;
const crr = process.env['XMASQ_TRACE_METRIC'] === 'tcp_crr';

/** As in bench-icount: the host network without rules, the others on Open vSwitch. */
const lab = path === 'host' ? await upNative({ podsPerNode: 1 }) : await upOvs({ podsPerNode: 1 });
if (path === 'host') await Promise.all(lab.nodes.map((node) => node.exec(['nft', 'flush', 'ruleset'])));
const { pair } = path === 'host' ? nodeToNode(lab) : podToPod(lab);
const sidecars = path === 'xmasq' ? await startSidecars(lab) : undefined;
await requestResponse(lab, pair, { proto: 'tcp', count: 50, timeoutMs: 60_000 });
const exchange = requestResponse(lab, pair, {
  proto: 'tcp',
  crr,
  count: crr ? TRANSACTIONS.crr : TRANSACTIONS.rr,
  timeoutMs: 60_000,
  port: PORT,
});
await sleep(SETTLED_MS);
// Short connections stay slow; requests that do would be traced for nothing.
if (!crr) await sidecars?.waitFast({ port: PORT });
// What they do at rest is not the transactions'.
for (const { proc } of sidecars?.nodes ?? []) process.kill(proc.pid, 'SIGSTOP');
process.stderr.write(`${GO}\n`);
await exchange;
throw new Error('the exchange has ended before it was traced');
