// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_trust.c - nothing in a shared heap is trusted (P5): a client writes what it must not, into
 * each field of the header and of every kind of metadata in turn, and all over at random, while a BPF
 * program allocates and frees there. The program ends, the kernel has nothing to complain about,
 * nolockd answers, refuses the heap with a message that names the damage, and makes it anew.
 */
#define _GNU_SOURCE
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <criterion/criterion.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <grp.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <nolock/heap.h>

#include "client.h"
#include "core/grow.h"
#include "core/kmalloc.h"
#include "core/slot.h"
#include "daemon.h"
#include "internal.h"
#include "scribble.h"
#include "scribble.skel.h"
#include "wire.h"

/* Heaps that are overwritten at the same time, each by a process of its own. */
#define HEAPS 10
#define ROUNDS 4
#define TURNS 100

static struct output o;

TestSuite(trust, .init = setup, .timeout = 300);

/* --- what is overwritten --- */

struct target {
	const char *name;
	void *at;
	size_t size;
	uint64_t value;
	/* What nolockd says, one of several, as some damage spreads; or NULL: it serves on. */
	const char *refused;
	const char *checked; /* what the check says of it then, or NULL: anything */
};

/* Where in a heap things are that are in use. */
struct places {
	nl_heap_t *h;
	nl_u32 id, cpu, sheaf, chunk, large, client;
};

#define BAD 0xa5a5a5a5a5a5a5a5ULL

