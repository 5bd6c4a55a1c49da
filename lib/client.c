// SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause
/*
 * client.c - one request to nolockd over its socket.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "internal.h"
#include "proto.h"

/* A nolockd that is stopped (SIGSTOP, a debugger) must not hang its clients for ever. */
#define ANSWER_SECONDS 10

/* The socket's path. A set-uid program does not let its caller choose. */
static const char *socket_path(void)
{
	const char *path = secure_getenv(NL_SOCKET_ENV);

	return path && *path ? path : NL_SOCKET_PATH;
}

static int connect_to(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	struct timeval limit = { .tv_sec = ANSWER_SECONDS };
	int conn, err;

	if (strlen(path) >= sizeof(addr.sun_path)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	strcpy(addr.sun_path, path);
	conn = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (conn < 0)
		return -1;
	/* Covers connect() too: it waits where the listener's queue is full. */
	setsockopt(conn, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	setsockopt(conn, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	while (connect(conn, (struct sockaddr *)&addr, sizeof(addr))) {
		if (errno == EINTR)
			continue;
		err = errno;
		/* No socket, a socket that nobody listens on, or a plain file: nobody is there. */
		if (err == ENOENT || err == ENOTDIR || err == ENOTSOCK || err == EPROTOTYPE)
			err = ECONNREFUSED;
		if (err == EAGAIN)
			err = ETIMEDOUT;
		close(conn);
		errno = err;
		return -1;
	}
	return conn;
}

/* Receive the reply and at most one descriptor; returns 0 or a positive errno. */
static int receive(int conn, struct nl_reply *rep, int *fd)
{
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec iov = { .iov_base = rep, .iov_len = sizeof(*rep) };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.buf,
		.msg_controllen = sizeof(control.buf),
	};
	struct cmsghdr *c;
	ssize_t n;

	do
		n = recvmsg(conn, &msg, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EAGAIN ? ETIMEDOUT : errno;
	c = CMSG_FIRSTHDR(&msg);
	if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS &&
	    c->cmsg_len == CMSG_LEN(sizeof(int)))
		memcpy(fd, CMSG_DATA(c), sizeof(*fd));
	if (n == 0)
		return ECONNRESET;
	if (n != sizeof(*rep) || rep->magic != NL_PROTO_MAGIC || rep->version != NL_PROTO_VERSION)
		return EPROTO;
	rep->message[sizeof(rep->message) - 1] = 0;
	return rep->error < 0 ? EPROTO : rep->error;
}

/* As nl_client_call(), without its patience. */
static int call_once(const struct nl_request *req, struct nl_reply *rep, int *fd)
{
	struct timeval forever = { 0 };
	struct nl_request q = *req;
	int conn, err, got = -1;
	ssize_t n;

	memset(rep, 0, sizeof(*rep));
	if (fd)
		*fd = -1;
	q.magic = NL_PROTO_MAGIC;
	q.version = NL_PROTO_VERSION;
	conn = connect_to(socket_path());
	if (conn < 0)
		return -1;
	do
		n = send(conn, &q, sizeof(q), MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		err = errno == EAGAIN ? ETIMEDOUT : errno;
	else
		err = receive(conn, rep, &got);
	if (err || !fd) {
		if (got >= 0)
			close(got);
		got = -1;
	}
	if (err) {
		close(conn);
		errno = err;
		return -1;
	}
	if (fd)
		*fd = got;
	setsockopt(conn, SOL_SOCKET, SO_RCVTIMEO, &forever, sizeof(forever));
	return conn;
}

/*
 * Send @req, whose magic and version are filled in here, and receive the answer. A descriptor
 * that came with it goes to *fd (-1 when none did), or is closed when fd is NULL. Where nolockd
 * answered with an error, rep->message says it in words; otherwise the message is empty.
 * EAGAIN, a heap whose keeper is just being started again, is asked again for up to two seconds.
 */
int nl_client_call(const struct nl_request *req, struct nl_reply *rep, int *fd)
{
	const struct timespec pause = { .tv_nsec = 50 * 1000000 };
	int conn = -1;

	for (int i = 0; i < 40; i++) {
		if (i)
			nanosleep(&pause, NULL);
		conn = call_once(req, rep, fd);
		if (conn >= 0 || errno != EAGAIN)
			break;
	}
	return conn;
}

/* Say on an OPEN connection that the heap is unmapped, and close it. */
void nl_client_close(int conn)
{
	struct nl_request q = {
		.magic = NL_PROTO_MAGIC,
		.version = NL_PROTO_VERSION,
		.op = NL_OP_CLOSE,
	};

	if (conn < 0)
		return;
	/* Lost when nolockd is gone or does not read: it then notices the process's end. */
	(void)!send(conn, &q, sizeof(q), MSG_NOSIGNAL | MSG_DONTWAIT);
	close(conn);
}
