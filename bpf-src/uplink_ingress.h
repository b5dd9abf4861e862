/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* uplink_ingress: tc ingress of the uplink. Restores masqueraded packets, reads control messages, rejects unknown keys. */
#pragma once

#include "flow.h"
#include "icmp_error.h"
#include "receive.h"

/* A control message behind the IP header. */
struct ctl_datagram {
	struct udphdr udp;
	struct xmasq_ctl ctl;
} __attribute__((packed, aligned(4)));

#define CTL_OFF(v6) (L4_OFF(v6) + (int)offsetof(struct ctl_datagram, ctl))
#define CTL_LEN(v6) (L4_OFF(v6) + (int)sizeof(struct ctl_datagram))

/*
 * Turns the packet from the underlay around: its Ethernet and IP header become those of a datagram to its sender. Not through a
 * pointer into it, for the sake of uplink_egress: see write_id.
 */
static __always_inline bool turn_around(struct __sk_buff *skb, const bool v6)
{
	struct xmasq_scratch *tmp;
	struct ethhdr *eth;
	__u32 zero = 0;
	__u8 mac[6];

	tmp = bpf_map_lookup_elem(&scratch, &zero);
	if (!tmp || bpf_skb_load_bytes(skb, 0, tmp->header, L4_OFF(v6)))
		return false;
	eth = (struct ethhdr *)tmp->header;
	__builtin_memcpy(mac, eth->h_dest, 6);
	__builtin_memcpy(eth->h_dest, eth->h_source, 6);
	__builtin_memcpy(eth->h_source, mac, 6);
	if (v6) {
		struct ipv6hdr *ip = (void *)(eth + 1);
		struct in6_addr addr = ip->saddr;

		*(__be32 *)ip = bpf_htonl(IPV6_VERSION);
		ip->payload_len = bpf_htons(sizeof(struct ctl_datagram));
		ip->nexthdr = IPPROTO_UDP;
		ip->hop_limit = 64;
		ip->saddr = ip->daddr;
		ip->daddr = addr;
	} else {
		struct iphdr *ip = (void *)(eth + 1);
		__be32 addr = ip->saddr;

		ip->tos = 0;
		ip->tot_len = bpf_htons(sizeof(*ip) + sizeof(struct ctl_datagram));
		ip->id = 0;
		ip->frag_off = bpf_htons(IP_DF);
		ip->ttl = 64;
		ip->protocol = IPPROTO_UDP;
		ip->saddr = ip->daddr;
		ip->daddr = addr;
		ip->check = 0;
		ip->check = ip_checksum(ip);
	}
	return bpf_skb_store_bytes(skb, 0, tmp->header, L4_OFF(v6), 0) == 0;
}

/* IPv6 knows no datagrams without a checksum (RFC 8200 8.1), though no data plane looks at it. */
static __always_inline __u16 ctl_checksum6(struct __sk_buff *skb, struct ctl_datagram *d)
{
	__be32 addrs[8];
	__u32 sum;

	if (bpf_skb_load_bytes(skb, L3_OFF + offsetof(struct ipv6hdr, saddr), addrs, sizeof(addrs)))
		return 0;
	sum = bpf_csum_diff(NULL, 0, addrs, sizeof(addrs), bpf_htons(IPPROTO_UDP) + d->udp.len);
	sum = ~fold(bpf_csum_diff(NULL, 0, (__be32 *)d, sizeof(*d), sum));
	return (__u16)sum ? sum : 0xffff;
}

