/** Connections in every state, restored before each packet that could meet them. */
import {
  ConfigFlag,
  FlowFlag,
  SlotState,
  maps,
  type Flow,
  type FlowKey,
  type Slot,
  type SlotKey,
} from '../../../src/gen/layouts.ts';
import { libbpf } from '../../../src/bpf/libbpf.ts';
import { isNetlinkError } from '../../../src/netlink/errors.ts';
import {
  announcement,
  Conversation,
  FLAGS,
  masquerade,
  neighbour,
  now,
  PEER,
  PEER2,
  PLAIN_NODE,
  POD2,
  SEC,
  Verdict,
  type Bench,
  type ConversationSpec,
} from '../harness.ts';
import { addressBytes, macBytes } from '../packets.ts';
import { routedIn, routedOut, tunnelledIn, tunnelledOut, type Tunnel } from '../tunnels.ts';
import { reversed, type Tuple } from './view.ts';

/** Beyond every test: nothing is due then. */
const NEVER = 1n << 62n;

/** One connection and what the programs may do with its packets. */
export interface Known {
  readonly talk: Conversation;
  /** Device of the local pod. */
  readonly ifindex: number;
  /** What the pod sends goes fast. */
  readonly ready: boolean;
  /** Not masqueraded, but sent and taken in this tunnel. */
  readonly tunnel: Tunnel | undefined;
  /** To a pod of the same node. */
  readonly local: boolean;
  /** What comes masqueraded with the right key is restored. */
  readonly restorable: boolean;
  readonly ownKey: number;
  readonly peerKey: number;
  /** As the pod sends. */
  readonly tuple: Tuple;
  /** As it arrives on the underlay. */
  readonly wire: Tuple;
  /** Valid frames. */
  readonly sent: Buffer;
  readonly delivered: Buffer;
  readonly masqueraded: Buffer;
  /** On the underlay in the tunnel: to the other node, and from it. */
  readonly leaving: Buffer;
  readonly arriving: Buffer;
  readonly podMac: Buffer;
  readonly otherMac: Buffer;
  /** All checks would find everything as it should be. */
  readonly sound: boolean;
  /** Brings map entries back to where they were. `due`: every check is due now; only for a sound one. */
  restore(due: boolean): void;
  /** Brings the conntrack entry back after a RST. */
  allow(): void;
}

interface Shape {
  readonly tunnel?: Tunnel;
  readonly spec: ConversationSpec;
  readonly flow?: Partial<Flow>;
  readonly slot?: Partial<Slot>;
  readonly ready?: boolean;
  readonly restorable?: boolean;
}

const hex = (address: string): string => addressBytes(address).toString('hex');
const key = (text: Tuple): string => `${text.src} ${text.dst} ${text.proto} ${text.sport} ${text.dport}`;

/** A connection's packets in a tunnel. */
function inTunnel(
  talk: Conversation,
  tunnel: Tunnel = { type: 'geneve', outer: talk.family },
): Pick<Known, 'leaving' | 'arriving'> {
  return {
    leaving: tunnelledOut(tunnel, talk.peer, routedOut(talk)),
    arriving: tunnelledIn(tunnel, talk.peer, routedIn(talk)),
  };
}

/** All of them, and finding one by the tuple of a packet. */
export class World {
  readonly bench: Bench;
  readonly all: readonly Known[];
  readonly #bySent: ReadonlyMap<string, Known>;
  readonly #byWire: ReadonlyMap<string, Known>;

