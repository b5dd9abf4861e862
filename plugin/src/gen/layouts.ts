// Generated from the BTF of the BPF objects by scripts/gen-layouts.ts. Do not edit.
import { addressCodec, readAddress, writeAddress } from '../bpf/address.ts';
import { checkBigInteger, checkInteger, checkLength, makeCodec, u32Codec, u64Codec, type Codec } from '../bpf/codec.ts';

/** Identifies these layouts: equal exactly if structs, enums and maps are. */
export const LAYOUT_HASH = 'a1a9468dea053458';

/** enum xmasq_config_flag. */
export const ConfigFlag = {
  ADMIT: 1,
  SEND: 2,
  CT_LOOKUP: 4,
  MASQUERADE: 8,
  PROBE: 16,
  ENCAP: 32,
  DIRECT: 64,
} as const;
/** A value of enum xmasq_config_flag. */
export type ConfigFlag = (typeof ConfigFlag)[keyof typeof ConfigFlag];
/** Value of enum xmasq_config_flag -> name, lower case; without the mark of the end. */
export const configFlagNames: Readonly<Record<number, string>> = {
  [1]: 'admit',
  [2]: 'send',
  [4]: 'ct_lookup',
  [8]: 'masquerade',
  [16]: 'probe',
  [32]: 'encap',
  [64]: 'direct',
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
  FAST_ENCAP: 28,
  FAST_DIRECT: 29,
  RESTORED_XDP: 30,
  DECAPSULATED: 31,
  DIRECT_RX: 32,
  TX_LEARNED: 33,
  PROBE_SENT: 34,
  PROBE_RECEIVED: 35,
  PROBE_ANSWERED: 36,
  PATH_CHANGED: 37,
  ICMP_ERROR: 38,
  ICMP_ERROR_IGNORED: 39,
  EVENT_LOST: 40,
  COUNT: 41,
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
  [28]: 'fast_encap',
  [29]: 'fast_direct',
  [30]: 'restored_xdp',
  [31]: 'decapsulated',
  [32]: 'direct_rx',
  [33]: 'tx_learned',
  [34]: 'probe_sent',
  [35]: 'probe_received',
  [36]: 'probe_answered',
  [37]: 'path_changed',
  [38]: 'icmp_error',
  [39]: 'icmp_error_ignored',
  [40]: 'event_lost',
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
  PATH_CHANGED: 9,
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
  [9]: 'path_changed',
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
  KEYED: 128,
  DIRECT: 256,
  RX_LEARNED: 512,
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
  [128]: 'keyed',
  [256]: 'direct',
  [512]: 'rx_learned',
};

/** enum xmasq_mode. */
export const Mode = {
  SLOW: 0,
  LOCAL: 1,
  MASQUERADE: 2,
  ENCAP: 3,
  DIRECT: 4,
} as const;
/** A value of enum xmasq_mode. */
export type Mode = (typeof Mode)[keyof typeof Mode];
/** Value of enum xmasq_mode -> name, lower case; without the mark of the end. */
export const modeNames: Readonly<Record<number, string>> = {
  [0]: 'slow',
  [1]: 'local',
  [2]: 'masquerade',
  [3]: 'encap',
  [4]: 'direct',
};

/** enum xmasq_path_class. */
export const PathClass = {
  TCP: 0,
  UDP: 1,
  OTHER: 2,
  CLASSES: 3,
} as const;
/** A value of enum xmasq_path_class. */
export type PathClass = (typeof PathClass)[keyof typeof PathClass];
/** Value of enum xmasq_path_class -> name, lower case; without the mark of the end. */
export const pathClassNames: Readonly<Record<number, string>> = {
  [0]: 'tcp',
  [1]: 'udp',
  [2]: 'other',
  [3]: 'classes',
};

