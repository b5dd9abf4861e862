/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* pod_egress: tc ingress of a pod's host-side veth, i.e. what the pod sends. Every pod has it, excluded ones too. */
#pragma once

#include "encap.h"
#include "flow.h"

#define POD_MAX_TAGS 8

#define SOCK_STREAM 1

/* Leaves the packet to the slow path, without anything in its ID that a peer could take for a key. */
static __noinline int leave_slow(struct __sk_buff *skb, const struct packet *p, __u32 reason)
{
	__u16 id;

	if (!p)
		return PASS;
	count(XMASQ_COUNTER_SLOW_TX);
	count_reason(reason);
	/* The AH signature covers the ID (RFC 4302 3.3.3.1.1.1); nobody judges such packets. */
	if (p->proto == IPPROTO_AH)
		return PASS;
	id = cleared_id(p->v6, p->id, p->segments, p->df);
	if (id == p->id)
		return PASS;
	if (!write_id(skb, p->v6, id))
		return PASS;
	count(XMASQ_COUNTER_MARKER_CLEARED);
	return PASS;
}

static __always_inline bool is_vlan(__be16 protocol)
{
	return protocol == bpf_htons(ETH_P_8021Q) || protocol == bpf_htons(ETH_P_8021AD);
}

/* The end of leave_tagged for IPv6; `off` is where its header begins. */
static __always_inline int leave_tagged6(struct __sk_buff *skb, __u32 off)
{
	struct xmasq_addr daddr;
	struct ipv6hdr ip;

	if (bpf_skb_load_bytes(skb, off, &ip, sizeof(ip)) || *(__u8 *)&ip >> 4 != 6)
		return PASS;
	addr_set6(&daddr, &ip.daddr);
	/* Mapped addresses would be found as those of IPv4: see parse_header6. */
	if (skb->gso_size && ip.nexthdr == IPPROTO_UDP && !addr_is4(&daddr) &&
	    bpf_map_lookup_elem(&peer_by_addr, &daddr))
		return DROP;
	if (!(*(__be32 *)&ip & bpf_htonl(IPV6_LABEL_MARKER)))
		return PASS;
	*(__be32 *)&ip &= ~bpf_htonl(IPV6_LABEL_MARKER);
	if (bpf_skb_store_bytes(skb, off, &ip, sizeof(__be32), 0))
		return DROP;
	count(XMASQ_COUNTER_MARKER_CLEARED);
	return PASS;
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
	struct xmasq_addr daddr;
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
	if (protocol == bpf_htons(ETH_P_IPV6))
		return leave_tagged6(skb, off);
	if (protocol != bpf_htons(ETH_P_IP) || bpf_skb_load_bytes(skb, off, &ip, sizeof(ip)))
		return PASS;
	if (ip.version != 4 || ip.protocol == IPPROTO_AH)
		return PASS;
	/* See forges_control: none of the segments can be looked at here, and nobody honest sends such a thing. */
	addr_set4(&daddr, ip.daddr);
	if (skb->gso_size && ip.protocol == IPPROTO_UDP && bpf_map_lookup_elem(&peer_by_addr, &daddr))
		return DROP;
	id = bpf_ntohs(ip.id);
	to = cleared_id(false, id, segments_of(skb), !!(ip.frag_off & bpf_htons(IP_DF)));
	if (to == id)
		return PASS;
	set_id4(&ip, to);
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
	if (!bpf_map_lookup_elem(&peer_by_addr, &p->daddr) || !is_control(skb, p->v6, cfg->tunnel_port, p->segments))
		return false;
	count(XMASQ_COUNTER_REJECT_IGNORED);
	return true;
}

/*
 * Is a connection without an entry worth one? Most end after a request and its answer, before they could gain what admission
 * and the exchange of keys cost. Returns enum xmasq_reason.
 *
 * The packet still belongs to the socket that sent it (net/core/skbuff.c, skb_scrub_packet), which counts its segments; one
 * that no TCP socket of this kernel sent is not judged. Without the lookup nobody could tell a young connection to a
 * Service from one to the outside, see is_service.
 */
