/**
 * What each program may do with a packet, from docs/design.md. Each returns a complaint, or undefined if all is well.
 * Nothing here was written from the C.
 */
import { parseIpv4 } from '../../../src/netlink/ip.ts';
import {
  GATEWAY_MAC,
  LOCAL_PEER,
  MAGIC,
  NODE,
  PEER,
  PEER2,
  PEER_GATEWAY,
  PLAIN_NODE,
  TUNNEL_PORT,
  Verdict,
} from '../harness.ts';
import { macBytes, Proto, Tcp } from '../packets.ts';
import { controlFrame } from '../rules/uplink-ingress.ts';
import type { Runner, SkbFields } from './runner.ts';
import {
  hasDf,
  headerSum,
  idOf,
  isIpv4,
  judge,
  protoOf,
  tosOf,
  totalLengthOf,
  transportSum,
  ttlOf,
  type Frame,
} from './view.ts';
import type { Known, World } from './world.ts';

const MARKER = 0x8000;
const UPLINK_MTU = 1500;
const nodeMac = macBytes(NODE.mac);
const gatewayMac = macBytes(GATEWAY_MAC);
const nodeAddr = parseIpv4(NODE.addr);
const peerAddrs = new Map([PEER, PEER2, PLAIN_NODE, LOCAL_PEER].map((peer) => [parseIpv4(peer.addr), peer]));
const podNets = new Map([PEER, PEER2].map(({ pod }) => [parseIpv4(pod) >>> 8, true]));
const peerGateway = parseIpv4(PEER_GATEWAY);

/** A run to be judged. */
export interface Run {
  readonly input: Frame;
  readonly runner: Runner;
  readonly skb: SkbFields;
}

/** A complaint, and the connection that may have changed. */
export interface Judged {
  readonly complaint: string | undefined;
  readonly touched: Known | undefined;
}

/** The frame afterwards is what it was. */
function unchanged({ input, runner }: Run): string | undefined {
  if (runner.length !== input.length) return `length ${runner.length}`;
  return input.bytes.compare(runner.output, 0, runner.length, 0, input.length) === 0
    ? undefined
    : 'the packet was changed';
}

/**
 * The frame afterwards has this ID, and a header checksum that is as right as before; all else is what it was.
 * @param at where the IP header begins
 */
function onlyId({ input, runner }: Run, id: number, at = 14): string | undefined {
  const { bytes, length } = input;
  const out = runner.output;
  if (runner.length !== length) return `length ${runner.length}`;
  const found = out.readUInt16BE(at + 4);
  if (found !== id) return `ID ${found.toString(16)}, expected ${id.toString(16)}`;
  if (headerSum(out, at) !== headerSum(bytes, at)) return 'header checksum';
  const same =
    bytes.compare(out, 0, at + 4, 0, at + 4) === 0 &&
    bytes.compare(out, at + 6, at + 10, at + 6, at + 10) === 0 &&
    bytes.compare(out, at + 12, length, at + 12, length) === 0;
  return same ? undefined : 'something beside the ID was changed';
}

/** An ID without the marker, such that segments do not count into it. */
function clearedId(id: number, segments: number, df: boolean): number {
  const clear = id & 0x7fff;
  if (clear + segments <= MARKER) return clear;
  return df ? 0 : clear & 0x3fff;
}

/** Where a protocol keeps the checksum that covers addresses. */
function checksumAt(proto: number): number | undefined {
  return proto === Proto.tcp ? 50 : proto === Proto.udp ? 40 : undefined;
}

/** Behind the IP header nothing has changed but a checksum that is as right as before. */
function sameTransport({ input, runner }: Run): string | undefined {
  const { bytes, length } = input;
  const out = runner.output;
  if (runner.length !== length) return `length ${runner.length}`;
  if (headerSum(out) !== 0) return 'header checksum is wrong';
  if (totalLengthOf(out) !== totalLengthOf(bytes) || protoOf(out) !== protoOf(bytes)) return 'length or protocol';
  const at = checksumAt(protoOf(bytes));
  if (at === undefined)
    return bytes.compare(out, 34, length, 34, length) === 0 ? undefined : 'transport header or payload';
  if (bytes.compare(out, 34, at, 34, at) !== 0 || bytes.compare(out, at + 2, length, at + 2, length) !== 0) {
    return 'transport header or payload';
  }
  // A total length that ends before the checksum: padding or, in merged packets beyond 64 KiB, 0. No sum to speak of.
  if (14 + totalLengthOf(bytes) < at + 2) return undefined;
  const [before, after] = [bytes.readUInt16BE(at), out.readUInt16BE(at)];
  if (protoOf(bytes) === Proto.udp) {
    if (before === 0) return after === 0 ? undefined : 'an absent UDP checksum has come';
    if (after === 0) return 'a UDP checksum has gone';
  }
  return transportSum(bytes) === transportSum(out) ? undefined : 'transport checksum';
}