/** enum xmasq_peer_flag. */
export const PeerFlag = {
  PRESENT: 1,
  CAPABLE: 2,
  DIRECT4: 4,
  DIRECT6: 8,
} as const;
/** A value of enum xmasq_peer_flag. */
export type PeerFlag = (typeof PeerFlag)[keyof typeof PeerFlag];
/** Value of enum xmasq_peer_flag -> name, lower case; without the mark of the end. */
export const peerFlagNames: Readonly<Record<number, string>> = {
  [1]: 'present',
  [2]: 'capable',
  [4]: 'direct4',
  [8]: 'direct6',
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
  TUNNEL_CHECKSUM: 17,
  UNKNOWN_ENDPOINT: 18,
  SPOOF: 19,
  NOT_POD: 20,
  PEER_NOT_CAPABLE: 21,
  DRAINING: 22,
  TRAFFIC_CONTROL: 23,
  BANDWIDTH: 24,
  PACKET_CAPTURE: 25,
  ANTREA_IPAM: 26,
  POD_VLAN: 27,
  FEATURE_GATE: 28,
  ENCAP_MODE: 29,
  ENCRYPTION: 30,
  TUNNEL_TYPE: 31,
  BRIDGING: 32,
  MULTICLUSTER: 33,
  HW_OFFLOAD: 34,
  FLOW_RESTORE: 35,
  CT_MISSING: 36,
  CT_UNCONFIRMED: 37,
  CT_UNREPLIED: 38,
  CT_STATE: 39,
  CT_NOT_ALLOWED: 40,
  CT_SOURCE: 41,
  CT_SNAT: 42,
  CT_HAIRPIN: 43,
  CT_L7: 44,
  CT_SERVICE: 45,
  CT_STATUS: 46,
  NO_APPROVAL: 47,
  SLOT_TAKEN: 48,
  SLOT_RECENT: 49,
  MAP_FULL: 50,
  KEY_EXCHANGE: 51,
  KEY_REJECTED: 52,
  PEER_SILENT: 53,
  BLACK_HOLE: 54,
  UNPROVEN: 55,
  MODE: 56,
  NO_NEIGHBOUR: 57,
  CLOSED: 58,
  STALE: 59,
  YOUNG: 60,
  COUNT: 61,
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
  [17]: 'tunnel_checksum',
  [18]: 'unknown_endpoint',
  [19]: 'spoof',
  [20]: 'not_pod',
  [21]: 'peer_not_capable',
  [22]: 'draining',
  [23]: 'traffic_control',
  [24]: 'bandwidth',
  [25]: 'packet_capture',
  [26]: 'antrea_ipam',
  [27]: 'pod_vlan',
  [28]: 'feature_gate',
  [29]: 'encap_mode',
  [30]: 'encryption',
  [31]: 'tunnel_type',
  [32]: 'bridging',
  [33]: 'multicluster',
  [34]: 'hw_offload',
  [35]: 'flow_restore',
  [36]: 'ct_missing',
  [37]: 'ct_unconfirmed',
  [38]: 'ct_unreplied',
  [39]: 'ct_state',
  [40]: 'ct_not_allowed',
  [41]: 'ct_source',
  [42]: 'ct_snat',
  [43]: 'ct_hairpin',
  [44]: 'ct_l7',
  [45]: 'ct_service',
  [46]: 'ct_status',
  [47]: 'no_approval',
  [48]: 'slot_taken',
  [49]: 'slot_recent',
  [50]: 'map_full',
  [51]: 'key_exchange',
  [52]: 'key_rejected',
  [53]: 'peer_silent',
  [54]: 'black_hole',
  [55]: 'unproven',
  [56]: 'mode',
  [57]: 'no_neighbour',
  [58]: 'closed',
  [59]: 'stale',
  [60]: 'young',
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

/** struct xmasq_config, 88 bytes. */
export interface Config {
  /** u32, offset 0. */
  readonly layoutVersion: number;
  /** u32, offset 4. */
  readonly flags: number;
  /** 4 of u32, offset 8. */
  readonly magic: readonly number[];
  /** u64, offset 24. */
  readonly stateSince: bigint;
  /** IPv4 or IPv6 address as text, empty: none, offset 32. */
  readonly uplinkAddr4: string;
  /** IPv4 or IPv6 address as text, empty: none, offset 48. */
  readonly uplinkAddr6: string;
  /** u32, offset 64. */
  readonly uplinkIfindex4: number;
  /** u32, offset 68. */
  readonly uplinkIfindex6: number;
  /** u32, offset 72. */
  readonly hz: number;
  /** u16, offset 76. */
  readonly ctZone4: number;
  /** u16, offset 78. */
  readonly ctZone6: number;
  /** u16, network byte order in C, offset 80. */
  readonly tunnelPort: number;
  /** u8, offset 82. */
  readonly excludedLocal: number;
  /** u8, offset 83. */
  readonly excludedRemote: number;
  /** u8, offset 84. */
  readonly paused: number;
  /** u16, offset 86. */
  readonly xdpVlan: number;
}
function writeConfig(to: Buffer, at: number, value: Config): void {
  to.writeUInt32LE(checkInteger('xmasq_config.layout_version', value.layoutVersion, 0, 4294967295), at);
  to.writeUInt32LE(checkInteger('xmasq_config.flags', value.flags, 0, 4294967295), at + 4);
  checkLength('xmasq_config.magic', value.magic, 4);
  value.magic.forEach((e0, i0) => {
    to.writeUInt32LE(checkInteger('xmasq_config.magic', e0, 0, 4294967295), at + 8 + 4 * i0);
  });
  to.writeBigUInt64LE(
    checkBigInteger('xmasq_config.state_since', value.stateSince, 0n, 18446744073709551615n),
    at + 24,
  );
  writeAddress(to, at + 32, 'xmasq_config.uplink_addr4', value.uplinkAddr4);
  writeAddress(to, at + 48, 'xmasq_config.uplink_addr6', value.uplinkAddr6);
  to.writeUInt32LE(checkInteger('xmasq_config.uplink_ifindex4', value.uplinkIfindex4, 0, 4294967295), at + 64);
  to.writeUInt32LE(checkInteger('xmasq_config.uplink_ifindex6', value.uplinkIfindex6, 0, 4294967295), at + 68);
  to.writeUInt32LE(checkInteger('xmasq_config.hz', value.hz, 0, 4294967295), at + 72);
  to.writeUInt16LE(checkInteger('xmasq_config.ct_zone4', value.ctZone4, 0, 65535), at + 76);
  to.writeUInt16LE(checkInteger('xmasq_config.ct_zone6', value.ctZone6, 0, 65535), at + 78);
  to.writeUInt16BE(checkInteger('xmasq_config.tunnel_port', value.tunnelPort, 0, 65535), at + 80);
  to.writeUInt8(checkInteger('xmasq_config.excluded_local', value.excludedLocal, 0, 255), at + 82);
  to.writeUInt8(checkInteger('xmasq_config.excluded_remote', value.excludedRemote, 0, 255), at + 83);
  to.writeUInt8(checkInteger('xmasq_config.paused', value.paused, 0, 255), at + 84);
  to.writeUInt16LE(checkInteger('xmasq_config.xdp_vlan', value.xdpVlan, 0, 65535), at + 86);
}
function readConfig(from: Buffer, at: number): Config {
  return {
    layoutVersion: from.readUInt32LE(at),
    flags: from.readUInt32LE(at + 4),
    magic: Array.from({ length: 4 }, (_, i0) => from.readUInt32LE(at + 8 + 4 * i0)),
    stateSince: from.readBigUInt64LE(at + 24),
    uplinkAddr4: readAddress(from, at + 32),
    uplinkAddr6: readAddress(from, at + 48),
    uplinkIfindex4: from.readUInt32LE(at + 64),
    uplinkIfindex6: from.readUInt32LE(at + 68),
    hz: from.readUInt32LE(at + 72),
    ctZone4: from.readUInt16LE(at + 76),
    ctZone6: from.readUInt16LE(at + 78),
    tunnelPort: from.readUInt16BE(at + 80),
    excludedLocal: from.readUInt8(at + 82),
    excludedRemote: from.readUInt8(at + 83),
    paused: from.readUInt8(at + 84),
    xdpVlan: from.readUInt16LE(at + 86),
  };
}
/** struct xmasq_config, 88 bytes. */
export const configCodec: Codec<Config> = makeCodec('xmasq_config', 88, writeConfig, readConfig);

/** struct xmasq_delivery, 40 bytes. */
export interface Delivery {
  /** IPv4 or IPv6 address as text, empty: none, offset 0. */
  readonly saddr: string;
  /** u16, network byte order in C, offset 16. */
  readonly sport: number;
  /** 12 bytes, offset 18. */
  readonly macs: Uint8Array;
  /** u8, offset 30. */
  readonly ttl: number;
  /** u8, offset 31. */
  readonly tos: number;
  /** u8, offset 32. */
  readonly keyRead: number;
  /** u32, offset 36. */
  readonly ifindex: number;
}
function writeDelivery(to: Buffer, at: number, value: Delivery): void {
  writeAddress(to, at, 'xmasq_delivery.saddr', value.saddr);
  to.writeUInt16BE(checkInteger('xmasq_delivery.sport', value.sport, 0, 65535), at + 16);
  checkLength('xmasq_delivery.macs', value.macs, 12);
  to.set(value.macs, at + 18);
  to.writeUInt8(checkInteger('xmasq_delivery.ttl', value.ttl, 0, 255), at + 30);
  to.writeUInt8(checkInteger('xmasq_delivery.tos', value.tos, 0, 255), at + 31);
  to.writeUInt8(checkInteger('xmasq_delivery.key_read', value.keyRead, 0, 255), at + 32);
  to.writeUInt32LE(checkInteger('xmasq_delivery.ifindex', value.ifindex, 0, 4294967295), at + 36);
}
function readDelivery(from: Buffer, at: number): Delivery {
  return {
    saddr: readAddress(from, at),
    sport: from.readUInt16BE(at + 16),
    macs: Uint8Array.from(from.subarray(at + 18, at + 18 + 12)),
    ttl: from.readUInt8(at + 30),
    tos: from.readUInt8(at + 31),
    keyRead: from.readUInt8(at + 32),
    ifindex: from.readUInt32LE(at + 36),
  };
}
/** struct xmasq_delivery, 40 bytes. */
export const deliveryCodec: Codec<Delivery> = makeCodec('xmasq_delivery', 40, writeDelivery, readDelivery);

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

/** struct xmasq_endpoint, 52 bytes. */
export interface Endpoint {
  /** IPv4 or IPv6 address as text, empty: none, offset 0. */
  readonly addr4: string;
  /** IPv4 or IPv6 address as text, empty: none, offset 16. */
  readonly addr6: string;
  /** u32, offset 32. */
  readonly ifindex: number;
  /** u32, offset 36. */
  readonly flags: number;
  /** u32, offset 40. */
  readonly epoch: number;
  /** 6 bytes, offset 44. */
  readonly mac: Uint8Array;
  /** u8, offset 50. */
  readonly excluded: number;
}
function writeEndpoint(to: Buffer, at: number, value: Endpoint): void {
  writeAddress(to, at, 'xmasq_endpoint.addr4', value.addr4);
  writeAddress(to, at + 16, 'xmasq_endpoint.addr6', value.addr6);
  to.writeUInt32LE(checkInteger('xmasq_endpoint.ifindex', value.ifindex, 0, 4294967295), at + 32);
  to.writeUInt32LE(checkInteger('xmasq_endpoint.flags', value.flags, 0, 4294967295), at + 36);
  to.writeUInt32LE(checkInteger('xmasq_endpoint.epoch', value.epoch, 0, 4294967295), at + 40);
  checkLength('xmasq_endpoint.mac', value.mac, 6);
  to.set(value.mac, at + 44);
  to.writeUInt8(checkInteger('xmasq_endpoint.excluded', value.excluded, 0, 255), at + 50);
}
function readEndpoint(from: Buffer, at: number): Endpoint {
  return {
    addr4: readAddress(from, at),
    addr6: readAddress(from, at + 16),
    ifindex: from.readUInt32LE(at + 32),
    flags: from.readUInt32LE(at + 36),
    epoch: from.readUInt32LE(at + 40),
    mac: Uint8Array.from(from.subarray(at + 44, at + 44 + 6)),
    excluded: from.readUInt8(at + 50),
  };
}
/** struct xmasq_endpoint, 52 bytes. */
export const endpointCodec: Codec<Endpoint> = makeCodec('xmasq_endpoint', 52, writeEndpoint, readEndpoint);

/** struct xmasq_flow_key, 44 bytes. */
export interface FlowKey {
  /** IPv4 or IPv6 address as text, empty: none, offset 0. */
  readonly saddr: string;
  /** IPv4 or IPv6 address as text, empty: none, offset 16. */
  readonly daddr: string;
  /** u16, network byte order in C, offset 32. */
  readonly sport: number;
  /** u16, network byte order in C, offset 34. */
  readonly dport: number;
  /** u32, offset 36. */
  readonly ifindex: number;
  /** u8, offset 40. */
  readonly proto: number;
}
function writeFlowKey(to: Buffer, at: number, value: FlowKey): void {
  writeAddress(to, at, 'xmasq_flow_key.saddr', value.saddr);
  writeAddress(to, at + 16, 'xmasq_flow_key.daddr', value.daddr);
  to.writeUInt16BE(checkInteger('xmasq_flow_key.sport', value.sport, 0, 65535), at + 32);
  to.writeUInt16BE(checkInteger('xmasq_flow_key.dport', value.dport, 0, 65535), at + 34);
  to.writeUInt32LE(checkInteger('xmasq_flow_key.ifindex', value.ifindex, 0, 4294967295), at + 36);
  to.writeUInt8(checkInteger('xmasq_flow_key.proto', value.proto, 0, 255), at + 40);
}
function readFlowKey(from: Buffer, at: number): FlowKey {
  return {
    saddr: readAddress(from, at),
    daddr: readAddress(from, at + 16),
    sport: from.readUInt16BE(at + 32),
    dport: from.readUInt16BE(at + 34),
    ifindex: from.readUInt32LE(at + 36),
    proto: from.readUInt8(at + 40),
  };
}
/** struct xmasq_flow_key, 44 bytes. */
export const flowKeyCodec: Codec<FlowKey> = makeCodec('xmasq_flow_key', 44, writeFlowKey, readFlowKey);

/** struct xmasq_event, 64 bytes. */
export interface Event {
  /** u64, offset 0. */
  readonly time: bigint;
  /** u32, offset 8. */
  readonly type: number;
  /** u32, offset 12. */
  readonly reason: number;
  /** struct xmasq_flow_key, offset 16. */
  readonly flow: FlowKey;
  /** u32, offset 60. */
  readonly peer: number;
}
function writeEvent(to: Buffer, at: number, value: Event): void {
  to.writeBigUInt64LE(checkBigInteger('xmasq_event.time', value.time, 0n, 18446744073709551615n), at);
  to.writeUInt32LE(checkInteger('xmasq_event.type', value.type, 0, 4294967295), at + 8);
  to.writeUInt32LE(checkInteger('xmasq_event.reason', value.reason, 0, 4294967295), at + 12);
  writeFlowKey(to, at + 16, value.flow);
  to.writeUInt32LE(checkInteger('xmasq_event.peer', value.peer, 0, 4294967295), at + 60);
}
function readEvent(from: Buffer, at: number): Event {
  return {
    time: from.readBigUInt64LE(at),
    type: from.readUInt32LE(at + 8),
    reason: from.readUInt32LE(at + 12),
    flow: readFlowKey(from, at + 16),
    peer: from.readUInt32LE(at + 60),
  };
}
/** struct xmasq_event, 64 bytes. */
export const eventCodec: Codec<Event> = makeCodec('xmasq_event', 64, writeEvent, readEvent);

/** struct xmasq_tuple, 36 bytes. */
export interface Tuple {
  /** IPv4 or IPv6 address as text, empty: none, offset 0. */
  readonly saddr: string;
  /** IPv4 or IPv6 address as text, empty: none, offset 16. */
  readonly daddr: string;
  /** u16, network byte order in C, offset 32. */
  readonly sport: number;
  /** u16, network byte order in C, offset 34. */
  readonly dport: number;
}
function writeTuple(to: Buffer, at: number, value: Tuple): void {
  writeAddress(to, at, 'xmasq_tuple.saddr', value.saddr);
  writeAddress(to, at + 16, 'xmasq_tuple.daddr', value.daddr);
  to.writeUInt16BE(checkInteger('xmasq_tuple.sport', value.sport, 0, 65535), at + 32);
  to.writeUInt16BE(checkInteger('xmasq_tuple.dport', value.dport, 0, 65535), at + 34);
}
function readTuple(from: Buffer, at: number): Tuple {
  return {
    saddr: readAddress(from, at),
    daddr: readAddress(from, at + 16),
    sport: from.readUInt16BE(at + 32),
    dport: from.readUInt16BE(at + 34),
  };
}
/** struct xmasq_tuple, 36 bytes. */
export const tupleCodec: Codec<Tuple> = makeCodec('xmasq_tuple', 36, writeTuple, readTuple);

/** struct xmasq_flow, 408 bytes. */
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
  readonly masqPackets: bigint;
  /** u64, offset 32. */
  readonly slowPackets: bigint;
  /** u64, offset 40. */
  readonly admittedAt: bigint;
  /** u64, offset 48. */
  readonly lastTx: bigint;
  /** u64, offset 56. */
  readonly tick: bigint;
  /** u64, offset 64. */
  readonly lastRxSlow: bigint;
  /** u64, offset 72. */
  readonly verifyAt: bigint;
  /** u64, offset 80. */
  readonly recheckAt: bigint;
  /** u64, offset 88. */
  readonly fastSince: bigint;
  /** u64, offset 96. */
  readonly unansweredSince: bigint;
  /** u32, offset 104. */
  readonly unansweredTx: number;
  /** u32, offset 108. */
  readonly unansweredHeard: number;
  /** u64, offset 112. */
  readonly holeUntil: bigint;
  /** u64, offset 120. */
  readonly rejectUntil: bigint;
  /** u64, offset 128. */
  readonly deviatingSince: bigint;
  /** u64, offset 136. */
  readonly rxPackets: bigint;
  /** u64, offset 144. */
  readonly rxBytes: bigint;
  /** u64, offset 152. */
  readonly lastRx: bigint;
  /** u64, offset 160. */
  readonly rxRecheckAt: bigint;
  /** u32, offset 168. */
  readonly csumDiff: number;
  /** u32, offset 172. */
  readonly ipSum: number;
  /** u32, offset 176. */
  readonly endpoint: number;
  /** u32, offset 180. */
  readonly endpointEpoch: number;
  /** u32, offset 184. */
  readonly peer: number;
  /** u32, offset 188. */
  readonly peerEpoch: number;
  /** u32, offset 192. */
  readonly slotGen: number;
  /** u32, offset 196. */
  readonly outIfindex: number;
  /** IPv4 or IPv6 address as text, empty: none, offset 200. */
  readonly nodeSaddr: string;
  /** IPv4 or IPv6 address as text, empty: none, offset 216. */
  readonly nodeDaddr: string;
  /** struct xmasq_tuple, offset 232. */
  readonly out: Tuple;
  /** 6 bytes, offset 268. */
  readonly dmac: Uint8Array;
  /** 6 bytes, offset 274. */
  readonly smac: Uint8Array;
  /** 6 bytes, offset 280. */
  readonly viaMac: Uint8Array;
  /** 6 bytes, offset 286. */
  readonly podMac: Uint8Array;
  /** u8, offset 292. */
  readonly peerKey: number;
  /** u8, offset 293. */
  readonly ownKey: number;
  /** u8, offset 294. */
  readonly ttl: number;
  /** u8, offset 295. */
  readonly tos: number;
  /** u8, offset 296. */
  readonly blocked: number;
  /** u8, offset 297. */
  readonly rejectKey: number;
  /** u8, offset 298. */
  readonly rejectLevel: number;
  /** u8, offset 299. */
  readonly holeLevel: number;
  /** u8, offset 300. */
  readonly proto: number;
  /** u8, offset 301. */
  readonly outTtl: number;
  /** u8, offset 302. */
  readonly mode: number;
  /** u8, offset 303. */
  readonly encapLen: number;
  /** 70 bytes, offset 304. */
  readonly encap: Uint8Array;
  /** 6 bytes, offset 374. */
  readonly rxDmac: Uint8Array;
  /** 6 bytes, offset 380. */
  readonly rxSmac: Uint8Array;
  /** u8, offset 386. */
  readonly rxTtl: number;
  /** u8, offset 387. */
  readonly rxWireTtl: number;
  /** u8, offset 388. */
  readonly unkeyed: number;
  /** u32, offset 392. */
  readonly txGen: number;
  /** u32, offset 396. */
  readonly mtu: number;
  /** u32, offset 400. */
  readonly gen2: number;
}
function writeFlow(to: Buffer, at: number, value: Flow): void {
  to.writeUInt32LE(checkInteger('xmasq_flow.gen', value.gen, 0, 4294967295), at);
  to.writeUInt32LE(checkInteger('xmasq_flow.flags', value.flags, 0, 4294967295), at + 4);
  to.writeBigUInt64LE(checkBigInteger('xmasq_flow.tx_packets', value.txPackets, 0n, 18446744073709551615n), at + 8);
  to.writeBigUInt64LE(checkBigInteger('xmasq_flow.tx_bytes', value.txBytes, 0n, 18446744073709551615n), at + 16);
  to.writeBigUInt64LE(
    checkBigInteger('xmasq_flow.masq_packets', value.masqPackets, 0n, 18446744073709551615n),
    at + 24,
  );
  to.writeBigUInt64LE(
    checkBigInteger('xmasq_flow.slow_packets', value.slowPackets, 0n, 18446744073709551615n),
    at + 32,
  );
  to.writeBigUInt64LE(checkBigInteger('xmasq_flow.admitted_at', value.admittedAt, 0n, 18446744073709551615n), at + 40);
  to.writeBigUInt64LE(checkBigInteger('xmasq_flow.last_tx', value.lastTx, 0n, 18446744073709551615n), at + 48);
  to.writeBigUInt64LE(checkBigInteger('xmasq_flow.tick', value.tick, 0n, 18446744073709551615n), at + 56);
  to.writeBigUInt64LE(checkBigInteger('xmasq_flow.last_rx_slow', value.lastRxSlow, 0n, 18446744073709551615n), at + 64);
  to.writeBigUInt64LE(checkBigInteger('xmasq_flow.verify_at', value.verifyAt, 0n, 18446744073709551615n), at + 72);
  to.writeBigUInt64LE(checkBigInteger('xmasq_flow.recheck_at', value.recheckAt, 0n, 18446744073709551615n), at + 80);
  to.writeBigUInt64LE(checkBigInteger('xmasq_flow.fast_since', value.fastSince, 0n, 18446744073709551615n), at + 88);
  to.writeBigUInt64LE(
    checkBigInteger('xmasq_flow.unanswered_since', value.unansweredSince, 0n, 18446744073709551615n),
    at + 96,
  );
  to.writeUInt32LE(checkInteger('xmasq_flow.unanswered_tx', value.unansweredTx, 0, 4294967295), at + 104);
  to.writeUInt32LE(checkInteger('xmasq_flow.unanswered_heard', value.unansweredHeard, 0, 4294967295), at + 108);
  to.writeBigUInt64LE(checkBigInteger('xmasq_flow.hole_until', value.holeUntil, 0n, 18446744073709551615n), at + 112);
  to.writeBigUInt64LE(
    checkBigInteger('xmasq_flow.reject_until', value.rejectUntil, 0n, 18446744073709551615n),
    at + 120,
  );
  to.writeBigUInt64LE(
    checkBigInteger('xmasq_flow.deviating_since', value.deviatingSince, 0n, 18446744073709551615n),
    at + 128,
  );
  to.writeBigUInt64LE(checkBigInteger('xmasq_flow.rx_packets', value.rxPackets, 0n, 18446744073709551615n), at + 136);
  to.writeBigUInt64LE(checkBigInteger('xmasq_flow.rx_bytes', value.rxBytes, 0n, 18446744073709551615n), at + 144);
  to.writeBigUInt64LE(checkBigInteger('xmasq_flow.last_rx', value.lastRx, 0n, 18446744073709551615n), at + 152);
  to.writeBigUInt64LE(
    checkBigInteger('xmasq_flow.rx_recheck_at', value.rxRecheckAt, 0n, 18446744073709551615n),
    at + 160,
  );
  to.writeUInt32LE(checkInteger('xmasq_flow.csum_diff', value.csumDiff, 0, 4294967295), at + 168);
  to.writeUInt32LE(checkInteger('xmasq_flow.ip_sum', value.ipSum, 0, 4294967295), at + 172);
  to.writeUInt32LE(checkInteger('xmasq_flow.endpoint', value.endpoint, 0, 4294967295), at + 176);
  to.writeUInt32LE(checkInteger('xmasq_flow.endpoint_epoch', value.endpointEpoch, 0, 4294967295), at + 180);
  to.writeUInt32LE(checkInteger('xmasq_flow.peer', value.peer, 0, 4294967295), at + 184);
  to.writeUInt32LE(checkInteger('xmasq_flow.peer_epoch', value.peerEpoch, 0, 4294967295), at + 188);
  to.writeUInt32LE(checkInteger('xmasq_flow.slot_gen', value.slotGen, 0, 4294967295), at + 192);
  to.writeUInt32LE(checkInteger('xmasq_flow.out_ifindex', value.outIfindex, 0, 4294967295), at + 196);
  writeAddress(to, at + 200, 'xmasq_flow.node_saddr', value.nodeSaddr);
  writeAddress(to, at + 216, 'xmasq_flow.node_daddr', value.nodeDaddr);
  writeTuple(to, at + 232, value.out);
  checkLength('xmasq_flow.dmac', value.dmac, 6);
  to.set(value.dmac, at + 268);
  checkLength('xmasq_flow.smac', value.smac, 6);
  to.set(value.smac, at + 274);
  checkLength('xmasq_flow.via_mac', value.viaMac, 6);
  to.set(value.viaMac, at + 280);
  checkLength('xmasq_flow.pod_mac', value.podMac, 6);
  to.set(value.podMac, at + 286);
  to.writeUInt8(checkInteger('xmasq_flow.peer_key', value.peerKey, 0, 255), at + 292);
  to.writeUInt8(checkInteger('xmasq_flow.own_key', value.ownKey, 0, 255), at + 293);
  to.writeUInt8(checkInteger('xmasq_flow.ttl', value.ttl, 0, 255), at + 294);
  to.writeUInt8(checkInteger('xmasq_flow.tos', value.tos, 0, 255), at + 295);
  to.writeUInt8(checkInteger('xmasq_flow.blocked', value.blocked, 0, 255), at + 296);
  to.writeUInt8(checkInteger('xmasq_flow.reject_key', value.rejectKey, 0, 255), at + 297);
  to.writeUInt8(checkInteger('xmasq_flow.reject_level', value.rejectLevel, 0, 255), at + 298);
  to.writeUInt8(checkInteger('xmasq_flow.hole_level', value.holeLevel, 0, 255), at + 299);
  to.writeUInt8(checkInteger('xmasq_flow.proto', value.proto, 0, 255), at + 300);
  to.writeUInt8(checkInteger('xmasq_flow.out_ttl', value.outTtl, 0, 255), at + 301);
  to.writeUInt8(checkInteger('xmasq_flow.mode', value.mode, 0, 255), at + 302);
  to.writeUInt8(checkInteger('xmasq_flow.encap_len', value.encapLen, 0, 255), at + 303);
  checkLength('xmasq_flow.encap', value.encap, 70);
  to.set(value.encap, at + 304);
  checkLength('xmasq_flow.rx_dmac', value.rxDmac, 6);
  to.set(value.rxDmac, at + 374);
  checkLength('xmasq_flow.rx_smac', value.rxSmac, 6);
  to.set(value.rxSmac, at + 380);
  to.writeUInt8(checkInteger('xmasq_flow.rx_ttl', value.rxTtl, 0, 255), at + 386);
  to.writeUInt8(checkInteger('xmasq_flow.rx_wire_ttl', value.rxWireTtl, 0, 255), at + 387);
  to.writeUInt8(checkInteger('xmasq_flow.unkeyed', value.unkeyed, 0, 255), at + 388);
  to.writeUInt32LE(checkInteger('xmasq_flow.tx_gen', value.txGen, 0, 4294967295), at + 392);
  to.writeUInt32LE(checkInteger('xmasq_flow.mtu', value.mtu, 0, 4294967295), at + 396);
  to.writeUInt32LE(checkInteger('xmasq_flow.gen2', value.gen2, 0, 4294967295), at + 400);
}
function readFlow(from: Buffer, at: number): Flow {
  return {
    gen: from.readUInt32LE(at),
    flags: from.readUInt32LE(at + 4),
    txPackets: from.readBigUInt64LE(at + 8),
    txBytes: from.readBigUInt64LE(at + 16),
    masqPackets: from.readBigUInt64LE(at + 24),
    slowPackets: from.readBigUInt64LE(at + 32),
    admittedAt: from.readBigUInt64LE(at + 40),
    lastTx: from.readBigUInt64LE(at + 48),
    tick: from.readBigUInt64LE(at + 56),
    lastRxSlow: from.readBigUInt64LE(at + 64),
    verifyAt: from.readBigUInt64LE(at + 72),
    recheckAt: from.readBigUInt64LE(at + 80),
    fastSince: from.readBigUInt64LE(at + 88),
    unansweredSince: from.readBigUInt64LE(at + 96),
    unansweredTx: from.readUInt32LE(at + 104),
    unansweredHeard: from.readUInt32LE(at + 108),
    holeUntil: from.readBigUInt64LE(at + 112),
    rejectUntil: from.readBigUInt64LE(at + 120),
    deviatingSince: from.readBigUInt64LE(at + 128),
    rxPackets: from.readBigUInt64LE(at + 136),
    rxBytes: from.readBigUInt64LE(at + 144),
    lastRx: from.readBigUInt64LE(at + 152),
    rxRecheckAt: from.readBigUInt64LE(at + 160),
    csumDiff: from.readUInt32LE(at + 168),
    ipSum: from.readUInt32LE(at + 172),
    endpoint: from.readUInt32LE(at + 176),
    endpointEpoch: from.readUInt32LE(at + 180),
    peer: from.readUInt32LE(at + 184),
    peerEpoch: from.readUInt32LE(at + 188),
    slotGen: from.readUInt32LE(at + 192),
    outIfindex: from.readUInt32LE(at + 196),
    nodeSaddr: readAddress(from, at + 200),
    nodeDaddr: readAddress(from, at + 216),
    out: readTuple(from, at + 232),
    dmac: Uint8Array.from(from.subarray(at + 268, at + 268 + 6)),
    smac: Uint8Array.from(from.subarray(at + 274, at + 274 + 6)),
    viaMac: Uint8Array.from(from.subarray(at + 280, at + 280 + 6)),
    podMac: Uint8Array.from(from.subarray(at + 286, at + 286 + 6)),
    peerKey: from.readUInt8(at + 292),
    ownKey: from.readUInt8(at + 293),
    ttl: from.readUInt8(at + 294),
    tos: from.readUInt8(at + 295),
    blocked: from.readUInt8(at + 296),
    rejectKey: from.readUInt8(at + 297),
    rejectLevel: from.readUInt8(at + 298),
    holeLevel: from.readUInt8(at + 299),
    proto: from.readUInt8(at + 300),
    outTtl: from.readUInt8(at + 301),
    mode: from.readUInt8(at + 302),
    encapLen: from.readUInt8(at + 303),
    encap: Uint8Array.from(from.subarray(at + 304, at + 304 + 70)),
    rxDmac: Uint8Array.from(from.subarray(at + 374, at + 374 + 6)),
    rxSmac: Uint8Array.from(from.subarray(at + 380, at + 380 + 6)),
    rxTtl: from.readUInt8(at + 386),
    rxWireTtl: from.readUInt8(at + 387),
    unkeyed: from.readUInt8(at + 388),
    txGen: from.readUInt32LE(at + 392),
    mtu: from.readUInt32LE(at + 396),
    gen2: from.readUInt32LE(at + 400),
  };
}
/** struct xmasq_flow, 408 bytes. */
export const flowCodec: Codec<Flow> = makeCodec('xmasq_flow', 408, writeFlow, readFlow);

