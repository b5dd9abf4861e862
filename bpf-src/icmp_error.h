/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * ICMP errors about masqueraded packets. A router or the peer's node sends them to this node, whose stack knows nothing of
 * the packet: uplink_ingress translates them back, and the pod learns of the path MTU, for one.
 */
#pragma once

#include "flow.h"

/* linux/icmp.h includes the C library. */
#define ICMP_DEST_UNREACH 3
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETERPROB 12
#define ICMP_FRAG_NEEDED 4

/* What a tunnel adds to a pod's packet on an IPv4 underlay (Geneve without options, VXLAN): the slow path needs that, too. */
#define TUNNEL_OVERHEAD 50
#define TUNNEL_OVERHEAD6 70 /* on an IPv6 one */
#define MIN_MTU 68          /* RFC 791 */
#define MIN_MTU6 1280       /* RFC 8200 5. */

/* An error with the header of the packet that it is about, and the eight bytes behind that are always there (RFC 792). */
struct icmp_error {
	struct {
		__u8 type;
		__u8 code;
		__u16 checksum;
		__be16 unused;
		__be16 mtu; /* of the next hop (RFC 1191) */
	} icmp;
	struct iphdr ip;
	union {
		__be16 ports[4]; /* source and destination; of an echo, the third is the identifier */
		__u8 bytes[8];
	} l4;
} __attribute__((packed, aligned(4)));

static __always_inline bool is_icmp_error(__u8 type)
{
	return type == ICMP_DEST_UNREACH || type == ICMP_TIME_EXCEEDED || type == ICMP_PARAMETERPROB;
}

/*
 * Finds the fast flow that the quoted packet belongs to, as this node has masqueraded it. `l4` is the beginning of its
 * transport header, `id` the ID; `sk` has its destination as peer and its protocol.
 */
static __noinline struct xmasq_flow *quoted_flow(const __u8 *l4, __u32 id, struct xmasq_slot_key *sk,
						 struct xmasq_flow_key *key)
{
	struct xmasq_addr daddr;
	__u8 proto;
	__be16 sport = 0, dport = 0;
	struct xmasq_slot *s;
	struct xmasq_flow *f;

	if (!l4 || !sk || !key)
		return NULL;
	daddr = sk->peer;
	proto = sk->proto;
	switch (proto) {
	case IPPROTO_TCP:
	case IPPROTO_UDP:
	case IPPROTO_SCTP:
		sport = *(const __be16 *)l4;
		dport = *(const __be16 *)(l4 + 2);
		break;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		sport = *(const __be16 *)(l4 + 4);
		dport = bpf_htons(l4[0]);
		break;
	}
	slot_key_of(&daddr, proto, sport, dport, sk);
	s = bpf_map_lookup_elem(&slots, sk);
	if (!s || s->state != XMASQ_SLOT_ACTIVE || !(s->flags & XMASQ_SLOT_COMPLETE) ||
	    !endpoint_valid(s->endpoint, s->endpoint_epoch))
		return NULL;
	flow_key_of(sk, s, key);
	f = bpf_map_lookup_elem(&flows, key);
	if (!f || f->slot_gen != s->gen || !f->fast_since || f->peer_key != (__u8)(id >> ID_KEY_SHIFT))
		return NULL;
	return f;
}

/* Ethernet addresses for the pod, if the slot is still the flow's: it may have changed hands since it was looked up. */
static __always_inline bool pod_macs(const struct xmasq_slot_key *sk, const struct xmasq_flow *f, __u8 *macs)
{
	struct xmasq_slot *s = bpf_map_lookup_elem(&slots, sk);

	if (!s)
		return false;
	__builtin_memcpy(macs, s->dmac, 6);
	__builtin_memcpy(macs + 6, s->smac, 6);
	barrier();
	return s->gen == f->slot_gen;
}

static __always_inline int ignore_error(void)
{
	count(XMASQ_COUNTER_ICMP_ERROR_IGNORED);
	return DROP;
}

/* Id of the peer that the quoted packet was sent to, or 0. */
static __always_inline __u32 quoted_peer(const struct icmp_error *e)
{
	struct xmasq_addr daddr;
	__u32 *id;

	addr_set4(&daddr, e->ip.daddr);
	id = bpf_map_lookup_elem(&peer_by_addr, &daddr);
	return id ? *id : 0;
}

/*
 * An error of the peer itself: its stack has got what nobody there restored, because its hooks are gone. A rejection, then, and
 * nothing that the pod has to do with. Of the MTU its stack does not speak: the packet has arrived.
 */
