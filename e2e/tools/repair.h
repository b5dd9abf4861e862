/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Moves an idle TCP connection's sequence numbers forward as if gigabytes had been sent: the socket is taken down
 * without a packet (TCP_REPAIR) and built anew with other numbers. Both ends must do it, by the same amount, while
 * nothing is in flight. Needs CAP_NET_ADMIN. What is between the ends (conntrack) knows nothing of it.
 */
#pragma once
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include "common.h"

static inline void get_tcp(int fd, int option, void *to, socklen_t length, const char *what)
{
	if (getsockopt(fd, IPPROTO_TCP, option, to, &length))
		die("cannot read %s: %s", what, strerror(errno));
}

static inline void set_tcp(int fd, int option, const void *from, socklen_t length, const char *what)
{
	if (setsockopt(fd, IPPROTO_TCP, option, from, length))
		die("cannot set %s: %s", what, strerror(errno));
}

/* The same connection with both sequence numbers moved by `bytes` (modulo 2^32), on a new descriptor; ends on errors. */
static inline int tcp_jump(int fd, uint64_t bytes)
{
	uint32_t sequence[2], stamp, mss;
	const int queue[2] = { TCP_RECV_QUEUE, TCP_SEND_QUEUE };
	struct tcp_repair_window window;
	struct tcp_repair_opt options[4];
	union socket_address local, remote;
	socklen_t local_length = sizeof(local), remote_length = sizeof(remote);
	struct tcp_info info;
	int unsent, unread, count = 0, on = 1, off = -1 /* TCP_REPAIR_OFF_NO_WP: no window probe */, fresh;

	if (ioctl(fd, SIOCOUTQ, &unsent) || ioctl(fd, SIOCINQ, &unread) || unsent || unread)
		die("jump: %d bytes unacknowledged, %d unread: the connection is not idle", unsent, unread);
	if (getsockname(fd, &local.any, &local_length) || getpeername(fd, &remote.any, &remote_length))
		die("jump: %s", strerror(errno));
	get_tcp(fd, TCP_INFO, &info, sizeof(info), "TCP_INFO");
	set_tcp(fd, TCP_REPAIR, &on, sizeof(on), "TCP_REPAIR");
	for (int i = 0; i < 2; i++) {
		set_tcp(fd, TCP_REPAIR_QUEUE, &queue[i], sizeof(queue[i]), "TCP_REPAIR_QUEUE");
		get_tcp(fd, TCP_QUEUE_SEQ, &sequence[i], sizeof(sequence[i]), "TCP_QUEUE_SEQ");
		sequence[i] += (uint32_t)bytes;
	}
	get_tcp(fd, TCP_REPAIR_WINDOW, &window, sizeof(window), "TCP_REPAIR_WINDOW");
	get_tcp(fd, TCP_TIMESTAMP, &stamp, sizeof(stamp), "TCP_TIMESTAMP");
	get_tcp(fd, TCP_MAXSEG, &mss, sizeof(mss), "TCP_MAXSEG");
	window.snd_wl1 += (uint32_t)bytes;
	window.rcv_wup += (uint32_t)bytes;
	close(fd); /* Under repair nothing is sent. */

	fresh = socket(local.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fresh < 0)
		die("jump: socket: %s", strerror(errno));
	set_tcp(fresh, TCP_REPAIR, &on, sizeof(on), "TCP_REPAIR"); /* Allows binding to a listener's port, too. */
	for (int i = 0; i < 2; i++) {
		set_tcp(fresh, TCP_REPAIR_QUEUE, &queue[i], sizeof(queue[i]), "TCP_REPAIR_QUEUE");
		set_tcp(fresh, TCP_QUEUE_SEQ, &sequence[i], sizeof(sequence[i]), "TCP_QUEUE_SEQ");
	}
	if (bind(fresh, &local.any, local_length) || connect(fresh, &remote.any, remote_length))
		die("jump: bind or connect: %s", strerror(errno));
	options[count++] = (struct tcp_repair_opt){ TCPOPT_MAXSEG, mss };
	if (info.tcpi_options & TCPI_OPT_WSCALE)
		options[count++] =
			(struct tcp_repair_opt){ TCPOPT_WINDOW, info.tcpi_snd_wscale | info.tcpi_rcv_wscale << 16 };
	if (info.tcpi_options & TCPI_OPT_SACK)
		options[count++] = (struct tcp_repair_opt){ TCPOPT_SACK_PERMITTED, 0 };
	if (info.tcpi_options & TCPI_OPT_TIMESTAMPS)
		options[count++] = (struct tcp_repair_opt){ TCPOPT_TIMESTAMP, 0 };
	set_tcp(fresh, TCP_REPAIR_OPTIONS, options, (socklen_t)(sizeof(options[0]) * (size_t)count),
		"TCP_REPAIR_OPTIONS");
	set_tcp(fresh, TCP_TIMESTAMP, &stamp, sizeof(stamp), "TCP_TIMESTAMP");
	set_tcp(fresh, TCP_REPAIR_WINDOW, &window, sizeof(window), "TCP_REPAIR_WINDOW");
	set_tcp(fresh, TCP_REPAIR, &off, sizeof(off), "TCP_REPAIR");
	return fresh;
}