function macAt(bytes: Buffer, at: number, mac: Buffer): boolean {
  return bytes.compare(mac, 0, 6, at, at + 6) === 0;
}

/** The header that pods and underlay see differently. */
interface Header {
  readonly dmac: Buffer;
  readonly smac: Buffer;
  readonly src: number;
  readonly dst: number;
  readonly ttl: number;
  readonly tos: number;
  readonly df: boolean;
}

function headerIs(out: Buffer, expected: Header): string | undefined {
  if (!macAt(out, 0, expected.dmac) || !macAt(out, 6, expected.smac)) return 'MAC addresses';
  if (out.readUInt32BE(26) !== expected.src || out.readUInt32BE(30) !== expected.dst) return 'IP addresses';
  if (ttlOf(out) !== expected.ttl) return `TTL ${ttlOf(out)}`;
  if (tosOf(out) !== expected.tos) return `TOS ${tosOf(out)}`;
  if (out.readUInt16BE(20) !== (expected.df ? 0x4000 : 0)) return 'fragment field';
  return undefined;
}

function masqueradedRight(run: Run, flow: Known): string | undefined {
  const { input, runner } = run;
  const [before, out] = [input.bytes, runner.output];
  const id = MARKER | (hasDf(before) ? 0 : 0x4000) | (flow.peerKey << 6);
  if (idOf(out) !== id) return `ID ${idOf(out).toString(16)}, expected ${id.toString(16)}`;
  for (const [word, magic] of MAGIC.entries()) if (runner.cb(word) !== magic) return 'the magic is not in cb';
  const header = headerIs(out, {
    dmac: flow.otherMac,
    smac: nodeMac,
    src: nodeAddr,
    dst: flow.wire.src,
    ttl: 64,
    tos: tosOf(before) & 3,
    df: true,
  });
  return header ?? sameTransport(run);
}

const isVlan = (etherType: number): boolean => etherType === 0x8100 || etherType === 0x88a8;
/** A frame with more tags is nobody's. */
const MAX_TAGS = 8;

const CONTROL_TAG = 0xc1;
/** Segments that are looked at; more are suspicious by themselves. */
const MAX_DATAGRAMS = 128;

/** A datagram to the tunnel port, as the receiver would take it: no options, no fragment. */
function toTunnel({ bytes, length }: Frame): boolean {
  return (
    bytes[14] === 0x45 &&
    protoOf(bytes) === Proto.udp &&
    (bytes.readUInt16BE(20) & 0x3fff) === 0 &&
    length >= 42 &&
    bytes.readUInt16BE(36) === TUNNEL_PORT
  );
}

/** A pod's well-formed datagram to a peer's tunnel port, one of whose segments looks like a control message. */
function forgesControl({ input, skb }: Run): boolean {
  const { bytes, length, segments } = input;
  if (!isIpv4(input) || !toTunnel(input) || !peerAddrs.has(bytes.readUInt32BE(30))) return false;
  if ((bytes.readUInt16BE(20) & 0x8000) !== 0 || 14 + totalLengthOf(bytes) !== length) return false;
  if (segments > MAX_DATAGRAMS) return true;
  for (let segment = 0; segment < segments; segment++) {
    const at = 42 + segment * skb.gsoSize;
    if (at < length && bytes[at] === CONTROL_TAG) return true;
  }
  return false;
}

/** A tagged frame is slow; the packet below its tags has no marker either, wherever the tags are taken off. */
function taggedRight(run: Run): string | undefined {
  const { bytes, length, segments } = run.input;
  let at = 14;
  for (let tags = 0; tags < MAX_TAGS && isVlan(bytes.readUInt16BE(at - 2)); tags++) {
    at += 4;
    if (at > length) break;
  }
  const cut = at > length;
  if (!cut && isVlan(bytes.readUInt16BE(at - 2))) {
    return run.runner.verdict === Verdict.drop ? undefined : `${MAX_TAGS + 1} tags: returned ${run.runner.verdict}`;
  }
  const ipv4 = !cut && at + 20 <= length && bytes.readUInt16BE(at - 2) === 0x0800 && (bytes[at] ?? 0) >> 4 === 4;
  if (run.runner.verdict === Verdict.drop) {
    const datagrams = ipv4 && run.skb.gsoSize > 0 && bytes[at + 9] === Proto.udp;
    return datagrams && peerAddrs.has(bytes.readUInt32BE(at + 16)) ? undefined : 'tagged frame dropped';
  }
  if (run.runner.verdict !== Verdict.pass) return `returned ${run.runner.verdict}`;
  if (!ipv4 || bytes[at + 9] === Proto.ah) return unchanged(run);
  const df = ((bytes[at + 6] ?? 0) & 0x40) !== 0;
  return onlyId(run, clearedId(bytes.readUInt16BE(at + 4), segments, df), at);
}

