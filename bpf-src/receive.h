/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Packets from pods of other nodes that are not masqueraded: in the tunnel's header, or routed. What belongs to an admitted
 * flow goes to the pod as the slow path would deliver it; everything else is the slow path's.
 */
#pragma once

#include "encap.h"
#include "exchange.h"

/* BPF_F_ADJ_ROOM_DECAP_L3_IPV4 and _IPV6, since 6.3: the packet's family changes. */
#define DECAP_L3_IPV4 (1ULL << 7)
#define DECAP_L3_IPV6 (1ULL << 8)

/* In front of a restored packet: what uplink_ingress has to know. Packets of one flow have the same, or GRO would not merge. */
struct xdp_mark {
	__u32 magic[3];
	__u32 ifindex;
};

/* Into the pod's network namespace. */
static __always_inline int deliver(struct __sk_buff *skb, __u32 ifindex)
{
	if (skb->pkt_type != PACKET_HOST)
		bpf_skb_change_type(skb, PACKET_HOST);
	skb->mark = 0;
	return bpf_redirect_peer(ifindex, 0);
}

/* The device that uplink_xdp has restored the packet for; 0: it has not. The mark is in front of the packet, nobody else writes there. */
static __always_inline __u32 restored_for(const struct __sk_buff *skb, const struct xmasq_config *cfg)
{
	const struct xdp_mark *mark = (void *)(long)skb->data_meta;

	if ((void *)(mark + 1) > packet_start(skb) || mark->magic[0] != cfg->magic[1] ||
	    mark->magic[1] != cfg->magic[2] || mark->magic[2] != cfg->magic[3])
		return 0;
	return is_pod_veth(mark->ifindex) ? mark->ifindex : 0;
}

/*
 * May the packet `p` of a remote pod go straight to the local one? Returns the flow that it answers, as the local pod sends it,
 * and its key; NULL: the slow path's. `tunnel`: its header, and `peer`, who sent it; NULL if there is none.
 */
static __noinline struct xmasq_flow *receives(struct __sk_buff *skb, struct packet *p, struct xmasq_flow_key *key,
					      const __u8 *tunnel, __u32 peer)
{
	const struct xmasq_config *cfg = get_config();
	__u64 now = bpf_ktime_get_coarse_ns();
	struct xmasq_tuple out;
	struct xmasq_flow *f;
	const __u8 *known;
	__u32 reason, gen;

	if (!cfg || !p || !key || !(cfg->flags & XMASQ_CFG_SEND))
		return NULL;
	if (p->reason && p->reason != XMASQ_REASON_GSO_SEGMENTS)
		return NULL;
	if (header_reason(p))
		return NULL;
	__builtin_memset(key, 0, sizeof(*key));
	key->saddr = p->daddr;
	key->daddr = p->saddr;
	key->sport = p->sport;
	key->dport = p->dport;
	key->proto = p->proto;
	reverse_ports(p->proto, &key->sport, &key->dport);
	out = *tuple_of(key);
	f = find_sender(key);
	if (!f || (tunnel && f->peer != peer))
		return NULL;
	gen = f->gen;
	/* How the slow path delivers this one, pod_ingress will see. */
	if (!(f->flags & XMASQ_FLOW_RX_LEARNED) && f->rx_wire_ttl != p->ttl)
		f->rx_wire_ttl = p->ttl;
	if (!same_tuple(&f->out, &out) || !(f->flags & XMASQ_FLOW_RX_LEARNED) || !tx_learned(f) ||
	    p->ttl <= f->rx_ttl + 1)
		return NULL;
	if (!endpoint_valid(f->endpoint, f->endpoint_epoch) || !peer_present(f->peer, f->peer_epoch) ||
	    cfg->excluded_remote)
		return NULL;
	if (tunnel) {
		/* The same tunnel by which the flow's own packets leave: type, network identifier, no options. */
		if ((f->flags & XMASQ_FLOW_DIRECT) || f->encap_len > XMASQ_MAX_ENCAP || f->encap_len < ENCAP_LEN4)
			return NULL;
		known = f->encap_len == ENCAP_LEN6 ? f->encap + ENCAP_LEN6 - ETH_HLEN - TUNNEL_LEN :
						     f->encap + ENCAP_LEN4 - ETH_HLEN - TUNNEL_LEN;
		for (int i = 0; i < TUNNEL_LEN; i++)
			if (known[i] != tunnel[i])
				return NULL;
	} else if (!(f->flags & XMASQ_FLOW_DIRECT)) {
		return NULL;
	}
	if (now >= f->rx_recheck_at) {
		reason = admits(skb, cfg, key, 1, &out);
		if (!reason && !same_tuple(&out, &f->out))
			reason = XMASQ_REASON_STALE;
		if (reason) {
			demote(key, reason, now);
			return NULL;
		}
		f->rx_recheck_at = ct_recheck_at(key, now);
	}
	return f->gen == gen && f->gen2 == gen ? f : NULL;
}

