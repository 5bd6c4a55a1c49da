// SPDX-License-Identifier: GPL-2.0-only
/*
 * server.c - see server.h.
 *
 * Nothing here waits for a client: what it does not read is queued, and events that find the
 * queue full are dropped and counted.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "heaps.h"
#include "json.h"
#include "loop.h"
#include "moment.h"
#include "proto.h"
#include "say.h"
#include "server.h"
#include "tracing.h"
#include "wire.h"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

#define MAX_CONNECTIONS 1024
#define BACKLOG 64
/* A connection that has not asked for anything by then is closed. */
#define ASK_MS 10000
/* Room for events that a reader has not read yet. */
#define QUEUE_MAX (4u << 20)

enum conn_state {
	CONN_NEW,    /* nothing asked yet */
	CONN_CLIENT, /* of a heap */
	CONN_TEXT,   /* being sent a text */
	CONN_TRACE,  /* being sent events */
};

struct conn {
	struct watch w;
	struct conn *next;
	enum conn_state state;
	struct ucred cred;
	uint64_t since;
	struct heap *heap; /* CLIENT */
	int client;
	uint64_t serial; /* of its admission */
	char *queue;	 /* what is still to be sent */
	size_t queued, sent, room;
	uint64_t dropped; /* events that found no room and were not yet told of */
};

static struct watch listener = { .fd = -1 };
static struct conn *conns;
static unsigned int nr_conns;
static char socket_path[sizeof(((struct sockaddr_un *)0)->sun_path)];
static char made_directory[PATH_MAX];
static uint64_t served_since;

static void conn_close(struct conn *c)
{
	struct conn **p;

	for (p = &conns; *p != c; p = &(*p)->next)
		;
	*p = c->next;
	nr_conns--;
	if (c->state == CONN_TRACE)
		tracing_unstream();
	loop_remove(&c->w);
	close(c->w.fd);
	free(c->queue);
	free(c);
}

/* Send what is queued and fits. Returns false when the connection is over. */
static bool conn_flush(struct conn *c)
{
	size_t part;
	int err;

	while (c->sent < c->queued) {
		part = wire_part(c->queued - c->sent);
		err = wire_send(c->w.fd, c->queue + c->sent, part, -1, MSG_DONTWAIT);
		if (err == -EAGAIN || err == -ENOBUFS) {
			loop_change(&c->w, EPOLLIN | EPOLLOUT);
			return true;
		}
		if (err)
			return false;
		c->sent += part;
	}
	c->queued = c->sent = 0;
	if (c->state == CONN_TEXT) {
		err = wire_send(c->w.fd, "\n", 1, -1, MSG_DONTWAIT);
		if (err == -EAGAIN || err == -ENOBUFS) {
			loop_change(&c->w, EPOLLIN | EPOLLOUT);
			return true;
		}
		return false;
	}
	loop_change(&c->w, EPOLLIN);
	return true;
}

/* Queue @len bytes more, if no more than @max would wait then. */
static bool conn_queue(struct conn *c, const char *data, size_t len, size_t max)
{
	size_t waiting = c->queued - c->sent, room;
	char *more;

	if (waiting + len > max)
		return false;
	if (c->sent) {
		memmove(c->queue, c->queue + c->sent, waiting);
		c->queued = waiting;
		c->sent = 0;
	}
	if (c->queued + len > c->room) {
		room = 2 * (c->queued + len);
		more = realloc(c->queue, room);
		if (!more)
			return false;
		c->queue = more;
		c->room = room;
	}
	memcpy(c->queue + c->queued, data, len);
	c->queued += len;
	return true;
}

static void reply_init(struct nl_reply *rep)
{
	*rep = (struct nl_reply){ .magic = NL_PROTO_MAGIC, .version = NL_PROTO_VERSION };
}

