/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The maps of the data plane. All are pinned by the sidecar; sizes marked (*) are set by it before loading. */
#pragma once

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "verifier.h"
#include "xmasq.h"

/* What the sidecar tells the programs. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct xmasq_config);
} config SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, XMASQ_MAX_ENDPOINTS);
	__type(key, __u32);
	__type(value, struct xmasq_endpoint);
} endpoints SEC(".maps");

/* ifindex of a host-side veth -> endpoint id */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, XMASQ_MAX_ENDPOINTS);
	__type(key, __u32);
	__type(value, __u32);
} endpoint_by_ifindex SEC(".maps");

/* pod address -> endpoint id; a pod may have one of each family */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, XMASQ_MAX_ENDPOINTS * 2);
	__type(key, struct xmasq_addr);
	__type(value, __u32);
} endpoint_by_addr SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, XMASQ_MAX_PEERS);
	__type(key, __u32);
	__type(value, struct xmasq_peer);
} peers SEC(".maps");

/* transport address -> peer id; likewise */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, XMASQ_MAX_PEERS * 2);
	__type(key, struct xmasq_addr);
	__type(value, __u32);
} peer_by_addr SEC(".maps");

/* pod CIDR -> peer id; gateway addresses inside map to nothing */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, XMASQ_MAX_PEERS * 4);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct xmasq_prefix);
	__type(value, struct xmasq_destination);
} destinations SEC(".maps");

/* (*) The sidecar's admissions, for what the kernel's lookup cannot answer. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, XMASQ_MAX_APPROVALS);
	__type(key, struct xmasq_flow_key);
	__type(value, struct xmasq_approval);
} approvals SEC(".maps");

/* What the programs know of each peer. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, XMASQ_MAX_PEERS);
	__type(key, __u32);
	__type(value, struct xmasq_peer_state);
} peer_state SEC(".maps");

/* Ways to peers. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, XMASQ_MAX_PEERS * 2 * XMASQ_PATH_CLASSES);
	__type(key, __u32);
	__type(value, struct xmasq_path);
} paths SEC(".maps");

/* (*) Admitted flows, by what the local pod sends. Not evicted: when full, new flows stay slow. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, XMASQ_MAX_FLOWS);
	__type(key, struct xmasq_flow_key);
	__type(value, struct xmasq_flow);
} flows SEC(".maps");

/*
 * (*) Flows of Services with pods of other nodes, by what the pod's packets are for the other pod (struct xmasq_flow's out,
 * and the veth). Only to find them by: what is evicted here is received slowly.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, XMASQ_MAX_FLOWS);
	__type(key, struct xmasq_flow_key);
	__type(value, struct xmasq_flow_key);
} translated SEC(".maps");

/* (*) Restore slots, by what a masqueraded packet looks like on the underlay. Not evicted either. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, XMASQ_MAX_SLOTS);
	__type(key, struct xmasq_slot_key);
	__type(value, struct xmasq_slot);
} slots SEC(".maps");

/* (*) Flows that were refused, so that they do not pay for a lookup with every packet. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, XMASQ_MAX_REFUSALS);
	__type(key, struct xmasq_flow_key);
	__type(value, struct xmasq_refusal);
} refusals SEC(".maps");

/*
 * Of connections that peers have announced a key for while they were young here: a number made of their addresses and ports, at
 * an index made of their ports. A collision makes a connection be admitted sooner or later than it should, no more.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, XMASQ_MAX_AWAITED);
	__type(key, __u32);
	__type(value, __u32);
} awaited SEC(".maps");

/* Index: enum xmasq_counter. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, XMASQ_COUNTER_COUNT);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

/* Packets left to the slow path. Index: enum xmasq_reason. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, XMASQ_REASON_COUNT);
	__type(key, __u32);
	__type(value, __u64);
} reasons SEC(".maps");

/* struct xmasq_event records */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 * 1024);
} events SEC(".maps");

