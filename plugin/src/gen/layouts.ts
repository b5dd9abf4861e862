// Generated from the BTF of the BPF objects by scripts/gen-layouts.ts. Do not edit.
import { checkBigInteger, checkInteger, checkLength, makeCodec, u32Codec, u64Codec, type Codec } from '../bpf/codec.ts';

/** Identifies these layouts: equal exactly if structs, enums and maps are. */
export const LAYOUT_HASH = '1ae0c131536105ea';

/** enum xmasq_config_flag. */
export const ConfigFlag = {
  ADMIT: 1,
  SEND: 2,
  CT_LOOKUP: 4,
} as const;
/** A value of enum xmasq_config_flag. */
export type ConfigFlag = (typeof ConfigFlag)[keyof typeof ConfigFlag];
/** Value of enum xmasq_config_flag -> name, lower case; without the mark of the end. */
export const configFlagNames: Readonly<Record<number, string>> = {
  [1]: 'admit',
  [2]: 'send',
  [4]: 'ct_lookup',
};

/** enum xmasq_counter. */
export const Counter = {
  FAST_TX: 0,
  FAST_LOCAL: 1,
  SLOW_TX: 2,
  ANNOUNCED: 3,
  MARKER_CLEARED: 4,
  SLOW_RX: 5,
  KEY_LEARNED: 6,
  RESTORED: 7,
  UNKNOWN_KEY: 8,
  INCOMPLETE: 9,
  UNKNOWN_PASSED: 10,
  REJECT_SENT: 11,
  REJECT_LIMITED: 12,
  REJECT_RECEIVED: 13,
  REJECT_IGNORED: 14,
  ACK_SENT: 15,
  ACK_RECEIVED: 16,
  NODE_CLEARED: 17,
  OWN_SEEN: 18,
  OWN_LOST: 19,
  FLOW_ADMITTED: 20,
  FLOW_DEMOTED: 21,
  FLOW_CLOSED: 22,
  CT_LOOKUP: 23,
  CT_EXTENDED: 24,
  CT_KILLED: 25,
  SYN_DROPPED: 26,
  BLACK_HOLE: 27,
  ICMP_ERROR: 28,
  ICMP_ERROR_IGNORED: 29,
  EVENT_LOST: 30,
  COUNT: 31,
} as const;
/** A value of enum xmasq_counter. */
export type Counter = (typeof Counter)[keyof typeof Counter];
/** Value of enum xmasq_counter -> name, lower case; without the mark of the end. */
export const counterNames: Readonly<Record<number, string>> = {
  [0]: 'fast_tx',
  [1]: 'fast_local',
  [2]: 'slow_tx',
  [3]: 'announced',
  [4]: 'marker_cleared',
  [5]: 'slow_rx',
  [6]: 'key_learned',
  [7]: 'restored',
  [8]: 'unknown_key',
  [9]: 'incomplete',
  [10]: 'unknown_passed',
  [11]: 'reject_sent',
  [12]: 'reject_limited',
  [13]: 'reject_received',
  [14]: 'reject_ignored',
  [15]: 'ack_sent',
  [16]: 'ack_received',
  [17]: 'node_cleared',
  [18]: 'own_seen',
  [19]: 'own_lost',
  [20]: 'flow_admitted',
  [21]: 'flow_demoted',
  [22]: 'flow_closed',
  [23]: 'ct_lookup',
  [24]: 'ct_extended',
  [25]: 'ct_killed',
  [26]: 'syn_dropped',
  [27]: 'black_hole',
  [28]: 'icmp_error',
  [29]: 'icmp_error_ignored',
  [30]: 'event_lost',
};

/** enum xmasq_dest_kind. */
export const DestKind = {
  NONE: 0,
  PEER: 1,
} as const;
/** A value of enum xmasq_dest_kind. */
export type DestKind = (typeof DestKind)[keyof typeof DestKind];
/** Value of enum xmasq_dest_kind -> name, lower case; without the mark of the end. */
export const destKindNames: Readonly<Record<number, string>> = {
  [0]: 'none',
  [1]: 'peer',
};

/** enum xmasq_endpoint_flag. */
export const EndpointFlag = {
  PRESENT: 1,
} as const;
/** A value of enum xmasq_endpoint_flag. */
export type EndpointFlag = (typeof EndpointFlag)[keyof typeof EndpointFlag];
/** Value of enum xmasq_endpoint_flag -> name, lower case; without the mark of the end. */
export const endpointFlagNames: Readonly<Record<number, string>> = {
  [1]: 'present',
};

/** enum xmasq_event_type. */
export const EventType = {
  WANT_APPROVAL: 1,
  ADMITTED: 2,
  DEMOTED: 3,
  RESET: 4,
  BLACK_HOLE: 5,
  REJECTED: 6,
  UNKNOWN_PASSED: 7,
  OWN_LOST: 8,
} as const;
/** A value of enum xmasq_event_type. */
export type EventType = (typeof EventType)[keyof typeof EventType];
/** Value of enum xmasq_event_type -> name, lower case; without the mark of the end. */
export const eventTypeNames: Readonly<Record<number, string>> = {
  [1]: 'want_approval',
  [2]: 'admitted',
  [3]: 'demoted',
  [4]: 'reset',
  [5]: 'black_hole',
  [6]: 'rejected',
  [7]: 'unknown_passed',
  [8]: 'own_lost',
};

/** enum xmasq_flow_flag. */
export const FlowFlag = {
  LOCAL: 1,
  HAVE_KEY: 2,
  ANNOUNCED: 4,
  PEER_COMPLETE: 8,
  APPROVED: 16,
  SERVICE: 32,
  UNLEARNED: 64,
} as const;
/** A value of enum xmasq_flow_flag. */
export type FlowFlag = (typeof FlowFlag)[keyof typeof FlowFlag];
/** Value of enum xmasq_flow_flag -> name, lower case; without the mark of the end. */
export const flowFlagNames: Readonly<Record<number, string>> = {
  [1]: 'local',
  [2]: 'have_key',
  [4]: 'announced',
  [8]: 'peer_complete',
  [16]: 'approved',
  [32]: 'service',
  [64]: 'unlearned',
};

/** enum xmasq_peer_flag. */
export const PeerFlag = {
  PRESENT: 1,
  CAPABLE: 2,
} as const;
/** A value of enum xmasq_peer_flag. */
export type PeerFlag = (typeof PeerFlag)[keyof typeof PeerFlag];
/** Value of enum xmasq_peer_flag -> name, lower case; without the mark of the end. */
export const peerFlagNames: Readonly<Record<number, string>> = {
  [1]: 'present',
  [2]: 'capable',
};