static __noinline __u32 judge_age(struct __sk_buff *skb, const struct xmasq_config *cfg, struct xmasq_flow_key *key)
{
	struct bpf_sock *sk = skb->sk;
	struct bpf_tcp_sock *tcp;

	if (!sk || !cfg || !key || key->proto != IPPROTO_TCP || !(cfg->flags & XMASQ_CFG_CT_LOOKUP))
		return XMASQ_REASON_NONE;
	sk = bpf_sk_fullsock(sk);
	/* What is left of a connection that is over. */
	if (!sk)
		return XMASQ_REASON_CT_STATE;
	if (sk->protocol != IPPROTO_TCP)
		return XMASQ_REASON_NONE;
	/* By such a socket the kernel answers for those that are gone. */
	if (sk->type != SOCK_STREAM)
		return XMASQ_REASON_CT_STATE;
	/* FIN_WAIT1 begins when the pod closes its socket, with all that it has written yet to be sent. */
	if (sk->state != BPF_TCP_ESTABLISHED && sk->state != BPF_TCP_FIN_WAIT1)
		return XMASQ_REASON_CT_STATE;
	tcp = bpf_tcp_sock(sk);
	if (tcp && tcp->data_segs_out < XMASQ_YOUNG_DATA && tcp->segs_out < XMASQ_YOUNG_SEGMENTS && !is_awaited(key))
		return XMASQ_REASON_YOUNG;
	return XMASQ_REASON_NONE;
}

/* The ID that tells the peer our key. */
static __always_inline __u16 announcing_id(struct xmasq_flow *f, __u64 now)
{
	__u16 id = ID_MARKER | (__u16)f->own_key << ID_KEY_SHIFT;

	/* "Send fast": not to a peer that we do not hear, nor while what it sends seems to be lost. */
	if ((f->flags & XMASQ_FLOW_HAVE_KEY) && now >= f->hole_until && peer_heard(f->peer, now))
		id |= ID_FLAG;
	if (!(f->flags & XMASQ_FLOW_ANNOUNCED))
		__sync_fetch_and_or(&f->flags, XMASQ_FLOW_ANNOUNCED);
	count(XMASQ_COUNTER_ANNOUNCED);
	return id;
}

/* As leave_slow, but the packet carries our key to the peer. */
static __always_inline int leave_announcing(struct __sk_buff *skb, const struct packet *p, struct xmasq_flow *f,
					    __u32 reason, __u64 now)
{
	if (!write_id(skb, p->v6, announcing_id(f, now)))
		return PASS;
	count(XMASQ_COUNTER_SLOW_TX);
	count_reason(reason);
	return PASS;
}

/*
 * AntreaProxy's translation of a packet, and what the routing on the node does to it. `gen` is the flow's that was looked
 * up. False: it is another one by now, or the packet could not be written.
 */