/* Answer with an error in words, and end the connection. */
static void refuse(struct conn *c, int err, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
static void refuse(struct conn *c, int err, const char *fmt, ...)
{
	struct nl_reply rep;
	va_list ap;

	reply_init(&rep);
	rep.error = err;
	va_start(ap, fmt);
	vsnprintf(rep.message, sizeof(rep.message), fmt, ap);
	va_end(ap);
	wire_send(c->w.fd, &rep, sizeof(rep), -1, MSG_DONTWAIT);
	conn_close(c);
}

/* Answer with an object, which is put. */
static void send_object(struct conn *c, json_object *o)
{
	struct nl_reply rep;
	const char *text;
	size_t len;

	reply_init(&rep);
	text = json_object_to_json_string_length(o, JSON_C_TO_STRING_PLAIN, &len);
	c->state = CONN_TEXT;
	if (wire_send(c->w.fd, &rep, sizeof(rep), -1, MSG_DONTWAIT) ||
	    !conn_queue(c, text, len, SIZE_MAX) || !conn_flush(c))
		conn_close(c);
	json_object_put(o);
}

/* The process at the other end, in a way that no reuse of its pid can confuse. */
static int peer_pidfd(const struct conn *c)
{
	socklen_t len = sizeof(int);
	int fd;

	if (!getsockopt(c->w.fd, SOL_SOCKET, SO_PEERPIDFD, &fd, &len))
		return fd;
	return syscall(SYS_pidfd_open, c->cred.pid, 0); /* before Linux 6.5 */
}

static void serve_open(struct conn *c, const struct nl_request *req)
{
	struct heap *h = heaps_find(req->name);
	int pidfd, index;

	if (!h) {
		refuse(c, ENOENT, "nolockd has no heap '%s'", req->name);
		return;
	}
	if (c->cred.pid <= 0) {
		refuse(c, EACCES, "the process is not in nolockd's PID namespace");
		return;
	}
	pidfd = peer_pidfd(c);
	if (pidfd < 0) {
		refuse(c, errno, "cannot watch process %d: %s", c->cred.pid, strerror(errno));
		return;
	}
	index = heap_admit(h, c->cred.pid, pidfd, c->w.fd, &c->serial);
	if (index == -EUSERS) {
		refuse(c, EUSERS, "heap '%s' has as many clients as it can have", req->name);
	} else if (index < 0) {
		refuse(c, -index, "heap '%s' cannot be opened: %s", req->name,
		       heap_why(h) ? heap_why(h) : strerror(-index));
	} else {
		c->state = CONN_CLIENT;
		c->heap = h;
		c->client = index;
	}
}

static void serve_check(struct conn *c, const struct nl_request *req)
{
	struct heap *h = heaps_find(req->name);
	int err;

	if (!h) {
		refuse(c, ENOENT, "nolockd has no heap '%s'", req->name);
		return;
	}
	err = heap_check(h, c->w.fd);
	if (err)
		refuse(c, -err, "heap '%s' cannot be checked: %s", req->name,
		       heap_why(h) ? heap_why(h) : strerror(-err));
	else
		conn_close(c); /* the keeper has it now */
}

static void serve_rebuild(struct conn *c, const struct nl_request *req)
{
	struct heap *h = heaps_find(req->name);
	int err;

	if (!h) {
		refuse(c, ENOENT, "nolockd has no heap '%s'", req->name);
		return;
	}
	if (!heap_may_rebuild(h, c->cred.uid)) {
		refuse(c, EACCES, "only root and the heap's owner may make it anew");
		return;
	}
	err = heap_rebuild(h, req->flags & NL_REBUILD_FORCE, c->w.fd);
	if (err == -EBUSY)
		refuse(c, EBUSY, "heap '%s' is served, and no damage was noticed", req->name);
	else if (err == -EALREADY)
		refuse(c, EALREADY, "heap '%s' is being made anew", req->name);
	else if (err)
		refuse(c, -err, "heap '%s' was not made anew: %s", req->name, strerror(-err));
	else
		conn_close(c); /* the new heap has it now */
}

static void serve_status(struct conn *c)
{
	json_object *o = json_object_new_object();

	json_put_text(o, "version", NOLOCK_VERSION);
	json_put_u64(o, "pid", getpid());
	json_put_text(o, "socket", socket_path);
	json_put_u64(o, "uptime_ms", now_ms() - served_since);
	json_put_u64(o, "connections", nr_conns);
	json_object_object_add(o, "heaps", heaps_status());
	json_object_object_add(o, "tracing", tracing_status());
	send_object(c, o);
}

/*
 * Events of the kernel and of all processes, addresses included: not for everybody who may use a
 * heap.
 */
static bool may_trace(const struct conn *c)
{
	return c->cred.uid == 0 || c->cred.uid == geteuid();
}

static void serve_kernel(struct conn *c)
{
	const char *why = "";
	json_object *o;

	if (!may_trace(c)) {
		refuse(c, EACCES, "only root may see the kernel's caches");
		return;
	}
	o = tracing_kernel(&why);
	if (o)
		send_object(c, o);
	else
		refuse(c, ENODEV, "%s", why);
}

/* Queue lines of events. A reader that is too slow hears how many were dropped. */
static void trace_sink(void *arg, const char *lines, size_t len, unsigned int events)
{
	struct conn *c = arg;
	char note[64];
	int n;

	if (c->dropped) {
		n = snprintf(note, sizeof(note), "{\"dropped\":%llu}\n",
			     (unsigned long long)c->dropped);
		if (!conn_queue(c, note, n, QUEUE_MAX)) {
			c->dropped += events;
			return;
		}
		c->dropped = 0;
	}
	if (!conn_queue(c, lines, len, QUEUE_MAX)) {
		c->dropped += events;
		return;
	}
	/* A send that fails here ends the connection when the loop sees it hang up. */
	conn_flush(c);
}

static void serve_trace(struct conn *c, const struct nl_request *req)
{
	const char *why = "";
	struct nl_reply rep;
	int err;

	if (!may_trace(c)) {
		refuse(c, EACCES, "only root may trace");
		return;
	}
	err = tracing_stream(req, c->cred.pid, trace_sink, c, &why);
	if (err == -EBUSY) {
		refuse(c, EBUSY, "somebody else is reading the events already");
		return;
	}
	if (err) {
		refuse(c, -err, "%s", *why ? why : strerror(-err));
		return;
	}
	c->state = CONN_TRACE;
	reply_init(&rep);
	if (wire_send(c->w.fd, &rep, sizeof(rep), -1, MSG_DONTWAIT))
		conn_close(c);
}

static void serve(struct conn *c, struct nl_request *req)
{
	if (req->magic != NL_PROTO_MAGIC || req->version != NL_PROTO_VERSION) {
		refuse(c, EPROTO,
		       "this nolockd speaks version %u of the protocol, the client "
		       "another",
		       NL_PROTO_VERSION);
		return;
	}
	req->name[sizeof(req->name) - 1] = 0;
	switch (req->op) {
	case NL_OP_OPEN:
		serve_open(c, req);
		break;
	case NL_OP_CHECK:
		serve_check(c, req);
		break;
	case NL_OP_REBUILD:
		serve_rebuild(c, req);
		break;
	case NL_OP_STATUS:
		serve_status(c);
		break;
	case NL_OP_KERNEL:
		serve_kernel(c);
		break;
	case NL_OP_TRACE:
		serve_trace(c, req);
		break;
	default:
		refuse(c, EOPNOTSUPP, "operation %u is unknown", req->op);
	}
}

/* A packet from the client, or its end. */
static void conn_read(struct conn *c)
{
	struct nl_request req;
	ssize_t n;
	int fd;

	n = wire_receive(c->w.fd, &req, sizeof(req), &fd, MSG_DONTWAIT);
	if (fd >= 0)
		close(fd);
	if (n == -EAGAIN)
		return;
	switch (c->state) {
	case CONN_NEW:
		if (n == sizeof(req))
			serve(c, &req);
		else if (n > 0)
			refuse(c, EPROTO, "the request has %zd bytes, not %zu", n, sizeof(req));
		else
			conn_close(c);
		break;
	case CONN_CLIENT:
		heap_closed(c->heap, c->client, c->serial,
			    n == sizeof(req) && req.magic == NL_PROTO_MAGIC &&
				    req.op == NL_OP_CLOSE);
		conn_close(c);
		break;
	default:
		conn_close(c);
	}
}

static void conn_ready(struct watch *w, uint32_t events)
{
	struct conn *c = watch_owner(w, struct conn, w);

	if ((events & EPOLLOUT) && !conn_flush(c))
		conn_close(c);
	else if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
		conn_read(c);
}

static void accept_one(struct watch *w, uint32_t events)
{
	socklen_t len = sizeof(struct ucred);
	struct conn *c;
	int fd;

	(void)events;
	fd = accept4(w->fd, NULL, NULL, SOCK_CLOEXEC);
	if (fd < 0)
		return;
	c = nr_conns < MAX_CONNECTIONS ? calloc(1, sizeof(*c)) : NULL;
	if (!c) {
		close(fd);
		return;
	}
	c->w = (struct watch){ .fd = fd, .ready = conn_ready };
	c->since = now_ms();
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &c->cred, &len) || loop_add(&c->w, EPOLLIN)) {
		close(fd);
		free(c);
		return;
	}
	c->next = conns;
	conns = c;
	nr_conns++;
}

