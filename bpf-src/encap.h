/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Sending and receiving as the slow path does, past it: in the tunnel's header, or without a tunnel where Antrea routes. How
 * the slow path does it is learned from its own packets, flow by flow, so that a peer cannot tell them apart.
 */
#pragma once

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "flow.h"
#include "packet.h"

#define TUNNEL_LEN 8 /* of the header of Geneve without options (RFC 8926) or VXLAN (RFC 7348) */
#define ENCAP_BEHIND_IP ((int)sizeof(struct udphdr) + TUNNEL_LEN + ETH_HLEN)
#define ENCAP_LEN4 ((int)sizeof(struct iphdr) + ENCAP_BEHIND_IP)
#define ENCAP_LEN6 ((int)sizeof(struct ipv6hdr) + ENCAP_BEHIND_IP)
#define ECN_CE 3
#define ECN_ECT0 2

_Static_assert(ENCAP_LEN6 == XMASQ_MAX_ENCAP, "the longest tunnel header");

/* The header of the tunnel and the inner frame. */
struct tunnel_header {
	__u8 bytes[TUNNEL_LEN];
	struct ethhdr eth;
} __attribute__((packed, aligned(2)));

/*
 * Reads the header behind the UDP header of a packet to the tunnel's port. False if it is neither VXLAN nor Geneve with a
 * frame that has an IP packet in it, or has options.
 */
static __always_inline bool read_tunnel(struct __sk_buff *skb, bool v6, struct tunnel_header *h)
{
	const __u8 *b = h->bytes;

	if (bpf_skb_load_bytes(skb, L4_OFF(v6) + sizeof(struct udphdr), h, sizeof(*h)))
		return false;
	if (h->eth.h_proto != bpf_htons(ETH_P_IP) && h->eth.h_proto != bpf_htons(ETH_P_IPV6))
		return false;
	if (b[0] == 0x08)
		return !(b[1] | b[2] | b[3] | b[7]);
	return !(b[0] | b[1] | b[7]) && b[2] == (ETH_P_TEB >> 8) && b[3] == (ETH_P_TEB & 0xff);
}

/*
 * The flow of a local pod whose packets have this tuple on their way to another node's pod, i.e. after AntreaProxy's
 * translation. `key` has the tuple, and gets the flow's key.
 */
static __noinline struct xmasq_flow *find_sender(struct xmasq_flow_key *key)
{
	struct xmasq_flow_key *other;
	struct xmasq_endpoint *ep;
	struct xmasq_flow *f;
	__u32 *id;

	if (!key)
		return NULL;
	id = bpf_map_lookup_elem(&endpoint_by_addr, &key->saddr);
	ep = id ? bpf_map_lookup_elem(&endpoints, id) : NULL;
	if (!ep)
		return NULL;
	key->ifindex = ep->ifindex;
	f = bpf_map_lookup_elem(&flows, key);
	if (!f) {
		other = bpf_map_lookup_elem(&translated, key);
		if (!other)
			return NULL;
		*key = *other;
		f = bpf_map_lookup_elem(&flows, key);
	}
	return f && !(f->flags & XMASQ_FLOW_LOCAL) ? f : NULL;
}

/* Notes how the slow path sends a packet of the flow: `header` (encap_len bytes; none if direct), TTL `ttl`. */
static __always_inline void note_sent(struct xmasq_flow *f, __u8 ttl, const __u8 *header, const __u32 encap_len)
{
	__u32 gen = f->gen;

	f->tx_gen = 0;
	barrier();
	f->out_ttl = ttl;
	f->encap_len = encap_len;
	if (encap_len == ENCAP_LEN4)
		__builtin_memcpy(f->encap, header, ENCAP_LEN4);
	else if (encap_len == ENCAP_LEN6)
		__builtin_memcpy(f->encap, header, ENCAP_LEN6);
	barrier();
	f->tx_gen = gen;
	f->verify_at = 0;
	count(XMASQ_COUNTER_TX_LEARNED);
}

/* Is this what the slow path makes of the flow's usual packets? It lowers the TTL by as much as there are routers on the way. */
static __always_inline bool usual(const struct xmasq_flow *f, const struct packet *p)
{
	return !p->reason && !f->deviating_since && (p->tos & ~TOS_ECN) == f->tos && (__u8)(f->ttl - p->ttl) <= 3;
}

static __always_inline void sender_key(const struct packet *p, struct xmasq_flow_key *key)
{
	__builtin_memset(key, 0, sizeof(*key));
	key->saddr = p->saddr;
	key->daddr = p->daddr;
	key->sport = p->sport;
	key->dport = p->dport;
	key->proto = p->proto;
}

