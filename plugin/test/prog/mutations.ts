/**
 * Guards of the data plane, how to take each one out, and the rule that then must fail. Searched text must occur exactly
 * once in its file.
 */
import { KERNEL_SUMS } from './harness.ts';

/** One change of the sources. */
export interface Edit {
  /** File in bpf-src. */
  readonly file: string;
  readonly search: string;
  readonly replace: string;
}

/** One guard taken out. */
export interface Mutation {
  readonly guard: string;
  readonly edits: readonly Edit[];
  /** Name of the rule that proves the guard. */
  readonly rule: string;
}

/** @param edits pairs of searched text and replacement in `file` */
function mutation(
  guard: string,
  file: string,
  rule: string,
  ...edits: readonly (readonly [string, string])[]
): Mutation {
  return { guard, rule, edits: edits.map(([search, replace]) => ({ file, search, replace })) };
}

const SOURCES =
  'if (source != CT_MARK_SOURCE_TUNNEL && source != CT_MARK_SOURCE_POD &&\n\t    !(source == CT_MARK_SOURCE_GATEWAY && routed))';

const admission: Mutation[] = [
  mutation(
    'mark nibble 0 is not allowed',
    'conntrack.h',
    'conntrack: mark nibble 0: refused',
    ['if (!source)', 'if (0)'],
    [SOURCES, 'if (0)'],
  ),
  mutation('mark nibble 1 or 3', 'conntrack.h', 'conntrack: mark nibble 2 (gateway): refused', [SOURCES, 'if (0)']),
  mutation('mark bit SNAT', 'conntrack.h', 'conntrack: mark bit 5 (SNAT): refused', [
    'if (mark & CT_MARK_SNAT)',
    'if (0)',
  ]),
  mutation('mark bit hairpin', 'conntrack.h', 'conntrack: mark bit 6 (hairpin): refused', [
    'if (mark & CT_MARK_HAIRPIN)',
    'if (0)',
  ]),
  mutation('mark bit L7', 'conntrack.h', 'conntrack at the recheck: mark bit 7 (L7): demoted', [
    'if (mark & CT_MARK_L7)',
    'if (0)',
  ]),
  mutation('mark bit Service', 'conntrack.h', 'conntrack: mark bit 4 (Service): refused', [
    '!(mark & CT_MARK_SERVICE) != !(status & CT_DST_NAT)',
    '(!(mark & CT_MARK_SERVICE) && (status & CT_DST_NAT))',
  ]),
  mutation('translated destination', 'conntrack.h', 'Service without Antrea’s mark: refused', [
    '!(mark & CT_MARK_SERVICE) != !(status & CT_DST_NAT)',
    '((mark & CT_MARK_SERVICE) && !(status & CT_DST_NAT))',
  ]),
  mutation('Services begin here', 'conntrack.h', 'Service that came by the tunnel (DSR): refused', [
    '((mark & CT_MARK_SERVICE) && source != CT_MARK_SOURCE_POD)',
    '0',
  ]),
  mutation('endpoints are pods', 'flow.h', 'Service: an endpoint that is no pod: refused', [
    '!translated || !is_pod(&f->out.daddr)',
    '!translated',
  ]),
  mutation(
    'a refusal that cost a lookup is remembered',
    'flow.h',
    'conntrack is not asked about every packet to a Service on a node without XMasq',
    ['if (translated)\n\t\t\t\trefuse(key, why, now);', ''],
  ),
  mutation('queries of DNS cost no lookup', 'flow.h', 'conntrack is not asked about queries to port 53 of a Service', [
    'if (key->dport == bpf_htons(53) && (key->proto',
    'if (0 && (key->proto',
  ]),
  mutation(
    'Services have addresses of their own',
    'flow.h',
    'a pod’s address translated to a pod of this node is no Service: refused',
    ['!addr_equal(&f->out.daddr, &key->daddr) || f->out.dport != key->dport', '0'],
  ),
  mutation(
    'Services are not ports of pods',
    'flow.h',
    'a pod of this node whose port is translated is no Service: refused',
    [' || f->out.dport != key->dport)', ')'],
  ),
  mutation('Services: DNS of the endpoint', 'flow.h', 'Service: its own port or the endpoint’s is DNS’s: refused', [
    '(key->dport == bpf_htons(53) || f->out.dport == bpf_htons(53))',
    'key->dport == bpf_htons(53)',
  ]),
  mutation(
    'Services: DNS of the Service',
    'flow.h',
    'Service on the same node: an answer from port 53 of the Service stays slow',
    ['if (f->out.sport == bpf_htons(53))', 'if (0)'],
  ),
  mutation('Services: reserved ports', 'flow.h', 'Service: the endpoint’s port is a reserved one: refused', [
    'if (translated && reserved_port(f->out.dport, cfg->tunnel_port))',
    'if (0)',
  ]),
  mutation('Services: hairpin', 'flow.h', 'Service on the same node: the pod itself is the endpoint: refused', [
    'if (ep->ifindex == key->ifindex) {',
    'if (0) {',
  ]),
  mutation(
    'the endpoint at the sender’s recheck',
    'flow.h',
    'Service: another endpoint since, seen by the sender: the flow ends',
    ['if (!same_tuple(&out, &f->out))', 'if (0)'],
  ),
  mutation(
    'the endpoint at the receiver’s recheck',
    'uplink_ingress.h',
    'Service: another endpoint since, seen by the receiver: not restored',
    ['if (!reason && f && !same_tuple(&out, &f->out))', 'if (0)'],
  ),
  mutation(
    'a slot is one Service’s',
    'flow.h',
    'Service: the same ports between the nodes, but another Service: the slot is taken',
    ['same = addr_equal(&s->saddr, &key->daddr) && ', 'same = '],
  ),
  mutation(
    'a slot is one Service port’s',
    'flow.h',
    'Service: the same ports between the nodes, but another port of the Service: the slot is taken',
    [
      'same = addr_equal(&s->saddr, &key->daddr) && s->sport == reply_port(key) &&',
      'same = addr_equal(&s->saddr, &key->daddr) &&',
    ],
  ),
  mutation(
    'a slot is one endpoint’s',
    'flow.h',
    'Service: the same ports and Service, but another endpoint: not with a slot freed just now',
    ['addr_equal(&s->pod, &f->out.daddr) && ', ''],
  ),
  mutation(
    'conntrack’s entries of the outside are not ours',
    'admission.h',
    'connections to the outside are refused and left alone',
    [' && is_pod(&out.daddr))', ')'],
  ),
  mutation(
    'Services: a new connection is judged',
    'admission.h',
    'Service: SYN on the ports of an established connection expires it',
    [' && is_pod(&out.daddr))', ' && is_pod(&key->daddr))'],
  ),
  mutation(
    'no key reaches a pod from a Service',
    'pod_ingress.h',
    'Service: an announcement before the flow is admitted: erased',
    ['|| !is_service(skb, cfg, &key)', '|| 1'],
  ),
  mutation(
    'no key reaches a pod from a Service before admission',
    'pod_ingress.h',
    'Service: an announcement to a pod whose packets nobody has judged yet: erased',
    ['if (!has_lookup(cfg, key->proto))\n\t\t\treturn false;', 'return false;'],
  ),
  mutation(
    'before admission the IDs of the outside are its own',
    'pod_ingress.h',
    'the outside: an ID that looks like an announcement, before anybody has judged the connection: left alone',
    ['return !addr_equal(&out.daddr, &key->daddr) && is_pod(&out.daddr);', 'return true;'],
  ),
  mutation(
    'the IDs of pods of this node are their own',
    'pod_ingress.h',
    'the ID of a packet from a pod of this node is left alone, also after a refusal',
    ['bpf_map_lookup_elem(&endpoint_by_addr, &p.saddr) || ', ''],
  ),
  mutation(
    'the IDs of the outside are its own',
    'pod_ingress.h',
    'connections to the outside are refused and left alone',
    ['if (r->reason != XMASQ_REASON_NOT_POD)', 'if (1)'],
  ),
  mutation('keys come from the endpoint’s node', 'pod_ingress.h', 'Service: keys come from the endpoint’s node', [
    'from == f->peer && ',
    '',
  ]),
  mutation(
    'same-node Services are learned first',
    'flow.h',
    'Service on the same node: slow until it is known how the slow path delivers',
    ['f->flags |= XMASQ_FLOW_UNLEARNED;', ''],
  ),
  mutation(
    'same-node Services: the TTL that is learned',
    'pod_ingress.h',
    'Service on the same node: a delivered TTL that is not the sender’s teaches nothing',
    ['(__u8)(sender->ttl - p->ttl) > 1', '0'],
  ),
  mutation(
    'same-node Services: the DSCP that is learned',
    'pod_ingress.h',
    'Service on the same node: a delivered TTL that is not the sender’s teaches nothing',
    ['(p->tos & ~TOS_ECN) != sender->tos', '0'],
  ),
  mutation(
    'same-node Services: TTL and DSCP are bound',
    'pod_egress.h',
    'Service on the same node: another TTL goes slow',
    [
      'if ((f->flags & (XMASQ_FLOW_LOCAL | XMASQ_FLOW_SERVICE)) == XMASQ_FLOW_LOCAL)',
      'if (f->flags & XMASQ_FLOW_LOCAL)',
    ],
  ),
  mutation(
    'same-node Services: the frame is for the gateway',
    'pod_egress.h',
    'Service on the same node: a frame that is not for the gateway goes slow',
    ['if ((f->flags & XMASQ_FLOW_LOCAL) && !mac_equal(eth->h_dest, f->via_mac))', 'if (0)'],
  ),
  mutation('forbidden status bits', 'conntrack.h', 'conntrack: translated source: refused', [
    'if (status & CT_FORBIDDEN)',
    'if (0)',
  ]),
  mutation('SEEN_REPLY', 'conntrack.h', 'conntrack: not replied: refused', [
    'if (!(status & CT_SEEN_REPLY))',
    'if (0)',
  ]),
  mutation('TCP ESTABLISHED', 'conntrack.h', 'conntrack: TCP timeWait: refused', [
    'ct->proto.tcp.state != CT_TCP_ESTABLISHED',
    '0',
  ]),
  mutation('UDP ASSURED', 'conntrack.h', 'conntrack: UDP not assured: refused', [': !(status & CT_ASSURED))', ': 0)']),
  mutation('the zone', 'conntrack.h', 'conntrack: zone 0: refused', ['.ct_zone_id = zone,', '.ct_zone_id = 0,']),
  mutation('an approval has an end', 'admission.h', 'icmp with an approval that has expired: refused', [
    'approved_until(key) > bpf_ktime_get_coarse_ns()',
    'approved_until(key)',
  ]),
  mutation('the sender’s MAC at admission', 'flow.h', 'a source MAC that is not the pod’s: refused', [
    ' || !mac_equal(ep->mac, f->pod_mac)',
    '',
  ]),
  mutation('the sender’s address at admission', 'flow.h', 'a source address that is not the pod’s: refused', [
    'if (!owns_address(ep, &key->saddr) || !mac_equal(ep->mac, f->pod_mac))',
    'if (!mac_equal(ep->mac, f->pod_mac))',
  ]),
  mutation('excluded pods', 'flow.h', 'an excluded pod: refused', ['excluded = ep->excluded;', 'excluded = 0;']),
  mutation('excluded nodes', 'flow.h', 'traffic with other nodes is excluded: refused', [
    'excluded = cfg->excluded_remote;',
    'excluded = 0;',
  ]),
  mutation('excluded nodes, fast flows', 'flow.h', 'traffic with other nodes excluded since: slow, and the flow ends', [
    'reason = f->flags & XMASQ_FLOW_LOCAL ? cfg->excluded_local : cfg->excluded_remote;',
    'reason = 0;',
  ]),
  mutation(
    'the cause before the peer',
    'flow.h',
    'traffic with other nodes is excluded, and the peer is not capable either: refused',
    ['if (!*excluded && !(cfg->flags & XMASQ_CFG_ENCAP))', 'if (!(cfg->flags & XMASQ_CFG_ENCAP))'],
  ),
  mutation('paused admission', 'flow.h', 'no new flows are admitted: refused', [
    'excluded = cfg->paused;',
    'excluded = 0;',
  ]),
  mutation('gateway addresses are no pods', 'admission.h', 'a gateway address inside a peer’s pod CIDR: refused', [
    'dest && dest->kind == XMASQ_DEST_PEER',
    'dest',
  ]),
  mutation('the peer is capable', 'flow.h', 'a pod on a node without XMasq: refused', [
    'if (!(peer->flags & XMASQ_PEER_CAPABLE))\n',
    'if (0)\n',
  ]),
  mutation(
    'a frame on the node is for the pod with this MAC',
    'flow.h',
    'same node: a frame for another MAC is not for that pod (new flow)',
    ['!translated && !mac_equal(ep->mac, f->via_mac)', '0'],
  ),
  mutation(
    'a slot has one owner',
    'flow.h',
    'a slot of another pod pair: refused',
    ['reason = XMASQ_REASON_SLOT_TAKEN;\n\t} else if', 'goto take;\n\t} else if'],
    [
      '\t\t__u32 gen = s->gen;\n\n\t\ts->gen = gen | 1;',
      '\t\t__u32 gen;\n\ntake:\n\t\tgen = s->gen;\n\t\ts->gen = gen | 1;',
    ],
  ),
  mutation('a freed slot rests', 'flow.h', 'a slot that another pod pair freed less than 120 s ago: refused', [
    'wait = same ? XMASQ_QUIET_NS : XMASQ_TOMBSTONE_NS;',
    'wait = XMASQ_QUIET_NS;',
  ]),
  mutation(
    'a freed slot is quiet at first',
    'flow.h',
    'a slot that the same pods freed less than 500 ms ago: refused',
    ['wait = same ? XMASQ_QUIET_NS : XMASQ_TOMBSTONE_NS;', 'wait = same ? 0 : XMASQ_TOMBSTONE_NS;'],
  ),
  mutation(
    'fresh state is quiet at first',
    'flow.h',
    'in the first 500 ms after a loss of state: nothing is admitted',
    ['if ((__s64)(now - cfg->state_since) < (__s64)XMASQ_QUIET_NS)', 'if (0)'],
  ),
  mutation(
    'successive keys differ',
    'flow.h',
    'a slot that the same pods freed 500 ms ago: taken again, with another key',
    ['s->key = usable_key(s->key + 1 + (bpf_get_prandom_u32() & 0x7f));', ''],
  ),
  mutation(
    'a lost flow comes back with another key',
    'flow.h',
    'a live slot of the same pods whose flow is lost: used again at once, with another key',
    [
      's->key = usable_key(s->key + 1 + (bpf_get_prandom_u32() & 0x7f));',
      'if (s->state != XMASQ_SLOT_ACTIVE) s->key = usable_key(s->key + 1 + (bpf_get_prandom_u32() & 0x7f));',
    ],
  ),
  mutation(
    'a new owner has learned nothing',
    'flow.h',
    'a slot that the same pods freed 500 ms ago: taken again, with another key',
    ['s->flags = 0;', ''],
  ),
  mutation('refused flows pause', 'flow.h', 'a refused flow asks four times at once, then pauses', [
    'r && now < r->until',
    '0',
  ]),
];