static __always_inline bool translate(struct __sk_buff *skb, const bool v6, struct packet *p, struct xmasq_flow *f,
				      __u32 gen)
{
	__u32 diff = f->csum_diff;
	struct xmasq_tuple out = f->out;
	__u8 macs[12], ttl = f->out_ttl;
	__be32 was[2], is[2];

	__builtin_memcpy(macs, f->dmac, 6);
	__builtin_memcpy(macs + 6, f->smac, 6);
	barrier();
	if (f->gen != gen || f->gen2 != gen)
		return false;
	if (!fix_checksum(skb, v6, p->proto, diff) ||
	    (out.sport != p->sport && !change_port(skb, v6, p->proto, 0, p->sport, out.sport)) ||
	    (out.dport != p->dport && !change_port(skb, v6, p->proto, 2, p->dport, out.dport)))
		return false;
	if (bpf_skb_store_bytes(skb, 0, macs, sizeof(macs), 0))
		return false;
	if (v6) {
		struct ipv6hdr *ip = packet_start(skb) + L3_OFF;

		if ((void *)(ip + 1) > packet_end(skb))
			return false; /* not reached: parse() has read it */
		was[0] = is[0] = *(__be32 *)ip;
		was[1] = *((__be32 *)ip + 1);
		addr_get6(&ip->saddr, &out.saddr);
		addr_get6(&ip->daddr, &out.daddr);
		ip->hop_limit = ttl;
		is[1] = *((__be32 *)ip + 1);
		settle_sum6(skb, diff, was, is);
	} else {
		struct iphdr *ip = packet_start(skb) + L3_OFF;

		if ((void *)(ip + 1) > packet_end(skb))
			return false; /* not reached: parse() has read it */
		ip->saddr = out.saddr.word[3];
		ip->daddr = out.daddr.word[3];
		ip->ttl = ttl;
		ip->check = 0;
		ip->check = ip_checksum(ip);
	}
	return true;
}

