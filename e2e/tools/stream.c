// SPDX-License-Identifier: Apache-2.0
/*
 * Verified transfer. TCP: content in one or both directions, every byte checked, the receiver's findings sent back at
 * the end. UDP: numbered datagrams at a given rate, one way or answered, with loss, duplicates and reordering counted
 * on both ends. The client prints one JSON object for both ends.
 */
#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include "common.h"
#include "repair.h"

static const char USAGE[] =
	"usage: stream server --tcp|--udp --port P [--bind A] [--seconds S]\n"
	"       stream client --tcp --to A --port P [--up N | --seconds S] [--down N] [--send-size B] [--rate BYTES/S]\n"
	"                     [--pause-after N --pause-ms M] [--rst|--server-rst] [--hold-ms M] [--mss B]\n"
	"                     [--jump N [--jump-ms M]] [socket options]\n"
	"       stream client --udp --to A --port P [--rate PPS] [--count N | --seconds S] [--size B] [--reply]\n"
	"                     [--gso SEGMENTS] [socket options]\n"
	"  socket options: [--bind A] [--sport P] [--tos T] [--ttl T] [--df do|dont|want|probe]; tos, ttl also for what the server sends (UDP: tos)\n"
	"  --up/--down: bytes the client/server sends (default up 1M); the client half-closes after its last byte\n"
	"  --rst: abort with RST when all data has arrived instead of closing; --hold-ms: stay idle that long before that\n"
	"  --server-rst: the same, but the server aborts\n"
	"  --pause-after N --pause-ms M: after N bytes send nothing for M ms (an idle, open connection)\n"
	"  --jump N: after M ms (default 500) of single bytes to and fro, both ends move their sequence numbers on as if N\n"
	"         more bytes had been sent each way (TCP_REPAIR); then the transfer begins\n"
	"  --rate: 0 (TCP default) as fast as possible; UDP default 1000 datagrams/s\n"
	"  --gso N: send N datagrams in one call with UDP_SEGMENT\n"
	"  --stall-s S: give up after S seconds without progress (default 20)\n"
	"  exit code 0: everything arrived and was right (UDP: nothing corrupt and something arrived)\n";

enum {
	MAX_SEND = 1 << 20,
	MAX_CHILDREN = 256,
	MAX_SESSIONS = 1024,
	MAX_DATAGRAM = 65507
};
#define MAX_SEQUENCE (1ull << 26)
#define TCP_MAGIC 0x786c747374726d31ull
#define UDP_MAGIC 0x786c7564
#define NO_END UINT64_MAX

static struct {
	bool udp, rst, server_rst, reply;
	struct address to, bind;
	uint16_t port, sport;
	uint64_t up, down, rate, count, pause_after, stall_ns;
	uint64_t jump;
	uint32_t send_size, size, pause_ms, hold_ms, gso, jump_ms;
	int tos, ttl, df, mss;
	double seconds;
} opt = { .up = NO_END,
	  .send_size = 65536,
	  .size = 100,
	  .rate = NO_END,
	  .tos = -1,
	  .ttl = -1,
	  .df = -1,
	  .stall_ns = 20 * NS_PER_S,
	  .pause_after = NO_END,
	  .jump_ms = 500 };

/* What the client tells the server at the start of a connection. Both ends have the same byte order. */
struct hello {
	uint64_t magic, seed, up, down, rate, jump;
	uint32_t send_size;
	int32_t tos, ttl;
	uint32_t hold_ms, rst, server_rst;
};

/* What the server tells the client at the end. */
struct findings {
	uint64_t received, corrupt, retransmits, max_gap_ns;
};

static void apply_ip_options(int fd, int tos, int ttl)
{
	bool v6 = socket_family(fd) == AF_INET6;

	if (tos >= 0)
		set_tos(fd, tos);
	if (ttl > 0 && v6)
		set_int(fd, IPPROTO_IPV6, IPV6_UNICAST_HOPS, ttl, "IPV6_UNICAST_HOPS");
	else if (ttl > 0)
		set_int(fd, IPPROTO_IP, IP_TTL, ttl, "IP_TTL");
	/* The values are the same for both. */
	if (opt.df >= 0 && v6)
		set_int(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, opt.df, "IPV6_MTU_DISCOVER");
	else if (opt.df >= 0)
		set_int(fd, IPPROTO_IP, IP_MTU_DISCOVER, opt.df, "IP_MTU_DISCOVER");
}

/* ---- TCP ---- */