const sending: Mutation[] = [
  mutation(
    'the sender’s MAC in a flow',
    'pod_egress.h',
    'a fast flow with another source MAC: slow, does not announce',
    ['if (!mac_equal(eth->h_source, f->pod_mac))', 'if (0)'],
  ),
  mutation(
    'the receiver’s MAC on the node',
    'pod_egress.h',
    'same node: a frame for another MAC is not for that pod (fast flow)',
    ['if ((f->flags & XMASQ_FLOW_LOCAL) && !mac_equal(eth->h_dest, f->via_mac))', 'if (0)'],
  ),
  mutation('the marker is cleared', 'pod_egress.h', 'first fragment: slow, marker cleared (new flow)', [
    'if (!write_id(skb, p->v6, id))',
    'if (0)',
  ]),
  mutation(
    'the marker below VLAN tags is cleared',
    'pod_egress.h',
    'VLAN tags in the frame: slow, the marker below them cleared, dropped if there are more than 8',
    ['\tset_id4(&ip, to);\n', ''],
  ),
  mutation('no forged control message from a pod', 'pod_egress.h', 'forged control message to a peer: dropped', [
    'forges_control(skb, cfg, &p))\n\t\treturn DROP;',
    'forges_control(skb, cfg, &p))\n\t\treturn PASS;',
  ]),
  mutation('nor in a later segment', 'packet.h', 'forged control message in a later segment: dropped', [
    'i < UDP_MAX_SEGMENTS && i < segments',
    'i < 1',
  ]),
  mutation(
    'nor beyond the segments that are looked at',
    'packet.h',
    'forged control message in more segments than are looked at: dropped',
    ['if (segments > UDP_MAX_SEGMENTS)', 'if (0)'],
  ),
  mutation(
    'nor from port 53',
    'pod_egress.h',
    'forged control message from port 53, which may be translated: dropped',
    [' || p.reason == XMASQ_REASON_DNS_REPLY', ''],
  ),
  mutation('nor below nested tags', 'pod_egress.h', 'forged control message below nested tags, segmented: dropped', [
    'if (skb->gso_size && ip.protocol == IPPROTO_UDP',
    'if (0 && ip.protocol == IPPROTO_UDP',
  ]),
  mutation(
    'too many VLAN tags',
    'pod_egress.h',
    'VLAN tags in the frame: slow, the marker below them cleared, dropped if there are more than 8',
    ['\tif (is_vlan(protocol))\n\t\treturn DROP;', '\tif (is_vlan(protocol))\n\t\treturn PASS;'],
  ),
  mutation('segments must not count into the marker', 'packet.h', 'marker: segments that would count into the marker', [
    'if (!v6 && (__u32)id + segments > 0x8000)',
    'if (0)',
  ]),
  mutation('AH is left alone', 'pod_egress.h', 'AH: slow, and its ID is left alone', [
    'if (p->proto == IPPROTO_AH)',
    'if (0)',
  ]),
  mutation('endpoint epoch', 'flow.h', 'endpoint epoch changed: stale', [
    'if (!endpoint_valid(f->endpoint, f->endpoint_epoch))',
    'if (0)',
  ]),
  mutation('peer epoch', 'flow.h', 'peer epoch changed: stale', [
    '!peer_valid(f->peer, f->peer_epoch) || !addr_equal(&f->node_saddr',
    '!addr_equal(&f->node_saddr',
  ]),
  mutation('own slot belongs to the flow', 'flow.h', 'own slot given to another pair: stale', [
    '!s || s->gen != f->slot_gen || s->state != XMASQ_SLOT_ACTIVE',
    '!s || s->state != XMASQ_SLOT_ACTIVE',
  ]),
  mutation('own slot is active', 'flow.h', 'own slot a tombstone: stale', [
    '!s || s->gen != f->slot_gen || s->state != XMASQ_SLOT_ACTIVE',
    '!s || s->gen != f->slot_gen',
  ]),
  mutation('conntrack is asked again', 'flow.h', 'an entry that is gone at the recheck ends the flow', [
    'if (now >= f->recheck_at)',
    'if (0)',
  ]),
  mutation(
    'a peer that does not prove that it hears us',
    'flow.h',
    'a peer that is heard, but has not proved for 5 s that it hears us: slow and announcing, with A',
    ['!peer_confirmed(f->peer, now)', '0'],
  ),
  mutation('A only to a peer that is heard', 'pod_egress.h', 'peer silent for 5 s: slow and announcing, without A', [
    ' && peer_heard(f->peer, now))',
    ')',
  ]),
  mutation('A not from within a black hole', 'pod_egress.h', 'sent fast, heard nothing for 500 ms: black hole', [
    ' && now >= f->hole_until && ',
    ' && ',
  ]),
  mutation('a same-node flow stays as a tombstone', 'flow.h', 'same node: the other pod’s epoch changed: stale', [
    'return now < f->hole_until ? 0 : XMASQ_REASON_STALE;',
    'return XMASQ_REASON_STALE;',
  ]),
  mutation('black holes', 'flow.h', 'sent fast, heard nothing for 500 ms: black hole', [
    'now - f->unanswered_since > XMASQ_SILENCE_NS',
    '0',
  ]),
  mutation(
    'what arrives is an answer',
    'flow.h',
    'no black hole: masqueraded packets arrive, within the tick of the clock in which the pod sent',
    ['heard = (__u32)s->rx_packets + s->acks;', 'heard = s->acks;'],
  ),
  mutation(
    'an acknowledgement is an answer',
    'flow.h',
    'no black hole: acknowledgements arrive, within the tick of the clock in which the pod sent',
    ['heard = (__u32)s->rx_packets + s->acks;', 'heard = (__u32)s->rx_packets;'],
  ),
  mutation('answers are those since the silence began', 'flow.h', 'black hole: what had come before is no answer', [
    'f->unanswered_heard = heard;',
    '',
  ]),
  ...(
    [
      ['a tick counts as nothing come', 'f->last_tx >= s->last_rx', 'f->last_tx > s->last_rx'],
      ['what came since begins the silence anew', 'f->last_tx >= s->last_rx', '1'],
      ['a retransmission does not begin the silence', 'now - f->last_tx < XMASQ_SILENCE_NS / 2', '0'],
    ] as const
  ).map(([name, ...change]) =>
    mutation(name, 'flow.h', 'the silence begins with the packet before this one, if nothing has come since', change),
  ),
  mutation('acknowledgements are counted', 'uplink_ingress.h', 'ack: the slot and the peer are heard of', [
    '__sync_fetch_and_add(&s->acks, 1);',
    '',
  ]),
  mutation(
    'no fault of the path after a pause',
    'exchange.h',
    'path: a peer that does not hear us after a pause of ours says nothing of the path',
    ['now - f->last_tx < XMASQ_SEND_LIFE_NS', '1'],
  ),
  mutation('the A bit', 'flow.h', 'not fast before the peer says that it holds our key', [
    '(XMASQ_FLOW_HAVE_KEY | XMASQ_FLOW_ANNOUNCED | XMASQ_FLOW_PEER_COMPLETE)',
    '(XMASQ_FLOW_HAVE_KEY | XMASQ_FLOW_ANNOUNCED)',
  ]),
  mutation('TTL and DSCP are bound', 'pod_egress.h', 'another DSCP in a fast flow: slow, does not announce', [
    'deviates = p.ttl != f->ttl || (p.tos & ~TOS_ECN) != f->tos;',
    'deviates = p.ttl != f->ttl;',
  ]),
  mutation('deviating packets do not announce', 'pod_egress.h', 'another TTL in a fast flow: slow, does not announce', [
    'if (deviates || !announces(cfg, &p, f))',
    'if (!announces(cfg, &p, f))',
  ]),
  mutation('TTL 1', 'packet.h', 'TTL 1: slow', ['if (p->ttl <= 1)', 'if (0)']),
  mutation('Traceflow', 'packet.h', 'Traceflow DSCP (TOS 0xc): slow', [
    'if ((p->tos & TOS_TRACEFLOW) == TOS_TRACEFLOW)',
    'if (0)',
  ]),
  mutation('replies from port 53', 'packet.h', 'source port 53 (UDP): slow, marker cleared (new flow)', [
    'if (p->sport == bpf_htons(53))',
    'if (0)',
  ]),
  mutation('reserved ports', 'packet.h', 'to port 4500: slow, marker cleared (fast flow)', [
    'else if (reserved_port(p->sport, tunnel_port) || reserved_port(p->dport, tunnel_port))',
    'else if (0)',
  ]),
  mutation('fragments', 'packet.h', 'first fragment: slow, marker cleared (fast flow)', [
    '(ip->frag_off & bpf_htons(0xffff & ~IP_DF))',
    '(ip->frag_off & bpf_htons(IP_EVIL))',
  ]),
  mutation('IP options', 'packet.h', 'IP options: slow, marker cleared (fast flow)', [
    '(*(__u8 *)ip ^ IPPROTO_VERSION_IHL) | ',
    '',
  ]),
  mutation('lengths', 'packet.h', 'bytes after the packet: slow, marker cleared (fast flow)', [
    '(padded ? p->tot_len + l3_off > skb->len : (p->tot_len + l3_off) ^ skb->len)',
    '(p->tot_len + l3_off > skb->len)',
  ]),
  mutation(
    'a new connection is not the old one',
    'pod_egress.h',
    'SYN on the ports of an established connection: its entry expires',
    ['from_pod(key, mac)', '0'],
  ),
  mutation(
    'a late SYN+ACK',
    'pod_egress.h',
    'SYN+ACK on the ports of an established connection: a late one, its entry stays',
    ['(p.tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN', 'p.tcp_flags & TCP_SYN'],
  ),
  mutation(
    'the MAC of a SYN',
    'flow.h',
    'SYN from another MAC on the ports of an established connection: its entry stays',
    ['(!mac || mac_equal(mac, ep->mac))', '1'],
  ),
  mutation(
    'a RST that conntrack refuses',
    'pod_egress.h',
    'RST while the peer is silent, with a number that conntrack would refuse: fast',
    ['!ct_refuses_reset(skb, cfg, &key)', '1'],
  ),
  mutation('SYN', 'packet.h', 'SYN of a fast flow: slow, and the flow ends', ['if (p->tcp_flags & TCP_SYN)', 'if (0)']),
  mutation('FIN', 'packet.h', 'FIN of a fast flow: slow, and the flow ends', [
    'else if (p->tcp_flags & TCP_FIN)',
    'else if (0)',
  ]),
  mutation('SCTP control chunks', 'packet.h', 'SCTP INIT: slow and announcing (fast flow)', [
    'if (!sctp_is_data(skb, l4_off))',
    'if (0)',
  ]),
  mutation('ICMP other than echo', 'packet.h', 'ICMP unreachable: slow, marker cleared (new flow)', [
    'if (l4[1] || (v6',
    'if (0 && (v6',
  ]),
  mutation('64 segments', 'packet.h', 'more than 64 segments: slow, does not announce', [
    'if (!p->reason && p->segments > ID_MAX_SEGMENTS)',
    'if (0)',
  ]),
  mutation(
    'a smaller MTU that the node was told of',
    'pod_egress.h',
    'tunnel: a router has told the node of a smaller MTU: the next hop is looked up at once',
    ['mtu_just_told(f->peer, now)', 'false'],
  ),
  mutation(
    'a flow without a slot asks again at the right time',
    'flow.h',
    'tunnel: a flow that found no slot asks again when that can be had, and after 30 s at the latest',
    ['if (!f->hole_until || f->hole_until > now + XMASQ_REKEY_NS)', 'if (1)'],
  ),
  mutation(
    'a flow that found its slot locked asks again soon',
    'flow.h',
    'tunnel: a flow that found its slot locked asks again at the next look',
    ['f->hole_until = now + XMASQ_VERIFY_NS;', ''],
  ),
  mutation(
    'a node that has an address again gives its flows keys',
    'flow.h',
    'tunnel: a flow that has no keys, as its node had no address, is admitted anew when it has one',
    ['if (f->unkeyed == XMASQ_REASON_MODE && !keyless(cfg, peer, v4))', 'if (0)'],
  ),
  mutation('the uplink’s MTU', 'pod_egress.h', 'larger than the uplink’s MTU: slow and announcing', [
    'if (!reason && too_big(skb, v6, &p, f, 0))',
    'if (0)',
  ]),
  mutation(
    'an entry taken over while it is read',
    'pod_egress.h',
    'a flow entry that another flow took over while it was read: slow',
    ['since the lookup. */\n\tif (f->gen != gen || f->gen2 != gen)\n\t\treturn false;', 'since the lookup. */'],
  ),
  mutation(
    'RST ends the conntrack entry',
    'pod_egress.h',
    'RST of a fast flow: carried fast, ends the flow, its slot and the conntrack entry',
    ['count(XMASQ_COUNTER_FLOW_CLOSED);\n\t\tct_reset(skb, cfg, &key, f->peer);', 'count(XMASQ_COUNTER_FLOW_CLOSED);'],
  ),
  mutation('RST ends only what is allowed', 'admission.h', 'RST does not end an entry that is not allowed any more', [
    'if (!ct_verdict(ct, key->proto, answers_routed(cfg, key, dir)) && is_pod(&out.daddr))',
    'if (1)',
  ]),
  mutation('timeouts are not shortened', 'conntrack.h', 'timeouts are never shortened', [
    '(left < 0x80000000 && left + hz / 2 >= target)',
    '0',
  ]),
  mutation('draining: nothing new', 'flow.h', 'a node that does not admit: refused', [
    'if (!(cfg->flags & XMASQ_CFG_ADMIT))\n\t\treturn XMASQ_REASON_DRAINING;',
    '',
  ]),
  mutation(
    'draining: nothing is announced',
    'pod_egress.h',
    'nothing sent while the node does not send, and nothing announced while it does not admit',
    [' && (cfg->flags & XMASQ_CFG_ADMIT);', ';'],
  ),
];

