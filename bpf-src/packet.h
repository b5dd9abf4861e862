/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Reading and rewriting of IPv4 and IPv6 packets in an skb. `v6` is a constant wherever it is a parameter. */
#pragma once

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "addr.h"
#include "verifier.h"
#include "xmasq.h"

/* Let the next program or the stack decide: TCX_NEXT and TC_ACT_UNSPEC are the same number. */
#define PASS (-1)
#define DROP TC_ACT_SHOT

/* Not a verdict: what is quick does not do for the packet, or for its flow. */
#define LOOK_CLOSER (-2)

#define IP_DF 0x4000
#define IP_MF 0x2000
#define IP_EVIL 0x8000
#define IP_OFFSET 0x1fff

/*
 * The marker bit and the fields of the ID of masqueraded and announcing packets (host byte order). IPv6 has no ID: there it
 * is the upper 16 bits of the flow label (RFC 8200 6.), whose lower 4 are zero; nothing counts it up.
 */
#define ID_MARKER 0x8000
#define ID_FLAG 0x4000 /* masqueraded: the pod's packet had no DF. Announcing: we hold your key */
#define ID_KEY_SHIFT 6
#define ID_COUNT_MASK 0x3f
#define ID_MAX_SEGMENTS 64

#define UDP_MAX_SEGMENTS 128 /* the kernel's */

#define TOS_ECN 0x03
#define TOS_TRACEFLOW 0x0c /* the low two bits of the DSCP */

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

#define ICMP_ECHOREPLY 0
#define ICMP_ECHO 8
#define ICMPV6_ECHO_REQUEST 128 /* RFC 4443 */
#define ICMPV6_ECHO_REPLY 129

#define L3_OFF ETH_HLEN
#define L4_OFF4 (ETH_HLEN + (int)sizeof(struct iphdr))
#define L4_OFF6 (ETH_HLEN + (int)sizeof(struct ipv6hdr))
#define L4_OFF(v6) ((v6) ? L4_OFF6 : L4_OFF4)

#define IPPROTO_VERSION_IHL 0x45
#define IPV6_VERSION 0x60000000
#define IPV6_LABEL_MARKER 0x80000

/* What the programs need to know of a packet; filled by parse(). */
struct packet {
	struct xmasq_addr saddr;
	struct xmasq_addr daddr;
	__be16 sport; /* see struct xmasq_flow_key */
	__be16 dport;
	__u32 tot_len;  /* of header and payload */
	__u16 id;       /* host byte order; IPv6: see above */
	__u16 segments; /* GSO segments, 1 if none */
	__u8 v6;
	__u8 proto;
	__u8 tos; /* traffic class */
	__u8 ttl; /* hop limit */
	__u8 df;  /* of IPv6 always */
	__u8 tcp_flags;
	__u8 l4_len; /* of the TCP or UDP header; 60 where it is not known */
	__u8 reason; /* enum xmasq_reason: why it can't be on the fast path by itself */
};

/*
 * Packet pointers. In assembler, because the compiler would else keep the address of the field in the context for a second
 * read after a helper call, which the verifier refuses.
 */
static __always_inline void *packet_start(const struct __sk_buff *skb)
{
	void *p;

	asm volatile("%0 = *(u32 *)(%1 + %2)" : "=r"(p) : "r"(skb), "i"(offsetof(struct __sk_buff, data)));
	return p;
}

static __always_inline void *packet_end(const struct __sk_buff *skb)
{
	void *p;

	asm volatile("%0 = *(u32 *)(%1 + %2)" : "=r"(p) : "r"(skb), "i"(offsetof(struct __sk_buff, data_end)));
	return p;
}

/*
 * The scratch words of an skb survive redirects: they tell uplink_egress what a packet is. Two at a time, in assembler, for the
 * same reason as above.
 */
#define CB_AT(i) (offsetof(struct __sk_buff, cb) + 8 * (i))
#define STORE_CB(skb, i, value) asm volatile("*(u64 *)(%0 + %1) = %2" ::"r"(skb), "i"(CB_AT(i)), "r"(value) : "memory")
#define LOAD_CB(skb, i)                                                                          \
	({                                                                                       \
		__u64 value_;                                                                    \
		asm volatile("%0 = *(u64 *)(%1 + %2)" : "=r"(value_) : "r"(skb), "i"(CB_AT(i))); \
		value_;                                                                          \
	})