static __noinline bool translate_local(struct __sk_buff *skb, struct packet *p, struct xmasq_flow *f, __u32 gen)
{
	if (!p || !f)
		return false;
	return p->v6 ? translate(skb, true, p, f, gen) : translate(skb, false, p, f, gen);
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

/*
 * Rewrites the packet, which begins at `start`, into one between the two nodes, as uplink_egress lets it pass. False: the flow is
 * another one by now, and the packet is as it was.
 */
static __always_inline bool masquerade(struct __sk_buff *skb, const bool v6, const struct xmasq_config *cfg,
				       void *start, __u16 *check, const struct packet *p, const struct xmasq_flow *f)
{
	__u32 gen = f->gen, sum = f->ip_sum, csum_diff = f->csum_diff;
	struct xmasq_addr saddr = f->node_saddr, daddr = f->node_daddr;
	struct macs macs = macs_read(f->dmac);
	__u16 id;

	id = ID_MARKER | (p->df ? 0 : ID_FLAG) | (__u16)f->peer_key << ID_KEY_SHIFT;
	barrier();
	/* See struct xmasq_flow: the element may have become another flow's since the lookup. */
	if (f->gen != gen || f->gen2 != gen)
		return false;

	macs_write(start, macs);
	if (v6) {
		struct ipv6hdr *ip = start + L3_OFF;

		*(__be32 *)ip = ip6_first_word(p->tos & TOS_ECN, id);
		ip->hop_limit = 64;
		addr_get6(&ip->saddr, &saddr);
		addr_get6(&ip->daddr, &daddr);
	} else {
		struct iphdr *ip = start + L3_OFF;

		ip->tos = p->tos & TOS_ECN;
		ip->id = bpf_htons(id);
		ip->frag_off = bpf_htons(IP_DF);
		ip->ttl = 64;
		ip->saddr = saddr.word[3];
		ip->daddr = daddr.word[3];
		sum += bpf_htons(p->tos & TOS_ECN) + bpf_htons(p->tot_len) + bpf_htons(id);
		ip->check = ~fold(sum);
	}
	set_magic(skb, cfg, KIND_OWN);
	if (!fix_checksum_at(skb, check, p->proto, csum_diff))
		fix_checksum_by_helper(skb, v6, p->proto, csum_diff);
	count(XMASQ_COUNTER_FAST_TX);
	return true;
}

static __always_inline int send_masqueraded(struct __sk_buff *skb, const bool v6, const struct xmasq_config *cfg,
					    const struct packet *p, struct xmasq_flow *f, __u64 now)
{
	__u32 ifindex = f->out_ifindex;
	__be16 dport = f->out.dport;
	void *start = packet_start(skb);

	if (start + L4_OFF(v6) > packet_end(skb))
		return DROP; /* not reached: parse() has read it */
	if (!masquerade(skb, v6, cfg, start, checksum_of(skb, start, v6, p->proto), p, f))
		return leave_slow(skb, p, XMASQ_REASON_STALE);
	if (dport != p->dport && !change_port(skb, v6, p->proto, 2, p->dport, dport))
		return DROP; /* not reached: the checksum was written just now */
	return to_uplink(f, ifindex, now);
}

/* Not a verdict either: LOOK_CLOSER, and there is no flow. */
#define NO_FLOW (-3)
/* Of FLOW_KIND, the flags of a flow whose packets may be masqueraded, as its last one was. */
#define FLOW_BUSY (FLOW_READY | XMASQ_FLOW_KEYED)
#define FLOW_KIND (FLOW_BUSY | XMASQ_FLOW_LOCAL | XMASQ_FLOW_UNLEARNED)

/*
 * The usual packet of a busy flow: masqueraded like the one before it, with nothing about packet or flow to be looked at
 * closer. Otherwise LOOK_CLOSER, or NO_FLOW where there is none, and the packet is as it was.
 */
static __always_inline int send_busy(struct __sk_buff *skb, const bool v6, const struct xmasq_config *cfg)
{
	struct packet p = { .v6 = v6, .segments = 1 };
	struct xmasq_flow_key key;
	struct xmasq_flow *f;
	__u64 tick = bpf_jiffies64(), now;
	void *start = packet_start(skb);
	__u32 ifindex, other, len;
	__u16 *check;

	if (!read_plain_header(skb, v6, start, &p, false))
		goto closer;
	check = read_plain_ports(skb, v6, start, &p);
	if (!check)
		goto closer;
	key.saddr = p.saddr;
	key.daddr = p.daddr;
	key.sport = p.sport;
	key.dport = p.dport;
	key.ifindex = skb->ifindex;
	key.proto = p.proto;
	__builtin_memset(key.pad, 0, sizeof(key.pad));
	f = bpf_map_lookup_elem(&flows, &key);
	if (!f)
		return NO_FLOW;
	now = f->tick == tick ? f->last_tx : bpf_ktime_get_coarse_ns();
	/* recheck_at is 0 after a packet of the connection that went, or came, by the slow path, and when the key was rejected. */
	other = (p.ttl ^ f->ttl) | ((p.tos & ~TOS_ECN) ^ f->tos) | f->blocked | ((f->flags & FLOW_KIND) ^ FLOW_BUSY) |
		(f->mode ^ XMASQ_MODE_MASQUERADE) | (f->out.dport ^ p.dport);
	if (other || !mac_equal(((struct ethhdr *)start)->h_source, f->pod_mac) || !f->recheck_at ||
	    now >= f->verify_at || skb->len - ETH_HLEN > f->mtu)
		goto closer;
	ifindex = f->out_ifindex;
	len = skb->len - ETH_HLEN;
	if (!masquerade(skb, v6, cfg, start, check, &p, f))
		goto closer;
	if (f->tick != tick) {
		f->tick = tick;
		f->last_tx = now;
	}
	__sync_fetch_and_add(&f->tx_packets, 1);
	__sync_fetch_and_add(&f->tx_bytes, len);
	__sync_fetch_and_add(&f->masq_packets, 1);
	return bpf_redirect(ifindex, 0);

closer:
	barrier();
	return LOOK_CLOSER;
}

/*
 * Would the packet, or a segment of it, not fit on the underlay with `more` bytes in front of it? The size of GSO segments
 * counts payload only. Of SCTP it is GSO_BY_FRAGS (0xffff), where only the kernel knows, and only without those bytes.
 */
static __always_inline bool too_big(struct __sk_buff *skb, const bool v6, const struct packet *p,
				    const struct xmasq_flow *f, __u32 more)
{
	__u32 mtu = 0;

	if (!skb->gso_size)
		return skb->len - ETH_HLEN + more > f->mtu;
	if (skb->gso_size + L4_OFF(v6) - ETH_HLEN + p->l4_len + more <= f->mtu)
		return false;
	return more || bpf_check_mtu(skb, f->out_ifindex, &mtu, 0, BPF_MTU_CHK_SEGS);
}

/* Is the packet the pod's, by its addresses? */
static __noinline bool sent_by_pod(struct __sk_buff *skb, struct xmasq_flow_key *key)
{
	__u8 mac[6] __attribute__((aligned(2)));

	return key && !bpf_skb_load_bytes(skb, offsetof(struct ethhdr, h_source), mac, sizeof(mac)) &&
	       from_pod(key, mac);
}

/* The pod opens a connection: it must not be taken for an old one on the same ports. False: drop the packet. */
static __noinline bool begin_connection(struct __sk_buff *skb, const struct xmasq_config *cfg,
					struct xmasq_flow_key *key)
{
	if (!sent_by_pod(skb, key))
		return true;
	if (ct_outlives(skb, cfg, key, 0))
		return false;
	ct_forget(skb, cfg, key, false);
	return true;
}

/* Reasons that keep an admitted flow from being masqueraded, not from being sent in a tunnel header or direct. */
static __always_inline bool only_masquerade(__u32 reason)
{
	switch (reason) {
	case XMASQ_REASON_KEY_EXCHANGE:
	case XMASQ_REASON_KEY_REJECTED:
	case XMASQ_REASON_PEER_NOT_CAPABLE:
	case XMASQ_REASON_PEER_SILENT:
	case XMASQ_REASON_BLACK_HOLE:
	case XMASQ_REASON_UNPROVEN:
	case XMASQ_REASON_MODE:
	case XMASQ_REASON_SLOT_TAKEN:
	case XMASQ_REASON_SLOT_RECENT:
	case XMASQ_REASON_MAP_FULL:
		return true;
	}
	return false;
}

/* Does the packet, which is not masqueraded, tell the peer our key? */
static __always_inline bool announces(const struct xmasq_config *cfg, const struct packet *p,
				      const struct xmasq_flow *f)
{
	/* A node that drains keeps quiet: peers must stop hearing of it, or they go on sending what it will not restore. */
	return (f->flags & XMASQ_FLOW_KEYED) && p->segments <= ID_MAX_SEGMENTS && (cfg->flags & XMASQ_CFG_ADMIT);
}

static __always_inline int pod_egress_main(struct __sk_buff *skb, const bool v6, const struct xmasq_config *cfg,
					   bool no_flow)
{
	struct xmasq_flow_key key = {};
	struct xmasq_flow *f;
	struct packet p;
	struct ethhdr *eth;
	__u32 reason, mode = XMASQ_MODE_SLOW;
	__u64 now;
	bool deviates;

	if (!parse(skb, v6, &p, cfg->tunnel_port, false))
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
	f = no_flow ? NULL : bpf_map_lookup_elem(&flows, &key);
	now = bpf_ktime_get_coarse_ns();

	if (reason == XMASQ_REASON_TCP_SYN || reason == XMASQ_REASON_TCP_FIN) {
		if (f) {
			end_flow(&key, reason == XMASQ_REASON_TCP_FIN ? XMASQ_SLOT_CLOSING : XMASQ_SLOT_TOMBSTONE, now);
			count(XMASQ_COUNTER_FLOW_CLOSED);
		}
		/* Conntrack follows: what it says from now on is about the end, or about another connection. */
		if (reason == XMASQ_REASON_TCP_FIN && !(cfg->flags & XMASQ_CFG_CT_LOOKUP) && sent_by_pod(skb, &key))
			delete_approval(&key);
		if ((p.tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN && !begin_connection(skb, cfg, &key)) {
			count(XMASQ_COUNTER_SYN_DROPPED);
			return DROP;
		}
		return leave_slow(skb, &p, reason);
	}
	if (!f) {
		if (reason)
			return leave_slow(skb, &p, reason);
		if (p.tcp_flags & TCP_RST) {
			/* Where the lookup answers, the next SYN is what ends the entry: the RST has to find it. */
			if (!(cfg->flags & XMASQ_CFG_CT_LOOKUP) && sent_by_pod(skb, &key))
				ct_forget(skb, cfg, &key, false);
			return leave_slow(skb, &p, XMASQ_REASON_CLOSED);
		}
		reason = judge_age(skb, cfg, &key);
		if (reason)
			return leave_slow(skb, &p, reason);
		reason = admit(skb, cfg, &key, (__u32)p.ttl << 8 | p.tos);
		if (reason)
			return leave_slow(skb, &p, reason);
		f = bpf_map_lookup_elem(&flows, &key);
		if (!f)
			return leave_slow(skb, &p, XMASQ_REASON_STALE);
		f->last_tx = now;
		f->slow_packets++;
		if (!(f->flags & XMASQ_FLOW_KEYED))
			return leave_slow(skb, &p, XMASQ_REASON_KEY_EXCHANGE);
		return leave_announcing(skb, &p, f, XMASQ_REASON_KEY_EXCHANGE, now);
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
			return leave_slow(skb, &p, demote(&key, XMASQ_REASON_HEADER_CHANGED, now));
		}
		reason = XMASQ_REASON_HEADER_CHANGED;
	} else if (f->deviating_since && !reason) {
		f->deviating_since = 0;
	}

	if (now >= f->verify_at || (f->mode == XMASQ_MODE_ENCAP && mtu_just_told(f->peer, now)) ||
	    (!f->recheck_at && !reason && (!flow_is_slow(f) || tx_learned(f)))) {
		__u32 why = verify(skb, cfg, &key, f, now);

		if (why)
			return leave_slow(skb, &p, demote(&key, why, now));
	}
	f->last_tx = now;

	/* How shall it go? */
	if (f->flags & XMASQ_FLOW_LOCAL)
		mode = XMASQ_MODE_LOCAL;
	else if (f->flags & XMASQ_FLOW_KEYED)
		mode = XMASQ_MODE_MASQUERADE;
	if (!reason && flow_is_slow(f)) {
		/* A RST must not wait where conntrack would not let it pass (see ct_reset). */
		if (!(p.tcp_flags & TCP_RST) || !f->fast_since || (f->flags & FLOW_READY) != FLOW_READY ||
		    (f->blocked != XMASQ_REASON_BLACK_HOLE &&
		     (f->blocked != XMASQ_REASON_PEER_SILENT || !ct_refuses_reset(skb, cfg, &key))))
			reason = f->blocked ? f->blocked : XMASQ_REASON_KEY_EXCHANGE;
	}
	if (!reason && too_big(skb, v6, &p, f, 0))
		reason = XMASQ_REASON_TOO_BIG;
	if (only_masquerade(reason) && tx_learned(f) && !(f->flags & XMASQ_FLOW_LOCAL)) {
		__u32 encap_len = f->encap_len;

		if (f->flags & XMASQ_FLOW_DIRECT) {
			mode = XMASQ_MODE_DIRECT;
			reason = too_big(skb, v6, &p, f, 0) ? XMASQ_REASON_TOO_BIG : XMASQ_REASON_NONE;
		} else if (cfg->flags & XMASQ_CFG_ENCAP) {
			mode = XMASQ_MODE_ENCAP;
			reason = too_big(skb, v6, &p, f, encap_len) ? XMASQ_REASON_TOO_BIG : tunnel_reason(skb, &p, f);
		}
	}
	if (reason) {
		f->recheck_at = 0;
		f->slow_packets++;
		f->mode = XMASQ_MODE_SLOW;
		if (p.tcp_flags & TCP_RST) {
			/* Conntrack must find its entry when it passes the RST (see outlived), but not keep one that refuses it. */
			if (ct_refuses_reset(skb, cfg, &key))
				ct_reset(skb, cfg, &key, f->peer);
			end_flow(&key, XMASQ_SLOT_TOMBSTONE, now);
			count(XMASQ_COUNTER_FLOW_CLOSED);
			return leave_slow(skb, &p, XMASQ_REASON_CLOSED);
		}
		if (deviates || !announces(cfg, &p, f))
			return leave_slow(skb, &p, reason);
		return leave_announcing(skb, &p, f, reason, now);
	}

	__sync_fetch_and_add(&f->tx_packets, p.segments);
	__sync_fetch_and_add(&f->tx_bytes, skb->len - ETH_HLEN + (p.segments - 1) * (L4_OFF(v6) - ETH_HLEN + 20));
	f->mode = mode;
	if (mode == XMASQ_MODE_MASQUERADE) {
		if (!f->fast_since)
			f->fast_since = now;
		__sync_fetch_and_add(&f->masq_packets, p.segments);
	}
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
	if (mode == XMASQ_MODE_LOCAL) {
		__u32 gen = f->gen, flags = f->flags, ifindex = f->out_ifindex;

		barrier();
		if (f->gen != gen || f->gen2 != gen)
			return leave_slow(skb, &p, XMASQ_REASON_STALE);
		if ((flags & XMASQ_FLOW_SERVICE) && !translate_local(skb, &p, f, gen))
			return DROP;
		return send_local(skb, ifindex);
	}
	if (mode == XMASQ_MODE_MASQUERADE)
		return send_masqueraded(skb, v6, cfg, &p, f, now);
	p.id = announces(cfg, &p, f) ? announcing_id(f, now) : cleared_id(v6, p.id, p.segments, p.df);
	return send_learned(skb, cfg, &p, f, mode);
}

/* Looking for a masqueraded flow first is dear where most are something else. */
static __always_inline bool mostly_masquerades(const struct xmasq_config *cfg)
{
	return cfg && (cfg->flags & (XMASQ_CFG_MASQUERADE | XMASQ_CFG_DIRECT)) == XMASQ_CFG_MASQUERADE;
}

/* A frame on the stack for each family: together they would be too large. */
static __noinline int pod_egress4_busy(struct __sk_buff *skb, const struct xmasq_config *cfg)
{
	return cfg ? send_busy(skb, false, cfg) : PASS;
}

static __noinline int pod_egress4_other(struct __sk_buff *skb, const struct xmasq_config *cfg, bool no_flow)
{
	return cfg ? pod_egress_main(skb, false, cfg, no_flow) : PASS;
}

static __always_inline int pod_egress4(struct __sk_buff *skb, const struct xmasq_config *cfg)
{
	int verdict = mostly_masquerades(cfg) ? pod_egress4_busy(skb, cfg) : LOOK_CLOSER;

	return verdict < PASS ? pod_egress4_other(skb, cfg, verdict == NO_FLOW) : verdict;
}

static __noinline int pod_egress6_busy(struct __sk_buff *skb, const struct xmasq_config *cfg)
{
	return cfg ? send_busy(skb, true, cfg) : PASS;
}

static __noinline int pod_egress6_other(struct __sk_buff *skb, const struct xmasq_config *cfg, bool no_flow)
{
	return cfg ? pod_egress_main(skb, true, cfg, no_flow) : PASS;
}

static __always_inline int pod_egress6(struct __sk_buff *skb, const struct xmasq_config *cfg)
{
	int verdict = mostly_masquerades(cfg) ? pod_egress6_busy(skb, cfg) : LOOK_CLOSER;

	return verdict < PASS ? pod_egress6_other(skb, cfg, verdict == NO_FLOW) : verdict;
}

SEC("tc")
int pod_egress(struct __sk_buff *skb)
{
	const struct xmasq_config *cfg = get_config();

	if (skb->protocol == bpf_htons(ETH_P_IP))
		return pod_egress4(skb, cfg);
	if (skb->protocol == bpf_htons(ETH_P_IPV6))
		return pod_egress6(skb, cfg);
	if (cfg && is_vlan(skb->protocol))
		return leave_tagged(skb);
	return PASS;
}
