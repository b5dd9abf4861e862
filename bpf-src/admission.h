/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Admission: does Antrea's pipeline pass the packets of this flow? Answered by Antrea's own conntrack entry. */
#pragma once

#include "conntrack.h"
#include "maps.h"
#include "packet.h"

/* Which peer's pod has this address? 0: none. Gateway addresses inside a pod CIDR are nobody's. */
static __always_inline __u32 peer_of(const struct xmasq_addr *pod)
{
	struct xmasq_prefix prefix = { .prefixlen = 128, .addr = *pod };
	struct xmasq_destination *dest = bpf_map_lookup_elem(&destinations, &prefix);

	return dest && dest->kind == XMASQ_DEST_PEER ? dest->peer : 0;
}

static __noinline bool is_pod(struct xmasq_addr *addr)
{
	return addr && (bpf_map_lookup_elem(&endpoint_by_addr, addr) || peer_of(addr));
}

_Static_assert(offsetof(struct xmasq_flow_key, ifindex) == sizeof(struct xmasq_tuple),
	       "a flow key begins with a tuple");

static __always_inline struct xmasq_tuple *tuple_of(struct xmasq_flow_key *key)
{
	return (struct xmasq_tuple *)key;
}

static __always_inline __u16 zone_of(const struct xmasq_config *cfg, const struct xmasq_flow_key *key)
{
	return addr_is4(&key->saddr) ? cfg->ct_zone4 : cfg->ct_zone6;
}

/* Does the kernel's lookup answer for this flow? Else the sidecar's approvals do. */
static __always_inline bool has_lookup(const struct xmasq_config *cfg, __u8 proto)
{
	return (cfg->flags & XMASQ_CFG_CT_LOOKUP) && (proto == IPPROTO_TCP || proto == IPPROTO_UDP);
}

/* Does Antrea route to the peer's pods of this family? */
static __always_inline bool is_routed(const struct xmasq_peer *peer, bool v4)
{
	return peer->flags & (v4 ? XMASQ_PEER_DIRECT4 : XMASQ_PEER_DIRECT6);
}

/* Is it an answer to a pod of a node that Antrea routes to? */
static __always_inline bool answers_routed(const struct xmasq_config *cfg, const struct xmasq_flow_key *key, __u8 dir)
{
	struct xmasq_peer *peer;
	__u32 id;

	if (!(cfg->flags & XMASQ_CFG_DIRECT) || dir != CT_DIR_REPLY)
		return false;
	id = peer_of(&key->daddr);
	peer = id ? bpf_map_lookup_elem(&peers, &id) : NULL;
	return peer && is_routed(peer, addr_is4(&key->daddr));
}

static __always_inline struct nf_conn *ct_find(struct __sk_buff *skb, const struct xmasq_config *cfg,
					       struct xmasq_flow_key *key, __u8 *dir)
{
	__s32 error;

	return ct_lookup(skb, zone_of(cfg, key), tuple_of(key), key->proto, &error, dir);
}

static __always_inline bool same_tuple(const struct xmasq_tuple *a, const struct xmasq_tuple *b)
{
	return addr_equal(&a->saddr, &b->saddr) && addr_equal(&a->daddr, &b->daddr) && a->sport == b->sport &&
	       a->dport == b->dport;
}

/* The answer of the kernel's lookup, see admits(). */
GLOBAL __u32 ct_admits(struct __sk_buff *skb, const struct xmasq_config *cfg, struct xmasq_flow_key *key, __u32 extend,
		       struct xmasq_tuple *out)
{
	struct nf_conn *ct;
	__u32 reason;
	__u8 dir;

	if (!cfg || !key || !out)
		return XMASQ_REASON_CT_MISSING;
	*out = *tuple_of(key);
	count(XMASQ_COUNTER_CT_LOOKUP);
	ct = ct_find(skb, cfg, key, &dir);
	if (!ct)
		return XMASQ_REASON_CT_MISSING;
	ct_translate(ct, dir, addr_is4(&key->saddr), out);
	reason = ct_verdict(ct, key->proto, answers_routed(cfg, key, dir));
	if (!reason && extend && ct_extend(ct, key->proto, cfg->hz))
		count(XMASQ_COUNTER_CT_EXTENDED);
	bpf_ct_release(ct);
	return reason;
}

/*
 * Does conntrack allow the flow now? `key` as the local pod sends, `out` (set in any case) as the other pod gets it. With
 * `extend`, an allowed entry is kept alive, because the flow's packets pass it by. Returns enum xmasq_reason.
 */