/** struct xmasq_named, 112 bytes. */
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
  /** u32, offset 40. */
  readonly pathClass: number;
  /** u32, offset 44. */
  readonly mode: number;
  /** struct xmasq_event, offset 48. */
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
  to.writeUInt32LE(checkInteger('xmasq_named.path_class', value.pathClass, 0, 4294967295), at + 40);
  to.writeUInt32LE(checkInteger('xmasq_named.mode', value.mode, 0, 4294967295), at + 44);
  writeEvent(to, at + 48, value.event);
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
    pathClass: from.readUInt32LE(at + 40),
    mode: from.readUInt32LE(at + 44),
    event: readEvent(from, at + 48),
  };
}
/** struct xmasq_named, 112 bytes. */
export const namedCodec: Codec<Named> = makeCodec('xmasq_named', 112, writeNamed, readNamed);

/** struct xmasq_path, 72 bytes. */
export interface Path {
  /** u64, offset 0. */
  readonly provenAt: bigint;
  /** u64, offset 8. */
  readonly probeAt: bigint;
  /** u64, offset 16. */
  readonly probeWait: bigint;
  /** u64, offset 24. */
  readonly holeAt: bigint;
  /** u64, offset 32. */
  readonly probes: bigint;
  /** u64, offset 40. */
  readonly answers: bigint;
  /** u64, offset 48. */
  readonly changedAt: bigint;
  /** u32, offset 56. */
  readonly changes: number;
  /** u32, offset 60. */
  readonly masquerade: number;
  /** u32, offset 64. */
  readonly awaited: number;
}
function writePath(to: Buffer, at: number, value: Path): void {
  to.writeBigUInt64LE(checkBigInteger('xmasq_path.proven_at', value.provenAt, 0n, 18446744073709551615n), at);
  to.writeBigUInt64LE(checkBigInteger('xmasq_path.probe_at', value.probeAt, 0n, 18446744073709551615n), at + 8);
  to.writeBigUInt64LE(checkBigInteger('xmasq_path.probe_wait', value.probeWait, 0n, 18446744073709551615n), at + 16);
  to.writeBigUInt64LE(checkBigInteger('xmasq_path.hole_at', value.holeAt, 0n, 18446744073709551615n), at + 24);
  to.writeBigUInt64LE(checkBigInteger('xmasq_path.probes', value.probes, 0n, 18446744073709551615n), at + 32);
  to.writeBigUInt64LE(checkBigInteger('xmasq_path.answers', value.answers, 0n, 18446744073709551615n), at + 40);
  to.writeBigUInt64LE(checkBigInteger('xmasq_path.changed_at', value.changedAt, 0n, 18446744073709551615n), at + 48);
  to.writeUInt32LE(checkInteger('xmasq_path.changes', value.changes, 0, 4294967295), at + 56);
  to.writeUInt32LE(checkInteger('xmasq_path.masquerade', value.masquerade, 0, 4294967295), at + 60);
  to.writeUInt32LE(checkInteger('xmasq_path.awaited', value.awaited, 0, 4294967295), at + 64);
}
function readPath(from: Buffer, at: number): Path {
  return {
    provenAt: from.readBigUInt64LE(at),
    probeAt: from.readBigUInt64LE(at + 8),
    probeWait: from.readBigUInt64LE(at + 16),
    holeAt: from.readBigUInt64LE(at + 24),
    probes: from.readBigUInt64LE(at + 32),
    answers: from.readBigUInt64LE(at + 40),
    changedAt: from.readBigUInt64LE(at + 48),
    changes: from.readUInt32LE(at + 56),
    masquerade: from.readUInt32LE(at + 60),
    awaited: from.readUInt32LE(at + 64),
  };
}
/** struct xmasq_path, 72 bytes. */
export const pathCodec: Codec<Path> = makeCodec('xmasq_path', 72, writePath, readPath);

