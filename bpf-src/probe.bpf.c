// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* What this kernel can do, asked by running it (BPF_PROG_TEST_RUN) rather than by its version. */
#include <stdbool.h>
#include <stddef.h>

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "conntrack.h"

/*
 * 1 = the conntrack lookup takes a zone (since 6.11), 0 = it does not. The entry asked for does not exist: a kernel that
 * knows the option says so (-ENOENT), another one refuses the size of the options (-EINVAL).
 */
SEC("tc")
int probe_zone(struct __sk_buff *skb)
{
	struct xmasq_tuple t = { .sport = bpf_htons(1), .dport = bpf_htons(2) };
	struct nf_conn *ct;
	__u8 dir;
	__s32 error = 0;

	addr_set4(&t.saddr, bpf_htonl(0xcb007101));
	addr_set4(&t.daddr, bpf_htonl(0xcb007102));
	ct = ct_lookup(skb, 65520, &t, IPPROTO_UDP, &error, &dir);
	if (ct) {
		bpf_ct_release(ct);
		return 1;
	}
	return error == -2 /* -ENOENT */;
}

/* The low 31 bits of jiffies: two readings tell how many there are in a second. */
SEC("tc")
int probe_jiffies(struct __sk_buff *skb __attribute__((unused)))
{
	return bpf_jiffies64() & 0x7fffffff;
}

char LICENSE[] SEC("license")
= "Dual BSD/GPL";
