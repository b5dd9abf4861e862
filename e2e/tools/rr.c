// SPDX-License-Identifier: Apache-2.0
/*
 * Request/response: the rate and the latency of small exchanges, over TCP (one connection per flow, or with --crr one
 * connection per transaction) or UDP. The client fills each request with content of its own and checks the answer, so
 * that an answer meant for somebody else is noticed. One transaction per flow is outstanding.
 */
#include <fcntl.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include "common.h"

static const char USAGE[] =
	"usage: rr server --tcp|--udp --port P [--bind A] [--size B] [--tag C] [--seconds S]\n"
	"       rr client --tcp|--udp --to A --port P [--count N] [--seconds S] [--size B] [--flows F]\n"
	"                 [--crr [--whole [--requests R]]] [--bind A] [--sport P [--sports N]] [--expect C]\n"
	"                 [--interval-us U] [--timeout-ms T] [--warmup S] [--json]\n"
	"  server: answers each request with its own bytes; --tag C: with every first byte of --size replaced by C\n"
	"  client: ends after --count transactions or --seconds (default 1 s, 3600 at most), whatever comes first\n"
	"  --crr: a new connection for each transaction, by --flows processes at a time (256 at most, without --sport and --count)\n"
	"  --whole: a connection lasts until it is closed, not until its answer: nothing is left out of what it takes\n"
	"  --requests R: a connection lasts for so many requests, one after the other's answer, all of which are one transaction\n"
	"  --sport P: flow i sends from port P+i; with --crr connection i from P + i mod N (--sports, default 10000)\n"
	"  --timeout-ms, of a transaction: UDP: lost, go on with the next; TCP: error, the flow ends. Default 1000\n"
	"  --interval-us: at least this long from one request of a flow to the next\n"
	"  --expect C: the answers must come from the server with this --tag (needs the same --size)\n"
	"  --warmup S: the first S seconds do not count\n"
	"  exit code 1 if no transaction was completed\n";

enum {
	MAX_SIZE = 65000,
	MAX_FLOWS = 20000,
	MAX_PROCESSES = 256,
	SUB_BITS = 11
};

static struct {
	bool udp, crr, whole, json;
	struct address to, bind;
	uint16_t port, sport;
	uint32_t sports, size, flows, requests;
	uint64_t count, interval_ns, timeout_ns;
	double seconds, warmup;
	int tag;
} opt = { .size = 1, .flows = 1, .requests = 1, .sports = 10000, .timeout_ns = NS_PER_S, .tag = -1 };

struct flow {
	int fd;
	uint64_t seq, sent_at, next_at;
	uint32_t received;
	bool waiting;
};

static struct stats {
	uint64_t transactions, timeouts, errors, corrupt, connections;
	/* Of the warm-up, which do not count. */
	uint64_t warmup_transactions;
	uint64_t sum_ns, min_ns, max_ns;
	/* Latencies, log-linear: 2048 steps per power of two (0.05 %). */
	uint64_t buckets[(64 - SUB_BITS + 1) << SUB_BITS];
} stats = { .min_ns = UINT64_MAX };

static char last_error[128];

static void record(uint64_t ns)
{
	int shift = ns >> (SUB_BITS + 1) ? 63 - __builtin_clzll(ns) - SUB_BITS : 0;

	stats.buckets[((uint64_t)shift << SUB_BITS) + (ns >> shift)]++;
	stats.sum_ns += ns;
	if (ns < stats.min_ns)
		stats.min_ns = ns;
	if (ns > stats.max_ns)
		stats.max_ns = ns;
	stats.transactions++;
}

/* Begins the statistics anew; what went wrong so far is kept. */
static void forget(void)
{
	stats.warmup_transactions += stats.transactions;
	memset(stats.buckets, 0, sizeof(stats.buckets));
	stats.transactions = stats.sum_ns = stats.max_ns = 0;
	stats.min_ns = UINT64_MAX;
}