struct transfer {
	int fd;
	uint64_t seed_out, seed_in;
	uint64_t out_total, sent;    /* out_total NO_END: until `end` */
	uint64_t in_total, received; /* in_total NO_END: until the peer half-closes */
	uint64_t corrupt, last_arrival, max_gap_ns;
	uint64_t rate, start, end;
	uint32_t send_size;
	uint64_t pause_after, pause_until;
	uint32_t pause_ms;
	struct findings peer; /* appended by the server to what it sends */
	size_t peer_bytes;
	bool is_client, out_done, in_done;
	char error[96];
};

static bool transfer_error(struct transfer *t, const char *what)
{
	snprintf(t->error, sizeof(t->error), "%s: %s", what, strerror(errno));
	return false;
}

static uint64_t total_retransmits(int fd, struct tcp_info *info)
{
	socklen_t length = sizeof(*info);

	memset(info, 0, sizeof(*info));
	getsockopt(fd, IPPROTO_TCP, TCP_INFO, info, &length);
	return info->tcpi_total_retrans;
}

/* When the next byte may be sent; 0 now, NO_END never. */
static uint64_t may_send_at(struct transfer *t, uint64_t now)
{
	if (t->out_done)
		return NO_END;
	if (t->pause_after <= t->sent) {
		t->pause_after = NO_END;
		t->pause_until = now + (uint64_t)t->pause_ms * 1000000;
	}
	if (t->pause_until > now)
		return t->pause_until;
	if (t->rate) {
		uint64_t due = t->start + (uint64_t)((double)t->sent / (double)t->rate * 1e9);

		if (due > now)
			return due;
	}
	return 0;
}

static bool send_some(struct transfer *t, uint8_t *buffer, uint64_t now)
{
	uint64_t left = t->out_total == NO_END ? (now < t->end ? NO_END : 0) : t->out_total - t->sent;
	size_t n = left < t->send_size ? (size_t)left : t->send_size;
	ssize_t done;

	if (t->pause_after != NO_END && t->pause_after > t->sent && n > t->pause_after - t->sent)
		n = (size_t)(t->pause_after - t->sent);
	if (!n) {
		t->out_done = true;
		if (t->is_client && !opt.rst)
			shutdown(t->fd, SHUT_WR);
		return true;
	}
	content_fill(t->seed_out, t->sent, buffer, n);
	done = send(t->fd, buffer, n, MSG_DONTWAIT);
	if (done < 0)
		return errno == EAGAIN || errno == EINTR || transfer_error(t, "send");
	t->sent += (uint64_t)done;
	return true;
}

static bool receive_some(struct transfer *t, uint8_t *buffer, uint64_t now)
{
	ssize_t n = recv(t->fd, buffer, MAX_SEND, MSG_DONTWAIT);
	size_t content;

	if (n < 0)
		return errno == EAGAIN || errno == EINTR || transfer_error(t, "receive");
	if (n == 0) {
		t->in_done = true;
		if (t->in_total != NO_END && t->received < t->in_total) {
			errno = ECONNABORTED;
			return transfer_error(t, "peer closed too early");
		}
		return true;
	}
	if (t->last_arrival && now - t->last_arrival > t->max_gap_ns)
		t->max_gap_ns = now - t->last_arrival;
	t->last_arrival = now;
	content = t->in_total != NO_END && (uint64_t)n > t->in_total - t->received ?
			  (size_t)(t->in_total - t->received) :
			  (size_t)n;
	t->corrupt += content_check(t->seed_in, t->received, buffer, content);
	t->received += content;
	for (size_t i = content; i < (size_t)n && t->peer_bytes < sizeof(t->peer); i++)
		((uint8_t *)&t->peer)[t->peer_bytes++] = buffer[i];
	/* A client that will abort does not half-close, nor does its server: both know the end by the number of bytes. */
	if (t->is_client ? opt.rst && t->peer_bytes == sizeof(t->peer) : t->received == t->in_total)
		t->in_done = true;
	return true;
}