/* Turns `skb`, which must be a packet from the underlay, into a control message to its sender. */
static __always_inline bool make_ctl(struct __sk_buff *skb, const bool v6, __be16 tunnel_port, __u8 type, __u8 proto,
				     __be16 sport, __be16 dport, __u16 id)
{
	struct ctl_datagram d = {};

	if (bpf_skb_change_tail(skb, CTL_LEN(v6), 0) || !readable(skb, CTL_LEN(v6)) || !turn_around(skb, v6))
		return false;
	d.udp.source = tunnel_port;
	d.udp.dest = tunnel_port;
	d.udp.len = bpf_htons(sizeof(d));
	d.ctl.tag = XMASQ_CTL_TAG;
	d.ctl.version = XMASQ_PROTOCOL_VERSION;
	d.ctl.type = type;
	d.ctl.proto = proto;
	d.ctl.sport = sport;
	d.ctl.dport = dport;
	d.ctl.key = id >> ID_KEY_SHIFT;
	d.ctl.count = id & ID_COUNT_MASK;
	if (v6)
		d.udp.check = ctl_checksum6(skb, &d);
	return bpf_skb_store_bytes(skb, L4_OFF(v6), &d, sizeof(d), 0) == 0;
}

/* At most XMASQ_REJECTS_PER_SEC to one peer. */
static __always_inline bool may_reject(__u32 peer, __u64 now)
{
	struct xmasq_peer_state *ps = bpf_map_lookup_elem(&peer_state, &peer);

	if (!ps)
		return false;
	if (now - ps->reject_window >= XMASQ_SEC) {
		ps->reject_window = now;
		ps->reject_count = 0;
	}
	if (ps->reject_count >= XMASQ_REJECTS_PER_SEC) {
		count(XMASQ_COUNTER_REJECT_LIMITED);
		return false;
	}
	ps->reject_count++;
	return true;
}

/* A message from the peer's data plane about a flow that we send to it. What fits no flow is ignored. */
static __noinline int control(struct __sk_buff *skb, struct xmasq_addr *peer_addr)
{
	struct xmasq_slot_key sk = {};
	struct xmasq_flow_key key;
	struct xmasq_path *path;
	struct xmasq_slot *s;
	struct xmasq_flow *f;
	struct xmasq_ctl m;
	__u64 now = bpf_ktime_get_coarse_ns();
	__u32 *id;

	if (!peer_addr || bpf_skb_load_bytes(skb, CTL_OFF(skb->protocol == bpf_htons(ETH_P_IPV6)), &m, sizeof(m)) ||
	    m.version != XMASQ_PROTOCOL_VERSION)
		goto ignored;
	id = bpf_map_lookup_elem(&peer_by_addr, peer_addr);
	if (!id)
		goto ignored;
	/* The message names the flow as we send it; our slot is for what comes back. */
	sk.peer = *peer_addr;
	sk.sport = m.sport;
	sk.dport = m.dport;
	sk.proto = m.proto;
	reverse_ports(m.proto, &sk.sport, &sk.dport);
	s = bpf_map_lookup_elem(&slots, &sk);
	if (!s || s->state != XMASQ_SLOT_ACTIVE)
		goto ignored;
	flow_key_of(&sk, s, &key);
	f = bpf_map_lookup_elem(&flows, &key);
	if (!f || f->slot_gen != s->gen || !(f->flags & XMASQ_FLOW_KEYED) || f->peer != *id)
		goto ignored;
	if (m.type == XMASQ_CTL_PROBED) {
		path = path_of(f);
		if (!path || !path_answered(path, m.count, now))
			goto ignored;
		f->verify_at = 0;
		peer_lives(f->peer, now, true);
		count(XMASQ_COUNTER_PROBE_ANSWERED);
		return DROP;
	}
	if (!(f->flags & XMASQ_FLOW_HAVE_KEY) || f->peer_key != m.key || !f->fast_since)
		goto ignored;
	if (m.type == XMASQ_CTL_ACK) {
		s->last_rx = now;
		__sync_fetch_and_add(&s->acks, 1);
		peer_lives(f->peer, now, true);
		count(XMASQ_COUNTER_ACK_RECEIVED);
	} else if (m.type == XMASQ_CTL_REJECT) {
		rejected(f, &key);
	} else {
		goto ignored;
	}
	return DROP;
ignored:
	count(XMASQ_COUNTER_REJECT_IGNORED);
	return DROP;
}

