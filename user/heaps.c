// SPDX-License-Identifier: GPL-2.0-only
/*
 * heaps.c - see heaps.h.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/layout.h"
#include "heaps.h"
#include "json.h"
#include "keeper.h"
#include "loop.h"
#include "say.h"
#include "wire.h"

/* Populating 4 GiB takes seconds; a keeper that needs longer than this hangs. */
#define START_MS 60000
#define PING_MS 1000
#define HANG_MS 20000
#define BURY_MS 1000
/* A keeper that died is replaced, unless that happens again and again. */
#define RESTART_MS 10000
#define RESTARTS 3

enum client_state {
	CLIENT_FREE,
	CLIENT_LIVE,
	CLIENT_LEAVING, /* the keeper is to repair what it held, or is at it */
};

struct client {
	struct watch process; /* its pidfd */
	struct heap *heap;
	enum client_state state;
	bool ordered;	/* LEAVING: the keeper has been told */
	bool connected; /* its connection is open */
	int index;
	uint64_t serial; /* of the admission: an index is used again */
	pid_t pid;
	uint64_t starttime;
};

enum heap_state {
	HEAP_STARTING,
	HEAP_SERVED,
	HEAP_DAMAGED,
	HEAP_REPLACED, /* another has its name: it is there for those who still have it */
};

struct heap {
	struct watch sock; /* our end of the pair with the keeper */
	struct heap *next;
	struct heap_spec spec;
	const struct heaps_options *opts;
	struct memory mem;
	enum heap_state state;
	pid_t keeper;
	uint64_t started, pinged, heard;
	unsigned int restarts;
	unsigned int nr_clients;
	unsigned int nr_conns; /* of clients, also of those that are gone */
	uint64_t repaired;     /* clients gone so far */
	uint64_t locks;	       /* taken over from them */
	struct keeper_report figures;
	char why[160];
	struct heap *replaces; /* the heap whose name this one takes once it is whole */
	int asker;	       /* who wants to hear of that, or -1 */
	struct client clients[NL_MAX_CLIENTS + 1]; /* [0] unused */
};

static struct heap *heaps;
static uint64_t serials;
static bool beginning; /* nobody is answered yet */

static void order_gone(struct client *c)
{
	struct keeper_order o = { .op = KEEPER_GONE, .client = c->index };

	if (c->heap->state == HEAP_SERVED)
		c->ordered = !wire_send(c->heap->sock.fd, &o, sizeof(o), -1, MSG_DONTWAIT);
}

static void client_leaves(struct client *c)
{
	loop_remove(&c->process);
	if (c->process.fd >= 0)
		close(c->process.fd);
	c->process.fd = -1;
	c->state = CLIENT_LEAVING;
	c->ordered = false;
	if (c->heap->state == HEAP_REPLACED) {
		/* Nobody has the heap's figures, and nobody else will use what it held. */
		c->state = CLIENT_FREE;
		c->heap->nr_clients--;
	}
	order_gone(c);
}

static void process_ended(struct watch *w, uint32_t events)
{
	struct client *c = watch_owner(w, struct client, process);

	(void)events;
	client_leaves(c);
}

static void client_init(struct heap *h, int index, pid_t pid, uint64_t starttime, int pidfd)
{
	h->clients[index] = (struct client){
		.process = { .fd = pidfd, .ready = process_ended },
		.heap = h,
		.index = index,
		.serial = ++serials,
		.pid = pid,
		.starttime = starttime,
	};
	h->nr_clients++;
}

/* A client that an earlier nolockd admitted: it lives, or left things to repair. */
static void adopt_client(struct heap *h, const struct keeper_report *r)
{
	struct client *c;
	int pidfd = -1;

	if (r->client < 1 || r->client > NL_MAX_CLIENTS)
		return;
	c = &h->clients[r->client];
	if (c->state != CLIENT_FREE)
		return;
	if (r->pid > 0)
		pidfd = syscall(SYS_pidfd_open, r->pid, 0);
	client_init(h, r->client, r->pid, r->starttime, pidfd);
	if (pidfd >= 0 && process_starttime(r->pid) == r->starttime &&
	    !loop_add(&c->process, EPOLLIN)) {
		c->state = CLIENT_LIVE;
		return;
	}
	client_leaves(c);
}

static void order_all_gone(struct heap *h)
{
	int i;

	for (i = 1; i <= (int)NL_MAX_CLIENTS; i++)
		if (h->clients[i].state == CLIENT_LEAVING && !h->clients[i].ordered)
			order_gone(&h->clients[i]);
}

