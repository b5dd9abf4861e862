// SPDX-License-Identifier: Apache-2.0
/*
 * Frames that no socket would send, and a counter for what arrives: `send` puts frames given in hexadecimal on a
 * device, `sweep` makes packets of one 5-tuple whose IP ID (IPv6: flow label) runs through a range, `count` counts
 * matching frames.
 * All by AF_PACKET; --bypass uses PACKET_QDISC_BYPASS, so that the packets miss every tc egress program.
 */
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <netinet/icmp6.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/ip_icmp.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <poll.h>
#include "common.h"

/* Since Linux 6.2; Debian 12's headers are older. */
#ifndef VIRTIO_NET_HDR_GSO_UDP_L4
#define VIRTIO_NET_HDR_GSO_UDP_L4 5
#endif

static const char USAGE[] =
	"usage: raw send  --dev D [--bypass] [--repeat N] [--rate PPS]      frames as hex, one per line of standard input\n"
	"       raw sweep --dev D [--bypass] --src-mac M --dst-mac M --src A --dst A --proto udp|tcp|icmp|NUMBER\n"
	"                 [--sport P] [--dport P] [--from ID] [--to ID] [--repeat N] [--no-df] [--mf] [--frag-offset BYTES]\n"
	"                 [--ttl T] [--tos T] [--flags TCPFLAGS] [--seq N] [--ack N] [--size BYTES] [--payload HEX]\n"
	"                 [--options] [--gso-size BYTES] [--rate PPS]\n"
	"       raw count --dev D [--seconds S] [--src A] [--dst A] [--proto P] [--sport P] [--dport P] [--payload HEX]\n"
	"                 [--max N]\n"
	"  sweep: IP IDs --from (default 0) to --to (default 65535); payload --payload, padded with zeros to --size;\n"
	"         icmp: an echo request, --sport is its identifier; --options adds four NOP IP options;\n"
	"         between IPv6 addresses: flow labels (--to 1048575 at most) instead of IDs, --ttl the hop limit, --tos the\n"
	"         traffic class, icmp ICMPv6; --options adds a destination options header, --mf and --frag-offset a fragment\n"
	"         header; --no-df does nothing\n"
	"         --gso-size: udp and tcp are handed to the kernel as one packet to be cut into segments of that payload\n"
	"  count: prints counts as JSON after --seconds (default 3600), SIGTERM, or --max matching frames\n"
	"  --rate 0 (default): as fast as possible\n";

enum {
	MAX_FRAME = 65549,
	MAX_PAYLOAD = 65000,
	MAX_ID = 0xffff,
	MAX_LABEL = 0xfffff
};

static struct {
	const char *dev;
	bool bypass, no_df, more, options;
	uint8_t src_mac[6], dst_mac[6];
	bool have_src, have_dst, have_sport, have_dport;
	struct address src, dst;
	int proto;
	uint16_t sport, dport, fragment_offset;
	uint32_t from, to, size, seq, ack, tcp_flags, ttl, tos;
	uint64_t repeat, rate, max;
	uint8_t payload[MAX_PAYLOAD];
	uint32_t payload_length, gso_size;
	double seconds;
} opt = { .proto = -1, .to = MAX_ID, .ttl = 64, .tcp_flags = TH_ACK, .repeat = 1, .seconds = 3600 };