static double quantile_us(double q)
{
	uint64_t rank = (uint64_t)(q * (double)stats.transactions), seen = 0;

	for (size_t i = 0; i < ARRAY_SIZE(stats.buckets); i++) {
		seen += stats.buckets[i];
		if (seen > rank) {
			size_t shift = i >> (SUB_BITS + 1) ? (i >> SUB_BITS) - 1 : 0;
			uint64_t base = (i - (shift << SUB_BITS)) << shift;

			return ((double)base + (double)((1ull << shift) >> 1)) / 1000;
		}
	}
	return 0;
}

static void failed(const char *what)
{
	snprintf(last_error, sizeof(last_error), "%s: %s", what, strerror(errno));
	stats.errors++;
}

/* Socket of flow or connection number `index`, connected; -1 if that failed. */
static int open_flow(uint64_t index)
{
	union socket_address to;
	socklen_t length = socket_address(&opt.to, opt.port, &to);
	uint16_t sport = opt.sport ? (uint16_t)(opt.sport + index % (opt.crr ? opt.sports : opt.flows)) : 0;
	struct timeval limit = { (time_t)(opt.timeout_ns / NS_PER_S), (suseconds_t)(opt.timeout_ns % NS_PER_S / 1000) };
	int fd = bound_socket(opt.udp ? SOCK_DGRAM : SOCK_STREAM, opt.to.family, opt.bind, sport);

	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	if (!opt.udp)
		set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1, "TCP_NODELAY");
	if (connect(fd, &to.any, length)) {
		if (errno == EINPROGRESS)
			errno = ETIMEDOUT; /* SO_SNDTIMEO */
		failed("connect");
		close(fd);
		return -1;
	}
	stats.connections++;
	return fd;
}

static uint64_t content_seed(const struct flow *flows, const struct flow *f)
{
	return ((uint64_t)getpid() << 32) ^ ((uint64_t)(f - flows) << 20) ^ f->seq;
}

/* Sends a request of the transaction that has begun; false if the flow is finished by an error. */
static bool send_request(const struct flow *flows, struct flow *f, uint8_t *buffer)
{
	f->seq++;
	f->received = 0;
	f->waiting = true;
	content_fill(content_seed(flows, f), 0, buffer, opt.size);
	if (send(f->fd, buffer, opt.size, 0) == (ssize_t)opt.size)
		return true;
	failed("send");
	return opt.udp;
}

/* Begins the next transaction; false if the flow is finished by an error. */
static bool begin_transaction(const struct flow *flows, struct flow *f, uint8_t *buffer)
{
	f->sent_at = now_ns();
	if (opt.crr && f->fd < 0) {
		f->fd = open_flow(stats.connections + stats.errors);
		if (f->fd < 0)
			return false;
	}
	return send_request(flows, f, buffer);
}

static bool answer_right(const struct flow *flows, const struct flow *f, const uint8_t *answer, size_t offset, size_t n)
{
	if (opt.tag >= 0 && offset == 0) {
		if (answer[0] != (uint8_t)opt.tag)
			return false;
		answer++;
		offset++;
		n--;
	}
	return content_check(content_seed(flows, f), offset, answer, n) == 0;
}

/* Takes what has arrived; false if the flow is finished by an error. */
static bool take_answer(const struct flow *flows, struct flow *f, uint8_t *buffer, int flags)
{
	ssize_t n = recv(f->fd, buffer, opt.udp ? MAX_SIZE : opt.size - f->received, flags);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return true; /* The deadline decides. */
	if (n <= 0) {
		if (n == 0)
			errno = ECONNRESET;
		failed("receive");
		f->waiting = !opt.udp;
		return opt.udp;
	}
	if (opt.udp && (n != (ssize_t)opt.size || !answer_right(flows, f, buffer, 0, (size_t)n))) {
		/* A late answer to a transaction given up, or somebody else's: both are not ours now. */
		stats.corrupt += stats.timeouts == 0;
		return true;
	}
	if (!opt.udp && !answer_right(flows, f, buffer, f->received, (size_t)n))
		stats.corrupt++;
	f->received += (uint32_t)n;
	if (f->received < opt.size)
		return true;
	if (!opt.whole)
		record(now_ns() - f->sent_at);
	f->waiting = false;
	f->next_at = f->sent_at + opt.interval_ns;
	return true;
}