const restoring: Mutation[] = [
  mutation('the slot’s key', 'uplink_ingress.h', 'rejected: another key', [
    'valid = s->key == (__u8)(p.id >> ID_KEY_SHIFT) &&',
    'valid =',
  ]),
  mutation('COMPLETE', 'uplink_ingress.h', 'rejected: a slot that has learned no header', [
    'if (!(flags & XMASQ_SLOT_COMPLETE))',
    'if (0)',
  ]),
  mutation('a slot that changes', 'uplink_ingress.h', 'rejected: a slot that is being changed', ['(gen & 1) || ', '']),
  mutation('tombstones', 'uplink_ingress.h', 'rejected: a tombstone', [
    '(state == XMASQ_SLOT_CLOSING && now - s->freed_at <= XMASQ_CLOSING_NS)',
    '(state != XMASQ_SLOT_CLOSING || now - s->freed_at <= XMASQ_CLOSING_NS)',
  ]),
  mutation('closing has an end', 'uplink_ingress.h', 'rejected: more than a second after a FIN', [
    ' && now - s->freed_at <= XMASQ_CLOSING_NS',
    '',
  ]),
  mutation('endpoint epoch at the restore', 'uplink_ingress.h', 'rejected: endpoint epoch changed', [
    'endpoint_valid(s->endpoint, s->endpoint_epoch) && ',
    '',
  ]),
  mutation('peer epoch at the restore', 'uplink_ingress.h', 'rejected: peer epoch changed', [
    ' && peer_valid(peer, s->peer_epoch);',
    ';',
  ]),
  mutation('excluded pods at the restore', 'flow.h', 'rejected: endpoint excluded', [' && !ep->excluded', '']),
  mutation('conntrack at the restore', 'uplink_ingress.h', 'the conntrack entry is gone: demoted and rejected', [
    'if (now >= s->recheck_at)',
    'if (0)',
  ]),
  mutation('the flow at the restore', 'uplink_ingress.h', 'the flow of the slot is gone: rejected', [
    '\tif (!f || f->slot_gen != s->gen) {\n\t\tfree_slot',
    '\tif (!f)\n\t\treturn XMASQ_REASON_NONE;\n\tif (0) {\n\t\tfree_slot',
  ]),
  mutation('DF is judged', 'uplink_ingress.h', 'not masqueraded: no DF', [
    ' || !p.df || !(p.id & ID_MARKER))',
    ' || !(p.id & ID_MARKER))',
  ]),
  mutation('the marker is judged', 'uplink_ingress.h', 'not masqueraded: no marker', [' || !(p.id & ID_MARKER))', ')']),
  mutation('fragments are judged', 'packet.h', 'not masqueraded: first fragment', [
    '(ip->frag_off & bpf_htons(0xffff & ~IP_DF))',
    '(ip->frag_off & bpf_htons(IP_EVIL))',
  ]),
  mutation('FIN is judged', 'packet.h', 'not masqueraded: FIN', ['else if (p->tcp_flags & TCP_FIN)', 'else if (0)']),
  mutation('the destination is judged', 'uplink_ingress.h', 'not masqueraded: another address of the node', [
    'if (!addr_equal(&p.daddr, uplink_addr(cfg, !v6)))',
    'if (0)',
  ]),
  mutation('pkt_type is judged', 'uplink_ingress.h', 'not masqueraded: another host’s frame (pkt_type OTHERHOST)', [
    'skb->pkt_type != PACKET_HOST || ',
    '',
  ]),
  mutation(
    'silent peers are not interpreted',
    'uplink_ingress.h',
    'not masqueraded: unknown key from a peer that was not heard of for 30 s',
    [
      'if (!id || !peer_interpreted(cfg, *id, now))\n\t\t\treturn PASS;\n\t\treturn unknown',
      'if (!id)\n\t\t\treturn PASS;\n\t\treturn unknown',
    ],
  ),
  mutation(
    'the node’s own connections',
    'uplink_ingress.h',
    'a zone-0 connection of the node itself: passes, counted',
    ['if (is_nodes_own(skb, p, false))\n\t\treturn pass_own(peer);', ''],
  ),
  mutation('unknown keys are dropped', 'uplink_ingress.h', 'RST with an unknown key: dropped, not answered', [
    'if ((p->tcp_flags & TCP_RST) || !may_reject(peer, now))\n\t\treturn DROP;',
    'if ((p->tcp_flags & TCP_RST) || !may_reject(peer, now))\n\t\treturn PASS;',
  ]),
  mutation(
    'rejections are limited',
    'uplink_ingress.h',
    'at most 100 rejections to a peer in a second, the rest is dropped',
    ['if (ps->reject_count >= XMASQ_REJECTS_PER_SEC)', 'if (0)'],
  ),
  mutation('a message names the current key', 'uplink_ingress.h', 'control message ignored: another key', [
    ' || f->peer_key != m.key ||',
    ' ||',
  ]),
  mutation('a message has our version', 'uplink_ingress.h', 'control message ignored: another version', [
    ' ||\n\t    m.version != XMASQ_PROTOCOL_VERSION)',
    ')',
  ]),
  mutation(
    'a message is about a flow that is sent fast',
    'uplink_ingress.h',
    'control message ignored: a flow that has not sent with this key',
    [' || !f->fast_since)', ')'],
  ),
  mutation(
    'RST at the restore ends the conntrack entry',
    'uplink_ingress.h',
    'RST: delivered; ends the flow, the slot and the conntrack entry',
    ['\tct_reset(skb, cfg, &key, peer);', ''],
  ),
  mutation('the mark is cleared', 'receive.h', 'the mark is cleared, cb is empty', ['\tskb->mark = 0;\n', '']),
];