/** struct xmasq_peer, 40 bytes. */
export interface Peer {
  /** IPv4 or IPv6 address as text, empty: none, offset 0. */
  readonly addr4: string;
  /** IPv4 or IPv6 address as text, empty: none, offset 16. */
  readonly addr6: string;
  /** u32, offset 32. */
  readonly flags: number;
  /** u32, offset 36. */
  readonly epoch: number;
}
function writePeer(to: Buffer, at: number, value: Peer): void {
  writeAddress(to, at, 'xmasq_peer.addr4', value.addr4);
  writeAddress(to, at + 16, 'xmasq_peer.addr6', value.addr6);
  to.writeUInt32LE(checkInteger('xmasq_peer.flags', value.flags, 0, 4294967295), at + 32);
  to.writeUInt32LE(checkInteger('xmasq_peer.epoch', value.epoch, 0, 4294967295), at + 36);
}
function readPeer(from: Buffer, at: number): Peer {
  return {
    addr4: readAddress(from, at),
    addr6: readAddress(from, at + 16),
    flags: from.readUInt32LE(at + 32),
    epoch: from.readUInt32LE(at + 36),
  };
}
/** struct xmasq_peer, 40 bytes. */
export const peerCodec: Codec<Peer> = makeCodec('xmasq_peer', 40, writePeer, readPeer);