/* Makes `len` bytes readable: returns where they begin, or NULL if the packet is shorter. Invalidates packet pointers. */
static __always_inline void *readable(struct __sk_buff *skb, __u32 len)
{
	void *start = packet_start(skb);

	if (start + len > packet_end(skb)) {
		if (skb->len < len || bpf_skb_pull_data(skb, len))
			return NULL;
		start = packet_start(skb);
		if (start + len > packet_end(skb))
			return NULL;
	}
	return start;
}

/*
 * Segments that the packet will become on a wire. Packet sockets may hand in GSO packets without a count
 * (virtio_net_hdr_to_skb sets gso_segs to 0): then it is computed, rounding up.
 */
static __always_inline __u32 segments_of(const struct __sk_buff *skb)
{
	__u32 size = skb->gso_size;
	__u32 n = skb->gso_segs;

	if (!size)
		return 1;
	if (!n)
		n = skb->len / size + 1;
	return n > 0xffff ? 0xffff : n;
}

static __always_inline __u16 fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* RFC 1624: the checksum after one 16-bit word changed. All in network byte order as stored. */
static __always_inline __u16 csum_replace(__u16 check, __u16 from, __u16 to)
{
	return ~fold((__u16)~check + (__u32)(__u16)~from + to);
}

/* Of a header without options whose own field is zero (RFC 1071). */
static __always_inline __u16 ip_checksum(const struct iphdr *ip)
{
	const __u16 *word = (const __u16 *)ip;
	__u32 sum = 0;

#pragma unroll
	for (int i = 0; i < 10; i++)
		sum += word[i];
	return ~fold(sum);
}

static __always_inline __be32 ip6_first_word(__u8 tos, __u16 id)
{
	return bpf_htonl(IPV6_VERSION | (__u32)tos << 20 | (__u32)id << 4);
}

static __always_inline void set_id4(struct iphdr *ip, __u16 id)
{
	__be16 to = bpf_htons(id);

	ip->check = csum_replace(ip->check, ip->id, to);
	ip->id = to;
}

/* The first word of an IPv6 header when the flow label becomes `id` and four zero bits. */
static __always_inline __be32 id6(__be32 word, __u16 id)
{
	return (word & bpf_htonl(0xfff00000)) | bpf_htonl((__u32)id << 4);
}

/*
 * Writes the ID. False if the header cannot be written: not after parse(). Invalidates packet pointers.
 *
 * Not through a pointer: a program that writes through one anywhere has the kernel make each packet writable before it begins
 * (net/core/filter.c, bpf_unclone_prologue), and few packets are written here.
 */
static __noinline bool write_id(struct __sk_buff *skb, bool v6, __u16 id)
{
	struct iphdr ip;
	__be32 word;

	if (v6) {
		if (bpf_skb_load_bytes(skb, L3_OFF, &word, sizeof(word)))
			return false;
		word = id6(word, id);
		/* Of IPv4's header the sum stays the same. */
		return bpf_skb_store_bytes(skb, L3_OFF, &word, sizeof(word), BPF_F_RECOMPUTE_CSUM) == 0;
	}
	if (bpf_skb_load_bytes(skb, L3_OFF, &ip, sizeof(ip)))
		return false;
	set_id4(&ip, id);
	return bpf_skb_store_bytes(skb, L3_OFF, &ip, sizeof(ip), 0) == 0;
}

/* An ID for a packet without DF, marker clear: fragments of it may exist one day. */
static __always_inline __u16 fresh_id(void)
{
	return bpf_get_prandom_u32() & 0x3fff;
}

/*
 * The ID after its marker bit was cleared, such that the IDs of all segments stay below the marker, too: segmentation
 * counts up from the first one. Fragments of one datagram keep one ID.
 */
