/** Control messages between two data planes, byte by byte (struct xmasq_ctl in bpf-src/xmasq.h), for forging them. */
import { PROTOCOL_VERSION } from '../../../plugin/src/dataplane/layout.ts';
import { udpFrame } from './frames.ts';

const LENGTH = 20;

/** What a message says. */
export interface ControlMessage {
  /** First byte. Default the right one. */
  readonly tag?: number;
  /** Default the present one. */
  readonly version?: number;
  /** 1 reject, 2 acknowledgement. Default reject. */
  readonly type?: number;
  /** IP protocol and ports of the flow, as the receiver of the message sends it. */
  readonly proto: number;
  readonly sport: number;
  readonly dport: number;
  /** The key that the receiver of the message uses. */
  readonly key: number;
  /** Cuts the message to so many bytes. */
  readonly length?: number;
}

/** The UDP payload. */
export function controlPayload(message: ControlMessage): Buffer {
  const bytes = Buffer.alloc(LENGTH);
  bytes.writeUInt8(message.tag ?? 0xc1, 0);
  bytes.writeUInt8(message.version ?? PROTOCOL_VERSION, 1);
  bytes.writeUInt8(message.type ?? 1, 2);
  bytes.writeUInt8(message.proto, 3);
  bytes.writeUInt16BE(message.sport, 4);
  bytes.writeUInt16BE(message.dport, 6);
  bytes.writeUInt8(message.key, 12);
  return bytes.subarray(0, message.length ?? LENGTH);
}

/** The whole frame. */
export function controlFrame(
  message: ControlMessage,
  way: {
    readonly srcMac: string;
    readonly dstMac: string;
    readonly src: string;
    readonly dst: string;
    /** UDP port of the overlay. */
    readonly port: number;
  },
): Buffer {
  const { port, ...addresses } = way;
  return udpFrame({ ...addresses, sport: port, dport: port, payload: controlPayload(message) });
}