/** struct xmasq_peer_state, 40 bytes. */
export interface PeerState {
  /** u64, offset 0. */
  readonly lastLife: bigint;
  /** u64, offset 8. */
  readonly lastConfirmed: bigint;
  /** u64, offset 16. */
  readonly rejectWindow: bigint;
  /** u64, offset 24. */
  readonly rejectCount: bigint;
  /** u64, offset 32. */
  readonly mtuTold: bigint;
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
  to.writeBigUInt64LE(checkBigInteger('xmasq_peer_state.mtu_told', value.mtuTold, 0n, 18446744073709551615n), at + 32);
}
function readPeerState(from: Buffer, at: number): PeerState {
  return {
    lastLife: from.readBigUInt64LE(at),
    lastConfirmed: from.readBigUInt64LE(at + 8),
    rejectWindow: from.readBigUInt64LE(at + 16),
    rejectCount: from.readBigUInt64LE(at + 24),
    mtuTold: from.readBigUInt64LE(at + 32),
  };
}
/** struct xmasq_peer_state, 40 bytes. */
export const peerStateCodec: Codec<PeerState> = makeCodec('xmasq_peer_state', 40, writePeerState, readPeerState);

/** struct xmasq_prefix, 20 bytes. */
export interface Prefix {
  /** u32, offset 0. */
  readonly prefixlen: number;
  /** IPv4 or IPv6 address as text, empty: none, offset 4. */
  readonly addr: string;
}
function writePrefix(to: Buffer, at: number, value: Prefix): void {
  to.writeUInt32LE(checkInteger('xmasq_prefix.prefixlen', value.prefixlen, 0, 4294967295), at);
  writeAddress(to, at + 4, 'xmasq_prefix.addr', value.addr);
}
function readPrefix(from: Buffer, at: number): Prefix {
  return {
    prefixlen: from.readUInt32LE(at),
    addr: readAddress(from, at + 4),
  };
}
/** struct xmasq_prefix, 20 bytes. */
export const prefixCodec: Codec<Prefix> = makeCodec('xmasq_prefix', 20, writePrefix, readPrefix);

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