static __always_inline __u16 cleared_id(const bool v6, __u16 id, __u32 segments, bool df)
{
	id &= 0x7fff;
	if (!v6 && (__u32)id + segments > 0x8000)
		id = df ? 0 : id & 0x3fff;
	return id;
}

/*
 * The compiler goes byte by byte where it knows of no alignment. Packets and maps need none, on architectures that have
 * CONFIG_HAVE_EFFICIENT_UNALIGNED_ACCESS (x86, arm64); what is on the stack has to be at a multiple of what is read.
 */
typedef __u16 __attribute__((may_alias)) mac_half;
typedef __u32 __attribute__((may_alias)) macs_last;
typedef __u64 __attribute__((may_alias)) macs_first;

/* Destination and source, as they stand in a frame and in struct xmasq_flow and xmasq_slot. */
struct macs {
	__u64 first;
	__u32 last;
};

_Static_assert(offsetof(struct xmasq_flow, smac) == offsetof(struct xmasq_flow, dmac) + 6 &&
		       offsetof(struct xmasq_slot, smac) == offsetof(struct xmasq_slot, dmac) + 6 &&
		       offsetof(struct xmasq_flow, pod_mac) == offsetof(struct xmasq_flow, via_mac) + 6,
	       "Ethernet addresses are in the order of a frame");

static __always_inline struct macs macs_read(const __u8 *dmac)
{
	return (struct macs){ .first = *(const macs_first *)dmac, .last = *(const macs_last *)(dmac + 8) };
}

static __always_inline void macs_write(void *frame, struct macs macs)
{
	*(macs_first *)frame = macs.first;
	*(macs_last *)(frame + 8) = macs.last;
}

static __always_inline bool mac_equal(const __u8 *a, const __u8 *b)
{
	const mac_half *x = (const mac_half *)a, *y = (const mac_half *)b;

	return !((x[0] ^ y[0]) | (x[1] ^ y[1]) | (x[2] ^ y[2]));
}

/* The transport ports of the opposite direction, in place. ICMP echo: the identifier stays, request <-> reply. */
static __always_inline void reverse_ports(__u8 proto, __be16 *sport, __be16 *dport)
{
	if (proto == IPPROTO_ICMP) {
		*dport = bpf_htons(ICMP_ECHO) - *dport;
	} else if (proto == IPPROTO_ICMPV6) {
		*dport ^= bpf_htons(ICMPV6_ECHO_REQUEST ^ ICMPV6_ECHO_REPLY);
	} else {
		__be16 s = *sport;

		*sport = *dport;
		*dport = s;
	}
}

static __always_inline bool reserved_port(__be16 port, __be16 tunnel)
{
	return port == tunnel || port == bpf_htons(4789) || port == bpf_htons(6081) || port == bpf_htons(500) ||
	       port == bpf_htons(4500) || port == bpf_htons(51820);
}

/* SCTP (RFC 9260 3.): true if the first chunk is DATA, after which only DATA may follow, or SACK alone or before DATA. */
static __always_inline bool sctp_is_data(struct __sk_buff *skb, __u32 l4)
{
	struct {
		__u8 type;
		__u8 flags;
		__be16 length;
	} chunk;
	__u32 off = l4 + 12;

	if (bpf_skb_load_bytes(skb, off, &chunk, sizeof(chunk)))
		return false;
	if (chunk.type == 3) {
		off += (bpf_ntohs(chunk.length) + 3) & ~3u;
		if (off + sizeof(chunk) > skb->len)
			return true;
		if (bpf_skb_load_bytes(skb, off, &chunk, sizeof(chunk)))
			return false;
	}
	return chunk.type == 0;
}