/** enum xmasq_reason. */
export const Reason = {
  NONE: 0,
  VLAN: 1,
  MALFORMED: 2,
  IP_OPTIONS: 3,
  FRAGMENT: 4,
  TTL: 5,
  TRACEFLOW: 6,
  PROTOCOL: 7,
  ICMP_TYPE: 8,
  SCTP_CONTROL: 9,
  TCP_SYN: 10,
  TCP_FIN: 11,
  DNS_REPLY: 12,
  RESERVED_PORT: 13,
  TOO_BIG: 14,
  GSO_SEGMENTS: 15,
  HEADER_CHANGED: 16,
  UNKNOWN_ENDPOINT: 17,
  SPOOF: 18,
  NOT_POD: 19,
  PEER_NOT_CAPABLE: 20,
  DRAINING: 21,
  TRAFFIC_CONTROL: 22,
  BANDWIDTH: 23,
  PACKET_CAPTURE: 24,
  ANTREA_IPAM: 25,
  POD_VLAN: 26,
  FEATURE_GATE: 27,
  ENCAP_MODE: 28,
  ENCRYPTION: 29,
  TUNNEL_TYPE: 30,
  BRIDGING: 31,
  MULTICLUSTER: 32,
  HW_OFFLOAD: 33,
  FLOW_RESTORE: 34,
  CT_MISSING: 35,
  CT_UNCONFIRMED: 36,
  CT_UNREPLIED: 37,
  CT_STATE: 38,
  CT_NOT_ALLOWED: 39,
  CT_SOURCE: 40,
  CT_SNAT: 41,
  CT_HAIRPIN: 42,
  CT_L7: 43,
  CT_SERVICE: 44,
  CT_STATUS: 45,
  NO_APPROVAL: 46,
  SLOT_TAKEN: 47,
  SLOT_RECENT: 48,
  MAP_FULL: 49,
  KEY_EXCHANGE: 50,
  KEY_REJECTED: 51,
  PEER_SILENT: 52,
  BLACK_HOLE: 53,
  NO_NEIGHBOUR: 54,
  CLOSED: 55,
  STALE: 56,
  COUNT: 57,
} as const;
/** A value of enum xmasq_reason. */
export type Reason = (typeof Reason)[keyof typeof Reason];
/** Value of enum xmasq_reason -> name, lower case; without the mark of the end. */
export const reasonNames: Readonly<Record<number, string>> = {
  [0]: 'none',
  [1]: 'vlan',
  [2]: 'malformed',
  [3]: 'ip_options',
  [4]: 'fragment',
  [5]: 'ttl',
  [6]: 'traceflow',
  [7]: 'protocol',
  [8]: 'icmp_type',
  [9]: 'sctp_control',
  [10]: 'tcp_syn',
  [11]: 'tcp_fin',
  [12]: 'dns_reply',
  [13]: 'reserved_port',
  [14]: 'too_big',
  [15]: 'gso_segments',
  [16]: 'header_changed',
  [17]: 'unknown_endpoint',
  [18]: 'spoof',
  [19]: 'not_pod',
  [20]: 'peer_not_capable',
  [21]: 'draining',
  [22]: 'traffic_control',
  [23]: 'bandwidth',
  [24]: 'packet_capture',
  [25]: 'antrea_ipam',
  [26]: 'pod_vlan',
  [27]: 'feature_gate',
  [28]: 'encap_mode',
  [29]: 'encryption',
  [30]: 'tunnel_type',
  [31]: 'bridging',
  [32]: 'multicluster',
  [33]: 'hw_offload',
  [34]: 'flow_restore',
  [35]: 'ct_missing',
  [36]: 'ct_unconfirmed',
  [37]: 'ct_unreplied',
  [38]: 'ct_state',
  [39]: 'ct_not_allowed',
  [40]: 'ct_source',
  [41]: 'ct_snat',
  [42]: 'ct_hairpin',
  [43]: 'ct_l7',
  [44]: 'ct_service',
  [45]: 'ct_status',
  [46]: 'no_approval',
  [47]: 'slot_taken',
  [48]: 'slot_recent',
  [49]: 'map_full',
  [50]: 'key_exchange',
  [51]: 'key_rejected',
  [52]: 'peer_silent',
  [53]: 'black_hole',
  [54]: 'no_neighbour',
  [55]: 'closed',
  [56]: 'stale',
};

/** enum xmasq_slot_flag. */
export const SlotFlag = {
  COMPLETE: 1,
  PEER_FAST: 2,
  SHARED: 4,
} as const;
/** A value of enum xmasq_slot_flag. */
export type SlotFlag = (typeof SlotFlag)[keyof typeof SlotFlag];
/** Value of enum xmasq_slot_flag -> name, lower case; without the mark of the end. */
export const slotFlagNames: Readonly<Record<number, string>> = {
  [1]: 'complete',
  [2]: 'peer_fast',
  [4]: 'shared',
};

/** enum xmasq_slot_state. */
export const SlotState = {
  ACTIVE: 1,
  CLOSING: 2,
  TOMBSTONE: 3,
} as const;
/** A value of enum xmasq_slot_state. */
export type SlotState = (typeof SlotState)[keyof typeof SlotState];
/** Value of enum xmasq_slot_state -> name, lower case; without the mark of the end. */
export const slotStateNames: Readonly<Record<number, string>> = {
  [1]: 'active',
  [2]: 'closing',
  [3]: 'tombstone',
};

/** struct xmasq_addr4, 4 bytes. */
export interface Addr4 {
  /** u32, network byte order in C, offset 0. */
  readonly addr: number;
}
function writeAddr4(to: Buffer, at: number, value: Addr4): void {
  to.writeUInt32BE(checkInteger('xmasq_addr4.addr', value.addr, 0, 4294967295), at);
}
function readAddr4(from: Buffer, at: number): Addr4 {
  return {
    addr: from.readUInt32BE(at),
  };
}
/** struct xmasq_addr4, 4 bytes. */
export const addr4Codec: Codec<Addr4> = makeCodec('xmasq_addr4', 4, writeAddr4, readAddr4);

/** struct xmasq_approval, 8 bytes. */
export interface Approval {
  /** u64, offset 0. */
  readonly expires: bigint;
}
function writeApproval(to: Buffer, at: number, value: Approval): void {
  to.writeBigUInt64LE(checkBigInteger('xmasq_approval.expires', value.expires, 0n, 18446744073709551615n), at);
}
function readApproval(from: Buffer, at: number): Approval {
  return {
    expires: from.readBigUInt64LE(at),
  };
}
/** struct xmasq_approval, 8 bytes. */
export const approvalCodec: Codec<Approval> = makeCodec('xmasq_approval', 8, writeApproval, readApproval);