static int packet_socket(bool receive)
{
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, receive ? htons(ETH_P_ALL) : 0);
	struct sockaddr_ll sa = { .sll_family = AF_PACKET, .sll_protocol = receive ? htons(ETH_P_ALL) : 0 };

	if (fd < 0)
		die("AF_PACKET socket: %s", strerror(errno));
	sa.sll_ifindex = (int)if_nametoindex(opt.dev);
	if (!sa.sll_ifindex)
		die("--dev %s: %s", opt.dev, strerror(errno));
	if (bind(fd, (struct sockaddr *)&sa, sizeof(sa)))
		die("bind to %s: %s", opt.dev, strerror(errno));
	if (opt.bypass)
		set_int(fd, SOL_PACKET, PACKET_QDISC_BYPASS, 1, "PACKET_QDISC_BYPASS");
	if (opt.gso_size)
		set_int(fd, SOL_PACKET, PACKET_VNET_HDR, 1, "PACKET_VNET_HDR");
	set_int(fd, SOL_SOCKET, receive ? SO_RCVBUFFORCE : SO_SNDBUFFORCE, 8 << 20, "buffer size");
	return fd;
}

static uint64_t sent, errors, started;

static void transmit(int fd, const uint8_t *frame, size_t length)
{
	if (opt.rate) {
		uint64_t due = started + (uint64_t)((double)(sent + errors) / (double)opt.rate * 1e9);

		if (due > now_ns())
			sleep_until_ns(due);
	}
	for (int tries = 0; tries < 1000; tries++) {
		if (send(fd, frame, length, 0) == (ssize_t)length) {
			sent++;
			return;
		}
		if (errno != ENOBUFS && errno != EAGAIN)
			break;
		usleep(100); /* The device's queue is full. */
	}
	errors++;
}

static int report_sent(void)
{
	printf("{\"sent\":%llu,\"errors\":%llu,\"seconds\":%.6f}\n", (unsigned long long)sent,
	       (unsigned long long)errors, (double)(now_ns() - started) / 1e9);
	return errors ? 1 : 0;
}

/* Bytes of a hexadecimal text; blanks and colons between them are skipped. */
static size_t parse_hex(const char *text, uint8_t *to, size_t room)
{
	size_t n = 0;
	int high = -1;

	for (; *text && *text != '\n'; text++) {
		int digit;

		if (*text == ' ' || *text == ':' || *text == '\t')
			continue;
		if (*text >= '0' && *text <= '9')
			digit = *text - '0';
		else if ((*text | 32) >= 'a' && (*text | 32) <= 'f')
			digit = (*text | 32) - 'a' + 10;
		else
			die("'%c' is not hexadecimal", *text);
		if (high < 0) {
			high = digit;
			continue;
		}
		if (n >= room)
			die("more than %zu bytes", room);
		to[n++] = (uint8_t)(high << 4 | digit);
		high = -1;
	}
	if (high >= 0)
		die("odd number of hexadecimal digits");
	return n;
}

static int send_frames(void)
{
	static uint8_t frame[MAX_FRAME];
	int fd = packet_socket(false);
	char *line = NULL;
	size_t room = 0;

	started = now_ns();
	while (getline(&line, &room, stdin) > 0) {
		size_t length = parse_hex(line, frame, sizeof(frame));

		if (!length)
			continue;
		for (uint64_t i = 0; i < opt.repeat && !stop_requested; i++)
			transmit(fd, frame, length);
	}
	free(line);
	return report_sent();
}

static uint32_t sum16(const void *data, size_t length, uint32_t sum)
{
	const uint8_t *p = data;

	for (; length > 1; length -= 2, p += 2)
		sum += (uint32_t)p[0] << 8 | p[1];
	if (length)
		sum += (uint32_t)p[0] << 8;
	return sum;
}

static uint16_t fold(uint32_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return htons((uint16_t)~sum);
}

/* The checksum, or with --gso-size the sum of the pseudo header alone, to which the kernel adds the rest per segment. */
static uint16_t transport_sum(const void *data, size_t length, uint32_t pseudo)
{
	return opt.gso_size ? (uint16_t)~fold(pseudo) : fold(sum16(data, length, pseudo));
}

static bool is_icmp(int proto)
{
	return proto == IPPROTO_ICMP || proto == IPPROTO_ICMPV6;
}

static size_t address_length(const struct address *a)
{
	return a->family == AF_INET6 ? 16 : 4;
}

