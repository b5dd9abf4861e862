/**
 * What each program may do with a packet, from docs/design.md. Each returns a complaint, or undefined if all is well.
 * Nothing here was written from the C.
 */
import {
  GATEWAY_MAC,
  LOCAL_PEER,
  CONTROL_MAGIC,
  MAGIC,
  NODE,
  PEER,
  PEER2,
  PEER_GATEWAY,
  PEER_GATEWAY6,
  PLAIN_NODE,
  PROBE_KEY,
  speaking,
  TUNNEL_PORT,
  Verdict,
} from '../harness.ts';
import { addressBytes, macBytes, Proto, Tcp } from '../packets.ts';
import { controlFrame } from '../rules/uplink-ingress.ts';
import { INNER_MACS, tunnelHeader, tunnelledOut } from '../tunnels.ts';
import type { Runner, SkbFields } from './runner.ts';
import {
  dstOf,
  hasDf,
  headerSum,
  idOf,
  isIp,
  isSix,
  judge,
  l4Of,
  mapped,
  protoOf,
  reversed,
  srcOf,
  tosOf,
  totalLengthOf,
  transportSum,
  ttlOf,
  type Frame,
  type Judgement,
} from './view.ts';
import type { Known, World } from './world.ts';

const MARKER = 0x8000;
const UPLINK_MTU = 1500;
const nodeMac = macBytes(NODE.mac);
const gatewayMac = macBytes(GATEWAY_MAC);
const hex = (address: string): string => addressBytes(address).toString('hex');
const nodeAddrs = [NODE.addr, NODE.addr6].map(hex);
const peerAddrs = new Map(
  [PEER, PEER2, PLAIN_NODE, LOCAL_PEER].flatMap((peer) => [
    [hex(peer.addr), peer],
    [hex(peer.addr6), peer],
  ]),
);
/** A /24 or a /64. */
const netOf = (address: string): string => address.slice(0, address.length === 8 ? 6 : 16);
const podNets = new Set([PEER, PEER2].flatMap(({ pod, pod6 }) => [pod, pod6].map((address) => netOf(hex(address)))));
const peerGateways = [PEER_GATEWAY, PEER_GATEWAY6].map(hex);

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
  if ((bytes[at] ?? 0) >> 4 === 6) return onlyLabel(bytes, out, length, id, at);
  const found = out.readUInt16BE(at + 4);
  if (found !== id) return `ID ${found.toString(16)}, expected ${id.toString(16)}`;
  if (headerSum(out, at) !== headerSum(bytes, at)) return 'header checksum';
  const same =
    bytes.compare(out, 0, at + 4, 0, at + 4) === 0 &&
    bytes.compare(out, at + 6, at + 10, at + 6, at + 10) === 0 &&
    bytes.compare(out, at + 12, length, at + 12, length) === 0;
  return same ? undefined : 'something beside the ID was changed';
}

/** The same in IPv6: the lower bits of a changed flow label are cleared, or as they were. */
function onlyLabel(bytes: Buffer, out: Buffer, length: number, id: number, at: number): string | undefined {
  const [before, after] = [bytes.readUInt32BE(at), out.readUInt32BE(at)];
  const found = (after >>> 4) & 0xffff;
  if (found !== id) return `label ${found.toString(16)}, expected ${id.toString(16)}`;
  const low = after & 0xf;
  if (low !== 0 && low !== (before & 0xf)) return 'lower bits of the label';
  if (before >>> 20 !== after >>> 20) return 'version or traffic class';
  return bytes.compare(out, at + 4, length, at + 4, length) === 0
    ? undefined
    : 'something beside the label was changed';
}

/** An ID without the marker, such that segments do not count into it. */
function clearedId(id: number, segments: number, df: boolean, six = false): number {
  const clear = id & 0x7fff;
  // Nothing counts flow labels up.
  if (six) return clear;
  if (clear + segments <= MARKER) return clear;
  return df ? 0 : clear & 0x3fff;
}

/** Where a protocol keeps the checksum that covers addresses. */
function checksumAt(bytes: Buffer): number | undefined {
  const [proto, l4] = [protoOf(bytes), l4Of(bytes)];
  if (proto === Proto.icmp6 && isSix(bytes)) return l4 + 2;
  return proto === Proto.tcp ? l4 + 16 : proto === Proto.udp ? l4 + 6 : undefined;
}