static __always_inline void parse_header4(const struct __sk_buff *skb, const struct iphdr *ip, struct packet *p,
					  __u32 l3_off, bool padded)
{
	__u16 frag = bpf_ntohs(ip->frag_off);
	__u32 unusual;

	addr_set4(&p->saddr, ip->saddr);
	addr_set4(&p->daddr, ip->daddr);
	p->id = bpf_ntohs(ip->id);
	p->tot_len = bpf_ntohs(ip->tot_len);
	p->proto = ip->protocol;
	p->tos = ip->tos;
	p->ttl = ip->ttl;
	p->df = !!(frag & IP_DF);
	unusual = (*(__u8 *)ip ^ IPPROTO_VERSION_IHL) | (ip->frag_off & bpf_htons(0xffff & ~IP_DF)) |
		  skb->vlan_present | (padded ? p->tot_len + l3_off > skb->len : (p->tot_len + l3_off) ^ skb->len);
	if (!unusual)
		return;
	if (skb->vlan_present)
		p->reason = XMASQ_REASON_VLAN;
	else if (*(__u8 *)ip != IPPROTO_VERSION_IHL)
		p->reason = XMASQ_REASON_IP_OPTIONS;
	else if (frag & (IP_MF | IP_OFFSET))
		p->reason = XMASQ_REASON_FRAGMENT;
	else
		p->reason = XMASQ_REASON_MALFORMED;
}

static __always_inline void parse_header6(const struct __sk_buff *skb, const struct ipv6hdr *ip, struct packet *p,
					  __u32 l3_off, bool padded)
{
	__u32 first = bpf_ntohl(*(__be32 *)ip);

	addr_set6(&p->saddr, &ip->saddr);
	addr_set6(&p->daddr, &ip->daddr);
	p->id = first >> 4;
	p->tot_len = bpf_ntohs(ip->payload_len) + sizeof(*ip);
	p->proto = ip->nexthdr;
	p->tos = first >> 20;
	p->ttl = ip->hop_limit;
	p->df = 1;
	if (skb->vlan_present)
		p->reason = XMASQ_REASON_VLAN;
	/* No stack takes such addresses (RFC 4291 2.5.5.2 is for APIs), and here they are those of IPv4. */
	else if (addr_is4(&p->saddr) || addr_is4(&p->daddr))
		p->reason = XMASQ_REASON_MALFORMED;
	else if (p->proto == IPPROTO_FRAGMENT)
		p->reason = XMASQ_REASON_FRAGMENT;
	else if (p->proto == IPPROTO_HOPOPTS || p->proto == IPPROTO_ROUTING || p->proto == IPPROTO_DSTOPTS ||
		 p->proto == IPPROTO_NONE || p->proto == 135 /* RFC 6275 */ || p->proto == 139 || p->proto == 140)
		p->reason = XMASQ_REASON_IP_OPTIONS;
	else if (p->tot_len + l3_off > skb->len || (!padded && p->tot_len + l3_off != skb->len))
		p->reason = XMASQ_REASON_MALFORMED;
}

static __always_inline void read_ports(struct packet *p, const __u8 *l4)
{
	p->sport = *(const __be16 *)l4;
	p->dport = *(const __be16 *)(l4 + 2);
}

static __always_inline void read_tcp(struct packet *p, const __u8 *l4)
{
	read_ports(p, l4);
	p->tcp_flags = l4[13];
	p->l4_len = l4[12] >> 4 << 2;
	if (p->l4_len < sizeof(struct tcphdr))
		p->reason = XMASQ_REASON_MALFORMED;
	else if (p->tcp_flags & TCP_SYN)
		p->reason = XMASQ_REASON_TCP_SYN;
	else if (p->tcp_flags & TCP_FIN)
		p->reason = XMASQ_REASON_TCP_FIN;
}

static __always_inline void read_udp(struct packet *p, const __u8 *l4)
{
	read_ports(p, l4);
	p->l4_len = sizeof(struct udphdr);
}

static __always_inline void read_icmp(struct packet *p, const __u8 *l4, bool v6)
{
	if ((p->proto == IPPROTO_ICMPV6) != v6) {
		p->reason = XMASQ_REASON_PROTOCOL;
		return;
	}
	if (l4[1] || (v6 ? l4[0] != ICMPV6_ECHO_REQUEST && l4[0] != ICMPV6_ECHO_REPLY :
			   l4[0] != ICMP_ECHO && l4[0] != ICMP_ECHOREPLY)) {
		p->reason = XMASQ_REASON_ICMP_TYPE;
		return;
	}
	p->sport = *(const __be16 *)(l4 + 4);
	p->dport = bpf_htons(l4[0]);
}

