/** Makes conntrack entries as a test wants them, by ctnetlink, in the namespace of the calling thread. */
import { isIPv4 } from 'node:net';
import { CtStatus, reverseTuple, type CtTuple } from '../../src/netlink/ctnetlink.ts';
import { MessageFlag, MessageWriter } from '../../src/netlink/message.ts';
import { NetlinkProtocol, NetlinkSocket } from '../../src/netlink/socket.ts';
import { addressBytes } from './packets.ts';

/** IPCTNL_MSG_CT_NEW and IPCTNL_MSG_CT_DELETE in NFNL_SUBSYS_CTNETLINK. */
const MESSAGE = { new: 0x100, delete: 0x102 } as const;
const NLM_F_CREATE = 0x400;
const AF_UNSPEC = 0;
const AF_INET = 2;
const AF_INET6 = 10;

/** Attributes of linux/netfilter/nfnetlink_conntrack.h. */
const CTA = {
  tupleOrig: 1,
  tupleReply: 2,
  status: 3,
  protoinfo: 4,
  natSrc: 6,
  timeout: 7,
  mark: 8,
  natDst: 13,
  seqAdjOrig: 15,
  zone: 18,
  ip: 1,
  proto: 2,
  v4Src: 1,
  v4Dst: 2,
  v6Src: 3,
  v6Dst: 4,
  number: 1,
  sport: 2,
  dport: 3,
  icmpId: 4,
  icmpType: 5,
  icmpCode: 6,
  icmp6Id: 7,
  icmp6Type: 8,
  icmp6Code: 9,
  tcp: 1,
  tcpState: 1,
  natMinIp: 1,
  natMaxIp: 2,
  natProto: 3,
  natMinIp6: 4,
  natMaxIp6: 5,
  natMinPort: 1,
  natMaxPort: 2,
  seqCorrection: 1,
  seqBefore: 2,
  seqAfter: 3,
} as const;

/** What an entry holds besides its tuple. */
export interface CtSpec {
  readonly zone: number;
  readonly mark: number;
  /** Bits of CtStatus that can be set from outside; the kernel adds CONFIRMED. */
  readonly status: number;
  readonly timeoutSeconds: number;
  /** For TCP, one of CtTcpState. */
  readonly tcpState?: number;
  /** Address of source translation; sets SRC_NAT. */
  readonly snatTo?: string;
  /** Address of destination translation; sets DST_NAT. */
  readonly dnatTo?: string;
  /** ... and port. */
  readonly dnatPort?: number;
  /** Sets SEQ_ADJUST. */
  readonly seqAdjust?: boolean;
}

function nfgenmsg(family: number): Uint8Array {
  return Uint8Array.of(family, 0, 0, 0);
}

function writeTuple(writer: MessageWriter, type: number, tuple: CtTuple): void {
  const v4 = tuple.family === 4;
  const [src, dst] = [addressBytes(tuple.src), addressBytes(tuple.dst)];
  writer.nest(type, () => {
    writer.nest(CTA.ip, () => writer.bytes(v4 ? CTA.v4Src : CTA.v6Src, src).bytes(v4 ? CTA.v4Dst : CTA.v6Dst, dst));
    writer.nest(CTA.proto, () => {
      writer.u8(CTA.number, tuple.proto);
      if ('icmpType' in tuple) {
        writer.u16be(v4 ? CTA.icmpId : CTA.icmp6Id, tuple.icmpId);
        writer.u8(v4 ? CTA.icmpType : CTA.icmp6Type, tuple.icmpType);
        writer.u8(v4 ? CTA.icmpCode : CTA.icmp6Code, tuple.icmpCode);
      } else {
        writer.u16be(CTA.sport, tuple.sport).u16be(CTA.dport, tuple.dport);
      }
    });
  });
}

function writeNat(writer: MessageWriter, type: number, address: string, port?: number): void {
  const [min, max] = isIPv4(address) ? [CTA.natMinIp, CTA.natMaxIp] : [CTA.natMinIp6, CTA.natMaxIp6];
  const bytes = addressBytes(address);
  writer.nest(type, () => {
    writer.bytes(min, bytes).bytes(max, bytes);
    if (port === undefined) return;
    writer.nest(CTA.natProto, () => writer.u16be(CTA.natMinPort, port).u16be(CTA.natMaxPort, port));
  });
}

/** Inserts and flushes. */
export class CtTable {
  readonly #socket = NetlinkSocket.open(NetlinkProtocol.netfilter);

  /** @throws NetlinkError EEXIST where there is such an entry */
  insert(tuple: CtTuple, spec: CtSpec): void {
    const reply = reverseTuple(tuple);
    if (reply === undefined) throw new RangeError('this tuple has no reply');
    const writer = new MessageWriter(MESSAGE.new, MessageFlag.ack | NLM_F_CREATE).header(
      nfgenmsg(tuple.family === 4 ? AF_INET : AF_INET6),
    );
    writeTuple(writer, CTA.tupleOrig, tuple);
    writeTuple(writer, CTA.tupleReply, reply);
    // Without the bit that it has set itself the kernel answers EBUSY.
    writer.u32be(CTA.status, spec.status | CtStatus.confirmed).u32be(CTA.timeout, spec.timeoutSeconds);
    writer.u32be(CTA.mark, spec.mark);
    writer.u16be(CTA.zone, spec.zone);
    if (spec.tcpState !== undefined) {
      const state = spec.tcpState;
      writer.nest(CTA.protoinfo, () => writer.nest(CTA.tcp, () => writer.u8(CTA.tcpState, state)));
    }
    if (spec.snatTo !== undefined) writeNat(writer, CTA.natSrc, spec.snatTo);
    if (spec.dnatTo !== undefined) writeNat(writer, CTA.natDst, spec.dnatTo, spec.dnatPort);
    if (spec.seqAdjust === true) {
      writer.nest(CTA.seqAdjOrig, () =>
        writer.u32be(CTA.seqCorrection, 1).u32be(CTA.seqBefore, 0).u32be(CTA.seqAfter, 1),
      );
    }
    this.#socket.request('conntrack insert', writer);
  }

  /** Deletes every entry of the namespace. */
  flush(): void {
    this.#socket.request(
      'conntrack flush',
      new MessageWriter(MESSAGE.delete, MessageFlag.ack).header(nfgenmsg(AF_UNSPEC)),
    );
  }

  close(): void {
    this.#socket.close();
  }
}