/** pod_egress */
export function judgePodEgress(world: World, run: Run): Judged {
  const { input, runner, skb } = run;
  const { bytes, length, segments } = input;
  if (isVlan(bytes.readUInt16BE(12))) return { complaint: taggedRight(run), touched: undefined };
  const packet = judge(input, TUNNEL_PORT, false);
  const flow = packet.hasTuple ? world.sentBy(skb.ifindex, packet.tuple) : undefined;
  const done = (complaint: string | undefined): Judged => ({ complaint, touched: flow });

  const opensOrCloses = (packet.tcpFlags & (Tcp.syn | Tcp.fin)) !== 0;
  const genuine = flow !== undefined && macAt(bytes, 6, flow.podMac) && (!flow.local || macAt(bytes, 0, flow.otherMac));
  const headerAllowed = ttlOf(bytes) > 1 && (tosOf(bytes) & 0x0c) !== 0x0c;
  const asLearned = flow !== undefined && ttlOf(bytes) === flow.talk.ttl && (tosOf(bytes) & 0xfc) === flow.talk.tos;
  const fits = skb.gsoSize > 0 || flow?.local === true || length - 14 <= UPLINK_MTU;
  const fast =
    packet.eligible &&
    !packet.tooManySegments &&
    genuine &&
    flow.ready &&
    headerAllowed &&
    (flow.local || asLearned) &&
    fits;

  if (runner.verdict === Verdict.redirect) {
    if (!fast) return done('sent fast, though it must not be');
    return done(flow.local ? unchanged(run) : masqueradedRight(run, flow));
  }
  const forged = forgesControl(run);
  if (runner.verdict === Verdict.drop && forged) return done(undefined);
  if (runner.verdict !== Verdict.pass || forged) return done(`returned ${runner.verdict}`);
  if (fast) return done('not sent fast, though it could be');
  if (!isIpv4(input) || protoOf(bytes) === Proto.ah) return done(unchanged(run));
  const announces =
    genuine &&
    !flow.local &&
    !opensOrCloses &&
    (packet.tcpFlags & Tcp.rst) === 0 &&
    !packet.tooManySegments &&
    asLearned;
  if (!announces) return done(onlyId(run, clearedId(idOf(bytes), segments, hasDf(bytes))));
  const announced = MARKER | (flow.ownKey << 6);
  return done(onlyId(run, (idOf(runner.output) & 0x4000) === 0 ? announced : announced | 0x4000));
}

/** pod_ingress */
export function judgePodIngress(world: World, run: Run): Judged {
  const { input, runner, skb } = run;
  const { bytes } = input;
  const packet = judge(input, TUNNEL_PORT, true);
  const flow = packet.hasTuple ? world.deliveredTo(skb.ifindex, packet.tuple) : undefined;
  const done = (complaint: string | undefined): Judged => ({ complaint, touched: flow });
  if (runner.verdict !== Verdict.pass) return done(`returned ${runner.verdict}`);
  const { src } = packet.tuple;
  const fromPeer = podNets.has(src >>> 8) && src !== peerGateway;
  if (!packet.hasTuple || !fromPeer || (idOf(bytes) & MARKER) === 0) return done(unchanged(run));
  if (hasDf(bytes)) return done(onlyId(run, 0));
  const fresh = idOf(runner.output);
  return done(fresh >= MARKER ? 'a fresh ID with the marker' : onlyId(run, fresh));
}

/** Is this the rejection of that packet? */
function rejectionRight({ input, runner }: Run, to: { readonly addr: string }): string | undefined {
  const { bytes } = input;
  const { tuple } = judge(input, TUNNEL_PORT, true);
  const expected = controlFrame(
    { type: 1, proto: tuple.proto, sport: tuple.sport, dport: tuple.dport, key: (idOf(bytes) >> 6) & 0xff },
    { addr: NODE.addr, mac: NODE.mac },
    { addr: to.addr, mac: bytes.subarray(6, 12).toString('hex') },
  );
  for (const [word, magic] of MAGIC.entries()) if (runner.cb(word) !== magic) return 'the magic is not in cb';
  const out = runner.output.subarray(0, runner.length);
  return out.equals(expected) ? undefined : `rejection ${out.toString('hex')}, expected ${expected.toString('hex')}`;
}