/* The verifier wants the fields of a socket read one by one, at fixed offsets: see packet_start. */
#define SOCK_WORD(sk, offset)                                                                 \
	({                                                                                    \
		__u32 value_;                                                                 \
		asm volatile("%0 = *(u32 *)(%1 + %2)" : "=r"(value_) : "r"(sk), "i"(offset)); \
		value_;                                                                       \
	})

/* A listener or an unconnected socket would take anybody's packets: only a connected one tells whose they are. */
static __always_inline bool connected(const struct bpf_sock *sk, const struct packet *p)
{
	const __u32 at = offsetof(struct bpf_sock, dst_ip6);

	if (sk->dst_port != p->sport || sk->state == 10 /* BPF_TCP_LISTEN */)
		return false;
	if (!p->v6)
		return SOCK_WORD(sk, offsetof(struct bpf_sock, dst_ip4)) == p->saddr.word[3];
	return SOCK_WORD(sk, at) == p->saddr.word[0] && SOCK_WORD(sk, at + 4) == p->saddr.word[1] &&
	       SOCK_WORD(sk, at + 8) == p->saddr.word[2] && SOCK_WORD(sk, at + 12) == p->saddr.word[3];
}

/*
 * Is there a connected socket of this node, or a connection of its own in zone 0, for exactly this packet? `answered`: one with
 * packets both ways, this one included.
 */
static __noinline bool is_nodes_own(struct __sk_buff *skb, struct packet *p, bool answered)
{
	struct bpf_sock_tuple t = {};
	struct xmasq_tuple zone0;
	struct nf_conn *ct;
	struct bpf_sock *sk;
	__u32 len;
	__s32 error;
	__u8 dir;
	bool own;

	if (!p || (p->proto != IPPROTO_TCP && p->proto != IPPROTO_UDP))
		return false;
	if (p->v6) {
		__builtin_memcpy(t.ipv6.saddr, &p->saddr, sizeof(p->saddr));
		__builtin_memcpy(t.ipv6.daddr, &p->daddr, sizeof(p->daddr));
		t.ipv6.sport = p->sport;
		t.ipv6.dport = p->dport;
		len = sizeof(t.ipv6);
	} else {
		t.ipv4.saddr = p->saddr.word[3];
		t.ipv4.daddr = p->daddr.word[3];
		t.ipv4.sport = p->sport;
		t.ipv4.dport = p->dport;
		len = sizeof(t.ipv4);
	}
	/* The verifier wants each kind of pointer read by instructions of its own; the asm line keeps the two apart. */
	if (p->proto == IPPROTO_TCP) {
		sk = bpf_skc_lookup_tcp(skb, &t, len, BPF_F_CURRENT_NETNS, 0);
		if (sk) {
			asm volatile("%0 = %0" : "+r"(sk));
			own = connected(sk, p);
			bpf_sk_release(sk);
			if (own)
				return true;
		}
	} else {
		sk = bpf_sk_lookup_udp(skb, &t, len, BPF_F_CURRENT_NETNS, 0);
		if (sk) {
			own = connected(sk, p);
			bpf_sk_release(sk);
			if (own)
				return true;
		}
	}
	zone0.saddr = p->saddr;
	zone0.daddr = p->daddr;
	zone0.sport = p->sport;
	zone0.dport = p->dport;
	ct = ct_lookup(skb, 0, &zone0, p->proto, &error, &dir);
	if (!ct)
		return false;
	/* What comes the other way is the answer itself. */
	own = !answered || dir == CT_DIR_REPLY || (ct->status & CT_SEEN_REPLY);
	bpf_ct_release(ct);
	return own;
}

static __always_inline int pass_own(__u32 peer)
{
	count(XMASQ_COUNTER_UNKNOWN_PASSED);
	emit(XMASQ_EVENT_UNKNOWN_PASSED, 0, NULL, peer);
	return PASS;
}