static size_t fill(struct target *t, const struct places *p)
{
	nl_heap_t *h = p->h;
	nl_cache_t *c = nl_cache(h, p->id);
	nl_slot_t *r = nl_rslot(h, p->cpu, p->id), *a = nl_aslot(h, p->cpu, p->id);
	nl_sheaf_t *s = nl_sheaf(h, p->sheaf - 1);
	nl_group_t *g = nl_group(h, p->chunk >> NL_GROUP_SHIFT);
	nl_slab_t *slab = nl_slab(h, p->chunk), *large = nl_slab(h, p->large);
	size_t n = 0;

#define FIELD(lvalue, v, says, check)                                                              \
	t[n++] = (struct target){ #lvalue, &(lvalue), sizeof(lvalue), v, says, check }
#define HEADER(field, v) FIELD(h->field, v, #field, NULL)
	HEADER(magic, BAD);
	HEADER(version, BAD);
	HEADER(type, BAD);
	HEADER(base, BAD);
	HEADER(size, BAD);
	HEADER(nr_groups, BAD);
	HEADER(first_chunk, 0);
	HEADER(nr_slots, BAD);
	HEADER(nr_nodes, BAD);
	HEADER(nr_sheaves, BAD);
	HEADER(slot_by_cpu, 0);
	HEADER(off_cache, BAD);
	HEADER(off_rslot, BAD);
	HEADER(off_aslot, BAD);
	HEADER(off_smap, BAD);
	HEADER(off_sheaf, BAD);
	HEADER(off_gfree, BAD);
	HEADER(off_gpart, BAD);
	HEADER(off_tag, BAD);
	HEADER(off_group, BAD);
	HEADER(off_node, BAD);
	HEADER(limit, BAD);
	HEADER(cursor, BAD);
	HEADER(nr_open, BAD);
	HEADER(nr_left, BAD);
	HEADER(nr_reserve, BAD);
	HEADER(nr_large, BAD);
	HEADER(reserve_target, BAD);
	HEADER(sheaf_hint, BAD);
	HEADER(deep, 1);
	HEADER(epoch, BAD);
	FIELD(h->name[0], '/', "header's name", NULL);
	FIELD(h->root, BAD, NULL, NULL);
	FIELD(h->refused, BAD, NULL, NULL);
	FIELD(h->large_allocs, BAD, NULL, "large objects in use");
	FIELD(h->large_frees, BAD, NULL, "large objects in use");
	FIELD(h->dropped, 1 << 20, NULL, "objects in use");
	FIELD(h->lost, 1 << 20, NULL, "objects in use");
	FIELD(h->deaths, BAD, NULL, NULL);
	FIELD(h->bugs, BAD, NULL, NULL);
	FIELD(h->run_from[1], BAD, NULL, NULL);
	FIELD(h->run_top, BAD, NULL, NULL);
	FIELD(h->run_gives, BAD, NULL, NULL);
	FIELD(h->client[p->client].pid, 1, "its entry was overwritten", NULL);
	FIELD(h->client[p->client].starttime, 1, "its entry was overwritten", NULL);
	FIELD(h->client[p->client].threads, BAD, NULL, NULL);
	FIELD(h->client[NL_MAX_CLIENTS].pid, 1, "its entry was overwritten", NULL);

	FIELD(c->state, BAD, "state is", NULL);
	FIELD(c->state, NL_CACHE_FREE, "state is", NULL);
	FIELD(c->size, 24, "object size is 224 of 24", NULL);
	FIELD(c->size, 4096, "size is 4096", NULL);
	FIELD(c->recip, BAD, "constants do not fit", NULL);
	FIELD(c->per_slab, BAD, "constants do not fit", NULL);
	FIELD(c->capacity, BAD, "in sheaves of", NULL);
	FIELD(c->object_size, BAD, "object size", NULL);
	FIELD(c->align, BAD, "alignment", NULL);
	FIELD(c->mode, BAD, "mode", NULL);
	FIELD(c->nr_slabs, BAD, "slabs", NULL);
	FIELD(c->left, BAD, "constants do not fit", NULL);
	FIELD(c->ctor, BAD, "constants do not fit", NULL);
	FIELD(c->words, BAD, "constants do not fit", NULL);
	FIELD(c->next, BAD, "constants do not fit", NULL);
	FIELD(c->next, 0, "constants do not fit", NULL);
	FIELD(c->id, BAD, "constants do not fit", NULL);
	FIELD(c->made, BAD, NULL, NULL);
	FIELD(c->flags, BAD, NULL, NULL);
	FIELD(c->barn[0].lock, BAD, "lock", NULL);
	FIELD(c->barn[0].full.first, BAD, "barn of|sheaf", NULL);
	FIELD(c->barn[0].full.nr, BAD, "barn of|sheaf", NULL);
	FIELD(c->barn[0].full.nr, 200, NULL, "the counter says 200");
	FIELD(c->barn[0].empty.first, BAD, "barn of|sheaf", NULL);
	FIELD(c->barn[0].empty.nr, BAD, "barn of|sheaf", NULL);
	FIELD(c->barn[0].deep, 1, "deeper than a shared heap's", NULL);
	FIELD(c->barn[0].flushed, 1, "deeper than a shared heap's", NULL);

#define SLOT(slot, kind)                                                                           \
	FIELD(slot->lock, BAD, kind "-slot|barn of|sheaf", NULL);                                  \
	FIELD(slot->word, BAD, kind "-slot|barn of|sheaf", NULL);                                  \
	FIELD(slot->objs, BAD, kind "-slot|barn of|sheaf", NULL);                                  \
	FIELD(slot->cap, BAD, kind "-slot|barn of|sheaf", NULL);                                   \
	FIELD(slot->main, BAD, kind "-slot|barn of|sheaf", NULL);                                  \
	FIELD(slot->spare, BAD, kind "-slot|barn of|sheaf", NULL);                                 \
	FIELD(slot->stat[NL_STAT_IN], BAD, NULL, "objects in use");                                \
	FIELD(slot->seen, BAD, NULL, NULL)
	SLOT(r, "R");
	SLOT(a, "A");
	/* The lock of somebody who is not there: it blocks nobody, and stays. */
	FIELD(a->lock, NL_HELD(NL_OWNER_WHO(NL_OWNER(77, 1))), NULL, NULL);
	FIELD(a->spare, p->sheaf, NULL, "two");

	FIELD(s->next, BAD, "its next is", NULL);
	FIELD(s->cache, BAD, "it is of cache", NULL);
	FIELD(s->size, BAD, "its size is", NULL);
	FIELD(s->owner, BAD, "its owner is", NULL);
	FIELD(s->obj[0], BAD, "outside the heap", NULL);
	FIELD(s->obj[0], h->base + ((nl_u64)p->chunk << NL_CHUNK_SHIFT) + 1, NULL, "object");
	FIELD(nl_sheaf_map(h)[0], ~0ULL, NULL, NULL);
	FIELD(nl_group_free_map(h, 0)[0], ~0ULL, "with free chunks|sheaf", NULL);
	FIELD(nl_group_left_map(h)[0], ~0ULL, "left behind", NULL);
	FIELD(nl_group_part_map(h, 0, p->id)[0], ~0ULL, "hints lead|sheaf", NULL);

	FIELD(*nl_tag(h, p->chunk), BAD, "its tag is", NULL);
	FIELD(*nl_tag(h, p->chunk), NL_TAG(NL_KIND_SLAB, 7), NULL, "");
	FIELD(*nl_tag(h, p->chunk), NL_TAG(NL_KIND_LARGE, 0), "a large object of", NULL);
	FIELD(g->state, BAD, "its state is", NULL);
	FIELD(g->node, BAD, "its node is", NULL);
	FIELD(g->chunk_free, ~0ULL, "chunks of the metadata|sheaf|chunk", NULL);
	FIELD(g->chunk_free, nl_group_chunks(h, p->chunk >> NL_GROUP_SHIFT), NULL, NULL);
	FIELD(g->reserve, ~0ULL, "chunks of the metadata|sheaf|chunk", NULL);
	FIELD(g->reserve, nl_group_chunks(h, p->chunk >> NL_GROUP_SHIFT), NULL, NULL);
	FIELD(g->dirty, BAD, NULL, NULL);
	FIELD(g->idle, BAD, NULL, NULL);
	FIELD(g->partial[p->id], BAD, NULL, NULL);
	FIELD(slab->free[0], ~0ULL, NULL, "");
	FIELD(slab->free[NL_SLAB_WORDS - 1], BAD, "beyond its last object", NULL);
	FIELD(slab->summary, BAD, NULL, NULL);
	FIELD(slab->scans, BAD, NULL, NULL);
	FIELD(slab->scan_begin, BAD, NULL, NULL);
	FIELD(slab->scan_end, BAD, NULL, NULL);
	FIELD(slab->lock, BAD, "its lock is", NULL);
	FIELD(slab->intent, BAD, "its intent is", NULL);
	FIELD(slab->intent, NL_INTENT(NL_INTENT_PURGE, 0, 1, 0), "its intent is", NULL);
	FIELD(slab->mask, BAD, NULL, NULL);
	FIELD(large->nr_chunks, BAD, "a large object of", NULL);
	FIELD(large->nr_chunks, 0, "a large object of", NULL);
	FIELD(large->nr_chunks, 3, NULL, "large object");
	FIELD(large->size, BAD, NULL, NULL);
	FIELD(large->accounted, BAD, NULL, NULL);
#undef FIELD
	return n;
}

#define MAX_TARGETS 160

/* --- the client --- */

static void stuff(void *at, size_t size, uint64_t value)
{
	for (size_t i = 0; i < size; i += sizeof(value))
		memcpy((char *)at + i, &value, size - i < sizeof(value) ? size - i : sizeof(value));
}

/* Runs in a process of its own, which must not use the library any more once it has scribbled. */
struct scribbler {
	struct nolock_heap *heap;
	struct places places;
	struct scribble_bpf *s;
	unsigned int rng, turns;
};

static void scribbler_open(struct scribbler *sc, const char *name)
{
	static void *kept[600];
	struct places *p = &sc->places;
	nl_heap_t *h;
	char *large;

	sc->heap = nolock_heap_open(name);
	if (!sc->heap)
		err(2, "open %s", name);
	h = p->h = sc->heap->h;
	/* Slabs, sheaves in slots and in the barn, a large object. */
	for (int i = 0; i < 600; i++)
		kept[i] = nolock_heap_kmalloc(sc->heap, 200, GFP_KERNEL);
	for (int i = 0; i < 600; i += 1 + (i < 60))
		kfree(kept[i]);
	large = nolock_heap_kmalloc(sc->heap, 100000, GFP_KERNEL);
	if (!large)
		errx(2, "no large object");
	p->id = nl_kmalloc_cache(200, 0);
	p->client = sc->heap->client;
	p->chunk = (nl_u32)(((nl_u64)kept[1] - h->base) >> NL_CHUNK_SHIFT);
	p->large = (nl_u32)(((nl_u64)large - h->base) >> NL_CHUNK_SHIFT);
	for (nl_u32 cpu = 0; cpu < h->nr_slots; cpu++)
		if (nl_rslot(h, cpu, p->id)->main)
			p->sheaf = nl_rslot(h, p->cpu = cpu, p->id)->main;
	if (!p->sheaf)
		errx(2, "no slot has a sheaf");
	sc->s = NULL;
	if (!can_bpf())
		return;
	sc->s = scribble_bpf__open();
	if (!sc->s || bpf_map__reuse_fd(sc->s->maps.nolock_heap, nolock_heap_fd(sc->heap)) ||
	    scribble_bpf__load(sc->s))
		errx(2, "cannot load the program");
}

static void scribbler_storm(struct scribbler *sc)
{
	struct scribble c = { .turns = sc->turns, .rng = sc->rng += 0x9e3779b9 };
	LIBBPF_OPTS(bpf_test_run_opts, run, .ctx_in = &c, .ctx_size_in = sizeof(c));

	if (!sc->s)
		return;
	if (bpf_prog_test_run_opts(bpf_program__fd(sc->s->progs.storm), &run))
		errx(2, "the program does not run");
	if (!c.got && !c.failed)
		errx(2, "the program did nothing");
}

/*
 * A process that gets the heap ready, and says so; then does its worst until it is stopped. One
 * target, or with none all of the metadata at random. Its answer is a byte, or its end.
 */
struct process {
	pid_t pid;
	int to, from;
};

static void be_scribbler(const char *name, const struct target *which, size_t index, int in,
			 int out)
{
	static struct target t[MAX_TARGETS];
	/* Where all leads astray a turn takes the longest that it can, and others want the CPU, too. */
	struct scribbler sc = { .rng = (unsigned int)index + 1,
				.turns = which ? TURNS : TURNS / 5 };
	struct pollfd pfd = { .fd = in, .events = POLLIN };
	nl_u64 words;
	char byte;

	scribbler_open(&sc, name);
	scribbler_storm(&sc);
	words = (sc.places.h->off_group + sc.places.h->nr_open * sizeof(struct nl_group)) / 8;
	fill(t, &sc.places);
	if (write(out, "r", 1) != 1 || read(in, &byte, 1) != 1)
		_exit(0);
	srandom((unsigned int)index + 1);
	for (unsigned int i = 0; i < ROUNDS || poll(&pfd, 1, 0) == 0; i++) {
		for (unsigned int k = 0; !which && k < 200; k++)
			((volatile uint64_t *)sc.places.h)[(uint64_t)random() % words] =
				random() & 1 ? BAD : (uint64_t)random() << 33 ^ random();
		if (which)
			stuff(t[index].at, t[index].size, t[index].value);
		scribbler_storm(&sc);
		/* What the program has mended is broken again. */
		if (which)
			stuff(t[index].at, t[index].size, t[index].value);
		if (i == ROUNDS && write(out, "d", 1) != 1)
			_exit(0);
		if (i >= ROUNDS) {
			usleep(20000);
			/* The check is of a heap that nobody is at work in. */
			if (which && !t[index].refused)
				break;
		}
	}
	if (read(in, &byte, 1) < 0)
		_exit(1);
	_exit(0);
}

static void process_start(struct process *p, const char *name, const struct target *t, size_t index)
{
	int to[2], from[2];

	cr_assert(!pipe2(to, O_CLOEXEC) && !pipe2(from, O_CLOEXEC));
	p->pid = test_fork();
	if (p->pid == 0) {
		close(to[1]);
		close(from[0]);
		be_scribbler(name, t, index, to[0], from[1]);
	}
	close(to[0]);
	close(from[1]);
	p->to = to[1];
	p->from = from[0];
}

static void process_wait(struct process *p, char want, const char *what)
{
	char byte = 0;

	cr_assert_eq(read(p->from, &byte, 1), 1, "%s: the client ended before '%c'", what, want);
	cr_assert_eq(byte, want, "%s", what);
}

static void process_kill(struct process *p)
{
	kill(p->pid, SIGKILL);
	waitpid(p->pid, NULL, 0);
	close(p->to);
	close(p->from);
}

/* --- nolockd --- */

/* The kernel's log: no line of it since then is a complaint. */
static int log_from_here(void)
{
	int fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);

	if (fd >= 0)
		lseek(fd, 0, SEEK_END);
	return fd;
}

