// SPDX-License-Identifier: GPL-2.0-only
/*
 * keeper.c - see keeper.h.
 */
#define _GNU_SOURCE
#include <cap-ng.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include <bpf/libbpf.h>

#include "internal.h"
#include "json.h"
#include "keeper.h"
#include "loop.h"
#include "wire.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

/* How often a keeper looks after its heap: soon again while there is something to do. */
#define TICK_MIN_MS 10
#define TICK_MAX_MS 50

/* What a client overwrites is seen in so many looks after the heap at the latest. */
#define PARTS 8u

/*
 * The users that keepers are, when nolockd is root: one that owns nothing, and whom nobody else is,
 * who might send signals; where there is none such, in a user namespace say, nobody.
 */
#define KEEPER_USER 0x7ffe6e6cu
#define NOBODY 65534u

static const struct keeper_job *job;
static struct nolock_heap *heap;
static struct nl_heap header; /* private copy, as validated */
static nl_u64 grown;	      /* groups opened by the program */
static int grow_error;	      /* why the program is not asked any more, or 0 */

/* What was written into the heap, as clients might overwrite it. */
static struct {
	nl_u32 pid;
	nl_u64 starttime;
} clients[NL_MAX_CLIENTS + 1];
static nl_u64 epoch;

static void report(const struct keeper_report *r)
{
	/* Without nolockd there is nothing to keep for: its successor starts another keeper. */
	if (wire_send(job->sock, r, sizeof(*r), -1, 0))
		_exit(0);
}

static void fail(int err, const char *fmt, ...) __attribute__((noreturn, format(printf, 2, 3)));
static void fail(int err, const char *fmt, ...)
{
	struct keeper_report r = { .event = KEEPER_READY, .error = err };
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(r.text, sizeof(r.text), fmt, ap);
	va_end(ap);
	report(&r);
	_exit(1);
}

static int by_number(const void *a, const void *b)
{
	return *(const int *)a - *(const int *)b;
}

/*
 * Keep the pair's end, the heap's memory, the program that grows it and the standard three:
 * nothing of nolockd's other.
 */
static void close_others(void)
{
	int keep[] = { 2, job->memory->arena.grow, job->memory->fd, job->sock };
	unsigned int i, n = sizeof(keep) / sizeof(*keep);

	qsort(keep, n, sizeof(*keep), by_number);
	for (i = 0; i < n; i++) {
		if (keep[i] < 2)
			continue;
		if (i + 1 == n)
			close_range(keep[i] + 1, ~0U, 0);
		else if (keep[i + 1] > keep[i] + 1)
			close_range(keep[i] + 1, keep[i + 1] - 1, 0);
	}
}