static __always_inline bool write_received(struct __sk_buff *skb, const bool v6, const struct packet *p,
					   const struct xmasq_delivery *d)
{
	struct ethhdr *eth;
	__be32 was[2], is[2];
	__u32 diff = 0;

	if (!readable(skb, L4_OFF(v6)))
		return false;
	if (!addr_equal(&d->saddr, &p->saddr)) {
		diff = address_diff(&p->saddr, &p->daddr, &d->saddr, &p->daddr);
		if (!fix_checksum(skb, v6, p->proto, diff))
			return false;
	}
	if (d->sport != p->sport && !change_port(skb, v6, p->proto, 0, p->sport, d->sport))
		return false;
	if (bpf_skb_store_bytes(skb, 0, d->macs, sizeof(d->macs), 0))
		return false;
	eth = packet_start(skb);
	if ((void *)eth + L4_OFF(v6) > packet_end(skb))
		return false;
	eth->h_proto = v6 ? bpf_htons(ETH_P_IPV6) : bpf_htons(ETH_P_IP);
	if (v6) {
		struct ipv6hdr *ip = (void *)(eth + 1);

		was[0] = *(__be32 *)ip;
		was[1] = *((__be32 *)ip + 1);
		is[0] = (was[0] & ~bpf_htonl(0xff << 20)) | bpf_htonl((__u32)d->tos << 20);
		if (d->key_read)
			is[0] &= ~bpf_htonl(0xfffff);
		*(__be32 *)ip = is[0];
		ip->hop_limit = d->ttl;
		is[1] = *((__be32 *)ip + 1);
		addr_get6(&ip->saddr, &d->saddr);
		settle_sum6(skb, diff, was, is);
	} else {
		struct iphdr *ip = (void *)(eth + 1);

		if (d->key_read)
			ip->id = bpf_htons(p->df ? 0 : fresh_id());
		ip->tos = d->tos;
		ip->ttl = d->ttl;
		ip->saddr = d->saddr.word[3];
		ip->check = 0;
		ip->check = ip_checksum(ip);
	}
	return true;
}

/*
 * Gives the packet of flow `f`, whose key is `key`, to the pod. `outer_len` bytes of tunnel header go; `tos` is the inner
 * traffic class as it shall be.
 */