static bool run_transfer(struct transfer *t)
{
	static uint8_t buffer[MAX_SEND];
	uint64_t progress = now_ns(), mark = 0;

	t->start = progress;
	while (!(t->out_done && t->in_done)) {
		uint64_t now = now_ns(), at = may_send_at(t, now);
		struct pollfd p = { .fd = t->fd, .events = (short)((t->in_done ? 0 : POLLIN) | (at ? 0 : POLLOUT)) };
		struct timespec wait = { 0, 100000000 };

		if (stop_requested) {
			errno = EINTR;
			return transfer_error(t, "stopped");
		}
		if (t->sent + t->received + t->peer_bytes != mark || t->pause_until > now) {
			mark = t->sent + t->received + t->peer_bytes;
			progress = now;
		} else if (now - progress > opt.stall_ns) {
			errno = ETIMEDOUT;
			return transfer_error(t, "stalled");
		}
		if (at && at != NO_END && at - now < 100000000)
			wait.tv_nsec = (long)(at - now);
		if (ppoll(&p, 1, &wait, NULL) < 0)
			continue;
		if ((p.revents & (POLLIN | POLLHUP | POLLERR)) && !t->in_done && !receive_some(t, buffer, now_ns()))
			return false;
		if (t->in_done && (p.revents & (POLLHUP | POLLERR)) && !t->out_done)
			return receive_some(t, buffer, now_ns()) && false;
		if ((p.revents & POLLOUT) && !send_some(t, buffer, now_ns()))
			return false;
	}
	return true;
}

/* Waits until the peer has acknowledged everything, for aborting without cutting data off. */
static void drain_output(int fd)
{
	int queued = 1;

	for (int i = 0; i < 5000 && queued; i++) {
		if (ioctl(fd, SIOCOUTQ, &queued))
			return;
		if (queued)
			usleep(1000);
	}
}

/* close() will send a RST. */
static void abort_connection(int fd)
{
	struct linger linger = { 1, 0 };

	drain_output(fd);
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
}

static void die_unless(bool fine, const char *what)
{
	if (!fine)
		die("jump: %s: %s", what, strerror(errno));
}

/*
 * Client: one byte to and fro every 10 ms for --jump-ms, so that the flow is well established on whatever path; then
 * both ends jump, the server first. Nothing is in flight in the pauses: the client starts with data, after the server's
 * pause has passed too.
 */
static int client_jump(int fd)
{
	uint64_t end = now_ns() + (uint64_t)opt.jump_ms * 1000000;
	char byte;

	do {
		usleep(10000);
		byte = now_ns() < end ? '.' : 'J';
		die_unless(send(fd, &byte, 1, 0) == 1 && recv(fd, &byte, 1, 0) == 1, "no answer");
	} while (byte != 'J');
	usleep(300000);
	fd = tcp_jump(fd, opt.jump);
	usleep(200000);
	return fd;
}

static int server_jump(int fd, uint64_t bytes)
{
	char byte;

	do {
		die_unless(recv(fd, &byte, 1, 0) == 1 && send(fd, &byte, 1, 0) == 1, "no question");
	} while (byte != 'J');
	drain_output(fd);
	usleep(100000);
	fd = tcp_jump(fd, bytes);
	usleep(400000);
	return fd;
}

static void serve_connection(int fd)
{
	struct hello hello;
	struct transfer t = { .fd = fd, .pause_after = NO_END };
	struct tcp_info info;
	bool fine;

	if (recv(fd, &hello, sizeof(hello), MSG_WAITALL) != sizeof(hello) || hello.magic != TCP_MAGIC)
		die("not a stream client");
	if (hello.jump)
		t.fd = fd = server_jump(fd, hello.jump);
	apply_ip_options(fd, hello.tos, hello.ttl);
	t.seed_in = hello.seed;
	t.seed_out = ~hello.seed;
	t.in_total = hello.up;
	t.in_done = hello.rst && !hello.up;
	t.out_total = hello.down;
	t.rate = hello.rate;
	t.send_size = hello.send_size <= MAX_SEND ? hello.send_size : MAX_SEND;
	opt.stall_ns += (uint64_t)hello.hold_ms * 1000000;
	fine = run_transfer(&t);
	if (fine) {
		struct findings findings = { t.received, t.corrupt, total_retransmits(fd, &info), t.max_gap_ns };

		if (send(fd, &findings, sizeof(findings), 0) == sizeof(findings)) {
			struct timeval limit = { 30, 0 };
			char rest[64];
			ssize_t n;

			/* The client ends it: its FIN came already, or its RST will, which is to meet an open connection. */
			limit.tv_sec += hello.hold_ms / 1000;
			setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
			if (hello.server_rst) {
				usleep(hello.hold_ms * 1000);
				abort_connection(fd);
			} else if (!hello.rst) {
				shutdown(fd, SHUT_WR);
			}
			n = hello.server_rst ? 0 : recv(fd, rest, sizeof(rest), 0);
			if (n < 0)
				snprintf(t.error, sizeof(t.error), "at the end: %s", strerror(errno));
		}
	}
	printf("{\"role\":\"server\",\"sent\":%llu,\"received\":%llu,\"corrupt\":%llu,\"complete\":%s,\"retransmits\":%llu,"
	       "\"error\":\"%s\"}\n",
	       (unsigned long long)t.sent, (unsigned long long)t.received, (unsigned long long)t.corrupt,
	       fine ? "true" : "false", (unsigned long long)total_retransmits(fd, &info), t.error);
	fflush(stdout);
}

