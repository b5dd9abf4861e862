/**
 * Pods that are deleted while others send to them, and whose addresses are given to new pods at once. The senders are a
 * pod of another node and one of the same node, each with a UDP and a TCP flow that was fast, and all go on sending.
 */
import { eventually, sleep } from '../../lab/lab.ts';
import type { Lab, Pod, Proc } from '../../lab/lab.ts';
import { freshPort } from '../../lab/measure.ts';
import { EMULATED } from '../../lab/scale.ts';
import type { LabSidecars, Sidecar } from '../../lab/sidecar.ts';
import { DeliveryWatch } from './deliveries.ts';
import { nextHopMac } from './traffic.ts';

/** How the sidecar learns that a pod is another now. */
export type Learning =
  /** Removed before the interface goes, Added after the new one is there: the order of a CNI plugin. */
  | 'in order'
  /** Removed and Added only after both has happened: the sidecar sees the interface vanish. */
  | 'late'
  /** Neither: the stream was broken meanwhile, and a new one brings a new snapshot. */
  | 'by a snapshot'
  /** The sidecar was dead meanwhile. */
  | 'after a restart';

/** One flow from a sender to the pod that will be replaced. */
export interface OldFlow {
  readonly proto: 'tcp' | 'udp';
  readonly from: Pod;
  readonly sport: number;
  readonly port: number;
}

/** What became of one old flow. */
export interface Arrivals {
  /** E.g. `udp from pod-1-2`. */
  readonly flow: string;
  /** Its packets that the new pod received by each path. */
  readonly fast: number;
  readonly slow: number;
}

/** What a replacement came to. */
export interface Replacement {
  /** Packets of old flows at the new pod. */
  readonly arrivals: readonly Arrivals[];
  /** The same at the old pod while it was there: shows that both the flows and the method of telling paths are good. */
  readonly before: readonly Arrivals[];
}

/** Until UDP is fast: conntrack calls it a stream after two seconds. */
const FAST_MS = 10_000;
/** How long the new pod is watched: longer than any pause after a refusal. */
const WATCH_MS = EMULATED ? 6000 : 1500;
/** How long the old one is watched before. */
const WATCH_BEFORE_MS = EMULATED ? 2000 : 200;
/** Packets per second of each flow. */
const RATE = EMULATED ? 20 : 50;

/** Replaces pods of one node, again and again. */
export class PodReplacement {
  readonly #lab: Lab;
  readonly #sidecars: LabSidecars;
  readonly #remote: Pod;
  readonly #local: Pod;

  /** @param remote sends from another node @param local sends from the node of the pods that are replaced */
  constructor(lab: Lab, sidecars: LabSidecars, remote: Pod, local: Pod) {
    this.#lab = lab;
    this.#sidecars = sidecars;
    this.#remote = remote;
    this.#local = local;
  }

  /** Replaces these pods at the same time, and says what reached the new ones. The new pods stay. */
  async replace(pods: readonly Pod[], learning: Learning): Promise<{ results: Replacement[]; pods: Pod[] }> {
    const procs: Proc[] = [];
    try {
      const flows = await Promise.all(pods.map((pod) => this.#startFlows(pod, procs)));
      await Promise.all(
        flows.flat().map(({ proto, port }) =>
          // Same-node flows are on one node only.
          eventually(`${proto} port ${port} fast`, () => this.#isFast(proto, port), FAST_MS),
        ),
      );
      const before = await this.#watch(pods, flows, WATCH_BEFORE_MS);
      const fresh: Pod[] = [];
      const watches: DeliveryWatch[] = [];
      await this.#exchange(pods, learning, async () => {
        for (const [i, pod] of pods.entries()) {
          const next = await this.#renew(pod);
          fresh.push(next);
          watches.push(await DeliveryWatch.start(next, filterOf(flows[i] ?? [])));
          await this.#goOn(next, flows[i] ?? [], procs);
        }
        return fresh;
      });
      await sleep(WATCH_MS);
      const results = await Promise.all(
        watches.map(async (watch, i) => ({
          arrivals: arrivalsOf(flows[i] ?? [], await watch.stop()),
          before: before[i] ?? [],
        })),
      );
      return { results, pods: fresh };
    } finally {
      await Promise.all(procs.map((proc) => proc.stop('SIGKILL')));
    }
  }

  get #sidecar(): Sidecar {
    return this.#sidecars.node(this.#lab.nodes.indexOf(this.#local.node));
  }

  async #isFast(proto: 'tcp' | 'udp', port: number): Promise<boolean> {
    const lists = await Promise.all(this.#sidecars.nodes.map((sidecar) => sidecar.flows({ proto, port })));
    const flows = lists.flat();
    // Two entries either way: one on each node, or both on the same.
    return flows.length === 2 && flows.every(({ path }) => path === 'fast');
  }

