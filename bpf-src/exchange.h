/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Reading keys that peers announce, and noting how the slow path delivers. */
#pragma once

#include "flow.h"

/*
 * Reads what an announcing packet says about the flow and its sender. `macs` (destination, source), `ttl`: as the slow path
 * delivers it.
 */
static __noinline void learn_key(struct packet *p, const __u8 *macs, __u32 ttl, struct xmasq_flow *f)
{
	__u64 now = bpf_ktime_get_coarse_ns();

	struct xmasq_slot_key sk;
	struct xmasq_path *path;
	struct xmasq_slot *s;
	__u8 announced;
	bool is_new;

	if (!p || !macs || !f)
		return;
	announced = p->id >> ID_KEY_SHIFT;

	/*
	 * A node that has lost its programs without a word sends IDs that count up through all values. Announcing ones have a
	 * count of 0 (the first segment), and of a peer that was heard before a key is a sign of life only if it is announced
	 * again: such IDs never do that.
	 */
	if ((p->id & ID_COUNT_MASK) || announced == XMASQ_PROBE_KEY)
		return;
	is_new = !(f->flags & XMASQ_FLOW_HAVE_KEY) || f->peer_key != announced;
	if (!is_new || !peer_known(f->peer))
		peer_lives(f->peer, now, p->id & ID_FLAG);
	if (now < f->reject_until && announced == f->reject_key)
		return;
	count(XMASQ_COUNTER_KEY_LEARNED);
	slot_key_of_flow(f, &sk);
	s = bpf_map_lookup_elem(&slots, &sk);
	if (!s || s->gen != f->slot_gen || s->state != XMASQ_SLOT_ACTIVE)
		return;
	/* Whoever announces means its present header, see pod_egress: so every announcement counts. */
	if (!(s->flags & XMASQ_SLOT_COMPLETE) || s->ttl != ttl || s->tos != (p->tos & ~TOS_ECN)) {
		if (!slot_try_lock(s))
			return;
		__builtin_memcpy(s->dmac, macs, 6);
		__builtin_memcpy(s->smac, macs + 6, 6);
		s->ttl = ttl;
		s->tos = p->tos & ~TOS_ECN;
		s->ip_sum = bpf_htons(0x4500 | s->tos) + bpf_htons((__u16)ttl << 8 | p->proto) +
			    addr_words4(&s->saddr) + addr_words4(&s->daddr);
		barrier();
		s->flags |= XMASQ_SLOT_COMPLETE;
		slot_unlock(s);
	}
	if (is_new) {
		f->peer_key = announced;
		f->fast_since = 0;
		f->verify_at = 0;
		__sync_fetch_and_or(&f->flags, XMASQ_FLOW_HAVE_KEY);
	}
	if (p->id & ID_FLAG) {
		if (flow_is_slow(f))
			f->verify_at = 0;
		__sync_fetch_and_or(&f->flags, XMASQ_FLOW_PEER_COMPLETE);
	} else if ((f->flags & XMASQ_FLOW_PEER_COMPLETE) && slot_try_lock(s)) {
		__sync_fetch_and_and(&f->flags, ~XMASQ_FLOW_PEER_COMPLETE);
		/*
		 * It hears us no more, or it would still send fast: what we have sent masqueraded may be lost. If we have sent
		 * nothing for so long, there was nothing to hear.
		 */
		if (!is_new && f->fast_since && now - f->fast_since > XMASQ_SILENCE_NS &&
		    now - f->last_tx < XMASQ_SEND_LIFE_NS) {
			path = path_of(f);
			if (path)
				path_failed(path, now);
		}
		/* The announcement may be a late one: if so, the peer's next masqueraded packet says it. */
		s->flags &= ~XMASQ_SLOT_PEER_FAST;
		slot_unlock(s);
	}
}

/*
 * The slow path delivers a packet of a pod of another node: so the fast path has to deliver those that come in a tunnel or
 * routed. `macs`: destination, source.
 */
static __always_inline void note_delivered(struct xmasq_flow *f, const __u8 *macs, __u8 ttl)
{
	__u8 lowered = f->rx_wire_ttl - ttl;

	if (f->flags & XMASQ_FLOW_RX_LEARNED) {
		if (mac_equal(f->rx_dmac, macs) && mac_equal(f->rx_smac, macs + 6))
			return;
		/* Other addresses than before: all is learned anew, from the next packet on. */
		__sync_fetch_and_and(&f->flags, ~XMASQ_FLOW_RX_LEARNED);
		f->rx_wire_ttl = 0;
		return;
	}
	if (!f->rx_wire_ttl || lowered > 3)
		return;
	__builtin_memcpy(f->rx_dmac, macs, 6);
	__builtin_memcpy(f->rx_smac, macs + 6, 6);
	f->rx_ttl = lowered;
	barrier();
	__sync_fetch_and_or(&f->flags, XMASQ_FLOW_RX_LEARNED);
}
