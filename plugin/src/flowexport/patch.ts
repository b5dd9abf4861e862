/**
 * Changes fields of a record without reading the others: what the sidecar does not know (newer versions of Antrea) reaches
 * the collector as the agent wrote it.
 */
import { nestedEnd, Reader, tag, Writer } from './protobuf.ts';
import type { Stats } from './record.ts';

/** What is to be different in a record. */
export interface RecordChanges {
  readonly forward: Stats;
  readonly reverse: Stats;
  readonly endReason: number;
  /** Microseconds since 1970; absent: as it was, the time of the export too. */
  readonly endUs?: number;
}

/** Fields to write instead of those with their numbers. */
type Replacements = ReadonlyMap<number, (writer: Writer) => void>;
type Writer = ReturnType<typeof Writer.create>;

/** The message with the replacements at its end; where they stand does not matter to a reader. */
function patched(raw: Uint8Array, replacements: Replacements): Uint8Array {
  const reader = Reader.create(raw);
  const kept: Uint8Array[] = [];
  while (reader.pos < raw.length) {
    const start = reader.pos;
    const key = reader.uint32();
    reader.skipType(key & 7);
    if (!replacements.has(key >>> 3)) kept.push(raw.subarray(start, reader.pos));
  }
  const writer = Writer.create();
  for (const write of replacements.values()) write(writer);
  return Buffer.concat([...kept, writer.finish()]);
}

/** The last field with this number that is bytes, or none. */
function field(raw: Uint8Array, number: number): Uint8Array {
  const reader = Reader.create(raw);
  let found: Uint8Array = new Uint8Array();
  while (reader.pos < raw.length) {
    const key = reader.uint32();
    if (key !== tag(number, 2)) {
      reader.skipType(key & 7);
      continue;
    }
    const end = nestedEnd(reader, raw.length);
    found = raw.subarray(reader.pos, end);
    reader.pos = end;
  }
  return found;
}

function timestamp(us: number): Uint8Array {
  const seconds = Math.floor(us / 1e6);
  return Writer.create()
    .uint32(tag(1, 0))
    .int64(seconds)
    .uint32(tag(2, 0))
    .int32((us - seconds * 1e6) * 1000)
    .finish();
}

function stats({ packets, packetsDelta, bytes, bytesDelta }: Stats): Uint8Array {
  const writer = Writer.create();
  [packets, packetsDelta, bytes, bytesDelta].forEach((value, index) => {
    if (value > 0) writer.uint32(tag(index + 1, 0)).uint64(value);
  });
  return writer.finish();
}

const bytesField =
  (number: number, bytes: Uint8Array) =>
  (writer: Writer): void =>
    void writer.uint32(tag(number, 2)).bytes(bytes);

/** @param raw a `Flow` that could be decoded */
export function patchRecord(raw: Uint8Array, { forward, reverse, endReason, endUs }: RecordChanges): Uint8Array {
  const replacements = new Map<number, (writer: Writer) => void>([
    [5, (writer) => void writer.uint32(tag(5, 0)).uint32(endReason)],
    [9, bytesField(9, stats(forward))],
    [10, bytesField(10, stats(reverse))],
  ]);
  if (endUs !== undefined) {
    const time = timestamp(endUs);
    replacements.set(2, bytesField(2, patched(field(raw, 2), new Map([[1, bytesField(1, time)]]))));
    replacements.set(4, bytesField(4, time));
  }
  return patched(raw, replacements);
}

/** An `ExportRequest` with one flow, as agents send them. */
export function exportRequest(flow: Uint8Array): Buffer {
  const writer = Writer.create().uint32(tag(1, 2)).bytes(flow);
  const bytes = writer.finish();
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
