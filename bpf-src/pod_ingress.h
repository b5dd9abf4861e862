/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* pod_ingress: tc egress of a pod's host-side veth, i.e. what the slow path delivers (bpf_redirect_peer passes it by). */
#pragma once

#include "exchange.h"
#include "flow.h"

/*
 * A RST of this node's pod that went slow after a fast phase has left conntrack's entry ESTABLISHED. Has the slow path passed
 * this SYN because of such an entry, i.e. without asking policy? If so, the entry goes; the next SYN is judged as new.
 */
static __noinline bool outlived(struct __sk_buff *skb, const struct xmasq_config *cfg, struct xmasq_flow_key *key)
{
	struct xmasq_peer *peer;
	struct xmasq_slot_key sk;
	struct xmasq_slot *s;
	__u32 from;

	if (!cfg || !key)
		return false;
	from = peer_of(&key->daddr);
	peer = from ? bpf_map_lookup_elem(&peers, &from) : NULL;
	if (!peer)
		return false;
	slot_key_of(addr_is4(&key->daddr) ? &peer->addr4 : &peer->addr6, key->proto, key->sport, key->dport, &sk);
	s = bpf_map_lookup_elem(&slots, &sk);
	if (!s || !addr_equal(&s->saddr, &key->daddr) || !addr_equal(&s->daddr, &key->saddr) ||
	    s->ifindex != key->ifindex)
		return false;
	return cfg->flags & XMASQ_CFG_CT_LOOKUP ? ct_reset(skb, cfg, key, from) : ct_outlives(skb, cfg, key, from);
}

/*
 * The slow path delivers a packet of a same-node Service connection: this is how the fast path has to deliver what the other
 * pod sends. A TTL that the pipeline could not have made of the other pod's usual one is a deviating packet's.
 */
static __noinline void learn_local(struct __sk_buff *skb, struct packet *p, struct xmasq_flow *f)
{
	struct xmasq_flow_key key = {};
	struct xmasq_flow *sender;
	struct ethhdr *eth;

	if (!p || !f)
		return;
	key.saddr = f->out.daddr;
	key.daddr = f->out.saddr;
	key.sport = f->out.dport;
	key.dport = f->out.sport;
	key.ifindex = f->out_ifindex;
	key.proto = f->proto;
	sender = bpf_map_lookup_elem(&flows, &key);
	if (!sender || sender->deviating_since || (p->tos & ~TOS_ECN) != sender->tos ||
	    (__u8)(sender->ttl - p->ttl) > 1)
		return;
	eth = packet_start(skb);
	if ((void *)(eth + 1) > packet_end(skb))
		return;
	__builtin_memcpy(sender->dmac, eth->h_dest, 6);
	__builtin_memcpy(sender->smac, eth->h_source, 6);
	sender->out_ttl = p->ttl;
	barrier();
	__sync_fetch_and_and(&sender->flags, ~XMASQ_FLOW_UNLEARNED);
}

/*
 * A reply from a Service, whose flow is not admitted yet: the peer may be a packet ahead of us and announce. Connections to
 * the outside are known as such where the lookup answers; it is asked about those that nobody has tried to admit. Where
 * approvals answer, which know of no translation, Services are taken for the outside, too, and the peer, to which it is a
 * connection between pods, announces all the time.
 */
static __noinline bool is_service(struct __sk_buff *skb, const struct xmasq_config *cfg, struct xmasq_flow_key *key)
{
	struct xmasq_refusal *r;
	struct xmasq_tuple out;

	if (!cfg || !key)
		return false;
	r = bpf_map_lookup_elem(&refusals, key);
	if (!r) {
		if (!has_lookup(cfg, key->proto))
			return false;
		ct_admits(skb, cfg, key, 0, &out);
		return !addr_equal(&out.daddr, &key->daddr) && is_pod(&out.daddr);
	}
	if (r->reason != XMASQ_REASON_NOT_POD)
		return true;
	return key->proto == IPPROTO_SCTP ||
	       ((key->proto == IPPROTO_TCP || key->proto == IPPROTO_UDP) && !has_lookup(cfg, key->proto));
}

static __always_inline int pod_ingress_main(struct __sk_buff *skb, const bool v6, const struct xmasq_config *cfg)
{
	struct xmasq_flow_key key = {};
	struct xmasq_flow *f = NULL;
	struct xmasq_peer *peer;
	struct packet p;
	__u8 macs[12] __attribute__((aligned(2)));
	__u32 from;
	bool known;
	__u64 now;

	if (!parse(skb, v6, &p, cfg->tunnel_port, true))
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
			if (fin)
				delete_approval(&key);
			f = NULL;
		} else {
			f->last_rx_slow = now;
			f->recheck_at = 0;
			if (bpf_skb_load_bytes(skb, 0, macs, sizeof(macs)))
				return PASS;
			if (!(f->flags & XMASQ_FLOW_LOCAL))
				note_delivered(f, macs, p.ttl);
			else if (f->flags & XMASQ_FLOW_SERVICE)
				learn_local(skb, &p, f);
		}
	}
	if ((p.tcp_flags & TCP_RST) && from_pod(&key, NULL))
		ct_forget(skb, cfg, &key, known);
	if (!known && (p.tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN && outlived(skb, cfg, &key)) {
		count(XMASQ_COUNTER_SYN_DROPPED);
		return DROP;
	}
	if (!(p.id & ID_MARKER))
		return PASS;

	/* Keys come from capable peers only; the IDs of all others are their own business. */
	from = peer_of(f ? &f->out.daddr : &p.saddr);
	if (from) {
		peer = bpf_map_lookup_elem(&peers, &from);
		if (!peer || !(peer->flags & XMASQ_PEER_CAPABLE))
			return PASS;
	} else if (f || bpf_map_lookup_elem(&endpoint_by_addr, &p.saddr) || !is_service(skb, cfg, &key)) {
		return PASS;
	}
	if (f && (f->flags & XMASQ_FLOW_KEYED) && from == f->peer && peer_valid(f->peer, f->peer_epoch))
		learn_key(&p, macs, p.ttl, f);
	else if (!known && p.proto == IPPROTO_TCP)
		await(&key);
	write_id(skb, v6, p.df ? 0 : fresh_id());
	return PASS;
}

/* One frame on the stack for each family: together they would be too large. */
static __noinline int pod_ingress4(struct __sk_buff *skb, const struct xmasq_config *cfg)
{
	return cfg ? pod_ingress_main(skb, false, cfg) : PASS;
}

static __noinline int pod_ingress6(struct __sk_buff *skb, const struct xmasq_config *cfg)
{
	return cfg ? pod_ingress_main(skb, true, cfg) : PASS;
}

SEC("tc")
int pod_ingress(struct __sk_buff *skb)
{
	const struct xmasq_config *cfg = get_config();

	if (skb->protocol == bpf_htons(ETH_P_IP))
		return pod_ingress4(skb, cfg);
	if (skb->protocol == bpf_htons(ETH_P_IPV6))
		return pod_ingress6(skb, cfg);
	return PASS;
}
