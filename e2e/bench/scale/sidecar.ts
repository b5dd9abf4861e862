/** What a sidecar costs on a full node of a large cluster: real process, real pods, a double of the Kubernetes API. */
import { access, constants, readFile, writeFile } from 'node:fs/promises';
import { performance } from 'node:perf_hooks';
import { LabError, eventually, sleep } from '../../lab/lab.ts';
import type { Endpoint, Lab } from '../../lab/lab.ts';
import { residentMemory } from '../../lab/memory.ts';
import { processorSeconds } from '../../lab/processor-time.ts';
import { LabSidecars } from '../../lab/sidecar.ts';
import type { Sidecar } from '../../lab/sidecar.ts';
import { LabCluster } from '../../specs/support/cluster-double.ts';
import type { Removal } from '../labs.ts';
import { PEERS, PODS } from './figures.ts';

/** As large as real Nodes are in JSON. */
const NODE_BYTES = 8192;
const MB = 1e6;
/** From being ready to being at rest. */
const SETTLE_MS = 5000;
/** How often it is asked whether all pods are attached; the sidecar answers in a millisecond or two. */
const ASK_MS = 5;
const ATTACH_LIMIT_MS = 60_000;
const READY_LIMIT_MS = 120_000;
/**
 * 1: the kernel does not wait for ticks until a grace period is over but interrupts all processors (kernel/ksysfs.c, Linux 6.12;
 * the boot option rcupdate.rcu_expedited). Of the whole machine.
 */
const EXPEDITED = '/sys/kernel/rcu_expedited';

/** How much is measured. */
export interface SidecarEffort {
  readonly rounds: number;
  /** How long its processor time is looked at. */
  readonly restMs: number;
}

/**
 * Figures of each round: `ready`, `attach`, `rss`, `cpu`, and of the latter what is left without pods, and without other nodes;
 * `attach_expedited` where the kernel can be told not to wait for its grace periods.
 */
export async function measureSidecar(
  removal: Removal,
  { rounds, restMs }: SidecarEffort,
  progress: (what: string) => void,
  add: (metric: string, value: number) => void,
): Promise<void> {
  progress(`bringing up a lab of ${PODS} pods on each node`);
  const lab = await removal.lab({ podsPerNode: PODS });
  for (let round = 1; round <= rounds; round++) {
    progress(`sidecar, at rest without pods and cluster ${round} of ${rounds}`);
    add('cpu_alone', await aloneAtRest(lab, restMs));
  }
  const cluster = await removal.add(
    () => LabCluster.start(lab),
    (started) => started.stop(),
  );
  cluster.addNodes(PEERS, NODE_BYTES);
  const sidecars = await removal.add(
    // As in a pod: reading a kubeconfig takes client-node, and that much memory more.
    () =>
      Promise.resolve(
        new LabSidecars(lab, {
          serviceAccount: (node) => cluster.serviceAccount(node),
          environment: cluster.environment,
        }),
      ),
    (created) => created.down(),
  );
  const sidecar = sidecars.node(0);
  const pods = sidecar.node.pods.map(({ endpoint }) => endpoint);
  const expedited = (await canExpedite()) ? await expediting(removal) : undefined;
  for (let round = 1; round <= rounds; round++) {
    progress(`sidecar, start ${round} of ${rounds}`);
    const begin = performance.now();
    await sidecar.start(pods);
    const { peers } = await sidecar.waitReady(READY_LIMIT_MS);
    add('ready', performance.now() - begin);
    if (peers < PEERS) throw new LabError(`the sidecar knows ${peers} peers, not ${PEERS}`);

    progress(`sidecar, at rest ${round} of ${rounds}`);
    add('cpu', await percentAtRest(sidecar, restMs));
    add('rss', residentMemory(sidecar.proc.pid).rssBytes / MB);

    progress(`sidecar, at rest without pods ${round} of ${rounds}`);
    await msToHave(sidecar, []);
    add('cpu_no_pods', await percentAtRest(sidecar, restMs));

    progress(`sidecar, attaching pods ${round} of ${rounds}`);
    add('attach', await msToHave(sidecar, pods));
    if (expedited !== undefined) {
      await msToHave(sidecar, []);
      add('attach_expedited', await expedited(() => msToHave(sidecar, pods)));
    }

    // The next one begins without programs and maps, as on a node that has just booted.
    await sidecar.stop();
    await sidecar.cleanup('--force');
  }
}

/** What is left of it when it has nobody to look after but one other node, which a file names. */
async function aloneAtRest(lab: Lab, restMs: number): Promise<number> {
  const sidecars = new LabSidecars(lab, {});
  try {
    const sidecar = sidecars.node(0);
    await sidecar.start([]);
    const percent = await percentAtRest(sidecar, restMs);
    await sidecar.stop();
    await sidecar.cleanup('--force');
    return percent;
  } finally {
    await sidecars.down();
  }
}

async function percentAtRest(sidecar: Sidecar, restMs: number): Promise<number> {
  await sleep(SETTLE_MS);
  const { pid } = sidecar.proc;
  const [used, begin] = [processorSeconds(pid), performance.now()];
  await sleep(restMs);
  return ((processorSeconds(pid) - used) / ((performance.now() - begin) / 1000)) * 100;
}

/** How long the sidecar takes until these pods are attached, and no others; milliseconds. */
async function msToHave(sidecar: Sidecar, pods: readonly Endpoint[]): Promise<number> {
  const told = performance.now();
  sidecar.pods.snapshot(pods);
  await eventually(
    `${pods.length} pods of ${sidecar.node.name} are attached, and no others`,
    async () => {
      const endpoints = await sidecar.admin.endpoints();
      return endpoints.length === pods.length && endpoints.every(({ attached }) => attached);
    },
    ATTACH_LIMIT_MS,
    ASK_MS,
  );
  return performance.now() - told;
}

/** Not where sysfs is read-only, as in containers. */
async function canExpedite(): Promise<boolean> {
  return access(EXPEDITED, constants.W_OK).then(
    () => true,
    () => false,
  );
}

/** What runs something while grace periods are expedited, and the machine as it was when everything is removed. */
async function expediting(removal: Removal): Promise<(run: () => Promise<number>) => Promise<number>> {
  const was = await removal.add(
    () => readFile(EXPEDITED, 'utf8'),
    (before) => writeFile(EXPEDITED, before),
  );
  return async (run) => {
    await writeFile(EXPEDITED, '1');
    try {
      return await run();
    } finally {
      await writeFile(EXPEDITED, was);
    }
  };
}
