/**
 * Runs inside a micro-VM: brings the lab up with its sidecars on that machine's kernel, sends one flow of each protocol from
 * pod to pod, and prints what the sidecars say of them as one JSON line. Judged by dataplane.spec.ts on the host.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { up } from '../../lab/native/native.ts';
import { startSidecars } from '../../lab/sidecar.ts';
import type { SidecarFlow } from '../../lab/sidecar.ts';

/** How long traffic flows: approvals take up to two seconds natively, and emulation is some ten times slower. */
const SECONDS = 35;

const lab = await up({ nodes: 2, podsPerNode: 1 });
try {
  const sidecars = await startSidecars(lab, {});
  await sidecars.waitReady(120_000);
  const client = lab.node(0).pod(0);
  const server = lab.node(1).pod(0);
  await server.spawn([lab.tool('rr'), 'server', '--tcp', '--port', '5000'], { name: 'tcp' });
  await server.spawn([lab.tool('rr'), 'server', '--udp', '--port', '5001'], { name: 'udp' });
  await server.spawn(['iperf3', '-s', '-1', '-p', '5002'], { name: 'sctp' });
  await sleep(3000);
  const rr = (kind: string, port: string): string[] => [
    lab.tool('rr'),
    'client',
    kind,
    '--to',
    server.address,
    '--port',
    port,
    '--seconds',
    String(SECONDS),
    '--interval-us',
    '20000',
    '--json',
  ];
  const traffic = [
    await client.spawn(rr('--tcp', '5000'), { name: 'tcp-client' }),
    await client.spawn(rr('--udp', '5001'), { name: 'udp-client' }),
    await client.spawn(['ping', '-i', '0.2', '-w', String(SECONDS), server.address], { name: 'ping' }),
    await client.spawn(['iperf3', '--sctp', '-c', server.address, '-p', '5002', '-t', String(SECONDS), '-b', '1M'], {
      name: 'sctp-client',
    }),
  ];
  // The fast flow of each protocol that had sent most: under emulation leases and life signs come and go with the machine's load.
  const seen = sidecars.nodes.map(() => new Map<number, SidecarFlow>());
  const end = Date.now() + (SECONDS - 2) * 1000;
  while (Date.now() < end) {
    for (const [i, sidecar] of sidecars.nodes.entries()) {
      for (const flow of await sidecar.flows()) {
        const before = seen[i]?.get(flow.protocol)?.txPackets ?? 0;
        if (flow.path === 'fast' && flow.txPackets >= before) seen[i]?.set(flow.protocol, flow);
      }
    }
    await sleep(500);
  }
  const nodes = await Promise.all(
    sidecars.nodes.map(async (sidecar, i) => ({
      status: await sidecar.status(),
      flows: [...(seen[i]?.values() ?? [])],
    })),
  );
  for (const process of traffic) await process.exited;
  process.stdout.write(`${JSON.stringify({ nodes, traffic: traffic.map((p) => p.output().slice(-400)) })}\n`);
  await sidecars.down();
} finally {
  await lab.down();
}