static int tcp_server(void)
{
	int listener = bound_socket(SOCK_STREAM, AF_UNSPEC, opt.bind, opt.port);
	uint64_t end = now_ns() + (uint64_t)(opt.seconds * 1e9);
	int children = 0;

	if (listen(listener, 1024))
		die("listen: %s", strerror(errno));
	printf("ready\n");
	fflush(stdout);
	while (!stop_requested && now_ns() < end) {
		struct pollfd p = { .fd = listener, .events = POLLIN };
		int fd;

		while (children && waitpid(-1, NULL, children < MAX_CHILDREN ? WNOHANG : 0) > 0)
			children--;
		if (poll(&p, 1, 200) <= 0)
			continue;
		fd = accept(listener, NULL, NULL);
		if (fd < 0)
			continue;
		switch (fork()) {
		case 0:
			close(listener);
			serve_connection(fd);
			exit(0);
		case -1:
			break;
		default:
			children++;
		}
		close(fd);
	}
	return 0;
}

static int connect_to_server(void)
{
	union socket_address to;
	socklen_t length = socket_address(&opt.to, opt.port, &to);
	int fd = bound_socket(opt.udp ? SOCK_DGRAM : SOCK_STREAM, opt.to.family, opt.bind, opt.sport);
	struct timeval limit = { 5, 0 };

	apply_ip_options(fd, opt.tos, opt.ttl);
	if (opt.mss)
		set_int(fd, IPPROTO_TCP, TCP_MAXSEG, opt.mss, "TCP_MAXSEG");
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	if (connect(fd, &to.any, length))
		die("connect %s port %u: %s", address_text(&opt.to), opt.port,
		    errno == EINPROGRESS ? "timed out" : strerror(errno));
	return fd;
}

static int tcp_client(void)
{
	int fd = connect_to_server();
	uint64_t seed = now_ns() ^ ((uint64_t)getpid() << 40);
	struct hello hello = { TCP_MAGIC, seed,          opt.up,  opt.down, opt.rate,
			       opt.jump,  opt.send_size, opt.tos, opt.ttl,  opt.hold_ms + opt.pause_ms,
			       opt.rst,   opt.server_rst };
	struct transfer t = { .fd = fd,
			      .seed_out = seed,
			      .seed_in = ~seed,
			      .out_total = opt.up,
			      .in_total = opt.down,
			      .rate = opt.rate,
			      .send_size = opt.send_size,
			      .pause_after = opt.pause_after,
			      .pause_ms = opt.pause_ms,
			      .is_client = true };
	struct tcp_info info;
	uint64_t start = now_ns(), retransmits;
	double seconds;
	bool fine;

	set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1, "TCP_NODELAY");
	if (send(fd, &hello, sizeof(hello), 0) != sizeof(hello))
		die("send: %s", strerror(errno));
	if (opt.jump) {
		t.fd = fd = client_jump(fd);
		apply_ip_options(fd, opt.tos, opt.ttl);
		set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1, "TCP_NODELAY");
		start = now_ns();
	}
	t.end = start + (uint64_t)(opt.seconds * 1e9);
	fine = run_transfer(&t);
	seconds = (double)(now_ns() - start) / 1e9;
	retransmits = total_retransmits(fd, &info);
	if (opt.server_rst) {
		struct timeval limit = { 30 + opt.hold_ms / 1000, 0 };
		char rest;

		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
		if (recv(fd, &rest, 1, 0) >= 0 || errno != ECONNRESET)
			snprintf(t.error, sizeof(t.error), "at the end: no RST: %s", strerror(errno));
		fine = fine && !t.error[0];
	} else if (opt.hold_ms) {
		usleep(opt.hold_ms * 1000);
	}
	if (opt.rst && !opt.server_rst)
		abort_connection(fd);
	close(fd);
	fine = fine && t.peer_bytes == sizeof(t.peer) && t.peer.received == t.sent && !t.corrupt && !t.peer.corrupt;
	printf("{\"role\":\"client\",\"complete\":%s,\"sent\":%llu,\"peerReceived\":%llu,\"received\":%llu,\"corrupt\":%llu,"
	       "\"peerCorrupt\":%llu,\"retransmits\":%llu,\"peerRetransmits\":%llu,\"maxGapMs\":%.1f,\"peerMaxGapMs\":%.1f,"
	       "\"seconds\":%.6f,\"mbitPerS\":%.1f,\"mss\":%u,\"rttUs\":%u,\"error\":\"%s\"}\n",
	       fine ? "true" : "false", (unsigned long long)t.sent, (unsigned long long)t.peer.received,
	       (unsigned long long)t.received, (unsigned long long)t.corrupt, (unsigned long long)t.peer.corrupt,
	       (unsigned long long)retransmits, (unsigned long long)t.peer.retransmits, (double)t.max_gap_ns / 1e6,
	       (double)t.peer.max_gap_ns / 1e6, seconds, (double)(t.sent + t.received) * 8 / 1e6 / seconds,
	       info.tcpi_snd_mss, info.tcpi_rtt, t.error);
	return fine ? 0 : 1;
}