/* Does somebody answer at the socket? 0: nobody does, and the path is free or a dead socket. */
static int probe(const struct sockaddr_un *addr)
{
	struct stat st;
	int fd, err;

	if (lstat(addr->sun_path, &st))
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(st.st_mode))
		return -EEXIST;
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	err = connect(fd, (struct sockaddr *)addr, sizeof(*addr)) ? errno : 0;
	close(fd);
	/* EAGAIN: its queue is full; EPROTOTYPE: something else listens there. */
	if (!err || err == EAGAIN)
		return -EADDRINUSE;
	return err == ECONNREFUSED ? 0 : -err;
}

/* The socket's directory, opened; made when its parent is there. */
static int open_directory(const char *path)
{
	char copy[PATH_MAX], *dir;
	int fd;

	snprintf(copy, sizeof(copy), "%s", path);
	dir = dirname(copy);
	if (!mkdir(dir, 0755))
		strcpy(made_directory, dir);
	else if (errno != EEXIST) {
		complain("cannot make the directory %s: %s; choose another place with "
			 "--socket=PATH",
			 dir, strerror(errno));
		return -errno;
	}
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0) {
		complain("cannot open the directory %s: %s; choose another place with "
			 "--socket=PATH",
			 dir, strerror(errno));
		return -errno;
	}
	return fd;
}