/** struct xmasq_slot, 184 bytes. */
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
  readonly tick: bigint;
  /** u64, offset 40. */
  readonly recheckAt: bigint;
  /** u64, offset 48. */
  readonly freedAt: bigint;
  /** u64, offset 56. */
  readonly ackAt: bigint;
  /** u64, offset 64. */
  readonly ackedTx: bigint;
  /** IPv4 or IPv6 address as text, empty: none, offset 72. */
  readonly saddr: string;
  /** IPv4 or IPv6 address as text, empty: none, offset 88. */
  readonly daddr: string;
  /** IPv4 or IPv6 address as text, empty: none, offset 104. */
  readonly pod: string;
  /** u32, offset 120. */
  readonly ifindex: number;
  /** u32, offset 124. */
  readonly endpoint: number;
  /** u32, offset 128. */
  readonly endpointEpoch: number;
  /** u32, offset 132. */
  readonly peer: number;
  /** u32, offset 136. */
  readonly peerEpoch: number;
  /** u32, offset 140. */
  readonly csumDiff: number;
  /** u32, offset 144. */
  readonly ipSum: number;
  /** 6 bytes, offset 148. */
  readonly dmac: Uint8Array;
  /** 6 bytes, offset 154. */
  readonly smac: Uint8Array;
  /** u8, offset 160. */
  readonly key: number;
  /** u8, offset 161. */
  readonly state: number;
  /** u8, offset 162. */
  readonly flags: number;
  /** u8, offset 163. */
  readonly ttl: number;
  /** u8, offset 164. */
  readonly tos: number;
  /** u16, network byte order in C, offset 166. */
  readonly sport: number;
  /** u32, offset 168. */
  readonly acks: number;
  /** 6 bytes, offset 172. */
  readonly wireDmac: Uint8Array;
}
function writeSlot(to: Buffer, at: number, value: Slot): void {
  to.writeUInt32LE(checkInteger('xmasq_slot.gen', value.gen, 0, 4294967295), at);
  to.writeUInt32LE(checkInteger('xmasq_slot.lock', value.lock, 0, 4294967295), at + 4);
  to.writeBigUInt64LE(checkBigInteger('xmasq_slot.rx_packets', value.rxPackets, 0n, 18446744073709551615n), at + 8);
  to.writeBigUInt64LE(checkBigInteger('xmasq_slot.rx_bytes', value.rxBytes, 0n, 18446744073709551615n), at + 16);
  to.writeBigUInt64LE(checkBigInteger('xmasq_slot.last_rx', value.lastRx, 0n, 18446744073709551615n), at + 24);
  to.writeBigUInt64LE(checkBigInteger('xmasq_slot.tick', value.tick, 0n, 18446744073709551615n), at + 32);
  to.writeBigUInt64LE(checkBigInteger('xmasq_slot.recheck_at', value.recheckAt, 0n, 18446744073709551615n), at + 40);
  to.writeBigUInt64LE(checkBigInteger('xmasq_slot.freed_at', value.freedAt, 0n, 18446744073709551615n), at + 48);
  to.writeBigUInt64LE(checkBigInteger('xmasq_slot.ack_at', value.ackAt, 0n, 18446744073709551615n), at + 56);
  to.writeBigUInt64LE(checkBigInteger('xmasq_slot.acked_tx', value.ackedTx, 0n, 18446744073709551615n), at + 64);
  writeAddress(to, at + 72, 'xmasq_slot.saddr', value.saddr);
  writeAddress(to, at + 88, 'xmasq_slot.daddr', value.daddr);
  writeAddress(to, at + 104, 'xmasq_slot.pod', value.pod);
  to.writeUInt32LE(checkInteger('xmasq_slot.ifindex', value.ifindex, 0, 4294967295), at + 120);
  to.writeUInt32LE(checkInteger('xmasq_slot.endpoint', value.endpoint, 0, 4294967295), at + 124);
  to.writeUInt32LE(checkInteger('xmasq_slot.endpoint_epoch', value.endpointEpoch, 0, 4294967295), at + 128);
  to.writeUInt32LE(checkInteger('xmasq_slot.peer', value.peer, 0, 4294967295), at + 132);
  to.writeUInt32LE(checkInteger('xmasq_slot.peer_epoch', value.peerEpoch, 0, 4294967295), at + 136);
  to.writeUInt32LE(checkInteger('xmasq_slot.csum_diff', value.csumDiff, 0, 4294967295), at + 140);
  to.writeUInt32LE(checkInteger('xmasq_slot.ip_sum', value.ipSum, 0, 4294967295), at + 144);
  checkLength('xmasq_slot.dmac', value.dmac, 6);
  to.set(value.dmac, at + 148);
  checkLength('xmasq_slot.smac', value.smac, 6);
  to.set(value.smac, at + 154);
  to.writeUInt8(checkInteger('xmasq_slot.key', value.key, 0, 255), at + 160);
  to.writeUInt8(checkInteger('xmasq_slot.state', value.state, 0, 255), at + 161);
  to.writeUInt8(checkInteger('xmasq_slot.flags', value.flags, 0, 255), at + 162);
  to.writeUInt8(checkInteger('xmasq_slot.ttl', value.ttl, 0, 255), at + 163);
  to.writeUInt8(checkInteger('xmasq_slot.tos', value.tos, 0, 255), at + 164);
  to.writeUInt16BE(checkInteger('xmasq_slot.sport', value.sport, 0, 65535), at + 166);
  to.writeUInt32LE(checkInteger('xmasq_slot.acks', value.acks, 0, 4294967295), at + 168);
  checkLength('xmasq_slot.wire_dmac', value.wireDmac, 6);
  to.set(value.wireDmac, at + 172);
}
function readSlot(from: Buffer, at: number): Slot {
  return {
    gen: from.readUInt32LE(at),
    lock: from.readUInt32LE(at + 4),
    rxPackets: from.readBigUInt64LE(at + 8),
    rxBytes: from.readBigUInt64LE(at + 16),
    lastRx: from.readBigUInt64LE(at + 24),
    tick: from.readBigUInt64LE(at + 32),
    recheckAt: from.readBigUInt64LE(at + 40),
    freedAt: from.readBigUInt64LE(at + 48),
    ackAt: from.readBigUInt64LE(at + 56),
    ackedTx: from.readBigUInt64LE(at + 64),
    saddr: readAddress(from, at + 72),
    daddr: readAddress(from, at + 88),
    pod: readAddress(from, at + 104),
    ifindex: from.readUInt32LE(at + 120),
    endpoint: from.readUInt32LE(at + 124),
    endpointEpoch: from.readUInt32LE(at + 128),
    peer: from.readUInt32LE(at + 132),
    peerEpoch: from.readUInt32LE(at + 136),
    csumDiff: from.readUInt32LE(at + 140),
    ipSum: from.readUInt32LE(at + 144),
    dmac: Uint8Array.from(from.subarray(at + 148, at + 148 + 6)),
    smac: Uint8Array.from(from.subarray(at + 154, at + 154 + 6)),
    key: from.readUInt8(at + 160),
    state: from.readUInt8(at + 161),
    flags: from.readUInt8(at + 162),
    ttl: from.readUInt8(at + 163),
    tos: from.readUInt8(at + 164),
    sport: from.readUInt16BE(at + 166),
    acks: from.readUInt32LE(at + 168),
    wireDmac: Uint8Array.from(from.subarray(at + 172, at + 172 + 6)),
  };
}
/** struct xmasq_slot, 184 bytes. */
export const slotCodec: Codec<Slot> = makeCodec('xmasq_slot', 184, writeSlot, readSlot);