/* Transport header and payload at `to`; returns their length. */
static size_t build_transport(uint8_t *to)
{
	size_t payload = opt.payload_length > opt.size ? opt.payload_length : opt.size;
	size_t header = opt.proto == IPPROTO_TCP ? 20 : opt.proto == IPPROTO_UDP || is_icmp(opt.proto) ? 8 : 0;
	size_t length = header + payload;
	uint32_t pseudo = sum16(&opt.src.v6, address_length(&opt.src), 0) +
			  sum16(&opt.dst.v6, address_length(&opt.dst), 0) + (uint32_t)opt.proto + (uint32_t)length;

	memset(to, 0, length);
	memcpy(to + header, opt.payload, opt.payload_length);
	if (opt.proto == IPPROTO_TCP) {
		struct tcphdr tcp = { .th_sport = htons(opt.sport),
				      .th_dport = htons(opt.dport),
				      .th_seq = htonl(opt.seq),
				      .th_ack = htonl(opt.ack),
				      .th_off = 5,
				      .th_flags = (uint8_t)opt.tcp_flags,
				      .th_win = htons(65535) };

		memcpy(to, &tcp, sizeof(tcp));
		tcp.th_sum = transport_sum(to, length, pseudo);
		memcpy(to, &tcp, sizeof(tcp));
	} else if (opt.proto == IPPROTO_UDP) {
		struct udphdr udp = { .uh_sport = htons(opt.sport),
				      .uh_dport = htons(opt.dport),
				      .uh_ulen = htons((uint16_t)length) };

		memcpy(to, &udp, sizeof(udp));
		udp.uh_sum = transport_sum(to, length, pseudo);
		if (!udp.uh_sum)
			udp.uh_sum = 0xffff;
		memcpy(to, &udp, sizeof(udp));
	} else if (is_icmp(opt.proto)) {
		bool v6 = opt.proto == IPPROTO_ICMPV6;
		struct icmphdr icmp = { .type = v6 ? ICMP6_ECHO_REQUEST : ICMP_ECHO,
					.un.echo.id = htons(opt.sport),
					.un.echo.sequence = htons(1) };

		memcpy(to, &icmp, sizeof(icmp));
		icmp.checksum = fold(sum16(to, length, v6 ? pseudo : 0));
		memcpy(to, &icmp, sizeof(icmp));
	}
	return length;
}

/* What tells the kernel to cut the packet (struct virtio_net_hdr in the host's byte order, packet(7)). */
static void build_gso_header(uint8_t *to, size_t ip_header)
{
	bool tcp = opt.proto == IPPROTO_TCP;
	size_t start = sizeof(struct ethhdr) + ip_header;
	struct virtio_net_hdr vnet = { .flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
				       .gso_type = !tcp                       ? VIRTIO_NET_HDR_GSO_UDP_L4 :
						   opt.src.family == AF_INET6 ? VIRTIO_NET_HDR_GSO_TCPV6 :
										VIRTIO_NET_HDR_GSO_TCPV4,
				       .hdr_len = (uint16_t)(start + (tcp ? 20 : 8)),
				       .gso_size = (uint16_t)opt.gso_size,
				       .csum_start = (uint16_t)start,
				       .csum_offset = tcp ? 16 : 6 };

	if (opt.gso_size)
		memcpy(to, &vnet, sizeof(vnet));
}

/* The IP header, with options or extension headers, for a transport of `payload` bytes; returns its length. */
static size_t build_ip4(uint8_t *to, size_t payload)
{
	size_t header = sizeof(struct iphdr) + (opt.options ? 4 : 0);
	struct iphdr ip = { .version = 4,
			    .ihl = (unsigned int)(header / 4),
			    .tos = (uint8_t)opt.tos,
			    .tot_len = htons((uint16_t)(header + payload)),
			    .ttl = (uint8_t)opt.ttl,
			    .protocol = (uint8_t)opt.proto,
			    .saddr = opt.src.v4.s_addr,
			    .daddr = opt.dst.v4.s_addr };

	ip.frag_off = htons((uint16_t)((opt.no_df ? 0 : IP_DF) | (opt.more ? IP_MF : 0) | opt.fragment_offset / 8));
	memcpy(to, &ip, sizeof(ip));
	memset(to + sizeof(ip), IPOPT_NOP, header - sizeof(ip));
	return header;
}

