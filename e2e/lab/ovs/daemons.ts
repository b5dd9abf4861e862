/** Open vSwitch of one node: its ovsdb-server and ovs-vswitchd, with directories of their own, and the tools to ask them. */
import { mkdirSync } from 'node:fs';
import { uptime } from 'node:os';
import { join } from 'node:path';
import { LabError, TIME_FACTOR, eventually, sleep } from '../lab.ts';
import type { Node, Proc } from '../lab.ts';
import { ovsBinaries } from '../openvswitch.ts';
import type { OvsBinaries } from '../openvswitch.ts';
import { BRIDGE } from './names.ts';
import { initialSettings } from './rows.ts';

/** Debian's 3.1.0 reads 0 processors on a machine younger than this, and then never serves an upcall. */
const YOUNGEST_MACHINE_SECONDS = 11;
const TOOL_TIMEOUT_MS = 30_000;
/** ovs-vsctl waits for ovs-vswitchd to do what it wrote. */
const VSCTL_SECONDS = 25 * TIME_FACTOR;

/** What a node has to offer the daemons. */
type Host = Pick<Node, 'exec' | 'spawn' | 'name'>;

export class OvsDaemons {
  /** Run directory: `db.sock`, `br-int.mgmt`; stands for /var/run/antrea/openvswitch of a real node. */
  readonly runDir: string;
  readonly #host: Host;
  readonly #binaries: OvsBinaries;
  #server: Proc | undefined;
  #switch: Proc | undefined;

  private constructor(host: Host, directory: string, binaries: OvsBinaries) {
    this.#host = host;
    this.runDir = join(directory, 'openvswitch');
    this.#binaries = binaries;
  }

  /**
   * Makes an empty database and starts both daemons in the node's network namespace; they wait for flows.
   * @throws Error when Open vSwitch's programs cannot be fetched; LabError when a daemon does not start
   */
  static async start(host: Host, directory: string): Promise<OvsDaemons> {
    const daemons = new OvsDaemons(host, directory, await ovsBinaries());
    mkdirSync(daemons.runDir, { recursive: true });
    await daemons.#tool(['ovsdb-tool', 'create', join(daemons.runDir, 'conf.db'), daemons.#binaries.schema]);
    await daemons.startServer();
    await daemons.vsctl(['--no-wait', 'init']);
    await daemons.vsctl(['--no-wait', ...initialSettings()]);
    await daemons.startSwitch();
    return daemons;
  }

  /** Path of the database's socket. */
  get database(): string {
    return join(this.runDir, 'db.sock');
  }

  /** Starts ovsdb-server and waits until it answers. */
  async startServer(): Promise<void> {
    this.#server = await this.#spawn('ovsdb-server', [
      ...[
        join(this.runDir, 'conf.db'),
        `--remote=punix:${this.database}`,
        '--no-chdir',
        '-vconsole:info',
        '-vfile:off',
      ],
    ]);
    await eventually(
      `ovsdb-server of ${this.#host.name}`,
      async () => (await this.#tool(['ovsdb-client', 'list-dbs', `unix:${this.database}`], false)) !== undefined,
    );
  }

  /** Starts ovs-vswitchd. It forwards nothing before the first flows, if the database says so. */
  async startSwitch(): Promise<void> {
    const young = YOUNGEST_MACHINE_SECONDS - uptime();
    if (young > 0) await sleep(young * 1000);
    this.#switch = await this.#spawn('ovs-vswitchd', [
      ...[`unix:${this.database}`, '--no-chdir', '-vconsole:info', '-vfile:off'],
    ]);
  }

  /** Waits until ovs-vswitchd has made the bridge and takes its flows. */
  async bridgeReady(): Promise<void> {
    const argv = ['ovs-ofctl', ...this.#bridge('OpenFlow15', ['show'])];
    await eventually(`bridge of ${this.#host.name}`, async () => (await this.#tool(argv, false)) !== undefined, 20_000);
  }

  /** Ends ovsdb-server; the switch goes on. */
  async stopServer(): Promise<void> {
    await this.#server?.stop();
  }

  /** Ends ovs-vswitchd; what the kernel's datapath knows stays in force. */
  async stopSwitch(): Promise<void> {
    await this.#switch?.stop();
  }

  /** Runs ovs-vsctl and returns its output. */
  async vsctl(args: readonly string[]): Promise<string> {
    const argv = ['ovs-vsctl', `--db=unix:${this.database}`, `--timeout=${VSCTL_SECONDS}`, ...args];
    return (await this.#tool(argv)) ?? '';
  }

  /** Runs a command of ovs-ofctl on the bridge and returns its output; `input` stands for a file named `-`. */
  async ofctl(command: readonly string[], args: readonly string[] = [], input?: string): Promise<string> {
    const argv = ['ovs-ofctl', ...this.#bridge('OpenFlow15', command), ...args];
    return (await this.#tool(argv, true, input)) ?? '';
  }

  /** Starts a controller that lets every packet go on which a flow has stopped for it. It logs each. */
  async controller(): Promise<Proc> {
    const args = ['-O', 'OpenFlow10', 'monitor', `unix:${join(this.runDir, `${BRIDGE}.mgmt`)}`, 'resume'];
    return this.#spawn('ovs-ofctl', args);
  }

  /** Keeps what is flooded out of a port. OpenFlow has this before 1.1 only. */
  async noFlood(port: string): Promise<void> {
    await this.#tool(['ovs-ofctl', ...this.#bridge('OpenFlow10', ['mod-port']), port, 'no-flood']);
  }

  /** Runs a command of ovs-appctl on ovs-vswitchd and returns its output. */
  async appctl(args: readonly string[]): Promise<string> {
    if (this.#switch === undefined) throw new LabError(`ovs-vswitchd of ${this.#host.name} was not started`);
    const socket = join(this.runDir, `ovs-vswitchd.${this.#switch.pid}.ctl`);
    return (await this.#tool(['ovs-appctl', '-t', socket, ...args])) ?? '';
  }

  /** Every table of the database as `ovsdb-client` prints it in JSON. */
  async dumpDatabase(): Promise<string> {
    const argv = ['ovsdb-client', '--format=json', 'dump', `unix:${this.database}`, 'Open_vSwitch'];
    return (await this.#tool(argv)) ?? '';
  }

  async #tool(argv: readonly string[], check = true, input?: string): Promise<string | undefined> {
    const options = { check, timeoutMs: TOOL_TIMEOUT_MS, ...(input === undefined ? {} : { input }) };
    const { code, stdout } = await this.#host.exec(['env', ...this.#environment(), ...argv], options);
    return code === 0 ? stdout : undefined;
  }

  #bridge(version: string, command: readonly string[]): string[] {
    return ['-O', version, ...command, `unix:${join(this.runDir, `${BRIDGE}.mgmt`)}`];
  }

  #spawn(program: string, args: readonly string[]): Promise<Proc> {
    return this.#host.spawn(['env', ...this.#environment(), program, ...args], {
      name: `${this.#host.name}-${program}`,
    });
  }

  #environment(): string[] {
    const { runDir } = this;
    const own = { OVS_RUNDIR: runDir, OVS_LOGDIR: runDir, OVS_DBDIR: runDir, OVS_SYSCONFDIR: runDir };
    return Object.entries({ ...this.#binaries.env, ...own }).map(([key, value]) => `${key}=${value}`);
  }
}
