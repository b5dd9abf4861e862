// SPDX-License-Identifier: Apache-2.0
/*
 * SCTP echo in user space (libusrsctp over raw IP): for kernels without SCTP. The kernel's conntrack and the underlay
 * see real SCTP packets.
 */
#include <usrsctp.h>
#include "common.h"

static const char USAGE[] =
	"usage: sctp server --bind A --port P [--seconds S]\n"
	"       sctp client --bind A --to A --port P [--sport P] [--count N] [--size B] [--interval-ms M] [--timeout-ms T]\n"
	"                   [--abort]\n"
	"  server: sends each message back, until --seconds (default 3600) or SIGTERM\n"
	"  client: --count messages (default 10) of --size bytes (default 100), one at a time, each answer checked;\n"
	"          an answer not there after --timeout-ms (default 5000) ends it. --abort: ABORT instead of SHUTDOWN\n";

enum {
	MAX_SIZE = 60000,
	PACKET_SIZE = 1280
};

static struct {
	struct address bind, to;
	uint16_t port, sport;
	uint32_t count, size, interval_ms, timeout_ms;
	bool abort;
	double seconds;
} opt = { .count = 10, .size = 100, .timeout_ms = 5000, .seconds = 3600 };

static struct socket *sctp_socket(const struct address *addr, uint16_t port)
{
	union socket_address sa;
	socklen_t length = socket_address(addr, port, &sa);
	struct socket *sock = usrsctp_socket(addr->family, SOCK_STREAM, IPPROTO_SCTP, NULL, NULL, 0, NULL);
	/* The library takes 1500 for granted and sends what a pod's device refuses: a fixed, smaller packet size instead. */
	struct sctp_paddrparams path = { .spp_flags = SPP_PMTUD_DISABLE, .spp_pathmtu = PACKET_SIZE };
	int on = 1;

	if (!sock)
		die("usrsctp_socket: %s", strerror(errno));
	path.spp_address.ss_family = addr->family;
	if (usrsctp_setsockopt(sock, IPPROTO_SCTP, SCTP_PEER_ADDR_PARAMS, &path, sizeof(path)))
		die("SCTP_PEER_ADDR_PARAMS: %s", strerror(errno));
	if (usrsctp_bind(sock, &sa.any, length))
		die("bind %s port %u: %s", address_text(addr), port, strerror(errno));
	usrsctp_setsockopt(sock, IPPROTO_SCTP, SCTP_NODELAY, &on, sizeof(on));
	return sock;
}

/*
 * One attempt, and more until the deadline: non-blocking with polling, because usrsctp has no time-outs of its own and
 * nothing here is about speed.
 */
static ssize_t receive(struct socket *sock, uint8_t *to, size_t room, uint64_t deadline)
{
	for (;;) {
		union socket_address from;
		socklen_t from_length = sizeof(from), info_length = 0;
		unsigned int info_type = 0;
		int flags = 0;
		ssize_t n =
			usrsctp_recvv(sock, to, room, &from.any, &from_length, NULL, &info_length, &info_type, &flags);

		if (n >= 0 || (errno != EAGAIN && errno != EWOULDBLOCK))
			return n;
		if (stop_requested || now_ns() >= deadline)
			break;
		usleep(500);
	}
	errno = ETIMEDOUT;
	return -1;
}

static int server(void)
{
	struct socket *listener = sctp_socket(&opt.bind, opt.port);
	static uint8_t buffer[MAX_SIZE];
	uint64_t end = now_ns() + (uint64_t)(opt.seconds * 1e9);
	struct socket *peers[64];
	size_t count = 0;

	if (usrsctp_listen(listener, 16))
		die("listen: %s", strerror(errno));
	usrsctp_set_non_blocking(listener, 1);
	printf("ready\n");
	fflush(stdout);
	while (!stop_requested && now_ns() < end) {
		struct socket *accepted = count < ARRAY_SIZE(peers) ? usrsctp_accept(listener, NULL, NULL) : NULL;

		if (accepted) {
			int on = 1;

			usrsctp_set_non_blocking(accepted, 1);
			usrsctp_setsockopt(accepted, IPPROTO_SCTP, SCTP_NODELAY, &on, sizeof(on));
			peers[count++] = accepted;
		}
		for (size_t i = 0; i < count; i++) {
			ssize_t n = receive(peers[i], buffer, sizeof(buffer), 0);

			if (n > 0) {
				usrsctp_sendv(peers[i], buffer, (size_t)n, NULL, 0, NULL, 0, SCTP_SENDV_NOINFO, 0);
			} else if (n == 0 || errno != ETIMEDOUT) {
				usrsctp_close(peers[i]);
				peers[i--] = peers[--count];
			}
		}
		usleep(500);
	}
	return 0;
}