static __always_inline int rejected_by_stack(struct xmasq_flow *f, struct xmasq_flow_key *key)
{
	rejected(f, key);
	return DROP;
}

/*
 * Translates the error for the pod whose packet it is about and hands it over. Errors about other masqueraded packets of
 * this node are dropped: the stack has not sent these. The transport checksum in the quotation stays the wire's.
 */
static __noinline int icmp_error(struct __sk_buff *skb, const struct xmasq_config *cfg)
{
	struct xmasq_slot_key sk;
	struct xmasq_flow_key key;
	struct icmp_error e, was;
	struct xmasq_flow *f;
	struct iphdr ip;
	__u8 macs[12];
	__u16 check;
	__u32 mtu, peer;

	if (!cfg || bpf_skb_load_bytes(skb, L4_OFF4, &e, sizeof(e)) || !is_icmp_error(e.icmp.type))
		return PASS;
	if (*(__u8 *)&e.ip != IPPROTO_VERSION_IHL || e.ip.saddr != cfg->uplink_addr4.word[3])
		return PASS;
	peer = quoted_peer(&e);
	if (!peer)
		return PASS;
	if (e.ip.frag_off != bpf_htons(IP_DF) || !(e.ip.id & bpf_htons(ID_MARKER)) || e.ip.protocol == IPPROTO_AH) {
		if (e.icmp.type == ICMP_DEST_UNREACH && e.icmp.code == ICMP_FRAG_NEEDED)
			mtu_told(peer);
		return PASS;
	}
	addr_set4(&sk.peer, e.ip.daddr);
	sk.proto = e.ip.protocol;
	f = quoted_flow(e.l4.bytes, bpf_ntohs(e.ip.id), &sk, &key);
	if (!f)
		return ignore_error();
	if (bpf_skb_load_bytes(skb, L3_OFF, &ip, sizeof(ip)))
		return DROP;
	if (ip.saddr == e.ip.daddr && !(e.icmp.type == ICMP_DEST_UNREACH && e.icmp.code == ICMP_FRAG_NEEDED))
		return rejected_by_stack(f, &key);

	check = e.icmp.checksum;
	e.icmp.checksum = 0;
	was = e;
	if (e.icmp.type == ICMP_DEST_UNREACH && e.icmp.code == ICMP_FRAG_NEEDED) {
		mtu = bpf_ntohs(e.icmp.mtu);
		/* 0: the router does not say (RFC 1191 4.). */
		if (mtu >= MIN_MTU + TUNNEL_OVERHEAD)
			e.icmp.mtu = bpf_htons(mtu - TUNNEL_OVERHEAD);
	}
	e.ip.saddr = key.saddr.word[3];
	e.ip.daddr = key.daddr.word[3];
	e.ip.tos = f->tos | (e.ip.tos & TOS_ECN);
	if (e.ip.id & bpf_htons(ID_FLAG))
		e.ip.frag_off = 0;
	e.ip.id = 0;
	if (key.proto == IPPROTO_TCP || key.proto == IPPROTO_UDP)
		e.l4.ports[1] = key.dport;
	e.ip.check = 0;
	e.ip.check = ip_checksum(&e.ip);
	e.icmp.checksum = ~fold(bpf_csum_diff((void *)&was, sizeof(was), (void *)&e, sizeof(e), (__u16)~check));

	ip.daddr = key.saddr.word[3];
	ip.check = 0;
	ip.check = ip_checksum(&ip);
	if (!pod_macs(&sk, f, macs))
		return ignore_error();
	if (bpf_skb_store_bytes(skb, L4_OFF4, &e, sizeof(e), BPF_F_RECOMPUTE_CSUM) ||
	    bpf_skb_store_bytes(skb, L3_OFF, &ip, sizeof(ip), BPF_F_RECOMPUTE_CSUM) ||
	    bpf_skb_store_bytes(skb, 0, macs, sizeof(macs), 0))
		return DROP;
	bpf_skb_change_type(skb, PACKET_HOST);
	skb->mark = 0;
	count(XMASQ_COUNTER_ICMP_ERROR);
	return bpf_redirect_peer(key.ifindex, 0);
}

/* The same in IPv6 (RFC 4443). */
struct icmp6_error {
	struct {
		__u8 type;
		__u8 code;
		__u16 checksum;
		__be32 mtu; /* of the next hop */
	} icmp;
	struct ipv6hdr ip;
	__u8 l4[8];
} __attribute__((packed, aligned(4)));