static void end_connection(struct flow *f)
{
	if (f->fd >= 0)
		close(f->fd);
	f->fd = -1;
}

/* False if the flow is finished by an error. */
static bool check_deadline(struct flow *f, uint64_t now)
{
	if (!f->waiting || now < f->sent_at + opt.timeout_ns)
		return true;
	f->waiting = false;
	f->next_at = 0;
	if (opt.udp) {
		stats.timeouts++;
		return true;
	}
	errno = ETIMEDOUT;
	failed("receive");
	return false;
}

static void report(double seconds)
{
	double rate = (double)stats.transactions / seconds;
	double mean = stats.transactions ? (double)stats.sum_ns / (double)stats.transactions / 1000 : 0;

	if (!opt.json) {
		printf("%llu transactions in %.3f s, %.0f/s, p50 %.1f us, p99 %.1f us, timeouts %llu, errors %llu%s%s, corrupt %llu\n",
		       (unsigned long long)stats.transactions, seconds, rate, quantile_us(0.5), quantile_us(0.99),
		       (unsigned long long)stats.timeouts, (unsigned long long)stats.errors, *last_error ? " " : "",
		       last_error, (unsigned long long)stats.corrupt);
		return;
	}
	printf("{\"transactions\":%llu,\"seconds\":%.6f,\"rate\":%.2f,\"meanUs\":%.2f,\"minUs\":%.2f,\"p50Us\":%.2f,"
	       "\"p90Us\":%.2f,\"p99Us\":%.2f,\"p999Us\":%.2f,\"maxUs\":%.2f,\"timeouts\":%llu,\"errors\":%llu,"
	       "\"corrupt\":%llu,\"connections\":%llu,\"warmupTransactions\":%llu,\"lastError\":\"%s\"}\n",
	       (unsigned long long)stats.transactions, seconds, rate, mean,
	       stats.transactions ? (double)stats.min_ns / 1000 : 0, quantile_us(0.5), quantile_us(0.9),
	       quantile_us(0.99), quantile_us(0.999), (double)stats.max_ns / 1000, (unsigned long long)stats.timeouts,
	       (unsigned long long)stats.errors, (unsigned long long)stats.corrupt,
	       (unsigned long long)stats.connections, (unsigned long long)stats.warmup_transactions, last_error);
}

/*
 * Waits in the receiving call, no event loop in the way, for a flow by itself and for every connection of --crr; false if
 * it is finished by an error.
 */
static bool await_answer(const struct flow *flows, struct flow *f, uint8_t *buffer)
{
	while (f->waiting && !stop_requested)
		if (!take_answer(flows, f, buffer, 0) || !check_deadline(f, now_ns()))
			return false;
	return true;
}

/* Carries a flow on as far as it goes without waiting for others; false if it is finished by an error. */
static bool advance(const struct flow *flows, struct flow *f, uint8_t *buffer, uint64_t now, bool alone)
{
	if (!check_deadline(f, now))
		return false;
	if (f->waiting || f->next_at > now)
		return true;
	if (!begin_transaction(flows, f, buffer))
		return false;
	if (!alone && !opt.crr)
		return true;
	if (!await_answer(flows, f, buffer))
		return false;
	for (uint32_t i = 1; i < opt.requests; i++)
		if (!send_request(flows, f, buffer) || !await_answer(flows, f, buffer))
			return false;
	if (opt.crr)
		end_connection(f);
	/* What the other side does of the end meanwhile, or during the next one, is in one of the two. */
	if (opt.whole && !f->waiting)
		record(now_ns() - f->sent_at);
	return true;
}

