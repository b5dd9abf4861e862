/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * uplink_egress: tc egress of the uplink; first in its chain. Lets masqueraded packets pass and
 * takes the marker bit from the node's own packets to peers, so that no peer mistakes them. Writes to no packet through a
 * pointer: see write_id.
 */
#pragma once

#include "uplink_ingress.h"

/*
 * A control message to `daddr` that this node's data plane has not made comes from a pod, translated to the node's address, or
 * from a process of the node: the peer would take it for ours, and it is of no use to anybody else.
 */
static __always_inline int pass_control(struct xmasq_addr *daddr)
{
	if (!bpf_map_lookup_elem(&peer_by_addr, daddr))
		return PASS;
	count(XMASQ_COUNTER_REJECT_IGNORED);
	return DROP;
}

/* A copy of a restored packet, made by acknowledge(): becomes a message to its sender. */
static __noinline int send_ack(struct __sk_buff *skb, const struct xmasq_config *cfg)
{
	const bool v6 = skb->protocol == bpf_htons(ETH_P_IPV6);
	struct packet p;

	if (!cfg ||
	    (v6 ? !parse(skb, true, &p, cfg->tunnel_port, true) : !parse(skb, false, &p, cfg->tunnel_port, true)))
		return DROP;
	if (p.reason == XMASQ_REASON_MALFORMED)
		return DROP;
	if (v6 ? !make_ctl(skb, true, cfg->tunnel_port, XMASQ_CTL_ACK, p.proto, p.sport, p.dport, p.id) :
		 !make_ctl(skb, false, cfg->tunnel_port, XMASQ_CTL_ACK, p.proto, p.sport, p.dport, p.id))
		return DROP;
	return PASS;
}

/* What the transport header of a probe takes: TCP's without options, or as many bytes of others. */
#define PROBE_L4_LEN 20

/*
 * A transport header of PROBE_L4_LEN bytes with a checksum that is right both as it is and when the device adds the words of
 * the header to it (CHECKSUM_PARTIAL, which a program cannot see): it equals the sum of the pseudo header, and one free word
 * makes all words add up to twice its complement. `sum` is that of the pseudo header.
 */
static __always_inline void fill_checksum(__u8 *l4, __u32 check_at, __u32 free_at, __u32 sum)
{
	__u16 check = fold(sum), rest;
	__u32 words = 0;

	*(__u16 *)(l4 + check_at) = 0;
	*(__u16 *)(l4 + free_at) = 0;
#pragma unroll
	for (int i = 0; i < PROBE_L4_LEN / 2; i++)
		words += ((__u16 *)l4)[i];
	rest = ~fold(fold(words) + check + check);
	*(__u16 *)(l4 + check_at) = check;
	*(__u16 *)(l4 + free_at) = rest;
}

/*
 * A copy of a pod's packet, made by probe(): becomes a masqueraded packet that nobody takes to a pod, as like to those of the
 * flow as can be, so that a firewall treats it alike.
 */