/* ---- UDP ---- */

enum kind {
	DATA = 1,
	DATA_REPLY,
	ECHO,
	ASK,
	ANSWER
};

struct datagram {
	uint32_t magic;
	uint32_t kind;
	uint64_t session, sequence;
};

struct udp_counts {
	uint64_t received, duplicates, reordered, corrupt, max_gap_ns, foreign;
};

/* What one end has received of one session. */
struct receiver {
	uint64_t session;
	uint64_t next, last_arrival;
	struct udp_counts counts;
	uint8_t *seen;
	uint64_t seen_bits;
};

static void note_arrival(struct receiver *r, const uint8_t *bytes, size_t length)
{
	struct datagram d;
	uint64_t now = now_ns();

	memcpy(&d, bytes, sizeof(d));
	if (d.sequence >= MAX_SEQUENCE) {
		r->counts.corrupt++;
		return;
	}
	while (d.sequence >= r->seen_bits) {
		uint64_t bits = r->seen_bits ? r->seen_bits * 2 : 65536;
		uint8_t *seen = realloc(r->seen, bits / 8);

		if (!seen)
			die("out of memory");
		memset(seen + r->seen_bits / 8, 0, (bits - r->seen_bits) / 8);
		r->seen = seen;
		r->seen_bits = bits;
	}
	if (content_check(d.session ^ d.sequence, 0, bytes + sizeof(d), length - sizeof(d)))
		r->counts.corrupt++;
	if (r->last_arrival && now - r->last_arrival > r->counts.max_gap_ns)
		r->counts.max_gap_ns = now - r->last_arrival;
	r->last_arrival = now;
	if (r->seen[d.sequence / 8] & (1u << d.sequence % 8)) {
		r->counts.duplicates++;
		return;
	}
	r->seen[d.sequence / 8] |= (uint8_t)(1u << d.sequence % 8);
	r->counts.received++;
	if (d.sequence < r->next)
		r->counts.reordered++;
	else
		r->next = d.sequence + 1;
}

static struct receiver *find_receiver(struct receiver *all, uint64_t session)
{
	static unsigned int oldest;

	for (unsigned int i = 0; i < MAX_SESSIONS; i++) {
		if (all[i].session == session)
			return &all[i];
		if (!all[i].session) {
			all[i].session = session;
			return &all[i];
		}
	}
	oldest = (oldest + 1) % MAX_SESSIONS;
	free(all[oldest].seen);
	memset(&all[oldest], 0, sizeof(all[oldest]));
	all[oldest].session = session;
	return &all[oldest];
}

/* Bursts wait here while a busy or emulated machine runs others. Root may go beyond net.core.rmem_max. */
static void make_room(int fd)
{
	int bytes = 4 << 20;

	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes)))
		set_int(fd, SOL_SOCKET, SO_RCVBUF, bytes, "SO_RCVBUF");
}