static void kernel_is_well(int kmsg)
{
	static const char *const complaints[] = {
		"BUG", "WARNING", "Oops", "protection fault", "stall", "lockup", "Call Trace"
	};
	char line[8192];
	ssize_t n;

	if (kmsg < 0)
		printf("# trust: the kernel's log cannot be read here: %s\n",
		       geteuid() ? "not root" : "no /dev/kmsg");
	while (kmsg >= 0 && ((n = read(kmsg, line, sizeof(line) - 1)) > 0 || errno == EPIPE)) {
		if (n < 0)
			continue;
		line[n] = 0;
		/* A keeper that the damage has killed, which is what keepers are for. */
		if (strstr(line, "traps: "))
			continue;
		for (size_t i = 0; i < sizeof(complaints) / sizeof(complaints[0]); i++)
			cr_assert_null(strstr(line, complaints[i]), "the kernel says: %s", line);
	}
	if (kmsg >= 0)
		close(kmsg);
}

static char names[HEAPS][48];

static const char *of(json_object *heap, const char *key)
{
	return json_object_get_string(json_object_object_get(heap, key));
}

/* A heap's member of the status; the one that its name means. */
static bool heap_is(const char *name, const char *key, char *value, size_t size)
{
	json_object *status = get_status(), *list = json_object_object_get(status, "heaps");
	bool found = false;

	for (size_t i = 0; i < json_object_array_length(list); i++) {
		json_object *h = json_object_array_get_idx(list, i);

		if (strcmp(of(h, "name"), name) || !strcmp(of(h, "state"), "replaced"))
			continue;
		snprintf(value, size, "%s", of(h, key));
		found = true;
	}
	json_object_put(status);
	return found;
}