/* The packet's addresses on the underlay, and its traffic class. False: it has no IP header. */
static __always_inline bool read_outer(struct __sk_buff *skb, const bool v6, struct xmasq_addr *saddr,
				       struct xmasq_addr *daddr, __u8 *tos)
{
	if (!readable(skb, L4_OFF(v6)))
		return false;
	if (v6) {
		struct ipv6hdr *ip = packet_start(skb) + L3_OFF;

		if ((void *)(ip + 1) > packet_end(skb))
			return false;
		addr_set6(saddr, &ip->saddr);
		addr_set6(daddr, &ip->daddr);
		*tos = bpf_ntohl(*(__be32 *)ip) >> 20;
	} else {
		struct iphdr *ip = packet_start(skb) + L3_OFF;

		if ((void *)(ip + 1) > packet_end(skb))
			return false;
		addr_set4(saddr, ip->saddr);
		addr_set4(daddr, ip->daddr);
		*tos = ip->tos;
	}
	return true;
}

/*
 * A packet of this node's tunnel, perhaps, leaves: the header in front of it serves the flow's further packets. A pod may send
 * what looks like one, and it leaves with this node's address; but what is forwarded still has the device that it came by, and
 * the tunnel forgets it (net/core/skbuff.c, skb_scrub_packet).
 */
static __noinline void learn_encap(struct __sk_buff *skb, const struct xmasq_config *cfg)
{
	const bool v6 = skb->protocol == bpf_htons(ETH_P_IPV6);
	struct xmasq_addr own, daddr;
	struct tunnel_header h;
	struct xmasq_flow_key key;
	struct xmasq_scratch *tmp;
	struct xmasq_flow *f;
	struct packet p;
	__u32 *id, zero = 0;
	__be16 port, frag;
	__u8 tos;

	tmp = bpf_map_lookup_elem(&scratch, &zero);
	if (!tmp || !cfg || skb->ingress_ifindex ||
	    bpf_skb_load_bytes(skb, L4_OFF(v6) + offsetof(struct udphdr, dest), &port, sizeof(port)) ||
	    port != cfg->tunnel_port || !read_tunnel(skb, v6, &h))
		return;
	peek(skb, L3_OFF + (v6 ? ENCAP_LEN6 : ENCAP_LEN4), &p, cfg->tunnel_port);
	if (p.reason)
		return;
	sender_key(&p, &key);
	f = find_sender(&key);
	if (!f || tx_learned(f) || (f->flags & XMASQ_FLOW_DIRECT) || !usual(f, &p))
		return;
	if (v6 ? !read_outer(skb, true, &own, &daddr, &tos) : !read_outer(skb, false, &own, &daddr, &tos))
		return;
	id = bpf_map_lookup_elem(&peer_by_addr, &daddr);
	if (!id || *id != f->peer)
		return;
	if (v6 ? bpf_skb_load_bytes(skb, L3_OFF, tmp->header, ENCAP_LEN6) :
		 bpf_skb_load_bytes(skb, L3_OFF, tmp->header, ENCAP_LEN4))
		return;
	frag = *(__be16 *)(tmp->header + offsetof(struct iphdr, frag_off));
	if (!v6 && (tmp->header[0] != IPPROTO_VERSION_IHL || frag != bpf_htons(IP_DF)))
		return;
	if (f->flags & XMASQ_FLOW_KEYED) {
		if (!addr_equal(&daddr, &f->node_daddr) || !addr_equal(&own, &f->node_saddr) ||
		    skb->ifindex != f->out_ifindex)
			return;
	} else {
		f->node_saddr = own;
		f->node_daddr = daddr;
		f->out_ifindex = skb->ifindex;
	}
	note_sent(f, p.ttl, tmp->header, v6 ? ENCAP_LEN6 : ENCAP_LEN4);
}

/* A pod's packet leaves this node as it is: Antrea routes it. */
static __noinline void learn_direct(struct packet *p)
{
	struct xmasq_flow_key key;
	struct xmasq_flow *f;

	if (!p)
		return;
	sender_key(p, &key);
	f = find_sender(&key);
	if (f && (f->flags & XMASQ_FLOW_DIRECT) && !tx_learned(f) && usual(f, p))
		note_sent(f, p->ttl, NULL, 0);
}

/* A sum of 16-bit words without its final inversion, in steps that cannot overflow. */
static __always_inline __u32 add_words(__u32 sum, __u32 words)
{
	return fold(sum) + fold(words);
}

static __always_inline __u32 addr_sum(const struct xmasq_addr *a)
{
	__u32 sum = 0;

	/* The prefix of mapped IPv4 addresses is no part of them. */
	if (addr_is4(a))
		return fold(a->word[3]);
	sum = add_words(a->word[0], a->word[1]);
	sum = add_words(sum, a->word[2]);
	return add_words(sum, a->word[3]);
}

