/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * uplink_egress: tc egress of the uplink; first in its chain. Lets masqueraded packets pass and
 * takes the marker bit from the node's own packets to peers, so that no peer mistakes them.
 */
#pragma once

#include "uplink_ingress.h"

static __always_inline bool is_pod_veth(__u32 ifindex)
{
	return ifindex && bpf_map_lookup_elem(&endpoint_by_ifindex, &ifindex);
}

static __always_inline bool has_magic(const struct __sk_buff *skb, const struct xmasq_config *cfg)
{
	return skb->cb[1] == cfg->magic[1] && skb->cb[2] == cfg->magic[2] && skb->cb[3] == cfg->magic[3];
}

/*
 * A control message to `daddr`. One that this node's data plane has not made comes from a pod, translated to the node's
 * address, or from a process of the node: the peer would take it for ours, and it is of no use to anybody else.
 */
static __always_inline int pass_control(struct __sk_buff *skb, const struct xmasq_config *cfg, __be32 daddr)
{
	if (has_magic(skb, cfg) && skb->cb[0] == cfg->magic[0] && !is_pod_veth(skb->ingress_ifindex)) {
		store_cb(skb, 0, 0, 0, 0);
		return PASS;
	}
	if (!bpf_map_lookup_elem(&peer_by_addr, &daddr))
		return PASS;
	count(XMASQ_COUNTER_REJECT_IGNORED);
	return DROP;
}

static __always_inline int uplink_egress_main(struct __sk_buff *skb)
{
	const struct xmasq_config *cfg = get_config();
	struct iphdr *ip;
	__u32 segments;
	__be32 daddr;
	__u16 id, to;

	if (!cfg || skb->protocol != bpf_htons(ETH_P_IP) || !readable(skb, L4_OFF))
		return PASS;
	ip = packet_start(skb) + L3_OFF;
	if ((void *)(ip + 1) > packet_end(skb))
		return PASS;
	if (*(__u8 *)ip >> 4 != 4)
		return PASS;
	/* Of a packet to be segmented, the first segment: the tunnel's have their header in front of each. */
	if (is_control(skb, ip, cfg->tunnel_port, 1))
		return pass_control(skb, cfg, ip->daddr);
	if (!(ip->frag_off & bpf_htons(IP_DF)) || ip->protocol == IPPROTO_AH)
		return PASS;
	id = bpf_ntohs(ip->id);
	segments = segments_of(skb);
	to = cleared_id(id, segments, true);
	if (to == id)
		return PASS;
	daddr = ip->daddr;

	if (has_magic(skb, cfg)) {
		bool pod = is_pod_veth(skb->ingress_ifindex);
		__u32 kind = skb->cb[0];

		store_cb(skb, 0, 0, 0, 0);
		if (kind == cfg->magic[0] && pod) {
			count(XMASQ_COUNTER_OWN_SEEN);
			return PASS;
		}
		if (kind == ~cfg->magic[0] && !pod) {
			/* A copy of a restored packet, made by acknowledge(): becomes a message to its sender. */
			struct packet p;

			if (!parse(skb, &p, cfg->tunnel_port, true) ||
			    !make_ctl(skb, cfg->tunnel_port, XMASQ_CTL_ACK, p.proto, p.sport, p.dport,
				      p.id >> ID_KEY_SHIFT))
				return DROP;
			return PASS;
		}
		count(XMASQ_COUNTER_OWN_LOST);
		return DROP;
	}
	if (!bpf_map_lookup_elem(&peer_by_addr, &daddr))
		return PASS;
	if (is_pod_veth(skb->ingress_ifindex)) {
		/* pod_egress clears every marker it does not set: this was ours, and somebody has overwritten our magic. */
		count(XMASQ_COUNTER_OWN_LOST);
		emit(XMASQ_EVENT_OWN_LOST, 0, NULL, 0);
		return DROP;
	}
	ip = packet_start(skb) + L3_OFF;
	if ((void *)(ip + 1) > packet_end(skb))
		return PASS;
	set_id(ip, to);
	count(XMASQ_COUNTER_NODE_CLEARED);
	return PASS;
}

SEC("tc")
int uplink_egress(struct __sk_buff *skb)
{
	return uplink_egress_main(skb);
}