/** Behind the IP header nothing has changed but a checksum that is as right as before. */
function sameTransport({ input, runner }: Run): string | undefined {
  const { bytes, length } = input;
  const out = runner.output;
  if (runner.length !== length) return `length ${runner.length}`;
  if (!isSix(out) && headerSum(out) !== 0) return 'header checksum is wrong';
  const l4 = l4Of(bytes);
  if (totalLengthOf(out) !== totalLengthOf(bytes) || protoOf(out) !== protoOf(bytes)) return 'length or protocol';
  const at = checksumAt(bytes);
  if (at === undefined)
    return bytes.compare(out, l4, length, l4, length) === 0 ? undefined : 'transport header or payload';
  if (bytes.compare(out, l4, at, l4, at) !== 0 || bytes.compare(out, at + 2, length, at + 2, length) !== 0) {
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
  readonly src: string;
  readonly dst: string;
  readonly ttl: number;
  readonly tos: number;
  readonly df: boolean;
}

function headerIs(out: Buffer, expected: Header): string | undefined {
  if (!macAt(out, 0, expected.dmac) || !macAt(out, 6, expected.smac)) return 'MAC addresses';
  if (srcOf(out) !== expected.src || dstOf(out) !== expected.dst) return 'IP addresses';
  if (ttlOf(out) !== expected.ttl) return `TTL ${ttlOf(out)}`;
  if (tosOf(out) !== expected.tos) return `TOS ${tosOf(out)}`;
  if (isSix(out)) return (out.readUInt32BE(14) & 0xf) === 0 ? undefined : 'lower bits of the label';
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
    src: flow.wire.dst,
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
  const l4 = l4Of(bytes);
  const plain = isSix(bytes) || (bytes[14] === 0x45 && (bytes.readUInt16BE(20) & 0x3fff) === 0);
  return plain && protoOf(bytes) === Proto.udp && length >= l4 + 8 && bytes.readUInt16BE(l4 + 2) === TUNNEL_PORT;
}

/** A pod's well-formed datagram to a peer's tunnel port, one of whose segments looks like a control message. */
function forgesControl({ input, skb }: Run): boolean {
  const { bytes, length, segments } = input;
  if (!isIp(input) || !toTunnel(input) || !peerAddrs.has(dstOf(bytes))) return false;
  if ((!isSix(bytes) && (bytes.readUInt16BE(20) & 0x8000) !== 0) || 14 + totalLengthOf(bytes) !== length) return false;
  if (segments > MAX_DATAGRAMS) return true;
  for (let segment = 0; segment < segments; segment++) {
    const at = l4Of(bytes) + 8 + segment * skb.gsoSize;
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
  const etherType = cut ? 0 : bytes.readUInt16BE(at - 2);
  const version = cut ? 0 : (bytes[at] ?? 0) >> 4;
  if (etherType === 0x86dd && at + 40 <= length && version === 6) return tagged6Right(run, at);
  const ipv4 = at + 20 <= length && etherType === 0x0800 && version === 4;
  if (run.runner.verdict === Verdict.drop) {
    const datagrams = ipv4 && run.skb.gsoSize > 0 && bytes[at + 9] === Proto.udp;
    return datagrams && peerAddrs.has(bytes.toString('hex', at + 16, at + 20)) ? undefined : 'tagged frame dropped';
  }
  if (run.runner.verdict !== Verdict.pass) return `returned ${run.runner.verdict}`;
  if (!ipv4 || bytes[at + 9] === Proto.ah) return unchanged(run);
  const df = ((bytes[at + 6] ?? 0) & 0x40) !== 0;
  return onlyId(run, clearedId(bytes.readUInt16BE(at + 4), segments, df), at);
}

/** The same with an IPv6 packet, which begins at `at`. */
function tagged6Right(run: Run, at: number): string | undefined {
  const { bytes } = run.input;
  if (run.runner.verdict === Verdict.drop) {
    const datagrams = run.skb.gsoSize > 0 && bytes[at + 6] === Proto.udp;
    return datagrams && peerAddrs.has(bytes.toString('hex', at + 24, at + 40)) ? undefined : 'tagged frame dropped';
  }
  if (run.runner.verdict !== Verdict.pass) return `returned ${run.runner.verdict}`;
  return onlyId(run, (bytes.readUInt32BE(at) >>> 4) & 0xffff & 0x7fff, at);
}

/** The packet left in the tunnel's header, and is inside as the slow path would send it. */
function tunnelledRight({ input, runner }: Run, flow: Known): string | undefined {
  const { bytes, length } = input;
  for (const [word, magic] of MAGIC.entries()) if (runner.cb(word) !== magic) return 'the magic is not in cb';
  const inner = Buffer.from(bytes.subarray(0, length));
  macBytes(INNER_MACS.dmac).copy(inner, 0);
  macBytes(INNER_MACS.smac).copy(inner, 6);
  const id = idOf(inner) & 0x7fff;
  if (isSix(inner)) {
    const low = id === idOf(inner) ? inner.readUInt32BE(14) & 0xf : 0;
    inner.writeUInt32BE(((inner.readUInt32BE(14) & 0xfff00000) | (id << 4) | low) >>> 0, 14);
    inner[21] = (inner[21] ?? 0) - 1;
  } else {
    inner.writeUInt16BE(idOf(inner) === id || hasDf(inner) ? id : clearedId(idOf(inner), 1, false), 18);
    inner[22] = (inner[22] ?? 0) - 1;
    inner.writeUInt16BE(0, 24);
    inner.writeUInt16BE(0xffff - headerSum(inner) || 0xffff, 24);
  }
  if (flow.tunnel === undefined) return 'there is no tunnel';
  const expected = tunnelledOut(flow.tunnel, flow.talk.peer, inner);
  const out = runner.output.subarray(0, runner.length);
  return out.equals(expected) ? undefined : `tunnelled, expected ${expected.toString('hex')}`;
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
  const room = flow?.tunnel === undefined ? 0 : flow.tunnel.outer === 4 ? 50 : 70;
  const fits = skb.gsoSize > 0 || flow?.local === true || length - 14 + room <= UPLINK_MTU;
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
    if (flow.tunnel !== undefined) return done(tunnelledRight(run, flow));
    return done(flow.local ? unchanged(run) : masqueradedRight(run, flow));
  }
  const forged = forgesControl(run);
  if (runner.verdict === Verdict.drop && forged) return done(undefined);
  // A test run cannot say what kind of segments these are, so no room can be made in front of them.
  if (flow?.tunnel !== undefined && skb.gsoSize > 0 && fast && runner.verdict !== Verdict.redirect)
    return done(undefined);
  if (runner.verdict !== Verdict.pass || forged) return done(`returned ${runner.verdict}`);
  if (fast) return done('not sent fast, though it could be');
  if (!isIp(input) || protoOf(bytes) === Proto.ah) return done(unchanged(run));
  const announces =
    genuine &&
    flow.tunnel === undefined &&
    !flow.local &&
    !opensOrCloses &&
    (packet.tcpFlags & Tcp.rst) === 0 &&
    !packet.tooManySegments &&
    asLearned;
  if (!announces) return done(onlyId(run, clearedId(idOf(bytes), segments, hasDf(bytes), isSix(bytes))));
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
  const fromPeer = podNets.has(netOf(src)) && !peerGateways.includes(src);
  if (!packet.hasTuple || (idOf(bytes) & MARKER) === 0) return done(unchanged(run));
  if (!fromPeer) {
    const complaint = unchanged(run);
    // Of SCTP nobody knows whether it comes from a Service, i.e. from a peer: once the pod was refused, keys are erased.
    if (packet.tuple.proto !== Proto.sctp || complaint === undefined) return done(complaint);
  }
  if (hasDf(bytes)) return done(onlyId(run, 0));
  const fresh = idOf(runner.output);
  return done(fresh >= MARKER ? 'a fresh ID with the marker' : onlyId(run, fresh));
}

/** Is this the rejection of that packet? */
function answerRight(
  { input, runner }: Run,
  to: { readonly addr: string; readonly addr6: string },
  type: number,
): string | undefined {
  const { bytes } = input;
  const { tuple } = judge(input, TUNNEL_PORT, true);
  const id = idOf(bytes);
  const ports = { proto: tuple.proto, sport: tuple.sport, dport: tuple.dport };
  const control = { type, ...ports, key: (id >> 6) & 0xff, count: id & 0x3f };
  let expected: Buffer | undefined;
  speaking(isSix(bytes) ? 6 : 4, () => {
    expected = controlFrame(control, NODE, { ...to, mac: bytes.subarray(6, 12).toString('hex') });
  });
  for (const [word, magic] of CONTROL_MAGIC.entries()) if (runner.cb(word) !== magic) return 'the magic is not in cb';
  const out = runner.output.subarray(0, runner.length);
  if (expected === undefined) return 'not reached';
  return out.equals(expected) ? undefined : `answer ${out.toString('hex')}, expected ${expected.toString('hex')}`;
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

/** Addressed to this node, and masqueraded by the look of it. */
function looksMasqueraded(input: Frame, packet: Judgement): boolean {
  const { bytes } = input;
  return isForUs(input) && packet.eligible && hasDf(bytes) && (idOf(bytes) & MARKER) !== 0;
}

function isForUs(input: Frame): boolean {
  return isIp(input) && macAt(input.bytes, 0, nodeMac) && nodeAddrs.includes(dstOf(input.bytes));
}

/** Comes with the key of a slot that can restore it. */
function hasKey({ bytes }: Frame, slot: Known | undefined): slot is Known {
  return slot !== undefined && slot.restorable && slot.ownKey === ((idOf(bytes) >> 6) & 0xff);
}

/** uplink_ingress */
export function judgeUplinkIngress(world: World, run: Run): Judged {
  const { input, runner } = run;
  const { bytes, length } = input;
  const packet = judge(input, TUNNEL_PORT, true);
  const forUs = isForUs(input);
  const masqueraded = looksMasqueraded(input, packet);
  const slot = masqueraded ? world.arrived(packet.tuple) : undefined;
  const done = (complaint: string | undefined): Judged => ({ complaint, touched: slot });

  if (masqueraded) {
    if (hasKey(input, slot)) {
      if (runner.verdict !== Verdict.redirect) return done(`not restored, but ${runner.verdict}`);
      return done(restoredRight(run, slot));
    }
    const peer = peerAddrs.get(packet.tuple.src);
    const heard = peer === PEER || peer === PEER2;
    if (!heard) return done(runner.verdict === Verdict.pass ? unchanged(run) : `stranger’s packet: ${runner.verdict}`);
    if (runner.verdict === Verdict.drop) return done(undefined);
    if (runner.verdict !== Verdict.redirect) return done(`an unknown key: ${runner.verdict}`);
    if (((idOf(bytes) >> 6) & 0xff) === PROBE_KEY) return done(answerRight(run, peer, 3));
    if ((packet.tcpFlags & Tcp.rst) !== 0) return done('a RST was answered');
    return done(answerRight(run, peer, 1));
  }
  if (runner.verdict === Verdict.pass) return done(unchanged(run));
  // Control messages are for the data plane alone.
  const control =
    forUs &&
    toTunnel(input) &&
    (isSix(bytes) || (bytes.readUInt16BE(20) & 0x8000) === 0) &&
    length >= l4Of(bytes) + 28 &&
    bytes[l4Of(bytes) + 8] === 0xc1;
  if (forUs && !control && toTunnel(input)) return takenRight(world, run);
  // An error of ICMP about a packet of ours would be translated; noise is none, but may look like one.
  return done(control && runner.verdict === Verdict.drop ? undefined : `returned ${runner.verdict}`);
}

/** The packet inside of the tunnel went to the pod of a connection that is received so, as the slow path delivers it. */
function takenRight(world: World, run: Run): Judged {
  const { input, runner } = run;
  const at = l4Of(input.bytes) + 16;
  const inner = { bytes: input.bytes.subarray(at), length: input.length - at, segments: 1 };
  const taken = inner.length >= 14 ? judge(inner, TUNNEL_PORT, true) : undefined;
  const flow = taken?.eligible === true ? world.takes(reversed(taken.tuple)) : undefined;
  const done = (complaint: string | undefined): Judged => ({ complaint, touched: flow });
  if (flow?.tunnel === undefined) return done(`taken from the tunnel without a flow: ${runner.verdict}`);
  const from = peerAddrs.get(srcOf(input.bytes));
  const header = input.bytes.subarray(at - 8, at);
  if (!header.equals(tunnelHeader(flow.tunnel.type)) || from?.id !== flow.talk.remote.id) return done('another tunnel');
  const out = runner.output.subarray(0, runner.length);
  if (runner.verdict === Verdict.drop && run.skb.gsoSize > 0) return done(undefined);
  if (runner.verdict !== Verdict.redirect) return done(`returned ${runner.verdict}`);
  const expected = Buffer.from(inner.bytes.subarray(0, inner.length));
  flow.podMac.copy(expected, 0);
  gatewayMac.copy(expected, 6);
  const congested = (tosOf(input.bytes) & 3) === 3 ? 3 : 0;
  if (isSix(expected)) {
    expected.writeUInt16BE(expected.readUInt16BE(14) | (congested << 4), 14);
    expected[21] = (expected[21] ?? 0) - 1;
  } else {
    expected[15] = (expected[15] ?? 0) | congested;
    expected[22] = (expected[22] ?? 0) - 1;
    expected.writeUInt16BE(0, 24);
    expected.writeUInt16BE(0xffff - headerSum(expected) || 0xffff, 24);
  }
  return done(out.equals(expected) ? undefined : `taken, expected ${expected.toString('hex')}`);
}

/** uplink_egress */
export function judgeUplinkEgress(world: World, run: Run): Judged {
  const { input, runner, skb } = run;
  const { bytes, segments } = input;
  const done = (complaint: string | undefined): Judged => ({ complaint, touched: undefined });
  const passedAsIs = (): Judged =>
    done(runner.verdict === Verdict.pass ? unchanged(run) : `returned ${runner.verdict}`);
  const magic = MAGIC.slice(1).every((word, i) => skb.cb[i + 1] === word);
  const wiped = [0, 1, 2, 3].every((word) => runner.cb(word) === 0);
  if (magic && !wiped) return done('cb was not wiped');
  if (magic && skb.cb[0] === MAGIC[0]) return passedAsIs();
  if (!isIp(input) || (isSix(bytes) && mapped(bytes))) {
    return magic && runner.verdict === Verdict.drop ? done(undefined) : passedAsIs();
  }
  const { pod, pod2, excluded } = world.bench.node.ifindex;
  const fromPod = [pod, pod2, excluded].includes(skb.ingressIfindex);
  const toPeer = peerAddrs.has(dstOf(bytes));
  const control = toTunnel(input) && input.length > l4Of(bytes) + 8 && bytes[l4Of(bytes) + 8] === CONTROL_TAG;
  if (magic) {
    const [kind, tag] = [skb.cb[0] ?? 0, l4Of(runner.output) + 8];
    if (kind === CONTROL_MAGIC[0] && control) return passedAsIs();
    if (runner.verdict === Verdict.drop) return done(undefined);
    if (kind === ~MAGIC[0] >>> 0 && !fromPod) {
      return done(runner.output[tag] === CONTROL_TAG && runner.length === tag + 20 ? undefined : 'no acknowledgement');
    }
    if (kind === (MAGIC[0] ^ 0xffff) >>> 0 && fromPod) {
      const probe = idOf(runner.output) === (MARKER | (PROBE_KEY << 6)) && peerAddrs.has(dstOf(runner.output));
      return done(probe ? undefined : 'no probe');
    }
    return done(`a broken magic: ${runner.verdict}`);
  }
  if (control) {
    if (!toPeer) return passedAsIs();
    return done(runner.verdict === Verdict.drop ? undefined : `a forged control message: ${runner.verdict}`);
  }
  if (!hasDf(bytes) || protoOf(bytes) === Proto.ah) return passedAsIs();
  const id = clearedId(idOf(bytes), segments, true, isSix(bytes));
  if (id === idOf(bytes) || !toPeer) return passedAsIs();
  if (fromPod) return done(runner.verdict === Verdict.drop ? undefined : `a pod’s marker: ${runner.verdict}`);
  return done(runner.verdict === Verdict.pass ? onlyId(run, id) : `returned ${runner.verdict}`);
}

const XDP_PASS = 2;

/** What XDP restores is what uplink_ingress would restore; what it leaves alone is nobody's business here. */
export function judgeUplinkXdp(world: World, run: Run): Judged {
  const { input, runner } = run;
  const packet = judge(input, TUNNEL_PORT, true);
  const slot = looksMasqueraded(input, packet) ? world.arrived(packet.tuple) : undefined;
  const done = (complaint: string | undefined): Judged => ({ complaint, touched: slot });
  if (runner.verdict !== XDP_PASS) return done(`returned ${runner.verdict}`);
  if (runner.metadata.length === 0) return done(unchanged(run));
  if (!hasKey(input, slot)) return done('restored, and nobody knows by what');
  if ((packet.tcpFlags & Tcp.rst) !== 0) return done('a RST, which ends more than a packet');
  const mark = Buffer.alloc(16);
  [...MAGIC.slice(1), slot.ifindex].forEach((word, i) => mark.writeUInt32LE(word, 4 * i));
  return done(runner.metadata.equals(mark) ? restoredRight(run, slot) : 'the mark is wrong');
}
