/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The life of a flow on this node: admission, verification, demotion, close. Slots are claimed and freed here. */
#pragma once

#include <linux/bpf.h>
#include <linux/in.h>
#include <bpf/bpf_helpers.h>

#include "admission.h"
#include "maps.h"
#include "packet.h"
#include "path.h"
#include "verifier.h"
#include "xmasq.h"

#define AF_INET 2
#define AF_INET6 10

#define FLOW_READY (XMASQ_FLOW_HAVE_KEY | XMASQ_FLOW_ANNOUNCED | XMASQ_FLOW_PEER_COMPLETE)

/* The slot that packets of the peer are restored by; ports as this node sends them. */
static __always_inline void slot_key_of(const struct xmasq_addr *peer_addr, __u8 proto, __be16 sport, __be16 dport,
					struct xmasq_slot_key *slot)
{
	__builtin_memset(slot, 0, sizeof(*slot));
	slot->peer = *peer_addr;
	slot->sport = sport;
	slot->dport = dport;
	slot->proto = proto;
	reverse_ports(proto, &slot->sport, &slot->dport);
}

static __always_inline void slot_key_of_flow(const struct xmasq_flow *f, struct xmasq_slot_key *slot)
{
	slot_key_of(&f->node_daddr, f->proto, f->out.sport, f->out.dport, slot);
}

/* The flow that a slot belongs to, as the local pod sends it. */
static __always_inline void flow_key_of(const struct xmasq_slot_key *slot, const struct xmasq_slot *s,
					struct xmasq_flow_key *flow)
{
	__builtin_memset(flow, 0, sizeof(*flow));
	flow->saddr = s->daddr;
	flow->daddr = s->saddr;
	flow->sport = s->sport;
	flow->dport = slot->dport;
	flow->ifindex = s->ifindex;
	flow->proto = slot->proto;
	reverse_ports(slot->proto, &flow->sport, &flow->dport);
}

/* See `awaited`. */
static __always_inline __u32 *awaited_at(const struct xmasq_flow_key *key)
{
	__u32 index = (key->sport ^ key->dport) & (XMASQ_MAX_AWAITED - 1);

	return bpf_map_lookup_elem(&awaited, &index);
}

static __always_inline __u32 awaited_number(const struct xmasq_flow_key *key)
{
	return key->saddr.word[3] ^ key->daddr.word[3] ^ key->ifindex ^ ((__u32)key->sport << 16 | key->dport);
}

/* The peer goes on with a connection that has no entry here: it waits for our key. */
static __always_inline void await(const struct xmasq_flow_key *key)
{
	__u32 *number = awaited_at(key);

	if (number)
		*number = awaited_number(key);
}

static __always_inline bool is_awaited(const struct xmasq_flow_key *key)
{
	__u32 *number = awaited_at(key);

	return number && *number == awaited_number(key);
}

/* The key of `translated`: what the pod's packets are for the other pod. */
static __always_inline void translated_key(const struct xmasq_tuple *out, __u8 proto, __u32 ifindex,
					   struct xmasq_flow_key *to)
{
	__builtin_memset(to, 0, sizeof(*to));
	*tuple_of(to) = *out;
	to->ifindex = ifindex;
	to->proto = proto;
}

static __noinline void forget_translated(const struct xmasq_flow *f, __u32 ifindex)
{
	struct xmasq_flow_key other;

	translated_key(&f->out, f->proto, ifindex, &other);
	bpf_map_delete_elem(&translated, &other);
}

static __always_inline bool slot_try_lock(struct xmasq_slot *s)
{
	return __sync_val_compare_and_swap(&s->lock, 0, 1) == 0;
}

static __always_inline void slot_unlock(struct xmasq_slot *s)
{
	__sync_val_compare_and_swap(&s->lock, 1, 0);
}

static __always_inline void free_slot(struct xmasq_slot *s, __u8 state, __u64 now)
{
	s->freed_at = now;
	s->state = state;
}

static __always_inline bool endpoint_valid(__u32 id, __u32 epoch)
{
	struct xmasq_endpoint *ep = bpf_map_lookup_elem(&endpoints, &id);

	return ep && ep->epoch == epoch && (ep->flags & XMASQ_EP_PRESENT) && !ep->excluded;
}

static __always_inline bool is_pod_veth(__u32 ifindex)
{
	return ifindex && bpf_map_lookup_elem(&endpoint_by_ifindex, &ifindex);
}

/* May its packets be restored, and ours by it? */
static __always_inline bool peer_valid(__u32 id, __u32 epoch)
{
	struct xmasq_peer *peer = bpf_map_lookup_elem(&peers, &id);

	return peer && peer->epoch == epoch && (peer->flags & XMASQ_PEER_CAPABLE);
}

/* Is it the node that the flow was admitted with? All that a flow without keys needs. */
static __always_inline struct xmasq_peer *find_peer(__u32 id, __u32 epoch)
{
	struct xmasq_peer *peer = bpf_map_lookup_elem(&peers, &id);

	return peer && peer->epoch == epoch && (peer->flags & XMASQ_PEER_PRESENT) ? peer : NULL;
}

static __always_inline bool peer_present(__u32 id, __u32 epoch)
{
	return find_peer(id, epoch) != NULL;
}

