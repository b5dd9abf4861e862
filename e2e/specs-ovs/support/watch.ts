/** Watches what a sidecar asks of its node's Open vSwitch: by the database's socket, and by OpenFlow. */
import { join } from 'node:path';
import { BRIDGE } from '../../lab/ovs/names.ts';
import type { OvsNode } from '../../lab/ovs/node.ts';
import { RecordingProxy } from '../../lab/ovsdb-proxy.ts';

/** Columns of /proc/net/unix: the state, and that of an accepted connection. */
const STATE_COLUMN = 5;
const CONNECTED = '03';

/** One node's Open vSwitch, with a recording proxy before its database. */
export class OvsWatch {
  readonly #node: OvsNode;
  readonly #proxy: RecordingProxy;

  private constructor(node: OvsNode, proxy: RecordingProxy) {
    this.#node = node;
    this.#proxy = proxy;
  }

  /** Begins to listen at `socketOf(node)`. */
  static async start(node: OvsNode): Promise<OvsWatch> {
    return new OvsWatch(node, await RecordingProxy.listen(OvsWatch.socketOf(node), node.ovs.database));
  }

  /** Where the proxy listens: for the watched client, instead of the database's own socket. */
  static socketOf(node: { readonly socketDir: string }): string {
    return join(node.socketDir, 'ovsdb-proxy.sock');
  }

  /** Distinct methods that were asked of the database through the proxy, sorted. */
  get methods(): readonly string[] {
    return this.#proxy.methods;
  }

  /** OpenFlow messages, greetings included, that ovs-vswitchd has got on all connections since it was started. */
  async openflowMessages(): Promise<number> {
    return Number(await this.#node.ovs.appctl(['coverage/read-counter', 'vconn_received']));
  }

  /** Connections to the bridge's OpenFlow socket at this moment. */
  async openflowConnections(): Promise<number> {
    const { stdout } = await this.#node.exec(['cat', '/proc/net/unix']);
    const path = join(this.#node.ovs.runDir, `${BRIDGE}.mgmt`);
    const sockets = stdout.split('\n').map((line) => line.split(/\s+/));
    return sockets.filter((columns) => columns.at(-1) === path && columns[STATE_COLUMN] === CONNECTED).length;
  }

  /** Ends the proxy, and with it its client's connection. */
  close(): Promise<void> {
    return this.#proxy.close();
  }
}
