/** The maps of the data plane, typed. */
import { addressCodec } from '../bpf/address.ts';
import { u32Codec } from '../bpf/codec.ts';
import { ArrayMap, HashMap, type MapSource } from '../bpf/map.ts';
import { PerCpuArray } from '../bpf/percpu.ts';
import { maps } from '../gen/layouts.ts';
import type {
  Approval,
  DataPlaneConfig,
  Destination,
  Endpoint,
  Flow,
  FlowKey,
  Path,
  Peer,
  PeerState,
  Prefix,
  Refusal,
  Slot,
  SlotKey,
} from './layout.ts';
import type { ArrayTable, CounterTable, HashTable } from './ports.ts';

/** Every map that the sidecar reads or writes. Addresses are canonical text. */
export interface Tables {
  readonly config: ArrayTable<DataPlaneConfig>;
  readonly endpoints: ArrayTable<Endpoint>;
  readonly endpointByIfindex: HashTable<number, number>;
  readonly endpointByAddr: HashTable<string, number>;
  readonly peers: ArrayTable<Peer>;
  readonly peerByAddr: HashTable<string, number>;
  readonly peerState: ArrayTable<PeerState>;
  readonly paths: ArrayTable<Path>;
  readonly destinations: HashTable<Prefix, Destination>;
  readonly flows: HashTable<FlowKey, Flow>;
  readonly translated: HashTable<FlowKey, FlowKey>;
  readonly slots: HashTable<SlotKey, Slot>;
  readonly approvals: HashTable<FlowKey, Approval>;
  readonly refusals: HashTable<FlowKey, Refusal>;
  readonly counters: CounterTable;
  readonly reasons: CounterTable;
}

/** Maps whose number of entries an administrator may choose, and whose fill level is shown. */
export const SIZED_MAPS = ['flows', 'slots', 'approvals', 'refusals'] as const;
export type SizedMap = (typeof SIZED_MAPS)[number];

/** The maps as opened from the kernel. */
export interface KernelTables extends Tables {
  /** Most entries of each. */
  readonly capacity: Readonly<Record<SizedMap, number>>;
  close(): void;
}

/**
 * Opens all maps.
 * @param source where each map is
 * @throws RangeError where a map's layout is not that of this build
 */
export function openTables(source: (map: string) => MapSource): KernelTables {
  const opened: { close(): void }[] = [];
  const keep = <T extends { close(): void }>(map: T): T => {
    opened.push(map);
    return map;
  };
  const close = (): void => {
    for (const map of opened) map.close();
  };
  try {
    const flows = keep(new HashMap(source('flows'), maps.flows.key, maps.flows.value));
    const slots = keep(new HashMap(source('slots'), maps.slots.key, maps.slots.value));
    const approvals = keep(new HashMap(source('approvals'), maps.approvals.key, maps.approvals.value));
    const refusals = keep(new HashMap(source('refusals'), maps.refusals.key, maps.refusals.value));
    return {
      config: keep(new ArrayMap(source('config'), maps.config.value)),
      endpoints: keep(new ArrayMap(source('endpoints'), maps.endpoints.value)),
      endpointByIfindex: keep(new HashMap(source('endpoint_by_ifindex'), u32Codec, u32Codec)),
      endpointByAddr: keep(new HashMap(source('endpoint_by_addr'), addressCodec, u32Codec)),
      peers: keep(new ArrayMap(source('peers'), maps.peers.value)),
      peerByAddr: keep(new HashMap(source('peer_by_addr'), addressCodec, u32Codec)),
      peerState: keep(new ArrayMap(source('peer_state'), maps.peer_state.value)),
      paths: keep(new ArrayMap(source('paths'), maps.paths.value)),
      destinations: keep(new HashMap(source('destinations'), maps.destinations.key, maps.destinations.value)),
      flows,
      translated: keep(new HashMap(source('translated'), maps.translated.key, maps.translated.value)),
      slots,
      approvals,
      refusals,
      counters: keep(new PerCpuArray(source('counters'))),
      reasons: keep(new PerCpuArray(source('reasons'))),
      capacity: {
        flows: flows.info.maxEntries,
        slots: slots.info.maxEntries,
        approvals: approvals.info.maxEntries,
        refusals: refusals.info.maxEntries,
      },
      close,
    };
  } catch (error) {
    close();
    throw error;
  }
}