/** struct xmasq_scratch, 816 bytes. */
export interface Scratch {
  /** struct xmasq_flow, offset 0. */
  readonly flow: Flow;
  /** struct xmasq_slot, offset 408. */
  readonly slot: Slot;
  /** struct xmasq_delivery, offset 592. */
  readonly delivery: Delivery;
  /** 72 bytes, offset 632. */
  readonly header: Uint8Array;
  /** struct xmasq_named, offset 704. */
  readonly named: Named;
}
function writeScratch(to: Buffer, at: number, value: Scratch): void {
  writeFlow(to, at, value.flow);
  writeSlot(to, at + 408, value.slot);
  writeDelivery(to, at + 592, value.delivery);
  checkLength('xmasq_scratch.header', value.header, 72);
  to.set(value.header, at + 632);
  writeNamed(to, at + 704, value.named);
}
function readScratch(from: Buffer, at: number): Scratch {
  return {
    flow: readFlow(from, at),
    slot: readSlot(from, at + 408),
    delivery: readDelivery(from, at + 592),
    header: Uint8Array.from(from.subarray(at + 632, at + 632 + 72)),
    named: readNamed(from, at + 704),
  };
}
/** struct xmasq_scratch, 816 bytes. */
export const scratchCodec: Codec<Scratch> = makeCodec('xmasq_scratch', 816, writeScratch, readScratch);