static __always_inline __u32 admits(struct __sk_buff *skb, const struct xmasq_config *cfg, struct xmasq_flow_key *key,
				    __u32 extend, struct xmasq_tuple *out)
{
	if (has_lookup(cfg, key->proto))
		return ct_admits(skb, cfg, key, extend, out);
	*out = *tuple_of(key);
	return approved_until(key) > bpf_ktime_get_coarse_ns() ? XMASQ_REASON_NONE : XMASQ_REASON_NO_APPROVAL;
}

/* When to ask again about a flow that is allowed now: after a while, but not later than its approval ends. */
static __always_inline __u64 ct_recheck_at(struct xmasq_flow_key *key, __u64 now)
{
	__u64 until = approved_until(key), at = now + XMASQ_RECHECK_NS;

	return until > now && until < at ? until : at;
}

/*
 * A RST went past conntrack, which would leave the entry ESTABLISHED: a new connection on the same ports would be taken for
 * the old one and skip policy. So the entry expires at once, as the kernel's own does when a SYN follows its CLOSE state.
 * Flows admitted by an approval have it done by the sidecar. True if an entry was expired.
 */
GLOBAL bool ct_reset(struct __sk_buff *skb, const struct xmasq_config *cfg, struct xmasq_flow_key *key, __u32 peer)
{
	bool killed = false;
	struct xmasq_tuple out;
	struct nf_conn *ct;
	__u8 dir;

	if (!cfg || !key)
		return false;
	if (!(cfg->flags & XMASQ_CFG_CT_LOOKUP)) {
		emit(XMASQ_EVENT_RESET, XMASQ_REASON_CLOSED, key, peer);
		return false;
	}
	ct = ct_find(skb, cfg, key, &dir);
	if (!ct)
		return false;
	ct_translate(ct, dir, addr_is4(&key->saddr), &out);
	if (!ct_verdict(ct, key->proto, answers_routed(cfg, key, dir)) && is_pod(&out.daddr))
		killed = bpf_ct_change_timeout(ct, 0) == 0;
	bpf_ct_release(ct);
	if (killed)
		count(XMASQ_COUNTER_CT_KILLED);
	return killed;
}

/*
 * Would conntrack call a RST with this sequence number invalid, and the slow path drop it? It must not be before the
 * highest acknowledgement seen (nf_conntrack_proto_tcp.c), which is outdated after a fast phase: every other 2 GiB it is.
 */
GLOBAL bool ct_refuses_reset(struct __sk_buff *skb, const struct xmasq_config *cfg, struct xmasq_flow_key *key)
{
	struct nf_conn *ct;
	__u32 maxack;
	__be32 seq;
	__u8 dir;

	if (!cfg || !key ||
	    bpf_skb_load_bytes(skb, L4_OFF(!addr_is4(&key->saddr)) + offsetof(struct tcphdr, seq), &seq, sizeof(seq)))
		return false;
	ct = ct_find(skb, cfg, key, &dir);
	/* Kernels whose lookup takes no zone do not tell: it may be so. */
	if (!ct)
		return !(cfg->flags & XMASQ_CFG_CT_LOOKUP);
	if (dir == CT_DIR_ORIGINAL)
		maxack = ct->proto.tcp.seen[1].td_maxack;
	else
		maxack = ct->proto.tcp.seen[0].td_maxack;
	bpf_ct_release(ct);
	return (__s32)(bpf_ntohl(seq) - maxack) < 0;
}

/*
 * Conntrack holds a connection for established that is not. For a RST that it has let pass: after a fast phase it does not
 * find the number that it expects, and waits 10 s for an answer. For a SYN: it would pass for a part of the connection. In
 * either case a new connection on the same ports would skip policy, so the old one expires. `known`: the flow was
 * admitted; of others the sidecar is told if their approval is left.
 */
static __noinline void ct_forget(struct __sk_buff *skb, const struct xmasq_config *cfg, struct xmasq_flow_key *key,
				 bool known)
{
	if (cfg && key && (known || (cfg->flags & XMASQ_CFG_CT_LOOKUP) || approved_until(key)))
		ct_reset(skb, cfg, key, 0);
}

/*
 * The same for a SYN where approvals answer: it must not be judged before the sidecar has ended the entry of the connection
 * whose approval is left. True: drop it, as the next one comes a second later. One at most, should nobody listen.
 */
static __noinline bool ct_outlives(struct __sk_buff *skb, const struct xmasq_config *cfg, struct xmasq_flow_key *key,
				   __u32 peer)
{
	if (!cfg || !key || (cfg->flags & XMASQ_CFG_CT_LOOKUP) || !approved_until(key))
		return false;
	ct_reset(skb, cfg, key, peer);
	delete_approval(key);
	return true;
}