/* Does the peer hear us? Sending fast needs a recent proof. */
static __always_inline bool peer_confirmed(__u32 id, __u64 now)
{
	struct xmasq_peer_state *ps = bpf_map_lookup_elem(&peer_state, &id);

	return ps && ps->last_confirmed && now - ps->last_confirmed < XMASQ_SEND_LIFE_NS;
}

/* Do we hear the peer? Telling it to send fast needs a recent sign of life. */
static __always_inline bool peer_heard(__u32 id, __u64 now)
{
	struct xmasq_peer_state *ps = bpf_map_lookup_elem(&peer_state, &id);

	return ps && ps->last_life && now - ps->last_life < XMASQ_SEND_LIFE_NS;
}

/*
 * May the slot, in generation `gen`, restore a packet with this ID, and is nothing about it due? Else uplink_ingress looks at it
 * closer.
 */
static __always_inline bool slot_is_busy(const struct xmasq_slot *s, __u32 gen, __u16 id, __u64 now)
{
	__u32 other = (gen & 1) | (s->key ^ (__u8)(id >> ID_KEY_SHIFT)) | (s->state ^ XMASQ_SLOT_ACTIVE) |
		      (s->flags ^ (XMASQ_SLOT_COMPLETE | XMASQ_SLOT_PEER_FAST));

	return !other && now < s->recheck_at && now < s->ack_at && now - s->last_rx <= XMASQ_VERIFY_NS &&
	       endpoint_valid(s->endpoint, s->endpoint_epoch) && peer_valid(s->peer, s->peer_epoch);
}

/*
 * Are packets of this node to be read as masqueraded ones? A peer that has not been heard of for long may have lost its
 * hooks, and what looks masqueraded is its own traffic. A peer that has withdrawn its capability may still send for a
 * while. After a loss of state here the clock starts anew: capable peers go on sending what can no longer be restored.
 */
static __always_inline bool peer_interpreted(const struct xmasq_config *cfg, __u32 id, __u64 now)
{
	struct xmasq_peer_state *ps = bpf_map_lookup_elem(&peer_state, &id);
	struct xmasq_peer *peer = bpf_map_lookup_elem(&peers, &id);
	__u64 since;

	if (!ps || !peer || !(peer->flags & XMASQ_PEER_PRESENT))
		return false;
	since = ps->last_life;
	if ((peer->flags & XMASQ_PEER_CAPABLE) && since < cfg->state_since)
		since = cfg->state_since;
	/* state_since is from user space's finer clock and may lie a tick ahead. */
	return since && (__s64)(now - since) < (__s64)XMASQ_INTERPRET_NS;
}

/* Was there ever a sign of life of the peer? */
static __always_inline bool peer_known(__u32 id)
{
	struct xmasq_peer_state *ps = bpf_map_lookup_elem(&peer_state, &id);

	return ps && ps->last_life;
}

static __always_inline void peer_lives(__u32 id, __u64 now, bool confirmed)
{
	struct xmasq_peer_state *ps = bpf_map_lookup_elem(&peer_state, &id);

	if (!ps)
		return;
	/* Not with every packet: the line is shared by all CPUs. */
	if (now - ps->last_life > 100 * XMASQ_MS)
		ps->last_life = now;
	if (confirmed && now - ps->last_confirmed > 100 * XMASQ_MS)
		ps->last_confirmed = now;
}

/* Not masqueraded, or handed to the other pod of this node, for now. */
static __always_inline bool flow_is_slow(const struct xmasq_flow *f)
{
	return f->blocked || (f->flags & (FLOW_READY | XMASQ_FLOW_UNLEARNED)) != FLOW_READY;
}

/* Is it known how the slow path sends the flow's packets? */
static __always_inline bool tx_learned(const struct xmasq_flow *f)
{
	return f->tx_gen == f->gen;
}

/* The port that the local pod takes replies from: see struct xmasq_slot. */
static __always_inline __be16 reply_port(const struct xmasq_flow_key *key)
{
	__be16 sport = key->sport, dport = key->dport;

	reverse_ports(key->proto, &sport, &dport);
	return sport;
}

/*
 * Ends a flow: the entry goes, the slot becomes `slot_state`. FIN leaves it CLOSING, so that packets under way arrive;
 * nothing extends conntrack's entry any more. False: there was none.
 */
GLOBAL bool end_flow(struct xmasq_flow_key *key, __u32 slot_state, __u64 now)
{
	struct xmasq_slot_key sk;
	struct xmasq_flow *f;
	struct xmasq_slot *s;

	if (!key)
		return false;
	f = find_flow(key);
	if (!f)
		return false;
	if (f->flags & XMASQ_FLOW_KEYED) {
		slot_key_of_flow(f, &sk);
		s = bpf_map_lookup_elem(&slots, &sk);
		if (s && addr_equal(&s->saddr, &key->daddr) && s->sport == reply_port(key) &&
		    addr_equal(&s->daddr, &key->saddr) && s->ifindex == key->ifindex && s->state == XMASQ_SLOT_ACTIVE)
			free_slot(s, slot_state, now);
	}
	if ((f->flags & (XMASQ_FLOW_SERVICE | XMASQ_FLOW_LOCAL)) == XMASQ_FLOW_SERVICE)
		forget_translated(f, key->ifindex);
	delete_flow(key);
	return true;
}

