/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The kernel's conntrack, read from a program: lookup in a zone, Antrea's verdict in the entry, its timeout.
 *
 * Kernel sources meant below: net/netfilter/nf_conntrack_bpf.c, include/net/netfilter/nf_conntrack.h (6.1 to 6.18).
 */
#pragma once

#include <linux/bpf.h>
#include <linux/in.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "addr.h"
#include "xmasq.h"

/* Antrea's connection mark: pkg/agent/openflow/fields.go. */
#define CT_MARK_SOURCE 0x0f /* 0 = committed, but not allowed (yet) */
#define CT_MARK_SOURCE_TUNNEL 0x01
#define CT_MARK_SOURCE_GATEWAY 0x02
#define CT_MARK_SOURCE_POD 0x03
#define CT_MARK_SERVICE 0x10
#define CT_MARK_SNAT 0x20
#define CT_MARK_HAIRPIN 0x40
#define CT_MARK_L7 0x80

/* enum ip_conntrack_status, include/uapi/linux/netfilter/nf_conntrack_common.h */
#define CT_SEEN_REPLY (1 << 1)
#define CT_ASSURED (1 << 2)
#define CT_CONFIRMED (1 << 3)
#define CT_SRC_NAT (1 << 4)
#define CT_DST_NAT (1 << 5)
#define CT_SEQ_ADJUST (1 << 6)
#define CT_DYING (1 << 9)
#define CT_TEMPLATE (1 << 11)
#define CT_NAT_CLASH (1 << 12)
#define CT_HELPER (1 << 13)
#define CT_OFFLOAD (1 << 14)
#define CT_FORBIDDEN (CT_SRC_NAT | CT_SEQ_ADJUST | CT_DYING | CT_TEMPLATE | CT_NAT_CLASH | CT_HELPER | CT_OFFLOAD)

#define CT_TCP_ESTABLISHED 3 /* enum tcp_conntrack */
#define CT_UDP_STREAM 1      /* enum udp_conntrack: replied */

/* The parts of kernel types that are read; offsets come from the running kernel (CO-RE). */
struct nf_tcp_net {
	unsigned int timeouts[14];
} __attribute__((preserve_access_index));

struct nf_udp_net {
	unsigned int timeouts[2];
} __attribute__((preserve_access_index));

struct nf_ip_net {
	struct nf_tcp_net tcp;
	struct nf_udp_net udp;
} __attribute__((preserve_access_index));

struct netns_ct {
	struct nf_ip_net nf_ct_proto;
} __attribute__((preserve_access_index));

struct net {
	struct netns_ct ct;
} __attribute__((preserve_access_index));

typedef struct {
	struct net *net;
} possible_net_t;

struct ip_ct_tcp_state {
	__u32 td_maxack;
} __attribute__((preserve_access_index));

struct ip_ct_tcp {
	struct ip_ct_tcp_state seen[2]; /* by direction */
	__u8 state;
} __attribute__((preserve_access_index));

union nf_conntrack_proto {
	struct ip_ct_tcp tcp;
} __attribute__((preserve_access_index));

union nf_inet_addr {
	__be32 all[4]; /* IPv4: the first, the others are zero */
} __attribute__((preserve_access_index));

union nf_conntrack_man_proto {
	__be16 all;
} __attribute__((preserve_access_index));

struct nf_conntrack_man {
	union nf_inet_addr u3;
	union nf_conntrack_man_proto u;
} __attribute__((preserve_access_index));

struct nf_conntrack_tuple {
	struct nf_conntrack_man src;
	struct {
		union nf_inet_addr u3;
		union {
			__be16 all;
		} u;
	} dst;
} __attribute__((preserve_access_index));

struct nf_conntrack_tuple_hash {
	struct nf_conntrack_tuple tuple;
} __attribute__((preserve_access_index));