/** struct xmasq_config, 56 bytes. */
export interface Config {
  /** u32, offset 0. */
  readonly layoutVersion: number;
  /** u32, offset 4. */
  readonly flags: number;
  /** 4 of u32, offset 8. */
  readonly magic: readonly number[];
  /** u32, offset 24. */
  readonly uplinkIfindex: number;
  /** u32, network byte order in C, offset 28. */
  readonly uplinkAddr4: number;
  /** u64, offset 32. */
  readonly stateSince: bigint;
  /** u32, offset 40. */
  readonly hz: number;
  /** u16, offset 44. */
  readonly ctZone: number;
  /** u16, network byte order in C, offset 46. */
  readonly tunnelPort: number;
  /** u8, offset 48. */
  readonly excludedLocal: number;
  /** u8, offset 49. */
  readonly excludedRemote: number;
  /** u8, offset 50. */
  readonly paused: number;
}
function writeConfig(to: Buffer, at: number, value: Config): void {
  to.writeUInt32LE(checkInteger('xmasq_config.layout_version', value.layoutVersion, 0, 4294967295), at);
  to.writeUInt32LE(checkInteger('xmasq_config.flags', value.flags, 0, 4294967295), at + 4);
  checkLength('xmasq_config.magic', value.magic, 4);
  value.magic.forEach((e0, i0) => {
    to.writeUInt32LE(checkInteger('xmasq_config.magic', e0, 0, 4294967295), at + 8 + 4 * i0);
  });
  to.writeUInt32LE(checkInteger('xmasq_config.uplink_ifindex', value.uplinkIfindex, 0, 4294967295), at + 24);
  to.writeUInt32BE(checkInteger('xmasq_config.uplink_addr4', value.uplinkAddr4, 0, 4294967295), at + 28);
  to.writeBigUInt64LE(
    checkBigInteger('xmasq_config.state_since', value.stateSince, 0n, 18446744073709551615n),
    at + 32,
  );
  to.writeUInt32LE(checkInteger('xmasq_config.hz', value.hz, 0, 4294967295), at + 40);
  to.writeUInt16LE(checkInteger('xmasq_config.ct_zone', value.ctZone, 0, 65535), at + 44);
  to.writeUInt16BE(checkInteger('xmasq_config.tunnel_port', value.tunnelPort, 0, 65535), at + 46);
  to.writeUInt8(checkInteger('xmasq_config.excluded_local', value.excludedLocal, 0, 255), at + 48);
  to.writeUInt8(checkInteger('xmasq_config.excluded_remote', value.excludedRemote, 0, 255), at + 49);
  to.writeUInt8(checkInteger('xmasq_config.paused', value.paused, 0, 255), at + 50);
}
function readConfig(from: Buffer, at: number): Config {
  return {
    layoutVersion: from.readUInt32LE(at),
    flags: from.readUInt32LE(at + 4),
    magic: Array.from({ length: 4 }, (_, i0) => from.readUInt32LE(at + 8 + 4 * i0)),
    uplinkIfindex: from.readUInt32LE(at + 24),
    uplinkAddr4: from.readUInt32BE(at + 28),
    stateSince: from.readBigUInt64LE(at + 32),
    hz: from.readUInt32LE(at + 40),
    ctZone: from.readUInt16LE(at + 44),
    tunnelPort: from.readUInt16BE(at + 46),
    excludedLocal: from.readUInt8(at + 48),
    excludedRemote: from.readUInt8(at + 49),
    paused: from.readUInt8(at + 50),
  };
}
/** struct xmasq_config, 56 bytes. */
export const configCodec: Codec<Config> = makeCodec('xmasq_config', 56, writeConfig, readConfig);

/** struct xmasq_destination, 8 bytes. */
export interface Destination {
  /** u32, offset 0. */
  readonly kind: number;
  /** u32, offset 4. */
  readonly peer: number;
}
function writeDestination(to: Buffer, at: number, value: Destination): void {
  to.writeUInt32LE(checkInteger('xmasq_destination.kind', value.kind, 0, 4294967295), at);
  to.writeUInt32LE(checkInteger('xmasq_destination.peer', value.peer, 0, 4294967295), at + 4);
}
function readDestination(from: Buffer, at: number): Destination {
  return {
    kind: from.readUInt32LE(at),
    peer: from.readUInt32LE(at + 4),
  };
}
/** struct xmasq_destination, 8 bytes. */
export const destinationCodec: Codec<Destination> = makeCodec(
  'xmasq_destination',
  8,
  writeDestination,
  readDestination,
);

/** struct xmasq_endpoint, 24 bytes. */
export interface Endpoint {
  /** u32, offset 0. */
  readonly ifindex: number;
  /** u32, network byte order in C, offset 4. */
  readonly addr4: number;
  /** u32, offset 8. */
  readonly flags: number;
  /** u32, offset 12. */
  readonly epoch: number;
  /** 6 bytes, offset 16. */
  readonly mac: Uint8Array;
  /** u8, offset 22. */
  readonly excluded: number;
}
function writeEndpoint(to: Buffer, at: number, value: Endpoint): void {
  to.writeUInt32LE(checkInteger('xmasq_endpoint.ifindex', value.ifindex, 0, 4294967295), at);
  to.writeUInt32BE(checkInteger('xmasq_endpoint.addr4', value.addr4, 0, 4294967295), at + 4);
  to.writeUInt32LE(checkInteger('xmasq_endpoint.flags', value.flags, 0, 4294967295), at + 8);
  to.writeUInt32LE(checkInteger('xmasq_endpoint.epoch', value.epoch, 0, 4294967295), at + 12);
  checkLength('xmasq_endpoint.mac', value.mac, 6);
  to.set(value.mac, at + 16);
  to.writeUInt8(checkInteger('xmasq_endpoint.excluded', value.excluded, 0, 255), at + 22);
}
function readEndpoint(from: Buffer, at: number): Endpoint {
  return {
    ifindex: from.readUInt32LE(at),
    addr4: from.readUInt32BE(at + 4),
    flags: from.readUInt32LE(at + 8),
    epoch: from.readUInt32LE(at + 12),
    mac: Uint8Array.from(from.subarray(at + 16, at + 16 + 6)),
    excluded: from.readUInt8(at + 22),
  };
}
/** struct xmasq_endpoint, 24 bytes. */
export const endpointCodec: Codec<Endpoint> = makeCodec('xmasq_endpoint', 24, writeEndpoint, readEndpoint);

/** struct xmasq_flow_key, 20 bytes. */
export interface FlowKey {
  /** u32, network byte order in C, offset 0. */
  readonly saddr: number;
  /** u32, network byte order in C, offset 4. */
  readonly daddr: number;
  /** u16, network byte order in C, offset 8. */
  readonly sport: number;
  /** u16, network byte order in C, offset 10. */
  readonly dport: number;
  /** u32, offset 12. */
  readonly ifindex: number;
  /** u8, offset 16. */
  readonly proto: number;
}
function writeFlowKey(to: Buffer, at: number, value: FlowKey): void {
  to.writeUInt32BE(checkInteger('xmasq_flow_key.saddr', value.saddr, 0, 4294967295), at);
  to.writeUInt32BE(checkInteger('xmasq_flow_key.daddr', value.daddr, 0, 4294967295), at + 4);
  to.writeUInt16BE(checkInteger('xmasq_flow_key.sport', value.sport, 0, 65535), at + 8);
  to.writeUInt16BE(checkInteger('xmasq_flow_key.dport', value.dport, 0, 65535), at + 10);
  to.writeUInt32LE(checkInteger('xmasq_flow_key.ifindex', value.ifindex, 0, 4294967295), at + 12);
  to.writeUInt8(checkInteger('xmasq_flow_key.proto', value.proto, 0, 255), at + 16);
}
function readFlowKey(from: Buffer, at: number): FlowKey {
  return {
    saddr: from.readUInt32BE(at),
    daddr: from.readUInt32BE(at + 4),
    sport: from.readUInt16BE(at + 8),
    dport: from.readUInt16BE(at + 10),
    ifindex: from.readUInt32LE(at + 12),
    proto: from.readUInt8(at + 16),
  };
}
/** struct xmasq_flow_key, 20 bytes. */
export const flowKeyCodec: Codec<FlowKey> = makeCodec('xmasq_flow_key', 20, writeFlowKey, readFlowKey);

