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
#define MIN_MTU 68 /* RFC 791 */

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

/* Finds the fast flow that the quoted packet belongs to, as this node has masqueraded it. */
static __noinline struct xmasq_flow *quoted_flow(const struct icmp_error *e, struct xmasq_slot_key *sk,
						 struct xmasq_flow_key *key)
{
	__be16 sport = 0, dport = 0;
	struct xmasq_slot *s;
	struct xmasq_flow *f;

	if (!e || !sk || !key)
		return NULL;
	switch (e->ip.protocol) {
	case IPPROTO_TCP:
	case IPPROTO_UDP:
	case IPPROTO_SCTP:
		sport = e->l4.ports[0];
		dport = e->l4.ports[1];
		break;
	case IPPROTO_ICMP:
		sport = e->l4.ports[2];
		dport = bpf_htons(e->l4.bytes[0]);
		break;
	}
	slot_key_of(e->ip.daddr, e->ip.protocol, sport, dport, sk);
	s = bpf_map_lookup_elem(&slots, sk);
	if (!s || s->state != XMASQ_SLOT_ACTIVE || !(s->flags & XMASQ_SLOT_COMPLETE) ||
	    !endpoint_valid(s->endpoint, s->endpoint_epoch))
		return NULL;
	flow_key_of(sk, s, key);
	f = bpf_map_lookup_elem(&flows, key);
	if (!f || f->slot_gen != s->gen || !f->fast_since || f->peer_key != (__u8)(bpf_ntohs(e->ip.id) >> ID_KEY_SHIFT))
		return NULL;
	return f;
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
	struct xmasq_slot *s;
	struct xmasq_flow *f;
	struct iphdr ip;
	__u8 macs[12];
	__u16 check;
	__u32 mtu;

	if (!cfg || bpf_skb_load_bytes(skb, L4_OFF, &e, sizeof(e)) || !is_icmp_error(e.icmp.type))
		return PASS;
	if (*(__u8 *)&e.ip != IPPROTO_VERSION_IHL || e.ip.saddr != cfg->uplink_addr4 ||
	    e.ip.frag_off != bpf_htons(IP_DF) || !(e.ip.id & bpf_htons(ID_MARKER)) || e.ip.protocol == IPPROTO_AH ||
	    !bpf_map_lookup_elem(&peer_by_addr, &e.ip.daddr))
		return PASS;
	f = quoted_flow(&e, &sk, &key);
	s = f ? bpf_map_lookup_elem(&slots, &sk) : NULL;
	if (!s) {
		count(XMASQ_COUNTER_ICMP_ERROR_IGNORED);
		return DROP;
	}

	check = e.icmp.checksum;
	e.icmp.checksum = 0;
	was = e;
	if (e.icmp.type == ICMP_DEST_UNREACH && e.icmp.code == ICMP_FRAG_NEEDED) {
		mtu = bpf_ntohs(e.icmp.mtu);
		/* 0: the router does not say (RFC 1191 4.). */
		if (mtu >= MIN_MTU + TUNNEL_OVERHEAD)
			e.icmp.mtu = bpf_htons(mtu - TUNNEL_OVERHEAD);
	}
	e.ip.saddr = key.saddr;
	e.ip.daddr = key.daddr;
	e.ip.tos = f->tos | (e.ip.tos & TOS_ECN);
	if (e.ip.id & bpf_htons(ID_FLAG))
		e.ip.frag_off = 0;
	e.ip.id = 0;
	if (key.proto == IPPROTO_TCP || key.proto == IPPROTO_UDP)
		e.l4.ports[1] = key.dport;
	e.ip.check = 0;
	e.ip.check = ip_checksum(&e.ip);
	e.icmp.checksum = ~fold(bpf_csum_diff((void *)&was, sizeof(was), (void *)&e, sizeof(e), (__u16)~check));

	if (bpf_skb_load_bytes(skb, L3_OFF, &ip, sizeof(ip)))
		return DROP;
	ip.daddr = key.saddr;
	ip.check = 0;
	ip.check = ip_checksum(&ip);
	__builtin_memcpy(macs, s->dmac, 6);
	__builtin_memcpy(macs + 6, s->smac, 6);
	barrier();
	/* See struct xmasq_slot: it may have changed hands since it was looked up. */
	if (s->gen != f->slot_gen) {
		count(XMASQ_COUNTER_ICMP_ERROR_IGNORED);
		return DROP;
	}
	if (bpf_skb_store_bytes(skb, L4_OFF, &e, sizeof(e), BPF_F_RECOMPUTE_CSUM) ||
	    bpf_skb_store_bytes(skb, L3_OFF, &ip, sizeof(ip), BPF_F_RECOMPUTE_CSUM) ||
	    bpf_skb_store_bytes(skb, 0, macs, sizeof(macs), 0))
		return DROP;
	bpf_skb_change_type(skb, PACKET_HOST);
	skb->mark = 0;
	count(XMASQ_COUNTER_ICMP_ERROR);
	return bpf_redirect_peer(key.ifindex, 0);
}