static int udp_server(void)
{
	static struct receiver receivers[MAX_SESSIONS];
	static uint8_t buffer[MAX_DATAGRAM];
	int fd = bound_socket(SOCK_DGRAM, AF_UNSPEC, opt.bind, opt.port);
	uint64_t end = now_ns() + (uint64_t)(opt.seconds * 1e9);
	uint8_t current_tos = 0;

	make_room(fd);
	if (socket_family(fd) == AF_INET6)
		set_int(fd, IPPROTO_IPV6, IPV6_RECVTCLASS, 1, "IPV6_RECVTCLASS");
	else
		set_int(fd, IPPROTO_IP, IP_RECVTOS, 1, "IP_RECVTOS");
	apply_ip_options(fd, opt.tos, opt.ttl);
	printf("ready\n");
	fflush(stdout);
	while (!stop_requested && now_ns() < end) {
		union socket_address from;
		uint8_t control[64], tos = 0;
		struct iovec iov = { buffer, sizeof(buffer) };
		struct msghdr msg = { &from, sizeof(from), &iov, 1, control, sizeof(control), 0 };
		struct pollfd p = { .fd = fd, .events = POLLIN };
		struct datagram d;
		ssize_t n;

		if (poll(&p, 1, 500) <= 0)
			continue;
		n = recvmsg(fd, &msg, MSG_DONTWAIT);
		if (n < (ssize_t)sizeof(d))
			continue;
		memcpy(&d, buffer, sizeof(d));
		if (d.magic != UDP_MAGIC || !d.session)
			continue;
		for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c))
			if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_TOS)
				tos = *CMSG_DATA(c);
			else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_TCLASS)
				tos = (uint8_t) * (int *)CMSG_DATA(c);
		/* Answers carry the TOS of what they answer. */
		if (opt.tos < 0 && tos != current_tos) {
			set_tos(fd, tos);
			current_tos = tos;
		}
		if (d.kind == ASK) {
			struct {
				struct datagram d;
				struct udp_counts counts;
			} answer = { { UDP_MAGIC, ANSWER, d.session, 0 }, find_receiver(receivers, d.session)->counts };

			sendto(fd, &answer, sizeof(answer), 0, &from.any, msg.msg_namelen);
		} else if (d.kind == DATA || d.kind == DATA_REPLY) {
			note_arrival(find_receiver(receivers, d.session), buffer, (size_t)n);
			if (d.kind == DATA_REPLY) {
				d.kind = ECHO;
				memcpy(buffer, &d, sizeof(d));
				sendto(fd, buffer, (size_t)n, 0, &from.any, msg.msg_namelen);
			}
		}
	}
	return 0;
}

/* How long datagrams may be late. Emulation is slower by a factor, which the lab gives to whatever it starts. */
static uint64_t lateness_ns(void)
{
	const char *factor = getenv("XMASQ_TIME_FACTOR");

	return (uint64_t)(100e6 * (factor ? real("XMASQ_TIME_FACTOR", factor, 1, 100) : 1));
}

/* Takes the echoes that are there; true if the server's answer was among them. */
static bool take_echoes(int fd, struct receiver *echoes, struct udp_counts *peer)
{
	static uint8_t buffer[MAX_DATAGRAM];
	bool answered = false;
	ssize_t n;

	while ((n = recv(fd, buffer, sizeof(buffer), MSG_DONTWAIT)) >= 0) {
		struct datagram d;

		if (n < (ssize_t)sizeof(d))
			continue;
		memcpy(&d, buffer, sizeof(d));
		if (d.magic != UDP_MAGIC || d.session != echoes->session) {
			echoes->counts.foreign++;
		} else if (d.kind == ECHO) {
			note_arrival(echoes, buffer, (size_t)n);
		} else if (d.kind == ANSWER && n == (ssize_t)(sizeof(d) + sizeof(*peer))) {
			memcpy(peer, buffer + sizeof(d), sizeof(*peer));
			answered = true;
		}
	}
	return answered;
}

