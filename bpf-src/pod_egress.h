/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* pod_egress: tc ingress of a pod's host-side veth, i.e. what the pod sends. Every pod has it, excluded ones too. */
#pragma once

#include "flow.h"

#define POD_MAX_TAGS 8

/* Leaves the packet to the slow path, without anything in its ID that a peer could take for a key. */
static __always_inline int leave_slow(struct __sk_buff *skb, const struct packet *p, __u32 reason)
{
	struct iphdr *ip;
	__u16 id;

	count(XMASQ_COUNTER_SLOW_TX);
	count_reason(reason);
	/* The AH signature covers the ID (RFC 4302 3.3.3.1.1.1); nobody judges such packets. */
	if (p->proto == IPPROTO_AH)
		return PASS;
	id = cleared_id(p->id, p->segments, p->df);
	if (id == p->id)
		return PASS;
	if (!readable(skb, L4_OFF))
		return PASS;
	ip = packet_start(skb) + L3_OFF;
	if ((void *)(ip + 1) > packet_end(skb))
		return PASS;
	set_id(ip, id);
	count(XMASQ_COUNTER_MARKER_CLEARED);
	return PASS;
}

static __always_inline bool is_vlan(__be16 protocol)
{
	return protocol == bpf_htons(ETH_P_8021Q) || protocol == bpf_htons(ETH_P_8021AD);
}

/*
 * A frame with more tags than the one that the kernel has taken off already. Behind us it takes off priority tags, however
 * many there are, so the IP header below them must not carry a marker either. Nobody uses more than POD_MAX_TAGS.
 */
static __noinline int leave_tagged(struct __sk_buff *skb)
{
	__u32 off = ETH_HLEN;
	__be16 protocol = skb->protocol;
	struct {
		__be16 tci;
		__be16 protocol;
	} tag;
	struct iphdr ip;
	__u16 id, to;

	for (int i = 0; i < POD_MAX_TAGS && is_vlan(protocol); i++) {
		if (bpf_skb_load_bytes(skb, off, &tag, sizeof(tag)))
			return PASS;
		protocol = tag.protocol;
		off += sizeof(tag);
	}
	if (is_vlan(protocol))
		return DROP;
	count(XMASQ_COUNTER_SLOW_TX);
	count_reason(XMASQ_REASON_VLAN);
	if (protocol != bpf_htons(ETH_P_IP) || bpf_skb_load_bytes(skb, off, &ip, sizeof(ip)))
		return PASS;
	if (ip.version != 4 || ip.protocol == IPPROTO_AH)
		return PASS;
	/* See forges_control: none of the segments can be looked at here, and nobody honest sends such a thing. */
	if (skb->gso_size && ip.protocol == IPPROTO_UDP && bpf_map_lookup_elem(&peer_by_addr, &ip.daddr))
		return DROP;
	id = bpf_ntohs(ip.id);
	to = cleared_id(id, segments_of(skb), !!(ip.frag_off & bpf_htons(IP_DF)));
	if (to == id)
		return PASS;
	set_id(&ip, to);
	if (bpf_skb_store_bytes(skb, off, &ip, sizeof(ip), 0))
		return DROP;
	count(XMASQ_COUNTER_MARKER_CLEARED);
	return PASS;
}

/*
 * A pod's control message to a peer's tunnel port would leave with this node's address. Nobody but the peer's data plane
 * could take it, and that must not. uplink_egress stops it, too, but looks at no more than the first segment.
 */
static __always_inline bool forges_control(struct __sk_buff *skb, const struct xmasq_config *cfg,
					   const struct packet *p)
{
	struct iphdr *ip;

	if (!bpf_map_lookup_elem(&peer_by_addr, &p->daddr) || !readable(skb, L4_OFF))
		return false;
	ip = packet_start(skb) + L3_OFF;
	if ((void *)(ip + 1) > packet_end(skb) || !is_control(skb, ip, cfg->tunnel_port, p->segments))
		return false;
	count(XMASQ_COUNTER_REJECT_IGNORED);
	return true;
}

/* As leave_slow, but the packet carries our key to the peer. */
static __always_inline int leave_announcing(struct __sk_buff *skb, struct xmasq_flow *f, __u32 reason, __u64 now)
{
	struct iphdr *ip;
	__u16 id;

	if (!readable(skb, L4_OFF))
		return PASS;
	ip = packet_start(skb) + L3_OFF;
	if ((void *)(ip + 1) > packet_end(skb))
		return PASS;
	id = ID_MARKER | (__u16)f->own_key << ID_KEY_SHIFT;
	/* "Send fast": not to a peer that we do not hear, nor while what it sends seems to be lost. */
	if ((f->flags & XMASQ_FLOW_HAVE_KEY) && now >= f->hole_until && peer_heard(f->peer, now))
		id |= ID_FLAG;
	set_id(ip, id);
	if (!(f->flags & XMASQ_FLOW_ANNOUNCED))
		__sync_fetch_and_or(&f->flags, XMASQ_FLOW_ANNOUNCED);
	count(XMASQ_COUNTER_SLOW_TX);
	count(XMASQ_COUNTER_ANNOUNCED);
	count_reason(reason);
	return PASS;
}