/* Runs the client's flows to their end; the seconds that count. */
static double run_flows(void)
{
	struct flow *flows = calloc(opt.flows, sizeof(*flows));
	struct epoll_event events[64];
	bool alone = opt.flows == 1 || opt.crr;
	int poller = epoll_create1(EPOLL_CLOEXEC);
	static uint8_t buffer[MAX_SIZE];
	uint32_t alive = opt.flows;
	uint64_t start, end, warm;

	for (uint32_t i = 0; i < opt.flows; i++) {
		flows[i].fd = opt.crr ? -1 : open_flow(i);
		if (flows[i].fd < 0 && !opt.crr)
			die("flow %u: %s", i, last_error);
		if (!alone) {
			struct epoll_event event = { .events = EPOLLIN, .data.u32 = i };

			epoll_ctl(poller, EPOLL_CTL_ADD, flows[i].fd, &event);
		}
	}
	start = now_ns();
	warm = start + (uint64_t)(opt.warmup * 1e9);
	end = warm + (uint64_t)(opt.seconds * 1e9);
	while (alive && !stop_requested) {
		uint64_t now = now_ns(), next = end;
		bool waiting = false;

		if (warm && now >= warm) {
			forget();
			start = now;
			warm = 0;
		}

		if (now >= end ||
		    (opt.count && !warm && stats.transactions + stats.timeouts + stats.errors >= opt.count))
			break;
		for (uint32_t i = 0; i < opt.flows; i++) {
			struct flow *f = &flows[i];

			if (f->fd < 0 && !opt.crr)
				continue;
			if (!advance(flows, f, buffer, now, alone)) {
				end_connection(f);
				f->waiting = false;
				if (!opt.crr)
					alive--;
				continue;
			}
			waiting |= f->waiting;
			if (!f->waiting && f->next_at < next)
				next = f->next_at;
		}
		if (!alone) {
			int n = epoll_wait(poller, events, ARRAY_SIZE(events), waiting ? 10 : 1);

			for (int i = 0; i < n; i++) {
				struct flow *f = &flows[events[i].data.u32];

				if (f->fd < 0 || take_answer(flows, f, buffer, MSG_DONTWAIT))
					continue;
				end_connection(f);
				alive--;
			}
		} else if (next > now_ns() && !stop_requested) {
			sleep_until_ns(next);
		}
	}
	return (double)(now_ns() - start) / 1e9;
}

static void merge(const struct stats *from)
{
	stats.transactions += from->transactions;
	stats.timeouts += from->timeouts;
	stats.errors += from->errors;
	stats.corrupt += from->corrupt;
	stats.connections += from->connections;
	stats.warmup_transactions += from->warmup_transactions;
	stats.sum_ns += from->sum_ns;
	if (from->min_ns < stats.min_ns)
		stats.min_ns = from->min_ns;
	if (from->max_ns > stats.max_ns)
		stats.max_ns = from->max_ns;
	for (size_t i = 0; i < ARRAY_SIZE(stats.buckets); i++)
		stats.buckets[i] += from->buckets[i];
}

/* What one of several processes tells the first one. */
struct told {
	struct stats stats;
	double seconds;
	char last_error[sizeof(last_error)];
};

/*
 * One flow in each of several processes: every connection waits by itself. The seconds that count: those of the slowest, as
 * one that got no processor until the end has none.
 */