static void number_ip4(uint8_t *at, size_t header, uint32_t id)
{
	struct iphdr ip;

	memcpy(&ip, at, sizeof(ip));
	ip.id = htons((uint16_t)id);
	ip.check = 0;
	memcpy(at, &ip, sizeof(ip));
	ip.check = fold(sum16(at, header, 0));
	memcpy(at, &ip, sizeof(ip));
}

static size_t build_ip6(uint8_t *to, size_t payload)
{
	bool fragment = opt.more || opt.fragment_offset;
	size_t header = sizeof(struct ip6_hdr);
	struct ip6_hdr ip = { .ip6_src = opt.src.v6, .ip6_dst = opt.dst.v6 };
	uint8_t *next = &ip.ip6_nxt;

	ip.ip6_hlim = (uint8_t)opt.ttl;
	if (opt.options) {
		static const uint8_t padding[8] = { 0, 0, 1 /* PadN */, 4 };

		memcpy(to + header, padding, sizeof(padding));
		*next = IPPROTO_DSTOPTS;
		next = to + header;
		header += sizeof(padding);
	}
	if (fragment) {
		struct ip6_frag frag = { .ip6f_offlg = htons((uint16_t)(opt.fragment_offset | (opt.more ? 1 : 0))),
					 .ip6f_ident = htonl(1) };

		memcpy(to + header, &frag, sizeof(frag));
		*next = IPPROTO_FRAGMENT;
		next = to + header;
		header += sizeof(frag);
	}
	*next = (uint8_t)opt.proto;
	ip.ip6_plen = htons((uint16_t)(header - sizeof(ip) + payload));
	memcpy(to, &ip, sizeof(ip));
	return header;
}

static void number_ip6(uint8_t *at, uint32_t label)
{
	uint32_t first = htonl(6u << 28 | opt.tos << 20 | label);

	memcpy(at, &first, sizeof(first));
}

static int sweep(void)
{
	static uint8_t buffer[sizeof(struct virtio_net_hdr) + MAX_FRAME], transport[MAX_FRAME];
	bool v6 = opt.src.family == AF_INET6;
	struct ethhdr eth = { .h_proto = htons(v6 ? ETH_P_IPV6 : ETH_P_IP) };
	int fd = packet_socket(false);
	size_t payload = build_transport(transport);
	size_t prefix = opt.gso_size ? sizeof(struct virtio_net_hdr) : 0;
	uint8_t *frame = buffer + prefix, *at = frame + sizeof(eth);
	size_t header = v6 ? build_ip6(at, payload) : build_ip4(at, payload);

	build_gso_header(buffer, header);
	memcpy(eth.h_source, opt.src_mac, 6);
	memcpy(eth.h_dest, opt.dst_mac, 6);
	memcpy(frame, &eth, sizeof(eth));
	memcpy(at + header, transport, payload);
	started = now_ns();
	for (uint64_t round = 0; round < opt.repeat; round++) {
		for (uint32_t id = opt.from; id <= opt.to && !stop_requested; id++) {
			if (v6)
				number_ip6(at, id);
			else
				number_ip4(at, header, id);
			transmit(fd, buffer, prefix + sizeof(eth) + header + payload);
		}
	}
	return report_sent();
}

/* What `count` looks at of a packet. */
struct packet {
	const uint8_t *src, *dst;
	int proto;
	const uint8_t *l4;
	size_t left; /* bytes from l4 on */
	bool first;  /* no fragment but the first */
};