/* What is done to a received packet that was not masqueraded, read from its flow in one go. */
struct xmasq_delivery {
	struct xmasq_addr saddr; /* what the pod takes the sender for */
	__be16 sport;
	__u8 macs[12]; /* destination, source */
	__u8 ttl;
	__u8 tos;
	__u8 key_read; /* the ID was an announcement, or could be read as one: it does not reach the pod */
	__u8 pad[3];
	__u32 ifindex;
};

/* What does not fit on a program's stack is built here. */
struct xmasq_scratch {
	struct xmasq_flow flow;
	struct xmasq_slot slot;
	struct xmasq_delivery delivery;
	__u8 header[XMASQ_MAX_ENCAP + 2]; /* of a tunnel, on its way to the packet */
	/* Never read: types that nothing names are left out of the BTF, and the sidecar's names come from there. */
	struct xmasq_named {
		enum xmasq_config_flag config_flag;
		enum xmasq_endpoint_flag endpoint_flag;
		enum xmasq_peer_flag peer_flag;
		enum xmasq_dest_kind dest_kind;
		enum xmasq_flow_flag flow_flag;
		enum xmasq_slot_state slot_state;
		enum xmasq_slot_flag slot_flag;
		enum xmasq_reason reason;
		enum xmasq_counter counter;
		enum xmasq_event_type event_type;
		enum xmasq_path_class path_class;
		enum xmasq_mode mode;
		struct xmasq_event event;
	} named;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct xmasq_scratch);
} scratch SEC(".maps");

static __always_inline const struct xmasq_config *get_config(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&config, &zero);
}

static __always_inline void count(enum xmasq_counter which)
{
	__u32 key = which;
	__u64 *value = bpf_map_lookup_elem(&counters, &key);

	if (value)
		*value += 1;
}

static __always_inline void count_reason(__u32 reason)
{
	__u64 *value = bpf_map_lookup_elem(&reasons, &reason);

	if (value)
		*value += 1;
}

/* A full ring buffer loses the event, never the packet; the sidecar sees it in the counter. False: it was lost. */
GLOBAL bool emit(__u32 type, __u32 reason, const struct xmasq_flow_key *flow, __u32 peer)
{
	struct xmasq_event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);

	if (!e) {
		count(XMASQ_COUNTER_EVENT_LOST);
		return false;
	}
	e->time = bpf_ktime_get_coarse_ns();
	e->type = type;
	e->reason = reason;
	if (flow)
		e->flow = *flow;
	else
		__builtin_memset(&e->flow, 0, sizeof(e->flow));
	e->peer = peer;
	bpf_ringbuf_submit(e, 0);
	return true;
}

static __noinline struct xmasq_flow *find_flow(const struct xmasq_flow_key *key)
{
	struct xmasq_flow_key copy = *key;

	return bpf_map_lookup_elem(&flows, &copy);
}

static __noinline void delete_flow(const struct xmasq_flow_key *key)
{
	struct xmasq_flow_key copy = *key;

	bpf_map_delete_elem(&flows, &copy);
}

static __noinline struct xmasq_refusal *find_refusal(const struct xmasq_flow_key *key)
{
	struct xmasq_flow_key copy = *key;

	return bpf_map_lookup_elem(&refusals, &copy);
}

static __noinline void add_refusal(const struct xmasq_flow_key *key, const struct xmasq_refusal *r)
{
	struct xmasq_flow_key copy = *key;

	bpf_map_update_elem(&refusals, &copy, r, BPF_ANY);
}

/* When the flow's approval ends; 0: it has none. */
static __noinline __u64 approved_until(const struct xmasq_flow_key *key)
{
	struct xmasq_flow_key copy = *key;
	struct xmasq_approval *a = bpf_map_lookup_elem(&approvals, &copy);

	return a ? a->expires : 0;
}

static __noinline void delete_approval(const struct xmasq_flow_key *key)
{
	struct xmasq_flow_key copy = *key;

	bpf_map_delete_elem(&approvals, &copy);
}