static int udp_client(void)
{
	static uint8_t buffer[65536];
	struct receiver echoes = { .session = (now_ns() ^ ((uint64_t)getpid() << 40)) | 1 };
	struct udp_counts peer = { 0 };
	uint32_t batch = opt.gso ? opt.gso : 1;
	int fd = connect_to_server();
	uint64_t sent = 0, errors = 0, start = now_ns(), end = start + (uint64_t)(opt.seconds * 1e9);
	bool answered = false;
	double seconds;

	make_room(fd);
	if (opt.gso)
		set_int(fd, IPPROTO_UDP, UDP_SEGMENT, (int)opt.size, "UDP_SEGMENT");
	while (!stop_requested && sent < MAX_SEQUENCE && (opt.count ? sent < opt.count : now_ns() < end)) {
		uint64_t due = opt.rate ? start + (uint64_t)((double)sent / (double)opt.rate * 1e9) : 0;
		uint32_t n = opt.count && opt.count - sent < batch ? (uint32_t)(opt.count - sent) : batch;

		for (uint32_t i = 0; i < n; i++) {
			struct datagram d = { UDP_MAGIC, opt.reply ? DATA_REPLY : DATA, echoes.session, sent + i };
			uint8_t *at = buffer + (size_t)i * opt.size;

			memcpy(at, &d, sizeof(d));
			content_fill(d.session ^ d.sequence, 0, at + sizeof(d), opt.size - sizeof(d));
		}
		if (due > now_ns())
			sleep_until_ns(due);
		if (send(fd, buffer, (size_t)n * opt.size, 0) < 0) {
			errors++;
			if (errno == EMSGSIZE || errno == EINVAL || errno == EIO)
				die("send of %u x %u bytes: %s", n, opt.size, strerror(errno));
		}
		sent += n;
		take_echoes(fd, &echoes, &peer);
	}
	seconds = (double)(now_ns() - start) / 1e9;
	/* Late echoes first, then the server's counts, asked for until they come. */
	for (int i = 0; i < 20 && !answered; i++) {
		struct datagram ask = { UDP_MAGIC, ASK, echoes.session, 0 };
		struct pollfd p = { .fd = fd, .events = POLLIN };

		for (uint64_t until = i ? 0 : now_ns() + lateness_ns(); until > now_ns();
		     take_echoes(fd, &echoes, &peer))
			poll(&p, 1, 10);
		send(fd, &ask, sizeof(ask), 0);
		for (int j = 0; j < 10 && !answered; j++) {
			poll(&p, 1, 20);
			answered = take_echoes(fd, &echoes, &peer);
		}
	}
	printf("{\"role\":\"client\",\"sent\":%llu,\"sendErrors\":%llu,\"seconds\":%.6f,\"answered\":%s,"
	       "\"peer\":{\"received\":%llu,\"lost\":%lld,\"duplicates\":%llu,\"reordered\":%llu,\"corrupt\":%llu,\"maxGapMs\":%.1f}",
	       (unsigned long long)sent, (unsigned long long)errors, seconds, answered ? "true" : "false",
	       (unsigned long long)peer.received, (long long)(sent - peer.received),
	       (unsigned long long)peer.duplicates, (unsigned long long)peer.reordered,
	       (unsigned long long)peer.corrupt, (double)peer.max_gap_ns / 1e6);
	if (opt.reply)
		printf(",\"echo\":{\"received\":%llu,\"lost\":%lld,\"duplicates\":%llu,\"reordered\":%llu,\"corrupt\":%llu,"
		       "\"maxGapMs\":%.1f}",
		       (unsigned long long)echoes.counts.received, (long long)(sent - echoes.counts.received),
		       (unsigned long long)echoes.counts.duplicates, (unsigned long long)echoes.counts.reordered,
		       (unsigned long long)echoes.counts.corrupt, (double)echoes.counts.max_gap_ns / 1e6);
	printf(",\"foreign\":%llu}\n", (unsigned long long)echoes.counts.foreign);
	return answered && peer.received && !peer.corrupt && !echoes.counts.corrupt ? 0 : 1;
}

static int df_mode(const char *text)
{
	static const struct {
		const char *name;
		int value;
	} modes[] = { { "dont", IP_PMTUDISC_DONT },
		      { "want", IP_PMTUDISC_WANT },
		      { "do", IP_PMTUDISC_DO },
		      { "probe", IP_PMTUDISC_PROBE } };

	for (size_t i = 0; i < ARRAY_SIZE(modes); i++)
		if (!strcmp(text, modes[i].name))
			return modes[i].value;
	die("--df %s: do, dont, want or probe is needed", text);
}

