/** A node whose slow path is Open vSwitch's kernel datapath, and Antrea's pipeline. */
import { LabError } from '../lab.ts';
import type { ClusterIpService, Node, Pod } from '../lab.ts';
import type { NodePlan, PodPlan } from '../native/addressing.ts';
import { NativeNode } from '../native/node.ts';
import type { NodeOptions } from '../native/node.ts';
import type { LabContext } from '../native/place.ts';
import { batch } from '../native/setup.ts';
import { OvsDaemons } from './daemons.ts';
import { BRIDGE, GATEWAY, TUNNEL, TUNNEL_OFPORT, tunnelDevice } from './names.ts';
import { baseFlows, podFlows } from './flows.ts';
import { l7Flows } from './flows-l7.ts';
import { cookieMatch } from './pipeline.ts';
import { bridgeRows, deletePodRows, flowsRestored, initialSettings, l7Rows, podRows, roundRow } from './rows.ts';
import { serviceFlows } from './services.ts';
import type { ServiceRule } from './services.ts';
import { gatewayScript, hostScript, l7EngineScript } from './setup.ts';

/** What of Open vSwitch's state must be equal before and after, if nobody has written to it. */
export interface OvsState {
  readonly flows: string;
  readonly groups: string;
  readonly meters: string;
  /** Rows of each table without the columns that count by themselves. */
  readonly database: unknown;
}

export class OvsNode extends NativeNode {
  override readonly gatewayDevice: string = GATEWAY;
  override readonly tunnelDevices: readonly string[];
  readonly #plan: NodePlan;
  readonly #ofports = new Map<string, number>();
  /** Of the pods that are there, by host-side device. */
  readonly #pods = new Map<string, PodPlan>();
  #peers: readonly NodePlan[] = [];
  #daemons: OvsDaemons | undefined;
  #services = 0;
  /** Numbers of the Services that `setServices` has made. */
  readonly #installed: number[] = [];

  /** The pipeline always guards against spoofing, whatever the options say. */
  constructor(context: LabContext, plan: NodePlan, options: NodeOptions) {
    super(context, plan, options);
    this.#plan = plan;
    this.tunnelDevices = [tunnelDevice(plan.tunnel)];
  }