static int bind_and_listen(const struct sockaddr_un *addr, const struct access *access)
{
	mode_t mask;
	int fd, err = 0;

	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	unlink(addr->sun_path);
	mask = umask(0777);
	if (bind(fd, (struct sockaddr *)addr, sizeof(*addr)))
		err = -errno;
	umask(mask);
	if (!err && (chown(addr->sun_path, access->uid, access->gid) ||
		     chmod(addr->sun_path, access->mode) || listen(fd, BACKLOG))) {
		err = -errno;
		unlink(addr->sun_path);
	}
	if (err) {
		close(fd);
		return err;
	}
	return fd;
}

int server_bind(const char *path, const struct access *access)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	unsigned int tries = 0;
	int dir, err;

	if (strlen(path) >= sizeof(addr.sun_path)) {
		complain("the socket's path is longer than %zu bytes: %s",
			 sizeof(addr.sun_path) - 1, path);
		return -ENAMETOOLONG;
	}
	strcpy(addr.sun_path, path);
	dir = open_directory(path);
	if (dir < 0)
		return dir;
	/* Two that start at once must not both find a stale socket and remove each other's. */
	flock(dir, LOCK_EX);
	do
		err = probe(&addr);
	while (err == -EADDRINUSE && keepers_end(&tries));
	if (!err) {
		listener.fd = bind_and_listen(&addr, access);
		if (listener.fd < 0)
			err = listener.fd;
	}
	close(dir);
	if (err == -EADDRINUSE)
		complain("another nolockd serves at %s; stop it, or choose another place with "
			 "--socket=PATH",
			 path);
	else if (err == -EEXIST)
		complain("%s is there and is no socket; choose another place with --socket=PATH",
			 path);
	else if (err)
		complain("cannot make the socket %s: %s; choose another place with --socket=PATH",
			 path, strerror(-err));
	if (err) {
		listener.fd = -1;
		server_stop();
		return err;
	}
	strcpy(socket_path, path);
	return 0;
}

int server_serve(void)
{
	served_since = now_ms();
	listener.ready = accept_one;
	return loop_add(&listener, EPOLLIN);
}

void server_tick(void)
{
	uint64_t now = now_ms();
	struct conn *c, *next;

	for (c = conns; c; c = next) {
		next = c->next;
		if (c->state == CONN_NEW && now - c->since > ASK_MS)
			conn_close(c);
	}
}

void server_stop(void)
{
	while (conns)
		conn_close(conns);
	if (listener.fd >= 0) {
		loop_remove(&listener);
		unlink(socket_path);
		close(listener.fd);
		listener.fd = -1;
	}
	if (*made_directory)
		rmdir(made_directory);
	*made_directory = 0;
}
