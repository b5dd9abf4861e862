// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Gives a program of the data plane packets of many flows in turn, within one BPF_PROG_TEST_RUN: each repetition writes the
 * next flow's headers into the packet and goes on to the program. The numbers of a flow are those of flows.ts.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define HEADERS (ETH_HLEN + sizeof(struct iphdr) + sizeof(struct tcphdr))

/* A prime, greater than any number of flows: flows come in an order that no cache can foresee, each once in a round. */
#define STRIDE 2654435761ULL

/* As in flows.ts; numbers in host byte order but for those of the headers. */
struct drive {
	__u32 next;    /* packet */
	__u32 rotated; /* flows in turn, */
	__u32 step;    /* so far apart */
	__u32 peers;
	__u32 first_peer; /* address of peer 0 (pod_egress: of a pod on it), */
	__u32 peer_step;  /* and how far the next one's is from it */
	__u32 first_sport;
	__u32 first_dport;
	__u32 sports;   /* local ports of the flows with one peer, before the remote port changes */
	__u32 incoming; /* 1: the packet comes from the peer */
	__u32 target;   /* enum target */
	__u8 headers[HEADERS];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct drive);
} drives SEC(".maps");

/* enum target: 0 nothing, to see what driving costs; 1 the program under test. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u32);
} targets SEC(".maps");

SEC("tc")
int nothing(struct __sk_buff *skb)
{
	return TC_ACT_UNSPEC;
}

SEC("tc")
int drive(struct __sk_buff *skb)
{
	void *data, *end;
	struct drive *d;
	struct tcphdr *tcp;
	struct iphdr *ip;
	__u32 zero = 0, flow, peer, of_peer, local, remote;
	__be32 addr;

	d = bpf_map_lookup_elem(&drives, &zero);
	if (!d || !d->rotated || !d->peers || !d->sports)
		return TC_ACT_SHOT;
	flow = (d->next++ * STRIDE) % d->rotated * d->step;
	peer = flow % d->peers;
	of_peer = flow / d->peers;
	local = d->first_sport + of_peer % d->sports;
	remote = d->first_dport + of_peer / d->sports;
	addr = bpf_htonl(d->first_peer + peer * d->peer_step);

	data = (void *)(long)skb->data;
	end = (void *)(long)skb->data_end;
	if (data + HEADERS > end)
		return TC_ACT_SHOT;
	__builtin_memcpy(data, d->headers, HEADERS);
	ip = data + ETH_HLEN;
	tcp = (void *)(ip + 1);
	if (d->incoming) {
		ip->saddr = addr;
		tcp->source = bpf_htons(remote);
		tcp->dest = bpf_htons(local);
	} else {
		ip->daddr = addr;
		tcp->source = bpf_htons(local);
		tcp->dest = bpf_htons(remote);
	}
	bpf_tail_call(skb, &targets, d->target);
	return TC_ACT_SHOT;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
