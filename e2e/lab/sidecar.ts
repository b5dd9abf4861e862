/**
 * One unmodified sidecar per node of a lab, each in its node's network namespace, with real clients of its two services.
 *
 *     const sidecars = await startSidecars(lab);      // ready, pods attached
 *     await sidecars.waitFast({ port: 7000 });        // the flow is fast on both nodes
 *     await sidecars.down(); await lab.down();
 */
import { mkdirSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { AdminClient } from './admin.ts';
import type { FlowFilter, SidecarFlow, SidecarState, SidecarStatus } from './admin.ts';
import { waitForFlow } from './awaited-flow.ts';
import { LabError, TIME_FACTOR, at, eventually } from './lab.ts';
import type { Endpoint, ExecResult, Lab, Node, Proc } from './lab.ts';
import { PodEventsStream } from './pod-events.ts';
import { program, type Build } from './programs.ts';
import { initialCapability, writeCluster, writeConfig } from './sidecar-files.ts';
import type { Capability, SidecarPaths, SidecarSettings } from './sidecar-files.ts';
import { SidecarMaps } from './sidecar-maps.ts';

export type { Counters, FlowFilter, Reasons, SidecarFlow, SidecarStatus } from './admin.ts';
export { describeFlow } from './awaited-flow.ts';
export type { Capability, SidecarSettings } from './sidecar-files.ts';

/** Longest socket path that the sidecar takes. */
const MAX_SOCKET_PATH = 80;
/** From exec to a served socket: half a second, several on a loaded machine. */
const READY_MS = 20_000;
const FAST_MS = 5000;
const STOP_GRACE_MS = 10_000;
/** Less often where everything takes longer: asking costs what is waited for. */
const POLL_MS = 50 * Math.min(TIME_FACTOR, 4);

export interface SidecarOptions extends SidecarSettings {
  /** Do not announce the lab's pods; a test does it with `pods.snapshot`. Default false. */
  readonly withoutPods?: boolean;
  /** Do not wait until the sidecars are ready. Default false. */
  readonly withoutWaiting?: boolean;
  /** What a node's sidecar is at first. Default `this`. */
  readonly build?: (node: Node) => Build;
  /** Added to its environment. */
  readonly environment?: Readonly<Record<string, string>>;
}

/** What a command of the command line tool came to. */
export interface CliResult {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
  /** Standard output as JSON; undefined if it is none. */
  readonly json: unknown;
}

/** Starts a sidecar on every node, announces its pods and waits until all are ready. On failure all are stopped. */
export async function startSidecars(lab: Lab, options: SidecarOptions = {}): Promise<LabSidecars> {
  const sidecars = new LabSidecars(lab, options);
  try {
    await Promise.all(sidecars.nodes.map((sidecar) => sidecar.start()));
    if (options.withoutWaiting !== true) await sidecars.waitReady();
    return sidecars;
  } catch (error) {
    await sidecars.down();
    // Without sidecars it is of no use, and where they were to be started before the specs, none will take it down.
    await lab.down();
    throw error;
  }
}

/** The sidecars of one lab. */
export class LabSidecars {
  readonly nodes: readonly Sidecar[];
  readonly #lab: Lab;
  readonly #clusterFile: string;
  readonly #capabilities = new Map<Node, Capability | undefined>();

  constructor(lab: Lab, options: SidecarOptions) {
    this.#lab = lab;
    this.#clusterFile = join(lab.dir, 'cluster.yaml');
    for (const node of lab.nodes) this.#capabilities.set(node, initialCapability(node));
    this.#writeCluster();
    this.nodes = lab.nodes.map((node) => new Sidecar(node, pathsOf(lab, node, this.#clusterFile), options));
  }

  /** The sidecar of the i-th node (0-based). */
  node(i: number): Sidecar {
    return at(this.nodes, i, 'sidecar');
  }

  /** Waits until every sidecar is ready and has attached its pods. */
  async waitReady(timeoutMs = READY_MS): Promise<void> {
    await Promise.all(this.nodes.map((sidecar) => sidecar.waitReady(timeoutMs)));
  }

  /** Waits until every node sends a matching flow fast; the flows in the order of the nodes. */
  async waitFast(filter: FlowFilter, timeoutMs = FAST_MS): Promise<SidecarFlow[]> {
    return Promise.all(this.nodes.map((sidecar) => sidecar.waitFast(filter, timeoutMs)));
  }

  /** Changes what the cluster state says a node declares (undefined: nothing). Sidecars read it within a second or two. */
  setCapability(node: Node, capability: Capability | undefined): void {
    if (!this.#capabilities.has(node)) throw new LabError(`${node.name} is no node of lab ${this.#lab.id}`);
    this.#capabilities.set(node, capability);
    this.#writeCluster();
  }

  /** Tells the sidecars the nodes' transport addresses as they are now, as a change of the Node objects does. */
  publishAddresses(): void {
    this.#writeCluster();
  }

  /** Drains all nodes at once and waits until they are drained (about 35 s). */
  async drain(): Promise<void> {
    await Promise.all(this.nodes.map((sidecar) => sidecar.drain()));
  }

  /** Stops every sidecar and closes the connections. Pins stay until `cleanup` or `lab.down()`. May be called twice. */
  async down(): Promise<void> {
    await Promise.all(this.nodes.map((sidecar) => sidecar.down()));
  }

  /** Closes the connections and lets the sidecars run (for a lab that is kept). */
  release(): void {
    for (const sidecar of this.nodes) sidecar.release();
  }

  #writeCluster(): void {
    writeCluster(this.#clusterFile, this.#lab.nodes, this.#capabilities);
  }
}

/** The sidecar of one node. */
export class Sidecar {
  readonly node: Node;
  readonly socket: string;
  readonly configFile: string;
  readonly admin: AdminClient;
  readonly pods: SidecarPods;
  readonly maps: SidecarMaps;
  /** What the next start runs. */
  build: Build = 'this';
  readonly #paths: SidecarPaths;
  #options: SidecarOptions;
  #proc: Proc | undefined;

  constructor(node: Node, paths: SidecarPaths, options: SidecarOptions) {
    this.node = node;
    this.socket = paths.socket;
    this.configFile = paths.config;
    this.#paths = paths;
    this.#options = options;
    mkdirSync(dirname(paths.socket), { recursive: true, mode: 0o700 });
    if (options.build !== undefined) this.build = options.build(node);
    writeConfig(node, paths, options);
    this.admin = new AdminClient(paths.socket, node.name);
    this.pods = new SidecarPods(this.admin, node.name);
    this.maps = new SidecarMaps(paths.pins);
  }

  /** The process started last; its log survives it. */
  get proc(): Proc {
    if (this.#proc === undefined) throw new LabError(`the sidecar of ${this.node.name} was never started`);
    return this.#proc;
  }

  /**
   * Starts the process and, once it serves, tells it of pods.
   * @param pods default: those it was told of before (at first the node's)
   * @param servesMs longer where it replaces another layout's data plane first
   */
  async start(pods?: readonly Endpoint[], servesMs = READY_MS): Promise<void> {
    if (this.#proc?.running === true) throw new LabError(`the sidecar of ${this.node.name} is running`);
    this.#proc = await this.node.spawn([...program('xmasq-agent', this.build), 'run', '--config', this.configFile], {
      name: `${this.node.name}-xmasq-agent`,
      env: this.#options.environment ?? {},
    });
    await this.#whileRunning('serves its socket', async () => (await this.#tryStatus()) !== undefined, servesMs);
    if (pods !== undefined) this.pods.snapshot(pods);
    else if (this.pods.known.length > 0) this.pods.snapshot(this.pods.known);
    else if (this.#options.withoutPods !== true) this.pods.snapshot(this.node.pods.map((pod) => pod.endpoint));
  }

  /** Waits until the state is `ready` and every announced pod is attached. */
  async waitReady(timeoutMs = READY_MS): Promise<SidecarStatus> {
    return this.#whileRunning(
      'is ready',
      async () => {
        const status = await this.#tryStatus();
        if (status?.state !== 'ready') return undefined;
        const attached = (await this.admin.endpoints()).filter((endpoint) => endpoint.attached).length;
        return attached >= this.pods.known.length ? status : undefined;
      },
      timeoutMs,
    );
  }

  /** Ends the process as a service manager does (SIGTERM); the data plane stays. Says how it ended. */
  async stop(): Promise<{ readonly code: number | null; readonly signal: string | null }> {
    if (this.#proc === undefined) return { code: null, signal: null };
    await this.#proc.stop('SIGTERM', STOP_GRACE_MS);
    return this.#proc.exited;
  }

  /** Ends the process without a chance to do anything. */
  async kill9(): Promise<void> {
    await this.#proc?.stop('SIGKILL');
  }

  /** Stops the process if it runs, starts it, with these settings changed, and waits until it is ready. */
  async restart(settings: SidecarSettings = {}): Promise<void> {
    await this.stop();
    this.#options = { ...this.#options, ...settings };
    writeConfig(this.node, this.#paths, this.#options);
    await this.start();
    await this.waitReady();
  }

  /** Runs the command line tool in the node, with this sidecar's socket. Never throws for an exit code. */
  async cli(args: readonly string[], timeoutMs = 15_000): Promise<CliResult> {
    const argv = [...program('xmasq'), '--socket', this.socket, ...args];
    const result = await this.node.exec(argv, { check: false, timeoutMs });
    return { ...result, json: jsonOf(result) };
  }

  status(): Promise<SidecarStatus> {
    return this.admin.status();
  }

  flows(filter?: FlowFilter): Promise<SidecarFlow[]> {
    return this.admin.flows(filter);
  }

  /** Waits until a flow that matches is on the fast path. The error says what the flows are like instead. */
  waitFast(filter: FlowFilter, timeoutMs = FAST_MS): Promise<SidecarFlow> {
    const fast = (flow: SidecarFlow): boolean => flow.path === 'fast';
    return waitForFlow(this, { what: 'fast flow', filter, is: fast, timeoutMs, intervalMs: POLL_MS });
  }

  /** Takes the node out of the fast path and waits until it may be cleaned up (about 35 s). */
  drain(): Promise<SidecarState> {
    return this.admin.drain();
  }

  /**
   * Runs `xmasq-agent cleanup`: detaches the programs and removes the pins. The sidecar has to be stopped and the node
   * drained; `--force` does not wait for peers, `--wait` drains (about 35 s). Throws a LabError if it refuses.
   */
  cleanup(...options: readonly ('--force' | '--wait')[]): Promise<ExecResult> {
    const argv = [...program('xmasq-agent'), 'cleanup', '--config', this.configFile, ...options];
    return this.node.exec(argv, { timeoutMs: 60_000 });
  }

  /** Runs `xmasq-agent` to its end, e.g. to see it refuse; SIGKILL after `timeoutMs`. Never throws for an exit code. */
  agent(args: readonly string[], timeoutMs = 15_000): Promise<ExecResult> {
    return this.node.exec([...program('xmasq-agent'), ...args], { check: false, timeoutMs });
  }

  /** Stops the process and closes the connections. Pins stay. May be called twice. */
  async down(): Promise<void> {
    this.release();
    await this.stop();
    const directory = dirname(this.socket);
    if (directory !== this.node.socketDir) rmSync(directory, { recursive: true, force: true });
  }

  /** Closes the connections and lets the process run. */
  release(): void {
    this.pods.release();
    this.admin.close();
  }

  async #tryStatus(): Promise<SidecarStatus | undefined> {
    try {
      return await this.admin.status();
    } catch {
      return undefined; // Not listening yet, or any more.
    }
  }

  /** As `eventually`, but fails at once when the process ends, and shows its log. */
  async #whileRunning<T>(what: string, test: () => Promise<T | undefined | false>, timeoutMs: number): Promise<T> {
    const { proc } = this;
    const end = Date.now() + timeoutMs * TIME_FACTOR;
    const failed = async (why: string): Promise<LabError> => {
      const status = await this.#tryStatus();
      const state = status === undefined ? '' : `; state ${status.state} ${JSON.stringify(status.degradations)}`;
      return new LabError(
        `the sidecar of ${this.node.name} ${why} before it ${what}${state}; log ${proc.logPath}:\n${proc.output().slice(-3000)}`,
      );
    };
    return eventually(
      what,
      async () => {
        const got = await test();
        if (got !== undefined && got !== false) return got;
        if (!proc.running) throw await failed('ended');
        if (Date.now() >= end) throw await failed(`took ${timeoutMs} ms`);
        return undefined;
      },
      timeoutMs + READY_MS,
      POLL_MS,
    );
  }
}

/** The pods a sidecar is told of, on one PodEvents stream at a time. */
export class SidecarPods {
  readonly #admin: AdminClient;
  readonly #where: string;
  #known = new Map<string, Endpoint>();
  #stream: PodEventsStream | undefined;

  constructor(admin: AdminClient, where: string) {
    this.#admin = admin;
    this.#where = where;
  }

  /** What the sidecar was told: by the snapshot and the events after it. */
  get known(): readonly Endpoint[] {
    return [...this.#known.values()];
  }

  /** The stream in use. */
  get stream(): PodEventsStream {
    if (this.#stream === undefined) throw new LabError(`no PodEvents stream to ${this.#where} yet: send a snapshot`);
    return this.#stream;
  }

  /** Opens a new stream with these pods, which replaces the one before; does not wait. */
  snapshot(pods: readonly Endpoint[]): PodEventsStream {
    this.#known = new Map(pods.map((pod) => [pod.containerId, pod]));
    this.#stream = PodEventsStream.open(this.#admin.client, pods);
    return this.#stream;
  }

  /** Announces a new pod and waits until the programs are attached to its interface. */
  async addPod(pod: Endpoint): Promise<void> {
    this.stream.added(pod);
    this.#known.set(pod.containerId, pod);
    await this.#until(`attached ${pod.name}`, async () =>
      (await this.#admin.endpoints()).some(({ containerId, attached }) => containerId === pod.containerId && attached),
    );
  }

  /** Announces new values of a known pod and waits until the sidecar has taken them. */
  async changePod(pod: Endpoint): Promise<void> {
    const before = (await this.#admin.status()).podEvents.events;
    this.stream.changed(pod);
    this.#known.set(pod.containerId, pod);
    await this.#until(`changed ${pod.name}`, async () => (await this.#admin.status()).podEvents.events > before);
  }

  /** Announces that a pod is gone and waits until the sidecar has forgotten it. */
  async removePod(pod: Endpoint): Promise<void> {
    this.stream.removed(pod);
    this.#known.delete(pod.containerId);
    await this.#until(`removed ${pod.name}`, async () =>
      (await this.#admin.endpoints()).every(({ containerId }) => containerId !== pod.containerId),
    );
  }

  /** Breaks the stream off, which changes nothing in the sidecar. */
  release(): void {
    if (this.#stream?.open === true) void this.#stream.cancel();
  }

  async #until(what: string, test: () => Promise<boolean>): Promise<void> {
    const { stream } = this;
    await eventually(`sidecar of ${this.#where} ${what}`, async () => {
      if (await test()) return true;
      if (stream.open) return false;
      const { details } = await stream.ended;
      throw new LabError(`the PodEvents stream to ${this.#where} ended before the sidecar ${what}: ${details}`);
    });
  }
}

function pathsOf(lab: Lab, node: Node, cluster: string): SidecarPaths {
  const usual = join(node.socketDir, 'xmasq.sock');
  // A checkout may be anywhere; a socket's path is limited.
  const short = join('/run', `${lab.id}-${node.name}`, 'xmasq.sock');
  return {
    config: join(node.socketDir, 'xmasq-agent.yaml'),
    socket: Buffer.byteLength(usual) <= MAX_SOCKET_PATH ? usual : short,
    pins: node.pinDir,
    cluster,
  };
}

function jsonOf(result: ExecResult): unknown {
  try {
    return JSON.parse(result.stdout) as unknown;
  } catch {
    return undefined;
  }
}