int main(int argc, char **argv)
{
	enum {
		TCP = 1,
		UDP,
		PORT,
		BIND,
		TO,
		SPORT,
		UP,
		DOWN,
		SEND_SIZE,
		RATE,
		PAUSE_AFTER,
		PAUSE_MS,
		RST,
		SERVER_RST,
		HOLD,
		MSS,
		COUNT,
		SECONDS,
		SIZE,
		REPLY,
		GSO,
		TOS,
		TTL,
		DF,
		STALL,
		JUMP,
		JUMP_MS
	};
	static const struct option options[] = {
		{ "tcp", 0, 0, TCP },
		{ "udp", 0, 0, UDP },
		{ "port", 1, 0, PORT },
		{ "bind", 1, 0, BIND },
		{ "to", 1, 0, TO },
		{ "sport", 1, 0, SPORT },
		{ "up", 1, 0, UP },
		{ "down", 1, 0, DOWN },
		{ "send-size", 1, 0, SEND_SIZE },
		{ "rate", 1, 0, RATE },
		{ "pause-after", 1, 0, PAUSE_AFTER },
		{ "pause-ms", 1, 0, PAUSE_MS },
		{ "rst", 0, 0, RST },
		{ "server-rst", 0, 0, SERVER_RST },
		{ "hold-ms", 1, 0, HOLD },
		{ "mss", 1, 0, MSS },
		{ "count", 1, 0, COUNT },
		{ "seconds", 1, 0, SECONDS },
		{ "size", 1, 0, SIZE },
		{ "reply", 0, 0, REPLY },
		{ "gso", 1, 0, GSO },
		{ "tos", 1, 0, TOS },
		{ "ttl", 1, 0, TTL },
		{ "df", 1, 0, DF },
		{ "stall-s", 1, 0, STALL },
		{ "jump", 1, 0, JUMP },
		{ "jump-ms", 1, 0, JUMP_MS },
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
		case SPORT:
			opt.sport = (uint16_t)number("sport", optarg, 1, 65535);
			break;
		case UP:
			opt.up = number("up", optarg, 0, 1ull << 60);
			break;
		case DOWN:
			opt.down = number("down", optarg, 0, 1ull << 60);
			break;
		case SEND_SIZE:
			opt.send_size = (uint32_t)number("send-size", optarg, 1, MAX_SEND);
			break;
		case RATE:
			opt.rate = number("rate", optarg, 0, 1ull << 40);
			break;
		case PAUSE_AFTER:
			opt.pause_after = number("pause-after", optarg, 1, 1ull << 60);
			break;
		case PAUSE_MS:
			opt.pause_ms = (uint32_t)number("pause-ms", optarg, 1, 3600000);
			break;
		case RST:
			opt.rst = true;
			break;
		case SERVER_RST:
			opt.rst = opt.server_rst = true;
			break;
		case HOLD:
			opt.hold_ms = (uint32_t)number("hold-ms", optarg, 1, 3600000);
			break;
		case MSS:
			opt.mss = (int)number("mss", optarg, 88, 65495);
			break;
		case COUNT:
			opt.count = number("count", optarg, 1, MAX_SEQUENCE);
			break;
		case SECONDS:
			opt.seconds = real("seconds", optarg, 0.001, 3600);
			break;
		case SIZE:
			opt.size = (uint32_t)number("size", optarg, sizeof(struct datagram), MAX_DATAGRAM);
			break;
		case REPLY:
			opt.reply = true;
			break;
		case GSO:
			opt.gso = (uint32_t)number("gso", optarg, 1, 128);
			break;
		case TOS:
			opt.tos = (int)number("tos", optarg, 0, 255);
			break;
		case TTL:
			opt.ttl = (int)number("ttl", optarg, 1, 255);
			break;
		case DF:
			opt.df = df_mode(optarg);
			break;
		case JUMP:
			opt.jump = number("jump", optarg, 1, 1ull << 40);
			break;
		case JUMP_MS:
			opt.jump_ms = (uint32_t)number("jump-ms", optarg, 1, 60000);
			break;
		case STALL:
			opt.stall_ns = number("stall-s", optarg, 1, 3600) * NS_PER_S;
			break;
		default:
			die("%s", USAGE);
		}
	}
	if (tcp == opt.udp || !opt.port || optind != argc || (is_client && !opt.to.family))
		die("%s", USAGE);
	if (opt.gso && (uint64_t)opt.gso * opt.size > MAX_DATAGRAM)
		die("--gso %u of --size %u: more than %d bytes in one call", opt.gso, opt.size, MAX_DATAGRAM);
	if (opt.rate == NO_END)
		opt.rate = opt.udp ? 1000 : 0;
	if (!opt.udp && is_client && opt.up == NO_END && !opt.seconds)
		opt.up = 1000000;
	if (opt.up == NO_END && opt.rst)
		die("--rst needs --up: the server must know the end of the data");
	if (!opt.seconds)
		opt.seconds = is_server ? 3600 : 1;
	catch_stop_signals();
	if (opt.udp)
		return is_server ? udp_server() : udp_client();
	return is_server ? tcp_server() : tcp_client();
}
