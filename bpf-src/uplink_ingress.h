/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* uplink_ingress: tc ingress of the uplink. Restores masqueraded packets, reads control messages, rejects unknown keys. */
#pragma once

#include "flow.h"
#include "icmp_error.h"

struct ctl_packet {
	struct ethhdr eth;
	struct iphdr ip;
	struct udphdr udp;
	struct xmasq_ctl ctl;
} __attribute__((packed));

/* Turns `skb`, which must be a packet from the underlay, into a control message to its sender. */
static __always_inline bool make_ctl(struct __sk_buff *skb, __be16 tunnel_port, __u8 type, __u8 proto, __be16 sport,
				     __be16 dport, __u8 key)
{
	struct ctl_packet m = {};

	if (bpf_skb_change_tail(skb, sizeof(m), 0))
		return false;
	if (bpf_skb_load_bytes(skb, 0, &m, offsetof(struct ctl_packet, udp)))
		return false;
	__u8 mac[6];
	__be32 addr = m.ip.saddr;

	__builtin_memcpy(mac, m.eth.h_dest, 6);
	__builtin_memcpy(m.eth.h_dest, m.eth.h_source, 6);
	__builtin_memcpy(m.eth.h_source, mac, 6);
	m.ip.saddr = m.ip.daddr;
	m.ip.daddr = addr;
	m.ip.tos = 0;
	m.ip.tot_len = bpf_htons(sizeof(m) - ETH_HLEN);
	m.ip.id = 0;
	m.ip.frag_off = bpf_htons(IP_DF);
	m.ip.ttl = 64;
	m.ip.protocol = IPPROTO_UDP;
	m.ip.check = 0;
	m.ip.check = ~fold(bpf_csum_diff(NULL, 0, (void *)&m.ip, sizeof(m.ip), 0));
	m.udp.source = tunnel_port;
	m.udp.dest = tunnel_port;
	m.udp.len = bpf_htons(sizeof(m.udp) + sizeof(m.ctl));
	m.ctl.tag = XMASQ_CTL_TAG;
	m.ctl.version = XMASQ_PROTOCOL_VERSION;
	m.ctl.type = type;
	m.ctl.proto = proto;
	m.ctl.sport = sport;
	m.ctl.dport = dport;
	m.ctl.key = key;
	return bpf_skb_store_bytes(skb, 0, &m, sizeof(m), 0) == 0;
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
static __noinline int control(struct __sk_buff *skb, __be32 peer_addr)
{
	struct xmasq_slot_key sk = {};
	struct xmasq_flow_key key;
	struct xmasq_slot *s;
	struct xmasq_flow *f;
	struct xmasq_ctl m;
	__u64 now = bpf_ktime_get_coarse_ns();
	__u32 *id;

	if (bpf_skb_load_bytes(skb, offsetof(struct ctl_packet, ctl), &m, sizeof(m)) ||
	    m.version != XMASQ_PROTOCOL_VERSION)
		goto ignored;
	id = bpf_map_lookup_elem(&peer_by_addr, &peer_addr);
	if (!id)
		goto ignored;
	/* The message names the flow as we send it; our slot is for what comes back. */
	sk.peer = peer_addr;
	sk.sport = m.sport;
	sk.dport = m.dport;
	sk.proto = m.proto;
	reverse_ports(m.proto, &sk.sport, &sk.dport);
	s = bpf_map_lookup_elem(&slots, &sk);
	if (!s || s->state != XMASQ_SLOT_ACTIVE)
		goto ignored;
	flow_key_of(&sk, s, &key);
	f = bpf_map_lookup_elem(&flows, &key);
	if (!f || f->slot_gen != s->gen || !(f->flags & XMASQ_FLOW_HAVE_KEY) || f->peer_key != m.key ||
	    f->peer != *id || !f->fast_since)
		goto ignored;
	if (m.type == XMASQ_CTL_ACK) {
		s->last_rx = now;
		peer_lives(f->peer, now, true);
		count(XMASQ_COUNTER_ACK_RECEIVED);
	} else if (m.type == XMASQ_CTL_REJECT) {
		__sync_fetch_and_and(&f->flags, ~(XMASQ_FLOW_HAVE_KEY | XMASQ_FLOW_PEER_COMPLETE));
		__u64 pause;

		if (now > f->reject_until + XMASQ_REJECT_MAX_NS)
			f->reject_level = 0;
		pause = XMASQ_REJECT_MIN_NS << f->reject_level;
		f->reject_key = m.key;
		f->reject_until = now + (pause < XMASQ_REJECT_MAX_NS ? pause : XMASQ_REJECT_MAX_NS);
		if (f->reject_level < 6)
			f->reject_level++;
		f->fast_since = 0;
		f->recheck_at = 0;
		count(XMASQ_COUNTER_REJECT_RECEIVED);
		emit(XMASQ_EVENT_REJECTED, XMASQ_REASON_KEY_REJECTED, &key, f->peer);
	} else {
		goto ignored;
	}
	return DROP;
ignored:
	count(XMASQ_COUNTER_REJECT_IGNORED);
	return DROP;
}

/* A listener or an unconnected socket would take anybody's packets: only a connected one tells whose they are. */
static __always_inline bool connected(const struct bpf_sock *sk, const struct packet *p)
{
	return sk->dst_ip4 == p->saddr && sk->dst_port == p->sport && sk->state != 10 /* BPF_TCP_LISTEN */;
}

/* Is there a connected socket of this node, or a connection of its own in zone 0, for exactly this packet? */
static __noinline bool is_nodes_own(struct __sk_buff *skb, struct packet *p)
{
	struct bpf_sock_tuple t = {};
	struct nf_conn *ct;
	struct bpf_sock *sk;
	__s32 error;
	bool own;

	if (!p || (p->proto != IPPROTO_TCP && p->proto != IPPROTO_UDP))
		return false;
	t.ipv4.saddr = p->saddr;
	t.ipv4.daddr = p->daddr;
	t.ipv4.sport = p->sport;
	t.ipv4.dport = p->dport;
	/* The verifier wants each kind of pointer read by instructions of its own; the asm line keeps the two apart. */
	if (p->proto == IPPROTO_TCP) {
		sk = bpf_skc_lookup_tcp(skb, &t, sizeof(t.ipv4), BPF_F_CURRENT_NETNS, 0);
		if (sk) {
			asm volatile("%0 = %0" : "+r"(sk));
			own = connected(sk, p);
			bpf_sk_release(sk);
			if (own)
				return true;
		}
	} else {
		sk = bpf_sk_lookup_udp(skb, &t, sizeof(t.ipv4), BPF_F_CURRENT_NETNS, 0);
		if (sk) {
			own = connected(sk, p);
			bpf_sk_release(sk);
			if (own)
				return true;
		}
	}
	ct = ct_lookup(skb, 0, p->saddr, p->daddr, p->sport, p->dport, p->proto, &error);
	if (!ct)
		return false;
	bpf_ct_release(ct);
	return true;
}

static __always_inline int pass_own(__u32 peer)
{
	count(XMASQ_COUNTER_UNKNOWN_PASSED);
	emit(XMASQ_EVENT_UNKNOWN_PASSED, 0, NULL, peer);
	return PASS;
}

/* A masqueraded packet that nobody here can restore. The stack must not see it: it would answer a stranger. */
static __noinline int unknown(struct __sk_buff *skb, const struct xmasq_config *cfg, struct packet *p, __u32 counter,
			      __u32 peer)
{
	__u64 now = bpf_ktime_get_coarse_ns();

	if (!cfg || !p)
		return DROP;
	if (is_nodes_own(skb, p))
		return pass_own(peer);
	count(counter);
	/* A RST ends the flow anyway, and nobody must answer one. */
	if ((p->tcp_flags & TCP_RST) || !may_reject(peer, now))
		return DROP;
	if (!make_ctl(skb, cfg->tunnel_port, XMASQ_CTL_REJECT, p->proto, p->sport, p->dport, p->id >> ID_KEY_SHIFT))
		return DROP;
	count(XMASQ_COUNTER_REJECT_SENT);
	/* uplink_egress lets no other control message pass. */
	store_cb(skb, cfg->magic[0], cfg->magic[1], cfg->magic[2], cfg->magic[3]);
	return bpf_redirect(skb->ifindex, 0);
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
		reason = ct_admits(skb, cfg, &key, 1, &out);
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
	flow_key_of(sk, s, &key);
	f = bpf_map_lookup_elem(&flows, &key);
	if (!f || !(cfg->flags & XMASQ_CFG_ADMIT))
		return;
	/* What the pod has sent fast since must count as the answer: if it is lost, the peer shall notice. */
	if (f->tx_packets != s->acked_tx) {
		s->acked_tx = f->tx_packets;
		return;
	}
	store_cb(skb, ~cfg->magic[0], cfg->magic[1], cfg->magic[2], cfg->magic[3]);
	if (bpf_clone_redirect(skb, skb->ifindex, 0) == 0)
		count(XMASQ_COUNTER_ACK_SENT);
	store_cb(skb, 0, 0, 0, 0);
}

static __always_inline int uplink_ingress_main(struct __sk_buff *skb)
{
	const struct xmasq_config *cfg = get_config();
	struct xmasq_slot_key sk = {};
	struct xmasq_slot *s, copy;
	struct packet p;
	struct ethhdr *eth;
	struct iphdr *ip;
	__u32 *id, gen, sum;
	__u64 now;
	__u16 new_id, frag;
	int verdict;

	if (!cfg || skb->pkt_type != PACKET_HOST || !parse(skb, &p, cfg->tunnel_port, true))
		return PASS;
	if (p.daddr != cfg->uplink_addr4)
		return PASS;
	if (p.reason == XMASQ_REASON_RESERVED_PORT && p.proto == IPPROTO_UDP && p.dport == cfg->tunnel_port &&
	    skb->len >= sizeof(struct ctl_packet)) {
		__u8 tag = 0;

		bpf_skb_load_bytes(skb, offsetof(struct ctl_packet, ctl), &tag, 1);
		return tag == XMASQ_CTL_TAG ? control(skb, p.saddr) : PASS;
	}
	if (p.reason == XMASQ_REASON_ICMP_TYPE)
		return icmp_error(skb, cfg);
	/* Receive offload may merge packets of equal IDs to more segments than a sender may: the ID is the first one's. */
	if ((p.reason && p.reason != XMASQ_REASON_GSO_SEGMENTS) || !p.df || !(p.id & ID_MARKER))
		return PASS;

	sk.peer = p.saddr;
	sk.sport = p.sport;
	sk.dport = p.dport;
	sk.proto = p.proto;
	now = bpf_ktime_get_coarse_ns();
	s = bpf_map_lookup_elem(&slots, &sk);
	if (!s) {
		id = bpf_map_lookup_elem(&peer_by_addr, &p.saddr);
		if (!id || !peer_interpreted(cfg, *id, now))
			return PASS;
		return unknown(skb, cfg, &p, XMASQ_COUNTER_UNKNOWN_KEY, *id);
	}

	gen = s->gen;
	barrier();
	copy = *s;
	barrier();
	/* gen is odd while the slot changes, and other when the element has become another slot's since the lookup. */
	if ((gen & 1) || s->gen != gen || copy.key != (__u8)(p.id >> ID_KEY_SHIFT) ||
	    (copy.state != XMASQ_SLOT_ACTIVE &&
	     (copy.state != XMASQ_SLOT_CLOSING || now - copy.freed_at > XMASQ_CLOSING_NS)) ||
	    !endpoint_valid(copy.endpoint, copy.endpoint_epoch) || !peer_valid(copy.peer, copy.peer_epoch)) {
		if (!peer_interpreted(cfg, copy.peer, now))
			return PASS;
		verdict = unknown(skb, cfg, &p, XMASQ_COUNTER_UNKNOWN_KEY, copy.peer);
		if (verdict == PASS && !(copy.flags & XMASQ_SLOT_SHARED) && slot_try_lock(s)) {
			s->flags |= XMASQ_SLOT_SHARED;
			slot_unlock(s);
		}
		return verdict;
	}
	/*
	 * The peer has lost uplink_egress and a connection of the nodes has the flow's ports: its IDs run through all keys, and
	 * one of them is ours. While the pods' own packets come slow, the socket tells.
	 */
	if ((copy.flags & XMASQ_SLOT_SHARED) && now - copy.last_rx > XMASQ_RECHECK_NS && is_nodes_own(skb, &p))
		return pass_own(copy.peer);
	if (!(copy.flags & XMASQ_SLOT_COMPLETE))
		return unknown(skb, cfg, &p, XMASQ_COUNTER_INCOMPLETE, copy.peer);
	if (copy.state == XMASQ_SLOT_ACTIVE) {
		if (now >= copy.recheck_at || now - copy.last_rx > XMASQ_VERIFY_NS ||
		    !(copy.flags & XMASQ_SLOT_PEER_FAST)) {
			if (recheck_slot(skb, cfg, &sk, s))
				return unknown(skb, cfg, &p, XMASQ_COUNTER_UNKNOWN_KEY, copy.peer);
		}
		if (now >= copy.ack_at)
			acknowledge(skb, cfg, &sk, s, now);
	}
	s->last_rx = now;
	__sync_fetch_and_add(&s->rx_packets, p.segments);
	__sync_fetch_and_add(&s->rx_bytes, p.tot_len + (p.segments - 1) * 40);
	peer_lives(copy.peer, now, true);

	if (p.tcp_flags & TCP_RST) {
		struct xmasq_flow_key key;

		flow_key_of(&sk, &copy, &key);
		end_flow(&key, XMASQ_SLOT_TOMBSTONE, now);
		count(XMASQ_COUNTER_FLOW_CLOSED);
		ct_reset(skb, cfg, &key, copy.peer);
	}

	if (!fix_checksum(skb, p.proto, copy.csum_diff))
		return DROP;
	if (copy.sport != p.sport && !change_port(skb, p.proto, 0, p.sport, copy.sport))
		return DROP;
	eth = packet_start(skb);
	ip = (void *)(eth + 1);
	if ((void *)(ip + 1) > packet_end(skb))
		return DROP; /* not reached: parse() has read it */
	__builtin_memcpy(eth->h_dest, copy.dmac, 6);
	__builtin_memcpy(eth->h_source, copy.smac, 6);
	new_id = p.id & ID_FLAG ? fresh_id() : 0;
	frag = p.id & ID_FLAG ? 0 : IP_DF;
	ip->tos = copy.tos | (p.tos & TOS_ECN);
	ip->id = bpf_htons(new_id);
	ip->frag_off = bpf_htons(frag);
	ip->ttl = copy.ttl;
	ip->saddr = copy.saddr;
	ip->daddr = copy.daddr;
	sum = bpf_htons(0x4500 | copy.tos | (p.tos & TOS_ECN)) + bpf_htons(p.tot_len) + bpf_htons(new_id) +
	      bpf_htons(frag) + bpf_htons((__u16)copy.ttl << 8 | p.proto) + (copy.saddr & 0xffff) + (copy.saddr >> 16) +
	      (copy.daddr & 0xffff) + (copy.daddr >> 16);
	ip->check = ~fold(sum);
	bpf_skb_change_type(skb, PACKET_HOST);
	skb->mark = 0;
	count(XMASQ_COUNTER_RESTORED);
	return bpf_redirect_peer(copy.ifindex, 0);
}

SEC("tc")
int uplink_ingress(struct __sk_buff *skb)
{
	return uplink_ingress_main(skb);
}