const exchange: Mutation[] = [
  mutation('keys do not reach pods', 'pod_ingress.h', 'without a flow, too', [
    'write_id(skb, v6, p.df ? 0 : fresh_id());',
    '',
  ]),
  mutation('keys come from peers', 'admission.h', 'forged keys from outside of the cluster teach nothing', [
    'dest && dest->kind == XMASQ_DEST_PEER',
    'dest',
  ]),
  mutation(
    'only capable peers have keys',
    'pod_ingress.h',
    'left alone: the ID of packets from a pod on a node without XMasq is their business',
    ['if (!peer || !(peer->flags & XMASQ_PEER_CAPABLE))', 'if (!peer)'],
  ),
  mutation(
    'the peer of the flow',
    'pod_ingress.h',
    'nothing is learned if the pod address belongs to another peer by now',
    ['from == f->peer && ', ''],
  ),
  mutation('the peer’s epoch when learning', 'pod_ingress.h', 'nothing is learned after the peer’s epoch has changed', [
    ' && peer_valid(f->peer, f->peer_epoch))',
    ')',
  ]),
  mutation('rejected keys rest', 'exchange.h', 'a rejected key is not learned before its time', [
    'if (now < f->reject_until && announced == f->reject_key)',
    'if (0)',
  ]),
  mutation('the absence of A counts', 'exchange.h', 'A sets PEER_COMPLETE, its absence clears it', [
    '__sync_fetch_and_and(&f->flags, ~XMASQ_FLOW_PEER_COMPLETE);',
    '',
  ]),
  mutation('the slot when learning', 'exchange.h', 'nothing is learned into a slot of another flow', [
    's->gen != f->slot_gen || ',
    '',
  ]),
  mutation(
    'a RST let pass ends the entry',
    'pod_ingress.h',
    'RST without a flow: the entry of the connection expires',
    ['(p.tcp_flags & TCP_RST) && from_pod(&key, NULL)', '0'],
  ),
  mutation(
    'a SYN that outlived its connection',
    'pod_ingress.h',
    'SYN of a connection that a RST has ended, passed for a part of it: dropped, its entry expires',
    ['outlived(skb, cfg, &key)', '0'],
  ),
  mutation('SYN and the pods of the slot', 'pod_ingress.h', 'SYN on the ports of other pods: delivered', [
    ' || !addr_equal(&s->daddr, &key->saddr) ||',
    ' ||',
  ]),
  mutation(
    'a SYN that outlived its connection, where approvals answer',
    'pod_ingress.h',
    'SYN of a connection that has ended, while its approval is left: dropped once, the sidecar is told',
    [': ct_outlives(skb, cfg, key, from)', ': false'],
  ),
  mutation(
    'a SYN beside an approval',
    'pod_egress.h',
    'SYN while an approval of its ports is left: dropped once, and the sidecar is told',
    ['ct_outlives(skb, cfg, key, 0)', '0'],
  ),
  mutation(
    'a SYN is dropped once',
    'admission.h',
    'SYN while an approval of its ports is left: dropped once, and the sidecar is told',
    ['	delete_approval(key);\n	return true;', '	return true;'],
  ),
  mutation(
    'a RST of a forgotten flow, where approvals answer',
    'admission.h',
    'RST without a flow while an approval is left: the sidecar is told',
    [' || approved_until(key)))', '))'],
  ),
  mutation(
    'a RST that the pod sends on a forgotten flow',
    'pod_egress.h',
    'RST without a flow while an approval is left: slow, and the sidecar is told',
    ['if (!(cfg->flags & XMASQ_CFG_CT_LOOKUP) && sent_by_pod(skb, &key))\n				ct_forget', 'if (0)\n				ct_forget'],
  ),
  mutation('a FIN ends the approval', 'pod_egress.h', 'FIN ends an approval: the next SYN is a new connection’s', [
    '!(cfg->flags & XMASQ_CFG_CT_LOOKUP) && sent_by_pod(skb, &key))\n			delete_approval',
    '0)\n			delete_approval',
  ]),
  mutation('a FIN that arrives ends the approval', 'pod_ingress.h', 'FIN on the slow path ends the approval, too', [
    'if (fin)\n				delete_approval(&key);',
    '',
  ]),
  mutation('SYN and a living connection', 'pod_ingress.h', 'SYN while the connection lives: delivered', [
    '!known && (p.tcp_flags',
    '(p.tcp_flags',
  ]),
  mutation(
    'an entry that refuses the RST',
    'pod_egress.h',
    'RST while the node drains, with a number that conntrack would refuse: slow, and its entry expires',
    ['			if (ct_refuses_reset(skb, cfg, &key))\n				ct_reset(skb, cfg, &key, f->peer);\n', ''],
  ),
  mutation(
    'life by the count',
    'exchange.h',
    'later segments, which segmentation has counted, teach nothing; they are erased',
    ['(p->id & ID_COUNT_MASK) || ', ''],
  ),
  mutation(
    'life by the repeated key',
    'exchange.h',
    'the IDs of a node that has lost its programs are no sign of life',
    ['if (!is_new || !peer_known(f->peer))', 'if (1)'],
  ),
  mutation('queries to port 53', 'flow.h', 'to port 53 (udp): no flow, because the replies stay slow', [
    'if ((key->dport == bpf_htons(53) || f->out.dport == bpf_htons(53)) &&',
    'if (0 &&',
  ]),
  mutation('the device of a RST', 'flow.h', 'RST on another pod’s device ends nothing', [
    'owns_address(ep, &key->saddr) && (!mac',
    '(!mac',
  ]),
  mutation('closing on the slow path', 'pod_ingress.h', 'RST on the slow path ends the flow', [
    'if (p.tcp_flags & (TCP_SYN | TCP_FIN | TCP_RST)) {',
    'if (0) {',
  ]),
];

const uplink: Mutation[] = [
  mutation('the node’s own marker', 'uplink_egress.h', 'marker cleared: a packet of the node to a peer', [
    'if (!write_id(skb, v6, to))',
    'if (0)',
  ]),
  mutation('segments of the node', 'packet.h', 'marker cleared: the marker is only in reach of the segments', [
    'if (!v6 && (__u32)id + segments > 0x8000)',
    'if (0)',
  ]),
  mutation('AH of the node', 'uplink_egress.h', 'passes as it is: AH: its signature covers the ID', [
    'if (!df || proto == IPPROTO_AH)',
    'if (!df)',
  ]),
  mutation('no DF', 'uplink_egress.h', 'passes as it is: no DF: its ID must stay unique, and nobody judges it', [
    'if (!df || proto == IPPROTO_AH)',
    'if (proto == IPPROTO_AH)',
  ]),
  mutation('only to peers', 'uplink_egress.h', 'passes as it is: to somebody who is no peer', [
    'if (to == id || !bpf_map_lookup_elem(&peer_by_addr, &daddr))',
    'if (to == id)',
  ]),
  mutation(
    'a control message of ours is one',
    'uplink_egress.h',
    'the magic of control messages on another packet: dropped',
    ['if (kind == KIND_CONTROL &&\n', 'if (kind == KIND_CONTROL || \n'],
  ),
  mutation(
    'every kind has its magic',
    'uplink_egress.h',
    'the magic of nothing that we send on another packet: dropped',
    ['if (kind != KIND_OWN)', 'if (0)'],
  ),
  mutation(
    'a pod’s marker needs the magic',
    'uplink_egress.h',
    'a pod’s packet with a marker and without the magic: dropped',
    ['if (is_pod_veth(skb->ingress_ifindex)) {', 'if (0) {'],
  ),
  mutation('cb is wiped', 'uplink_egress.h', 'ours: passes as it is, cb is wiped', [
    '\twipe_magic(skb);\n\tif (kind',
    '\tif (kind',
  ]),
  mutation('no forged control message leaves', 'uplink_egress.h', 'a control message of a pod, translated: dropped', [
    '\tcount(XMASQ_COUNTER_REJECT_IGNORED);\n\treturn DROP;',
    '\tcount(XMASQ_COUNTER_REJECT_IGNORED);\n\treturn PASS;',
  ]),
  mutation(
    'acknowledgements come from no pod',
    'uplink_egress.h',
    'the magic of acknowledgements on a pod’s packet: dropped',
    ['kind == KIND_ACK && !pod', 'kind == KIND_ACK'],
  ),
];