  constructor(bench: Bench) {
    this.bench = bench;
    bench.reset();
    bench.configure({ flags: FLAGS | ConfigFlag.ENCAP });
    const shapes: Shape[] = [
      ...(['tcp', 'udp', 'icmp', 'sctp', 'raw'] as const).map((kind) => ({ spec: { kind } })),
      { spec: { kind: 'tcp', local: POD2, sport: 40001, ttl: 128, tos: 0x68 } },
      { spec: { kind: 'udp', sport: 40002, remote: PEER2 } },
      {
        spec: { kind: 'udp', sport: 40003 },
        flow: { flags: FlowFlag.KEYED | FlowFlag.ANNOUNCED | FlowFlag.HAVE_KEY },
        ready: false,
      },
      { spec: { kind: 'udp', sport: 40004 }, slot: { flags: 0 }, restorable: false },
      { spec: { kind: 'tcp', sport: 40005 }, slot: { state: SlotState.TOMBSTONE, freedAt: now() }, restorable: false },
      {
        spec: { kind: 'tcp', sport: 40006 },
        slot: { state: SlotState.CLOSING, freedAt: now() - 2n * SEC },
        restorable: false,
      },
      { spec: { kind: 'tcp', sport: 40007 }, slot: { state: SlotState.CLOSING, freedAt: NEVER }, restorable: false },
      { spec: { kind: 'udp', sport: 40008 }, slot: { peerEpoch: 999 }, restorable: false },
      { spec: { kind: 'udp', sport: 40009 }, slot: { endpointEpoch: 999 }, restorable: false },
      ...(['tcp', 'udp', 'icmp', 'sctp', 'raw'] as const).map((kind) => ({ spec: { kind, family: 6 } as const })),
      { spec: { kind: 'tcp', family: 6, local: POD2, sport: 40001, ttl: 128, tos: 0x68 } },
      {
        spec: { kind: 'udp', family: 6, sport: 40003 },
        flow: { flags: FlowFlag.KEYED | FlowFlag.ANNOUNCED | FlowFlag.HAVE_KEY },
        ready: false,
      },
      { spec: { kind: 'udp', family: 6, sport: 40004 }, slot: { flags: 0 }, restorable: false },
      {
        spec: { kind: 'tcp', family: 6, sport: 40005 },
        slot: { state: SlotState.TOMBSTONE, freedAt: now() },
        restorable: false,
      },
    ];
    const known = shapes.map((shape, index) => this.#establish(shape, 0x31 + 7 * index));
    known.push(this.#establishLocal());
    for (const outer of [4, 6] as const) {
      for (const family of [4, 6] as const) {
        for (const kind of ['tcp', 'udp'] as const) {
          known.push(this.#establishTunnelled({ type: 'geneve', outer }, { kind, family, sport: 42000 + outer }));
        }
      }
    }
    this.all = known;
    this.#bySent = new Map(known.map((entry) => [`${entry.ifindex} ${key(entry.tuple)}`, entry]));
    this.#byWire = new Map(
      known.filter(({ local, tunnel }) => !local && tunnel === undefined).map((entry) => [key(entry.wire), entry]),
    );
    this.refresh();
  }

  /** The connection that a packet of the pod behind a device belongs to. */
  sentBy(ifindex: number, tuple: Tuple): Known | undefined {
    return this.#bySent.get(`${ifindex} ${key(tuple)}`);
  }

  /** The connection that answers a packet which came in a tunnel. */
  takes(tuple: Tuple): Known | undefined {
    const { pod, pod2 } = this.bench.node.ifindex;
    return this.sentBy(pod, tuple) ?? this.sentBy(pod2, tuple);
  }

  /** The connection that a packet for a pod belongs to. */
  deliveredTo(ifindex: number, tuple: Tuple): Known | undefined {
    return this.sentBy(ifindex, reversed(tuple));
  }

  /** The connection whose slot a packet from the underlay has. */
  arrived(tuple: Tuple): Known | undefined {
    // The slot's key has no destination: the caller knows that it is this node.
    return this.#byWire.get(key(tuple));
  }

  /** Peers are heard of: to be called every second at least. */
  refresh(): void {
    this.bench.heard(PEER, now());
    this.bench.heard(PEER2, now());
  }

  #establish(shape: Shape, peerKey: number): Known {
    const { bench } = this;
    const flow = bench.establish(shape.spec, peerKey);
    const { talk, flowKey, slotKey } = flow;
    // The first fast packets find the neighbour and the MTU, and restore.
    bench.run('pod_egress', talk.sent(), { ifindex: flowKey.ifindex });
    bench.run('uplink_ingress', talk.masqueraded({ id: flow.idIn }));
    bench.patchFlow(flowKey, { ...shape.flow });
    bench.patchSlot(slotKey, { ...shape.slot });
    const [src, dst] = [hex(talk.remote.addr), hex(talk.node.addr)];
    return {
      ...this.#common(talk, flowKey.ifindex, slotKey),
      ready: shape.ready ?? true,
      sound: shape.slot === undefined,
      local: false,
      tunnel: undefined,
      restorable: shape.restorable ?? true,
      ownKey: flow.ownKey,
      peerKey,
      wire: { src, dst, proto: talk.proto, sport: slotKey.sport, dport: slotKey.dport },
      masqueraded: talk.masqueraded({ id: masquerade(flow.ownKey) }),
      ...inTunnel(talk),
      delivered: talk.delivered({ id: announcement(peerKey, true) }),
      sent: talk.sent({ id: 0xdead }),
    };
  }

  #establishLocal(): Known {
    const { bench } = this;
    const talk = new Conversation({ kind: 'tcp', sport: 41000, remote: neighbour(POD2) });
    bench.allow(talk);
    const sent = talk.sent({ dmac: POD2.mac, id: 0xdead });
    bench.run('pod_egress', sent);
    bench.run('pod_egress', sent);
    const { flowKey, ...common } = this.#common(talk, bench.node.ifindex.pod);
    if (bench.flow(flowKey) === undefined) throw new Error('the flow on the node was not admitted');
    return {
      ...common,
      ready: true,
      sound: true,
      local: true,
      tunnel: undefined,
      restorable: false,
      ownKey: 0,
      peerKey: 0,
      wire: common.tuple,
      masqueraded: talk.masqueraded({ id: masquerade(1) }),
      ...inTunnel(talk),
      delivered: talk.delivered({ id: announcement(1, true) }),
      sent,
    };
  }