/* Sends the packet back to its sender as a control message. */
static __noinline int answer(struct __sk_buff *skb, const struct xmasq_config *cfg, struct packet *p, __u32 type,
			     __u32 counter)
{
	if (!cfg || !p)
		return DROP;
	if (p->v6 ? !make_ctl(skb, true, cfg->tunnel_port, type, p->proto, p->sport, p->dport, p->id) :
		    !make_ctl(skb, false, cfg->tunnel_port, type, p->proto, p->sport, p->dport, p->id))
		return DROP;
	count(counter);
	/* uplink_egress lets no other control message pass. */
	set_magic(skb, cfg, KIND_CONTROL);
	return bpf_redirect(skb->ifindex, 0);
}

/* A masqueraded packet that nobody here can restore. The stack must not see it: it would answer a stranger. */
static __noinline int unknown(struct __sk_buff *skb, const struct xmasq_config *cfg, struct packet *p, __u32 counter,
			      __u32 peer)
{
	__u64 now = bpf_ktime_get_coarse_ns();

	if (!cfg || !p)
		return DROP;
	if (is_nodes_own(skb, p, false))
		return pass_own(peer);
	count(counter);
	/* A RST ends the flow anyway, and nobody must answer one. */
	if ((p->tcp_flags & TCP_RST) || !may_reject(peer, now))
		return DROP;
	return answer(skb, cfg, p, XMASQ_CTL_REJECT, XMASQ_COUNTER_REJECT_SENT);
}

/* The slot is good, but who says that the connection is still allowed? Returns enum xmasq_reason. */
static __noinline __u32 recheck_slot(struct __sk_buff *skb, const struct xmasq_config *cfg, struct xmasq_slot_key *sk,
				     struct xmasq_slot *s)
{
	__u64 now = bpf_ktime_get_coarse_ns();
	struct xmasq_flow_key key;
	struct xmasq_tuple out;
	struct xmasq_flow *f;
	__u32 reason;

	if (!cfg || !sk || !s)
		return XMASQ_REASON_STALE;
	flow_key_of(sk, s, &key);
	f = bpf_map_lookup_elem(&flows, &key);
	if (now >= s->recheck_at) {
		reason = admits(skb, cfg, &key, 1, &out);
		if (!reason && f && !same_tuple(&out, &f->out))
			reason = XMASQ_REASON_STALE;
		if (reason) {
			demote(&key, reason, now);
			free_slot(s, XMASQ_SLOT_TOMBSTONE, now);
			return reason;
		}
		s->recheck_at = ct_recheck_at(&key, now);
	}
	if (!f || f->slot_gen != s->gen) {
		free_slot(s, XMASQ_SLOT_TOMBSTONE, now);
		return XMASQ_REASON_STALE;
	}
	/* Who sends with our key has seen an announcement of ours, i.e. has learned all it needs to restore. */
	if (!(f->flags & XMASQ_FLOW_PEER_COMPLETE) || !(s->flags & XMASQ_SLOT_PEER_FAST)) {
		if (slot_try_lock(s)) {
			__sync_fetch_and_or(&f->flags, XMASQ_FLOW_PEER_COMPLETE);
			f->verify_at = 0;
			s->flags |= XMASQ_SLOT_PEER_FAST;
			slot_unlock(s);
		}
	}
	return XMASQ_REASON_NONE;
}

/* Tells the peer that its packets arrive, if the local pod has sent nothing fast since the last time: see uplink_egress. */
static __always_inline void acknowledge(struct __sk_buff *skb, const struct xmasq_config *cfg,
					struct xmasq_slot_key *sk, struct xmasq_slot *s, __u64 now)
{
	struct xmasq_flow_key key;
	struct xmasq_flow *f;

