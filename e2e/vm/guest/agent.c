// SPDX-License-Identifier: Apache-2.0
/*
 * Command agent of the micro-VM: process 1 of the guest. Starts processes for the host over one virtio-serial port and
 * sends back their output and exit status. The other side is ../agent-client.ts; the frames are described in
 * ../protocol.ts and both must be changed together.
 *
 * Frame: u32 payload length, u32 process id (chosen by the host), u8 type, payload. Little endian (both sides are x86).
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/reboot.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

enum { START = 1, STDIN = 2, STDIN_END = 3, KILL = 4 };
enum { HELLO = 64, OUT = 65, ERR = 66, EXIT = 67, FAILED = 68, STDIN_ACK = 69 };

#define PORT_NAME "xmasq.agent"
#define HEADER 9
#define MAX_PAYLOAD (1 << 20)
/* The port's driver takes at most 32 KiB a write: one frame, one write. */
#define CHUNK (32 * 1024 - HEADER)
#define MAX_PROCESSES 64
#define MAX_WORDS 4096

struct process {
	uint32_t id;
	pid_t pid; /* 0: the slot is free */
	int in, out, err; /* our ends; -1 once closed */
	char *pending; /* input the process has not taken yet; the host sends no more before the acknowledgement */
	uint32_t pending_length, pending_offset;
	int close_when_flushed;
};

static struct process processes[MAX_PROCESSES];
static int port = -1;

/* Ends the machine; the reason stays on the console, which the host keeps. */
static void __attribute__((noreturn, format(printf, 1, 2))) halt(const char *format, ...)
{
	va_list arguments;
	int console = open("/dev/console", O_WRONLY | O_NOCTTY);

	if (console >= 0) {
		va_start(arguments, format);
		dprintf(console, "micro-vm agent: ");
		vdprintf(console, format, arguments);
		dprintf(console, "\n");
		va_end(arguments);
	}
	reboot(RB_POWER_OFF);
	_exit(1);
}

static void write_all(const void *data, size_t length)
{
	const char *cursor = data;

	while (length) {
		ssize_t n = write(port, cursor, length);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			halt("write to the host: %s", n ? strerror(errno) : "closed");
		cursor += n;
		length -= n;
	}
}

static void send_frame(uint32_t id, uint8_t type, const void *payload, uint32_t length)
{
	static char frame[HEADER + CHUNK];

	memcpy(frame, &length, 4);
	memcpy(frame + 4, &id, 4);
	frame[8] = type;
	memcpy(frame + HEADER, payload, length);
	write_all(frame, HEADER + length);
}

static void send_number(uint32_t id, uint8_t type, int32_t value)
{
	send_frame(id, type, &value, sizeof(value));
}

static struct process *find(uint32_t id)
{
	for (int i = 0; i < MAX_PROCESSES; i++)
		if (processes[i].pid && processes[i].id == id)
			return &processes[i];
	return NULL;
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* Splits `count` NUL-terminated words off the payload; NULL when it is short. */
static char **take_words(char **cursor, char *end, uint32_t *left)
{
	uint32_t count;
	char **words;

	if (end - *cursor < 4)
		return NULL;
	memcpy(&count, *cursor, 4);
	*cursor += 4;
	if (count > *left)
		return NULL;
	*left -= count;
	words = calloc(count + 1, sizeof(*words));
	if (!words)
		return NULL;
	for (uint32_t i = 0; i < count; i++) {
		char *stop = memchr(*cursor, 0, end - *cursor);

		if (!stop) {
			free(words);
			return NULL;
		}
		words[i] = *cursor;
		*cursor = stop + 1;
	}
	return words;
}

static void __attribute__((noreturn)) run_child(char **argv, char **envp, const char *cwd, int in, int out, int err,
						int report)
{
	sigset_t none;
	int failure;

	setsid();
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	dup2(in, 0);
	dup2(out, 1);
	dup2(err, 2);
	if (chdir(cwd) == 0) {
		environ = envp;
		execvp(argv[0], argv);
	}
	failure = errno;
	if (write(report, &failure, sizeof(failure)) < 0)
		_exit(126);
	_exit(127);
}

/* Payload: u32 argc, argv, u32 envc, environment, u32 1, working directory. */
static void start(uint32_t id, char *payload, uint32_t length)
{
	char *cursor = payload, *end = payload + length;
	int in[2] = { -1, -1 }, out[2] = { -1, -1 }, err[2] = { -1, -1 }, report[2] = { -1, -1 };
	uint32_t left = MAX_WORDS;
	struct process *slot = NULL;
	char **argv = take_words(&cursor, end, &left);
	char **envp = argv ? take_words(&cursor, end, &left) : NULL;
	char **cwd = envp ? take_words(&cursor, end, &left) : NULL;
	int failure = 0;
	pid_t pid = -1;

	for (int i = 0; i < MAX_PROCESSES && !slot; i++)
		if (!processes[i].pid)
			slot = &processes[i];
	if (!cwd || !argv[0] || !cwd[0]) {
		failure = EINVAL;
	} else if (!slot || find(id)) {
		failure = EUSERS;
	} else if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC) || pipe2(err, O_CLOEXEC) || pipe2(report, O_CLOEXEC)) {
		failure = errno;
	} else {
		pid = fork();
		if (pid == 0)
			run_child(argv, envp, cwd[0], in[0], out[1], err[1], report[1]);
		if (pid < 0)
			failure = errno;
		close_fd(&report[1]);
		/* Ends without data when the exec closes the write end. */
		if (pid > 0 && read(report[0], &failure, sizeof(failure)) != sizeof(failure))
			failure = 0;
	}
	close_fd(&in[0]);
	close_fd(&out[1]);
	close_fd(&err[1]);
	close_fd(&report[0]);
	close_fd(&report[1]);
	free(argv);
	free(envp);
	free(cwd);
	if (failure) {
		close_fd(&in[1]);
		close_fd(&out[0]);
		close_fd(&err[0]);
		send_number(id, FAILED, failure);
		return;
	}
	fcntl(in[1], F_SETFL, O_NONBLOCK);
	fcntl(out[0], F_SETFL, O_NONBLOCK);
	fcntl(err[0], F_SETFL, O_NONBLOCK);
	*slot = (struct process){ .id = id, .pid = pid, .in = in[1], .out = out[0], .err = err[0] };
}