/* From here on the process can do nothing but read and write the heap and answer. */
static void drop_privileges(void)
{
	static const unsigned int users[] = { KEEPER_USER, NOBODY };
	unsigned int i;
	int err = -1;

	for (i = 0; geteuid() == 0 && err && i < sizeof(users) / sizeof(*users); i++) {
		capng_clear(CAPNG_SELECT_BOTH);
		err = capng_change_id((int)users[i], (int)users[i],
				      CAPNG_DROP_SUPP_GRP | CAPNG_CLEAR_BOUNDING);
	}
	/* A user namespace without either: as root, without capabilities. */
	if (geteuid() == 0) {
		capng_clear(CAPNG_SELECT_BOTH);
		capng_apply(CAPNG_SELECT_BOTH);
	}
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

static void be_alone(pid_t parent)
{
	struct rlimit no_core = { 0, 0 };
	char name[NL_NAME + 16];

	/* A terminal's Ctrl-C goes to all; nolockd says when it is over by closing the pair. */
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	signal(SIGQUIT, SIG_IGN);
	close_others();
	setrlimit(RLIMIT_CORE, &no_core);
	drop_privileges();
	/* After the change of user, which clears it. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(0);
	snprintf(name, sizeof(name), "nolockd:%s", job->memory->name);
	prctl(PR_SET_NAME, name);
}

static void format_heap(void *mem)
{
	const struct memory *m = job->memory;
	struct nl_shape shape;
	nl_u64 fixed;

	memory_shape(m, &shape);
	fixed = nl_heap_fixed_size(&shape);
	if (!fixed)
		fail(-EINVAL, "cannot be made: %llu MiB do not hold its metadata for %u CPUs",
		     (unsigned long long)m->size >> 20, shape.nr_slots);
	if (!m->set_up && madvise(mem, fixed, MADV_POPULATE_WRITE))
		fail(-errno, "cannot make %llu MiB present: %s", (unsigned long long)fixed >> 20,
		     strerror(errno));
	if (nl_heap_format(mem, &shape))
		fail(-EINVAL, "cannot be formatted with %llu MiB",
		     (unsigned long long)m->size >> 20);
}

/* Validate what an earlier nolockd left, by a private copy. */
static void validate(void)
{
	const struct memory *m = job->memory;
	const char *why = "";
	int err;

	err = nl_heap_validate(&header, m->base, m->size, &why);
	if (!err && (strnlen(header.name, NL_NAME) == NL_NAME || strcmp(header.name, m->name))) {
		err = -EUCLEAN;
		why = "it has another name";
	}
	if (err == -EPROTO)
		fail(err, "was made by another version of nolock");
	if (err)
		fail(err, "has garbage in its header (%s)", why);
}

static void open_heap(void)
{
	const struct memory *m = job->memory;
	void *mem;

	mem = mmap((void *)m->base, m->size, PROT_READ | PROT_WRITE,
		   MAP_SHARED | MAP_FIXED_NOREPLACE, m->fd, 0);
	if (mem == MAP_FAILED)
		fail(-errno, "cannot be mapped at %#llx: %s", (unsigned long long)m->base,
		     strerror(errno));
	if (!m->adopted)
		format_heap(mem);
	memcpy(&header, mem, sizeof(header));
	validate();
	munmap(mem, m->size);
	heap = nl_heap_map(m->fd, m->type == NOLOCK_HEAP_ARENA ? NL_HEAP_ARENA : NL_HEAP_MEMFD,
			   m->base, m->size, NL_CLIENT_NOLOCKD);
	if (!heap)
		fail(-errno, "cannot be mapped: %s", strerror(errno));
}

/* Tell nolockd who uses an adopted heap; it finds out who of them still lives. */
static void report_clients(void)
{
	struct keeper_report r = { .event = KEEPER_CLIENT };
	nl_u32 i;

	for (i = 1; i <= NL_MAX_CLIENTS; i++) {
		r.client = i;
		r.pid = nl_load(&heap->h->client[i].pid);
		r.starttime = nl_load(&heap->h->client[i].starttime);
		clients[i].pid = r.pid;
		clients[i].starttime = r.starttime;
		if (r.pid)
			report(&r);
	}
}

/* What nolockd itself wrote must stay as it is. */
static void check_clients(void)
{
	nl_u32 i;

	for (i = 1; i <= NL_MAX_CLIENTS; i++)
		if (nl_load(&heap->h->client[i].pid) != clients[i].pid ||
		    nl_load(&heap->h->client[i].starttime) != clients[i].starttime)
			fail(-EUCLEAN, "is damaged: client %u: its entry was overwritten", i);
	if (nl_load(&heap->h->epoch) != epoch)
		fail(-EUCLEAN, "is damaged: its header's epoch was overwritten");
}

/* What a client has overwritten, the library would go by. */
static void check_part(nl_u32 part, nl_u32 parts)
{
	char why[sizeof(((struct keeper_report *)0)->text) - 16];

	if (nl_heap_sane(heap, &header, part, parts, why, sizeof(why)))
		fail(-EUCLEAN, "is damaged: %s", why);
}

static void check_all(void)
{
	check_part(0, 1);
	check_clients();
}

/*
 * Open another group: by the program where there is one, because what it has begun it ends, should
 * the keeper be killed meanwhile.
 */
static bool grow(void)
{
	int err = job->memory->arena.grow < 0 ? -ENODEV : grow_error;

	if (!err) {
		err = arena_grow(job->memory->arena.grow);
		grown += !err;
		if (!err || err == -ENOSPC)
			return !err;
		/* For want of memory now; else for good: a filter on system calls, say. */
		if (err != -ENOMEM && err != -ETIME)
			grow_error = err;
	}
	return nl_heap_grow(heap, 1) > 0;
}

/* Keep memory ahead of demand. Returns whether there was anything to do. */
static bool look_after(void)
{
	nl_u32 target, reserve, want, max = job->memory->size / NL_CHUNK_SIZE / 2;
	static nl_u32 part;
	bool busy = false;

	check_part(part++ % PARTS, PARTS);
	check_clients();
	/* A client may have asked for more than nolockd did; less than nolockd's is not kept to. */
	target = nl_load(&heap->h->reserve_target);
	if (target < job->populate / NL_CHUNK_SIZE)
		target = job->populate / NL_CHUNK_SIZE;
	if (target > max)
		target = max;
	reserve = nl_load(&heap->h->nr_reserve);
	want = memory_chunks_ahead(job->memory) + (reserve < target ? target - reserve : 0);
	while (nl_heap_free_chunks(heap) < want && grow())
		busy = true;
	if (nl_heap_prefill(heap, job->watermark))
		busy = true;
	if (reserve < target || nl_load(&heap->h->reserve_target) != target) {
		nolock_heap_populate(heap, (size_t)target * NL_CHUNK_SIZE);
		busy |= nl_load(&heap->h->nr_reserve) > reserve;
	}
	return busy;
}

static void reply_init(struct nl_reply *rep)
{
	*rep = (struct nl_reply){
		.magic = NL_PROTO_MAGIC,
		.version = NL_PROTO_VERSION,
		.type = job->memory->type,
		.base = job->memory->base,
		.size = job->memory->size,
	};
}

/*
 * The entry goes into the table before the client hears of it: should nolockd be killed now, the
 * next one finds the client there.
 */
static void open_client(const struct keeper_order *o, int conn)
{
	struct nl_client *c = &heap->h->client[o->client];
	struct nl_reply rep;

	nl_store(&c->threads, 0);
	clients[o->client].starttime = o->starttime;
	clients[o->client].pid = (nl_u32)o->pid;
	nl_store(&c->starttime, o->starttime);
	nl_store_release(&c->pid, (nl_u32)o->pid);
	reply_init(&rep);
	rep.client = o->client;
	wire_send(conn, &rep, sizeof(rep), heap->fd, MSG_DONTWAIT);
}

static void client_gone(const struct keeper_order *o)
{
	struct keeper_report r = { .event = KEEPER_REPAIRED, .client = o->client };

	/* It may have overwritten what the repair goes by. */
	check_all();
	r.value = nl_heap_repair(heap, o->client);
	clients[o->client].pid = 0;
	nl_store_release(&heap->h->client[o->client].pid, 0);
	report(&r);
}

static void run_check(int conn)
{
	struct nolock_heap_report rep = { 0 };
	struct nl_reply reply;
	json_object *o;
	const char *text;
	size_t len;
	int err;

	err = nolock_heap_check(heap, &rep);
	reply_init(&reply);
	if (err && err != -EUCLEAN) {
		reply.error = -err;
		snprintf(reply.message, sizeof(reply.message), "the check could not run: %s",
			 strerror(-err));
		wire_send(conn, &reply, sizeof(reply), -1, MSG_DONTWAIT);
		return;
	}
	o = json_of_report(job->memory->name, &rep, !err);
	text = json_object_to_json_string_length(o, JSON_C_TO_STRING_PLAIN, &len);
	wire_send(conn, &reply, sizeof(reply), -1, MSG_DONTWAIT);
	wire_send_text(conn, text, len);
	json_object_put(o);
}

static void report_figures(void)
{
	struct keeper_report r = { .event = KEEPER_FIGURES };
	struct nolock_heap_stat st = { 0 };

	nolock_heap_stat(heap, &st);
	r.opened = st.opened;
	r.free = (st.chunks_free - st.chunks_reserve) * (nl_u64)NL_CHUNK_SIZE;
	r.reserve = st.chunks_reserve * (nl_u64)NL_CHUNK_SIZE;
	r.target = st.reserve_target * (nl_u64)NL_CHUNK_SIZE;
	r.grown = grown * NL_GROUP_SIZE;
	r.error = grow_error;
	report(&r);
}

static void obey(void)
{
	struct keeper_order o;
	ssize_t n;
	int conn;

	n = wire_receive(job->sock, &o, sizeof(o), &conn, 0);
	if (n != sizeof(o))
		_exit(0);
	switch (o.op) {
	case KEEPER_OPEN:
		open_client(&o, conn);
		break;
	case KEEPER_GONE:
		client_gone(&o);
		break;
	case KEEPER_CHECK:
		run_check(conn);
		break;
	case KEEPER_PING:
		report_figures();
		break;
	}
	if (conn >= 0)
		close(conn);
}

void keeper_run(const struct keeper_job *the_job)
{
	struct keeper_report ready = { .event = KEEPER_READY };
	int tick = TICK_MIN_MS;
	uint64_t looked = 0;
	struct pollfd pfd;
	pid_t parent = getppid();

	job = the_job;
	be_alone(parent);
	open_heap();
	if (job->memory->adopted) {
		check_part(0, 1);
		/* What an earlier keeper held when it was killed. */
		nl_heap_repair(heap, NL_CLIENT_NOLOCKD);
		report_clients();
	}
	epoch = nl_load(&heap->h->epoch) + 1;
	nl_store(&heap->h->epoch, epoch);
	while (look_after() && nl_load(&heap->h->nr_reserve) < job->populate / NL_CHUNK_SIZE)
		;
	report(&ready);

	pfd = (struct pollfd){ .fd = job->sock, .events = POLLIN };
	for (;;) {
		if (poll(&pfd, 1, tick) > 0) {
			obey();
			/* However many ask, the heap is looked after. */
			if (now_ms() - looked < TICK_MAX_MS)
				continue;
		}
		looked = now_ms();
		if (look_after())
			tick = TICK_MIN_MS;
		else if (tick < TICK_MAX_MS)
			tick += TICK_MIN_MS;
	}
}