static bool parse_ip4(const uint8_t *at, size_t length, struct packet *to)
{
	struct iphdr ip;

	if (length < sizeof(ip))
		return false;
	memcpy(&ip, at, sizeof(ip));
	if (ip.ihl * 4u < sizeof(ip) || ip.ihl * 4u > length)
		return false;
	*to = (struct packet){ at + 12,
			       at + 16,
			       ip.protocol,
			       at + ip.ihl * 4u,
			       length - ip.ihl * 4u,
			       !(ntohs(ip.frag_off) & IP_OFFMASK) };
	return true;
}

static bool parse_ip6(const uint8_t *at, size_t length, struct packet *to)
{
	if (length < sizeof(struct ip6_hdr))
		return false;
	*to = (struct packet){ at + 8, at + 24, at[6], at + sizeof(struct ip6_hdr), length - sizeof(struct ip6_hdr),
			       true };
	while (to->left >= 8 && (to->proto == IPPROTO_HOPOPTS || to->proto == IPPROTO_ROUTING ||
				 to->proto == IPPROTO_DSTOPTS || to->proto == IPPROTO_FRAGMENT)) {
		bool fragment = to->proto == IPPROTO_FRAGMENT;
		size_t size = fragment ? 8 : (to->l4[1] + 1u) * 8;

		if (size > to->left)
			return false;
		if (fragment && ((to->l4[2] << 8 | to->l4[3]) & ~7))
			to->first = false;
		to->proto = to->l4[0];
		to->l4 += size;
		to->left -= size;
		if (!to->first)
			break;
	}
	return true;
}

static bool frame_matches(const uint8_t *frame, size_t length)
{
	const struct address *asked = opt.have_src ? &opt.src : &opt.dst;
	struct packet p;
	size_t header;
	bool ports, v6;

	if (length < sizeof(struct ethhdr))
		return false;
	v6 = frame[12] == 0x86 && frame[13] == 0xdd;
	if (!v6 && (frame[12] != 0x08 || frame[13] != 0x00))
		return false;
	if ((opt.have_src || opt.have_dst) && (asked->family == AF_INET6) != v6)
		return false;
	frame += sizeof(struct ethhdr);
	length -= sizeof(struct ethhdr);
	if (!(v6 ? parse_ip6(frame, length, &p) : parse_ip4(frame, length, &p)))
		return false;
	if ((opt.have_src && memcmp(p.src, &opt.src.v6, address_length(&opt.src))) ||
	    (opt.have_dst && memcmp(p.dst, &opt.dst.v6, address_length(&opt.dst))) ||
	    (opt.proto >= 0 && p.proto != opt.proto && !(is_icmp(opt.proto) && is_icmp(p.proto))))
		return false;
	ports = (p.proto == IPPROTO_TCP || p.proto == IPPROTO_UDP || p.proto == IPPROTO_SCTP) && p.left >= 4 && p.first;
	if ((opt.have_sport || opt.have_dport) && !ports)
		return false;
	if ((opt.have_sport && (p.l4[0] << 8 | p.l4[1]) != opt.sport) ||
	    (opt.have_dport && (p.l4[2] << 8 | p.l4[3]) != opt.dport))
		return false;
	header = p.proto == IPPROTO_TCP && p.left >= 20     ? (size_t)(p.l4[12] >> 4) * 4 :
		 p.proto == IPPROTO_UDP || is_icmp(p.proto) ? 8 :
							      0;
	return !opt.payload_length ||
	       (p.left >= header + opt.payload_length && !memcmp(p.l4 + header, opt.payload, opt.payload_length));
}