	s->ack_at = now + XMASQ_ACK_NS;
	/* For uplink_xdp, which does not see whether a frame is for this node. */
	bpf_skb_load_bytes(skb, offsetof(struct ethhdr, h_dest), s->wire_dmac, sizeof(s->wire_dmac));
	flow_key_of(sk, s, &key);
	f = bpf_map_lookup_elem(&flows, &key);
	if (!f || !(cfg->flags & XMASQ_CFG_ADMIT))
		return;
	/* What the pod has sent fast since must count as the answer: if it is lost, the peer shall notice. */
	if (f->masq_packets != s->acked_tx) {
		s->acked_tx = f->masq_packets;
		return;
	}
	set_magic(skb, cfg, KIND_ACK);
	if (bpf_clone_redirect(skb, skb->ifindex, 0) == 0)
		count(XMASQ_COUNTER_ACK_SENT);
	wipe_magic(skb);
}

/* A probe of a peer's: it shall know that masqueraded packets arrive. */
static __always_inline int probed(struct __sk_buff *skb, const struct xmasq_config *cfg, struct packet *p, __u64 now)
{
	__u32 *id = bpf_map_lookup_elem(&peer_by_addr, &p->saddr);

	if (!id || !peer_interpreted(cfg, *id, now))
		return PASS;
	/*
	 * One of 256 keys: see unknown(). An entry without an answer is no proof: while this node had no hooks, masqueraded packets and
	 * probes reached its stack and made one, and each further probe would keep it.
	 */
	if (is_nodes_own(skb, p, true))
		return pass_own(*id);
	if (!may_reject(*id, now) || !(cfg->flags & XMASQ_CFG_ADMIT))
		return DROP;
	return answer(skb, cfg, p, XMASQ_CTL_PROBED, XMASQ_COUNTER_PROBE_RECEIVED);
}

/*
 * Makes the packet, which begins at `start`, the pod's again, by the slot as it is in generation `gen`. Returns the device of the pod;
 * 0: the slot has changed since, and the packet is as it was.
 */
static __always_inline __u32 restore(struct __sk_buff *skb, const bool v6, void *start, __u16 *check,
				     const struct packet *p, const struct xmasq_slot *s, __u32 gen)
{
	struct macs macs = macs_read(s->dmac);
	__u32 ifindex = s->ifindex, diff = s->csum_diff;
	__u8 ttl = s->ttl, tos = s->tos | (p->tos & TOS_ECN);

	if (v6) {
		struct xmasq_addr saddr = s->saddr, daddr = s->daddr;
		struct ipv6hdr *ip = start + L3_OFF;
		__be32 was[2], is[2];

		slot_was_read(s, RESTORE);
		if (s->gen != gen)
			return 0;
		was[0] = *(__be32 *)ip;
		was[1] = *((__be32 *)ip + 1);
		is[0] = ip6_first_word(tos, 0);
		*(__be32 *)ip = is[0];
		ip->hop_limit = ttl;
		is[1] = *((__be32 *)ip + 1);
		addr_get6(&ip->saddr, &saddr);
		addr_get6(&ip->daddr, &daddr);
		macs_write(start, macs);
		if (!fix_checksum_at(skb, check, p->proto, diff)) {
			fix_checksum_by_helper(skb, true, p->proto, diff);
			settle_sum6(skb, diff, was, is);
		}
	} else {
		__be32 saddr = s->saddr.word[3], daddr = s->daddr.word[3];
		struct iphdr *ip = start + L3_OFF;
		__u16 id = 0, frag = IP_DF;
		__u32 sum = s->ip_sum;

		slot_was_read(s, RESTORE);
		if (s->gen != gen)
			return 0;
		if (p->id & ID_FLAG) {
			id = fresh_id();
			frag = 0;
		}
		ip->tos = tos;
		ip->id = bpf_htons(id);
		ip->frag_off = bpf_htons(frag);
		ip->ttl = ttl;
		ip->saddr = saddr;
		ip->daddr = daddr;
		sum += bpf_htons(p->tos & TOS_ECN) + bpf_htons(p->tot_len) + bpf_htons(id) + bpf_htons(frag);
		ip->check = ~fold(sum);
		macs_write(start, macs);
		if (!fix_checksum_at(skb, check, p->proto, diff))
			fix_checksum_by_helper(skb, false, p->proto, diff);
	}
	return ifindex;
}