static void damaged(struct heap *h, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void damaged(struct heap *h, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(h->why, sizeof(h->why), fmt, ap);
	va_end(ap);
	h->state = HEAP_DAMAGED;
	/* Of one that is only to take another's place its asker hears. */
	if (h->replaces)
		return;
	complain("heap '%s' %s; it is not served: %s%s makes a new heap in its place", h->spec.name,
		 h->why,
		 beginning ? "a start with --reformat=" : "nolock rebuild --heap=", h->spec.name);
}

static void client_repaired(struct heap *h, const struct keeper_report *r)
{
	struct client *c;

	if (r->client < 1 || r->client > NL_MAX_CLIENTS)
		return;
	c = &h->clients[r->client];
	if (c->state != CLIENT_LEAVING)
		return;
	c->state = CLIENT_FREE;
	h->nr_clients--;
	h->repaired++;
	h->locks += r->value;
	if (r->value)
		say("heap '%s': process %d died and held %llu locks: repaired", h->spec.name,
		    c->pid, (unsigned long long)r->value);
}

static int start_keeper(struct heap *h);
static void bury_keeper(struct heap *h, bool hangs, char *how, size_t len);

/* Tell who asked for the heap to be made anew. */
static void answer(struct heap *h, int err, const char *why)
{
	struct nl_reply rep = { .magic = NL_PROTO_MAGIC, .version = NL_PROTO_VERSION };

	if (h->asker < 0)
		return;
	rep.error = -err;
	if (err)
		snprintf(rep.message, sizeof(rep.message), "heap '%s' was not made anew: %s",
			 h->spec.name, why);
	wire_send(h->asker, &rep, sizeof(rep), -1, MSG_DONTWAIT);
	close(h->asker);
	h->asker = -1;
}

/* A new heap is whole: from now on its name means it. */
static void take_its_place(struct heap *h)
{
	struct heap *old = h->replaces;
	char how[64];
	int i, err;

	err = memory_replace(&h->mem, &old->mem, &h->opts->access);
	if (err) {
		damaged(h, "cannot take its place: %s", strerror(-err));
		return;
	}
	h->replaces = NULL;
	bury_keeper(old, false, how, sizeof(how));
	old->state = HEAP_REPLACED;
	for (i = 1; i <= (int)NL_MAX_CLIENTS; i++)
		if (old->clients[i].state == CLIENT_LEAVING)
			client_leaves(&old->clients[i]);
	say("heap '%s': made anew, %llu MiB at %#llx; %u processes still have the old one",
	    h->spec.name, (unsigned long long)h->mem.size >> 20, (unsigned long long)h->mem.base,
	    old->nr_clients);
	answer(h, 0, NULL);
}

static void take_report(struct heap *h, struct keeper_report *r)
{
	h->heard = now_ms();
	switch (r->event) {
	case KEEPER_CLIENT:
		adopt_client(h, r);
		break;
	case KEEPER_READY:
		r->text[sizeof(r->text) - 1] = 0;
		if (r->error) {
			damaged(h, "%s", r->text);
			break;
		}
		h->state = HEAP_SERVED;
		order_all_gone(h);
		if (h->replaces)
			take_its_place(h);
		break;
	case KEEPER_REPAIRED:
		client_repaired(h, r);
		break;
	case KEEPER_FIGURES:
		h->figures = *r;
		break;
	}
}

/*
 * End the keeper; says in words how it ended. It ends by itself when the pair is closed, between
 * two operations on the heap, so that it leaves nothing to repair; one that hangs is killed.
 */
static void bury_keeper(struct heap *h, bool hangs, char *how, size_t len)
{
	int status = 0, tries = hangs ? 0 : BURY_MS;

	loop_remove(&h->sock);
	if (h->sock.fd >= 0)
		close(h->sock.fd);
	h->sock.fd = -1;
	if (h->keeper <= 0)
		return;
	while (tries-- > 0 && waitpid(h->keeper, &status, WNOHANG) == 0)
		usleep(1000);
	if (tries < 0) {
		kill(h->keeper, SIGKILL);
		while (waitpid(h->keeper, &status, 0) < 0 && errno == EINTR)
			;
	}
	h->keeper = 0;
	if (WIFSIGNALED(status))
		snprintf(how, len, "was killed by SIG%s", sigabbrev_np(WTERMSIG(status)));
	else
		snprintf(how, len, "exited with status %d", WEXITSTATUS(status));
}

/* The keeper is gone, or hangs. */
static void keeper_lost(struct heap *h, const char *hung)
{
	uint64_t lived = now_ms() - h->started;
	bool was_served = h->state == HEAP_SERVED;
	char how[64] = "is gone";
	int i;

	bury_keeper(h, hung, how, sizeof(how));
	if (h->state == HEAP_DAMAGED)
		return;
	if (!was_served || h->restarts >= RESTARTS || (h->restarts && lived < RESTART_MS)) {
		damaged(h, "is damaged: its keeper %s", hung ? hung : how);
		return;
	}
	complain("heap '%s': its keeper %s: starting another", h->spec.name, hung ? hung : how);
	h->restarts++;
	for (i = 1; i <= (int)NL_MAX_CLIENTS; i++)
		h->clients[i].ordered = false;
	h->mem.adopted = true;
	if (start_keeper(h))
		damaged(h, "cannot be kept: no new keeper could be started");
}

static void keeper_speaks(struct watch *w, uint32_t events)
{
	struct heap *h = watch_owner(w, struct heap, sock);
	struct keeper_report r;
	ssize_t n;
	int fd;

	(void)events;
	n = wire_receive(w->fd, &r, sizeof(r), &fd, MSG_DONTWAIT);
	if (fd >= 0)
		close(fd);
	if (n == -EAGAIN)
		return;
	if (n == sizeof(r))
		take_report(h, &r);
	else
		keeper_lost(h, NULL);
}

static int start_keeper(struct heap *h)
{
	struct keeper_job job = {
		.memory = &h->mem,
		/* An adopted heap goes on with what it was told before, unless told anew. */
		.populate = h->mem.adopted && !h->spec.populated ? 0 : h->spec.populate,
		.watermark = h->opts->watermark,
	};
	int pair[2], err;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		return -errno;
	job.sock = pair[1];
	h->keeper = fork();
	if (h->keeper == 0)
		keeper_run(&job);
	err = h->keeper < 0 ? -errno : 0;
	close(pair[1]);
	h->sock = (struct watch){ .fd = pair[0], .ready = keeper_speaks };
	h->state = HEAP_STARTING;
	h->started = h->pinged = h->heard = now_ms();
	if (!err)
		err = loop_add(&h->sock, EPOLLIN);
	if (err) {
		close(pair[0]);
		h->sock.fd = -1;
	}
	return err;
}

static struct heap *heap_new(const struct heap_spec *spec, const struct heaps_options *opts)
{
	struct heap *h = calloc(1, sizeof(*h));
	int i;

	if (!h)
		return NULL;
	h->spec = *spec;
	h->opts = opts;
	h->sock.fd = -1;
	h->asker = -1;
	for (i = 0; i <= (int)NL_MAX_CLIENTS; i++)
		h->clients[i].process.fd = -1;
	return h;
}

static void heap_add(struct heap *h)
{
	struct heap **end;

	for (end = &heaps; *end; end = &(*end)->next)
		;
	*end = h;
}

int heaps_start(const struct heap_spec *spec, const struct heaps_options *opts, bool fresh)
{
	struct pollfd pfd;
	struct heap *h;
	int err;

	h = heap_new(spec, opts);
	if (!h) {
		complain("heap '%s': out of memory", spec->name);
		return -ENOMEM;
	}
	err = memory_open(&h->mem, spec, fresh);
	if (err) {
		free(h);
		return err;
	}
	heap_add(h);
	err = start_keeper(h);
	if (err) {
		complain("heap '%s': cannot start its keeper: %s", spec->name, strerror(-err));
		return err;
	}
	beginning = true;
	while (h->state == HEAP_STARTING) {
		pfd = (struct pollfd){ .fd = h->sock.fd, .events = POLLIN };
		if (poll(&pfd, 1, START_MS) == 0)
			keeper_lost(h, "hangs");
		else
			keeper_speaks(&h->sock, 0);
	}
	beginning = false;
	if (h->state != HEAP_SERVED)
		return -EUCLEAN;
	memory_publish(&h->mem, &opts->access);
	say("heap '%s': %s, %s, %llu MiB at %#llx%s%s", spec->name,
	    h->mem.adopted ? "adopted" : "made", heap_type_name(h->mem.type),
	    (unsigned long long)h->mem.size >> 20, (unsigned long long)h->mem.base,
	    *h->mem.arena.why ? "; pages by madvise: " : "", h->mem.arena.why);
	return 0;
}

struct heap *heaps_find(const char *name)
{
	struct heap *h;

	for (h = heaps; h; h = h->next)
		if (h->state != HEAP_REPLACED && !h->replaces && !strcmp(h->spec.name, name))
			break;
	return h;
}

bool heap_may_rebuild(const struct heap *h, uid_t uid)
{
	return uid == 0 || uid == geteuid() || uid == h->opts->access.uid;
}

int heap_rebuild(struct heap *h, bool force, int conn)
{
	struct heap_spec spec = h->spec;
	struct heap *n;
	int err;

	if (h->state == HEAP_SERVED && !force)
		return -EBUSY;
	for (n = heaps; n; n = n->next)
		if (n->replaces == h)
			return -EALREADY;
	if (h->state == HEAP_STARTING)
		return -EAGAIN;
	if (!spec.sized) {
		spec.size = h->mem.size;
		if (!spec.populated || spec.populate > spec.size / 2)
			spec.populate = spec.size / 16;
	}
	n = heap_new(&spec, h->opts);
	if (!n)
		return -ENOMEM;
	err = memory_renew(&n->mem, &h->mem, &spec);
	if (err) {
		free(n);
		return err;
	}
	n->replaces = h;
	n->asker = fcntl(conn, F_DUPFD_CLOEXEC, 0);
	heap_add(n);
	err = start_keeper(n);
	if (err) {
		damaged(n, "no keeper could be started: %s", strerror(-err));
		close(n->asker);
		n->asker = -1;
	}
	return err;
}

const char *heap_why(const struct heap *h)
{
	return h->state == HEAP_DAMAGED ? h->why : NULL;
}

/*
 * A process that opens the heap again, or the one that replaced it, has unmapped it before, whatever
 * became of its CLOSE: what it held then goes back.
 */
static void forget_unmapped(struct heap *h, pid_t pid, uint64_t starttime)
{
	struct client *c;
	int i;

	for (i = 1; i <= (int)NL_MAX_CLIENTS; i++) {
		c = &h->clients[i];
		if (c->state == CLIENT_LIVE && !c->connected && c->pid == pid &&
		    c->starttime == starttime)
			client_leaves(c);
	}
}

int heap_admit(struct heap *h, pid_t pid, int pidfd, int conn, uint64_t *serial)
{
	struct keeper_order o = { .op = KEEPER_OPEN, .pid = pid };
	struct heap *old;
	struct client *c;
	int i, err = 0;

	o.starttime = process_starttime(pid);
	if (!o.starttime)
		err = -ESRCH;
	else if (h->state != HEAP_SERVED)
		err = h->state == HEAP_DAMAGED ? -EUCLEAN : -EAGAIN;
	if (err)
		goto refuse;
	for (old = heaps; old; old = old->next)
		if (old == h ||
		    (old->state == HEAP_REPLACED && !strcmp(old->spec.name, h->spec.name)))
			forget_unmapped(old, pid, o.starttime);
	for (i = 1; i <= (int)NL_MAX_CLIENTS && h->clients[i].state != CLIENT_FREE; i++)
		;
	if (i > (int)NL_MAX_CLIENTS) {
		err = -EUSERS;
		goto refuse;
	}
	o.client = i;
	client_init(h, i, pid, o.starttime, pidfd);
	c = &h->clients[i];
	err = loop_add(&c->process, EPOLLIN);
	if (!err) {
		err = wire_send(h->sock.fd, &o, sizeof(o), conn, MSG_DONTWAIT);
		if (err)
			loop_remove(&c->process);
	}
	if (err) {
		h->nr_clients--;
		c->process.fd = -1;
		goto refuse;
	}
	c->state = CLIENT_LIVE;
	c->connected = true;
	*serial = c->serial;
	h->nr_conns++;
	return i;
refuse:
	close(pidfd);
	return err;
}

void heap_closed(struct heap *h, int client, uint64_t serial, bool said)
{
	struct client *c = &h->clients[client];

	/* A descriptor that was passed on outlives its process, whose index another one may have. */
	h->nr_conns--;
	if (c->serial != serial)
		return;
	c->connected = false;
	if (said && c->state == CLIENT_LIVE)
		client_leaves(c);
}

int heap_check(struct heap *h, int conn)
{
	struct keeper_order o = { .op = KEEPER_CHECK };

	if (h->state != HEAP_SERVED)
		return h->state == HEAP_DAMAGED ? -EUCLEAN : -EAGAIN;
	return wire_send(h->sock.fd, &o, sizeof(o), conn, MSG_DONTWAIT);
}

/* Take a heap out of the table, and let go of all it has. */
static void heap_drop(struct heap *h, bool destroy)
{
	struct heap **p;
	char how[64];
	int i;

	for (p = &heaps; *p != h; p = &(*p)->next)
		;
	*p = h->next;
	bury_keeper(h, false, how, sizeof(how));
	for (i = 1; i <= (int)NL_MAX_CLIENTS; i++) {
		loop_remove(&h->clients[i].process);
		if (h->clients[i].process.fd >= 0)
			close(h->clients[i].process.fd);
	}
	if (h->asker >= 0)
		close(h->asker);
	memory_close(&h->mem, destroy);
	free(h);
}

void heaps_tick(void)
{
	struct keeper_order o = { .op = KEEPER_PING };
	struct heap *h, *next;
	uint64_t now = now_ms();

	for (h = heaps; h; h = next) {
		next = h->next;
		if (h->state == HEAP_DAMAGED && h->replaces) {
			answer(h, -EIO, h->why);
			heap_drop(h, false);
			continue;
		}
		if (h->state == HEAP_REPLACED && !h->nr_clients && !h->nr_conns) {
			heap_drop(h, false);
			continue;
		}
		if (h->state == HEAP_DAMAGED || h->state == HEAP_REPLACED)
			continue;
		if (now - h->heard > (h->state == HEAP_STARTING ? START_MS : HANG_MS)) {
			keeper_lost(h, "hangs");
			continue;
		}
		if (h->state != HEAP_SERVED)
			continue;
		order_all_gone(h);
		if (now - h->pinged >= PING_MS) {
			wire_send(h->sock.fd, &o, sizeof(o), -1, MSG_DONTWAIT);
			h->pinged = now;
		}
	}
}

static json_object *clients_status(struct heap *h)
{
	json_object *list = json_object_new_array(), *o;
	int i;

	for (i = 1; i <= (int)NL_MAX_CLIENTS; i++) {
		if (h->clients[i].state == CLIENT_FREE)
			continue;
		o = json_object_new_object();
		json_put_u64(o, "index", i);
		json_put_u64(o, "pid", h->clients[i].pid);
		json_put_bool(o, "connected", h->clients[i].connected);
		json_put_bool(o, "leaving", h->clients[i].state == CLIENT_LEAVING);
		json_object_array_add(list, o);
	}
	return list;
}

/* Who makes the pages of an arena present. */
static json_object *arena_status(const struct heap *h)
{
	const struct arena *a = &h->mem.arena;
	json_object *o = json_object_new_object();

	json_put_bool(o, "programs", a->progs);
	json_put_bool(o, "set_up", h->mem.set_up);
	json_put_u64(o, "set_up_bytes", h->mem.by_program);
	json_put_u64(o, "grown_bytes", h->figures.grown);
	json_put_text(o, "why",
		      *a->why || !h->figures.error ? a->why : strerrordesc_np(-h->figures.error));
	json_put_bool(o, "any_context", a->any_context);
	json_put_text(o, "any_context_why", a->why_not_any);
	return o;
}

json_object *heaps_status(void)
{
	static const char *const states[] = { "starting", "served", "damaged", "replaced" };
	json_object *list = json_object_new_array(), *o;
	struct heap *h;

	for (h = heaps; h; h = h->next) {
		o = json_object_new_object();
		json_put_text(o, "name", h->spec.name);
		json_put_text(o, "state", states[h->state]);
		json_put_text(o, "why", h->why);
		json_put_text(o, "type", heap_type_name(h->mem.type));
		json_put_bool(o, "adopted", h->mem.adopted);
		json_put_bool(o, "pinned", h->mem.pinned);
		json_put_u64(o, "base", h->mem.base);
		json_put_u64(o, "size", h->mem.size);
		json_put_u64(o, "opened", h->figures.opened);
		json_put_u64(o, "free", h->figures.free);
		json_put_u64(o, "reserve", h->figures.reserve);
		json_put_u64(o, "reserve_target", h->figures.target);
		json_put_u64(o, "keeper", h->keeper);
		json_put_u64(o, "keeper_restarts", h->restarts);
		json_put_u64(o, "clients_gone", h->repaired);
		json_put_u64(o, "locks_repaired", h->locks);
		if (h->mem.type == NOLOCK_HEAP_ARENA)
			json_object_object_add(o, "arena", arena_status(h));
		json_object_object_add(o, "clients", clients_status(h));
		json_object_array_add(list, o);
	}
	return list;
}

unsigned int heaps_count(void)
{
	unsigned int n = 0;
	struct heap *h;

	for (h = heaps; h; h = h->next)
		n++;
	return n;
}

void heaps_stop(void)
{
	struct heap *h;

	/* What is damaged stays pinned, for whoever wants to know why. */
	while ((h = heaps))
		heap_drop(h, h->opts->destroy_on_exit && h->state == HEAP_SERVED);
}