static bool is_in_state(const char *name, const char *state)
{
	char value[256];

	return heap_is(name, "state", value, sizeof(value)) && !strcmp(value, state);
}

static void rebuild(const char *name, bool damaged)
{
	if (damaged)
		RUN(&o, "nolock", "rebuild", "--heap", name);
	else
		RUN(&o, "nolock", "rebuild", "--force", "--heap", name);
	cr_assert_eq(o.status, 0, "%s: %s%s", name, o.out, o.err);
	RUN(&o, "nolock", "check", "--heap", name);
	cr_assert_eq(o.status, 0, "made anew: %s%s", o.out, o.err);
}

static void start_daemon(struct daemon *d, unsigned int heaps)
{
	static char args[HEAPS][64];
	const char *argv[HEAPS + 4] = { "nolockd", "--no-trace", "--destroy-on-exit" };

	for (unsigned int i = 0; i < heaps; i++) {
		snprintf(names[i], sizeof(names[i]), i ? "%s%u" : "%s", heap_name(), i + 1);
		snprintf(args[i], sizeof(args[i]), "--heap=%.40s:16M:0", names[i]);
		argv[3 + i] = args[i];
	}
	daemon_spawn(d, 0, argv);
	cr_assert(daemon_ready(d), "nolockd did not start: %s", daemon_said(d));
}