static __always_inline int send_probe(struct __sk_buff *skb, const bool v6, const struct xmasq_config *cfg)
{
	struct xmasq_flow_key key = {};
	__u8 l4[PROBE_L4_LEN];
	struct xmasq_scratch *tmp;
	struct xmasq_path *path;
	struct xmasq_flow *f;
	struct ethhdr *eth;
	struct packet p;
	__u32 sum, zero = 0;
	__u16 id;

	if (!parse(skb, v6, &p, cfg->tunnel_port, false))
		return DROP;
	key.saddr = p.saddr;
	key.daddr = p.daddr;
	key.sport = p.sport;
	key.dport = p.dport;
	key.ifindex = skb->ingress_ifindex;
	key.proto = p.proto;
	f = bpf_map_lookup_elem(&flows, &key);
	if (!f || !(f->flags & XMASQ_FLOW_KEYED) || bpf_skb_change_tail(skb, L4_OFF(v6) + PROBE_L4_LEN, 0) ||
	    !readable(skb, L4_OFF(v6) + PROBE_L4_LEN) || bpf_skb_load_bytes(skb, L4_OFF(v6), l4, sizeof(l4)))
		return DROP;
	path = path_of(f);
	if (!path)
		return DROP;
	id = probe_id(path);
	sum = add_words(addr_sum(&f->node_saddr), addr_sum(&f->node_daddr));
	sum = add_words(sum, bpf_htons(p.proto) + bpf_htons(PROBE_L4_LEN));
	switch (p.proto) {
	case IPPROTO_TCP:
		*(__be16 *)(l4 + 2) = f->out.dport;
		l4[12] = PROBE_L4_LEN / 4 << 4;
		l4[13] = TCP_ACK;
		fill_checksum(l4, 16, 18, sum);
		break;
	case IPPROTO_UDP:
		*(__be16 *)(l4 + 2) = f->out.dport;
		*(__be16 *)(l4 + 4) = bpf_htons(PROBE_L4_LEN);
		fill_checksum(l4, 6, 8, sum);
		break;
	case IPPROTO_SCTP:
		l4[12] = 0; /* a DATA chunk, whatever the pod's packet has: others are not judged masqueraded */
		break;
	case IPPROTO_ICMP:
		fill_checksum(l4, 2, 8, 0); /* no pseudo header */
		break;
	case IPPROTO_ICMPV6:
		fill_checksum(l4, 2, 8, sum);
		break;
	}
	tmp = bpf_map_lookup_elem(&scratch, &zero);
	if (!tmp)
		return DROP;
	eth = (struct ethhdr *)tmp->header;
	macs_write(eth, macs_read(f->dmac));
	eth->h_proto = v6 ? bpf_htons(ETH_P_IPV6) : bpf_htons(ETH_P_IP);
	if (v6) {
		struct ipv6hdr *ip = (void *)(eth + 1);

		*(__be32 *)ip = ip6_first_word(0, id);
		ip->payload_len = bpf_htons(PROBE_L4_LEN);
		ip->nexthdr = p.proto;
		ip->hop_limit = 64;
		addr_get6(&ip->saddr, &f->node_saddr);
		addr_get6(&ip->daddr, &f->node_daddr);
	} else {
		struct iphdr *ip = (void *)(eth + 1);

		*(__u8 *)ip = IPPROTO_VERSION_IHL;
		ip->tos = 0;
		ip->tot_len = bpf_htons(sizeof(*ip) + PROBE_L4_LEN);
		ip->id = bpf_htons(id);
		ip->frag_off = bpf_htons(IP_DF);
		ip->ttl = 64;
		ip->protocol = p.proto;
		ip->saddr = f->node_saddr.word[3];
		ip->daddr = f->node_daddr.word[3];
		ip->check = 0;
		ip->check = ip_checksum(ip);
	}
	if (bpf_skb_store_bytes(skb, 0, tmp->header, L4_OFF(v6), 0) ||
	    bpf_skb_store_bytes(skb, L4_OFF(v6), l4, sizeof(l4), 0))
		return DROP;
	return PASS;
}

/* Frames on the stack of their own. */
static __noinline int send_probe4(struct __sk_buff *skb, const struct xmasq_config *cfg)
{
	return cfg ? send_probe(skb, false, cfg) : DROP;
}

static __noinline int send_probe6(struct __sk_buff *skb, const struct xmasq_config *cfg)
{
	return cfg ? send_probe(skb, true, cfg) : DROP;
}

/* A packet with our magic that is no pod's, or not to leave as it is: what shall become of it? */
static __noinline int special_packet(struct __sk_buff *skb, const struct xmasq_config *cfg, __u64 kind)
{
	const bool v6 = skb->protocol == bpf_htons(ETH_P_IPV6);
	bool pod = is_pod_veth(skb->ingress_ifindex);

	if (!cfg)
		return DROP;
	if (!v6 && skb->protocol != bpf_htons(ETH_P_IP))
		goto lost;
	if (kind == KIND_CONTROL &&
	    (v6 ? leads_control(skb, true, cfg->tunnel_port) : leads_control(skb, false, cfg->tunnel_port)))
		return PASS;
	if (kind == KIND_ACK && !pod)
		return send_ack(skb, cfg);
	if (kind == KIND_PROBE && pod)
		return v6 ? send_probe6(skb, cfg) : send_probe4(skb, cfg);
lost:
	count(XMASQ_COUNTER_OWN_LOST);
	return DROP;
}

/* A packet with our magic. Most are, if anything is to be gained, and as they shall leave: so nothing of them is read. */
static __always_inline int own_packet(struct __sk_buff *skb, const struct xmasq_config *cfg, __u64 kind)
{
	wipe_magic(skb);
	if (kind != KIND_OWN)
		return special_packet(skb, cfg, kind);
	count(XMASQ_COUNTER_OWN_SEEN);
	return PASS;
}

