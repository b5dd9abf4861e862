/** A node: a namespace with an uplink, the slow path, and pods. */
import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { ANTREA, LabError, at, familyOf } from '../lab.ts';
import type {
  AddPodOptions,
  ClusterIpService,
  Conntrack,
  EncapMode,
  Family,
  Node,
  OffloadFlags,
  Pod,
  Tunnel,
} from '../lab.ts';
import {
  GATEWAY_DEVICE,
  POD_DEVICE,
  TUNNEL_DEVICES,
  UPLINK,
  carriers,
  lowerDevices,
  planPod,
  withTransportAddress,
} from './addressing.ts';
import type { NodePlan, PodPlan } from './addressing.ts';
import { NativeConntrack } from './conntrack.ts';
import { moveScript, peerMovedScript, routerMovedScript } from './move.ts';
import { inNamespace, removeNamespaces } from './namespaces.ts';
import { NativePlace } from './place.ts';
import type { LabContext } from './place.ts';
import { NativePod } from './pod.ts';
import type { PodHost } from './pod.ts';
import { run } from './process.ts';
import { serviceRules } from './ruleset.ts';
import { addNamespace, addVeth, ipv6ReadyScript, nodeScript, podHostScript, podScript, sysctls } from './setup.ts';
import { toolPath } from './state.ts';

const LAST_POD_ADDRESS = 250;

export interface NodeOptions {
  readonly pinDir: string;
  readonly spoofGuard: boolean;
  readonly surroundings: Surroundings;
}

/** What is around a node, once the lab is built. */
export interface Surroundings {
  /** Every node of the lab. */
  nodes(): readonly NativeNode[];
  /** The router's place, if there is one. */
  router(): NativePlace | undefined;
}

export class NativeNode extends NativePlace implements PodHost {
  readonly index: number;
  readonly podCidr: string;
  readonly gateway: string;
  readonly podCidr6: string | undefined;
  readonly gateway6: string | undefined;
  readonly gatewayDevice: string = GATEWAY_DEVICE;
  readonly tunnelDevices: readonly string[];
  readonly encapMode: EncapMode;
  readonly lowerDevices: readonly string[];
  readonly tunnel: Tunnel;
  readonly pinDir: string;
  readonly socketDir: string;
  readonly conntrack: Conntrack;
  readonly #context: LabContext;
  readonly #surroundings: Surroundings;
  readonly #spoofGuard: boolean;
  #plan: NodePlan;
  readonly #pods: NativePod[] = [];
  readonly #addresses = new Set<string>();
  #services: readonly ClusterIpService[] = [];
  #sandboxes = 0;

  constructor(context: LabContext, plan: NodePlan, options: NodeOptions) {
    super(context, {
      name: plan.name,
      namespace: plan.namespace,
      ...addresses(plan),
      device: UPLINK,
      mtu: plan.mtu,
      mac: plan.uplinkMac,
    });
    this.#context = context;
    this.#plan = plan;
    this.#surroundings = options.surroundings;
    this.#spoofGuard = options.spoofGuard;
    this.index = plan.index;
    this.podCidr = plan.podCidr;
    this.gateway = plan.gateway;
    this.encapMode = plan.encapMode;
    this.lowerDevices = lowerDevices(UPLINK, plan.uplink);
    this.tunnel = { type: plan.tunnel.type, port: plan.tunnel.port };
    this.podCidr6 = plan.ipv6?.podCidr;
    this.gateway6 = plan.ipv6?.gateway;
    this.tunnelDevices = carriers(plan).map((family) => TUNNEL_DEVICES[family]);
    this.pinDir = options.pinDir;
    this.socketDir = join(context.dir, plan.name);
    this.conntrack = new NativeConntrack(
      this,
      plan.ipv6 === undefined && plan.transport.ipv6 === undefined ? ['ipv4'] : ['ipv4', 'ipv6'],
    );
    mkdirSync(this.socketDir, { recursive: true });
  }