#define ICMPV6_DEST_UNREACH 1
#define ICMPV6_PKT_TOOBIG 2
#define ICMPV6_PARAMPROB 4

static __noinline int icmp6_error(struct __sk_buff *skb, const struct xmasq_config *cfg)
{
	struct xmasq_addr saddr, daddr;
	struct xmasq_slot_key sk;
	struct xmasq_flow_key key;
	struct icmp6_error e;
	struct xmasq_flow *f;
	__u32 id, mtu, sum, *peer;
	__be32 own[4], pod[4];
	__u8 macs[12];

	if (!cfg || bpf_skb_load_bytes(skb, L4_OFF6, &e, sizeof(e)) || e.icmp.type < ICMPV6_DEST_UNREACH ||
	    e.icmp.type > ICMPV6_PARAMPROB)
		return PASS;
	addr_set6(&saddr, &e.ip.saddr);
	addr_set6(&daddr, &e.ip.daddr);
	id = (bpf_ntohl(*(__be32 *)&e.ip) >> 4) & 0xffff;
	if (*(__u8 *)&e.ip >> 4 != 6 || !addr_equal(&saddr, &cfg->uplink_addr6) || addr_is4(&daddr))
		return PASS;
	peer = bpf_map_lookup_elem(&peer_by_addr, &daddr);
	if (!peer)
		return PASS;
	if (!(id & ID_MARKER) || e.ip.nexthdr == IPPROTO_AH) {
		if (e.icmp.type == ICMPV6_PKT_TOOBIG)
			mtu_told(*peer);
		return PASS;
	}
	sk.peer = daddr;
	sk.proto = e.ip.nexthdr;
	f = quoted_flow(e.l4, id, &sk, &key);
	if (!f)
		return ignore_error();
	if (bpf_skb_load_bytes(skb, L3_OFF + offsetof(struct ipv6hdr, saddr), &saddr, sizeof(saddr)))
		return DROP;
	if (e.icmp.type != ICMPV6_PKT_TOOBIG && addr_equal(&saddr, &daddr))
		return rejected_by_stack(f, &key);

	sum = (__u16)~e.icmp.checksum;
	e.icmp.checksum = 0;
	/* Out with the old words, later in with the new ones: there is no room for a copy. */
	sum = bpf_csum_diff((void *)&e, sizeof(e), NULL, 0, sum);
	if (e.icmp.type == ICMPV6_PKT_TOOBIG) {
		mtu = bpf_ntohl(e.icmp.mtu);
		e.icmp.mtu = bpf_htonl(mtu >= MIN_MTU6 + TUNNEL_OVERHEAD6 ? mtu - TUNNEL_OVERHEAD6 : MIN_MTU6);
	}
	addr_get6(&e.ip.saddr, &key.saddr);
	addr_get6(&e.ip.daddr, &key.daddr);
	*(__be32 *)&e.ip = ip6_first_word(f->tos | (bpf_ntohl(*(__be32 *)&e.ip) >> 20 & TOS_ECN), 0);
	if (key.proto == IPPROTO_TCP || key.proto == IPPROTO_UDP)
		__builtin_memcpy(e.l4 + 2, &key.dport, sizeof(key.dport));
	__builtin_memcpy(own, &cfg->uplink_addr6, sizeof(own));
	__builtin_memcpy(pod, &key.saddr, sizeof(pod));
	sum = bpf_csum_diff(NULL, 0, (void *)&e, sizeof(e), sum);
	e.icmp.checksum = ~fold(bpf_csum_diff(own, sizeof(own), pod, sizeof(pod), sum));

	if (!pod_macs(&sk, f, macs))
		return ignore_error();
	if (bpf_skb_store_bytes(skb, L4_OFF6, &e, sizeof(e), BPF_F_RECOMPUTE_CSUM) ||
	    bpf_skb_store_bytes(skb, L3_OFF + offsetof(struct ipv6hdr, daddr), pod, sizeof(pod),
				BPF_F_RECOMPUTE_CSUM) ||
	    bpf_skb_store_bytes(skb, 0, macs, sizeof(macs), 0))
		return DROP;
	bpf_skb_change_type(skb, PACKET_HOST);
	skb->mark = 0;
	count(XMASQ_COUNTER_ICMP_ERROR);
	return bpf_redirect_peer(key.ifindex, 0);
}
