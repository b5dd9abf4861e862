/** What antrea-agent and Open vSwitch write into the database, as types. Read-only, of one bridge. */
import type { Columns, Replica, Row } from './replica.ts';
import { atomsOf, mapOf, numberOf, textOf } from './replica.ts';

/** Statistics and status columns are left out: they change all the time. */
export const MONITORED: Columns = {
  Open_vSwitch: ['other_config'],
  Bridge: ['name', 'ports', 'external_ids'],
  Port: ['name', 'interfaces', 'external_ids', 'tag'],
  Interface: ['name', 'type', 'options', 'ofport', 'ifindex', 'mac_in_use'],
};

/** Values of `external_ids:antrea-type` on ports of the main bridge. */
export const PORT_TYPES = [
  'container',
  'gateway',
  'tunnel',
  'uplink',
  'host',
  'traffic-control',
  'ipsec-tunnel',
] as const;

/** The device of a port, as far as ovs-vswitchd has told of it. */
export interface PortInterface {
  /** Of Open vSwitch: empty for a device of the kernel, `internal`, `geneve`, `vxlan`, `gre`, `stt` ... */
  readonly type: string;
  /** Of tunnels: `remote_ip`, `key`, `dst_port` ... */
  readonly options: ReadonlyMap<string, string>;
  /** OpenFlow port; -1: the device is missing, undefined: not known (yet). */
  readonly ofport: number | undefined;
  /** Undefined: not known (yet), or none, as tunnels. */
  readonly ifindex: number | undefined;
  /** Empty: not known (yet). */
  readonly mac: string;
}

/** A port of the bridge. */
export interface BridgePort {
  /** Also the name of its device. */
  readonly name: string;
  /** As it stands there; '' if there is none. */
  readonly type: string;
  readonly externalIds: ReadonlyMap<string, string>;
  /** VLAN; undefined: none. */
  readonly tag: number | undefined;
  readonly interface: PortInterface | undefined;
  /** The row it comes from: the same object for as long as nothing of the port changes. */
  readonly row: Row;
}

/** The bridge and the settings of the whole switch. */
export interface BridgeView {
  /** False: the database has no such bridge. */
  readonly present: boolean;
  readonly externalIds: ReadonlyMap<string, string>;
  /** Of the `Open_vSwitch` row. */
  readonly otherConfig: ReadonlyMap<string, string>;
  /** In the order in which their rows were told. */
  readonly ports: readonly BridgePort[];
}

/**
 * Reads the bridge with this name. Other bridges (secondary networks) are in the same database and their ports have the same
 * keys: only the bridge's own set of ports tells them apart.
 */
export function readBridge(copy: Replica, name: string): BridgeView {
  const otherConfig = [...copy.table('Open_vSwitch').values()].map((row) => mapOf(row, 'other_config'))[0] ?? new Map();
  const bridge = [...copy.table('Bridge').values()].find((row) => textOf(row, 'name') === name);
  if (bridge === undefined) return { present: false, externalIds: new Map(), otherConfig, ports: [] };
  const members = new Set(atomsOf(bridge, 'ports'));
  const ports = [...copy.table('Port')].filter(([uuid]) => members.has(uuid)).map(([, row]) => readPort(copy, row));
  return { present: true, externalIds: mapOf(bridge, 'external_ids'), otherConfig, ports };
}

function readPort(copy: Replica, row: Row): BridgePort {
  const externalIds = mapOf(row, 'external_ids');
  const [uuid] = atomsOf(row, 'interfaces');
  const device = typeof uuid === 'string' ? copy.table('Interface').get(uuid) : undefined;
  return {
    name: textOf(row, 'name'),
    type: externalIds.get('antrea-type') ?? '',
    externalIds,
    tag: numberOf(row, 'tag'),
    interface: device === undefined ? undefined : readInterface(device),
    row,
  };
}

function readInterface(row: Row): PortInterface {
  return {
    type: textOf(row, 'type'),
    options: mapOf(row, 'options'),
    ofport: numberOf(row, 'ofport'),
    ifindex: numberOf(row, 'ifindex'),
    mac: textOf(row, 'mac_in_use'),
  };
}
