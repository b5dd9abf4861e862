/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* pod_ingress: tc egress of a pod's host-side veth, i.e. what the slow path delivers (bpf_redirect_peer passes it by). */
#pragma once

#include "flow.h"

/* Reads what an announcing packet says about the flow and its sender. */
static __always_inline void learn(struct __sk_buff *skb, const struct packet *p, struct xmasq_flow_key *key,
				  struct xmasq_flow *f, __u64 now)
{
	__u8 announced = p->id >> ID_KEY_SHIFT;
	struct xmasq_slot_key sk;
	struct xmasq_slot *s;
	struct ethhdr *eth;
	bool is_new;

	/*
	 * A node that has lost its programs without a word sends IDs that count up through all values. Announcing ones have a
	 * count of 0 (the first segment), and of a peer that was heard before a key is a sign of life only if it is announced
	 * again: such IDs never do that.
	 */
	if (p->id & ID_COUNT_MASK)
		return;
	is_new = !(f->flags & XMASQ_FLOW_HAVE_KEY) || f->peer_key != announced;
	if (!is_new || !peer_known(f->peer))
		peer_lives(f->peer, now, p->id & ID_FLAG);
	if (now < f->reject_until && announced == f->reject_key)
		return;
	count(XMASQ_COUNTER_KEY_LEARNED);
	slot_key_of(key, f->node_daddr, &sk);
	s = bpf_map_lookup_elem(&slots, &sk);
	if (!s || s->gen != f->slot_gen || s->state != XMASQ_SLOT_ACTIVE)
		return;
	/* Whoever announces means its present header, see pod_egress: so every announcement counts. */
	if (!(s->flags & XMASQ_SLOT_COMPLETE) || s->ttl != p->ttl || s->tos != (p->tos & ~TOS_ECN)) {
		eth = packet_start(skb);
		if ((void *)(eth + 1) > packet_end(skb) || !slot_try_lock(s))
			return;
		__builtin_memcpy(s->dmac, eth->h_dest, 6);
		__builtin_memcpy(s->smac, eth->h_source, 6);
		s->ttl = p->ttl;
		s->tos = p->tos & ~TOS_ECN;
		barrier();
		s->flags |= XMASQ_SLOT_COMPLETE;
		slot_unlock(s);
	}
	if (is_new) {
		f->peer_key = announced;
		f->fast_since = 0;
		f->verify_at = 0;
		__sync_fetch_and_or(&f->flags, XMASQ_FLOW_HAVE_KEY);
	}
	if (p->id & ID_FLAG) {
		if (flow_is_slow(f))
			f->verify_at = 0;
		__sync_fetch_and_or(&f->flags, XMASQ_FLOW_PEER_COMPLETE);
	} else if ((f->flags & XMASQ_FLOW_PEER_COMPLETE) && slot_try_lock(s)) {
		__sync_fetch_and_and(&f->flags, ~XMASQ_FLOW_PEER_COMPLETE);
		/* The announcement may be a late one: if so, the peer's next masqueraded packet says it. */
		s->flags &= ~XMASQ_SLOT_PEER_FAST;
		slot_unlock(s);
	}
}

/*
 * A RST of this node's pod that went slow after a fast phase has left conntrack's entry ESTABLISHED. Has the slow path passed
 * this SYN because of such an entry, i.e. without asking policy? If so, the entry expires; the next SYN is judged as new.
 */
static __noinline bool outlived(struct __sk_buff *skb, const struct xmasq_config *cfg, struct xmasq_flow_key *key)
{
	struct xmasq_prefix4 prefix = { .prefixlen = 32 };
	struct xmasq_destination *from;
	struct xmasq_peer *peer;
	struct xmasq_slot_key sk;
	struct xmasq_slot *s;

	if (!cfg || !key || !(cfg->flags & XMASQ_CFG_CT_LOOKUP))
		return false;
	prefix.addr = key->daddr;
	from = bpf_map_lookup_elem(&destinations, &prefix);
	if (!from || from->kind != XMASQ_DEST_PEER)
		return false;
	peer = bpf_map_lookup_elem(&peers, &from->peer);
	if (!peer)
		return false;
	slot_key_of(key, peer->addr4, &sk);
	s = bpf_map_lookup_elem(&slots, &sk);
	return s && s->saddr == key->daddr && s->daddr == key->saddr && s->ifindex == key->ifindex &&
	       ct_reset(skb, cfg, key, from->peer);
}

