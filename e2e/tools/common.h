/* SPDX-License-Identifier: Apache-2.0 */
/* What the traffic tools share: option values, time, test content, addresses and sockets of both families. */
#pragma once
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define NS_PER_S 1000000000ull

static void __attribute__((noreturn, format(printf, 1, 2))) die(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	exit(1);
}

static inline uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

static inline void sleep_until_ns(uint64_t when)
{
	struct timespec ts = { (time_t)(when / NS_PER_S), (long)(when % NS_PER_S) };

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL) == EINTR)
		;
}

/* A whole number in [low, high], with k, M, G as decimal suffixes; anything else ends the program. */
static inline uint64_t number(const char *name, const char *text, uint64_t low, uint64_t high)
{
	char *end;
	unsigned long long value;

	errno = 0;
	value = strtoull(text, &end, 0);
	if (end != text && (*end == 'k' || *end == 'M' || *end == 'G')) {
		value *= *end == 'k' ? 1000ull : *end == 'M' ? 1000000ull : 1000000000ull;
		end++;
	}
	if (errno || end == text || *end || *text == '-' || value < low || value > high)
		die("--%s %s: a number from %llu to %llu is needed", name, text, (unsigned long long)low,
		    (unsigned long long)high);
	return value;
}

static inline double real(const char *name, const char *text, double low, double high)
{
	char *end;
	double value = strtod(text, &end);

	if (end == text || *end || !(value >= low && value <= high))
		die("--%s %s: a number from %g to %g is needed", name, text, low, high);
	return value;
}

/* An IPv4 or IPv6 address; AF_UNSPEC: none was given. */
struct address {
	sa_family_t family;
	union {
		struct in_addr v4;
		struct in6_addr v6;
	};
};

/* The same with a port, as socket calls take it. */
union socket_address {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

static inline struct address address(const char *name, const char *text)
{
	struct address a = { .family = strchr(text, ':') ? AF_INET6 : AF_INET };

	if (inet_pton(a.family, text, &a.v6) != 1)
		die("--%s %s: not an IPv4 or IPv6 address", name, text);
	return a;
}

/* For messages; the text lives until the next call. */
static inline const char *address_text(const struct address *a)
{
	static char text[INET6_ADDRSTRLEN];

	return a->family == AF_UNSPEC ? "any" : inet_ntop(a->family, &a->v6, text, sizeof(text));
}

/* Length of the part of `to` that was written; the family must be known. */
static inline socklen_t socket_address(const struct address *a, uint16_t port, union socket_address *to)
{
	memset(to, 0, sizeof(*to));
	to->any.sa_family = a->family;
	if (a->family == AF_INET6) {
		to->v6.sin6_addr = a->v6;
		to->v6.sin6_port = htons(port);
		return sizeof(to->v6);
	}
	to->v4.sin_addr = a->v4;
	to->v4.sin_port = htons(port);
	return sizeof(to->v4);
}

/* Word number `index` of the test content of `seed` (splitmix64): any place of a stream can be checked by itself. */
static inline uint64_t content_word(uint64_t seed, uint64_t index)
{
	uint64_t z = seed + (index + 1) * 0x9e3779b97f4a7c15ull;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

/* Fills `length` bytes of the content that begin at byte `offset`. */
static inline void content_fill(uint64_t seed, uint64_t offset, uint8_t *to, size_t length)
{
	while (length) {
		uint64_t word = content_word(seed, offset / 8);
		size_t skip = offset % 8, n = 8 - skip < length ? 8 - skip : length;

		memcpy(to, (uint8_t *)&word + skip, n);
		to += n;
		offset += n;
		length -= n;
	}
}

/* Number of bytes that differ from the content. */
static inline uint64_t content_check(uint64_t seed, uint64_t offset, const uint8_t *from, size_t length)
{
	uint64_t wrong = 0;

	while (length) {
		uint64_t word = content_word(seed, offset / 8);
		size_t skip = offset % 8, n = 8 - skip < length ? 8 - skip : length;

		if (memcmp(from, (uint8_t *)&word + skip, n))
			for (size_t i = 0; i < n; i++)
				wrong += from[i] != ((uint8_t *)&word)[skip + i];
		from += n;
		offset += n;
		length -= n;
	}
	return wrong;
}

static inline void set_int(int fd, int level, int option, int value, const char *what)
{
	if (setsockopt(fd, level, option, &value, sizeof(value)))
		die("cannot set %s to %d: %s", what, value, strerror(errno));
}

/* AF_INET or AF_INET6. */
static inline int socket_family(int fd)
{
	int family = 0;
	socklen_t length = sizeof(family);

	if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &length))
		die("cannot read SO_DOMAIN: %s", strerror(errno));
	return family;
}

/* The whole byte: TOS, or traffic class. */
static inline void set_tos(int fd, int tos)
{
	if (socket_family(fd) == AF_INET6)
		set_int(fd, IPPROTO_IPV6, IPV6_TCLASS, tos, "IPV6_TCLASS");
	else
		set_int(fd, IPPROTO_IP, IP_TOS, tos, "IP_TOS");
}

/* A socket of `type` bound to `addr`:`port` (port 0: any), for talking to peers of `family` (AF_UNSPEC: `addr`'s, or IPv4). */
static inline int bound_socket(int type, sa_family_t family, struct address addr, uint16_t port)
{
	union socket_address sa;
	bool any = addr.family == AF_UNSPEC;
	socklen_t length;
	int fd;

	if (family == AF_UNSPEC)
		family = any ? AF_INET : addr.family;
	if (any)
		addr.family = family; /* 0.0.0.0 or :: */
	if (addr.family != family)
		die("--bind %s: not of the peer's address family", address_text(&addr));
	fd = socket(family, type | SOCK_CLOEXEC, 0);
	if (fd < 0)
		die("socket: %s", strerror(errno));
	/* For TCP only: two UDP sockets with it may be given the same port and then share its datagrams. */
	if (type == SOCK_STREAM)
		set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1, "SO_REUSEADDR");
	length = socket_address(&addr, port, &sa);
	if ((port || !any) && bind(fd, &sa.any, length))
		die("bind %s port %u: %s", address_text(&addr), port, strerror(errno));
	return fd;
}

static volatile sig_atomic_t stop_requested;

static inline void on_stop_signal(int signal)
{
	(void)signal;
	stop_requested = 1;
}

/* SIGTERM and SIGINT end the tool by its regular way; system calls are interrupted. SIGPIPE becomes EPIPE. */
static inline void catch_stop_signals(void)
{
	struct sigaction action = { .sa_handler = on_stop_signal };

	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGINT, &action, NULL);
	signal(SIGPIPE, SIG_IGN);
}