/** struct xmasq_event, 40 bytes. */
export interface Event {
  /** u64, offset 0. */
  readonly time: bigint;
  /** u32, offset 8. */
  readonly type: number;
  /** u32, offset 12. */
  readonly reason: number;
  /** struct xmasq_flow_key, offset 16. */
  readonly flow: FlowKey;
  /** u32, offset 36. */
  readonly peer: number;
}
function writeEvent(to: Buffer, at: number, value: Event): void {
  to.writeBigUInt64LE(checkBigInteger('xmasq_event.time', value.time, 0n, 18446744073709551615n), at);
  to.writeUInt32LE(checkInteger('xmasq_event.type', value.type, 0, 4294967295), at + 8);
  to.writeUInt32LE(checkInteger('xmasq_event.reason', value.reason, 0, 4294967295), at + 12);
  writeFlowKey(to, at + 16, value.flow);
  to.writeUInt32LE(checkInteger('xmasq_event.peer', value.peer, 0, 4294967295), at + 36);
}
function readEvent(from: Buffer, at: number): Event {
  return {
    time: from.readBigUInt64LE(at),
    type: from.readUInt32LE(at + 8),
    reason: from.readUInt32LE(at + 12),
    flow: readFlowKey(from, at + 16),
    peer: from.readUInt32LE(at + 36),
  };
}
/** struct xmasq_event, 40 bytes. */
export const eventCodec: Codec<Event> = makeCodec('xmasq_event', 40, writeEvent, readEvent);

/** struct xmasq_tuple, 12 bytes. */
export interface Tuple {
  /** u32, network byte order in C, offset 0. */
  readonly saddr: number;
  /** u32, network byte order in C, offset 4. */
  readonly daddr: number;
  /** u16, network byte order in C, offset 8. */
  readonly sport: number;
  /** u16, network byte order in C, offset 10. */
  readonly dport: number;
}
function writeTuple(to: Buffer, at: number, value: Tuple): void {
  to.writeUInt32BE(checkInteger('xmasq_tuple.saddr', value.saddr, 0, 4294967295), at);
  to.writeUInt32BE(checkInteger('xmasq_tuple.daddr', value.daddr, 0, 4294967295), at + 4);
  to.writeUInt16BE(checkInteger('xmasq_tuple.sport', value.sport, 0, 65535), at + 8);
  to.writeUInt16BE(checkInteger('xmasq_tuple.dport', value.dport, 0, 65535), at + 10);
}
function readTuple(from: Buffer, at: number): Tuple {
  return {
    saddr: from.readUInt32BE(at),
    daddr: from.readUInt32BE(at + 4),
    sport: from.readUInt16BE(at + 8),
    dport: from.readUInt16BE(at + 10),
  };
}
/** struct xmasq_tuple, 12 bytes. */
export const tupleCodec: Codec<Tuple> = makeCodec('xmasq_tuple', 12, writeTuple, readTuple);