/* What of protocol, ports and segments keeps a packet off the fast path. */
static __always_inline void check_ports(struct packet *p, __be16 tunnel_port)
{
	if (p->reason)
		return;
	switch (p->proto) {
	case IPPROTO_TCP:
	case IPPROTO_UDP:
		if (p->sport == bpf_htons(53))
			p->reason = XMASQ_REASON_DNS_REPLY;
		else if (reserved_port(p->sport, tunnel_port) || reserved_port(p->dport, tunnel_port))
			p->reason = XMASQ_REASON_RESERVED_PORT;
		break;
	case IPPROTO_IGMP:
	case IPPROTO_ESP:
	case IPPROTO_AH:
	case 33: /* DCCP and UDP-Lite have checksums over addresses that nobody needs to rewrite here */
	case 136:
		p->reason = XMASQ_REASON_PROTOCOL;
		break;
	}
	if (!p->reason && p->segments > ID_MAX_SEGMENTS)
		p->reason = XMASQ_REASON_GSO_SEGMENTS;
}

/*
 * Fills `p` from an Ethernet frame with an IP header. Returns false if there is none that a stack would accept: then
 * nothing can be said of the packet, and nobody takes it for a masqueraded or announcing one. Sets p->reason if the packet
 * is not for the fast path; ports are then valid only if the reason is about what follows them. `padded` allows the Ethernet
 * padding of short frames.
 */
static __always_inline bool parse(struct __sk_buff *skb, const bool v6, struct packet *p, __be16 tunnel_port,
				  const bool padded)
{
	const int l4_off = L4_OFF(v6);
	__u8 *ip, *l4;

	p->reason = XMASQ_REASON_NONE;
	p->sport = p->dport = 0;
	p->tcp_flags = 0;
	p->l4_len = 60;
	p->v6 = v6;
	ip = readable(skb, l4_off);
	if (!ip)
		return false;
	ip += L3_OFF;
	if (*ip >> 4 != (v6 ? 6 : 4))
		return false;
	p->segments = segments_of(skb);
	if (v6)
		parse_header6(skb, (void *)ip, p, L3_OFF, padded);
	else
		parse_header4(skb, (void *)ip, p, L3_OFF, padded);
	if (p->reason)
		return true;

	switch (p->proto) {
	case IPPROTO_TCP:
		l4 = readable(skb, l4_off + sizeof(struct tcphdr));
		if (!l4)
			goto malformed;
		read_tcp(p, l4 + l4_off);
		break;
	case IPPROTO_UDP:
		l4 = readable(skb, l4_off + sizeof(struct udphdr));
		if (!l4)
			goto malformed;
		read_udp(p, l4 + l4_off);
		break;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		l4 = readable(skb, l4_off + 8);
		if (!l4)
			goto malformed;
		read_icmp(p, l4 + l4_off, v6);
		break;
	case IPPROTO_SCTP:
		l4 = readable(skb, l4_off + 12);
		if (!l4)
			goto malformed;
		read_ports(p, l4 + l4_off);
		if (!sctp_is_data(skb, l4_off))
			p->reason = XMASQ_REASON_SCTP_CONTROL;
		break;
	}
	check_ports(p, tunnel_port);
	return true;

malformed:
	p->reason = XMASQ_REASON_MALFORMED;
	return true;
}

/*
 * The IP header of a packet of one segment, which begins at `start`; of `p`, family and segments are set. False: there is something
 * about it that keeps it off the fast path, or that parse() has to find out.
 */
static __always_inline bool read_plain_header(struct __sk_buff *skb, const bool v6, void *start, struct packet *p,
					      const bool padded)
{
	if (start + L4_OFF(v6) + sizeof(struct udphdr) > packet_end(skb) || skb->gso_size)
		return false;
	if (v6) {
		if (*(__u8 *)(start + L3_OFF) >> 4 != 6)
			return false;
		parse_header6(skb, start + L3_OFF, p, L3_OFF, padded);
	} else {
		parse_header4(skb, start + L3_OFF, p, L3_OFF, padded);
	}
	return !p->reason;
}

