/** Reads message `Kubernetes`: who the ends of a flow are, and what allowed it. */
import { readAddress } from './address.ts';
import type { Interner } from './interner.ts';
import { atEnd, tag, type Reader } from './protobuf.ts';
import {
  FLOW_TYPES,
  POLICY_TYPES,
  type Address,
  type RecordNames,
  type RecordPod,
  type RecordPolicy,
  type RecordService,
} from './record.ts';

/** Fields of the message that are read, in the order of their numbers. */
interface Fields {
  flowType: number;
  sourceNamespace: string;
  sourceName: string;
  sourceNode: string;
  destinationNamespace: string;
  destinationName: string;
  destinationNode: string;
  servicePort: number;
  serviceName: string;
  /** destination_cluster_ip, which destination_service_ip replaces. */
  clusterAddress: Address | undefined;
  serviceAddress: Address | undefined;
  ingress: PolicyFields;
  egress: PolicyFields;
}

interface PolicyFields {
  type: number;
  namespace: string;
  name: string;
  rule: string;
}

const noPolicy = (): PolicyFields => ({ type: 0, namespace: '', name: '', rule: '' });

function readFields(reader: Reader, end: number, names: Interner): Fields {
  const fields: Fields = {
    flowType: 0,
    sourceNamespace: '',
    sourceName: '',
    sourceNode: '',
    destinationNamespace: '',
    destinationName: '',
    destinationNode: '',
    servicePort: 0,
    serviceName: '',
    clusterAddress: undefined,
    serviceAddress: undefined,
    ingress: noPolicy(),
    egress: noPolicy(),
  };
  const text = (): string => names.of(reader.string());
  while (reader.pos < end) {
    const key = reader.uint32();
    switch (key) {
      case tag(1, 0):
        fields.flowType = reader.uint32();
        break;
      case tag(2, 2):
        fields.sourceNamespace = text();
        break;
      case tag(3, 2):
        fields.sourceName = text();
        break;
      case tag(6, 2):
        fields.sourceNode = text();
        break;
      case tag(8, 2):
        fields.destinationNamespace = text();
        break;
      case tag(9, 2):
        fields.destinationName = text();
        break;
      case tag(12, 2):
        fields.destinationNode = text();
        break;
      case tag(14, 2):
        fields.clusterAddress = readAddress(reader, end);
        break;
      case tag(15, 0):
        fields.servicePort = reader.uint32();
        break;
      case tag(16, 2):
        fields.serviceName = text();
        break;
      case tag(18, 0):
        fields.ingress.type = reader.uint32();
        break;
      case tag(19, 2):
        fields.ingress.namespace = text();
        break;
      case tag(20, 2):
        fields.ingress.name = text();
        break;
      case tag(22, 2):
        fields.ingress.rule = text();
        break;
      case tag(24, 0):
        fields.egress.type = reader.uint32();
        break;
      case tag(25, 2):
        fields.egress.namespace = text();
        break;
      case tag(26, 2):
        fields.egress.name = text();
        break;
      case tag(28, 2):
        fields.egress.rule = text();
        break;
      case tag(35, 2):
        fields.serviceAddress = readAddress(reader, end);
        break;
      default:
        reader.skipType(key & 7);
    }
  }
  atEnd(reader, end);
  return fields;
}

function pod(namespace: string, name: string): RecordPod | undefined {
  return name === '' ? undefined : { namespace, name };
}

function policy({ type, namespace, name, rule }: PolicyFields): RecordPolicy | undefined {
  return name === '' ? undefined : { type: POLICY_TYPES[type] ?? '', namespace, name, rule };
}

function service({ serviceName, clusterAddress, serviceAddress, servicePort }: Fields): RecordService | undefined {
  if (serviceName === '') return undefined;
  const address = serviceAddress ?? clusterAddress;
  return { name: serviceName, port: servicePort, ...(address === undefined ? {} : { address }) };
}

/**
 * @param end where the message ends
 * @throws Error for what is no protobuf, names that are too long, addresses of an impossible length
 */
export function decodeNames(reader: Reader, end: number, names: Interner): RecordNames {
  const fields = readFields(reader, end, names);
  const { sourceNode, destinationNode } = fields;
  const sourcePod = pod(fields.sourceNamespace, fields.sourceName);
  const destinationPod = pod(fields.destinationNamespace, fields.destinationName);
  const named = service(fields);
  const ingressPolicy = policy(fields.ingress);
  const egressPolicy = policy(fields.egress);
  return {
    flowType: FLOW_TYPES[fields.flowType] ?? '',
    ...(sourcePod && { sourcePod }),
    ...(destinationPod && { destinationPod }),
    ...(sourceNode !== '' && { sourceNode }),
    ...(destinationNode !== '' && { destinationNode }),
    ...(named && { service: named }),
    ...(ingressPolicy && { ingressPolicy }),
    ...(egressPolicy && { egressPolicy }),
  };
}