struct nf_conn {
	__u32 timeout;                               /* low 32 bits of jiffies */
	struct nf_conntrack_tuple_hash tuplehash[2]; /* by direction */
	unsigned long status;
	possible_net_t ct_net;
	__u32 mark;
	union nf_conntrack_proto proto;
} __attribute__((preserve_access_index));

/* The 16-byte form, which has the zone, exists since 6.11; older kernels answer it with -EINVAL. */
struct bpf_ct_opts___xmasq {
	__s32 netns_id;
	__s32 error;
	__u8 l4proto;
	__u8 dir;
	__u16 ct_zone_id;
	__u8 ct_zone_dir;
	__u8 reserved[3];
};

#define CT_DIR_ORIGINAL 0 /* enum ip_conntrack_dir */
#define CT_DIR_REPLY 1
#define CT_NETNS_CURRENT (-1)
#define CT_ZONE_DIR_BOTH 3

/* Kernels before 6.0 lack the functions below: the sidecar then clears this before loading, and no call is left. */
const volatile __u8 have_ct_kfuncs = 1;

struct nf_conn *bpf_skb_ct_lookup(struct __sk_buff *skb, struct bpf_sock_tuple *tuple, __u32 tuple_len,
				  struct bpf_ct_opts___xmasq *opts, __u32 opts_len) __ksym __weak;
void bpf_ct_release(struct nf_conn *ct) __ksym __weak;
int bpf_ct_change_timeout(struct nf_conn *ct, __u32 timeout_ms) __ksym __weak;

/*
 * Looks up the connection that a TCP or UDP packet with these addresses belongs to; `dir` is the packet's direction. Each
 * family has a call of its own, because the verifier wants to know the size.
 */
static __always_inline struct nf_conn *ct_lookup(struct __sk_buff *skb, __u16 zone, const struct xmasq_tuple *t,
						 __u8 proto, __s32 *error, __u8 *dir)
{
	struct bpf_sock_tuple tuple = {};
	struct bpf_ct_opts___xmasq opts = {
		.netns_id = CT_NETNS_CURRENT,
		.l4proto = proto,
		.ct_zone_id = zone,
		.ct_zone_dir = CT_ZONE_DIR_BOTH,
	};
	struct nf_conn *ct;

	*error = -1;
	if (!have_ct_kfuncs)
		return NULL;
	if (addr_is4(&t->saddr)) {
		tuple.ipv4.saddr = t->saddr.word[3];
		tuple.ipv4.daddr = t->daddr.word[3];
		tuple.ipv4.sport = t->sport;
		tuple.ipv4.dport = t->dport;
		ct = bpf_skb_ct_lookup(skb, &tuple, sizeof(tuple.ipv4), &opts, sizeof(opts));
	} else {
		__builtin_memcpy(tuple.ipv6.saddr, &t->saddr, sizeof(t->saddr));
		__builtin_memcpy(tuple.ipv6.daddr, &t->daddr, sizeof(t->daddr));
		tuple.ipv6.sport = t->sport;
		tuple.ipv6.dport = t->dport;
		ct = bpf_skb_ct_lookup(skb, &tuple, sizeof(tuple.ipv6), &opts, sizeof(opts));
	}
	*error = opts.error;
	*dir = opts.dir;
	return ct;
}

/*
 * The mark's source nibble is Antrea's own "policy allowed this" flag (docs/design/ovs-pipeline.md); docs/design.md lists the
 * whole predicate. `routed`: the local pod answers a pod of a node that Antrea routes to, whose packets come by the gateway.
 */