  /** The node's Open vSwitch. */
  get ovs(): OvsDaemons {
    if (this.#daemons === undefined) throw new LabError(`Open vSwitch of ${this.name} was not started`);
    return this.#daemons;
  }

  override async start(peers: readonly NodePlan[], hostConntrack: boolean): Promise<void> {
    await this.exec(['sh', '-e'], { input: hostScript(this.#plan, hostConntrack) });
    this.#daemons = await OvsDaemons.start(this, this.socketDir);
    await this.ovs.vsctl(bridgeRows(this.#plan));
    await this.exec(['sh', '-e'], { input: gatewayScript(this.#plan, peers) });
    this.#peers = peers;
    await this.#installBase();
    await this.ovs.vsctl([...flowsRestored(), '--', ...roundRow()]);
  }

  /**
   * Restarts ovs-vswitchd as Antrea's start script and antrea-agent do: it waits for flows, and gets those of the nodes and
   * pods (not those of policies and Services). The kernel's datapath goes on with what it knows.
   * @param waiting called when the new process is there and waits for its flows
   */
  async restartSwitch(waiting: () => Promise<void> = () => Promise.resolve()): Promise<void> {
    await this.ovs.vsctl(['--no-wait', ...initialSettings()]);
    await this.ovs.stopSwitch();
    await this.ovs.startSwitch();
    await this.ovs.bridgeReady();
    await this.#installBase();
    await this.#installPods([...this.#pods.values()]);
    await waiting();
    await this.ovs.vsctl(flowsRestored());
  }

  async #installBase(): Promise<void> {
    await this.ovs.ofctl(['--bundle', 'replace-flows'], ['-'], lines(baseFlows(this.#plan, this.#peers)));
    // Nothing is flooded into a tunnel that has no destination.
    await this.ovs.noFlood(TUNNEL);
  }

  /** As antrea-agent does it: the pod's flows go, then its port, then its device. */
  override async deletePod(pod: Pod): Promise<void> {
    const device = pod.endpoint.ifName;
    const ofport = this.#ofports.get(device);
    if (ofport === undefined) throw new LabError(`${this.name} has no pod ${pod.name} (deleted before?)`);
    await this.deleteFlows(cookieMatch('pod', ofport));
    await this.ovs.vsctl(deletePodRows(device));
    this.#ofports.delete(device);
    this.#pods.delete(device);
    await super.deletePod(pod);
  }

  override setTransportAddress(): Promise<void> {
    return Promise.reject(new LabError(`${this.name}: the flows of Open vSwitch do not follow a transport address`));
  }

  /** By the port that the pipeline uses, with what the pipeline sets (L3Forwarding). */
  override async sendInTunnel(frames: readonly string[], peer: Node): Promise<void> {
    const actions = `set_field:${peer.address}->tun_dst,output:${TUNNEL_OFPORT}`;
    const messages = frames.map((frame) => `packet-out in_port=controller packet=${frame} actions=${actions}`);
    await this.ovs.ofctl(['bundle'], ['-'], lines(messages));
  }

  /** Packets that came by the tunnel, as Open vSwitch counts them. */
  async tunnelReceived(): Promise<number> {
    const statistics = await this.ovs.ofctl(['dump-ports'], [TUNNEL]);
    return Number(/rx pkts=(\d+)/.exec(statistics)?.[1] ?? NaN);
  }

  async addFlows(flows: readonly string[]): Promise<void> {
    if (flows.length > 0) await this.ovs.ofctl(['--bundle', 'add-flows'], ['-'], lines(flows));
  }

  /** Deletes the flows that match (an ovs-ofctl flow match). */
  async deleteFlows(match: string): Promise<void> {
    await this.ovs.ofctl(['del-flows'], [match]);
  }

  /** Adds a Service for connections that begin on this node. Returns its number. */
  async addService(service: ServiceRule): Promise<number> {
    this.#services += 1;
    const { group, flows } = serviceFlows(service, this.#services);
    await this.ovs.ofctl(['add-group'], [group]);
    await this.addFlows(flows);
    return this.#services;
  }

  protected override async installServices(services: readonly ClusterIpService[]): Promise<void> {
    for (const number of this.#installed.splice(0)) {
      await this.deleteFlows(cookieMatch('service', number));
      await this.ovs.ofctl(['del-groups'], [`group_id=${number}`]);
    }
    for (const service of services) this.#installed.push(await this.addService(service));
  }

  /** Starts an L7 engine that lets everything pass, for connections of rules that `OvsPolicy.allow` gives a VLAN. */
  async addL7Engine(): Promise<void> {
    await this.ovs.vsctl(l7Rows());
    await this.exec(['sh', '-e'], { input: l7EngineScript() });
    await this.addFlows(l7Flows());
  }

  /** Flows, groups, meters and database as they are now. */
  async ovsState(): Promise<OvsState> {
    const [flows, groups, meters, database] = await Promise.all([
      this.ovs.ofctl(['--no-stats', 'dump-flows']),
      this.ovs.ofctl(['dump-groups']),
      this.ovs.ofctl(['dump-meters']),
      this.ovs.dumpDatabase(),
    ]);
    return { flows, groups: body(groups), meters: body(meters), database: withoutStatistics(database) };
  }

  protected override async connectPods(pods: readonly PodPlan[]): Promise<void> {
    const up = pods.map((pod) => `link set ${pod.hostDevice} mtu ${this.#plan.podMtu} up`);
    await this.exec(['sh', '-e'], { input: batch('ip', up) });
    await this.ovs.vsctl(podRows(pods));
    for (const pod of pods) this.#pods.set(pod.hostDevice, pod);
    await this.#installPods(pods);
  }

  /** Flows of pods, with the numbers that their ports have now. */
  async #installPods(pods: readonly PodPlan[]): Promise<void> {
    const answer = await this.ovs.vsctl(['--format=json', '--columns=name,ofport', 'list', 'Interface']);
    const { data } = JSON.parse(answer) as { data: (readonly [string, unknown])[] };
    const ofports = new Map(data);
    const flows = pods.flatMap((pod) => {
      const ofport = ofports.get(pod.hostDevice);
      if (typeof ofport !== 'number' || ofport < 0) {
        throw new LabError(`${this.name}: ${BRIDGE} has no port for ${pod.hostDevice}: ${answer}`);
      }
      this.#ofports.set(pod.hostDevice, ofport);
      return podFlows(this.#plan, pod, ofport);
    });
    await this.addFlows(flows);
  }
}

function lines(flows: readonly string[]): string {
  return flows.map((each) => `${each}\n`).join('');
}

/* The first line of a reply holds a transaction number. */
function body(reply: string): string {
  return reply.replace(/^.*\n/, '');
}

/** Columns that change by themselves. */
const STATISTICS: ReadonlySet<string> = new Set(['statistics']);

/* `ovsdb-client dump` prints a JSON object per table, a line each. */
function withoutStatistics(dump: string): unknown {
  return dump
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      const { caption, headings, data } = JSON.parse(line) as {
        caption: string;
        headings: readonly string[];
        data: readonly (readonly unknown[])[];
      };
      const kept = data.map((row) => row.filter((_, i) => !STATISTICS.has(headings[i] ?? '')));
      return { caption, rows: kept.map((row) => JSON.stringify(row)).sort() };
    });
}