static int client(void)
{
	union socket_address to;
	socklen_t to_length = socket_address(&opt.to, opt.port, &to);
	static uint8_t request[MAX_SIZE], answer[MAX_SIZE];
	struct socket *sock = sctp_socket(&opt.bind, opt.sport);
	uint64_t seed = now_ns(), start = seed;
	uint32_t sent = 0, received = 0, corrupt = 0;
	char error[96] = "";
	struct sctp_initmsg init = { .sinit_num_ostreams = 1, .sinit_max_instreams = 1, .sinit_max_attempts = 3 };

	usrsctp_setsockopt(sock, IPPROTO_SCTP, SCTP_INITMSG, &init, sizeof(init));
	if (usrsctp_connect(sock, &to.any, to_length))
		die("connect %s port %u: %s", address_text(&opt.to), opt.port, strerror(errno));
	usrsctp_set_non_blocking(sock, 1);
	while (sent < opt.count && !stop_requested) {
		uint64_t deadline = now_ns() + (uint64_t)opt.timeout_ms * 1000000;
		size_t got = 0;

		content_fill(seed, (uint64_t)sent * opt.size, request, opt.size);
		if (usrsctp_sendv(sock, request, opt.size, NULL, 0, NULL, 0, SCTP_SENDV_NOINFO, 0) < 0) {
			snprintf(error, sizeof(error), "send: %s", strerror(errno));
			break;
		}
		sent++;
		while (got < opt.size) {
			ssize_t n = receive(sock, answer + got, sizeof(answer) - got, deadline);

			if (n <= 0) {
				snprintf(error, sizeof(error), "receive: %s", n ? strerror(errno) : "closed");
				break;
			}
			got += (size_t)n;
		}
		if (got < opt.size)
			break;
		received++;
		corrupt += got != opt.size || memcmp(request, answer, opt.size) != 0;
		if (opt.interval_ms)
			usleep(opt.interval_ms * 1000);
	}
	if (opt.abort) {
		struct linger linger = { 1, 0 };

		usrsctp_setsockopt(sock, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
	}
	usrsctp_close(sock);
	usleep(300000); /* The stack lives in this process: give SHUTDOWN or ABORT time to leave. */
	printf("{\"sent\":%u,\"received\":%u,\"corrupt\":%u,\"seconds\":%.6f,\"error\":\"%s\"}\n", sent, received,
	       corrupt, (double)(now_ns() - start) / 1e9, error);
	return received == opt.count && !corrupt ? 0 : 1;
}

int main(int argc, char **argv)
{
	enum {
		BIND = 1,
		TO,
		PORT,
		SPORT,
		COUNT,
		SIZE,
		INTERVAL,
		TIMEOUT,
		ABORT,
		SECONDS
	};
	static const struct option options[] = {
		{ "bind", 1, 0, BIND },
		{ "to", 1, 0, TO },
		{ "port", 1, 0, PORT },
		{ "sport", 1, 0, SPORT },
		{ "count", 1, 0, COUNT },
		{ "size", 1, 0, SIZE },
		{ "interval-ms", 1, 0, INTERVAL },
		{ "timeout-ms", 1, 0, TIMEOUT },
		{ "abort", 0, 0, ABORT },
		{ "seconds", 1, 0, SECONDS },
		{ 0 },
	};
	bool is_server = argc > 1 && !strcmp(argv[1], "server"), is_client = argc > 1 && !strcmp(argv[1], "client");
	int option, result;

	if (!is_server && !is_client)
		die("%s", USAGE);
	optind = 2;
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case BIND:
			opt.bind = address("bind", optarg);
			break;
		case TO:
			opt.to = address("to", optarg);
			break;
		case PORT:
			opt.port = (uint16_t)number("port", optarg, 1, 65535);
			break;
		case SPORT:
			opt.sport = (uint16_t)number("sport", optarg, 1, 65535);
			break;
		case COUNT:
			opt.count = (uint32_t)number("count", optarg, 1, 1000000);
			break;
		case SIZE:
			opt.size = (uint32_t)number("size", optarg, 1, MAX_SIZE);
			break;
		case INTERVAL:
			opt.interval_ms = (uint32_t)number("interval-ms", optarg, 0, 3600000);
			break;
		case TIMEOUT:
			opt.timeout_ms = (uint32_t)number("timeout-ms", optarg, 1, 3600000);
			break;
		case ABORT:
			opt.abort = true;
			break;
		case SECONDS:
			opt.seconds = real("seconds", optarg, 0.001, 3600);
			break;
		default:
			die("%s", USAGE);
		}
	}
	if (!opt.port || !opt.bind.family || optind != argc || (is_client && opt.to.family != opt.bind.family))
		die("%s", USAGE);
	catch_stop_signals();
	usrsctp_init(0, NULL, NULL);
	usrsctp_sysctl_set_sctp_ecn_enable(0);
	result = is_server ? server() : client();
	fflush(stdout);
	_exit(result); /* usrsctp_finish would wait for associations that nobody ends any more. */
}