/*
 * Why the packet cannot be sent in the header that was learned; enum xmasq_reason. With a UDP checksum in it, only packets whose
 * own checksum is known to be right without reading them: then the outer one follows (RFC 1071 2.(C)).
 */
static __always_inline __u32 tunnel_reason(struct __sk_buff *skb, const struct packet *p, const struct xmasq_flow *f)
{
	const __u32 check_at = (f->encap_len == ENCAP_LEN6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr)) +
			       offsetof(struct udphdr, check);
	__be16 check;

	if (!(f->encap[check_at] | f->encap[check_at + 1]))
		return XMASQ_REASON_NONE;
	if (skb->gso_size)
		return XMASQ_REASON_TUNNEL_CHECKSUM;
	switch (p->proto) {
	case IPPROTO_UDP:
		if (bpf_skb_load_bytes(skb, L4_OFF(p->v6) + offsetof(struct udphdr, check), &check, sizeof(check)) ||
		    !check)
			return XMASQ_REASON_TUNNEL_CHECKSUM;
		return XMASQ_REASON_NONE;
	case IPPROTO_TCP:
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		return XMASQ_REASON_NONE;
	}
	return XMASQ_REASON_TUNNEL_CHECKSUM;
}

/*
 * The outer UDP checksum (not yet inverted, without the outer pseudo header): the headers' words, and what the inner packet
 * sums up to if its own checksums are right, whether they are there already or left to the device.
 */
static __always_inline __u32 inner_sum(const struct packet *p, const struct xmasq_addr *daddr, __be32 ip6_first,
				       __u8 ttl)
{
	__u32 pseudo;

	/* An IPv4 header sums up to nothing, so does an ICMP message. */
	if (!p->v6 && p->proto == IPPROTO_ICMP)
		return 0;
	if (p->v6)
		/* Addresses and length are in the header and in the pseudo header. */
		return fold(add_words(add_words(ip6_first, bpf_htons((__u16)p->proto << 8 | ttl)),
				      (__u16)~bpf_htons(p->proto)));
	pseudo = add_words(addr_sum(&p->saddr), addr_sum(daddr));
	pseudo = add_words(pseudo, bpf_htons(p->proto) + bpf_htons(p->tot_len - sizeof(struct iphdr)));
	return (__u16)~fold(pseudo);
}

struct udp_header_and_more {
	struct udphdr udp;
	__u8 rest[TUNNEL_LEN + ETH_HLEN];
	__u8 zero[2];
};

/* Puts the tunnel's header in front of the packet, which is as it has to be inside. `header` is the learned one. */
static __always_inline bool push_header(struct __sk_buff *skb, const struct packet *p, __u8 *header, const bool outer6,
					__u32 sum_inside)
{
	const __u32 len = outer6 ? ENCAP_LEN6 : ENCAP_LEN4;
	const __u32 udp_off = outer6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr);
	struct udphdr *udp = (struct udphdr *)(header + udp_off);
	__u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_ENCAP_L4_UDP | BPF_F_ADJ_ROOM_ENCAP_L2_ETH |
		      BPF_F_ADJ_ROOM_ENCAP_L2(ETH_HLEN);
	__u16 udp_len = p->tot_len + ENCAP_BEHIND_IP;
	/* RFC 6040 as the kernel has it (include/net/inet_ecn.h, INET_ECN_encapsulate). */
	__u8 ecn = (p->tos & TOS_ECN) == ECN_CE ? ECN_ECT0 : p->tos & TOS_ECN;
	__be16 proto;

	udp->len = bpf_htons(udp_len);
	if (outer6) {
		struct ipv6hdr *ip = (struct ipv6hdr *)header;

		ip->payload_len = udp->len;
		*(__be32 *)ip = (*(__be32 *)ip & ~bpf_htonl(TOS_ECN << 20)) | bpf_htonl((__u32)ecn << 20);
		flags |= BPF_F_ADJ_ROOM_ENCAP_L3_IPV6;
		proto = bpf_htons(ETH_P_IPV6);
	} else {
		struct iphdr *ip = (struct iphdr *)header;

		ip->tot_len = bpf_htons(udp_len + sizeof(*ip));
		ip->tos = (ip->tos & ~TOS_ECN) | ecn;
		ip->id = 0;
		ip->check = 0;
		ip->check = ip_checksum(ip);
		flags |= BPF_F_ADJ_ROOM_ENCAP_L3_IPV4;
		proto = bpf_htons(ETH_P_IP);
	}
	if (udp->check) {
		struct udp_header_and_more rest = {};
		__u32 sum = sum_inside;

		udp->check = 0;
		__builtin_memcpy(&rest, udp, ENCAP_BEHIND_IP);
		sum = add_words(sum, bpf_csum_diff(NULL, 0, (__be32 *)&rest, sizeof(rest), 0));
		if (outer6)
			sum = add_words(sum, bpf_csum_diff(NULL, 0, (__be32 *)(header + 8), 32, 0));
		else
			sum = add_words(sum, bpf_csum_diff(NULL, 0, (__be32 *)(header + 12), 8, 0));
		sum = add_words(sum, bpf_htons(IPPROTO_UDP) + udp->len);
		udp->check = ~fold(sum);
		if (!udp->check)
			udp->check = 0xffff;
	}
	return bpf_skb_adjust_room(skb, len, BPF_ADJ_ROOM_MAC, flags) == 0 &&
	       bpf_skb_store_bytes(skb, L3_OFF, header, len, 0) == 0 &&
	       bpf_skb_store_bytes(skb, offsetof(struct ethhdr, h_proto), &proto, sizeof(proto), 0) == 0;
}