  async #startFlows(pod: Pod, procs: Proc[]): Promise<OldFlow[]> {
    const flows: OldFlow[] = [];
    for (const proto of ['udp', 'tcp'] as const) {
      for (const from of [this.#remote, this.#local]) {
        const port = freshPort();
        const flow: OldFlow = { proto, from, port, sport: port - 10_000 };
        const server = await this.#serve(pod, flow);
        procs.push(server);
        await server.waitFor(/^ready/);
        const client = ['client', `--${proto}`, '--to', pod.address, '--port', String(port), '--seconds', '600'];
        const pace =
          proto === 'udp'
            ? ['--reply', '--rate', String(RATE)]
            : ['--rate', String(RATE * 100), '--send-size', '100', '--down', '10M', '--stall-s', '600'];
        procs.push(
          await from.spawn([this.#lab.tool('stream'), ...client, ...pace, '--sport', String(flow.sport)], {
            name: `${from.name}-old-${proto}`,
          }),
        );
        flows.push(flow);
      }
    }
    return flows;
  }

  #serve(pod: Pod, { proto, port }: OldFlow): Promise<Proc> {
    return pod.spawn([
      ...[this.#lab.tool('stream'), 'server', `--${proto}`, '--port', String(port), '--bind', pod.address],
    ]);
  }

  async #watch(pods: readonly Pod[], flows: readonly OldFlow[][], ms: number): Promise<Arrivals[][]> {
    const watches = await Promise.all(pods.map((pod, i) => DeliveryWatch.start(pod, filterOf(flows[i] ?? []))));
    await sleep(ms);
    return Promise.all(watches.map(async (watch, i) => arrivalsOf(flows[i] ?? [], await watch.stop())));
  }

  /** Deletes a pod and adds another one with its address. */
  async #renew(pod: Pod): Promise<Pod> {
    await pod.node.deletePod(pod);
    const next = await pod.node.addPod({ ip: pod.address });
    // A pod that refuses packets of unknown connections would end these: the worst case is one that does not.
    await next.exec(['nft', '-f', '-'], {
      input: 'table ip quiet { chain out { type filter hook output priority 0; tcp flags & rst == rst drop; }; }',
    });
    return next;
  }

  /** Lets the old flows reach the new pod, whatever their clients make of what they hear, and answers UDP there. */
  async #goOn(pod: Pod, flows: readonly OldFlow[], procs: Proc[]): Promise<void> {
    // What the gratuitous ARP of a new pod does.
    await this.#local.exec(['ip', 'neigh', 'replace', pod.address, 'lladdr', pod.mac, 'dev', this.#local.device]);
    for (const flow of flows) {
      if (flow.proto === 'udp') {
        procs.push(await this.#serve(pod, flow));
        continue;
      }
      const { from, sport, port } = flow;
      const hop = from === this.#local ? pod.mac : await nextHopMac(from, pod);
      procs.push(
        await from.spawn([
          ...[this.#lab.tool('raw'), 'sweep', '--dev', from.device, '--src-mac', from.mac, '--dst-mac', hop],
          ...['--src', from.address, '--dst', pod.address, '--proto', 'tcp', '--flags', '16', '--size', '50'],
          ...[
            '--sport',
            String(sport),
            '--dport',
            String(port),
            '--rate',
            String(RATE),
            '--from',
            '0',
            '--to',
            '30000',
          ],
        ]),
      );
    }
  }

  /** Runs `renew` in the middle of what the sidecar learns. */
  async #exchange(old: readonly Pod[], learning: Learning, renew: () => Promise<Pod[]>): Promise<void> {
    const { pods } = this.#sidecar;
    const ids = new Set(old.map(({ endpoint }) => endpoint.containerId));
    const others = pods.known.filter(({ containerId }) => !ids.has(containerId));
    switch (learning) {
      case 'in order':
        for (const pod of old) await pods.removePod(pod.endpoint);
        for (const pod of await renew()) await pods.addPod(pod.endpoint);
        return;
      case 'late': {
        const fresh = await renew();
        for (const pod of old) await pods.removePod(pod.endpoint);
        for (const pod of fresh) await pods.addPod(pod.endpoint);
        return;
      }
      case 'by a snapshot': {
        await pods.stream.cancel();
        const fresh = await renew();
        pods.snapshot([...others, ...fresh.map(({ endpoint }) => endpoint)]);
        await this.#attached(fresh);
        return;
      }
      case 'after a restart': {
        await this.#sidecar.kill9();
        const fresh = await renew();
        await this.#sidecar.start([...others, ...fresh.map(({ endpoint }) => endpoint)]);
        await this.#attached(fresh);
      }
    }
  }

  async #attached(pods: readonly Pod[]): Promise<void> {
    await eventually(
      'new pods attached',
      async () => {
        const endpoints = await this.#sidecar.admin.endpoints();
        return pods.every(({ endpoint }) =>
          endpoints.some(({ containerId, attached }) => containerId === endpoint.containerId && attached),
        );
      },
      10_000,
    );
  }
}

/** Packets of these flows to the pod. */
function filterOf(flows: readonly OldFlow[]): string {
  return flows
    .map(
      ({ proto, from, sport, port }) =>
        `(${proto} and src host ${from.address} and src port ${sport} and dst port ${port})`,
    )
    .join(' or ');
}

function arrivalsOf(flows: readonly OldFlow[], { fast, slow }: Awaited<ReturnType<DeliveryWatch['stop']>>): Arrivals[] {
  return flows.map(({ proto, from, port }) => ({
    flow: `${proto} from ${from.name}`,
    fast: fast.filter(({ l4 }) => l4?.dport === port).length,
    slow: slow.filter(({ l4 }) => l4?.dport === port).length,
  }));
}
