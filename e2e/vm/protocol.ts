/**
 * Frames between the host and the guest's command agent (guest/agent.c; change both together).
 *
 * A frame is u32 payload length, u32 process id, u8 type, payload; little endian. The host chooses process ids.
 */

/** Frame types. */
export const FrameType = {
  /** host: argv, environment, working directory; each as u32 count and NUL-terminated words. */
  start: 1,
  /** host: input, at most STDIN_CHUNK bytes, not before the last one's acknowledgement. */
  stdin: 2,
  /** host: no more input. */
  stdinEnd: 3,
  /** host: u8 signal for the process group. */
  kill: 4,
  /** guest: the agent is ready. */
  hello: 64,
  /** guest: standard output. */
  out: 65,
  /** guest: standard error. */
  err: 66,
  /** guest: i32, low half exit code (128 + signal when killed), high half signal. */
  exit: 67,
  /** guest: i32 errno, the process could not be started. */
  failed: 68,
  /** guest: the input is taken. */
  stdinAck: 69,
} as const;

/** One frame. */
export interface Frame {
  readonly id: number;
  readonly type: number;
  readonly payload: Buffer;
}

/** Bytes of input per frame. */
export const STDIN_CHUNK = 32 * 1024;

/** Largest payload the agent takes, bytes (a process's argv and environment). */
export const MAX_PAYLOAD = 1 << 20;

const HEADER = 9;

/** @throws RangeError when the payload is larger than the agent takes. */
export function encodeFrame(type: number, id: number, payload: Buffer = Buffer.alloc(0)): Buffer {
  if (payload.length > MAX_PAYLOAD) throw new RangeError(`frame of ${payload.length} bytes, at most ${MAX_PAYLOAD}`);
  const header = Buffer.alloc(HEADER);
  header.writeUInt32LE(payload.length, 0);
  header.writeUInt32LE(id, 4);
  header.writeUInt8(type, 8);
  return Buffer.concat([header, payload]);
}

function encodeWords(words: readonly string[]): Buffer {
  const count = Buffer.alloc(4);
  count.writeUInt32LE(words.length);
  for (const word of words) {
    if (word.includes('\0')) throw new RangeError(`NUL in ${JSON.stringify(word)}`);
  }
  return Buffer.concat([count, Buffer.from(words.map((word) => `${word}\0`).join(''))]);
}

/** Payload of a start frame. */
export function encodeStart(argv: readonly string[], env: Readonly<Record<string, string>>, cwd: string): Buffer {
  const environment = Object.entries(env).map(([name, value]) => `${name}=${value}`);
  return Buffer.concat([encodeWords(argv), encodeWords(environment), encodeWords([cwd])]);
}

/** Cuts a byte stream into frames. */
export class FrameReader {
  #rest: Buffer = Buffer.alloc(0);

  /** Takes the next bytes and returns the frames they complete. */
  push(data: Buffer): Frame[] {
    this.#rest = this.#rest.length === 0 ? data : Buffer.concat([this.#rest, data]);
    const frames: Frame[] = [];
    while (this.#rest.length >= HEADER) {
      const length = this.#rest.readUInt32LE(0);
      if (length > MAX_PAYLOAD) throw new Error(`the guest sent a frame of ${length} bytes: out of step`);
      if (this.#rest.length < HEADER + length) break;
      frames.push({
        id: this.#rest.readUInt32LE(4),
        type: this.#rest.readUInt8(8),
        payload: this.#rest.subarray(HEADER, HEADER + length),
      });
      this.#rest = this.#rest.subarray(HEADER + length);
    }
    return frames;
  }
}