/* Why a flow is refused is remembered, and when to ask again. Returns `reason`. */
GLOBAL __u32 refuse(struct xmasq_flow_key *key, __u32 reason, __u64 now)
{
	struct xmasq_refusal *r, fresh = {};

	if (!key)
		return reason;
	r = find_refusal(key);
	if (!r) {
		fresh.reason = reason;
		fresh.tries = 1;
		fresh.packets = 1;
		add_refusal(key, &fresh);
	} else {
		r->reason = reason;
		r->packets++;
		if (r->tries < XMASQ_REFUSAL_TRIES) {
			r->tries++;
		} else {
			r->backoff = r->backoff ? r->backoff * 2 : XMASQ_BACKOFF_MIN_NS;
			if (r->backoff > XMASQ_BACKOFF_MAX_NS)
				r->backoff = XMASQ_BACKOFF_MAX_NS;
			r->until = now + r->backoff;
		}
	}
	if (reason == XMASQ_REASON_NO_APPROVAL)
		emit(XMASQ_EVENT_WANT_APPROVAL, reason, key, 0);
	return reason;
}

static __always_inline bool owns_address(const struct xmasq_endpoint *ep, const struct xmasq_addr *addr)
{
	return addr_equal(&ep->addr4, addr) || addr_equal(&ep->addr6, addr);
}

/* Is the sender the pod of this device? Where its packets go to, conntrack's entry tells. */
static __always_inline bool from_pod(struct xmasq_flow_key *key, const __u8 *mac)
{
	struct xmasq_endpoint *ep;
	__u32 *id = bpf_map_lookup_elem(&endpoint_by_ifindex, &key->ifindex);

	if (!id)
		return false;
	ep = bpf_map_lookup_elem(&endpoints, id);
	if (!ep || !(ep->flags & XMASQ_EP_PRESENT))
		return false;
	return owns_address(ep, &key->saddr) && (!mac || mac_equal(mac, ep->mac));
}

/* The entry goes, for this reason, and it is not admitted again at once. Returns `reason`. */
GLOBAL __u32 demote(struct xmasq_flow_key *key, __u32 reason, __u64 now)
{
	if (!key)
		return reason;
	end_flow(key, XMASQ_SLOT_TOMBSTONE, now);
	count(XMASQ_COUNTER_FLOW_DEMOTED);
	emit(XMASQ_EVENT_DEMOTED, reason, key, 0);
	return refuse(key, reason, now);
}

/* The peer does not know the key that the flow sends with: slow, until it announces one. */
static __always_inline void rejected(struct xmasq_flow *f, struct xmasq_flow_key *key)
{
	__u64 now = bpf_ktime_get_coarse_ns(), pause;

	__sync_fetch_and_and(&f->flags, ~(XMASQ_FLOW_HAVE_KEY | XMASQ_FLOW_PEER_COMPLETE));
	if (now > f->reject_until + XMASQ_REJECT_MAX_NS)
		f->reject_level = 0;
	pause = XMASQ_REJECT_MIN_NS << f->reject_level;
	f->reject_key = f->peer_key;
	f->reject_until = now + (pause < XMASQ_REJECT_MAX_NS ? pause : XMASQ_REJECT_MAX_NS);
	if (f->reject_level < 6)
		f->reject_level++;
	f->fast_since = 0;
	f->recheck_at = 0;
	count(XMASQ_COUNTER_REJECT_RECEIVED);
	emit(XMASQ_EVENT_REJECTED, XMASQ_REASON_KEY_REJECTED, key, f->peer);
}

/*
 * The stack has been told, or is about to be, of a smaller MTU on the way to the peer. Packets of what is left of the 100 ms
 * would be lost, and the pod, which the slow path tells, would come to know at TCP's second retransmission only.
 */
static __always_inline void mtu_told(__u32 id)
{
	struct xmasq_peer_state *ps = bpf_map_lookup_elem(&peer_state, &id);

	if (ps)
		ps->mtu_told = bpf_ktime_get_coarse_ns();
}

static __always_inline bool mtu_just_told(__u32 id, __u64 now)
{
	struct xmasq_peer_state *ps = bpf_map_lookup_elem(&peer_state, &id);

	return ps && now < ps->mtu_told + XMASQ_MTU_TOLD_NS;
}

/*
 * Next hop of the flow on the underlay: Ethernet addresses and MTU, also where the way to the peer has a smaller one than the
 * device (the route's, or one that the kernel has been told of). Looked up again every 100 ms, so that changed neighbours are
 * followed, and with each packet for a moment when the stack has been told of a smaller MTU; an unresolved one is left to the
 * slow path, whose packets resolve it.
 */
static __noinline bool find_neighbour(struct __sk_buff *skb, struct xmasq_flow *f)
{
	struct bpf_fib_lookup fib = {
		.l4_protocol = f->proto,
		.tot_len = 1, /* asks for the MTU */
		.ifindex = f->out_ifindex,
	};

	if (addr_is4(&f->node_daddr)) {
		fib.family = AF_INET;
		fib.ipv4_src = f->node_saddr.word[3];
		fib.ipv4_dst = f->node_daddr.word[3];
	} else {
		fib.family = AF_INET6;
		__builtin_memcpy(fib.ipv6_src, &f->node_saddr, sizeof(f->node_saddr));
		__builtin_memcpy(fib.ipv6_dst, &f->node_daddr, sizeof(f->node_daddr));
	}
	if (bpf_fib_lookup(skb, &fib, sizeof(fib), BPF_FIB_LOOKUP_OUTPUT) != BPF_FIB_LKUP_RET_SUCCESS ||
	    fib.ifindex != f->out_ifindex)
		return false;
	__builtin_memcpy(f->smac, fib.smac, 6);
	__builtin_memcpy(f->dmac, fib.dmac, 6);
	f->mtu = fib.mtu_result;
	return true;
}