function restoredRight(run: Run, flow: Known): string | undefined {
  const [before, out] = [run.input.bytes, run.runner.output];
  const noDf = (idOf(before) & 0x4000) !== 0;
  if (noDf ? idOf(out) >= MARKER : idOf(out) !== 0) return `ID ${idOf(out).toString(16)}`;
  const header = headerIs(out, {
    dmac: flow.podMac,
    smac: gatewayMac,
    src: flow.tuple.dst,
    dst: flow.tuple.src,
    ttl: 62,
    tos: 0x28 | (tosOf(before) & 3),
    df: !noDf,
  });
  return header ?? sameTransport(run);
}

/** uplink_ingress */
export function judgeUplinkIngress(world: World, run: Run): Judged {
  const { input, runner } = run;
  const { bytes, length } = input;
  const packet = judge(input, TUNNEL_PORT, true);
  const forUs = isIpv4(input) && macAt(bytes, 0, nodeMac) && bytes.readUInt32BE(30) === nodeAddr;
  const masqueraded = forUs && packet.eligible && hasDf(bytes) && (idOf(bytes) & MARKER) !== 0;
  const slot = masqueraded ? world.arrived(packet.tuple) : undefined;
  const done = (complaint: string | undefined): Judged => ({ complaint, touched: slot });

  if (masqueraded) {
    const restored = slot !== undefined && slot.restorable && slot.ownKey === ((idOf(bytes) >> 6) & 0xff);
    if (restored) {
      if (runner.verdict !== Verdict.redirect) return done(`not restored, but ${runner.verdict}`);
      return done(restoredRight(run, slot));
    }
    const peer = peerAddrs.get(packet.tuple.src);
    const heard = peer === PEER || peer === PEER2;
    if (!heard) return done(runner.verdict === Verdict.pass ? unchanged(run) : `stranger’s packet: ${runner.verdict}`);
    if (runner.verdict === Verdict.drop) return done(undefined);
    if (runner.verdict !== Verdict.redirect) return done(`an unknown key: ${runner.verdict}`);
    if ((packet.tcpFlags & Tcp.rst) !== 0) return done('a RST was answered');
    return done(rejectionRight(run, peer));
  }
  if (runner.verdict === Verdict.pass) return done(unchanged(run));
  // Control messages are for the data plane alone.
  const control =
    forUs &&
    bytes[14] === 0x45 &&
    protoOf(bytes) === Proto.udp &&
    (bytes.readUInt16BE(20) & 0xbfff) === 0 &&
    length >= 62 &&
    bytes.readUInt16BE(36) === TUNNEL_PORT &&
    bytes[42] === 0xc1;
  return done(control && runner.verdict === Verdict.drop ? undefined : `returned ${runner.verdict}`);
}

/** uplink_egress */
export function judgeUplinkEgress(world: World, run: Run): Judged {
  const { input, runner, skb } = run;
  const { bytes, segments } = input;
  const done = (complaint: string | undefined): Judged => ({ complaint, touched: undefined });
  const passedAsIs = (): Judged =>
    done(runner.verdict === Verdict.pass ? unchanged(run) : `returned ${runner.verdict}`);
  if (!isIpv4(input)) return passedAsIs();
  const { pod, pod2, excluded } = world.bench.node.ifindex;
  const fromPod = [pod, pod2, excluded].includes(skb.ingressIfindex);
  const magic = MAGIC.slice(1).every((word, i) => skb.cb[i + 1] === word);
  const toPeer = peerAddrs.has(bytes.readUInt32BE(30));
  const wiped = [0, 1, 2, 3].every((word) => runner.cb(word) === 0);
  if (toTunnel(input) && input.length > 42 && bytes[42] === CONTROL_TAG) {
    if (magic && skb.cb[0] === MAGIC[0] && !fromPod) return wiped ? passedAsIs() : done('cb was not wiped');
    if (!toPeer) return passedAsIs();
    return done(runner.verdict === Verdict.drop ? undefined : `a forged control message: ${runner.verdict}`);
  }
  if (!hasDf(bytes) || protoOf(bytes) === Proto.ah) return passedAsIs();
  const id = clearedId(idOf(bytes), segments, true);
  if (id === idOf(bytes)) return passedAsIs();
  if (magic) {
    if (!wiped) return done('cb was not wiped');
    if (skb.cb[0] === MAGIC[0] && fromPod) return passedAsIs();
    if (skb.cb[0] === ~MAGIC[0] >>> 0 && !fromPod) {
      if (runner.verdict === Verdict.drop) return done(undefined);
      return done(runner.output[42] === 0xc1 && runner.length === 62 ? undefined : 'no acknowledgement');
    }
    return done(runner.verdict === Verdict.drop ? undefined : `a broken magic: ${runner.verdict}`);
  }
  if (!toPeer) return passedAsIs();
  if (fromPod) return done(runner.verdict === Verdict.drop ? undefined : `a pod’s marker: ${runner.verdict}`);
  return done(runner.verdict === Verdict.pass ? onlyId(run, id) : `returned ${runner.verdict}`);
}