/*
 * AntreaProxy's translation of a packet, and what the routing on the node does to it. `gen` is the flow's that was looked
 * up. False: it is another one by now, or the packet could not be written.
 */
static __noinline bool translate_local(struct __sk_buff *skb, struct packet *p, struct xmasq_flow *f, __u32 gen)
{
	__u32 diff;
	struct xmasq_tuple out;
	__u8 macs[12], ttl;
	struct iphdr *ip;

	if (!p || !f)
		return false;
	diff = f->csum_diff;
	out = f->out;
	ttl = f->out_ttl;
	__builtin_memcpy(macs, f->dmac, 6);
	__builtin_memcpy(macs + 6, f->smac, 6);
	barrier();
	if (f->gen != gen || f->gen2 != gen)
		return false;
	if (!fix_checksum(skb, p->proto, diff) ||
	    (out.sport != p->sport && !change_port(skb, p->proto, 0, p->sport, out.sport)) ||
	    (out.dport != p->dport && !change_port(skb, p->proto, 2, p->dport, out.dport)))
		return false;
	if (bpf_skb_store_bytes(skb, 0, macs, sizeof(macs), 0))
		return false;
	ip = packet_start(skb) + L3_OFF;
	if ((void *)(ip + 1) > packet_end(skb))
		return false; /* not reached: parse() has read it */
	ip->saddr = out.saddr;
	ip->daddr = out.daddr;
	ip->ttl = ttl;
	ip->check = 0;
	ip->check = ip_checksum(ip);
	return true;
}

/* Hands the packet to the other pod of this node, as the bridge would have: nothing in it changes. */
static __always_inline int send_local(struct __sk_buff *skb, __u32 ifindex)
{
	/* The frame is addressed to the other pod's MAC, hence OTHERHOST here, which kernels before 6.? drop in the pod. */
	bpf_skb_change_type(skb, PACKET_HOST);
	skb->mark = 0;
	count(XMASQ_COUNTER_FAST_LOCAL);
	return bpf_redirect_peer(ifindex, 0);
}

/* Rewrites the packet into one between the two nodes and sends it out of the uplink. */
static __always_inline int send_masqueraded(struct __sk_buff *skb, const struct xmasq_config *cfg,
					    const struct packet *p, struct xmasq_flow *f)
{
	__u32 gen = f->gen, sum, ifindex = f->out_ifindex;
	struct xmasq_flow copy;
	struct ethhdr *eth;
	struct iphdr *ip;
	__u16 id;

	copy.csum_diff = f->csum_diff;
	copy.ip_sum = f->ip_sum;
	copy.out.dport = f->out.dport;
	copy.node_saddr = f->node_saddr;
	copy.node_daddr = f->node_daddr;
	__builtin_memcpy(copy.smac, f->smac, 6);
	__builtin_memcpy(copy.dmac, f->dmac, 6);
	id = ID_MARKER | (p->df ? 0 : ID_FLAG) | (__u16)f->peer_key << ID_KEY_SHIFT;
	barrier();
	/* See struct xmasq_flow: the element may have become another flow's since the lookup. */
	if (f->gen != gen || f->gen2 != gen)
		return leave_slow(skb, p, XMASQ_REASON_STALE);

	if (!fix_checksum(skb, p->proto, copy.csum_diff))
		return leave_slow(skb, p, XMASQ_REASON_MALFORMED);
	if (copy.out.dport != p->dport && !change_port(skb, p->proto, 2, p->dport, copy.out.dport))
		return DROP; /* not reached: the checksum was written just now */
	eth = packet_start(skb);
	ip = (void *)(eth + 1);
	if ((void *)(ip + 1) > packet_end(skb))
		return DROP; /* not reached: parse() has read it */
	__builtin_memcpy(eth->h_dest, copy.dmac, 6);
	__builtin_memcpy(eth->h_source, copy.smac, 6);
	ip->tos = p->tos & TOS_ECN;
	ip->id = bpf_htons(id);
	ip->frag_off = bpf_htons(IP_DF);
	ip->ttl = 64;
	ip->saddr = copy.node_saddr;
	ip->daddr = copy.node_daddr;
	sum = copy.ip_sum + bpf_htons(p->tos & TOS_ECN) + bpf_htons(p->tot_len) + bpf_htons(id);
	ip->check = ~fold(sum);

	store_cb(skb, cfg->magic[0], cfg->magic[1], cfg->magic[2], cfg->magic[3]);
	count(XMASQ_COUNTER_FAST_TX);
	return bpf_redirect(ifindex, 0);
}

