// SPDX-License-Identifier: Apache-2.0
/*
 * A detour that takes time: makes a TUN device and gives each packet routed into it back after a fixed delay. A router
 * that sends some packets here lets others overtake them (kernels without netem have no other way to reorder).
 */
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sys/ioctl.h>
#include "common.h"

static const char USAGE[] =
	"usage: delay --tun NAME --ms N    (0 to 10000; 8192 packets wait at most, more are dropped)\n";

enum {
	QUEUE = 8192,
	MAX_PACKET = 65536
};

static struct {
	uint64_t due;
	uint8_t *bytes;
	size_t length;
} queue[QUEUE];

int main(int argc, char **argv)
{
	static const struct option options[] = { { "tun", 1, 0, 1 }, { "ms", 1, 0, 2 }, { 0 } };
	static uint8_t packet[MAX_PACKET];
	struct ifreq request = { .ifr_flags = IFF_TUN | IFF_NO_PI };
	unsigned int first = 0, waiting = 0;
	uint64_t delay = 0, passed = 0, dropped = 0;
	int option, fd;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (option == 1 && strlen(optarg) < IFNAMSIZ)
			strcpy(request.ifr_name, optarg);
		else if (option == 2)
			delay = number("ms", optarg, 0, 10000) * 1000000;
		else
			die("%s", USAGE);
	}
	if (!*request.ifr_name || optind != argc)
		die("%s", USAGE);
	fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0 || ioctl(fd, TUNSETIFF, &request))
		die("TUN device %s: %s", request.ifr_name, strerror(errno));
	catch_stop_signals();
	printf("ready\n");
	fflush(stdout);
	while (!stop_requested) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		uint64_t now = now_ns();
		struct timespec wait = { 0, 100000000 };
		ssize_t n;

		while (waiting && queue[first].due <= now) {
			if (write(fd, queue[first].bytes, queue[first].length) > 0)
				passed++;
			else
				dropped++;
			free(queue[first].bytes);
			first = (first + 1) % QUEUE;
			waiting--;
		}
		if (waiting && queue[first].due - now < 100000000)
			wait.tv_nsec = (long)(queue[first].due - now);
		if (ppoll(&p, 1, &wait, NULL) <= 0)
			continue;
		while ((n = read(fd, packet, sizeof(packet))) > 0) {
			unsigned int slot = (first + waiting) % QUEUE;

			if (waiting == QUEUE) {
				dropped++;
				continue;
			}
			queue[slot].bytes = malloc((size_t)n);
			if (!queue[slot].bytes)
				die("out of memory");
			memcpy(queue[slot].bytes, packet, (size_t)n);
			queue[slot].length = (size_t)n;
			queue[slot].due = now_ns() + delay;
			waiting++;
		}
	}
	printf("{\"passed\":%llu,\"dropped\":%llu}\n", (unsigned long long)passed, (unsigned long long)dropped);
	return 0;
}