/*
 * Sends the packet out of the uplink; where the flow has just looked at its next hop, by the kernel's own neighbour entry. One
 * that nobody uses is never doubted: a neighbour that changes its address without a word would not be found again.
 */
static __always_inline int to_uplink(const struct xmasq_flow *f, __u32 ifindex, __u64 now)
{
	if (f->verify_at == now + XMASQ_VERIFY_NS)
		return bpf_redirect_neigh(ifindex, NULL, 0, 0);
	return bpf_redirect(ifindex, 0);
}

static __always_inline __u8 usable_key(__u8 key)
{
	return key == XMASQ_PROBE_KEY ? 0 : key;
}

/*
 * Takes the slot for the flow's ports. The same pods have it again with another key: at once if it is live and its flow is
 * lost (to announce its old key anew would tell the peer that what it sends does not arrive), XMASQ_QUIET_NS after it was
 * freed otherwise; other pods get it after XMASQ_TOMBSTONE_NS. Returns enum xmasq_reason; gen and key through `f`, or when it
 * can be had, as hole_until, where that is known.
 */
static __noinline __u32 claim_slot(struct xmasq_flow_key *key, struct xmasq_flow *f, struct xmasq_slot *fresh,
				   __u64 now)
{
	struct xmasq_slot_key sk;
	struct xmasq_slot *s;
	__u32 reason = XMASQ_REASON_NONE;
	bool same, current;
	__u64 wait;

	if (!key || !f || !fresh)
		return XMASQ_REASON_STALE;
	slot_key_of_flow(f, &sk);
	s = bpf_map_lookup_elem(&slots, &sk);
	if (!s) {
		__builtin_memset(fresh, 0, sizeof(*fresh));
		fresh->gen = bpf_get_prandom_u32() & ~1u;
		fresh->saddr = key->daddr;
		fresh->sport = reply_port(key);
		fresh->daddr = key->saddr;
		fresh->pod = f->out.daddr;
		fresh->ifindex = key->ifindex;
		fresh->endpoint = f->endpoint;
		fresh->endpoint_epoch = f->endpoint_epoch;
		fresh->peer = f->peer;
		fresh->peer_epoch = f->peer_epoch;
		fresh->csum_diff = ~f->csum_diff; /* the opposite change, RFC 1624 */
		fresh->key = usable_key(bpf_get_prandom_u32());
		fresh->state = XMASQ_SLOT_ACTIVE;
		f->slot_gen = fresh->gen;
		f->own_key = fresh->key;
		return bpf_map_update_elem(&slots, &sk, fresh, BPF_NOEXIST) == 0 ? XMASQ_REASON_NONE :
										   XMASQ_REASON_MAP_FULL;
	}
	/* If somebody is at it just now, the next look may find it free. */
	f->hole_until = now + XMASQ_VERIFY_NS;
	if (!slot_try_lock(s))
		return XMASQ_REASON_SLOT_TAKEN;
	/* The sidecar may have deleted the slot since the lookup, and the element be another slot's by now. */
	if (bpf_map_lookup_elem(&slots, &sk) != s) {
		slot_unlock(s);
		return XMASQ_REASON_SLOT_TAKEN;
	}
	f->hole_until = 0;
	same = addr_equal(&s->saddr, &key->daddr) && s->sport == reply_port(key) &&
	       addr_equal(&s->daddr, &key->saddr) && addr_equal(&s->pod, &f->out.daddr) && s->ifindex == key->ifindex;
	wait = same ? XMASQ_QUIET_NS : XMASQ_TOMBSTONE_NS;
	current = s->endpoint_epoch == f->endpoint_epoch && s->peer_epoch == f->peer_epoch;
	if (s->state == XMASQ_SLOT_ACTIVE && !same && endpoint_valid(s->endpoint, s->endpoint_epoch) &&
	    peer_valid(s->peer, s->peer_epoch)) {
		reason = XMASQ_REASON_SLOT_TAKEN;
	} else if (s->state == XMASQ_SLOT_ACTIVE && (!same || !current)) {
		/* Its pod or peer is gone or another one, and nobody has freed it yet. */
		free_slot(s, XMASQ_SLOT_TOMBSTONE, now);
		f->hole_until = now + wait;
		reason = XMASQ_REASON_SLOT_RECENT;
	} else if (s->state != XMASQ_SLOT_ACTIVE && (__s64)(now - s->freed_at) < (__s64)wait) {
		f->hole_until = s->freed_at + wait;
		reason = XMASQ_REASON_SLOT_RECENT;
	} else {
		__u32 gen = s->gen;

		s->gen = gen | 1;
		barrier();
		s->key = usable_key(s->key + 1 + (bpf_get_prandom_u32() & 0x7f));
		s->flags = 0;
		s->rx_packets = 0;
		s->rx_bytes = 0;
		s->saddr = key->daddr;
		s->sport = reply_port(key);
		s->daddr = key->saddr;
		s->pod = f->out.daddr;
		s->ifindex = key->ifindex;
		s->endpoint = f->endpoint;
		s->endpoint_epoch = f->endpoint_epoch;
		s->peer = f->peer;
		s->peer_epoch = f->peer_epoch;
		s->csum_diff = ~f->csum_diff;
		s->recheck_at = 0;
		s->last_rx = 0;
		s->state = XMASQ_SLOT_ACTIVE;
		f->own_key = s->key;
		f->slot_gen = (gen | 1) + 1;
		barrier();
		s->gen = (gen | 1) + 1;
	}
	slot_unlock(s);
	return reason;
}