static void drop_input(struct process *p)
{
	free(p->pending);
	p->pending = NULL;
	p->pending_length = p->pending_offset = 0;
}

/* Hands waiting input to the process; acknowledges when all of it is taken, or when the process wants no more. */
static void feed(struct process *p)
{
	if (p->pending) {
		ssize_t n = write(p->in, p->pending + p->pending_offset, p->pending_length - p->pending_offset);

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n >= 0)
			p->pending_offset += n;
		else
			close_fd(&p->in);
		if (p->in >= 0 && p->pending_offset < p->pending_length)
			return;
		drop_input(p);
		send_frame(p->id, STDIN_ACK, "", 0);
	}
	if (p->close_when_flushed)
		close_fd(&p->in);
}

static void take_input(struct process *p, const char *payload, uint32_t length)
{
	if (p->pending)
		halt("protocol: input before the acknowledgement");
	if (p->in < 0 || !length) {
		send_frame(p->id, STDIN_ACK, "", 0);
		return;
	}
	p->pending = malloc(length);
	if (!p->pending)
		halt("out of memory");
	memcpy(p->pending, payload, length);
	p->pending_length = length;
	feed(p);
}

/* Forwards at most `limit` bytes of what is in the pipe now. */
static void forward(struct process *p, int *fd, uint8_t type, size_t limit)
{
	static char buffer[CHUNK];

	while (*fd >= 0 && limit) {
		ssize_t n = read(*fd, buffer, limit < CHUNK ? limit : CHUNK);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return;
		if (n <= 0) {
			close_fd(fd);
			return;
		}
		send_frame(p->id, type, buffer, n);
		limit -= n;
	}
}

/* What an ended process wrote is in the pipe already; a child of its own that still holds the pipe must not delay us. */
static void forward_rest(struct process *p, int *fd, uint8_t type)
{
	int waiting = 0;

	if (*fd >= 0 && ioctl(*fd, FIONREAD, &waiting) == 0)
		forward(p, fd, type, waiting);
	close_fd(fd);
}

static void reap(void)
{
	int status;
	pid_t pid = -1;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		for (int i = 0; i < MAX_PROCESSES; i++) {
			struct process *p = &processes[i];

			if (p->pid != pid)
				continue;
			forward_rest(p, &p->out, OUT);
			forward_rest(p, &p->err, ERR);
			close_fd(&p->in);
			drop_input(p);
			p->pid = 0;
			/* As the shells say it: 128 + signal. The high half tells the two apart. */
			send_number(p->id, EXIT,
				    WIFSIGNALED(status) ? WTERMSIG(status) << 16 | (128 + WTERMSIG(status)) :
							  WEXITSTATUS(status));
		}
	}
}

