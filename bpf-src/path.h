/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Does the underlay carry masqueraded packets to a peer? A firewall between the nodes may not. Probes ask: masqueraded packets
 * with a key that nobody has, answered by a control message. Lost traffic answers, too (black holes, see flow.h).
 */
#pragma once

#include <linux/bpf.h>
#include <linux/in.h>
#include <bpf/bpf_helpers.h>

#include "maps.h"
#include "packet.h"
#include "xmasq.h"

/* What kind of packet with our magic it is: what its first word differs by from the magic's. Pairs of words are read at once. */
#define KIND_OWN 0UL              /* a pod's, as it shall leave */
#define KIND_ACK 0xffffffffUL     /* a copy to become an acknowledgement */
#define KIND_PROBE 0xffffUL       /* a copy to become a probe */
#define KIND_CONTROL 0xffff0000UL /* a control message */

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ && offsetof(struct xmasq_config, magic) % 8 == 0,
	       "the first of two words is the lower half");

static __always_inline __u64 magic_pair(const struct xmasq_config *cfg, int i)
{
	const void *magic = cfg->magic; /* or the compiler would know of four bytes' alignment only */

	return ((const __u64 *)magic)[i];
}

/* On its way to uplink_egress. */
static __always_inline void set_magic(struct __sk_buff *skb, const struct xmasq_config *cfg, __u64 kind)
{
	STORE_CB(skb, 0, magic_pair(cfg, 0) ^ kind);
	STORE_CB(skb, 1, magic_pair(cfg, 1));
}

static __always_inline void wipe_magic(struct __sk_buff *skb)
{
	STORE_CB(skb, 0, 0UL);
	STORE_CB(skb, 1, 0UL);
}

#define NO_MAGIC (-1UL)

/* The packet's kind; NO_MAGIC: it has none. */
static __always_inline __u64 magic_kind(const struct __sk_buff *skb, const struct xmasq_config *cfg)
{
	__u64 first = LOAD_CB(skb, 0) ^ magic_pair(cfg, 0);

	return first >> 32 || LOAD_CB(skb, 1) != magic_pair(cfg, 1) ? NO_MAGIC : first;
}

static __always_inline struct xmasq_path *find_path(__u32 peer, bool v6, __u8 proto)
{
	__u32 class = proto == IPPROTO_TCP ? XMASQ_PATH_TCP : proto == IPPROTO_UDP ? XMASQ_PATH_UDP : XMASQ_PATH_OTHER;
	__u32 index = (peer * 2 + v6) * XMASQ_PATH_CLASSES + class;

	return bpf_map_lookup_elem(&paths, &index);
}

static __always_inline struct xmasq_path *path_of(const struct xmasq_flow *f)
{
	return find_path(f->peer, !addr_is4(&f->node_daddr), f->proto);
}

GLOBAL bool path_change(struct xmasq_path *path, struct xmasq_flow_key *key, __u32 peer, __u32 reason, __u64 now)
{
	if (!path || !key)
		return false;
	path->masquerade = !reason;
	path->changed_at = now;
	path->changes++;
	count(XMASQ_COUNTER_PATH_CHANGED);
	return emit(XMASQ_EVENT_PATH_CHANGED, reason, key, peer);
}

/*
 * Has an answer proved that masqueraded packets arrive? Adapts path->masquerade, which changes at most once in
 * XMASQ_MODE_HOLD_NS; and for so long nobody tries again where packets were lost: no path flaps.
 */
static __always_inline bool path_usable(struct xmasq_path *path, struct xmasq_flow_key *key, __u32 peer, __u64 now)
{
	/* The clock is coarse: an answer comes in the same tick as the question. */
	bool answered = path->proven_at && path->proven_at >= path->hole_at;
	bool proven = answered && now - path->proven_at < XMASQ_PROVEN_NS &&
		      (!path->hole_at || now - path->hole_at >= XMASQ_MODE_HOLD_NS);
	__u32 reason = XMASQ_REASON_NONE;

	if (!proven)
		reason = answered ? XMASQ_REASON_UNPROVEN : XMASQ_REASON_BLACK_HOLE;
	if (proven == !path->masquerade && (!path->changed_at || now - path->changed_at >= XMASQ_MODE_HOLD_NS))
		path_change(path, key, peer, reason, now);
	return proven && path->masquerade;
}

/* A flow's masqueraded packets were lost. Others need not find out for themselves. */
static __always_inline void path_failed(struct xmasq_path *path, __u64 now)
{
	path->hole_at = now;
	path->probe_at = now;
	path->probe_wait = 0;
	path->awaited = 0;
}

/* Sends a probe if it is time: a copy of the flow's packet, which uplink_egress turns into one. */
static __always_inline void probe(struct __sk_buff *skb, const struct xmasq_config *cfg, const struct xmasq_flow *f,
				  struct xmasq_path *path, __u64 now)
{
	const __u32 ready = XMASQ_FLOW_HAVE_KEY | XMASQ_FLOW_PEER_COMPLETE;

	/* The peer has heard of us, or it would take the probe for a packet of the node's. */
	if (now < path->probe_at || (f->flags & ready) != ready)
		return;
	path->probe_wait = path->probe_wait ? path->probe_wait * 2 : XMASQ_PROBE_MIN_NS;
	if (path->probe_wait > XMASQ_PROBE_MAX_NS)
		path->probe_wait = XMASQ_PROBE_MAX_NS;
	path->probe_at = now + path->probe_wait;
	path->probes++;
	path->awaited = (bpf_get_prandom_u32() & ID_COUNT_MASK) + 1;
	set_magic(skb, cfg, KIND_PROBE);
	if (bpf_clone_redirect(skb, f->out_ifindex, 0) == 0)
		count(XMASQ_COUNTER_PROBE_SENT);
	wipe_magic(skb);
}

/* What a probe has in its ID. Its number is in the count, which nobody needs: it has no segments. */
static __always_inline __u16 probe_id(const struct xmasq_path *path)
{
	return ID_MARKER | XMASQ_PROBE_KEY << ID_KEY_SHIFT | ((path->awaited - 1) & ID_COUNT_MASK);
}

/*
 * The peer says that probe `number` has arrived. Believed of the one sent last only, soon and once: an old answer says
 * nothing of the path as it is now, and who guesses has one try.
 */
static __always_inline bool path_answered(struct xmasq_path *path, __u8 number, __u64 now)
{
	__u32 awaited = path->awaited;

	path->awaited = 0;
	if (number != awaited - 1 || now - (path->probe_at - path->probe_wait) > XMASQ_ANSWER_NS)
		return false;
	path->proven_at = now;
	path->answers++;
	path->probe_wait = 0;
	path->probe_at = now + XMASQ_REPROBE_NS;
	return true;
}
