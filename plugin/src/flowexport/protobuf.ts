/** Protobuf's reader and writer, set up for plain numbers: 64-bit values are exact up to 2^53. */
import protobuf from 'protobufjs/minimal.js';

// As in the generated modules: whoever comes first, the setting is the same.
if ((protobuf.util.Long as unknown) !== null) {
  (protobuf.util as { Long: unknown }).Long = null;
  protobuf.configure();
}

export type Reader = protobuf.Reader;
export const { Reader, Writer } = protobuf;

/** A tag as it is on the wire. @param type 0 varint, 1 64 bits, 2 length and bytes, 5 32 bits */
export function tag(field: number, type: 0 | 1 | 2 | 5): number {
  return (field << 3) | type;
}

/** Reads the length of a nested message. @returns where it ends. @throws RangeError where it leaves its parent */
export function nestedEnd(reader: Reader, parentEnd: number): number {
  const length = reader.uint32();
  const end = reader.pos + length;
  if (end > parentEnd) throw new RangeError(`a message of ${length} bytes leaves its parent`);
  return end;
}

/** @throws RangeError unless the message ended where its length says */
export function atEnd(reader: Reader, end: number): void {
  if (reader.pos !== end) throw new RangeError(`a field ends ${reader.pos - end} bytes behind its message`);
}