static bool says_one_of(const char *text, const char *words)
{
	char copy[128], *rest = copy, *word;

	snprintf(copy, sizeof(copy), "%s", words);
	while ((word = strsep(&rest, "|")))
		if (strstr(text, word))
			return true;
	return false;
}

/* After its client did its worst: what nolockd says of the heap. */
static void judge(const struct target *t, const char *name)
{
	static char why[256], state[32];

	if (t->refused) {
		cr_assert(EVENTUALLY(is_in_state(name, "damaged")), "%s: not refused", t->name);
		cr_assert(heap_is(name, "why", why, sizeof(why)));
		cr_assert(says_one_of(why, t->refused), "%s: nolockd says: %s", t->name, why);
		errno = 0;
		cr_assert_null(nolock_heap_open(name));
		cr_assert_eq(errno, EUCLEAN, "%s: %s", t->name, strerror(errno));
		return;
	}
	RUN(&o, "nolock", "check", "--heap", name);
	if (t->checked) {
		cr_assert_eq(o.status, 1, "%s: %s%s", t->name, o.out, o.err);
		cr_assert(strstr(o.out, t->checked), "%s: %s", t->name, o.out);
	} else {
		cr_assert(o.status == 0 || o.status == 1, "%s: %s%s", t->name, o.out, o.err);
	}
	cr_assert(heap_is(name, "state", state, sizeof(state)));
	cr_assert_str_eq(state, "served", "%s: the heap is %s", t->name, state);
}

Test(trust, every_field)
{
	static struct target t[MAX_TARGETS];
	static char empty[NL_GROUP_SIZE];
	struct places nowhere = { .h = (nl_heap_t *)empty, .sheaf = 1 };
	size_t nr = fill(t, &nowhere), refused = 0;
	struct process p[HEAPS];
	int kmsg = log_from_here();
	struct daemon d;

	cr_assert_leq(nr, MAX_TARGETS);
	start_daemon(&d, HEAPS);
	for (size_t from = 0; from < nr; from += HEAPS) {
		size_t n = nr - from < HEAPS ? nr - from : HEAPS;

		for (size_t i = 0; i < n; i++)
			process_start(&p[i], names[i], &t[from + i], from + i);
		for (size_t i = 0; i < n; i++) {
			process_wait(&p[i], 'r', t[from + i].name);
			cr_assert_eq(write(p[i].to, "g", 1), 1);
		}
		for (size_t i = 0; i < n; i++)
			process_wait(&p[i], 'd', t[from + i].name);
		for (size_t i = 0; i < n; i++)
			judge(&t[from + i], names[i]);
		for (size_t i = 0; i < n; i++) {
			rebuild(names[i], t[from + i].refused);
			refused += t[from + i].refused != NULL;
			process_kill(&p[i]);
		}
	}
	printf("# trust: %zu fields overwritten, %zu heaps refused by the name of the damage, %zu "
	       "served on\n",
	       nr, refused, nr - refused);
	daemon_stop(&d);
	kernel_is_well(kmsg);
}