  get pods(): readonly NativePod[] {
    return this.#pods;
  }

  pod(i: number): NativePod {
    return at(this.#pods, i, `pod on ${this.name}`);
  }

  async addPod(options: AddPodOptions = {}): Promise<Pod> {
    const plan = this.planPod(options);
    await run(['ip', '-batch', '-'], plan.name, { input: this.podDevices(plan) });
    await this.startPods([plan]);
    return this.pod(this.#pods.length - 1);
  }

  async deletePod(pod: Pod): Promise<void> {
    const index = this.#pods.findIndex((candidate) => candidate === pod);
    const [gone] = index < 0 ? [] : this.#pods.splice(index, 1);
    if (gone === undefined) throw new LabError(`${this.name} has no pod ${pod.name} (deleted before?)`);
    await this.exec(['ip', 'link', 'del', gone.endpoint.ifName]);
    await removeNamespaces([gone.namespace]);
    this.#addresses.delete(gone.address);
  }

  async setServices(services: readonly ClusterIpService[]): Promise<void> {
    await this.installServices(services);
    const before = this.#services.filter(({ protocol }) => protocol === 'udp');
    this.#services = services;
    for (const { clusterIp, port, endpoints } of before) {
      const now = services.find((one) => one.protocol === 'udp' && one.clusterIp === clusterIp && one.port === port);
      const gone = endpoints.filter((one) => !now?.endpoints.some(({ address }) => address === one.address));
      for (const { address } of gone) await this.#forgetUdp(clusterIp, port, address);
    }
  }

  /** Replaces the translations of the slow path. */
  protected async installServices(services: readonly ClusterIpService[]): Promise<void> {
    await this.exec(['nft', '-f', '-'], { input: serviceRules(services) });
  }

  /** As AntreaProxy does when an endpoint goes (pkg/agent/route/route_linux.go). */
  async #forgetUdp(clusterIp: string, port: number, endpoint: string): Promise<void> {
    const which = ['-p', 'udp', '--orig-dst', clusterIp, '--orig-port-dst', String(port), '--reply-src', endpoint];
    // Exit code 1: there were none.
    const zone = familyOf(clusterIp) === 'ipv6' ? ['-f', 'ipv6', '-w', ANTREA.zone6] : ['-w', ANTREA.zone];
    await this.exec(['conntrack', '-D', ...zone.map(String), ...which], { check: false });
  }

  async setUplinkMac(mac: string, options: { readonly announce?: boolean } = {}): Promise<void> {
    const announce = (options.announce ?? true) ? 1 : 0;
    const conf = (family: Family, name: string): string => `net/${family}/conf/${this.device}/${name}`;
    await this.sysctl({ [conf('ipv4', 'arp_notify')]: announce, [conf('ipv6', 'ndisc_notify')]: announce });
    await this.exec(['ip', 'link', 'set', this.device, 'address', mac]);
    this.changed({ mac });
  }

  async setTransportAddress(address: string): Promise<void> {
    const [old, family] = [this.#plan, familyOf(address)];
    const moved = withTransportAddress(old, address);
    await this.exec(['sh', '-e'], { input: moveScript(old, moved, family) });
    this.#plan = moved;
    this.changed(addresses(moved));
    const peers = this.#surroundings.nodes().filter((node) => node !== this);
    await Promise.all([
      ...peers.map((peer) => peer.#peerMoved(moved, family)),
      this.#surroundings.router()?.exec(['sh', '-e'], { input: routerMovedScript(moved) }),
    ]);
  }

  async #peerMoved(peer: NodePlan, family: Family): Promise<void> {
    await this.exec(['sh', '-e'], { input: peerMovedScript(this.#plan, peer, family) });
  }

  /** The device knows by itself where the peer is: by the frame's destination. */
  async sendInTunnel(frames: readonly string[], peer: Node): Promise<void> {
    const [device] = this.tunnelDevices;
    if (device === undefined || peer.index === this.index)
      throw new LabError(`${this.name} has no tunnel to ${peer.name}`);
    const input = frames.map((frame) => `${frame}\n`).join('');
    await this.exec([toolPath('raw'), 'send', '--dev', device, '--rate', '2000'], { input });
  }

  async sysctl(values: Readonly<Record<string, string | number>>): Promise<void> {
    await this.exec(['sh', '-e'], { input: sysctls(values) });
  }

  /** Switches offloads of the uplink, what is below it and the tunnels, or of one device. */
  override async offload(flags: OffloadFlags, device?: string): Promise<void> {
    const devices = device === undefined ? [...this.lowerDevices, this.device, ...this.tunnelDevices] : [device];
    await Promise.all(devices.map((each) => super.offload(flags, each)));
  }

  /** Chooses name, address and devices of a pod to come. */
  planPod(options: AddPodOptions): PodPlan {
    this.#sandboxes += 1;
    const ip = options.ip ?? this.#freeAddress();
    if (this.#addresses.has(ip)) throw new LabError(`${this.name}: pod address ${ip} is in use`);
    this.#addresses.add(ip);
    return planPod(this.#plan, this.#sandboxes, {
      name: options.name ?? `pod-${this.index}-${ip.split('.').at(-1) ?? ''}`,
      ip,
      mac: options.mac,
      namespace: options.namespace,
    });
  }

  /** `ip -batch` lines, run outside, that make the pod's namespace and veth pair. */
  podDevices(pod: PodPlan): string {
    return (
      addNamespace(pod.namespace) +
      addVeth(
        { device: POD_DEVICE, namespace: pod.namespace, mac: pod.mac },
        { device: pod.hostDevice, namespace: this.namespace },
        this.#plan.podMtu,
      )
    );
  }

  /** Sets the node and its slow path up; the uplink exists already. */
  async start(peers: readonly NodePlan[], hostConntrack: boolean): Promise<void> {
    await this.exec(['sh', '-e'], { input: nodeScript(this.#plan, peers, hostConntrack) });
  }

  /** Takes pods into service whose devices exist. */
  async startPods(pods: readonly PodPlan[]): Promise<void> {
    if (pods.length === 0) return;
    await Promise.all([
      this.connectPods(pods),
      ...pods.map((pod) =>
        run(inNamespace(pod.namespace, ['sh', '-e']), pod.name, { input: podScript(this.#plan, pod) }),
      ),
    ]);
    if (this.podCidr6 !== undefined) {
      const ready = { input: ipv6ReadyScript([POD_DEVICE]) };
      await Promise.all(pods.map((pod) => run(inNamespace(pod.namespace, ['sh', '-e']), pod.name, ready)));
    }
    for (const pod of pods) this.#pods.push(new NativePod(this.#context, this, pod, this.#plan.podMtu));
  }

  /** Connects the pods' host devices to the slow path. */
  protected async connectPods(pods: readonly PodPlan[]): Promise<void> {
    const script = pods.map((pod) => podHostScript(this.#plan, pod, this.#spoofGuard)).join('');
    await this.exec(['sh', '-e'], { input: script });
  }

  /** Removes what this node's processes pinned. */
  removePins(): void {
    rmSync(this.pinDir, { recursive: true, force: true });
  }

  #freeAddress(): string {
    const prefix = this.#plan.podCidr.replace(/\.0\/24$/, '');
    for (let host = 2; host <= LAST_POD_ADDRESS; host++) {
      const candidate = `${prefix}.${host}`;
      if (!this.#addresses.has(candidate)) return candidate;
    }
    throw new LabError(`${this.name}: no free pod address in ${this.podCidr}`);
  }
}

function addresses({ transport, name }: NodePlan): { readonly address: string; readonly address6: string | undefined } {
  const [ipv4, ipv6] = [transport.ipv4?.address, transport.ipv6?.address];
  const address = ipv4 ?? ipv6;
  if (address === undefined) throw new LabError(`${name} has no transport address`);
  return { address, address6: ipv6 };
}