/* What a pod sends leaves this node as it is. */
static __always_inline void look_at_routed(struct __sk_buff *skb, const bool v6, const struct xmasq_config *cfg,
					   struct xmasq_addr *saddr)
{
	struct packet p;

	if (bpf_map_lookup_elem(&endpoint_by_addr, saddr) && parse(skb, v6, &p, cfg->tunnel_port, false))
		learn_direct(&p);
}

/* Like PASS, but there may be a tunnel's header to be learned: not from here, where the stack is too full for that. */
#define LEARN_ENCAP (-2)

static __always_inline int uplink_egress_main(struct __sk_buff *skb, const bool v6, const struct xmasq_config *cfg)
{
	struct xmasq_addr saddr, daddr;
	__u16 id, to;
	__u8 proto;
	bool df = true;
	int pass = PASS;

	if (!readable(skb, L4_OFF(v6)))
		return PASS;
	if (v6) {
		struct ipv6hdr *ip = packet_start(skb) + L3_OFF;

		if ((void *)(ip + 1) > packet_end(skb) || *(__u8 *)ip >> 4 != 6)
			return PASS;
		addr_set6(&saddr, &ip->saddr);
		addr_set6(&daddr, &ip->daddr);
		if (addr_is4(&saddr) || addr_is4(&daddr))
			return PASS; /* see parse_header6 */
		id = bpf_ntohl(*(__be32 *)ip) >> 4;
		proto = ip->nexthdr;
	} else {
		struct iphdr *ip = packet_start(skb) + L3_OFF;

		if ((void *)(ip + 1) > packet_end(skb) || *(__u8 *)ip >> 4 != 4)
			return PASS;
		addr_set4(&saddr, ip->saddr);
		addr_set4(&daddr, ip->daddr);
		id = bpf_ntohs(ip->id);
		proto = ip->protocol;
		df = !!(ip->frag_off & bpf_htons(IP_DF));
	}
	if (proto == IPPROTO_UDP) {
		/* Of a packet to be segmented, the first segment: the tunnel's have their header in front of each. */
		if (leads_control(skb, v6, cfg->tunnel_port))
			return pass_control(&daddr);
		if (cfg->flags & XMASQ_CFG_ENCAP)
			pass = LEARN_ENCAP;
	}
	if (cfg->flags & XMASQ_CFG_DIRECT)
		look_at_routed(skb, v6, cfg, &saddr);
	if (!df || proto == IPPROTO_AH)
		return pass;
	to = cleared_id(v6, id, segments_of(skb), true);
	if (to == id || !bpf_map_lookup_elem(&peer_by_addr, &daddr))
		return pass;
	if (is_pod_veth(skb->ingress_ifindex)) {
		/* pod_egress clears every marker it does not set: this was ours, and somebody has overwritten our magic. */
		count(XMASQ_COUNTER_OWN_LOST);
		emit(XMASQ_EVENT_OWN_LOST, 0, NULL, 0);
		return DROP;
	}
	if (!write_id(skb, v6, to))
		return PASS;
	count(XMASQ_COUNTER_NODE_CLEARED);
	return pass;
}

/* One frame on the stack for each family: together they would be too large. */
static __noinline int uplink_egress4(struct __sk_buff *skb, const struct xmasq_config *cfg)
{
	return cfg ? uplink_egress_main(skb, false, cfg) : PASS;
}

static __noinline int uplink_egress6(struct __sk_buff *skb, const struct xmasq_config *cfg)
{
	return cfg ? uplink_egress_main(skb, true, cfg) : PASS;
}

SEC("tc")
int uplink_egress(struct __sk_buff *skb)
{
	const struct xmasq_config *cfg = get_config();
	int verdict = PASS;
	__u64 kind;

	if (!cfg)
		return PASS;
	kind = magic_kind(skb, cfg);
	if (kind != NO_MAGIC)
		return own_packet(skb, cfg, kind);
	if (skb->protocol == bpf_htons(ETH_P_IP))
		verdict = uplink_egress4(skb, cfg);
	else if (skb->protocol == bpf_htons(ETH_P_IPV6))
		verdict = uplink_egress6(skb, cfg);
	if (verdict == LEARN_ENCAP) {
		learn_encap(skb, cfg);
		verdict = PASS;
	}
	return verdict;
}