  #establishTunnelled(tunnel: Tunnel, spec: ConversationSpec): Known {
    const { bench } = this;
    const talk = new Conversation({ remote: PLAIN_NODE, ...spec });
    bench.allow(talk);
    const { ifindex } = bench.flowKeyOf(talk);
    const { leaving, arriving } = inTunnel(talk, tunnel);
    bench.run('pod_egress', talk.sent(), { ifindex });
    bench.run('uplink_egress', leaving);
    bench.run('pod_egress', talk.sent(), { ifindex });
    bench.run('uplink_ingress', arriving);
    bench.run('pod_ingress', talk.delivered(), { ifindex });
    if (bench.run('uplink_ingress', arriving).verdict !== Verdict.redirect) throw new Error('the tunnel is not fast');
    bench.run('pod_egress', talk.sent(), { ifindex });
    const common = this.#common(talk, ifindex);
    return {
      ...common,
      ready: true,
      sound: true,
      local: false,
      tunnel,
      restorable: false,
      ownKey: 0,
      peerKey: 0,
      wire: common.tuple,
      masqueraded: talk.masqueraded({ id: masquerade(1) }),
      leaving,
      arriving,
      delivered: talk.delivered({ id: announcement(1, true) }),
      sent: talk.sent({ id: 0xdead }),
    };
  }

  /** `restore` and `allow` work on what is in the maps when this is called. */
  #common(
    talk: Conversation,
    ifindex: number,
    slotKey?: SlotKey,
  ): Pick<Known, 'talk' | 'ifindex' | 'tuple' | 'podMac' | 'otherMac' | 'restore' | 'allow'> & {
    flowKey: FlowKey;
  } {
    const { bench } = this;
    const flowKey = talk.flowKey(ifindex);
    const { sport, dport } = flowKey;
    const entries = [false, true].map((due) => this.#snapshot(flowKey, slotKey, due));
    return {
      talk,
      ifindex,
      flowKey,
      tuple: { src: hex(flowKey.saddr), dst: hex(flowKey.daddr), proto: talk.proto, sport, dport },
      podMac: macBytes(talk.local.mac),
      otherMac: macBytes(talk.remote.mac),
      restore(due) {
        for (const [fd, entryKey, value] of entries[due ? 1 : 0] ?? []) {
          const rc = libbpf().bpf_map_update_elem(fd, entryKey, value, 0);
          if (rc !== 0) throw new Error(`restoring a map entry: ${rc}`);
        }
      },
      allow() {
        try {
          bench.allow(talk);
        } catch (error) {
          if (!isNetlinkError(error, 'EEXIST')) throw error;
        }
      },
    };
  }

  /** The map entries of a connection as they are now: map, key, value. `due`: with every check due. */
  #snapshot(
    flowKey: FlowKey,
    slotKey: SlotKey | undefined,
    due: boolean,
  ): readonly (readonly [number, Buffer, Buffer])[] {
    const { bench } = this;
    const flow = bench.flow(flowKey);
    if (flow === undefined) throw new Error('the flow is not there any more');
    const times = due
      ? { verifyAt: 1n, recheckAt: 1n, rxRecheckAt: 1n }
      : { verifyAt: NEVER, recheckAt: NEVER, rxRecheckAt: NEVER };
    const flowBytes = maps.flows.value.encode({ ...flow, ...times, unansweredSince: 0n });
    const flowEntry = [bench.object.mapFd('flows'), maps.flows.key.encode(flowKey), flowBytes] as const;
    const slot = slotKey === undefined ? undefined : bench.slot(slotKey);
    if (slot === undefined || slotKey === undefined) return [flowEntry];
    // No acknowledgements: copies of packets would really be sent.
    const slotBytes = maps.slots.value.encode({ ...slot, recheckAt: due ? 1n : NEVER, ackAt: NEVER });
    return [flowEntry, [bench.object.mapFd('slots'), maps.slots.key.encode(slotKey), slotBytes]];
  }
}