/* After it, the ports of TCP without SYN, FIN and RST, or of UDP. Returns where the checksum is; NULL: it is something else. */
static __always_inline __u16 *read_plain_ports(struct __sk_buff *skb, const bool v6, void *start, struct packet *p)
{
	if (p->proto == IPPROTO_TCP) {
		if (start + L4_OFF(v6) + sizeof(struct tcphdr) > packet_end(skb))
			return NULL;
		read_tcp(p, start + L4_OFF(v6));
		return p->reason || (p->tcp_flags & TCP_RST) ? NULL : start + L4_OFF(v6) + 16;
	}
	if (p->proto == IPPROTO_UDP) {
		read_udp(p, start + L4_OFF(v6));
		return start + L4_OFF(v6) + 6;
	}
	return NULL;
}

/*
 * The same for a packet inside another one, which is slower. `off` is where its IP header begins. Fills `p` so that its
 * reason is not 0 if anything is wrong with it.
 */
static __noinline void peek(struct __sk_buff *skb, __u32 off, struct packet *p, __u32 tunnel_port)
{
	union {
		struct iphdr v4;
		struct ipv6hdr v6;
	} ip;
	__u8 l4[sizeof(struct tcphdr)];
	bool v6;

	if (!p)
		return;
	p->reason = XMASQ_REASON_MALFORMED;
	p->sport = p->dport = 0;
	p->tcp_flags = 0;
	p->l4_len = 60;
	if (bpf_skb_load_bytes(skb, off, &ip, sizeof(ip.v4)))
		return;
	v6 = *(__u8 *)&ip >> 4 == 6;
	if (!v6 && *(__u8 *)&ip >> 4 != 4)
		return;
	if (v6 && bpf_skb_load_bytes(skb, off, &ip, sizeof(ip.v6)))
		return;
	p->reason = XMASQ_REASON_NONE;
	p->v6 = v6;
	p->segments = segments_of(skb);
	if (v6)
		parse_header6(skb, &ip.v6, p, off, true);
	else
		parse_header4(skb, &ip.v4, p, off, true);
	if (p->reason)
		return;
	off += v6 ? sizeof(ip.v6) : sizeof(ip.v4);
	switch (p->proto) {
	case IPPROTO_TCP:
		if (bpf_skb_load_bytes(skb, off, l4, sizeof(struct tcphdr)))
			goto malformed;
		read_tcp(p, l4);
		break;
	case IPPROTO_UDP:
		if (bpf_skb_load_bytes(skb, off, l4, sizeof(struct udphdr)))
			goto malformed;
		read_udp(p, l4);
		break;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		if (bpf_skb_load_bytes(skb, off, l4, 8))
			goto malformed;
		read_icmp(p, l4, v6);
		break;
	case IPPROTO_SCTP:
		if (bpf_skb_load_bytes(skb, off, l4, 12))
			goto malformed;
		read_ports(p, l4);
		if (!sctp_is_data(skb, off))
			p->reason = XMASQ_REASON_SCTP_CONTROL;
		break;
	}
	check_ports(p, tunnel_port);
	return;

malformed:
	p->reason = XMASQ_REASON_MALFORMED;
}

/* Is it a UDP datagram in one piece, with the UDP header right behind the IP header? */
static __always_inline bool is_plain_udp(struct __sk_buff *skb, bool v6)
{
	struct iphdr *ip = packet_start(skb) + L3_OFF;

	/* The shorter header has all that is looked at. */
	if ((void *)(ip + 1) > packet_end(skb))
		return false;
	if (v6)
		return ((struct ipv6hdr *)ip)->nexthdr == IPPROTO_UDP;
	return ip->protocol == IPPROTO_UDP && *(__u8 *)ip == IPPROTO_VERSION_IHL &&
	       !(ip->frag_off & bpf_htons(IP_MF | IP_OFFSET));
}