/** struct xmasq_slot_key, 24 bytes. */
export interface SlotKey {
  /** IPv4 or IPv6 address as text, empty: none, offset 0. */
  readonly peer: string;
  /** u16, network byte order in C, offset 16. */
  readonly sport: number;
  /** u16, network byte order in C, offset 18. */
  readonly dport: number;
  /** u8, offset 20. */
  readonly proto: number;
}
function writeSlotKey(to: Buffer, at: number, value: SlotKey): void {
  writeAddress(to, at, 'xmasq_slot_key.peer', value.peer);
  to.writeUInt16BE(checkInteger('xmasq_slot_key.sport', value.sport, 0, 65535), at + 16);
  to.writeUInt16BE(checkInteger('xmasq_slot_key.dport', value.dport, 0, 65535), at + 18);
  to.writeUInt8(checkInteger('xmasq_slot_key.proto', value.proto, 0, 255), at + 20);
}
function readSlotKey(from: Buffer, at: number): SlotKey {
  return {
    peer: readAddress(from, at),
    sport: from.readUInt16BE(at + 16),
    dport: from.readUInt16BE(at + 18),
    proto: from.readUInt8(at + 20),
  };
}
/** struct xmasq_slot_key, 24 bytes. */
export const slotKeyCodec: Codec<SlotKey> = makeCodec('xmasq_slot_key', 24, writeSlotKey, readSlotKey);

/** The maps with their codecs; type is enum bpf_map_type, maxEntries is bytes for ring buffers. */
export const maps = {
  approvals: {
    name: 'approvals',
    type: 1,
    maxEntries: 65536,
    key: flowKeyCodec,
    value: approvalCodec,
  },
  awaited: {
    name: 'awaited',
    type: 2,
    maxEntries: 4096,
    key: u32Codec,
    value: u32Codec,
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
    maxEntries: 41,
    key: u32Codec,
    value: u64Codec,
  },
  destinations: {
    name: 'destinations',
    type: 11,
    maxEntries: 32768,
    key: prefixCodec,
    value: destinationCodec,
  },
  endpoint_by_addr: {
    name: 'endpoint_by_addr',
    type: 1,
    maxEntries: 2048,
    key: addressCodec,
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
  paths: {
    name: 'paths',
    type: 2,
    maxEntries: 49152,
    key: u32Codec,
    value: pathCodec,
  },
  peer_by_addr: {
    name: 'peer_by_addr',
    type: 1,
    maxEntries: 16384,
    key: addressCodec,
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
    maxEntries: 61,
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
  translated: {
    name: 'translated',
    type: 9,
    maxEntries: 65536,
    key: flowKeyCodec,
    value: flowKeyCodec,
  },
} as const;