/** struct xmasq_flow, 216 bytes. */
export interface Flow {
  /** u32, offset 0. */
  readonly gen: number;
  /** u32, offset 4. */
  readonly flags: number;
  /** u64, offset 8. */
  readonly txPackets: bigint;
  /** u64, offset 16. */
  readonly txBytes: bigint;
  /** u64, offset 24. */
  readonly slowPackets: bigint;
  /** u64, offset 32. */
  readonly admittedAt: bigint;
  /** u64, offset 40. */
  readonly lastTx: bigint;
  /** u64, offset 48. */
  readonly lastRxSlow: bigint;
  /** u64, offset 56. */
  readonly verifyAt: bigint;
  /** u64, offset 64. */
  readonly recheckAt: bigint;
  /** u64, offset 72. */
  readonly fastSince: bigint;
  /** u64, offset 80. */
  readonly unansweredSince: bigint;
  /** u64, offset 88. */
  readonly unansweredTx: bigint;
  /** u64, offset 96. */
  readonly holeUntil: bigint;
  /** u64, offset 104. */
  readonly rejectUntil: bigint;
  /** u64, offset 112. */
  readonly deviatingSince: bigint;
  /** u32, offset 120. */
  readonly csumDiff: number;
  /** u32, offset 124. */
  readonly ipSum: number;
  /** u32, offset 128. */
  readonly endpoint: number;
  /** u32, offset 132. */
  readonly endpointEpoch: number;
  /** u32, offset 136. */
  readonly peer: number;
  /** u32, offset 140. */
  readonly peerEpoch: number;
  /** u32, offset 144. */
  readonly slotGen: number;
  /** u32, offset 148. */
  readonly outIfindex: number;
  /** u32, network byte order in C, offset 152. */
  readonly nodeSaddr: number;
  /** u32, network byte order in C, offset 156. */
  readonly nodeDaddr: number;
  /** struct xmasq_tuple, offset 160. */
  readonly out: Tuple;
  /** 6 bytes, offset 172. */
  readonly smac: Uint8Array;
  /** 6 bytes, offset 178. */
  readonly dmac: Uint8Array;
  /** 6 bytes, offset 184. */
  readonly podMac: Uint8Array;
  /** 6 bytes, offset 190. */
  readonly viaMac: Uint8Array;
  /** u8, offset 196. */
  readonly peerKey: number;
  /** u8, offset 197. */
  readonly ownKey: number;
  /** u8, offset 198. */
  readonly ttl: number;
  /** u8, offset 199. */
  readonly tos: number;
  /** u8, offset 200. */
  readonly blocked: number;
  /** u8, offset 201. */
  readonly rejectKey: number;
  /** u8, offset 202. */
  readonly rejectLevel: number;
  /** u8, offset 203. */
  readonly holeLevel: number;
  /** u8, offset 204. */
  readonly proto: number;
  /** u8, offset 205. */
  readonly outTtl: number;
  /** u32, offset 208. */
  readonly mtu: number;
  /** u32, offset 212. */
  readonly gen2: number;
}
function writeFlow(to: Buffer, at: number, value: Flow): void {
  to.writeUInt32LE(checkInteger('xmasq_flow.gen', value.gen, 0, 4294967295), at);
  to.writeUInt32LE(checkInteger('xmasq_flow.flags', value.flags, 0, 4294967295), at + 4);
  to.writeBigUInt64LE(checkBigInteger('xmasq_flow.tx_packets', value.txPackets, 0n, 18446744073709551615n), at + 8);
  to.writeBigUInt64LE(checkBigInteger('xmasq_flow.tx_bytes', value.txBytes, 0n, 18446744073709551615n), at + 16);
  to.writeBigUInt64LE(
    checkBigInteger('xmasq_flow.slow_packets', value.slowPackets, 0n, 18446744073709551615n),
    at + 24,
  );
  to.writeBigUInt64LE(checkBigInteger('xmasq_flow.admitted_at', value.admittedAt, 0n, 18446744073709551615n), at + 32);
  to.writeBigUInt64LE(checkBigInteger('xmasq_flow.last_tx', value.lastTx, 0n, 18446744073709551615n), at + 40);
  to.writeBigUInt64LE(checkBigInteger('xmasq_flow.last_rx_slow', value.lastRxSlow, 0n, 18446744073709551615n), at + 48);
  to.writeBigUInt64LE(checkBigInteger('xmasq_flow.verify_at', value.verifyAt, 0n, 18446744073709551615n), at + 56);
  to.writeBigUInt64LE(checkBigInteger('xmasq_flow.recheck_at', value.recheckAt, 0n, 18446744073709551615n), at + 64);
  to.writeBigUInt64LE(checkBigInteger('xmasq_flow.fast_since', value.fastSince, 0n, 18446744073709551615n), at + 72);
  to.writeBigUInt64LE(
    checkBigInteger('xmasq_flow.unanswered_since', value.unansweredSince, 0n, 18446744073709551615n),
    at + 80,
  );
  to.writeBigUInt64LE(
    checkBigInteger('xmasq_flow.unanswered_tx', value.unansweredTx, 0n, 18446744073709551615n),
    at + 88,
  );
  to.writeBigUInt64LE(checkBigInteger('xmasq_flow.hole_until', value.holeUntil, 0n, 18446744073709551615n), at + 96);
  to.writeBigUInt64LE(
    checkBigInteger('xmasq_flow.reject_until', value.rejectUntil, 0n, 18446744073709551615n),
    at + 104,
  );
  to.writeBigUInt64LE(
    checkBigInteger('xmasq_flow.deviating_since', value.deviatingSince, 0n, 18446744073709551615n),
    at + 112,
  );
  to.writeUInt32LE(checkInteger('xmasq_flow.csum_diff', value.csumDiff, 0, 4294967295), at + 120);
  to.writeUInt32LE(checkInteger('xmasq_flow.ip_sum', value.ipSum, 0, 4294967295), at + 124);
  to.writeUInt32LE(checkInteger('xmasq_flow.endpoint', value.endpoint, 0, 4294967295), at + 128);
  to.writeUInt32LE(checkInteger('xmasq_flow.endpoint_epoch', value.endpointEpoch, 0, 4294967295), at + 132);
  to.writeUInt32LE(checkInteger('xmasq_flow.peer', value.peer, 0, 4294967295), at + 136);
  to.writeUInt32LE(checkInteger('xmasq_flow.peer_epoch', value.peerEpoch, 0, 4294967295), at + 140);
  to.writeUInt32LE(checkInteger('xmasq_flow.slot_gen', value.slotGen, 0, 4294967295), at + 144);
  to.writeUInt32LE(checkInteger('xmasq_flow.out_ifindex', value.outIfindex, 0, 4294967295), at + 148);
  to.writeUInt32BE(checkInteger('xmasq_flow.node_saddr', value.nodeSaddr, 0, 4294967295), at + 152);
  to.writeUInt32BE(checkInteger('xmasq_flow.node_daddr', value.nodeDaddr, 0, 4294967295), at + 156);
  writeTuple(to, at + 160, value.out);
  checkLength('xmasq_flow.smac', value.smac, 6);
  to.set(value.smac, at + 172);
  checkLength('xmasq_flow.dmac', value.dmac, 6);
  to.set(value.dmac, at + 178);
  checkLength('xmasq_flow.pod_mac', value.podMac, 6);
  to.set(value.podMac, at + 184);
  checkLength('xmasq_flow.via_mac', value.viaMac, 6);
  to.set(value.viaMac, at + 190);
  to.writeUInt8(checkInteger('xmasq_flow.peer_key', value.peerKey, 0, 255), at + 196);
  to.writeUInt8(checkInteger('xmasq_flow.own_key', value.ownKey, 0, 255), at + 197);
  to.writeUInt8(checkInteger('xmasq_flow.ttl', value.ttl, 0, 255), at + 198);
  to.writeUInt8(checkInteger('xmasq_flow.tos', value.tos, 0, 255), at + 199);
  to.writeUInt8(checkInteger('xmasq_flow.blocked', value.blocked, 0, 255), at + 200);
  to.writeUInt8(checkInteger('xmasq_flow.reject_key', value.rejectKey, 0, 255), at + 201);
  to.writeUInt8(checkInteger('xmasq_flow.reject_level', value.rejectLevel, 0, 255), at + 202);
  to.writeUInt8(checkInteger('xmasq_flow.hole_level', value.holeLevel, 0, 255), at + 203);
  to.writeUInt8(checkInteger('xmasq_flow.proto', value.proto, 0, 255), at + 204);
  to.writeUInt8(checkInteger('xmasq_flow.out_ttl', value.outTtl, 0, 255), at + 205);
  to.writeUInt32LE(checkInteger('xmasq_flow.mtu', value.mtu, 0, 4294967295), at + 208);
  to.writeUInt32LE(checkInteger('xmasq_flow.gen2', value.gen2, 0, 4294967295), at + 212);
}
function readFlow(from: Buffer, at: number): Flow {
  return {
    gen: from.readUInt32LE(at),
    flags: from.readUInt32LE(at + 4),
    txPackets: from.readBigUInt64LE(at + 8),
    txBytes: from.readBigUInt64LE(at + 16),
    slowPackets: from.readBigUInt64LE(at + 24),
    admittedAt: from.readBigUInt64LE(at + 32),
    lastTx: from.readBigUInt64LE(at + 40),
    lastRxSlow: from.readBigUInt64LE(at + 48),
    verifyAt: from.readBigUInt64LE(at + 56),
    recheckAt: from.readBigUInt64LE(at + 64),
    fastSince: from.readBigUInt64LE(at + 72),
    unansweredSince: from.readBigUInt64LE(at + 80),
    unansweredTx: from.readBigUInt64LE(at + 88),
    holeUntil: from.readBigUInt64LE(at + 96),
    rejectUntil: from.readBigUInt64LE(at + 104),
    deviatingSince: from.readBigUInt64LE(at + 112),
    csumDiff: from.readUInt32LE(at + 120),
    ipSum: from.readUInt32LE(at + 124),
    endpoint: from.readUInt32LE(at + 128),
    endpointEpoch: from.readUInt32LE(at + 132),
    peer: from.readUInt32LE(at + 136),
    peerEpoch: from.readUInt32LE(at + 140),
    slotGen: from.readUInt32LE(at + 144),
    outIfindex: from.readUInt32LE(at + 148),
    nodeSaddr: from.readUInt32BE(at + 152),
    nodeDaddr: from.readUInt32BE(at + 156),
    out: readTuple(from, at + 160),
    smac: Uint8Array.from(from.subarray(at + 172, at + 172 + 6)),
    dmac: Uint8Array.from(from.subarray(at + 178, at + 178 + 6)),
    podMac: Uint8Array.from(from.subarray(at + 184, at + 184 + 6)),
    viaMac: Uint8Array.from(from.subarray(at + 190, at + 190 + 6)),
    peerKey: from.readUInt8(at + 196),
    ownKey: from.readUInt8(at + 197),
    ttl: from.readUInt8(at + 198),
    tos: from.readUInt8(at + 199),
    blocked: from.readUInt8(at + 200),
    rejectKey: from.readUInt8(at + 201),
    rejectLevel: from.readUInt8(at + 202),
    holeLevel: from.readUInt8(at + 203),
    proto: from.readUInt8(at + 204),
    outTtl: from.readUInt8(at + 205),
    mtu: from.readUInt32LE(at + 208),
    gen2: from.readUInt32LE(at + 212),
  };
}
/** struct xmasq_flow, 216 bytes. */
export const flowCodec: Codec<Flow> = makeCodec('xmasq_flow', 216, writeFlow, readFlow);