/*
 * Is conntrack's translation what AntreaProxy does: of a Service's address and port to a pod's, and back within the node?
 * The flow's destination was found by the former.
 */
static __always_inline bool translation_fits(const struct xmasq_flow_key *key, const struct xmasq_flow *f,
					     bool translated)
{
	bool same_addr = addr_equal(&f->out.saddr, &key->saddr);
	bool same_source = same_addr && f->out.sport == key->sport;

	if (translated)
		return same_source;
	if (!addr_equal(&f->out.daddr, &key->daddr) || f->out.dport != key->dport)
		return false;
	return same_source || ((f->flags & XMASQ_FLOW_LOCAL) && !same_addr);
}

static __noinline void remember_translated(struct xmasq_flow_key *key, struct xmasq_flow *f)
{
	struct xmasq_flow_key other;

	if (!key || !f)
		return;
	translated_key(&f->out, f->proto, key->ifindex, &other);
	bpf_map_update_elem(&translated, &other, key, BPF_ANY);
}

/* The node's own transport address, and the device that has it, by family. */
static __always_inline const struct xmasq_addr *uplink_addr(const struct xmasq_config *cfg, bool v4)
{
	return v4 ? &cfg->uplink_addr4 : &cfg->uplink_addr6;
}

static __always_inline __u32 uplink_ifindex(const struct xmasq_config *cfg, bool v4)
{
	return v4 ? cfg->uplink_ifindex4 : cfg->uplink_ifindex6;
}

/* Fills in what a flow to a pod of this node needs. Returns enum xmasq_reason. */
static __always_inline __u32 admit_local(const struct xmasq_config *cfg, struct xmasq_flow_key *key,
					 struct xmasq_flow *f, __u32 id, bool translated, __u8 *excluded, __u64 now)
{
	struct xmasq_endpoint *ep = bpf_map_lookup_elem(&endpoints, &id);
	__u32 reason;

	if (!ep || !(ep->flags & XMASQ_EP_PRESENT) || !owns_address(ep, &f->out.daddr))
		return XMASQ_REASON_UNKNOWN_ENDPOINT;
	if (ep->ifindex == key->ifindex) {
		reason = translated ? XMASQ_REASON_CT_HAIRPIN : XMASQ_REASON_NOT_POD;
		return refuse(key, reason, now);
	}
	/* Pods of one node reach each other within the bridge: a frame for another MAC is not for this pod. */
	if (!translated && !mac_equal(ep->mac, f->via_mac))
		return XMASQ_REASON_NOT_POD;
	f->flags = XMASQ_FLOW_LOCAL | FLOW_READY;
	f->peer = id;
	f->peer_epoch = ep->epoch;
	if (!*excluded)
		*excluded = ep->excluded ? ep->excluded : cfg->excluded_local;
	f->out_ifindex = ep->ifindex;
	f->mtu = 65535;
	return XMASQ_REASON_NONE;
}

static __always_inline const struct xmasq_addr *peer_addr(const struct xmasq_peer *peer, bool v4)
{
	return v4 ? &peer->addr4 : &peer->addr6;
}

/* Why flows of pods' packets of this family to the peer have no keys; XMASQ_REASON_NONE: they have. */
static __always_inline __u32 keyless(const struct xmasq_config *cfg, const struct xmasq_peer *peer, bool v4)
{
	if (!(peer->flags & XMASQ_PEER_CAPABLE))
		return XMASQ_REASON_PEER_NOT_CAPABLE;
	if (!(cfg->flags & XMASQ_CFG_MASQUERADE) || addr_is_none(uplink_addr(cfg, v4)) ||
	    addr_is_none(peer_addr(peer, v4)))
		return XMASQ_REASON_MODE;
	return XMASQ_REASON_NONE;
}

/* The same for a flow to a pod of another node. */
static __always_inline __u32 admit_remote(const struct xmasq_config *cfg, struct xmasq_flow_key *key,
					  struct xmasq_flow *f, bool translated, __u8 *excluded)
{
	const bool v4 = addr_is4(&key->saddr);
	struct xmasq_peer *peer;
	__u32 id = peer_of(&f->out.daddr);