/* A RST comes through the slot: the flow ends, and so does what conntrack knows of it. */
static __noinline void reset_slot(struct __sk_buff *skb, const struct xmasq_config *cfg, struct xmasq_slot_key *sk,
				  struct xmasq_slot *s, __u32 gen)
{
	struct xmasq_flow_key key;
	__u32 peer;

	if (!cfg || !sk || !s)
		return;
	peer = s->peer;
	flow_key_of(sk, s, &key);
	slot_was_read(s, RESET);
	if (s->gen != gen)
		return;
	end_flow(&key, XMASQ_SLOT_TOMBSTONE, bpf_ktime_get_coarse_ns());
	count(XMASQ_COUNTER_FLOW_CLOSED);
	ct_reset(skb, cfg, &key, peer);
}

/* Not verdicts: what else the packet may be. It is looked at by the caller, because the stack is too full here. */
#define RECEIVE_ENCAP (-3)
#define RECEIVE_DIRECT (-4)
#define RECEIVE_ICMP (-5)

/*
 * The usual packet of a busy flow: restored like the one before it, with nothing about packet or slot to be looked at closer.
 * Otherwise LOOK_CLOSER, and the packet is as it was.
 */
static __always_inline int restore_busy(struct __sk_buff *skb, const bool v6, const struct xmasq_config *cfg)
{
	struct packet p = { .v6 = v6, .segments = 1 };
	__u64 tick = bpf_jiffies64(), now;
	void *start = packet_start(skb);
	struct xmasq_slot_key sk;
	struct xmasq_slot *s;
	__u32 ifindex, gen;
	__u16 *check;

	if (!read_plain_header(skb, v6, start, &p, true))
		goto closer;
	if (!p.df || !(p.id & ID_MARKER) || (__u8)(p.id >> ID_KEY_SHIFT) == XMASQ_PROBE_KEY ||
	    skb->pkt_type != PACKET_HOST)
		goto closer;
	if (v6 ? !addr_equal(&p.daddr, &cfg->uplink_addr6) : p.daddr.word[3] != cfg->uplink_addr4.word[3])
		goto closer;
	check = read_plain_ports(skb, v6, start, &p);
	if (!check)
		goto closer;
	sk.peer = p.saddr;
	sk.sport = p.sport;
	sk.dport = p.dport;
	sk.proto = p.proto;
	__builtin_memset(sk.pad, 0, sizeof(sk.pad));
	s = bpf_map_lookup_elem(&slots, &sk);
	if (!s)
		goto closer;
	gen = s->gen;
	barrier();
	now = s->tick == tick ? s->last_rx : bpf_ktime_get_coarse_ns();
	if (!slot_is_busy(s, gen, p.id, now) || s->sport != p.sport)
		goto closer;
	ifindex = restore(skb, v6, start, check, &p, s, gen);
	if (!ifindex)
		goto closer;
	if (s->tick != tick) {
		s->tick = tick;
		s->last_rx = now;
		peer_lives(s->peer, now, true);
	}
	__sync_fetch_and_add(&s->rx_packets, 1);
	__sync_fetch_and_add(&s->rx_bytes, p.tot_len);
	count(XMASQ_COUNTER_RESTORED);
	return deliver(skb, ifindex);

closer:
	barrier();
	return LOOK_CLOSER;
}

static __always_inline __u32 restore_any(struct __sk_buff *skb, const bool v6, const struct packet *p,
					 const struct xmasq_slot *s, __u32 gen)
{
	void *start = packet_start(skb);

	if (start + L4_OFF(v6) > packet_end(skb))
		return 0; /* not reached: parse() has read it */
	return restore(skb, v6, start, checksum_of(skb, start, v6, p->proto), p, s, gen);
}