static int count_frames(void)
{
	static uint8_t frame[MAX_FRAME];
	int fd = packet_socket(true);
	uint64_t end, matched = 0, received = 0, outgoing = 0, bytes = 0;
	struct tpacket_stats stats = { 0 };
	socklen_t length = sizeof(stats);

	printf("ready\n");
	fflush(stdout);
	started = now_ns();
	end = started + (uint64_t)(opt.seconds * 1e9);
	while (!stop_requested && now_ns() < end && (!opt.max || matched < opt.max)) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		struct sockaddr_ll from;
		socklen_t from_length = sizeof(from);
		ssize_t n;

		if (poll(&p, 1, 100) <= 0)
			continue;
		n = recvfrom(fd, frame, sizeof(frame), MSG_DONTWAIT, (struct sockaddr *)&from, &from_length);
		if (n <= 0)
			continue;
		received++;
		if (!frame_matches(frame, (size_t)n))
			continue;
		matched++;
		bytes += (uint64_t)n;
		outgoing += from.sll_pkttype == PACKET_OUTGOING;
	}
	getsockopt(fd, SOL_PACKET, PACKET_STATISTICS, &stats, &length);
	printf("{\"matched\":%llu,\"incoming\":%llu,\"outgoing\":%llu,\"bytes\":%llu,\"frames\":%llu,\"missed\":%u}\n",
	       (unsigned long long)matched, (unsigned long long)(matched - outgoing), (unsigned long long)outgoing,
	       (unsigned long long)bytes, (unsigned long long)received, stats.tp_drops);
	return 0;
}

static int protocol(const char *text)
{
	if (!strcmp(text, "tcp"))
		return IPPROTO_TCP;
	if (!strcmp(text, "udp"))
		return IPPROTO_UDP;
	if (!strcmp(text, "icmp"))
		return IPPROTO_ICMP;
	return (int)number("proto", text, 0, 255);
}

static void mac(const char *name, const char *text, uint8_t *to)
{
	if (parse_hex(text, to, 6) != 6)
		die("--%s %s: not a MAC address", name, text);
}