	/* The replies stay slow, so keys would never be exchanged. */
	if ((key->dport == bpf_htons(53) || f->out.dport == bpf_htons(53)) &&
	    (key->proto == IPPROTO_TCP || key->proto == IPPROTO_UDP))
		return XMASQ_REASON_DNS_REPLY;
	if (translated && reserved_port(f->out.dport, cfg->tunnel_port))
		return XMASQ_REASON_RESERVED_PORT;
	if (!*excluded)
		*excluded = cfg->excluded_remote;
	peer = bpf_map_lookup_elem(&peers, &id);
	if (!peer || !(peer->flags & XMASQ_PEER_PRESENT))
		return XMASQ_REASON_PEER_NOT_CAPABLE;
	f->peer = id;
	f->peer_epoch = peer->epoch;
	f->out_ifindex = uplink_ifindex(cfg, v4);
	if (is_routed(peer, v4)) {
		f->unkeyed = XMASQ_REASON_MODE;
		f->flags = XMASQ_FLOW_DIRECT;
		f->node_saddr = f->out.saddr;
		f->node_daddr = f->out.daddr;
		return XMASQ_REASON_NONE;
	}
	f->unkeyed = keyless(cfg, peer, v4);
	if (f->unkeyed) {
		/* What excludes this node often excludes the peer, which then is not capable: tell the cause. */
		if (!*excluded && !(cfg->flags & XMASQ_CFG_ENCAP))
			return f->unkeyed;
		return XMASQ_REASON_NONE;
	}
	f->flags = XMASQ_FLOW_KEYED;
	f->node_saddr = *uplink_addr(cfg, v4);
	f->node_daddr = *peer_addr(peer, v4);
	f->csum_diff = address_diff(&key->saddr, &key->daddr, &f->node_saddr, &f->node_daddr);
	if (v4)
		f->ip_sum = bpf_htons(0x4500) + bpf_htons(IP_DF) + bpf_htons(64 << 8 | key->proto) +
			    (f->node_saddr.word[3] & 0xffff) + (f->node_saddr.word[3] >> 16) +
			    (f->node_daddr.word[3] & 0xffff) + (f->node_daddr.word[3] >> 16);
	return XMASQ_REASON_NONE;
}

/*
 * A pod packet without a flow entry: may the flow have one? Installs it, with the slot for the other direction, if
 * conntrack says so. Returns enum xmasq_reason.
 */
static __noinline __u32 admit(struct __sk_buff *skb, const struct xmasq_config *cfg, struct xmasq_flow_key *key,
			      __u32 ttl_tos)
{
	__u64 now = bpf_ktime_get_coarse_ns();
	struct xmasq_scratch *tmp;
	struct xmasq_refusal *r;
	struct xmasq_endpoint *ep;
	struct xmasq_flow *f;
	__u32 zero = 0, reason = XMASQ_REASON_NO_APPROVAL, *id;
	bool translated = false;
	__u8 excluded;

	if (!cfg || !key)
		return XMASQ_REASON_STALE;
	r = bpf_map_lookup_elem(&refusals, key);
	if (r && now < r->until) {
		r->packets++;
		return r->reason;
	}
	tmp = bpf_map_lookup_elem(&scratch, &zero);
	id = bpf_map_lookup_elem(&endpoint_by_ifindex, &key->ifindex);
	if (!tmp || !id)
		return XMASQ_REASON_UNKNOWN_ENDPOINT;
	f = &tmp->flow;
	__builtin_memset(f, 0, sizeof(*f));
	f->endpoint = *id;
	ep = bpf_map_lookup_elem(&endpoints, id);
	if (!ep || !(ep->flags & XMASQ_EP_PRESENT) || ep->ifindex != key->ifindex)
		return XMASQ_REASON_UNKNOWN_ENDPOINT;
	f->endpoint_epoch = ep->epoch;
	excluded = ep->excluded;
	if (bpf_skb_load_bytes(skb, 0, f->via_mac, sizeof(f->via_mac) + sizeof(f->pod_mac)))
		return XMASQ_REASON_MALFORMED;
	if (!owns_address(ep, &key->saddr) || !mac_equal(ep->mac, f->pod_mac))
		return XMASQ_REASON_SPOOF;
	if (!(cfg->flags & XMASQ_CFG_ADMIT))
		return XMASQ_REASON_DRAINING;
	/* Peers still send with keys that are forgotten here; a new one might be the same by chance. */
	if ((__s64)(now - cfg->state_since) < (__s64)XMASQ_QUIET_NS)
		return XMASQ_REASON_SLOT_RECENT;

	f->gen = f->gen2 = bpf_get_prandom_u32() | 1;
	f->proto = key->proto;
	f->ttl = ttl_tos >> 8;
	f->tos = ttl_tos & ~TOS_ECN;
	f->admitted_at = now;
	f->out = *tuple_of(key);
	if (!is_pod(&key->daddr)) {
		/* Never fast, and too many to ask conntrack about each: see below. */
		if (key->dport == bpf_htons(53) && (key->proto == IPPROTO_TCP || key->proto == IPPROTO_UDP))
			return XMASQ_REASON_DNS_REPLY;
		/* A Service, perhaps: conntrack knows which pod it is. Approvals do not. */
		reason = admits(skb, cfg, key, 0, &f->out);
		translated = !addr_equal(&f->out.daddr, &key->daddr);
		if (!translated || !is_pod(&f->out.daddr))
			return refuse(key, XMASQ_REASON_NOT_POD, now);
	}
	id = bpf_map_lookup_elem(&endpoint_by_addr, &f->out.daddr);
	if (id) {
		__u32 why = admit_local(cfg, key, f, *id, translated, &excluded, now);

		if (why)
			return why;
	} else {
		__u32 why = admit_remote(cfg, key, f, translated, &excluded);

		if (why) {
			/* Of a Service this is known only by asking conntrack: not with every packet. */
			if (translated)
				refuse(key, why, now);
			return why;
		}
	}

	if (!excluded)
		excluded = cfg->paused;
	if (excluded) {
		/* Remembered, so that the list of flows has it. */
		return refuse(key, excluded, now);
	}

	/*
	 * No timeout is extended here: the packet itself goes slow and does it. Were the entry to be extended before the flow
	 * carries a single packet, one-off exchanges would fill conntrack's table.
	 */
	if (!translated)
		reason = admits(skb, cfg, key, 0, &f->out);
	if (!reason && !translation_fits(key, f, translated))
		reason = XMASQ_REASON_CT_SERVICE;
	if (reason)
		return refuse(key, reason, now);
	if (!has_lookup(cfg, key->proto))
		f->flags |= XMASQ_FLOW_APPROVED;
	if (translated || !addr_equal(&f->out.saddr, &key->saddr)) {
		f->flags |= XMASQ_FLOW_SERVICE;
		if (f->flags & XMASQ_FLOW_LOCAL) {
			/* To the pod that began it, it is an answer from the Service's port. */
			if (f->out.sport == bpf_htons(53))
				return refuse(key, XMASQ_REASON_DNS_REPLY, now);
			f->flags |= XMASQ_FLOW_UNLEARNED;
			f->csum_diff = address_diff(&key->saddr, &key->daddr, &f->out.saddr, &f->out.daddr);
		}
	}
	if (f->flags & XMASQ_FLOW_KEYED) {
		reason = claim_slot(key, f, &tmp->slot, now);
		if (reason && !(cfg->flags & XMASQ_CFG_ENCAP))
			return refuse(key, reason, now);
		if (reason) {
			f->flags &= ~XMASQ_FLOW_KEYED;
			f->unkeyed = reason;
			if (!f->hole_until || f->hole_until > now + XMASQ_REKEY_NS)
				f->hole_until = now + XMASQ_REKEY_NS;
			__builtin_memset(&f->node_saddr, 0, sizeof(f->node_saddr));
			__builtin_memset(&f->node_daddr, 0, sizeof(f->node_daddr));
		}
	}
	if (bpf_map_update_elem(&flows, key, f, BPF_NOEXIST))
		return refuse(key, XMASQ_REASON_MAP_FULL, now);
	if ((f->flags & (XMASQ_FLOW_SERVICE | XMASQ_FLOW_LOCAL)) == XMASQ_FLOW_SERVICE)
		remember_translated(key, f);
	bpf_map_delete_elem(&refusals, key);
	count(XMASQ_COUNTER_FLOW_ADMITTED);
	emit(XMASQ_EVENT_ADMITTED, 0, key, f->flags & XMASQ_FLOW_LOCAL ? 0 : f->peer);
	return XMASQ_REASON_NONE;
}

