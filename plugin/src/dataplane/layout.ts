/**
 * The types shared with the programs (generated from bpf-src/xmasq.h) and the constants of that header that BTF does not
 * carry; a test compares these with the header.
 */
export {
  ConfigFlag,
  Counter,
  counterNames,
  DestKind,
  EndpointFlag,
  EventType,
  eventTypeNames,
  FlowFlag,
  Mode,
  modeNames,
  PathClass,
  PeerFlag,
  Reason,
  reasonNames,
  SlotState,
  type Approval,
  type Config as DataPlaneConfig,
  type Destination,
  type Endpoint,
  type Event,
  type Flow,
  type FlowKey,
  type Peer,
  type PeerState,
  type Path,
  type Prefix,
  type Refusal,
  type Slot,
  type SlotKey,
} from '../gen/layouts.ts';

/** XMASQ_LAYOUT_VERSION. */
export const LAYOUT_VERSION = 6;
/** XMASQ_PROTOCOL_VERSION. */
export const PROTOCOL_VERSION = 3;
/** XMASQ_MAX_ENDPOINTS: ids are 1 to this, exclusive. */
export const MAX_ENDPOINTS = 1024;
/** XMASQ_MAX_PEERS: ids are 1 to this, exclusive. */
export const MAX_PEERS = 8192;
/** XMASQ_SEND_LIFE_NS: without a sign of life for so long, a peer is sent nothing fast. */
export const SEND_LIFE_NS = 5_000_000_000n;
/** XMASQ_INTERPRET_NS: without a sign of life for so long, a peer's packets are plain packets. */
export const INTERPRET_NS = 30_000_000_000n;
/** XMASQ_PROVEN_NS: so long after the last proof masqueraded packets are held to arrive. */
export const PROVEN_NS = 60_000_000_000n;
/** XMASQ_TOMBSTONE_NS: a freed slot is not given to other pods for so long. */
export const TOMBSTONE_NS = 120_000_000_000n;