const instrumented: Mutation[] = [
  ...(['', ' (busy flow)'] as const).map((flow) =>
    mutation(
      `slots that change before a restore${flow}`,
      'uplink_ingress.h',
      `uplink_ingress: a slot that changes before the packet is restored by it: dropped as it came${flow}`,
      [
        'slot_was_read(s, RESTORE);\n\t\tif (s->gen != gen)\n\t\t\treturn 0;\n\t\tif (p->id',
        'slot_was_read(s, RESTORE);\n\t\tif (p->id',
      ],
    ),
  ),
  mutation(
    'slots that change before a restore, IPv6',
    'uplink_ingress.h',
    'uplink_ingress: a slot that changes before the packet is restored by it: dropped as it came (IPv6)',
    [
      'slot_was_read(s, RESTORE);\n\t\tif (s->gen != gen)\n\t\t\treturn 0;\n\t\twas[0]',
      'slot_was_read(s, RESTORE);\n\t\twas[0]',
    ],
  ),
  mutation(
    'slots that change while they are looked at',
    'uplink_ingress.h',
    'uplink_ingress: a slot that changes while it is looked at: rejected',
    ['!valid || (gen & 1) || s->gen != gen', '!valid || (gen & 1)'],
  ),
  mutation(
    'slots that change before a RST',
    'uplink_ingress.h',
    'uplink_ingress: a slot that changes before a RST ends its flow: the flow goes on',
    ['slot_was_read(s, RESET);\n\tif (s->gen != gen)', 'slot_was_read(s, RESET);\n\tif (0)'],
  ),
  mutation(
    'slots that change before a restore in XDP',
    'uplink_xdp.h',
    'uplink_xdp: a slot that changes before the packet is restored by it: left alone',
    ['slot_was_read(s, XDP);\n\tif (s->gen != gen)', 'slot_was_read(s, XDP);\n\tif (0)'],
  ),
  mutation('VLAN tags', 'packet.h', 'uplink_ingress: a VLAN tag beside the packet: not masqueraded', [
    ' |\n\t\t  skb->vlan_present | (padded',
    ' | (padded',
  ]),
  mutation(
    'no forged control message with a VLAN tag',
    'pod_egress.h',
    'pod_egress: a forged control message with a VLAN tag beside the packet: dropped',
    [' ||\n\t     p.reason == XMASQ_REASON_VLAN)', ')'],
  ),
  mutation(
    'neighbours in use',
    'flow.h',
    'pod_egress: a flow that has just looked at its next hop uses the kernel’s entry of it',
    ['f->verify_at == now + XMASQ_VERIFY_NS', '0'],
  ),
  mutation('the target of a restore', 'receive.h', 'uplink_ingress redirects into pod2', [
    'bpf_redirect_peer(ifindex, 0)',
    'bpf_redirect_peer(skb->ifindex, 0)',
  ]),
];

/** Those that a test run of the plain object proves. */
const icmpErrors: Mutation[] = [
  mutation('ICMP errors: the key', 'icmp_error.h', 'ICMP error: another key than the one we send with: dropped', [
    'f->peer_key != (__u8)(id >> ID_KEY_SHIFT)',
    '0',
  ]),
  mutation(
    'ICMP errors: the flow is fast',
    'icmp_error.h',
    'ICMP error: about a flow that has never been fast: dropped',
    ['!f->fast_since', '0'],
  ),
  mutation('ICMP errors: the slot is active', 'icmp_error.h', 'ICMP error: about a flow that has ended: dropped', [
    's->state != XMASQ_SLOT_ACTIVE',
    '0',
  ]),
  mutation('ICMP errors: the pod is there', 'icmp_error.h', 'ICMP error: the pod has gone: dropped', [
    '!endpoint_valid(s->endpoint, s->endpoint_epoch)',
    '0',
  ]),
  mutation(
    'ICMP errors: about masqueraded packets',
    'icmp_error.h',
    'ICMP error: about the node’s own packet to a peer: the stack’s',
    ['!(e.ip.id & bpf_htons(ID_MARKER))', '0'],
  ),
  mutation(
    'ICMP errors: about packets to peers',
    'icmp_error.h',
    'ICMP error: about a packet to a node that is no peer: the stack’s',
    ['peer = quoted_peer(&e);\n\tif (!peer)', 'peer = quoted_peer(&e);\n\tif (0)'],
  ),
  mutation(
    'ICMP errors: about packets of this node',
    'icmp_error.h',
    'ICMP error: about a packet that this node has not sent: the stack’s',
    ['e.ip.saddr != cfg->uplink_addr4.word[3]', '0'],
  ),
  mutation('ICMP errors: errors only', 'icmp_error.h', 'ICMP other than errors is the stack’s', [
    '!is_icmp_error(e.icmp.type)',
    '0',
  ]),
  mutation('ICMP errors: room for the tunnel', 'icmp_error.h', 'ICMP error: the path MTU leaves room for the tunnel', [
    'bpf_htons(mtu - TUNNEL_OVERHEAD)',
    'bpf_htons(mtu)',
  ]),
  mutation(
    'ICMP errors: the peer’s stack is no router',
    'icmp_error.h',
    'ICMP error of the peer’s own stack, no such port: a rejection',
    ['if (ip.saddr == e.ip.daddr &&', 'if (0 &&'],
  ),
  mutation('ICMP errors: routers are not the peer', 'icmp_error.h', 'ICMP error of another peer’s stack: for the pod', [
    'ip.saddr == e.ip.daddr &&',
    '1 &&',
  ]),
  mutation(
    'ICMP errors: the peer may tell the MTU',
    'icmp_error.h',
    'ICMP error of the peer’s own stack, too large: for the pod',
    ['!(e.icmp.type == ICMP_DEST_UNREACH && e.icmp.code == ICMP_FRAG_NEEDED))', '1)'],
  ),
  mutation(
    'ICMP errors: no key reaches the pod',
    'icmp_error.h',
    'ICMP error: unreachable, about a tcp packet: for the pod',
    ['e.ip.id = 0;', ''],
  ),
];

/** One change: [guard, file, rule, searched, replacement]. */
type Line = readonly [string, string, string, string, string];
const each = (lines: readonly Line[]): Mutation[] =>
  lines.map(([guard, file, rule, search, replace]) => mutation(guard, file, rule, [search, replace]));

