/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * uplink_xdp: XDP on the uplink, an option. Restores masqueraded packets before the kernel makes buffers of them, so that
 * receive offload (GRO) merges the pods' packets, not the nodes'; uplink_ingress then only has to hand them over. Whatever is
 * not the plain case of a slot in use is left as it is for uplink_ingress.
 *
 * Not for senders that leave checksums to a device that is none (veth): they cannot be seen here.
 */
#pragma once

#include "uplink_ingress.h"

struct vlan_header {
	__be16 tci;
	__be16 protocol;
};

/* RFC 1624: a checksum after the words that it covers have changed by `diff` (bpf_csum_diff). */
static __always_inline __u16 csum_apply(__u16 check, __u32 diff)
{
	return ~fold((__u16)~check + (__u32)fold(diff));
}

/* Puts changed addresses and, if it is another, the changed source port into the transport header. */
static __always_inline bool restore_l4(void *l4, void *end, __u8 proto, bool v6, __u32 diff, __be16 sport)
{
	__be16 *from = l4;
	__u16 *check;

	switch (proto) {
	case IPPROTO_TCP:
		check = l4 + 16;
		break;
	case IPPROTO_UDP:
		check = l4 + 6;
		break;
	case IPPROTO_ICMPV6:
		if (!v6)
			return false;
		check = l4 + 2;
		sport = 0;
		break;
	default:
		return true;
	}
	if ((void *)(check + 1) > end)
		return false;
	if (proto == IPPROTO_UDP && !*check) {
		*from = sport;
		return true;
	}
	*check = csum_apply(*check, diff);
	if (proto != IPPROTO_ICMPV6 && *from != sport) {
		*check = csum_replace(*check, *from, sport);
		*from = sport;
	}
	if (proto == IPPROTO_UDP && !*check)
		*check = 0xffff;
	return true;
}

/* What makes a packet one that may be masqueraded, of those that have a slot: the rest is what parse() says. */
static __always_inline bool read_xdp(void *l4, void *end, __u8 proto, bool v6, struct xmasq_slot_key *sk)
{
	__u8 *b = l4;

	switch (proto) {
	case IPPROTO_TCP:
		if (l4 + sizeof(struct tcphdr) > end || (b[13] & (TCP_SYN | TCP_FIN | TCP_RST)) || b[12] >> 4 < 5)
			return false;
		break;
	case IPPROTO_UDP:
		if (l4 + sizeof(struct udphdr) > end)
			return false;
		break;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		if ((proto == IPPROTO_ICMPV6) != v6 || l4 + 8 > end || b[1])
			return false;
		sk->sport = *(__be16 *)(b + 4);
		sk->dport = bpf_htons(b[0]);
		return true;
	default:
		return false;
	}
	sk->sport = *(__be16 *)l4;
	sk->dport = *(__be16 *)(l4 + 2);
	return true;
}