static double run_processes(void)
{
	uint32_t others = opt.flows - 1;
	struct told *told =
		mmap(NULL, others * sizeof(*told), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	double seconds;
	int status;

	if (told == MAP_FAILED)
		die("mmap: %s", strerror(errno));
	opt.flows = 1;
	for (uint32_t i = 0; i < others; i++) {
		pid_t pid = fork();

		if (pid < 0)
			die("fork: %s", strerror(errno));
		if (pid == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			told[i].seconds = run_flows();
			told[i].stats = stats;
			memcpy(told[i].last_error, last_error, sizeof(last_error));
			_exit(0);
		}
	}
	seconds = run_flows();
	for (uint32_t i = 0; i < others; i++)
		if (wait(&status) > 0 && status)
			die("one of the processes ended with status %d", status);
	for (uint32_t i = 0; i < others; i++) {
		merge(&told[i].stats);
		if (told[i].seconds > seconds)
			seconds = told[i].seconds;
		if (told[i].last_error[0])
			memcpy(last_error, told[i].last_error, sizeof(last_error));
	}
	return seconds;
}

static int client(void)
{
	report(opt.crr && opt.flows > 1 ? run_processes() : run_flows());
	return stats.transactions ? 0 : 1;
}

/* Per-connection state of the server: where in the --size raster the stream stands. */
static uint32_t *stream_offset;

static void tag_answer(uint8_t *bytes, size_t n, uint32_t *offset)
{
	for (size_t i = 0; i < n; i++, *offset = (*offset + 1) % opt.size)
		if (opt.tag >= 0 && *offset == 0)
			bytes[i] = (uint8_t)opt.tag;
}

static void serve_datagram(int fd, uint8_t *buffer)
{
	union socket_address from;
	socklen_t length = sizeof(from);
	ssize_t n = recvfrom(fd, buffer, MAX_SIZE, MSG_DONTWAIT, &from.any, &length);
	uint32_t offset = 0;

	if (n < 0)
		return;
	if (opt.tag >= 0 && n > 0)
		tag_answer(buffer, 1, &offset);
	sendto(fd, buffer, (size_t)n, 0, &from.any, length);
}

/* False once the connection has ended. */
static bool serve_stream(int fd, uint8_t *buffer)
{
	ssize_t n = recv(fd, buffer, MAX_SIZE, MSG_DONTWAIT);

	if (n < 0)
		return errno == EAGAIN || errno == EINTR;
	if (n == 0)
		return false;
	if (opt.tag >= 0)
		tag_answer(buffer, (size_t)n, &stream_offset[fd]);
	return send(fd, buffer, (size_t)n, 0) == n;
}

static int server(void)
{
	enum {
		MAX_FD = 65536
	};
	static uint8_t buffer[MAX_SIZE];
	struct epoll_event events[64];
	int poller = epoll_create1(EPOLL_CLOEXEC);
	int listener = bound_socket(opt.udp ? SOCK_DGRAM : SOCK_STREAM, AF_UNSPEC, opt.bind, opt.port);
	struct epoll_event event = { .events = EPOLLIN, .data.fd = listener };
	uint64_t end = now_ns() + (uint64_t)(opt.seconds * 1e9);

	stream_offset = calloc(MAX_FD, sizeof(*stream_offset));
	if (!opt.udp && listen(listener, 4096))
		die("listen: %s", strerror(errno));
	epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event);
	printf("ready\n");
	fflush(stdout);
	while (!stop_requested && now_ns() < end) {
		int n = epoll_wait(poller, events, ARRAY_SIZE(events), 1000);

		for (int i = 0; i < n; i++) {
			int fd = events[i].data.fd;

			if (fd != listener) {
				if (!serve_stream(fd, buffer))
					close(fd);
			} else if (opt.udp) {
				serve_datagram(fd, buffer);
			} else {
				int accepted = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

				if (accepted < 0)
					continue;
				if (accepted >= MAX_FD) {
					close(accepted);
					continue;
				}
				stream_offset[accepted] = 0;
				set_int(accepted, IPPROTO_TCP, TCP_NODELAY, 1, "TCP_NODELAY");
				event.data.fd = accepted;
				epoll_ctl(poller, EPOLL_CTL_ADD, accepted, &event);
			}
		}
	}
	return 0;
}