/* All over, at random, and nothing else suffers. */
Test(trust, all_over)
{
	struct process p[HEAPS];
	int kmsg = log_from_here();
	char arg[64], reformat[64], why[256];
	struct client whole;
	struct daemon d;

	start_daemon(&d, HEAPS);
	client_start(&whole, names[0]);
	DO(&whole, 'a');
	for (size_t i = 1; i < HEAPS; i++)
		process_start(&p[i], names[i], NULL, i);
	for (size_t i = 1; i < HEAPS; i++) {
		process_wait(&p[i], 'r', "at random");
		cr_assert_eq(write(p[i].to, "g", 1), 1);
	}
	for (size_t i = 1; i < HEAPS; i++) {
		process_wait(&p[i], 'd', "at random");
		cr_assert(EVENTUALLY(is_in_state(names[i], "damaged")), "%s", daemon_said(&d));
		cr_assert(heap_is(names[i], "why", why, sizeof(why)));
		cr_assert(*why && !strstr(why, "keeper"), "not named: %s", why);
		DO(&whole, 'v');
	}
	for (size_t i = 2; i < HEAPS; i++)
		process_kill(&p[i]);
	for (size_t i = 1; i < HEAPS; i++)
		rebuild(names[i], true);
	/* Who scribbles on does so in the old one. */
	DO(&whole, 'v');
	for (size_t i = 1; i < HEAPS; i++)
		cr_assert(is_in_state(names[i], "served"));
	process_kill(&p[1]);
	DO(&whole, 'f');
	DO(&whole, 'c');
	RUN(&o, "nolock", "check", "--heap", names[0]);
	cr_assert_eq(o.status, 0, "%s", o.out);
	if (can_bpf()) {
		/* What a nolockd finds when it starts. */
		process_start(&p[0], names[0], NULL, 0);
		process_wait(&p[0], 'r', "at random");
		kill(d.pid, SIGKILL);
		cr_assert_eq(daemon_wait(&d), 128 + SIGKILL);
		cr_assert_eq(write(p[0].to, "g", 1), 1);
		process_wait(&p[0], 'd', "at random");
		process_kill(&p[0]);
		snprintf(arg, sizeof(arg), "--heap=%.40s", names[0]);
		RUN(&o, "nolockd", arg, "--no-trace");
		cr_assert_eq(o.status, 1);
		cr_assert_eq(lines(o.err), 1, "%s", o.err);
		snprintf(reformat, sizeof(reformat), "--reformat=%s", heap_name());
		cr_assert(strstr(o.err, reformat), "%s", o.err);
		START(&d, arg, "--no-trace", reformat, "--destroy-on-exit");
	}
	client_kill(&whole);
	daemon_stop(&d);
	kernel_is_well(kmsg);
}

static size_t nr_heaps(void)
{
	json_object *status = get_status();
	size_t n = json_object_array_length(json_object_object_get(status, "heaps"));

	json_object_put(status);
	return n;
}

