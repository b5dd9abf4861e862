/* SPDX-License-Identifier: Apache-2.0 */
/* What the traffic tools share: option values, time, test content, sockets. IPv4 only. */
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

static inline struct in_addr address(const char *name, const char *text)
{
	struct in_addr a;

	if (inet_pton(AF_INET, text, &a) != 1)
		die("--%s %s: not an IPv4 address", name, text);
	return a;
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

/* A socket of `type` bound to `addr`:`port` (port 0: any). */
static inline int bound_socket(int type, struct in_addr addr, uint16_t port)
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_addr = addr, .sin_port = htons(port) };
	int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);

	if (fd < 0)
		die("socket: %s", strerror(errno));
	/* For TCP only: two UDP sockets with it may be given the same port and then share its datagrams. */
	if (type == SOCK_STREAM)
		set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1, "SO_REUSEADDR");
	if ((port || addr.s_addr) && bind(fd, (struct sockaddr *)&sa, sizeof(sa)))
		die("bind %s:%u: %s", inet_ntoa(addr), port, strerror(errno));
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