/* A frame of its own: that of the caller is in a chain of calls that just fits on the stack of kernel 6.1. */
static __noinline __u32 restore_other(struct __sk_buff *skb, const struct packet *p, const struct xmasq_slot *s,
				      __u32 gen)
{
	return p->v6 ? restore_any(skb, true, p, s, gen) : restore_any(skb, false, p, s, gen);
}

static __always_inline int uplink_ingress_main(struct __sk_buff *skb, const bool v6, const struct xmasq_config *cfg)
{
	struct xmasq_slot_key sk = {};
	struct xmasq_slot *s;
	struct packet p;
	__u32 *id, gen, peer, ifindex;
	__u8 state, flags;
	__be16 sport;
	__u64 now;
	bool valid;
	int verdict;

	if (skb->pkt_type != PACKET_HOST || !parse(skb, v6, &p, cfg->tunnel_port, true))
		return PASS;
	if (!addr_equal(&p.daddr, uplink_addr(cfg, !v6)))
		return cfg->flags & XMASQ_CFG_DIRECT ? RECEIVE_DIRECT : PASS;
	if (p.reason == XMASQ_REASON_RESERVED_PORT && p.proto == IPPROTO_UDP && p.dport == cfg->tunnel_port) {
		if (skb->len >= (__u32)CTL_LEN(v6) && leads_control(skb, v6, cfg->tunnel_port))
			return control(skb, &p.saddr);
		return cfg->flags & XMASQ_CFG_ENCAP ? RECEIVE_ENCAP : PASS;
	}
	if (p.reason == XMASQ_REASON_ICMP_TYPE)
		return RECEIVE_ICMP;
	/* Receive offload may merge packets of equal IDs to more segments than a sender may: the ID is the first one's. */
	if ((p.reason && p.reason != XMASQ_REASON_GSO_SEGMENTS) || !p.df || !(p.id & ID_MARKER))
		return PASS;

	sk.peer = p.saddr;
	sk.sport = p.sport;
	sk.dport = p.dport;
	sk.proto = p.proto;
	now = bpf_ktime_get_coarse_ns();
	if ((__u8)(p.id >> ID_KEY_SHIFT) == XMASQ_PROBE_KEY)
		return probed(skb, cfg, &p, now);
	s = bpf_map_lookup_elem(&slots, &sk);
	if (!s) {
		id = bpf_map_lookup_elem(&peer_by_addr, &p.saddr);
		if (!id || !peer_interpreted(cfg, *id, now))
			return PASS;
		return unknown(skb, cfg, &p, XMASQ_COUNTER_UNKNOWN_KEY, *id);
	}

	gen = s->gen;
	barrier();
	peer = s->peer;
	state = s->state;
	flags = s->flags;
	sport = s->sport;
	valid = s->key == (__u8)(p.id >> ID_KEY_SHIFT) &&
		(state == XMASQ_SLOT_ACTIVE ||
		 (state == XMASQ_SLOT_CLOSING && now - s->freed_at <= XMASQ_CLOSING_NS)) &&
		endpoint_valid(s->endpoint, s->endpoint_epoch) && peer_valid(peer, s->peer_epoch);
	slot_was_read(s, LOOK);
	/* gen is odd while the slot changes, and other when the element has become another slot's since the lookup. */
	if (!valid || (gen & 1) || s->gen != gen) {
		if (!peer_interpreted(cfg, peer, now))
			return PASS;
		verdict = unknown(skb, cfg, &p, XMASQ_COUNTER_UNKNOWN_KEY, peer);
		if (verdict == PASS && !(flags & XMASQ_SLOT_SHARED) && slot_try_lock(s)) {
			s->flags |= XMASQ_SLOT_SHARED;
			slot_unlock(s);
		}
		return verdict;
	}
	/*
	 * The peer has lost uplink_egress and a connection of the nodes has the flow's ports: its IDs run through all keys, and
	 * one of them is ours. While the pods' own packets come slow, the socket tells.
	 */
	if ((flags & XMASQ_SLOT_SHARED) && now - s->last_rx > XMASQ_RECHECK_NS && is_nodes_own(skb, &p, false))
		return pass_own(peer);
	if (!(flags & XMASQ_SLOT_COMPLETE))
		return unknown(skb, cfg, &p, XMASQ_COUNTER_INCOMPLETE, peer);
	if (state == XMASQ_SLOT_ACTIVE) {
		if (now >= s->recheck_at || now - s->last_rx > XMASQ_VERIFY_NS || !(flags & XMASQ_SLOT_PEER_FAST)) {
			if (recheck_slot(skb, cfg, &sk, s))
				return unknown(skb, cfg, &p, XMASQ_COUNTER_UNKNOWN_KEY, peer);
		}
		if (now >= s->ack_at)
			acknowledge(skb, cfg, &sk, s, now);
	}
	s->last_rx = now;
	__sync_fetch_and_add(&s->rx_packets, p.segments);
	__sync_fetch_and_add(&s->rx_bytes, p.tot_len + (p.segments - 1) * (L4_OFF(v6) - ETH_HLEN + 20));
	peer_lives(peer, now, true);

	if (p.tcp_flags & TCP_RST)
		reset_slot(skb, cfg, &sk, s, gen);

	ifindex = restore_other(skb, &p, s, gen);
	if (!ifindex) {
		count(XMASQ_COUNTER_UNKNOWN_KEY);
		return DROP;
	}
	if (sport != p.sport && !change_port(skb, v6, p.proto, 0, p.sport, sport))
		return DROP; /* not reached: the checksum was written just now */
	count(XMASQ_COUNTER_RESTORED);
	return deliver(skb, ifindex);
}

