// SPDX-License-Identifier: Apache-2.0
/* Somebody else's tc program, which ends the chain: programs after it do not run. */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

SEC("tc")
int foreign_ok(struct __sk_buff *skb __attribute__((unused)))
{
	return TC_ACT_OK;
}

char LICENSE[] SEC("license")
= "GPL";