static __noinline int receive(struct __sk_buff *skb, struct packet *p, struct xmasq_flow *f, struct xmasq_flow_key *key,
			      __u32 outer)
{
	const struct xmasq_config *cfg = get_config();
	__u64 now = bpf_ktime_get_coarse_ns();
	__u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO;
	struct xmasq_scratch *tmp;
	struct xmasq_delivery *d;
	__u32 zero = 0;

	tmp = bpf_map_lookup_elem(&scratch, &zero);
	if (!tmp || !p || !f || !key || !cfg)
		return PASS;
	d = &tmp->delivery;
	d->saddr = key->daddr;
	d->sport = reply_port(key);
	__builtin_memcpy(d->macs, f->rx_dmac, 6);
	__builtin_memcpy(d->macs + 6, f->rx_smac, 6);
	d->ttl = p->ttl - f->rx_ttl;
	d->tos = p->tos;
	d->ifindex = key->ifindex;
	d->key_read = 0;
	if ((p->id & ID_MARKER) && peer_valid(f->peer, f->peer_epoch)) {
		if (f->flags & XMASQ_FLOW_KEYED)
			learn_key(p, d->macs, d->ttl, f);
		d->key_read = 1;
	}
	f->last_rx = now;
	__sync_fetch_and_add(&f->rx_packets, p->segments);
	__sync_fetch_and_add(&f->rx_bytes, p->tot_len + (p->segments - 1) * (p->v6 ? 60 : 40));
	if (p->tcp_flags & TCP_RST) {
		end_flow(key, XMASQ_SLOT_TOMBSTONE, now);
		count(XMASQ_COUNTER_FLOW_CLOSED);
		ct_reset(skb, cfg, key, 0);
	}
	if (outer) {
		if (p->v6 != (outer == ENCAP_LEN6))
			flags |= p->v6 ? DECAP_L3_IPV6 : DECAP_L3_IPV4;
		if (outer == ENCAP_LEN4 ? bpf_skb_adjust_room(skb, -ENCAP_LEN4, BPF_ADJ_ROOM_MAC, flags) :
					  bpf_skb_adjust_room(skb, -ENCAP_LEN6, BPF_ADJ_ROOM_MAC, flags))
			return DROP;
	}
	if (p->v6 ? !write_received(skb, true, p, d) : !write_received(skb, false, p, d))
		return DROP;
	count(outer ? XMASQ_COUNTER_DECAPSULATED : XMASQ_COUNTER_DIRECT_RX);
	return deliver(skb, d->ifindex);
}

/* A packet to this node's tunnel port. */
static __noinline int receive_encap(struct __sk_buff *skb, const struct xmasq_config *cfg)
{
	const bool v6 = skb->protocol == bpf_htons(ETH_P_IPV6);
	struct xmasq_addr from, to;
	struct xmasq_flow_key key;
	struct tunnel_header h;
	struct xmasq_flow *f;
	struct packet p;
	__u32 *id, len;
	__u8 tos;

	if (!cfg || !read_tunnel(skb, v6, &h) ||
	    (v6 ? !read_outer(skb, true, &from, &to, &tos) : !read_outer(skb, false, &from, &to, &tos)))
		return PASS;
	id = bpf_map_lookup_elem(&peer_by_addr, &from);
	if (!id)
		return PASS;
	/* Kernels that are too old for it have no lookup with a zone either. */
	if (v6 != (h.eth.h_proto == bpf_htons(ETH_P_IPV6)) && !(cfg->flags & XMASQ_CFG_CT_LOOKUP))
		return PASS;
	len = v6 ? ENCAP_LEN6 : ENCAP_LEN4;
	peek(skb, L3_OFF + len, &p, cfg->tunnel_port);
	f = receives(skb, &p, &key, h.bytes, *id);
	if (!f)
		return PASS;
	/* RFC 6040 4.2, as the kernel has it (include/net/inet_ecn.h, INET_ECN_decapsulate), which drops the first of these. */
	if ((tos & TOS_ECN) == ECN_CE) {
		if (!(p.tos & TOS_ECN))
			return PASS;
		p.tos |= ECN_CE;
	}
	return receive(skb, &p, f, &key, len);
}

/* A packet that is not for this node: for one of its pods, from a node that Antrea routes to? */
static __noinline int receive_direct(struct __sk_buff *skb, const struct xmasq_config *cfg)
{
	const bool v6 = skb->protocol == bpf_htons(ETH_P_IPV6);
	struct xmasq_flow_key key;
	struct xmasq_flow *f;
	struct packet p;

	if (!cfg || skb->vlan_present)
		return PASS;
	peek(skb, L3_OFF, &p, cfg->tunnel_port);
	f = p.v6 == v6 ? receives(skb, &p, &key, NULL, 0) : NULL;
	return f ? receive(skb, &p, f, &key, 0) : PASS;
}
