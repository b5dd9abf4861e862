/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Addresses of both families in one form: see struct xmasq_addr. */
#pragma once

#include <linux/bpf.h>
#include <linux/in6.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "xmasq.h"

static __always_inline void addr_set4(struct xmasq_addr *a, __be32 addr)
{
	a->word[0] = a->word[1] = 0;
	a->word[2] = bpf_htonl(0xffff);
	a->word[3] = addr;
}

static __always_inline void addr_set6(struct xmasq_addr *a, const struct in6_addr *addr)
{
	a->word[0] = addr->in6_u.u6_addr32[0];
	a->word[1] = addr->in6_u.u6_addr32[1];
	a->word[2] = addr->in6_u.u6_addr32[2];
	a->word[3] = addr->in6_u.u6_addr32[3];
}

static __always_inline void addr_get6(struct in6_addr *to, const struct xmasq_addr *a)
{
	to->in6_u.u6_addr32[0] = a->word[0];
	to->in6_u.u6_addr32[1] = a->word[1];
	to->in6_u.u6_addr32[2] = a->word[2];
	to->in6_u.u6_addr32[3] = a->word[3];
}

static __always_inline bool addr_is4(const struct xmasq_addr *a)
{
	return !(a->word[0] | a->word[1] | (a->word[2] ^ bpf_htonl(0xffff)));
}

/* The sum of the two 16-bit words of an IPv4 address. */
static __always_inline __u32 addr_words4(const struct xmasq_addr *a)
{
	return (a->word[3] & 0xffff) + (a->word[3] >> 16);
}

static __always_inline bool addr_is_none(const struct xmasq_addr *a)
{
	return !(a->word[0] | a->word[1] | a->word[2] | a->word[3]);
}

static __always_inline bool addr_equal(const struct xmasq_addr *a, const struct xmasq_addr *b)
{
	return !((a->word[0] ^ b->word[0]) | (a->word[1] ^ b->word[1]) | (a->word[2] ^ b->word[2]) |
		 (a->word[3] ^ b->word[3]));
}
