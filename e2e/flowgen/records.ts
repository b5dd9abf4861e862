/** Flow records as antrea-agent writes them: which fields are set, and to what, is Antrea's (see docs/flow-export.md). */
import { antrea_io } from '../../plugin/src/gen/antrea.js';
import { parseIpv4 } from '../../plugin/src/netlink/ip.ts';

const v1 = antrea_io.antrea.pkg.apis.flow.v1alpha1;
export const EndReason = v1.FlowEndReason;
export type Flow = antrea_io.antrea.pkg.apis.flow.v1alpha1.Flow.$Properties;

const NODE = 'node-1';

/** What a connection is, and how far it has got. */
export interface Connection {
  readonly family?: 4 | 6;
  /** IP protocol number; default TCP. */
  readonly protocol?: number;
  readonly source: string;
  readonly destination: string;
  readonly sourcePort: number;
  readonly destinationPort: number;
  /** Milliseconds since 1970. */
  readonly start: number;
  readonly end: number;
  /** Totals and deltas, original direction and reply. */
  readonly packets?: readonly [total: number, delta: number];
  readonly bytes?: readonly [total: number, delta: number];
  readonly reversePackets?: readonly [total: number, delta: number];
  readonly reverseBytes?: readonly [total: number, delta: number];
  /** Default: active timeout. */
  readonly endReason?: antrea_io.antrea.pkg.apis.flow.v1alpha1.FlowEndReason;
  readonly tcpState?: string;
  readonly service?: { readonly ip: string; readonly port: number; readonly name: string };
}

/** Bytes of an address in the text forms that the generator uses (IPv6: all eight groups). */
export function addressBytes(address: string): Uint8Array {
  if (address.includes(':')) {
    return Buffer.from(address.split(':').flatMap((group) => [parseInt(group, 16) >> 8, parseInt(group, 16) & 0xff]));
  }
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(parseIpv4(address));
  return bytes;
}

function timestamp(ms: number): { seconds: number; nanos: number } {
  return { seconds: Math.floor(ms / 1000), nanos: Math.floor(ms % 1000) * 1_000_000 };
}

function stats(
  [packets, packetsDelta]: readonly [number, number],
  [bytes, bytesDelta]: readonly [number, number],
): object {
  return {
    packetTotalCount: packets,
    packetDeltaCount: packetsDelta,
    octetTotalCount: bytes,
    octetDeltaCount: bytesDelta,
  };
}

/** The record of a connection between a pod of this node and one of another. */
export function record(connection: Connection): Flow {
  const { protocol = 6, service, packets = [10, 10], bytes = [1000, 1000] } = connection;
  const {
    reversePackets = packets,
    reverseBytes = bytes,
    endReason = EndReason.FLOW_END_REASON_ACTIVE_TIMEOUT,
  } = connection;
  const tcpState = connection.tcpState ?? (protocol === 6 ? 'ESTABLISHED' : '');
  return {
    ipfix: { exportTime: timestamp(connection.end), observationDomainId: 0x51a2b3c4 },
    startTs: timestamp(connection.start),
    endTs: timestamp(connection.end),
    endReason,
    ip: {
      version: connection.source.includes(':') ? v1.IPVersion.IP_VERSION_6 : v1.IPVersion.IP_VERSION_4,
      source: addressBytes(connection.source),
      destination: addressBytes(connection.destination),
    },
    transport: {
      protocolNumber: protocol,
      sourcePort: connection.sourcePort,
      destinationPort: connection.destinationPort,
      ...(tcpState === '' ? {} : { TCP: { stateName: tcpState } }),
    },
    k8s: {
      flowType: v1.FlowType.FLOW_TYPE_INTER_NODE,
      sourcePodNamespace: 'shop',
      sourcePodName: `client-${connection.source}`,
      sourcePodUid: '3f0c0ea8-60d3-4c5a-9a36-3f1f4f1d2c11',
      sourceNodeName: NODE,
      sourceNodeUid: 'f4a3a5f0-2b7c-4b35-8b4e-0c2f2c6f9d01',
      ...(service && {
        destinationClusterIp: addressBytes(service.ip),
        destinationServiceIp: addressBytes(service.ip),
        destinationServicePort: service.port,
        destinationServicePortName: service.name,
      }),
      egressNetworkPolicyType: v1.NetworkPolicyType.NETWORK_POLICY_TYPE_ACNP,
      egressNetworkPolicyName: 'allow-shop',
      egressNetworkPolicyUid: '9a1b7f52-7f19-4b6d-a0b0-3d7e0f5b8c21',
      egressNetworkPolicyRuleName: 'to-db',
      egressNetworkPolicyRuleAction: v1.NetworkPolicyRuleAction.NETWORK_POLICY_RULE_ACTION_ALLOW,
    },
    stats: stats(packets, bytes),
    reverseStats: stats(reversePackets, reverseBytes),
    app: {},
  };
}

/** An `ExportRequest`. */
export function request(...flows: readonly Flow[]): Buffer {
  const bytes = v1.ExportRequest.encode(new v1.ExportRequest({ flows: [...flows] })).finish();
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** Reads one with the generated code: what a FlowAggregator would see. */
export function flowsOf(message: Uint8Array): Flow[] {
  return v1.ExportRequest.decode(message).flows;
}

const BEGIN = Date.UTC(2026, 0, 1);

/**
 * The connection with this number: every number another tuple, one in eight IPv6, one in four to a Service, TCP, UDP and
 * SCTP in turn.
 * @param round states of the same connection, one after the other
 */
export function numbered(number: number, round = 0): Connection {
  const host = number % 200;
  const destination = Math.floor(number / 200) % 250;
  const port = 1024 + (Math.floor(number / 50_000) % 64_000);
  const six = number % 8 === 7;
  const protocol = [6, 17, 132][number % 3] ?? 6;
  const packets = (round + 1) * 10;
  return {
    source: six ? `fd00:10:244:1:0:0:0:${(host + 2).toString(16)}` : `10.244.1.${host + 2}`,
    destination: six ? `fd00:10:244:2:0:0:0:${(destination + 2).toString(16)}` : `10.244.2.${destination + 2}`,
    sourcePort: port,
    destinationPort: 8080,
    protocol,
    start: BEGIN + number,
    end: BEGIN + number + (round + 1) * 5000,
    packets: [packets, 10],
    bytes: [packets * 100, 1000],
    ...(number % 4 === 0
      ? { service: { ip: six ? 'fd00:10:96:0:0:0:0:a' : '10.96.0.10', port: 80, name: 'shop/db:http' } }
      : {}),
  };
}