const tunnels: Mutation[] = each([
  ['learned once', 'encap.h', 'tunnel header learned: vxlan over IPv4', '!f || tx_learned(f) || ', '!f || '],
  [
    'a pod’s own tunnel packet',
    'encap.h',
    'tunnel header not learned: what a pod has sent',
    ' || skb->ingress_ifindex ||',
    ' ||',
  ],
  ['the tunnel’s port', 'encap.h', 'tunnel header not learned: to another port', 'port != cfg->tunnel_port || ', ''],
  [
    'the peer of the header',
    'encap.h',
    'tunnel header not learned: to another peer',
    '!id || *id != f->peer)\n\t\treturn;',
    '!id)\n\t\treturn;',
  ],
  [
    'the TTL that is learned',
    'encap.h',
    'tunnel header not learned: the TTL is lower than routing makes it',
    ' && (__u8)(f->ttl - p->ttl) <= 3',
    '',
  ],
  [
    'the DSCP that is learned',
    'encap.h',
    'tunnel header not learned: another DSCP',
    ' && (p->tos & ~TOS_ECN) == f->tos && ',
    ' && ',
  ],
  [
    'deviating packets teach nothing',
    'encap.h',
    'tunnel header not learned: packets deviate',
    '!p->reason && !f->deviating_since && ',
    '!p->reason && ',
  ],
  ['outer DF', 'encap.h', 'tunnel header not learned: no DF outside', ' || frag != bpf_htons(IP_DF)))', '))'],
  ['Geneve options', 'encap.h', 'tunnel header not learned: Geneve options', '!(b[0] | b[1] | b[7])', '!(b[1] | b[7])'],
  [
    'the kind of Geneve',
    'encap.h',
    'tunnel header not learned: Geneve of a critical kind',
    '!(b[0] | b[1] | b[7])',
    '!(b[0] | b[7])',
  ],
  [
    'the flags of VXLAN',
    'encap.h',
    'tunnel header not learned: VXLAN with group policy',
    'if (b[0] == 0x08)',
    'if (b[0] & 0x08)',
  ],
  [
    'the addresses of a flow with keys',
    'encap.h',
    'tunnel header not learned: a flow with keys, to another address of the peer',
    '!addr_equal(&daddr, &f->node_daddr) || ',
    '',
  ],
  [
    'the node’s address of a flow with keys',
    'encap.h',
    'tunnel header not learned: a flow with keys, from another address of the node',
    ' || !addr_equal(&own, &f->node_saddr) ||',
    ' ||',
  ],
  [
    'ECN outside',
    'encap.h',
    'tunnel: ECN 3 is treated as RFC 6040 says',
    '(p->tos & TOS_ECN) == ECN_CE ? ECN_ECT0 : p->tos & TOS_ECN',
    'p->tos & TOS_ECN',
  ],
  [
    'the outer checksum zero',
    'encap.h',
    'tunnel with UDP checksums: one that becomes zero is written as 0xffff',
    'udp->check = 0xffff;',
    ';',
  ],
  [
    'segments in a summed tunnel',
    'encap.h',
    'tunnel with UDP checksums: segments are slow',
    'if (skb->gso_size)\n\t\treturn XMASQ_REASON_TUNNEL_CHECKSUM;',
    '',
  ],
  [
    'unsummed packets in a summed tunnel',
    'encap.h',
    'tunnel with UDP checksums: what has no checksum over all of itself is slow',
    '\t\t    !check)',
    '\t\t    0)',
  ],
  [
    'another flow’s header',
    'encap.h',
    'tunnel: another flow’s entry while it is read: not sent',
    'if (f->gen != gen || f->gen2 != gen || f->tx_gen != gen)',
    'if (0)',
  ],
  [
    'the header is learned first',
    'pod_egress.h',
    'tunnel: the header is unlearned: slow',
    'only_masquerade(reason) && tx_learned(f) && ',
    'only_masquerade(reason) && ',
  ],
  [
    'encapsulation is allowed',
    'pod_egress.h',
    'tunnel: encapsulation is turned off: slow',
    '} else if (cfg->flags & XMASQ_CFG_ENCAP) {',
    '} else {',
  ],
  [
    'room for the header',
    'pod_egress.h',
    'tunnel: the largest packet that fits with the header; a larger one is slow',
    'too_big(skb, v6, &p, f, encap_len)',
    'too_big(skb, v6, &p, f, 0)',
  ],
  [
    'the peer of a flow without keys',
    'flow.h',
    'tunnel: the peer’s epoch changed: slow',
    '*peer = find_peer(f->peer, f->peer_epoch);',
    '*peer = bpf_map_lookup_elem(&peers, &f->peer);',
  ],
  [
    'the node’s address of a flow without keys',
    'flow.h',
    'tunnel: the node’s address changed: slow',
    'if (tx_learned(f) && !addr_equal(&f->node_saddr',
    'if (0 && !addr_equal(&f->node_saddr',
  ],
  [
    'the network of the tunnel',
    'receive.h',
    'out of the tunnel, left to the slow path: another network',
    'if (known[i] != tunnel[i])',
    'if (0)',
  ],
  [
    'the peer of the tunnel',
    'receive.h',
    'out of the tunnel, left to the slow path: another peer',
    '!f || (tunnel && f->peer != peer)',
    '!f',
  ],
  [
    'delivery is learned first',
    'receive.h',
    'out of the tunnel: nothing before the slow path has delivered a packet',
    '!(f->flags & XMASQ_FLOW_RX_LEARNED) || !tx_learned(f)',
    '!tx_learned(f)',
  ],
  [
    'SYN in the tunnel',
    'receive.h',
    'out of the tunnel, left to the slow path: SYN',
    'if (p->reason && p->reason != XMASQ_REASON_GSO_SEGMENTS)',
    'if (0)',
  ],
  [
    'Traceflow in the tunnel',
    'receive.h',
    'out of the tunnel, left to the slow path: Traceflow DSCP',
    'if (header_reason(p))',
    'if (0)',
  ],
  [
    'TTL in the tunnel',
    'receive.h',
    'out of the tunnel, left to the slow path: TTL that would reach 0',
    'p->ttl <= f->rx_ttl + 1',
    '0',
  ],
  [
    'draining nodes take nothing',
    'receive.h',
    'out of the tunnel, left to the slow path: the node drains',
    '!(cfg->flags & XMASQ_CFG_SEND)',
    '0',
  ],
  [
    'excluded pods take nothing',
    'receive.h',
    'out of the tunnel, left to the slow path: an excluded pod',
    '!endpoint_valid(f->endpoint, f->endpoint_epoch) || ',
    '',
  ],
  [
    'peers that are gone',
    'receive.h',
    'out of the tunnel, left to the slow path: a peer that has gone',
    '!peer_present(f->peer, f->peer_epoch) ||',
    '0 ||',
  ],
  [
    'excluded nodes take nothing',
    'receive.h',
    'out of the tunnel, left to the slow path: traffic with other nodes is excluded',
    '    cfg->excluded_remote)',
    '    0)',
  ],
  [
    'conntrack of what comes in the tunnel',
    'receive.h',
    'out of the tunnel: the conntrack entry is gone: demoted, and left to the slow path',
    'if (now >= f->rx_recheck_at)',
    'if (0)',
  ],
  [
    'the endpoint of what comes in the tunnel',
    'receive.h',
    'out of the tunnel: another endpoint of the Service since: demoted, and left to the slow path',
    'if (!reason && !same_tuple(&out, &f->out))',
    'if (0)',
  ],
  [
    'the translation of what comes in the tunnel',
    'receive.h',
    'out of the tunnel: a Service’s endpoint that the pod talks to directly: not mixed up',
    '!same_tuple(&f->out, &out) || ',
    '',
  ],
  [
    'CE outside without ECN inside',
    'receive.h',
    'out of the tunnel, left to the slow path: CE outside, no ECN inside: the kernel drops it',
    'if (!(p.tos & TOS_ECN))',
    'if (0)',
  ],
  [
    'keys do not reach pods by the tunnel',
    'receive.h',
    'out of the tunnel: an announced key is read and erased',
    'd->key_read = 1;',
    '',
  ],
  ['the tunnel’s mark', 'receive.h', 'out of the tunnel: the mark is cleared', '\tskb->mark = 0;\n', ''],
  [
    'the TTL that is delivered',
    'exchange.h',
    'out of the tunnel: a delivered TTL that routing does not explain teaches nothing',
    '!f->rx_wire_ttl || lowered > 3',
    '!f->rx_wire_ttl',
  ],
  [
    'whose tunnel packet tells the TTL',
    'receive.h',
    'out of the tunnel: a TTL that another peer sends teaches nothing',
    '!f || (tunnel && f->peer != peer)',
    '!f',
  ],
  [
    'direct mode is allowed',
    'flow.h',
    'direct: direct mode is turned off: slow',
    'return (cfg->flags & XMASQ_CFG_DIRECT) &&',
    'return 1 &&',
  ],
  [
    'a routed flow comes without a tunnel',
    'receive.h',
    'direct, left to the slow path: a flow that is not routed',
    '} else if (!(f->flags & XMASQ_FLOW_DIRECT)) {',
    '} else if (0) {',
  ],
  [
    'the gateway’s answers only',
    'admission.h',
    'direct: what the pod itself sends by the gateway is refused',
    ' || dir != CT_DIR_REPLY)',
    ')',
  ],
  [
    'the gateway of routed nodes only',
    'admission.h',
    'direct: answers to what came by the gateway, from a node with a tunnel: refused',
    'return peer && is_routed(peer, addr_is4(&key->daddr));',
    'return peer;',
  ],
  [
    'each family for itself',
    'admission.h',
    'direct: answers to what came by the gateway, of the family with a tunnel: refused',
    'peer->flags & (v4 ? XMASQ_PEER_DIRECT4 : XMASQ_PEER_DIRECT6);',
    'peer->flags & (XMASQ_PEER_DIRECT4 | XMASQ_PEER_DIRECT6);',
  ],
  [
    'the gateway in direct mode only',
    'admission.h',
    'direct mode is off: answers to what came by the gateway are refused',
    '!(cfg->flags & XMASQ_CFG_DIRECT) || ',
    '',
  ],
]);

tunnels.push(
  mutation(
    'SYN teaches nothing',
    'encap.h',
    'tunnel header not learned: SYN',
    ['\tif (p.reason)\n\t\treturn;\n\tsender_key', '\tsender_key'],
    ['!p->reason && !f->deviating_since', '!f->deviating_since'],
  ),
);

const paths: Mutation[] = each([
  [
    'a proof first',
    'path.h',
    'path: nothing is masqueraded before a probe is answered; the packet asks',
    'return proven && path->masquerade;',
    'return 1;',
  ],
  ['a proof has an end', 'path.h', 'path: a proof is good for 60 s', 'now - path->proven_at < XMASQ_PROVEN_NS', '1'],
  [
    'a hole ends a proof',
    'path.h',
    'path: lost packets end the proof for the other flows of the class',
    '\tpath->hole_at = now;\n',
    '',
  ],
  [
    'a hole is not tried again at once',
    'path.h',
    'path: after lost packets an answer to an old probe proves nothing, a new one does, but not for 5 s',
    ' || now - path->hole_at >= XMASQ_MODE_HOLD_NS',
    ' || 1',
  ],
  [
    'no path flaps',
    'path.h',
    'path: it is not used again within 5 s of a change',
    ' || now - path->changed_at >= XMASQ_MODE_HOLD_NS',
    ' || 1',
  ],
  [
    'answers are about the last probe',
    'path.h',
    'path: an answer to the probe before the last one is ignored',
    'number != awaited - 1 || ',
    '',
  ],
  [
    'a probe is answered once',
    'path.h',
    'path: an answer with another number is ignored, and who guesses has one try',
    '\tpath->awaited = 0;\n\tif',
    '\tif',
  ],
  [
    'answers come soon',
    'path.h',
    'path: an answer a second after the probe is ignored, one before that is not',
    ' || now - (path->probe_at - path->probe_wait) > XMASQ_ANSWER_NS',
    '',
  ],
  [
    'answers come after lost packets',
    'path.h',
    'path: an answer to a probe from before packets were lost is ignored',
    '\tpath->probe_wait = 0;\n\tpath->awaited = 0;\n',
    '\tpath->probe_wait = 0;\n',
  ],
  [
    'answers cannot be guessed',
    'path.h',
    'path: the numbers of probes are not to be guessed',
    '(bpf_get_prandom_u32() & ID_COUNT_MASK) + 1',
    '1',
  ],
  [
    'probes pause',
    'path.h',
    'path: probes come with doubling pauses, from 100 ms to 8 s',
    'now < path->probe_at || ',
    '',
  ],
  [
    'probes need the peer',
    'path.h',
    'path: no probe before the peer holds our key, nor without its key',
    ' || (f->flags & ready) != ready)',
    ')',
  ],
  [
    'probes are of flows with keys',
    'uplink_egress.h',
    'probe: made of no other packets than those of flows with keys, from their pods',
    '!f || !(f->flags & XMASQ_FLOW_KEYED) || bpf_skb_change_tail',
    '!f || bpf_skb_change_tail',
  ],
  [
    'probes of SCTP',
    'uplink_egress.h',
    'probe made of a SCTP packet that is not carried fast: looks like one that is',
    'l4[12] = 0;',
    '',
  ],
  [
    'the probe’s checksum',
    'uplink_egress.h',
    'probe, tcp: its checksum is right, too, if the device has to complete it',
    'fold(words) + check + check',
    'fold(words) + check',
  ],
  [
    'probes are delivered to nobody',
    'uplink_ingress.h',
    'a probe on a node that drains: dropped',
    ' || !(cfg->flags & XMASQ_CFG_ADMIT))\n\t\treturn DROP;\n\treturn answer',
    ')\n\t\treturn DROP;\n\treturn answer',
  ],
  [
    'probes of peers that are interpreted',
    'uplink_ingress.h',
    'a probe of a peer that was not heard of for 30 s: a plain packet',
    '!peer_interpreted(cfg, *id, now))\n\t\treturn PASS;\n\t/*',
    '0)\n\t\treturn PASS;\n\t/*',
  ],
  [
    'probes are limited',
    'uplink_ingress.h',
    'probes are answered at most as often as keys are rejected',
    '!may_reject(*id, now) || !(cfg->flags',
    '!(cfg->flags',
  ],
  [
    'the node’s own packets are no probes',
    'uplink_ingress.h',
    'what looks like a probe, but belongs to a connection of the node itself: passes, counted',
    'if (is_nodes_own(skb, p, true))\n\t\treturn pass_own(*id);',
    '',
  ],
  [
    'an entry without an answer stops no probe',
    'uplink_ingress.h',
    'a probe that met this node’s stack before, whose conntrack remembers it, is answered',
    'own = !answered || dir == CT_DIR_REPLY || (ct->status & CT_SEEN_REPLY);',
    'own = true;',
  ],
  [
    'an answer to this node is no probe',
    'uplink_ingress.h',
    'what looks like a probe, but answers what the node has sent: passes, counted',
    ' || dir == CT_DIR_REPLY || (ct->status',
    ' || (ct->status',
  ],
  [
    'the probes’ key is not learned',
    'exchange.h',
    'the probes’ key is never given to a slot, nor learned',
    ' || announced == XMASQ_PROBE_KEY)',
    ')',
  ],
]);