/*
 * Would the packet, or a segment of it, not fit on the underlay? The size of GSO segments counts payload only, and is
 * GSO_BY_FRAGS (0xffff) for SCTP: where the longest headers (80 bytes) decide, the kernel does.
 */
static __always_inline bool too_big(struct __sk_buff *skb, const struct xmasq_flow *f)
{
	__u32 mtu = 0;

	if (!skb->gso_size)
		return skb->len - ETH_HLEN > f->mtu;
	return skb->gso_size + 80 > f->mtu && bpf_check_mtu(skb, f->out_ifindex, &mtu, 0, BPF_MTU_CHK_SEGS);
}

/* The pod opens a connection: it must not be taken for an old one on the same ports. */
static __noinline void begin_connection(struct __sk_buff *skb, const struct xmasq_config *cfg,
					struct xmasq_flow_key *key)
{
	__u8 mac[6];

	if (key && !bpf_skb_load_bytes(skb, offsetof(struct ethhdr, h_source), mac, sizeof(mac)) && from_pod(key, mac))
		ct_forget(skb, cfg, key, false);
}

static __always_inline int pod_egress_main(struct __sk_buff *skb)
{
	const struct xmasq_config *cfg = get_config();
	struct xmasq_flow_key key = {};
	struct xmasq_flow *f;
	struct packet p;
	struct ethhdr *eth;
	__u32 reason;
	__u64 now;
	bool deviates;

	if (!cfg)
		return PASS;
	if (is_vlan(skb->protocol))
		return leave_tagged(skb);
	if (!parse(skb, &p, cfg->tunnel_port, false))
		return PASS;
	/* Behind us the tag may be taken off, and the source port translated. */
	if ((p.reason == XMASQ_REASON_RESERVED_PORT || p.reason == XMASQ_REASON_DNS_REPLY ||
	     p.reason == XMASQ_REASON_VLAN) &&
	    forges_control(skb, cfg, &p))
		return DROP;
	/* Without ports there is no flow to look up. */
	switch (p.reason) {
	case XMASQ_REASON_VLAN:
	case XMASQ_REASON_MALFORMED:
	case XMASQ_REASON_IP_OPTIONS:
	case XMASQ_REASON_FRAGMENT:
	case XMASQ_REASON_PROTOCOL:
	case XMASQ_REASON_ICMP_TYPE:
	case XMASQ_REASON_DNS_REPLY:
	case XMASQ_REASON_RESERVED_PORT:
		return leave_slow(skb, &p, p.reason);
	}
	reason = p.reason ? p.reason : header_reason(&p);

	key.saddr = p.saddr;
	key.daddr = p.daddr;
	key.sport = p.sport;
	key.dport = p.dport;
	key.ifindex = skb->ifindex;
	key.proto = p.proto;
	f = bpf_map_lookup_elem(&flows, &key);
	now = bpf_ktime_get_coarse_ns();

	if (reason == XMASQ_REASON_TCP_SYN || reason == XMASQ_REASON_TCP_FIN) {
		if (f) {
			end_flow(&key, reason == XMASQ_REASON_TCP_FIN ? XMASQ_SLOT_CLOSING : XMASQ_SLOT_TOMBSTONE, now);
			count(XMASQ_COUNTER_FLOW_CLOSED);
		}
		if ((p.tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN)
			begin_connection(skb, cfg, &key);
		return leave_slow(skb, &p, reason);
	}
	if (!f) {
		if (reason)
			return leave_slow(skb, &p, reason);
		if (p.tcp_flags & TCP_RST)
			return leave_slow(skb, &p, XMASQ_REASON_CLOSED);
		reason = admit(skb, cfg, &key, (__u32)p.ttl << 8 | p.tos);
		if (reason)
			return leave_slow(skb, &p, reason);
		f = bpf_map_lookup_elem(&flows, &key);
		if (!f)
			return leave_slow(skb, &p, XMASQ_REASON_STALE);
		f->last_tx = now;
		f->slow_packets++;
		if (f->flags & XMASQ_FLOW_LOCAL)
			return leave_slow(skb, &p, XMASQ_REASON_KEY_EXCHANGE);
		return leave_announcing(skb, f, XMASQ_REASON_KEY_EXCHANGE, now);
	}

	eth = packet_start(skb);
	if ((void *)(eth + 1) > packet_end(skb))
		return PASS; /* not reached: parse() has read it */
	if (!mac_equal(eth->h_source, f->pod_mac))
		return leave_slow(skb, &p, XMASQ_REASON_SPOOF);
	if ((f->flags & XMASQ_FLOW_LOCAL) && !mac_equal(eth->h_dest, f->via_mac))
		return leave_slow(skb, &p, XMASQ_REASON_NOT_POD);

	deviates = p.ttl != f->ttl || (p.tos & ~TOS_ECN) != f->tos;
	if ((f->flags & (XMASQ_FLOW_LOCAL | XMASQ_FLOW_SERVICE)) == XMASQ_FLOW_LOCAL)
		deviates = false;
	if (deviates && !reason) {
		/* A flow that has changed for good gets new keys, with which the peer learns the new header. */
		if (!f->deviating_since) {
			f->deviating_since = now;
		} else if (now - f->deviating_since > XMASQ_HEADER_CHANGE_NS) {
			demote(&key, XMASQ_REASON_HEADER_CHANGED, now);
			return leave_slow(skb, &p, XMASQ_REASON_HEADER_CHANGED);
		}
		reason = XMASQ_REASON_HEADER_CHANGED;
	} else if (f->deviating_since && !reason) {
		f->deviating_since = 0;
	}

	if (now >= f->verify_at || (!f->recheck_at && !reason && !flow_is_slow(f))) {
		__u32 why = verify(skb, cfg, &key, f, now);

		if (why) {
			demote(&key, why, now);
			return leave_slow(skb, &p, why);
		}
	}
	f->last_tx = now;

	if (!reason && flow_is_slow(f)) {
		/* A RST must not wait where conntrack would not let it pass (see ct_reset). */
		if (!(p.tcp_flags & TCP_RST) || !f->fast_since || (f->flags & FLOW_READY) != FLOW_READY ||
		    (f->blocked != XMASQ_REASON_BLACK_HOLE &&
		     (f->blocked != XMASQ_REASON_PEER_SILENT || !ct_refuses_reset(skb, cfg, &key))))
			reason = f->blocked ? f->blocked : XMASQ_REASON_KEY_EXCHANGE;
	}
	if (!reason && too_big(skb, f))
		reason = XMASQ_REASON_TOO_BIG;
	if (reason) {
		f->recheck_at = 0;
		f->slow_packets++;
		if (p.tcp_flags & TCP_RST) {
			/* Conntrack must find its entry when it passes the RST (see outlived), but not keep one that refuses it. */
			if (ct_refuses_reset(skb, cfg, &key))
				ct_reset(skb, cfg, &key, f->peer);
			end_flow(&key, XMASQ_SLOT_TOMBSTONE, now);
			count(XMASQ_COUNTER_FLOW_CLOSED);
			return leave_slow(skb, &p, XMASQ_REASON_CLOSED);
		}
		/* A node that drains keeps quiet: peers must stop hearing of it, or they go on sending what it will not restore. */
		if (deviates || (f->flags & XMASQ_FLOW_LOCAL) || p.segments > ID_MAX_SEGMENTS ||
		    !(cfg->flags & XMASQ_CFG_ADMIT))
			return leave_slow(skb, &p, reason);
		return leave_announcing(skb, f, reason, now);
	}

	if (!f->fast_since)
		f->fast_since = now;
	__sync_fetch_and_add(&f->tx_packets, p.segments);
	__sync_fetch_and_add(&f->tx_bytes, skb->len - ETH_HLEN + (p.segments - 1) * 40);
	if (p.tcp_flags & TCP_RST) {
		struct xmasq_scratch *tmp;
		__u32 zero = 0;

		tmp = bpf_map_lookup_elem(&scratch, &zero);
		if (!tmp)
			return DROP;
		/* The entry is gone before the packet is: the copy carries it. */
		tmp->flow = *f;
		f = &tmp->flow;
		end_flow(&key, XMASQ_SLOT_TOMBSTONE, now);
		count(XMASQ_COUNTER_FLOW_CLOSED);
		ct_reset(skb, cfg, &key, f->peer);
	}
	if (f->flags & XMASQ_FLOW_LOCAL) {
		__u32 gen = f->gen, flags = f->flags, ifindex = f->out_ifindex;

		barrier();
		if (f->gen != gen || f->gen2 != gen)
			return leave_slow(skb, &p, XMASQ_REASON_STALE);
		if ((flags & XMASQ_FLOW_SERVICE) && !translate_local(skb, &p, f, gen))
			return DROP;
		return send_local(skb, ifindex);
	}
	return send_masqueraded(skb, cfg, &p, f);
}

SEC("tc")
int pod_egress(struct __sk_buff *skb)
{
	return pod_egress_main(skb);
}