/*
 * A flow with keys: is it still what it was admitted as, and may it be masqueraded? Sets `blocked`; returns the reason why
 * the entry must go.
 */
static __always_inline __u32 verify_keyed(struct __sk_buff *skb, const struct xmasq_config *cfg,
					  struct xmasq_flow_key *key, struct xmasq_flow *f, __u64 now, bool reachable,
					  __u8 *blocked)
{
	const bool v4 = addr_is4(&key->saddr);
	struct xmasq_slot_key sk;
	struct xmasq_path *path;
	struct xmasq_slot *s;
	__u32 heard;

	if (!peer_valid(f->peer, f->peer_epoch) || !addr_equal(&f->node_saddr, uplink_addr(cfg, v4)) ||
	    f->out_ifindex != uplink_ifindex(cfg, v4))
		return XMASQ_REASON_STALE;
	slot_key_of_flow(f, &sk);
	s = bpf_map_lookup_elem(&slots, &sk);
	if (!s || s->gen != f->slot_gen || s->state != XMASQ_SLOT_ACTIVE)
		return XMASQ_REASON_STALE;
	path = path_of(f);
	if (!path)
		return XMASQ_REASON_STALE;

	/*
	 * Packets of the slow path are no answer: they only prove that the slow path works. Answers are counted, as most come
	 * within the same tick of the clock.
	 */
	heard = (__u32)s->rx_packets + s->acks;
	if (!f->fast_since || heard != f->unanswered_heard || now - f->last_tx > XMASQ_PAUSE_NS)
		f->unanswered_since = 0;
	if (now < f->hole_until) {
		*blocked = XMASQ_REASON_BLACK_HOLE;
	} else if (!peer_confirmed(f->peer, now)) {
		*blocked = XMASQ_REASON_PEER_SILENT;
	} else if (!flow_is_slow(f)) {
		if (!f->unanswered_since) {
			f->unanswered_heard = heard;
			/* A lost packet's clock must not start at its retransmission, 200 ms later. */
			if (f->fast_since && f->last_tx >= s->last_rx && now - f->last_tx < XMASQ_SILENCE_NS / 2) {
				f->unanswered_since = f->last_tx;
				f->unanswered_tx = f->masq_packets - 1;
			} else {
				f->unanswered_since = now;
				f->unanswered_tx = f->masq_packets;
			}
		} else if (now - f->unanswered_since > XMASQ_SILENCE_NS &&
			   (__u32)f->masq_packets - f->unanswered_tx >= XMASQ_SILENCE_PACKETS) {
			*blocked = XMASQ_REASON_BLACK_HOLE;
			f->hole_until = now + (XMASQ_SEC << f->hole_level);
			if (f->hole_level < 6)
				f->hole_level++;
			f->unanswered_since = 0;
			path_failed(path, now);
			count(XMASQ_COUNTER_BLACK_HOLE);
			emit(XMASQ_EVENT_BLACK_HOLE, XMASQ_REASON_BLACK_HOLE, key, f->peer);
		}
	}
	if (!*blocked && !(cfg->flags & XMASQ_CFG_MASQUERADE))
		*blocked = XMASQ_REASON_MODE;
	if (cfg->flags & XMASQ_CFG_PROBE) {
		if (!path_usable(path, key, f->peer, now) && !*blocked)
			*blocked = XMASQ_REASON_UNPROVEN;
		if (reachable)
			probe(skb, cfg, f, path, now);
	}
	if (f->hole_level && !*blocked && now - f->hole_until > 60 * XMASQ_SEC)
		f->hole_level = 0;
	return XMASQ_REASON_NONE;
}

