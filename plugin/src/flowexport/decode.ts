/**
 * Reads what antrea-agent sends, only the fields that are used here: several times faster than generated code, which makes
 * objects of all of them. Unknown fields, and known ones of an unexpected wire type, are skipped.
 */
import { readAddress } from './address.ts';
import type { Interner } from './interner.ts';
import type { NamesCache } from './names-cache.ts';
import { atEnd, nestedEnd, Reader, tag } from './protobuf.ts';
import type { Address, FlowRecord, Stats } from './record.ts';

/** Called for each flow of a message. @param raw its bytes, part of the message: copy what is to be kept */
export type OnFlow = (record: FlowRecord, raw: Buffer) => void;

const NO_STATS: Stats = { packets: 0, packetsDelta: 0, bytes: 0, bytesDelta: 0 };

/** google.protobuf.Timestamp in microseconds since 1970. */
function decodeTime(reader: Reader, end: number): number {
  let seconds = 0;
  let nanos = 0;
  while (reader.pos < end) {
    const key = reader.uint32();
    if (key === tag(1, 0)) seconds = Number(reader.int64());
    else if (key === tag(2, 0)) nanos = reader.int32();
    else reader.skipType(key & 7);
  }
  atEnd(reader, end);
  return seconds * 1e6 + Math.floor(nanos / 1000);
}

function decodeStats(reader: Reader, end: number): Stats {
  let packets = 0;
  let packetsDelta = 0;
  let bytes = 0;
  let bytesDelta = 0;
  while (reader.pos < end) {
    const key = reader.uint32();
    if (key === tag(1, 0)) packets = Number(reader.uint64());
    else if (key === tag(2, 0)) packetsDelta = Number(reader.uint64());
    else if (key === tag(3, 0)) bytes = Number(reader.uint64());
    else if (key === tag(4, 0)) bytesDelta = Number(reader.uint64());
    else reader.skipType(key & 7);
  }
  atEnd(reader, end);
  return { packets, packetsDelta, bytes, bytesDelta };
}

function decodeIp(reader: Reader, end: number): { readonly source: Address; readonly destination: Address } {
  let source: Address | undefined;
  let destination: Address | undefined;
  while (reader.pos < end) {
    const key = reader.uint32();
    if (key === tag(2, 2)) source = readAddress(reader, end);
    else if (key === tag(3, 2)) destination = readAddress(reader, end);
    else reader.skipType(key & 7);
  }
  atEnd(reader, end);
  if (source === undefined || source.includes(':') !== destination?.includes(':')) {
    throw new RangeError('no two addresses of one family');
  }
  return { source, destination };
}

interface TransportFields {
  readonly protocol: number;
  readonly sourcePort: number;
  readonly destinationPort: number;
  readonly tcpState: string;
}

function decodeTcpState(reader: Reader, end: number, names: Interner): string {
  let state = '';
  while (reader.pos < end) {
    const key = reader.uint32();
    if (key === tag(1, 2)) state = names.of(reader.string());
    else reader.skipType(key & 7);
  }
  atEnd(reader, end);
  return state;
}

function decodeTransport(reader: Reader, end: number, names: Interner): TransportFields {
  let protocol = 0;
  let sourcePort = 0;
  let destinationPort = 0;
  let tcpState = '';
  while (reader.pos < end) {
    const key = reader.uint32();
    if (key === tag(1, 0)) protocol = reader.uint32();
    else if (key === tag(2, 0)) sourcePort = reader.uint32();
    else if (key === tag(3, 0)) destinationPort = reader.uint32();
    else if (key === tag(4, 2)) tcpState = decodeTcpState(reader, nestedEnd(reader, end), names);
    else reader.skipType(key & 7);
  }
  atEnd(reader, end);
  if (protocol < 1 || protocol > 255) throw new RangeError(`protocol ${protocol}`);
  if (sourcePort > 65535 || destinationPort > 65535) throw new RangeError(`ports ${sourcePort}, ${destinationPort}`);
  return { protocol, sourcePort, destinationPort, tcpState };
}

/**
 * One message `Flow`.
 * @throws Error for what is no protobuf, or no flow: addresses or the protocol are missing or impossible
 */
export function decodeFlow(raw: Buffer, names: NamesCache): FlowRecord {
  const reader = Reader.create(raw);
  const end = raw.length;
  let ip: ReturnType<typeof decodeIp> | undefined;
  let transport: TransportFields | undefined;
  let words: FlowRecord['names'] = { flowType: '' };
  let forward = NO_STATS;
  let reverse = NO_STATS;
  let startUs = 0;
  let endUs = 0;
  let endReason = 0;
  while (reader.pos < end) {
    const key = reader.uint32();
    switch (key) {
      case tag(3, 2):
        startUs = decodeTime(reader, nestedEnd(reader, end));
        break;
      case tag(4, 2):
        endUs = decodeTime(reader, nestedEnd(reader, end));
        break;
      case tag(5, 0):
        endReason = reader.uint32();
        break;
      case tag(6, 2):
        ip = decodeIp(reader, nestedEnd(reader, end));
        break;
      case tag(7, 2):
        transport = decodeTransport(reader, nestedEnd(reader, end), names.interner);
        break;
      case tag(8, 2):
        words = names.read(reader, nestedEnd(reader, end));
        break;
      case tag(9, 2):
        forward = decodeStats(reader, nestedEnd(reader, end));
        break;
      case tag(10, 2):
        reverse = decodeStats(reader, nestedEnd(reader, end));
        break;
      default:
        reader.skipType(key & 7);
    }
  }
  atEnd(reader, end);
  if (ip === undefined || transport === undefined) throw new RangeError('no addresses, or no protocol');
  return { ...ip, ...transport, startUs, endUs, endReason, forward, reverse, names: words };
}

/**
 * One message `ExportRequest`. A flow that makes no sense is left out; those after it are read.
 * @returns how many were left out; what follows a broken length counts as one
 */
export function decodeExport(message: Buffer, names: NamesCache, onFlow: OnFlow): number {
  const reader = Reader.create(message);
  let malformed = 0;
  while (reader.pos < message.length) {
    let start: number;
    let end: number;
    try {
      const key = reader.uint32();
      if (key !== tag(1, 2)) {
        reader.skipType(key & 7);
        continue;
      }
      end = nestedEnd(reader, message.length);
      start = reader.pos;
      reader.pos = end;
    } catch {
      return malformed + 1;
    }
    const raw = message.subarray(start, end);
    let record: FlowRecord;
    try {
      record = decodeFlow(raw, names);
    } catch {
      malformed++;
      continue;
    }
    onFlow(record, raw);
  }
  return malformed;
}