const six: Mutation[] = each([
  [
    'IPv6: mapped addresses below tags',
    'pod_egress.h',
    'IPv6: tagged UDP segments to a peer’s IPv4 address, written as an IPv6 one, are nobody’s: left alone',
    ' && !addr_is4(&daddr) &&',
    ' &&',
  ],
  [
    'IPv6: mapped addresses',
    'packet.h',
    'IPv6: an IPv4 address in the place of an IPv6 one: nobody’s',
    'else if (addr_is4(&p->saddr) || addr_is4(&p->daddr))',
    'else if (0)',
  ],
  [
    'IPv6: fragments',
    'packet.h',
    'IPv6: atomic fragment: slow, marker cleared',
    'else if (p->proto == IPPROTO_FRAGMENT)',
    'else if (0)',
  ],
  [
    'IPv6: extension headers',
    'packet.h',
    'IPv6: destination options: slow, marker cleared',
    ' || p->proto == IPPROTO_DSTOPTS ||',
    ' ||',
  ],
  [
    'IPv6: ICMP of the family',
    'packet.h',
    'IPv6: ICMP of IPv4: slow, marker cleared',
    'if ((p->proto == IPPROTO_ICMPV6) != v6)',
    'if (0)',
  ],
  [
    'IPv6: neighbour discovery',
    'packet.h',
    'IPv6: neighbour solicitation: slow, marker cleared',
    'if (l4[1] || (v6',
    'if (0 && (v6',
  ],
  [
    'IPv6: lengths',
    'packet.h',
    'IPv6: bytes after the packet: slow, marker cleared',
    'else if (p->tot_len + l3_off > skb->len || (!padded && p->tot_len + l3_off != skb->len))',
    'else if (p->tot_len + l3_off > skb->len)',
  ],
  [
    'IPv6: the zone',
    'admission.h',
    'IPv6: conntrack is asked in the zone of IPv6, not in that of IPv4',
    'addr_is4(&key->saddr) ? cfg->ct_zone4 : cfg->ct_zone6',
    'cfg->ct_zone4',
  ],
  [
    'IPv6: the label of the node',
    'uplink_egress.h',
    'IPv6: uplink_egress: the label’s marker of the node’s packets to peers is cleared',
    'if (!write_id(skb, v6, to))',
    'if (0)',
  ],
  [
    'IPv6: the label below tags',
    'pod_egress.h',
    'IPv6: VLAN tags in the frame: slow, the marker below them cleared, dropped if there are more than 8',
    '*(__be32 *)&ip &= ~bpf_htonl(IPV6_LABEL_MARKER);',
    '',
  ],
  [
    'IPv6: control messages have a checksum',
    'uplink_ingress.h',
    'IPv6: a rejection has a right UDP checksum, never zero',
    'd.udp.check = ctl_checksum6(skb, &d);',
    ';',
  ],
  [
    'IPv6: ICMP errors, the key',
    'icmp_error.h',
    'IPv6: ICMP error: another key: dropped',
    'f->peer_key != (__u8)(id >> ID_KEY_SHIFT)',
    '0',
  ],
  [
    'IPv6: ICMP errors, the peer’s stack',
    'icmp_error.h',
    'IPv6: ICMP error of the peer’s own stack, no such port: a rejection',
    'addr_equal(&saddr, &daddr))\n\t\treturn rejected',
    '0)\n\t\treturn rejected',
  ],
  [
    'IPv6: ICMP errors, of this node',
    'icmp_error.h',
    'IPv6: ICMP error: about a packet that this node has not sent: the stack’s',
    '!addr_equal(&saddr, &cfg->uplink_addr6) || ',
    '',
  ],
  [
    'IPv6: ICMP errors, room for the tunnel',
    'icmp_error.h',
    'IPv6: ICMP error: packet too big leaves room for the tunnel',
    'mtu - TUNNEL_OVERHEAD6',
    'mtu',
  ],
  [
    'IPv6: the pod’s label',
    'encap.h',
    'tunnel: a flow label with the marker is cleared as on the slow path, others are left alone (IPv6)',
    'if ((__u16)(bpf_ntohl(*(__be32 *)ip) >> 4) != p->id)',
    'if (1)',
  ],
]);

/** Guards of what is quick with busy flows: whatever is not the plain case is looked at closer. Those of the slot: see `xdp`. */
const busy: Mutation[] = [
  ...(
    [
      ['TTL', 'another TTL in a fast flow: slow, does not announce', '(p.ttl ^ f->ttl) | ', ''],
      ['DSCP', 'another DSCP in a fast flow: slow, does not announce', '((p.tos & ~TOS_ECN) ^ f->tos) | ', ''],
      ['what verify() has found', 'a flow that is slow stays so until the next look', ' | f->blocked | ', ' | '],
      ['keys', 'not fast without HAVE_KEY', '((f->flags & FLOW_KIND) ^ FLOW_BUSY)', '0'],
      [
        'the mode',
        'a busy flow that was sent in a tunnel header is masqueraded again',
        '(f->mode ^ XMASQ_MODE_MASQUERADE) | ',
        '',
      ],
      [
        'ports of Services',
        'Service, udp: every byte of the masqueraded packet (busy flow)',
        '(f->out.dport ^ p.dport)',
        '0',
      ],
      [
        'the MAC address',
        'a fast flow with another source MAC: slow, does not announce',
        '!mac_equal(((struct ethhdr *)start)->h_source, f->pod_mac) || ',
        '',
      ],
      [
        'conntrack when it is due',
        'conntrack is asked when another program wants it',
        '!f->recheck_at ||\n\t    now',
        'now',
      ],
      ['the next look', 'endpoint epoch changed: stale', 'now >= f->verify_at || skb->len', 'skb->len'],
      [
        'the clock',
        'after a pause of the pod the flow is looked at, whenever its last packet was',
        'f->tick == tick ? f->last_tx : bpf_ktime_get_coarse_ns()',
        'f->last_tx',
      ],
      [
        'the last packet',
        'a busy flow’s last packet is noted',
        '\t\tf->last_tx = now;\n\t}\n\t__sync',
        '\t}\n\t__sync',
      ],
      ['the MTU', 'larger than the uplink’s MTU: slow and announcing', ' || skb->len - ETH_HLEN > f->mtu)', ')'],
    ] as const
  ).map(([guard, rule, search, replace]) => mutation(`busy flow: ${guard}`, 'pod_egress.h', rule, [search, replace])),
  ...(
    [
      [
        'the frame',
        'not masqueraded: another host’s frame (pkt_type OTHERHOST)',
        ' ||\n\t    skb->pkt_type != PACKET_HOST)\n\t\tgoto',
        ')\n\t\tgoto',
      ],
      ['DF', 'not masqueraded: no DF', 'if (!p.df || ', 'if ('],
      ['the marker', 'not masqueraded: our key, but no marker', ' || !(p.id & ID_MARKER) ||', ' ||'],
      [
        'the destination',
        'not masqueraded: another address of the node',
        ' : p.daddr.word[3] != cfg->uplink_addr4.word[3])',
        ' : 0)',
      ],
      ['the slot', 'rejected: another key', '!slot_is_busy(s, gen, p.id, now) || ', ''],
      [
        'the clock',
        'after a pause of the peer the slot is looked at, whenever its last packet was',
        's->tick == tick ? s->last_rx : bpf_ktime_get_coarse_ns()',
        's->last_rx',
      ],
      [
        'the peer lives',
        'a single packet is a sign of life of the peer, too, once in a tick',
        '\t\tpeer_lives(s->peer, now, true);\n\t}',
        '\t}',
      ],
    ] as const
  ).map(([guard, rule, search, replace]) =>
    mutation(`busy slot: ${guard}`, 'uplink_ingress.h', `${rule} (busy flow)`, [search, replace]),
  ),
  ...(
    [
      [
        'segments sent',
        'more than 64 segments: slow, does not announce',
        ' || skb->gso_size)\n\t\treturn false;',
        ')\n\t\treturn false;',
      ],
      [
        'segments received',
        'counts packets and bytes per segment, and is a sign of life of the peer (busy flow)',
        ' || skb->gso_size)\n\t\treturn false;',
        ')\n\t\treturn false;',
      ],
      [
        'the IP header of the pod',
        'fragment with DF: slow, marker cleared (fast flow)',
        '\treturn !p->reason;',
        '\treturn true;',
      ],
      [
        'the IP header of the peer',
        'not masqueraded: first fragment (busy flow)',
        '\treturn !p->reason;',
        '\treturn true;',
      ],
      [
        'FIN of the pod',
        'FIN of a fast flow: slow, and the flow ends',
        'return p->reason || (p->tcp_flags & TCP_RST) ?',
        'return p->tcp_flags & TCP_RST ?',
      ],
      [
        'FIN of the peer',
        'not masqueraded: FIN (busy flow)',
        'return p->reason || (p->tcp_flags & TCP_RST) ?',
        'return p->tcp_flags & TCP_RST ?',
      ],
      [
        'RST of the pod',
        'RST of a fast flow: carried fast, ends the flow, its slot and the conntrack entry (busy flow)',
        'return p->reason || (p->tcp_flags & TCP_RST) ?',
        'return p->reason ?',
      ],
      [
        'RST of the peer',
        'RST: delivered; ends the flow, the slot and the conntrack entry (busy flow)',
        'return p->reason || (p->tcp_flags & TCP_RST) ?',
        'return p->reason ?',
      ],
    ] as const
  ).map(([guard, rule, search, replace]) => mutation(`busy: ${guard}`, 'packet.h', rule, [search, replace])),
];