/* Those who have the old heap keep it; who opens the name gets the new one, also from the next nolockd. */
static void made_anew(unsigned int without)
{
	struct client old, fresh;
	struct daemon d;

	START_WITHOUT(&d, without, heap_arg(), "--no-trace", "--destroy-on-exit");
	client_start(&old, heap_name());
	DO(&old, 'a');
	RUN(&o, "nolock", "rebuild", "--heap", heap_name());
	cr_assert_eq(o.status, 2, "%s", o.out);
	cr_assert(strstr(o.err, "is served"), "%s", o.err);
	cr_assert_eq(lines(o.err), 1, "%s", o.err);
	rebuild(heap_name(), false);
	DO(&old, 'v');
	client_start(&fresh, heap_name());
	DO(&fresh, 'a');
	DO(&old, 'f');
	DO(&old, 'a');
	cr_assert_eq(nr_heaps(), 2);
	/* Killed: the next one finds the new heap, not the one that it has replaced. */
	kill(d.pid, SIGKILL);
	cr_assert_eq(daemon_wait(&d), 128 + SIGKILL);
	START_WITHOUT(&d, without, heap_arg(), "--no-trace", "--destroy-on-exit");
	cr_assert(strstr(daemon_said(&d), "adopted"), "%s", daemon_said(&d));
	DO(&fresh, 'v');
	DO(&old, 'v');
	cr_assert_eq(nr_clients(), 1);
	rebuild(heap_name(), false);
	cr_assert_eq(nr_heaps(), 2);
	/* Its first nolockd is gone, so nobody hears of that before it opens the name again. */
	DO(&fresh, 'c');
	DO(&fresh, 'o');
	cr_assert(EVENTUALLY(nr_heaps() == 1), "the old heap stays though nobody has it");
	rebuild(heap_name(), false);
	DO(&fresh, 'c');
	cr_assert(EVENTUALLY(nr_heaps() == 1), "the old heap stays though nobody has it");
	DO(&fresh, 'o');
	DO(&fresh, 'a');
	DO(&fresh, 'f');
	client_kill(&old);
	client_kill(&fresh);
	daemon_stop(&d);
	cr_assert(!exists(pin()));
}

Test(trust, made_anew_arena)
{
	NEEDS_ARENA();
	made_anew(0);
}

Test(trust, made_anew_memfd)
{
	NEEDS_CAPABILITIES();
	made_anew(WITHOUT_BPF);
}

/* --- who may --- */

Test(trust, who_may_rebuild)
{
	const char *argv[] = { "nolock", "rebuild", "--force", "--heap", heap_name(), NULL };
	struct daemon d;

	if (geteuid())
		cr_skip_test("becomes another user");
	START(&d, heap_arg(), "--no-trace", "--destroy-on-exit", "--owner=1234", "--group=65534",
	      "--mode=660");
	run_as(&o, 65534, 0, argv);
	cr_assert_eq(o.status, 2, "%s", o.out);
	cr_assert(strstr(o.err, "only root and the heap's owner"), "%s", o.err);
	cr_assert_eq(lines(o.err), 1, "%s", o.err);
	run_as(&o, 1234, 0, argv);
	cr_assert_eq(o.status, 0, "%s", o.err);
	if (can_bpf()) {
		struct stat st;

		cr_assert(!stat(pin(), &st));
		cr_assert_eq(st.st_uid, 1234);
		cr_assert_eq(st.st_gid, 65534);
		cr_assert_eq(st.st_mode & 0777, 0660);
	}
	run_as(&o, 0, 0, argv);
	cr_assert_eq(o.status, 0, "%s", o.err);
	RUN(&o, "nolock", "rebuild", "--heap=no-such-heap");
	cr_assert_eq(o.status, 2);
	cr_assert(strstr(o.err, "no heap 'no-such-heap'"), "%s", o.err);
	daemon_stop(&d);
}

/* As another user: what there is to be had of a heap, of its files, and of the processes that have it. */
static int try_everything(const char *name, pid_t nolockd, pid_t keeper)
{
	const char *const asked[] = { name, "no-such-heap" };
	const pid_t who[] = { nolockd, keeper };
	char path[96];

	for (int i = 0; i < 2; i++) {
		errno = 0;
		if (nolock_heap_open(asked[i]) || errno != EACCES)
			return 10 + i;
	}
	if (open(sock(), O_RDWR) >= 0 || !access(sock(), R_OK) || !access(sock(), W_OK))
		return 20;
	if (can_bpf() && (!access(pin(), R_OK) || !access(pin(), W_OK)))
		return 21;
	if (bpf_obj_get(pin()) >= 0)
		return 22;
	for (int i = 0; i < 2; i++) {
		for (int fd = 0; fd < 64; fd++) {
			snprintf(path, sizeof(path), "/proc/%d/fd/%d", who[i], fd);
			if (open(path, O_RDONLY | O_NONBLOCK) >= 0)
				return 30 + i;
		}
		snprintf(path, sizeof(path), "/proc/%d/mem", who[i]);
		if (open(path, O_RDONLY) >= 0)
			return 32 + i;
		snprintf(path, sizeof(path), "/proc/%d/maps", who[i]);
		if (open(path, O_RDONLY) >= 0)
			return 34 + i;
		errno = 0;
		if (!kill(who[i], 0) || errno != EPERM)
			return 36 + i;
		if (!ptrace(PTRACE_SEIZE, who[i], 0, 0))
			return 38 + i;
	}
	return 0;
}

