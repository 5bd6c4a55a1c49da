// SPDX-License-Identifier: GPL-2.0-only
/*
 * wire.c - see wire.h.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proto.h"
#include "wire.h"

/* A text longer than this is no answer of nolockd. */
#define TEXT_MAX (64u << 20)

union fd_control {
	struct cmsghdr align;
	char buf[CMSG_SPACE(sizeof(int))];
};

int wire_send(int sock, const void *data, size_t len, int fd, int flags)
{
	union fd_control control = { 0 };
	struct iovec iov = { .iov_base = (void *)data, .iov_len = len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	struct cmsghdr *c;
	ssize_t n;

	if (fd >= 0) {
		msg.msg_control = control.buf;
		msg.msg_controllen = sizeof(control.buf);
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	}
	do
		n = sendmsg(sock, &msg, flags | MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

ssize_t wire_receive(int sock, void *data, size_t len, int *fd, int flags)
{
	union fd_control control = { 0 };
	struct iovec iov = { .iov_base = data, .iov_len = len };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.buf,
		.msg_controllen = sizeof(control.buf),
	};
	struct cmsghdr *c;
	ssize_t n;

	*fd = -1;
	do
		n = recvmsg(sock, &msg, flags | MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	c = CMSG_FIRSTHDR(&msg);
	if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS &&
	    c->cmsg_len == CMSG_LEN(sizeof(int)))
		memcpy(fd, CMSG_DATA(c), sizeof(*fd));
	return n;
}

size_t wire_part(size_t len)
{
	if (len <= NL_PROTO_TEXT)
		return len;
	return len == NL_PROTO_TEXT + 1 ? NL_PROTO_TEXT - 1 : NL_PROTO_TEXT;
}

int wire_send_text(int sock, const char *text, size_t len)
{
	size_t part;
	int err;

	while (len) {
		part = wire_part(len);
		err = wire_send(sock, text, part, -1, 0);
		if (err)
			return err;
		text += part;
		len -= part;
	}
	return wire_send(sock, "\n", 1, -1, 0);
}

int wire_receive_text(int sock, char **text)
{
	size_t len = 0, room = 0;
	char *buf = NULL, *more;
	ssize_t n;
	int err;

	for (;;) {
		if (room - len < NL_PROTO_TEXT + 1) {
			room = room ? 2 * room : 4 * NL_PROTO_TEXT;
			more = room <= TEXT_MAX ? realloc(buf, room) : NULL;
			if (!more) {
				err = -ENOMEM;
				goto fail;
			}
			buf = more;
		}
		do
			n = recv(sock, buf + len, NL_PROTO_TEXT, 0);
		while (n < 0 && errno == EINTR);
		if (n <= 0) {
			err = n < 0 ? -errno : -ECONNRESET;
			goto fail;
		}
		if (n == 1 && buf[len] == '\n')
			break;
		len += n;
	}
	buf[len] = 0;
	*text = buf;
	return 0;
fail:
	free(buf);
	return err;
}

unsigned long long process_starttime(pid_t pid)
{
	unsigned long long start = 0;
	char path[64], buf[1024], *p;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	n = read(fd, buf, sizeof(buf) - 1);
	close(fd);
	if (n <= 0)
		return 0;
	buf[n] = 0;
	/* The name may hold anything, ')' too: fields count from the last one. */
	p = strrchr(buf, ')');
	if (!p || sscanf(p + 1,
			 " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d"
			 " %*d %llu",
			 &start) != 1)
		return 0;
	return start;
}