int main(int argc, char **argv)
{
	enum {
		TCP = 1,
		UDP,
		PORT,
		BIND,
		TO,
		COUNT,
		SECONDS,
		SIZE,
		FLOWS,
		CRR,
		WHOLE,
		REQUESTS,
		SPORT,
		SPORTS,
		TAG,
		EXPECT,
		INTERVAL,
		TIMEOUT,
		WARMUP,
		JSON
	};
	static const struct option options[] = {
		{ "tcp", 0, 0, TCP },
		{ "udp", 0, 0, UDP },
		{ "port", 1, 0, PORT },
		{ "bind", 1, 0, BIND },
		{ "to", 1, 0, TO },
		{ "count", 1, 0, COUNT },
		{ "seconds", 1, 0, SECONDS },
		{ "size", 1, 0, SIZE },
		{ "flows", 1, 0, FLOWS },
		{ "crr", 0, 0, CRR },
		{ "whole", 0, 0, WHOLE },
		{ "requests", 1, 0, REQUESTS },
		{ "sport", 1, 0, SPORT },
		{ "sports", 1, 0, SPORTS },
		{ "tag", 1, 0, TAG },
		{ "expect", 1, 0, EXPECT },
		{ "interval-us", 1, 0, INTERVAL },
		{ "timeout-ms", 1, 0, TIMEOUT },
		{ "warmup", 1, 0, WARMUP },
		{ "json", 0, 0, JSON },
		{ 0 },
	};
	bool is_server = argc > 1 && !strcmp(argv[1], "server"), is_client = argc > 1 && !strcmp(argv[1], "client");
	bool tcp = false;
	int option;

	if (!is_server && !is_client)
		die("%s", USAGE);
	optind = 2;
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case TCP:
			tcp = true;
			break;
		case UDP:
			opt.udp = true;
			break;
		case PORT:
			opt.port = (uint16_t)number("port", optarg, 1, 65535);
			break;
		case BIND:
			opt.bind = address("bind", optarg);
			break;
		case TO:
			opt.to = address("to", optarg);
			break;
		case COUNT:
			opt.count = number("count", optarg, 1, UINT64_MAX);
			break;
		case SECONDS:
			opt.seconds = real("seconds", optarg, 0.001, 3600);
			break;
		case SIZE:
			opt.size = (uint32_t)number("size", optarg, 1, MAX_SIZE);
			break;
		case FLOWS:
			opt.flows = (uint32_t)number("flows", optarg, 1, MAX_FLOWS);
			break;
		case CRR:
			opt.crr = true;
			break;
		case WHOLE:
			opt.whole = true;
			break;
		case REQUESTS:
			opt.requests = (uint32_t)number("requests", optarg, 1, 1000000);
			break;
		case SPORT:
			opt.sport = (uint16_t)number("sport", optarg, 1, 65535);
			break;
		case SPORTS:
			opt.sports = (uint32_t)number("sports", optarg, 1, 64000);
			break;
		case TAG:
		case EXPECT:
			opt.tag = (uint8_t)optarg[0];
			break;
		case INTERVAL:
			opt.interval_ns = number("interval-us", optarg, 0, 3600000000ull) * 1000;
			break;
		case TIMEOUT:
			opt.timeout_ns = number("timeout-ms", optarg, 1, 3600000) * 1000000;
			break;
		case WARMUP:
			opt.warmup = real("warmup", optarg, 0, 3600);
			break;
		case JSON:
			opt.json = true;
			break;
		default:
			die("%s", USAGE);
		}
	}
	if (tcp == opt.udp || !opt.port || optind != argc || (is_client && !opt.to.family) || (opt.whole && !opt.crr) ||
	    (opt.requests > 1 && !opt.whole) ||
	    (opt.crr && (opt.udp || (opt.flows > 1 && (opt.sport || opt.count || opt.flows > MAX_PROCESSES)))))
		die("%s", USAGE);
	if (!opt.seconds)
		opt.seconds = is_server || opt.count ? 3600 : 1;
	catch_stop_signals();
	return is_server ? server() : client();
}