static __always_inline int pod_ingress_main(struct __sk_buff *skb)
{
	const struct xmasq_config *cfg = get_config();
	struct xmasq_flow_key key = {};
	struct xmasq_flow *f = NULL;
	struct xmasq_prefix4 prefix;
	struct xmasq_destination *from;
	struct xmasq_peer *peer;
	struct packet p;
	struct iphdr *ip;
	bool known;
	__u64 now;

	if (!cfg || !parse(skb, &p, cfg->tunnel_port, true))
		return PASS;
	count(XMASQ_COUNTER_SLOW_RX);
	now = bpf_ktime_get_coarse_ns();
	switch (p.reason) {
	case XMASQ_REASON_VLAN:
	case XMASQ_REASON_MALFORMED:
	case XMASQ_REASON_IP_OPTIONS:
	case XMASQ_REASON_FRAGMENT:
	case XMASQ_REASON_PROTOCOL:
	case XMASQ_REASON_ICMP_TYPE:
	case XMASQ_REASON_DNS_REPLY:
	case XMASQ_REASON_RESERVED_PORT:
		return PASS;
	}
	key.saddr = p.daddr;
	key.daddr = p.saddr;
	key.sport = p.sport;
	key.dport = p.dport;
	key.ifindex = skb->ifindex;
	key.proto = p.proto;
	reverse_ports(p.proto, &key.sport, &key.dport);
	f = bpf_map_lookup_elem(&flows, &key);
	known = f;
	if (f) {
		if (p.tcp_flags & (TCP_SYN | TCP_FIN | TCP_RST)) {
			bool fin = (p.tcp_flags & (TCP_SYN | TCP_FIN | TCP_RST)) == TCP_FIN;

			end_flow(&key, fin ? XMASQ_SLOT_CLOSING : XMASQ_SLOT_TOMBSTONE, now);
			count(XMASQ_COUNTER_FLOW_CLOSED);
			f = NULL;
		} else {
			f->last_rx_slow = now;
			f->recheck_at = 0;
		}
	}
	if ((p.tcp_flags & TCP_RST) && between_pods(&key, NULL))
		ct_forget(skb, cfg, &key, known);
	if (!known && (p.tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN && outlived(skb, cfg, &key)) {
		count(XMASQ_COUNTER_SYN_DROPPED);
		return DROP;
	}
	if (!(p.id & ID_MARKER))
		return PASS;

	/* Keys come from capable peers only; the IDs of all others are their own business. */
	prefix.prefixlen = 32;
	prefix.addr = p.saddr;
	from = bpf_map_lookup_elem(&destinations, &prefix);
	if (!from || from->kind != XMASQ_DEST_PEER)
		return PASS;
	peer = bpf_map_lookup_elem(&peers, &from->peer);
	if (!peer || !(peer->flags & XMASQ_PEER_CAPABLE))
		return PASS;
	if (f && !(f->flags & XMASQ_FLOW_LOCAL) && from->peer == f->peer && peer_valid(f->peer, f->peer_epoch))
		learn(skb, &p, &key, f, now);
	ip = packet_start(skb) + L3_OFF;
	if ((void *)(ip + 1) > packet_end(skb))
		return PASS;
	set_id(ip, p.df ? 0 : fresh_id());
	return PASS;
}

SEC("tc")
int pod_ingress(struct __sk_buff *skb)
{
	return pod_ingress_main(skb);
}