static __always_inline __u32 ct_verdict(struct nf_conn *ct, __u8 proto, bool routed)
{
	unsigned long status = ct->status;
	__u32 mark = ct->mark;
	__u32 source = mark & CT_MARK_SOURCE;

	if (!(status & CT_CONFIRMED))
		return XMASQ_REASON_CT_UNCONFIRMED;
	if (status & CT_FORBIDDEN)
		return XMASQ_REASON_CT_STATUS;
	if (!(status & CT_SEEN_REPLY))
		return XMASQ_REASON_CT_UNREPLIED;
	if (!source)
		return XMASQ_REASON_CT_NOT_ALLOWED;
	if (mark & CT_MARK_SNAT)
		return XMASQ_REASON_CT_SNAT;
	if (mark & CT_MARK_HAIRPIN)
		return XMASQ_REASON_CT_HAIRPIN;
	if (mark & CT_MARK_L7)
		return XMASQ_REASON_CT_L7;
	/* A Service's connection is translated where it begins; one that came so is DSR's or another cluster's. */
	if (!(mark & CT_MARK_SERVICE) != !(status & CT_DST_NAT) ||
	    ((mark & CT_MARK_SERVICE) && source != CT_MARK_SOURCE_POD))
		return XMASQ_REASON_CT_SERVICE;
	if (source != CT_MARK_SOURCE_TUNNEL && source != CT_MARK_SOURCE_POD &&
	    !(source == CT_MARK_SOURCE_GATEWAY && routed))
		return XMASQ_REASON_CT_SOURCE;
	if (proto == IPPROTO_TCP ? ct->proto.tcp.state != CT_TCP_ESTABLISHED : !(status & CT_ASSURED))
		return XMASQ_REASON_CT_STATE;
	return XMASQ_REASON_NONE;
}

/* An address of conntrack's; `v4`: its family. */
static __always_inline void ct_addr(struct xmasq_addr *to, const union nf_inet_addr *from, bool v4)
{
	if (v4) {
		addr_set4(to, from->all[0]);
		return;
	}
	to->word[0] = from->all[0];
	to->word[1] = from->all[1];
	to->word[2] = from->all[2];
	to->word[3] = from->all[3];
}

/* What a packet of this direction becomes: the reverse of the entry's other tuple. `v4`: the family of both. */
static __always_inline void ct_translate(struct nf_conn *ct, __u8 dir, bool v4, struct xmasq_tuple *out)
{
	if (dir == CT_DIR_ORIGINAL) {
		ct_addr(&out->saddr, &ct->tuplehash[1].tuple.dst.u3, v4);
		ct_addr(&out->daddr, &ct->tuplehash[1].tuple.src.u3, v4);
		out->sport = ct->tuplehash[1].tuple.dst.u.all;
		out->dport = ct->tuplehash[1].tuple.src.u.all;
	} else {
		ct_addr(&out->saddr, &ct->tuplehash[0].tuple.dst.u3, v4);
		ct_addr(&out->daddr, &ct->tuplehash[0].tuple.src.u3, v4);
		out->sport = ct->tuplehash[0].tuple.dst.u.all;
		out->dport = ct->tuplehash[0].tuple.src.u.all;
	}
}

/*
 * Sets the entry's timeout to what the kernel would have set, had it seen the packets: the namespace's own sysctl for the
 * state. Never shortens. True if it was set. Both are in jiffies; the kfunc takes milliseconds and caps at INT_MAX jiffies.
 */
static __always_inline bool ct_extend(struct nf_conn *ct, __u8 proto, __u32 hz)
{
	__u32 target, left;
	__u64 ms;

	if (!hz)
		return false;
	if (proto == IPPROTO_TCP)
		target = ct->ct_net.net->ct.nf_ct_proto.tcp.timeouts[CT_TCP_ESTABLISHED];
	else
		target = ct->ct_net.net->ct.nf_ct_proto.udp.timeouts[CT_UDP_STREAM];
	left = ct->timeout - (__u32)bpf_jiffies64();
	/* Half a second of difference is not worth a write: the next recheck comes before. */
	if (!target || target > 0x7fffffff || (left < 0x80000000 && left + hz / 2 >= target))
		return false;
	ms = (__u64)target * 1000 / hz;
	return bpf_ct_change_timeout(ct, ms > 0x7fffffff ? 0x7fffffff : ms) == 0;
}