/* A frame on the stack for each family: together they would be too large. */
static __noinline int uplink_ingress4_busy(struct __sk_buff *skb, const struct xmasq_config *cfg)
{
	return cfg ? restore_busy(skb, false, cfg) : PASS;
}

static __noinline int uplink_ingress4_other(struct __sk_buff *skb, const struct xmasq_config *cfg)
{
	return cfg ? uplink_ingress_main(skb, false, cfg) : PASS;
}

static __always_inline int uplink_ingress4(struct __sk_buff *skb, const struct xmasq_config *cfg)
{
	int verdict = uplink_ingress4_busy(skb, cfg);

	return verdict == LOOK_CLOSER ? uplink_ingress4_other(skb, cfg) : verdict;
}

static __noinline int uplink_ingress6_busy(struct __sk_buff *skb, const struct xmasq_config *cfg)
{
	return cfg ? restore_busy(skb, true, cfg) : PASS;
}

static __noinline int uplink_ingress6_other(struct __sk_buff *skb, const struct xmasq_config *cfg)
{
	return cfg ? uplink_ingress_main(skb, true, cfg) : PASS;
}

static __always_inline int uplink_ingress6(struct __sk_buff *skb, const struct xmasq_config *cfg)
{
	int verdict = uplink_ingress6_busy(skb, cfg);

	return verdict == LOOK_CLOSER ? uplink_ingress6_other(skb, cfg) : verdict;
}

SEC("tc")
int uplink_ingress(struct __sk_buff *skb)
{
	const struct xmasq_config *cfg = get_config();

	int verdict = PASS;
	__u32 ifindex;

	if (!cfg)
		return PASS;
	ifindex = restored_for(skb, cfg);
	if (ifindex)
		return deliver(skb, ifindex);
	if (skb->protocol == bpf_htons(ETH_P_IP))
		verdict = uplink_ingress4(skb, cfg);
	else if (skb->protocol == bpf_htons(ETH_P_IPV6))
		verdict = uplink_ingress6(skb, cfg);
	switch (verdict) {
	case RECEIVE_ENCAP:
		return receive_encap(skb, cfg);
	case RECEIVE_DIRECT:
		return receive_direct(skb, cfg);
	case RECEIVE_ICMP:
		return skb->protocol == bpf_htons(ETH_P_IPV6) ? icmp6_error(skb, cfg) : icmp_error(skb, cfg);
	}
	return verdict;
}