static void handle(uint32_t id, uint8_t type, char *payload, uint32_t length)
{
	struct process *p = find(id);

	if (type == START) {
		start(id, payload, length);
		return;
	}
	if (!p) /* ended while the frame was on its way */
		return;
	switch (type) {
	case STDIN:
		take_input(p, payload, length);
		break;
	case STDIN_END:
		p->close_when_flushed = 1;
		feed(p);
		break;
	case KILL:
		if (length == 1)
			kill(-p->pid, payload[0]);
		break;
	default:
		halt("protocol: frame type %u", type);
	}
}

/* Reads what is there and handles every whole frame. */
static void receive(void)
{
	static char buffer[HEADER + MAX_PAYLOAD];
	static size_t filled;
	size_t used = 0;
	ssize_t n = read(port, buffer + filled, sizeof(buffer) - filled);

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (n <= 0)
		halt("the host has closed the port");
	filled += n;
	while (filled - used >= HEADER) {
		char *frame = buffer + used;
		uint32_t length, id;

		memcpy(&length, frame, 4);
		memcpy(&id, frame + 4, 4);
		if (length > MAX_PAYLOAD)
			halt("protocol: frame of %u bytes", length);
		if (filled - used < HEADER + length)
			break;
		handle(id, frame[8], frame + HEADER, length);
		used += HEADER + length;
	}
	memmove(buffer, buffer + used, filled - used);
	filled -= used;
}

/* There is no udev to make /dev/virtio-ports: the name is in sysfs. */
static int open_port(void)
{
	DIR *directory = opendir("/sys/class/virtio-ports");
	struct dirent *entry;
	int found = -1;

	while (directory && found < 0 && (entry = readdir(directory))) {
		char path[320], name[64] = "";
		FILE *file;

		snprintf(path, sizeof(path), "/sys/class/virtio-ports/%s/name", entry->d_name);
		file = fopen(path, "re");
		if (!file)
			continue;
		if (fgets(name, sizeof(name), file) && !strncmp(name, PORT_NAME "\n", sizeof(PORT_NAME))) {
			snprintf(path, sizeof(path), "/dev/%s", entry->d_name);
			found = open(path, O_RDWR | O_CLOEXEC);
		}
		fclose(file);
	}
	if (directory)
		closedir(directory);
	return found;
}

/* The port appears, and then its host side connects, some time after the driver is loaded: up to 10 s. */
static void wait_for_host(void)
{
	for (int i = 0; i < 1000; i++) {
		struct pollfd ready = { .events = POLLOUT };

		if (port < 0)
			port = open_port();
		ready.fd = port;
		if (port >= 0 && poll(&ready, 1, 0) >= 0 && !(ready.revents & POLLHUP))
			return;
		usleep(10000);
	}
	halt("no port named " PORT_NAME " with a host behind it");
}

int main(void)
{
	sigset_t children;
	int child_events;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&children);
	sigaddset(&children, SIGCHLD);
	sigprocmask(SIG_BLOCK, &children, NULL);
	child_events = signalfd(-1, &children, SFD_CLOEXEC | SFD_NONBLOCK);
	wait_for_host();
	send_frame(0, HELLO, "1", 1);

	for (;;) {
		struct pollfd fds[2 + 3 * MAX_PROCESSES] = {
			{ .fd = port, .events = POLLIN },
			{ .fd = child_events, .events = POLLIN },
		};

		for (int i = 0; i < MAX_PROCESSES; i++) {
			struct process *p = &processes[i];
			struct pollfd *set = &fds[2 + 3 * i];

			/* poll() skips negative descriptors. */
			set[0] = (struct pollfd){ .fd = p->pid && p->pending ? p->in : -1, .events = POLLOUT };
			set[1] = (struct pollfd){ .fd = p->pid ? p->out : -1, .events = POLLIN };
			set[2] = (struct pollfd){ .fd = p->pid ? p->err : -1, .events = POLLIN };
		}
		if (poll(fds, sizeof(fds) / sizeof(fds[0]), -1) < 0) {
			if (errno == EINTR)
				continue;
			halt("poll: %s", strerror(errno));
		}
		for (int i = 0; i < MAX_PROCESSES; i++) {
			struct process *p = &processes[i];
			struct pollfd *set = &fds[2 + 3 * i];

			if (!p->pid)
				continue;
			if (set[0].revents)
				feed(p);
			if (set[1].revents)
				forward(p, &p->out, OUT, CHUNK);
			if (set[2].revents)
				forward(p, &p->err, ERR, CHUNK);
		}
		if (fds[1].revents) {
			struct signalfd_siginfo event;

			while (read(child_events, &event, sizeof(event)) > 0)
				;
			reap();
		}
		if (fds[0].revents)
			receive();
	}
}