/* Nobody, who has no right; and one who has left the group that has. */
static void nothing_to_be_had(unsigned int without)
{
	static const uid_t users[] = { 65534, 1234 };
	struct daemon d;
	pid_t keeper;
	int status;

	START_WITHOUT(&d, without, heap_arg(), "--no-trace", "--destroy-on-exit", "--group=4321",
		      "--mode=660");
	keeper = (pid_t)number(first_heap(get_status()), "keeper");
	for (int i = 0; i < 2; i++) {
		pid_t pid = test_fork();

		if (pid == 0) {
			if (setgroups(0, NULL) || setgid(users[i]) || setuid(users[i]))
				_exit(1);
			_exit(try_everything(heap_name(), d.pid, keeper));
		}
		cr_assert_eq(waitpid(pid, &status, 0), pid);
		cr_assert_eq(status, 0, "user %d: %#x", users[i], status);
	}
	/* And one of the group, who is nobody's root. */
	{
		pid_t pid = test_fork();

		if (pid == 0) {
			struct nolock_heap *heap;

			if (setgroups(0, NULL) || setgid(4321) || setuid(1234))
				_exit(1);
			heap = nolock_heap_open(heap_name());
			_exit(heap && nolock_heap_kmalloc(heap, 100, GFP_KERNEL) ? 0 : 2);
		}
		cr_assert_eq(waitpid(pid, &status, 0), pid);
		cr_assert_eq(status, 0, "of the group: %#x", status);
	}
	daemon_stop(&d);
}

Test(trust, nothing_to_be_had)
{
	if (geteuid())
		cr_skip_test("becomes another user");
	nothing_to_be_had(0);
	nothing_to_be_had(WITHOUT_BPF);
}

/* --- connections that outlive their process --- */

/* A child of fork() closes what it has of its parent's; the parent stays a client. */
Test(trust, inherited_handle)
{
	struct nolock_heap *heap;
	struct daemon d;
	int status;
	pid_t pid;
	char *p;

	START(&d, heap_arg(), "--no-trace", "--destroy-on-exit");
	heap = nolock_heap_open(heap_name());
	cr_assert(heap && (p = nolock_heap_kmalloc(heap, 100, GFP_KERNEL)));
	pid = test_fork();
	if (pid == 0) {
		struct nolock_heap *own;

		if (nolock_heap_close(heap))
			_exit(1);
		own = nolock_heap_open(heap_name());
		if (!own)
			_exit(2);
		kfree(nolock_heap_kmalloc(own, 100, GFP_KERNEL));
		_exit(nolock_heap_close(own) ? 3 : 0);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert_eq(status, 0, "%#x", status);
	cr_assert(EVENTUALLY(nr_clients() == 1));
	/* Its answer comes when nolockd and the keeper have done all that was asked before. */
	check_whole();
	cr_assert_eq(nr_clients(), 1, "the parent is no client any more");
	kfree(p);
	nolock_heap_close(heap);
	cr_assert(EVENTUALLY(nr_clients() == 0));
	daemon_stop(&d);
}

/* A process ends, its number is another's by now, and who inherited its connection says that it is over. */
Test(trust, connection_of_the_dead)
{
	int pair[2], conn = -1, status;
	struct client c;
	struct daemon d;
	char byte;
	pid_t pid;

	START(&d, heap_arg(), "--no-trace", "--destroy-on-exit");
	cr_assert(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair));
	pid = test_fork();
	if (pid == 0) {
		int error = 0;

		conn = dial_heap(&error);
		if (conn < 0 || error)
			_exit(1);
		_exit(wire_send(pair[1], "c", 1, conn, 0) ? 2 : 0);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert_eq(status, 0, "%#x", status);
	cr_assert_eq(wire_receive(pair[0], &byte, 1, &conn, 0), 1);
	cr_assert_geq(conn, 0);
	cr_assert(EVENTUALLY(nr_clients() == 0));
	client_start(&c, heap_name());
	cr_assert(close_heap(conn));
	close(conn);
	/* Its answer comes when nolockd and the keeper have done all that was asked before. */
	check_whole();
	cr_assert_eq(nr_clients(), 1, "a living client was taken for the dead one");
	DO(&c, 'a');
	DO(&c, 'f');
	client_kill(&c);
	daemon_stop(&d);
}