/** struct xmasq_named, 80 bytes. */
export interface Named {
  /** u32, offset 0. */
  readonly configFlag: number;
  /** u32, offset 4. */
  readonly endpointFlag: number;
  /** u32, offset 8. */
  readonly peerFlag: number;
  /** u32, offset 12. */
  readonly destKind: number;
  /** u32, offset 16. */
  readonly flowFlag: number;
  /** u32, offset 20. */
  readonly slotState: number;
  /** u32, offset 24. */
  readonly slotFlag: number;
  /** u32, offset 28. */
  readonly reason: number;
  /** u32, offset 32. */
  readonly counter: number;
  /** u32, offset 36. */
  readonly eventType: number;
  /** struct xmasq_event, offset 40. */
  readonly event: Event;
}
function writeNamed(to: Buffer, at: number, value: Named): void {
  to.writeUInt32LE(checkInteger('xmasq_named.config_flag', value.configFlag, 0, 4294967295), at);
  to.writeUInt32LE(checkInteger('xmasq_named.endpoint_flag', value.endpointFlag, 0, 4294967295), at + 4);
  to.writeUInt32LE(checkInteger('xmasq_named.peer_flag', value.peerFlag, 0, 4294967295), at + 8);
  to.writeUInt32LE(checkInteger('xmasq_named.dest_kind', value.destKind, 0, 4294967295), at + 12);
  to.writeUInt32LE(checkInteger('xmasq_named.flow_flag', value.flowFlag, 0, 4294967295), at + 16);
  to.writeUInt32LE(checkInteger('xmasq_named.slot_state', value.slotState, 0, 4294967295), at + 20);
  to.writeUInt32LE(checkInteger('xmasq_named.slot_flag', value.slotFlag, 0, 4294967295), at + 24);
  to.writeUInt32LE(checkInteger('xmasq_named.reason', value.reason, 0, 4294967295), at + 28);
  to.writeUInt32LE(checkInteger('xmasq_named.counter', value.counter, 0, 4294967295), at + 32);
  to.writeUInt32LE(checkInteger('xmasq_named.event_type', value.eventType, 0, 4294967295), at + 36);
  writeEvent(to, at + 40, value.event);
}
function readNamed(from: Buffer, at: number): Named {
  return {
    configFlag: from.readUInt32LE(at),
    endpointFlag: from.readUInt32LE(at + 4),
    peerFlag: from.readUInt32LE(at + 8),
    destKind: from.readUInt32LE(at + 12),
    flowFlag: from.readUInt32LE(at + 16),
    slotState: from.readUInt32LE(at + 20),
    slotFlag: from.readUInt32LE(at + 24),
    reason: from.readUInt32LE(at + 28),
    counter: from.readUInt32LE(at + 32),
    eventType: from.readUInt32LE(at + 36),
    event: readEvent(from, at + 40),
  };
}
/** struct xmasq_named, 80 bytes. */
export const namedCodec: Codec<Named> = makeCodec('xmasq_named', 80, writeNamed, readNamed);

/** struct xmasq_peer, 16 bytes. */
export interface Peer {
  /** u32, network byte order in C, offset 0. */
  readonly addr4: number;
  /** u32, offset 4. */
  readonly flags: number;
  /** u32, offset 8. */
  readonly epoch: number;
}
function writePeer(to: Buffer, at: number, value: Peer): void {
  to.writeUInt32BE(checkInteger('xmasq_peer.addr4', value.addr4, 0, 4294967295), at);
  to.writeUInt32LE(checkInteger('xmasq_peer.flags', value.flags, 0, 4294967295), at + 4);
  to.writeUInt32LE(checkInteger('xmasq_peer.epoch', value.epoch, 0, 4294967295), at + 8);
}
function readPeer(from: Buffer, at: number): Peer {
  return {
    addr4: from.readUInt32BE(at),
    flags: from.readUInt32LE(at + 4),
    epoch: from.readUInt32LE(at + 8),
  };
}
/** struct xmasq_peer, 16 bytes. */
export const peerCodec: Codec<Peer> = makeCodec('xmasq_peer', 16, writePeer, readPeer);

/** struct xmasq_peer_state, 32 bytes. */
export interface PeerState {
  /** u64, offset 0. */
  readonly lastLife: bigint;
  /** u64, offset 8. */
  readonly lastConfirmed: bigint;
  /** u64, offset 16. */
  readonly rejectWindow: bigint;
  /** u64, offset 24. */
  readonly rejectCount: bigint;
}
function writePeerState(to: Buffer, at: number, value: PeerState): void {
  to.writeBigUInt64LE(checkBigInteger('xmasq_peer_state.last_life', value.lastLife, 0n, 18446744073709551615n), at);
  to.writeBigUInt64LE(
    checkBigInteger('xmasq_peer_state.last_confirmed', value.lastConfirmed, 0n, 18446744073709551615n),
    at + 8,
  );
  to.writeBigUInt64LE(
    checkBigInteger('xmasq_peer_state.reject_window', value.rejectWindow, 0n, 18446744073709551615n),
    at + 16,
  );
  to.writeBigUInt64LE(
    checkBigInteger('xmasq_peer_state.reject_count', value.rejectCount, 0n, 18446744073709551615n),
    at + 24,
  );
}
function readPeerState(from: Buffer, at: number): PeerState {
  return {
    lastLife: from.readBigUInt64LE(at),
    lastConfirmed: from.readBigUInt64LE(at + 8),
    rejectWindow: from.readBigUInt64LE(at + 16),
    rejectCount: from.readBigUInt64LE(at + 24),
  };
}
/** struct xmasq_peer_state, 32 bytes. */
export const peerStateCodec: Codec<PeerState> = makeCodec('xmasq_peer_state', 32, writePeerState, readPeerState);