int main(int argc, char **argv)
{
	enum {
		DEV = 1,
		BYPASS,
		REPEAT,
		RATE,
		SRC_MAC,
		DST_MAC,
		SRC,
		DST,
		PROTO,
		SPORT,
		DPORT,
		FROM,
		TO,
		NO_DF,
		MF,
		OFFSET,
		TTL,
		TOS,
		FLAGS,
		SEQ,
		ACK,
		SIZE,
		PAYLOAD,
		OPTIONS,
		GSO,
		SECONDS,
		MAX
	};
	static const struct option options[] = {
		{ "dev", 1, 0, DEV },         { "bypass", 0, 0, BYPASS },
		{ "repeat", 1, 0, REPEAT },   { "rate", 1, 0, RATE },
		{ "src-mac", 1, 0, SRC_MAC }, { "dst-mac", 1, 0, DST_MAC },
		{ "src", 1, 0, SRC },         { "dst", 1, 0, DST },
		{ "proto", 1, 0, PROTO },     { "sport", 1, 0, SPORT },
		{ "dport", 1, 0, DPORT },     { "from", 1, 0, FROM },
		{ "to", 1, 0, TO },           { "no-df", 0, 0, NO_DF },
		{ "mf", 0, 0, MF },           { "frag-offset", 1, 0, OFFSET },
		{ "ttl", 1, 0, TTL },         { "tos", 1, 0, TOS },
		{ "flags", 1, 0, FLAGS },     { "seq", 1, 0, SEQ },
		{ "ack", 1, 0, ACK },         { "size", 1, 0, SIZE },
		{ "payload", 1, 0, PAYLOAD }, { "options", 0, 0, OPTIONS },
		{ "gso-size", 1, 0, GSO },    { "seconds", 1, 0, SECONDS },
		{ "max", 1, 0, MAX },         { 0 },
	};
	const char *command = argc > 1 ? argv[1] : "";
	bool have_macs[2] = { false, false };
	int option;

	if (strcmp(command, "send") && strcmp(command, "sweep") && strcmp(command, "count"))
		die("%s", USAGE);
	optind = 2;
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case DEV:
			opt.dev = optarg;
			break;
		case BYPASS:
			opt.bypass = true;
			break;
		case REPEAT:
			opt.repeat = number("repeat", optarg, 1, 1000000000);
			break;
		case RATE:
			opt.rate = number("rate", optarg, 0, 10000000);
			break;
		case SRC_MAC:
			mac("src-mac", optarg, opt.src_mac);
			have_macs[0] = true;
			break;
		case DST_MAC:
			mac("dst-mac", optarg, opt.dst_mac);
			have_macs[1] = true;
			break;
		case SRC:
			opt.src = address("src", optarg);
			opt.have_src = true;
			break;
		case DST:
			opt.dst = address("dst", optarg);
			opt.have_dst = true;
			break;
		case PROTO:
			opt.proto = protocol(optarg);
			break;
		case SPORT:
			opt.sport = (uint16_t)number("sport", optarg, 0, 65535);
			opt.have_sport = true;
			break;
		case DPORT:
			opt.dport = (uint16_t)number("dport", optarg, 0, 65535);
			opt.have_dport = true;
			break;
		case FROM:
			opt.from = (uint32_t)number("from", optarg, 0, MAX_LABEL);
			break;
		case TO:
			opt.to = (uint32_t)number("to", optarg, 0, MAX_LABEL);
			break;
		case NO_DF:
			opt.no_df = true;
			break;
		case MF:
			opt.more = true;
			break;
		case OFFSET:
			opt.fragment_offset = (uint16_t)number("frag-offset", optarg, 0, 65528);
			break;
		case TTL:
			opt.ttl = (uint32_t)number("ttl", optarg, 0, 255);
			break;
		case TOS:
			opt.tos = (uint32_t)number("tos", optarg, 0, 255);
			break;
		case FLAGS:
			opt.tcp_flags = (uint32_t)number("flags", optarg, 0, 255);
			break;
		case SEQ:
			opt.seq = (uint32_t)number("seq", optarg, 0, UINT32_MAX);
			break;
		case ACK:
			opt.ack = (uint32_t)number("ack", optarg, 0, UINT32_MAX);
			break;
		case SIZE:
			opt.size = (uint32_t)number("size", optarg, 0, MAX_PAYLOAD);
			break;
		case PAYLOAD:
			opt.payload_length = (uint32_t)parse_hex(optarg, opt.payload, MAX_PAYLOAD);
			break;
		case OPTIONS:
			opt.options = true;
			break;
		case GSO:
			opt.gso_size = (uint32_t)number("gso-size", optarg, 1, 65535);
			break;
		case SECONDS:
			opt.seconds = real("seconds", optarg, 0.001, 3600);
			break;
		case MAX:
			opt.max = number("max", optarg, 1, UINT64_MAX);
			break;
		default:
			die("%s", USAGE);
		}
	}
	if (!opt.dev || optind != argc)
		die("%s", USAGE);
	catch_stop_signals();
	if (!strcmp(command, "send"))
		return send_frames();
	if (!strcmp(command, "count"))
		return count_frames();
	if (opt.gso_size && opt.proto != IPPROTO_TCP && opt.proto != IPPROTO_UDP)
		die("--gso-size needs --proto tcp or udp");
	if (!have_macs[0] || !have_macs[1] || !opt.have_src || !opt.have_dst || opt.proto < 0)
		die("%s", USAGE);
	if (opt.src.family != opt.dst.family)
		die("--src and --dst: of one address family");
	if (opt.src.family == AF_INET && (opt.from > MAX_ID || opt.to > MAX_ID))
		die("--from and --to: IP IDs go up to %d", MAX_ID);
	if (opt.src.family == AF_INET6 && opt.proto == IPPROTO_ICMP)
		opt.proto = IPPROTO_ICMPV6;
	return sweep();
}