/* The same for a flow to another node that has no keys. `v4`: the family of the pods' packets. */
static __always_inline __u32 verify_unkeyed(const struct xmasq_config *cfg, struct xmasq_flow *f, bool v4, __u64 now,
					    __u8 *blocked)
{
	struct xmasq_peer *peer = find_peer(f->peer, f->peer_epoch);

	if (!peer)
		return XMASQ_REASON_STALE;
	*blocked = f->unkeyed;
	if (f->flags & XMASQ_FLOW_DIRECT)
		return (cfg->flags & XMASQ_CFG_DIRECT) &&
				       f->out_ifindex == uplink_ifindex(cfg, addr_is4(&f->node_daddr)) ?
			       XMASQ_REASON_NONE :
			       XMASQ_REASON_STALE;
	if (tx_learned(f) && !addr_equal(&f->node_saddr, uplink_addr(cfg, addr_is4(&f->node_saddr))))
		return XMASQ_REASON_STALE;
	/* The node had no address, perhaps, and has one now. */
	if (f->unkeyed == XMASQ_REASON_MODE && !keyless(cfg, peer, v4))
		return XMASQ_REASON_STALE;
	/* Its ports may have become free. */
	if (f->unkeyed >= XMASQ_REASON_SLOT_TAKEN && f->unkeyed <= XMASQ_REASON_MAP_FULL && now > f->hole_until)
		return XMASQ_REASON_STALE;
	return XMASQ_REASON_NONE;
}

/*
 * Once every XMASQ_VERIFY_NS, and whenever another program has changed the flow: is it still what it was admitted as, and
 * may it be fast? Returns 0 and sets f->blocked, or the reason why the entry must go.
 */
GLOBAL __u32 verify(struct __sk_buff *skb, const struct xmasq_config *cfg, struct xmasq_flow_key *key,
		    struct xmasq_flow *f, __u64 now)
{
	struct xmasq_tuple out;
	bool reachable = true;
	__u32 reason;
	__u8 blocked = XMASQ_REASON_NONE;

	if (!cfg || !key || !f)
		return XMASQ_REASON_STALE;
	if (!endpoint_valid(f->endpoint, f->endpoint_epoch))
		return XMASQ_REASON_STALE;
	reason = f->flags & XMASQ_FLOW_LOCAL ? cfg->excluded_local : cfg->excluded_remote;
	if (reason)
		return reason;
	if (now >= f->recheck_at) {
		reason = admits(skb, cfg, key, 1, &out);
		if (reason)
			return reason;
		/* The same ports, but another connection: to another endpoint of the Service. */
		if (!same_tuple(&out, &f->out))
			return XMASQ_REASON_STALE;
		f->recheck_at = ct_recheck_at(key, now);
	}
	f->verify_at = now + XMASQ_VERIFY_NS;
	if (!(cfg->flags & XMASQ_CFG_SEND)) {
		f->blocked = XMASQ_REASON_DRAINING;
		return 0;
	}
	if (f->flags & XMASQ_FLOW_LOCAL) {
		f->blocked = XMASQ_REASON_NONE;
		if (endpoint_valid(f->peer, f->peer_epoch))
			return 0;
		/*
		 * The other pod is gone, and a new one may have its address. Conntrack would take the old connection for the new
		 * pod's, so the flow is kept for as long as a freed slot: nobody admits it again.
		 */
		if (!f->hole_until)
			f->hole_until = now + XMASQ_TOMBSTONE_NS;
		f->blocked = XMASQ_REASON_STALE;
		return now < f->hole_until ? 0 : XMASQ_REASON_STALE;
	}
	/* Of others it is not known yet where they go. */
	if ((f->flags & (XMASQ_FLOW_KEYED | XMASQ_FLOW_DIRECT)) || tx_learned(f))
		reachable = find_neighbour(skb, f);
	if (f->flags & XMASQ_FLOW_KEYED)
		reason = verify_keyed(skb, cfg, key, f, now, reachable, &blocked);
	else
		reason = verify_unkeyed(cfg, f, addr_is4(&key->saddr), now, &blocked);
	if (reason)
		return reason;
	if (!reachable)
		blocked = XMASQ_REASON_NO_NEIGHBOUR;
	f->blocked = blocked;
	return 0;
}