/** struct xmasq_prefix4, 8 bytes. */
export interface Prefix4 {
  /** u32, offset 0. */
  readonly prefixlen: number;
  /** u32, network byte order in C, offset 4. */
  readonly addr: number;
}
function writePrefix4(to: Buffer, at: number, value: Prefix4): void {
  to.writeUInt32LE(checkInteger('xmasq_prefix4.prefixlen', value.prefixlen, 0, 4294967295), at);
  to.writeUInt32BE(checkInteger('xmasq_prefix4.addr', value.addr, 0, 4294967295), at + 4);
}
function readPrefix4(from: Buffer, at: number): Prefix4 {
  return {
    prefixlen: from.readUInt32LE(at),
    addr: from.readUInt32BE(at + 4),
  };
}
/** struct xmasq_prefix4, 8 bytes. */
export const prefix4Codec: Codec<Prefix4> = makeCodec('xmasq_prefix4', 8, writePrefix4, readPrefix4);

/** struct xmasq_refusal, 32 bytes. */
export interface Refusal {
  /** u64, offset 0. */
  readonly until: bigint;
  /** u64, offset 8. */
  readonly backoff: bigint;
  /** u64, offset 16. */
  readonly packets: bigint;
  /** u32, offset 24. */
  readonly tries: number;
  /** u32, offset 28. */
  readonly reason: number;
}
function writeRefusal(to: Buffer, at: number, value: Refusal): void {
  to.writeBigUInt64LE(checkBigInteger('xmasq_refusal.until', value.until, 0n, 18446744073709551615n), at);
  to.writeBigUInt64LE(checkBigInteger('xmasq_refusal.backoff', value.backoff, 0n, 18446744073709551615n), at + 8);
  to.writeBigUInt64LE(checkBigInteger('xmasq_refusal.packets', value.packets, 0n, 18446744073709551615n), at + 16);
  to.writeUInt32LE(checkInteger('xmasq_refusal.tries', value.tries, 0, 4294967295), at + 24);
  to.writeUInt32LE(checkInteger('xmasq_refusal.reason', value.reason, 0, 4294967295), at + 28);
}
function readRefusal(from: Buffer, at: number): Refusal {
  return {
    until: from.readBigUInt64LE(at),
    backoff: from.readBigUInt64LE(at + 8),
    packets: from.readBigUInt64LE(at + 16),
    tries: from.readUInt32LE(at + 24),
    reason: from.readUInt32LE(at + 28),
  };
}
/** struct xmasq_refusal, 32 bytes. */
export const refusalCodec: Codec<Refusal> = makeCodec('xmasq_refusal', 32, writeRefusal, readRefusal);

/** struct xmasq_slot, 120 bytes. */
export interface Slot {
  /** u32, offset 0. */
  readonly gen: number;
  /** u32, offset 4. */
  readonly lock: number;
  /** u64, offset 8. */
  readonly rxPackets: bigint;
  /** u64, offset 16. */
  readonly rxBytes: bigint;
  /** u64, offset 24. */
  readonly lastRx: bigint;
  /** u64, offset 32. */
  readonly recheckAt: bigint;
  /** u64, offset 40. */
  readonly freedAt: bigint;
  /** u64, offset 48. */
  readonly ackAt: bigint;
  /** u64, offset 56. */
  readonly ackedTx: bigint;
  /** u32, network byte order in C, offset 64. */
  readonly saddr: number;
  /** u32, network byte order in C, offset 68. */
  readonly daddr: number;
  /** u32, network byte order in C, offset 72. */
  readonly pod: number;
  /** u32, offset 76. */
  readonly ifindex: number;
  /** u32, offset 80. */
  readonly endpoint: number;
  /** u32, offset 84. */
  readonly endpointEpoch: number;
  /** u32, offset 88. */
  readonly peer: number;
  /** u32, offset 92. */
  readonly peerEpoch: number;
  /** u32, offset 96. */
  readonly csumDiff: number;
  /** 6 bytes, offset 100. */
  readonly smac: Uint8Array;
  /** 6 bytes, offset 106. */
  readonly dmac: Uint8Array;
  /** u8, offset 112. */
  readonly key: number;
  /** u8, offset 113. */
  readonly state: number;
  /** u8, offset 114. */
  readonly flags: number;
  /** u8, offset 115. */
  readonly ttl: number;
  /** u8, offset 116. */
  readonly tos: number;
  /** u16, network byte order in C, offset 118. */
  readonly sport: number;
}
function writeSlot(to: Buffer, at: number, value: Slot): void {
  to.writeUInt32LE(checkInteger('xmasq_slot.gen', value.gen, 0, 4294967295), at);
  to.writeUInt32LE(checkInteger('xmasq_slot.lock', value.lock, 0, 4294967295), at + 4);
  to.writeBigUInt64LE(checkBigInteger('xmasq_slot.rx_packets', value.rxPackets, 0n, 18446744073709551615n), at + 8);
  to.writeBigUInt64LE(checkBigInteger('xmasq_slot.rx_bytes', value.rxBytes, 0n, 18446744073709551615n), at + 16);
  to.writeBigUInt64LE(checkBigInteger('xmasq_slot.last_rx', value.lastRx, 0n, 18446744073709551615n), at + 24);
  to.writeBigUInt64LE(checkBigInteger('xmasq_slot.recheck_at', value.recheckAt, 0n, 18446744073709551615n), at + 32);
  to.writeBigUInt64LE(checkBigInteger('xmasq_slot.freed_at', value.freedAt, 0n, 18446744073709551615n), at + 40);
  to.writeBigUInt64LE(checkBigInteger('xmasq_slot.ack_at', value.ackAt, 0n, 18446744073709551615n), at + 48);
  to.writeBigUInt64LE(checkBigInteger('xmasq_slot.acked_tx', value.ackedTx, 0n, 18446744073709551615n), at + 56);
  to.writeUInt32BE(checkInteger('xmasq_slot.saddr', value.saddr, 0, 4294967295), at + 64);
  to.writeUInt32BE(checkInteger('xmasq_slot.daddr', value.daddr, 0, 4294967295), at + 68);
  to.writeUInt32BE(checkInteger('xmasq_slot.pod', value.pod, 0, 4294967295), at + 72);
  to.writeUInt32LE(checkInteger('xmasq_slot.ifindex', value.ifindex, 0, 4294967295), at + 76);
  to.writeUInt32LE(checkInteger('xmasq_slot.endpoint', value.endpoint, 0, 4294967295), at + 80);
  to.writeUInt32LE(checkInteger('xmasq_slot.endpoint_epoch', value.endpointEpoch, 0, 4294967295), at + 84);
  to.writeUInt32LE(checkInteger('xmasq_slot.peer', value.peer, 0, 4294967295), at + 88);
  to.writeUInt32LE(checkInteger('xmasq_slot.peer_epoch', value.peerEpoch, 0, 4294967295), at + 92);
  to.writeUInt32LE(checkInteger('xmasq_slot.csum_diff', value.csumDiff, 0, 4294967295), at + 96);
  checkLength('xmasq_slot.smac', value.smac, 6);
  to.set(value.smac, at + 100);
  checkLength('xmasq_slot.dmac', value.dmac, 6);
  to.set(value.dmac, at + 106);
  to.writeUInt8(checkInteger('xmasq_slot.key', value.key, 0, 255), at + 112);
  to.writeUInt8(checkInteger('xmasq_slot.state', value.state, 0, 255), at + 113);
  to.writeUInt8(checkInteger('xmasq_slot.flags', value.flags, 0, 255), at + 114);
  to.writeUInt8(checkInteger('xmasq_slot.ttl', value.ttl, 0, 255), at + 115);
  to.writeUInt8(checkInteger('xmasq_slot.tos', value.tos, 0, 255), at + 116);
  to.writeUInt16BE(checkInteger('xmasq_slot.sport', value.sport, 0, 65535), at + 118);
}
function readSlot(from: Buffer, at: number): Slot {
  return {
    gen: from.readUInt32LE(at),
    lock: from.readUInt32LE(at + 4),
    rxPackets: from.readBigUInt64LE(at + 8),
    rxBytes: from.readBigUInt64LE(at + 16),
    lastRx: from.readBigUInt64LE(at + 24),
    recheckAt: from.readBigUInt64LE(at + 32),
    freedAt: from.readBigUInt64LE(at + 40),
    ackAt: from.readBigUInt64LE(at + 48),
    ackedTx: from.readBigUInt64LE(at + 56),
    saddr: from.readUInt32BE(at + 64),
    daddr: from.readUInt32BE(at + 68),
    pod: from.readUInt32BE(at + 72),
    ifindex: from.readUInt32LE(at + 76),
    endpoint: from.readUInt32LE(at + 80),
    endpointEpoch: from.readUInt32LE(at + 84),
    peer: from.readUInt32LE(at + 88),
    peerEpoch: from.readUInt32LE(at + 92),
    csumDiff: from.readUInt32LE(at + 96),
    smac: Uint8Array.from(from.subarray(at + 100, at + 100 + 6)),
    dmac: Uint8Array.from(from.subarray(at + 106, at + 106 + 6)),
    key: from.readUInt8(at + 112),
    state: from.readUInt8(at + 113),
    flags: from.readUInt8(at + 114),
    ttl: from.readUInt8(at + 115),
    tos: from.readUInt8(at + 116),
    sport: from.readUInt16BE(at + 118),
  };
}
/** struct xmasq_slot, 120 bytes. */
export const slotCodec: Codec<Slot> = makeCodec('xmasq_slot', 120, writeSlot, readSlot);