/*
 * Sends the packet as the slow path would: in the learned header, or routed. p->id is the ID that it gets. The counters of
 * the flow are the caller's.
 */
static __always_inline int send_as_learned(struct __sk_buff *skb, const bool v6, const struct xmasq_config *cfg,
					   const struct packet *p, struct xmasq_flow *f, __u32 mode)
{
	__u32 gen = f->gen, ifindex = f->out_ifindex, encap_len = f->encap_len, inside = 0, diff;
	struct xmasq_addr daddr = f->out.daddr;
	__be16 dport = f->out.dport;
	__u8 macs[12], *header, ttl = f->out_ttl;
	struct xmasq_scratch *tmp;
	__be32 first = 0;
	__u32 zero = 0;

	tmp = bpf_map_lookup_elem(&scratch, &zero);
	if (!tmp)
		return DROP;
	header = tmp->header;
	__builtin_memcpy(macs, f->dmac, 6);
	__builtin_memcpy(macs + 6, f->smac, 6);
	__builtin_memcpy(header, f->encap, XMASQ_MAX_ENCAP);
	barrier();
	/* See struct xmasq_flow: the element may have become another flow's since the lookup. */
	if (f->gen != gen || f->gen2 != gen || f->tx_gen != gen)
		return DROP;

	if (!addr_equal(&daddr, &p->daddr)) {
		diff = address_diff(&p->saddr, &p->daddr, &p->saddr, &daddr);
		if (!fix_checksum(skb, v6, p->proto, diff))
			return DROP;
	}
	if (dport != p->dport && !change_port(skb, v6, p->proto, 2, p->dport, dport))
		return DROP;
	if (v6) {
		struct ipv6hdr *ip = packet_start(skb) + L3_OFF;

		if ((void *)(ip + 1) > packet_end(skb))
			return DROP; /* not reached: parse() has read it */
		/* If there was nothing to clear, the lower bits of the label stay, too. */
		if ((__u16)(bpf_ntohl(*(__be32 *)ip) >> 4) != p->id)
			*(__be32 *)ip = id6(*(__be32 *)ip, p->id);
		addr_get6(&ip->daddr, &daddr);
		ip->hop_limit = ttl;
		first = *(__be32 *)ip;
	} else {
		struct iphdr *ip = packet_start(skb) + L3_OFF;

		if ((void *)(ip + 1) > packet_end(skb))
			return DROP; /* not reached: parse() has read it */
		ip->id = bpf_htons(p->id);
		ip->daddr = daddr.word[3];
		ip->ttl = ttl;
		ip->check = 0;
		ip->check = ip_checksum(ip);
	}
	if (mode == XMASQ_MODE_ENCAP) {
		inside = inner_sum(p, &daddr, first, ttl);
		if (encap_len == ENCAP_LEN4 ? !push_header(skb, p, header, false, inside) :
					      !push_header(skb, p, header, true, inside))
			return DROP;
		count(XMASQ_COUNTER_FAST_ENCAP);
	} else {
		count(XMASQ_COUNTER_FAST_DIRECT);
	}
	if (bpf_skb_store_bytes(skb, 0, macs, sizeof(macs), 0))
		return DROP;
	set_magic(skb, cfg, KIND_OWN);
	return to_uplink(f, ifindex, bpf_ktime_get_coarse_ns());
}

/* A frame on the stack of its own. */
static __noinline int send_learned(struct __sk_buff *skb, const struct xmasq_config *cfg, struct packet *p,
				   struct xmasq_flow *f, __u32 mode)
{
	if (!cfg || !p || !f)
		return DROP;
	return p->v6 ? send_as_learned(skb, true, cfg, p, f, mode) : send_as_learned(skb, false, cfg, p, f, mode);
}