/* Is it, or its first segment, a control message between two data planes? Invalidates packet pointers. */
static __always_inline bool leads_control(struct __sk_buff *skb, const bool v6, __be16 tunnel_port)
{
	struct udphdr *udp;

	if (!readable(skb, L4_OFF(v6) + sizeof(*udp) + 1) || !is_plain_udp(skb, v6))
		return false;
	udp = packet_start(skb) + L4_OFF(v6);
	if ((void *)(udp + 1) + 1 > packet_end(skb))
		return false;
	return udp->dest == tunnel_port && *(__u8 *)(udp + 1) == XMASQ_CTL_TAG;
}

/* The same for any of the first `segments` segments, which takes longer. */
static __noinline bool is_control(struct __sk_buff *skb, bool v6, __be16 tunnel_port, __u32 segments)
{
	__u32 size = skb->gso_size;
	__be16 dport;
	__u8 tag;

	if (!is_plain_udp(skb, v6))
		return false;
	if (bpf_skb_load_bytes(skb, L4_OFF(v6) + offsetof(struct udphdr, dest), &dport, sizeof(dport)) ||
	    dport != tunnel_port)
		return false;
	/* A packet socket may send more than UDP does; nobody honest does so to a tunnel port. */
	if (segments > UDP_MAX_SEGMENTS)
		return true;
	for (__u32 i = 0; i < UDP_MAX_SEGMENTS && i < segments; i++) {
		if (bpf_skb_load_bytes(skb, L4_OFF(v6) + sizeof(struct udphdr) + i * size, &tag, sizeof(tag)))
			break;
		if (tag == XMASQ_CTL_TAG)
			return true;
	}
	return false;
}

/* TTL and DSCP that keep a pod's packet off the fast path. On the underlay they are ours and mean nothing. */
static __always_inline __u8 header_reason(const struct packet *p)
{
	if (p->ttl <= 1)
		return XMASQ_REASON_TTL;
	if ((p->tos & TOS_TRACEFLOW) == TOS_TRACEFLOW)
		return XMASQ_REASON_TRACEFLOW;
	return XMASQ_REASON_NONE;
}

/* Where the checksum over the pseudo header is: offset in the transport header, or -1 if the protocol has none. */
static __always_inline int checksum_offset(__u8 proto)
{
	switch (proto) {
	case IPPROTO_TCP:
		return 16;
	case IPPROTO_UDP:
		return 6;
	default:
		return -1;
	}
}

/* The parts of struct sk_buff that its context does not show; CHECKSUM_* of include/linux/skbuff.h. */
struct sk_buff {
	__u8 ip_summed : 2;
} __attribute__((preserve_access_index));

#define CHECKSUM_COMPLETE 2
#define CHECKSUM_PARTIAL 3

/* Since kernel 6.2; a move of a register for the verifier (kernel/bpf/verifier.c). */
extern void *bpf_cast_to_kern_ctx(void *skb) __ksym __weak;

/*
 * Puts the change of addresses into the transport checksum at `check`, as bpf_l4_csum_replace would (net/core/utils.c,
 * inet_proto_csum_replace_by_diff). False: it was not done, and takes the helper, where the device has summed up all of a received
 * packet, and where a program cannot see whether it has.
 */
static __always_inline bool fix_checksum_at(struct __sk_buff *skb, __u16 *check, __u8 proto, __u32 diff)
{
	struct sk_buff *kern;
	__u64 summed, sum;

	if (!check || !bpf_cast_to_kern_ctx)
		return false;
	kern = bpf_cast_to_kern_ctx(skb);
	summed = *((__u8 *)kern + __CORE_RELO(kern, ip_summed, BYTE_OFFSET));
	summed <<= __CORE_RELO(kern, ip_summed, LSHIFT_U64);
	summed >>= __CORE_RELO(kern, ip_summed, RSHIFT_U64);
	if (summed == CHECKSUM_COMPLETE)
		return false;
	sum = *check;
	if (!sum && proto == IPPROTO_UDP)
		return true;
	if (summed != CHECKSUM_PARTIAL)
		sum ^= 0xffff;
	sum += diff;
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	if (summed != CHECKSUM_PARTIAL)
		sum ^= 0xffff;
	if (!(__u16)sum && proto == IPPROTO_UDP)
		sum = 0xffff;
	*check = sum;
	return true;
}