/** What keeps a device's sum of the packet right. */
const sums: Mutation[] = [
  mutation('a device’s sum is told', 'packet.h', 'udp: every byte of the restored packet (summed up)', [
    '\tif (summed == CHECKSUM_COMPLETE)\n\t\treturn false;\n',
    '',
  ]),
  mutation(
    'a device’s sum of a restored IPv6 packet',
    'uplink_ingress.h',
    'tcp: every byte of the restored packet (IPv6) (summed up)',
    ['settle_sum6(skb, diff, was, is);', ''],
  ),
  mutation(
    'the addresses in it, without a transport checksum',
    'packet.h',
    'sctp: every byte of the restored packet (IPv6) (summed up)',
    ['bpf_csum_diff(was, 8, is, 8, diff)', 'bpf_csum_diff(was, 8, is, 8, 0)'],
  ),
  mutation(
    'a device’s sum of an IPv6 packet out of a tunnel',
    'receive.h',
    'IPv6 out of geneve over IPv4: every byte (summed up)',
    ['settle_sum6(skb, diff, was, is);', ''],
  ),
  mutation(
    'a device’s sum of an IPv6 packet that announced',
    'packet.h',
    'udp: every byte of the restored packet (IPv6) (summed up)',
    ['sizeof(word), BPF_F_RECOMPUTE_CSUM)', 'sizeof(word), 0)'],
  ),
];

/** Guards of uplink_xdp: whatever is not the plain case is left to uplink_ingress. */
const xdp: Mutation[] = [
  mutation('XDP: the header is learned', 'flow.h', 'left alone by XDP: a slot that has learned no header', [
    '(s->flags ^ (XMASQ_SLOT_COMPLETE',
    '((s->flags | XMASQ_SLOT_COMPLETE) ^ (XMASQ_SLOT_COMPLETE',
  ]),
  mutation(
    'XDP: the flow knows of the peer',
    'flow.h',
    'left alone by XDP: the flow does not know yet that the peer sends fast',
    ['(s->flags ^ (XMASQ_SLOT_COMPLETE', '((s->flags | XMASQ_SLOT_PEER_FAST) ^ (XMASQ_SLOT_COMPLETE'],
  ),
  mutation('XDP: connections of the nodes', 'flow.h', 'left alone by XDP: the nodes have a connection on these ports', [
    '(s->flags ^ (XMASQ_SLOT_COMPLETE',
    '((s->flags & ~XMASQ_SLOT_SHARED) ^ (XMASQ_SLOT_COMPLETE',
  ]),
  mutation('XDP: a closing slot', 'flow.h', 'left alone by XDP: a closing slot', [
    '(s->state ^ XMASQ_SLOT_ACTIVE)',
    '(s->state == XMASQ_SLOT_TOMBSTONE)',
  ]),
  mutation('XDP: a tombstone', 'flow.h', 'left alone by XDP: a tombstone', [
    '(s->state ^ XMASQ_SLOT_ACTIVE)',
    '(s->state == XMASQ_SLOT_CLOSING)',
  ]),
  mutation('XDP: a slot that changes hands', 'flow.h', 'left alone by XDP: a slot that is being changed', [
    '(gen & 1) | (s->key',
    '(s->key',
  ]),
  mutation('XDP: the key', 'flow.h', 'left alone by XDP: another key, or no marker', [
    '(s->key ^ (__u8)(id >> ID_KEY_SHIFT)) | ',
    '',
  ]),
  mutation('XDP: the marker', 'uplink_xdp.h', 'left alone by XDP: another key, or no marker', [
    '!(id & ID_MARKER) || ',
    '',
  ]),
  mutation('XDP: conntrack', 'flow.h', 'left alone by XDP: conntrack has to be asked', [' && now < s->recheck_at', '']),
  mutation('XDP: after a pause', 'flow.h', 'left alone by XDP: the last packet came more than 100 ms ago', [
    ' && now - s->last_rx <= XMASQ_VERIFY_NS',
    '',
  ]),
  mutation('XDP: acknowledgements', 'flow.h', 'left alone by XDP: an acknowledgement is due', [
    ' && now < s->ack_at',
    '',
  ]),
  mutation('XDP: the endpoint', 'flow.h', 'left alone by XDP: endpoint epoch changed', [
    'endpoint_valid(s->endpoint, s->endpoint_epoch) && peer_valid(s->peer, s->peer_epoch);',
    'peer_valid(s->peer, s->peer_epoch);',
  ]),
  mutation('XDP: the peer', 'flow.h', 'left alone by XDP: peer epoch changed', [
    ' && peer_valid(s->peer, s->peer_epoch);',
    ';',
  ]),
  mutation('XDP: the frame’s MAC address', 'uplink_xdp.h', 'left alone by XDP: a frame for another MAC address', [
    ' || !mac_equal(eth->h_dest, s->wire_dmac))',
    ')',
  ]),
  mutation('XDP: the node’s address', 'uplink_xdp.h', 'left alone by XDP: the node has another address', [
    '!addr_equal(&daddr, uplink_addr(cfg, !v6)) || ',
    '',
  ]),
  mutation('XDP: SYN', 'uplink_xdp.h', 'left alone by XDP: SYN', [
    '(b[13] & (TCP_SYN | TCP_FIN | TCP_RST))',
    '(b[13] & (TCP_FIN | TCP_RST))',
  ]),
  mutation('XDP: FIN', 'uplink_xdp.h', 'left alone by XDP: FIN', [
    '(b[13] & (TCP_SYN | TCP_FIN | TCP_RST))',
    '(b[13] & (TCP_SYN | TCP_RST))',
  ]),
  mutation('XDP: RST', 'uplink_xdp.h', 'left alone by XDP: RST', [
    '(b[13] & (TCP_SYN | TCP_FIN | TCP_RST))',
    '(b[13] & (TCP_SYN | TCP_FIN))',
  ]),
  mutation('XDP: the length of TCP’s header', 'uplink_xdp.h', 'left alone by XDP: a TCP header that is too short', [
    ' || b[12] >> 4 < 5',
    '',
  ]),
  mutation('XDP: ICMP codes', 'uplink_xdp.h', 'left alone by XDP: an ICMP code', [
    'l4 + 8 > end || b[1]',
    'l4 + 8 > end',
  ]),
  mutation('XDP: ICMP of the other family', 'uplink_xdp.h', 'left alone by XDP: ICMP of the other family (IPv6)', [
    '(proto == IPPROTO_ICMPV6) != v6 || ',
    '',
  ]),
  mutation('XDP: protocols with a CRC', 'uplink_xdp.h', 'left alone by XDP: SCTP', [
    '\tdefault:\n\t\treturn false;\n\t}\n\tsk->sport',
    '\tdefault:\n\t\tif (l4 + 4 > end)\n\t\t\treturn false;\n\t}\n\tsk->sport',
  ]),
  mutation('XDP: the length of the packet', 'uplink_xdp.h', 'left alone by XDP: a packet longer than its frame', [
    ' || l3_off + tot_len > ctx_len',
    '',
  ]),
  mutation('XDP: source port 53', 'uplink_xdp.h', 'left alone by XDP: what comes from port 53', [
    ' || sk.sport == bpf_htons(53))',
    ')',
  ]),
  mutation('XDP: reserved source ports', 'uplink_xdp.h', 'left alone by XDP: what comes from the tunnel’s port', [
    'reserved_port(sk.sport, cfg->tunnel_port) ||\n\t    ',
    '',
  ]),
  mutation('XDP: reserved destination ports', 'uplink_xdp.h', 'left alone by XDP: what goes to the tunnel’s port', [
    'reserved_port(sk.dport, cfg->tunnel_port) || ',
    '',
  ]),
  mutation('XDP: DF and fragments', 'uplink_xdp.h', 'left alone by XDP: a first fragment', [
    ' || ip4->frag_off != bpf_htons(IP_DF)',
    '',
  ]),
  mutation('XDP: IP options and versions', 'uplink_xdp.h', 'left alone by XDP: IP options', [
    '*ip != IPPROTO_VERSION_IHL || ',
    '',
  ]),
  mutation('XDP: the version of IPv6', 'uplink_xdp.h', 'left alone by XDP: another IP version (IPv6)', [
    'if (first >> 28 != 6)',
    'if (0)',
  ]),
  mutation(
    'XDP: mapped addresses',
    'uplink_xdp.h',
    'left alone by XDP: IPv6 with an IPv4 address in the place of the peer’s',
    ['if (addr_is4(&sk.peer))', 'if (0)'],
  ),
  mutation(
    'XDP: untagged frames on a VLAN’s device',
    'uplink_xdp.h',
    'left alone by XDP: the uplink is a VLAN, and the frame has no tag',
    ['if (cfg->xdp_vlan) {', 'if (cfg->xdp_vlan && protocol == bpf_htons(ETH_P_8021Q)) {'],
  ),
  mutation(
    'XDP: other VLANs',
    'uplink_xdp.h',
    'XDP: on a VLAN the frame’s tag stays, and only that VLAN’s packets are restored',
    [' ||\n\t\t    (bpf_ntohs(vlan->tci) & 0xfff) != cfg->xdp_vlan)', ')'],
  ),
  mutation('XDP: the Service’s port', 'uplink_xdp.h', 'XDP, udp of a Service: its address and port are the source', [
    'proto != IPPROTO_ICMPV6 && *from != sport',
    '0',
  ]),
  mutation('XDP: no UDP checksum', 'uplink_xdp.h', 'XDP: a UDP checksum of zero stays zero', [
    'if (proto == IPPROTO_UDP && !*check) {',
    'if (0) {',
  ]),
  mutation(
    'XDP: a UDP checksum of zero after the change',
    'uplink_xdp.h',
    'XDP: a UDP checksum that becomes zero is written as 0xffff',
    ['\tif (proto == IPPROTO_UDP && !*check)\n\t\t*check = 0xffff;\n', ''],
  ),
  mutation(
    'XDP: packets of pods without DF',
    'uplink_xdp.h',
    'XDP, N: DF is taken away and the ID is fresh, without the marker',
    ['id & ID_FLAG ? 0 : bpf_htons(IP_DF)', 'bpf_htons(IP_DF)'],
  ),
];

export const mutations: readonly Mutation[] = [
  ...admission,
  ...sending,
  ...restoring,
  ...exchange,
  ...uplink,
  ...icmpErrors,
  ...tunnels,
  ...paths,
  ...six,
  ...busy,
  ...(KERNEL_SUMS ? sums : []),
  ...xdp,
];
/** Those that need the instrumented object. */
export const instrumentedMutations: readonly Mutation[] = instrumented;