static __always_inline int uplink_xdp_main(struct xdp_md *ctx, const struct xmasq_config *cfg, const bool v6,
					   __u32 l3_off)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	const __u32 header = v6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr);
	struct xmasq_slot_key sk = {};
	struct xmasq_addr daddr, to_s, to_d;
	struct ethhdr *eth = data;
	__u8 macs[12], proto, ecn, ttl, tos, *ip;
	__u32 gen, diff, ifindex, tot_len, ctx_len;
	struct xdp_mark *mark;
	struct xmasq_slot *s;
	__be16 sport;
	__u64 now;
	__u16 id;

	/* A number, because older verifiers know no bounds of swapped bytes, which they want for packet pointers. */
	ctx_len = end - data;
	if (l3_off > ETH_HLEN + sizeof(struct vlan_header) || data + l3_off + header > end)
		return XDP_PASS;
	ip = data + l3_off;
	if (v6) {
		struct ipv6hdr *ip6 = (void *)ip;
		__u32 first = bpf_ntohl(*(__be32 *)ip6);

		if (first >> 28 != 6)
			return XDP_PASS;
		addr_set6(&sk.peer, &ip6->saddr);
		addr_set6(&daddr, &ip6->daddr);
		if (addr_is4(&sk.peer))
			return XDP_PASS; /* see parse_header6 */
		id = first >> 4;
		proto = ip6->nexthdr;
		ecn = first >> 20 & TOS_ECN;
		tot_len = bpf_ntohs(ip6->payload_len) + sizeof(*ip6);
	} else {
		struct iphdr *ip4 = (void *)ip;

		if (*ip != IPPROTO_VERSION_IHL || ip4->frag_off != bpf_htons(IP_DF))
			return XDP_PASS;
		addr_set4(&sk.peer, ip4->saddr);
		addr_set4(&daddr, ip4->daddr);
		id = bpf_ntohs(ip4->id);
		proto = ip4->protocol;
		ecn = ip4->tos & TOS_ECN;
		tot_len = bpf_ntohs(ip4->tot_len);
	}
	if (!(id & ID_MARKER) || !addr_equal(&daddr, uplink_addr(cfg, !v6)) || l3_off + tot_len > ctx_len)
		return XDP_PASS;
	sk.proto = proto;
	if (!read_xdp(ip + header, end, proto, v6, &sk) || reserved_port(sk.sport, cfg->tunnel_port) ||
	    reserved_port(sk.dport, cfg->tunnel_port) || sk.sport == bpf_htons(53))
		return XDP_PASS;
	s = bpf_map_lookup_elem(&slots, &sk);
	if (!s)
		return XDP_PASS;
	gen = s->gen;
	barrier();
	now = bpf_ktime_get_coarse_ns();
	if (!slot_is_busy(s, gen, id, now) || !mac_equal(eth->h_dest, s->wire_dmac))
		return XDP_PASS;
	to_s = s->saddr;
	to_d = s->daddr;
	sport = s->sport;
	ttl = s->ttl;
	tos = s->tos | ecn;
	diff = s->csum_diff;
	ifindex = s->ifindex;
	__builtin_memcpy(macs, s->dmac, 6);
	__builtin_memcpy(macs + 6, s->smac, 6);
	slot_was_read(s, XDP);
	if (s->gen != gen)
		return XDP_PASS;
	/* First, because it may fail, and because it moves the packet's beginning. */
	if (bpf_xdp_adjust_meta(ctx, -(int)sizeof(*mark)))
		return XDP_PASS;
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	mark = (void *)(long)ctx->data_meta;
	if ((void *)(mark + 1) > data || data + l3_off + header > end)
		return XDP_DROP; /* not reached: both have been checked */
	eth = data;
	ip = data + l3_off;
	if (!restore_l4(ip + header, end, proto, v6, diff, sport)) {
		bpf_xdp_adjust_meta(ctx, sizeof(*mark));
		return XDP_PASS;
	}
	mark->magic[0] = cfg->magic[1];
	mark->magic[1] = cfg->magic[2];
	mark->magic[2] = cfg->magic[3];
	mark->ifindex = ifindex;
	__builtin_memcpy(eth, macs, sizeof(macs));
	if (v6) {
		struct ipv6hdr *ip6 = (void *)ip;

		*(__be32 *)ip6 = ip6_first_word(tos, 0);
		ip6->hop_limit = ttl;
		addr_get6(&ip6->saddr, &to_s);
		addr_get6(&ip6->daddr, &to_d);
	} else {
		struct iphdr *ip4 = (void *)ip;

		ip4->tos = tos;
		ip4->id = bpf_htons(id & ID_FLAG ? fresh_id() : 0);
		ip4->frag_off = id & ID_FLAG ? 0 : bpf_htons(IP_DF);
		ip4->ttl = ttl;
		ip4->saddr = to_s.word[3];
		ip4->daddr = to_d.word[3];
		ip4->check = 0;
		ip4->check = ip_checksum(ip4);
	}
	s->last_rx = now;
	__sync_fetch_and_add(&s->rx_packets, 1);
	__sync_fetch_and_add(&s->rx_bytes, tot_len);
	count(XMASQ_COUNTER_RESTORED);
	count(XMASQ_COUNTER_RESTORED_XDP);
	return XDP_PASS;
}

SEC("xdp")
int uplink_xdp(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	const struct xmasq_config *cfg = get_config();
	struct ethhdr *eth = data;
	struct vlan_header *vlan;
	__u32 l3_off = ETH_HLEN;
	__be16 protocol;

	if (!cfg || (void *)(eth + 1) > end)
		return XDP_PASS;
	protocol = eth->h_proto;
	if (cfg->xdp_vlan) {
		vlan = (void *)(eth + 1);
		if (protocol != bpf_htons(ETH_P_8021Q) || (void *)(vlan + 1) > end ||
		    (bpf_ntohs(vlan->tci) & 0xfff) != cfg->xdp_vlan)
			return XDP_PASS;
		protocol = vlan->protocol;
		l3_off += sizeof(*vlan);
	}
	if (protocol == bpf_htons(ETH_P_IP))
		return uplink_xdp_main(ctx, cfg, false, l3_off);
	if (protocol == bpf_htons(ETH_P_IPV6))
		return uplink_xdp_main(ctx, cfg, true, l3_off);
	return XDP_PASS;
}