/** struct xmasq_scratch, 416 bytes. */
export interface Scratch {
  /** struct xmasq_flow, offset 0. */
  readonly flow: Flow;
  /** struct xmasq_slot, offset 216. */
  readonly slot: Slot;
  /** struct xmasq_named, offset 336. */
  readonly named: Named;
}
function writeScratch(to: Buffer, at: number, value: Scratch): void {
  writeFlow(to, at, value.flow);
  writeSlot(to, at + 216, value.slot);
  writeNamed(to, at + 336, value.named);
}
function readScratch(from: Buffer, at: number): Scratch {
  return {
    flow: readFlow(from, at),
    slot: readSlot(from, at + 216),
    named: readNamed(from, at + 336),
  };
}
/** struct xmasq_scratch, 416 bytes. */
export const scratchCodec: Codec<Scratch> = makeCodec('xmasq_scratch', 416, writeScratch, readScratch);

/** struct xmasq_slot_key, 12 bytes. */
export interface SlotKey {
  /** u32, network byte order in C, offset 0. */
  readonly peer: number;
  /** u16, network byte order in C, offset 4. */
  readonly sport: number;
  /** u16, network byte order in C, offset 6. */
  readonly dport: number;
  /** u8, offset 8. */
  readonly proto: number;
}
function writeSlotKey(to: Buffer, at: number, value: SlotKey): void {
  to.writeUInt32BE(checkInteger('xmasq_slot_key.peer', value.peer, 0, 4294967295), at);
  to.writeUInt16BE(checkInteger('xmasq_slot_key.sport', value.sport, 0, 65535), at + 4);
  to.writeUInt16BE(checkInteger('xmasq_slot_key.dport', value.dport, 0, 65535), at + 6);
  to.writeUInt8(checkInteger('xmasq_slot_key.proto', value.proto, 0, 255), at + 8);
}
function readSlotKey(from: Buffer, at: number): SlotKey {
  return {
    peer: from.readUInt32BE(at),
    sport: from.readUInt16BE(at + 4),
    dport: from.readUInt16BE(at + 6),
    proto: from.readUInt8(at + 8),
  };
}
/** struct xmasq_slot_key, 12 bytes. */
export const slotKeyCodec: Codec<SlotKey> = makeCodec('xmasq_slot_key', 12, writeSlotKey, readSlotKey);

/** The maps with their codecs; type is enum bpf_map_type, maxEntries is bytes for ring buffers. */
export const maps = {
  approvals: {
    name: 'approvals',
    type: 1,
    maxEntries: 65536,
    key: flowKeyCodec,
    value: approvalCodec,
  },
  config: {
    name: 'config',
    type: 2,
    maxEntries: 1,
    key: u32Codec,
    value: configCodec,
  },
  counters: {
    name: 'counters',
    type: 6,
    maxEntries: 31,
    key: u32Codec,
    value: u64Codec,
  },
  destinations: {
    name: 'destinations',
    type: 11,
    maxEntries: 32768,
    key: prefix4Codec,
    value: destinationCodec,
  },
  endpoint_by_addr: {
    name: 'endpoint_by_addr',
    type: 1,
    maxEntries: 1024,
    key: addr4Codec,
    value: u32Codec,
  },
  endpoint_by_ifindex: {
    name: 'endpoint_by_ifindex',
    type: 1,
    maxEntries: 1024,
    key: u32Codec,
    value: u32Codec,
  },
  endpoints: {
    name: 'endpoints',
    type: 2,
    maxEntries: 1024,
    key: u32Codec,
    value: endpointCodec,
  },
  events: {
    name: 'events',
    type: 27,
    maxEntries: 262144,
    key: undefined,
    value: undefined,
  },
  flows: {
    name: 'flows',
    type: 1,
    maxEntries: 65536,
    key: flowKeyCodec,
    value: flowCodec,
  },
  peer_by_addr: {
    name: 'peer_by_addr',
    type: 1,
    maxEntries: 8192,
    key: addr4Codec,
    value: u32Codec,
  },
  peer_state: {
    name: 'peer_state',
    type: 2,
    maxEntries: 8192,
    key: u32Codec,
    value: peerStateCodec,
  },
  peers: {
    name: 'peers',
    type: 2,
    maxEntries: 8192,
    key: u32Codec,
    value: peerCodec,
  },
  reasons: {
    name: 'reasons',
    type: 6,
    maxEntries: 57,
    key: u32Codec,
    value: u64Codec,
  },
  refusals: {
    name: 'refusals',
    type: 9,
    maxEntries: 65536,
    key: flowKeyCodec,
    value: refusalCodec,
  },
  scratch: {
    name: 'scratch',
    type: 6,
    maxEntries: 1,
    key: u32Codec,
    value: scratchCodec,
  },
  slots: {
    name: 'slots',
    type: 1,
    maxEntries: 131072,
    key: slotKeyCodec,
    value: slotCodec,
  },
} as const;