/* The field in a packet that begins at `start`; NULL: its protocol has none that fix_checksum_at knows. */
static __always_inline __u16 *checksum_of(struct __sk_buff *skb, void *start, const bool v6, __u8 proto)
{
	__u16 *check;

	if (proto == IPPROTO_TCP)
		check = start + L4_OFF(v6) + 16;
	else if (proto == IPPROTO_UDP)
		check = start + L4_OFF(v6) + 6;
	else
		return NULL;
	return (void *)(check + 1) > packet_end(skb) ? NULL : check;
}

/* The same, whatever the state of the checksum, by the kernel. False if the packet could not be written: not after parse(). */
static __always_inline bool fix_checksum_by_helper(struct __sk_buff *skb, const bool v6, __u8 proto, __u32 diff)
{
	if (proto == IPPROTO_TCP)
		return bpf_l4_csum_replace(skb, L4_OFF(v6) + 16, 0, diff, BPF_F_PSEUDO_HDR) == 0;
	if (proto == IPPROTO_UDP)
		return bpf_l4_csum_replace(skb, L4_OFF(v6) + 6, 0, diff, BPF_F_PSEUDO_HDR | BPF_F_MARK_MANGLED_0) == 0;
	if (v6 && proto == IPPROTO_ICMPV6)
		return bpf_l4_csum_replace(skb, L4_OFF6 + 2, 0, diff, BPF_F_PSEUDO_HDR) == 0;
	return true;
}

/*
 * Puts the change of addresses into the transport checksum, whatever its state: absent (UDP 0), complete, or pending for
 * the device (CHECKSUM_PARTIAL). `diff` is from bpf_csum_diff. False if the packet could not be written. IPv6: see
 * settle_sum6.
 */
static __always_inline bool fix_checksum(struct __sk_buff *skb, const bool v6, __u8 proto, __u32 diff)
{
	return fix_checksum_at(skb, checksum_of(skb, packet_start(skb), v6, proto), proto, diff) ||
	       fix_checksum_by_helper(skb, v6, proto, diff);
}

/*
 * The device's sum over a received packet (CHECKSUM_COMPLETE) after its IPv6 header was rewritten. The header of IPv4 sums up
 * to the same before and after; that of IPv6 does not. `diff` of the addresses is missing in it either way: a transport checksum
 * makes up for it, but the helper above has counted that (net/core/utils.c, inet_proto_csum_replace_by_diff), or there is none.
 * `was` and `is` are the header's first eight bytes.
 */
static __always_inline void settle_sum6(struct __sk_buff *skb, __u32 diff, __be32 *was, __be32 *is)
{
	bpf_csum_update(skb, bpf_csum_diff(was, 8, is, 8, diff));
}

/* Puts a change of port, which is not in the pseudo header, into the transport checksum, and writes the port. */
static __always_inline bool change_port(struct __sk_buff *skb, const bool v6, __u8 proto, int offset, __be16 from,
					__be16 to)
{
	__u64 flags = 2 | (proto == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0);
	int check = checksum_offset(proto);

	if (check < 0)
		return false;
	return bpf_l4_csum_replace(skb, L4_OFF(v6) + check, from, to, flags) == 0 &&
	       bpf_skb_store_bytes(skb, L4_OFF(v6) + offset, &to, sizeof(to), 0) == 0;
}

/* The difference that replacing one address pair by another makes to a checksum; that of mapped IPv4 addresses is the same. */
GLOBAL __u32 address_diff(const struct xmasq_addr *from_s, const struct xmasq_addr *from_d,
			  const struct xmasq_addr *to_s, const struct xmasq_addr *to_d)
{
	struct xmasq_addr from[2], to[2];

	if (!from_s || !from_d || !to_s || !to_d)
		return 0;
	from[0] = *from_s;
	from[1] = *from_d;
	to[0] = *to_s;
	to[1] = *to_d;

	return bpf_csum_diff((__be32 *)from, sizeof(from), (__be32 *)to, sizeof(to), 0);
}
