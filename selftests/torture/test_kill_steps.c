// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_kill_steps.c - death at every instruction (promises P3 and P4).
 *
 * A client of a shared heap is single-stepped through a workload of the whole API. Before each
 * of its instructions it is as good as dead: what it had in its registers is not looked at. Where
 * its last instruction changed the shared memory, the heap is repaired as nolockd would repair it
 * after a SIGKILL just there, and then must be whole: nolock_heap_check() is content, no lock is
 * held, each object that the client had is in use, and nothing else is but what the one call that
 * it was in may have made. Then all of that is freed and all slabs are given back, after which
 * every chunk must be free. Then the memory is put back as the client left it, and the client
 * takes its next step. A few clients are killed for real, at random instructions.
 *
 *   test_kill_steps [-v]	-v: each failing instruction on its own
 *
 * TORTURE_SECONDS=N goes on with random workloads for that long. Failing instructions are shown
 * with function and source line, the states in which they fail, and what was wrong first.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <nolock/rcu.h>
#include "core/kmalloc.h"
#include "core/slot.h"
#include "kill_client.h"
#include "pages.h"
#include "row.h"
#include "shared.h"
#include "steps.h"
#include "symbol.h"
#include "../lib/hold.h"
#include "../lib/util.h"

enum { HEAP_GROUPS = 5, REAL_KILLS = 6, MAX_FAILURES = 8192 };

struct failure {
	uintptr_t ip; /* in this program's text: outside, the place that called */
	unsigned long states, first;
	const char *call;
	char what[200];
};

static volatile struct book *book;
static struct nolock_heap *heap;
static cpu_set_t all_cpus;
static const struct plan *plan;
static bool verbose;

static char *shadow; /* the metadata as the client left them */
static size_t metadata;
static struct book shadow_book;
static struct inventory inv;
static struct nl_heap pristine; /* the header, of which constants are looked at */

static struct failure failures[MAX_FAILURES];
static unsigned int nr_failures, overflowed;
static unsigned long all_steps, all_states, all_failed, all_kills;

static struct nolock_heap_report rep;

/* --- the judge --- */

#define FAIL(...)                                                                                  \
	do {                                                                                       \
		snprintf(what, len, __VA_ARGS__);                                                  \
		return false;                                                                      \
	} while (0)

static void free_live(void *obj, void *arg)
{
	(void)arg;
	kfree(obj);
}

/* The client is dead: repair, and say whether all is there. */
static nl_u32 locks_taken_over;

static bool judge(char *what, size_t len)
{
	nl_heap_t *h = heap->h;
	const struct book *b = (const struct book *)book;
	unsigned long known = 0, maybe = 0, in_use;
	static nl_u32 part;
	char why[120];
	int rc;

	locks_taken_over = 0;

	/* Nothing that a step leaves behind may be taken for what somebody has overwritten. */
	if (nl_heap_sane(heap, &pristine, part++ % 8, 8, why, sizeof(why)))
		FAIL("before the repair: %s", why);
	locks_taken_over = nl_heap_repair(heap, CLIENT);
	nl_heap_repair(heap, CLIENT_HOLDER);
	rc = nolock_heap_check(heap, &rep);
	if (rc || rep.errors)
		FAIL("check: %s", rep.first_error);
	if (rep.locks_held)
		FAIL("%lu locks are held", rep.locks_held);
	if (!inventory_take(&inv, heap))
		FAIL("inventory: %s", inv.error);
	for (nl_u32 g = h->first_chunk >> NL_GROUP_SHIFT; g < h->cursor; g++)
		if (nl_group(h, g)->state != NL_GROUP_OPEN)
			FAIL("group %u is lost: drawn, and not opened", g);
	for (nl_u32 id = 0; id < NL_MAX_CACHES; id++)
		if (nl_cache(h, id)->state != NL_CACHE_FREE &&
		    nl_cache(h, id)->state != NL_CACHE_LIVE)
			FAIL("cache %u is lost: neither free nor live", id);
	for (unsigned int i = 0; i < OBJECTS; i++) {
		bool live = b->obj[i] && inventory_live(&inv, heap, b->obj[i]);

		if (!b->obj[i])
			continue;
		if (i >= b->from && i < b->to)
			maybe += live;
		else if (live)
			known++;
		else
			FAIL("%p is the client's, but free", b->obj[i]);
	}
	in_use = inv.objects - inv.free + inv.large;
	if (in_use > known + maybe + b->in_flight)
		FAIL("%lu objects in use, the client had %lu and %u in flight", in_use,
		     known + maybe, b->in_flight);
	/* Now as if somebody freed what is left: nothing may stay behind. */
	inventory_each_live(&inv, heap, free_live, NULL);
	nl_heap_shrink(heap);
	rc = nolock_heap_check(heap, &rep);
	if (rc || rep.errors)
		FAIL("check, all freed: %s", rep.first_error);
	if (rep.refused)
		FAIL("%lu frees were refused", rep.refused);
	if (rep.locks_held || rep.allocated || rep.large || rep.in_sheaves || rep.chunks_slab ||
	    rep.chunks_free != rep.chunks)
		FAIL("all freed, but %lu objects, %lu large, %lu in sheaves, %lu slabs are left",
		     rep.allocated, rep.large, rep.in_sheaves, rep.chunks_slab);
	return true;
}

/* --- the memory as the client left it --- */

/*
 * Pages of the metadata that a client looks at: those that are in the page tables of clients that
 * ran the same workload freely, with and without rseq. They are compared after each step, all
 * pages after each 64 steps and at the end; a change elsewhere is a failure of this program.
 */
static bool hot[HEAP_GROUPS * NL_GROUP_SIZE / NL_PAGE];
static unsigned long missed;

static bool note_changes(void)
{
	bool changed = false;

	for (size_t at = 0; at < metadata; at += NL_PAGE)
		if (hot[at / NL_PAGE])
			changed |= pages_sync(shadow, heap->base, at, at + NL_PAGE);
	if (memcmp(&shadow_book, (const void *)book, sizeof(shadow_book))) {
		memcpy(&shadow_book, (const void *)book, sizeof(shadow_book));
		changed = true;
	}
	return changed;
}

static void note_all(bool expected)
{
	for (size_t at = 0; at < metadata; at += NL_PAGE)
		if (pages_sync(shadow, heap->base, at, at + NL_PAGE) && !expected) {
			hot[at / NL_PAGE] = true;
			missed++;
		}
}

static void put_back(void)
{
	pages_sync(heap->base, shadow, 0, metadata);
}

/* --- the repairer --- */

/* Repairs with locks to take over that are stepped through: one of so many states. */
enum { REPAIR_EVERY = 700 };

static char *left_behind; /* the metadata as the repairer left them */
static unsigned long all_repairs, all_repairs_steps, all_repairs_states;

static void repairer_work(void *arg)
{
	struct nolock_heap *mine = shared_join(heap, CLIENT_KEEPER, plan->rseq);

	(void)arg;
	steps_begin();
	nl_heap_repair(mine, CLIENT);
	steps_end();
	_exit(0);
}

/* The pages that the repair writes, by doing it once. */
static void repaired_pages(bool *pages)
{
	memset(pages, 0, HEAP_GROUPS * NL_GROUP_SIZE / NL_PAGE);
	nl_heap_repair(heap, CLIENT);
	for (size_t at = 0; at < metadata; at += NL_PAGE)
		pages[at / NL_PAGE] = memcmp((char *)heap->base + at, shadow + at, NL_PAGE) != 0;
	put_back();
}

/* From the state that the client left: the repairer dies, wherever it has just written something. */
static bool repair_every_instruction(char *what, size_t len)
{
	static bool pages[HEAP_GROUPS * NL_GROUP_SIZE / NL_PAGE];
	struct steps st;
	bool ok = true;

	repaired_pages(pages);
	if (steps_start(&st, repairer_work, NULL)) {
		snprintf(what, len, "the repairer did not start: %#x", st.status);
		steps_kill(&st);
		return false;
	}
	pages_sync(left_behind, heap->base, 0, metadata);
	do {
		bool changed = false;

		for (size_t at = 0; at < metadata; at += NL_PAGE)
			if (pages[at / NL_PAGE])
				changed |= pages_sync(left_behind, heap->base, at, at + NL_PAGE);
		if (!changed)
			continue;
		all_repairs_states++;
		nl_heap_repair(heap, NL_CLIENT_NOLOCKD);
		ok = judge(what, len);
		pages_sync(heap->base, left_behind, 0, metadata);
	} while (ok && steps_next(&st));
	if (ok && pages_sync(left_behind, heap->base, 0, metadata)) {
		snprintf(what, len, "the repairer wrote where it was not looked at");
		ok = false;
	}
	all_repairs++;
	all_repairs_steps += st.nr;
	steps_kill(&st);
	put_back();
	return ok;
}

/* --- the passes --- */

static void failed_at(uintptr_t ip, unsigned long nr, const char *what)
{
	struct failure *f = failures;

	while (f < failures + nr_failures && f->ip != ip)
		f++;
	if (f == failures + MAX_FAILURES) {
		overflowed++;
		return;
	}
	if (f == failures + nr_failures) {
		nr_failures++;
		f->ip = ip;
		f->first = nr;
		f->call = shadow_book.call;
		snprintf(f->what, sizeof(f->what), "%s", what);
	}
	f->states++;
}

static void begin_pass(void)
{
	struct kmem_cache_args args = { .sheaf_capacity = plan->capacity };

	memset((void *)book, 0, sizeof(*book));
	heap = shared_make(HEAP_GROUPS * NL_GROUP_SIZE);
	metadata = (size_t)heap->h->first_chunk << NL_CHUNK_SHIFT;
	memcpy(&pristine, heap->h, sizeof(pristine));
	/* Another heap, another map. */
	if (inv.map)
		munmap(inv.map,
		       (HEAP_GROUPS * NL_GROUP_SIZE >> NL_CHUNK_SHIFT) * NL_SLAB_WORDS * 8);
	memset(&inv, 0, sizeof(inv));
	if (!nolock_heap_kmem_cache_create(heap, "first", plan->size, &args, 0)) {
		perror("kmem_cache_create");
		exit(2);
	}
}

static void end_pass(struct steps *st)
{
	steps_kill(st);
	nolock_heap_close(heap);
}

static bool start(struct steps *st)
{
	struct kill_client c = { .book = book, .heap = heap, .plan = plan, .cpus = &all_cpus };

	if (!steps_start(st, kill_client, &c))
		return true;
	printf("%s: the client did not start: status %#x\n", plan->name, st->status);
	steps_kill(st);
	return false;
}

/* How the workload went itself, at its end. */
static bool ended_well(const struct steps *st)
{
	if (WIFSTOPPED(st->status) && WSTOPSIG(st->status) == SIGSTOP && book->done &&
	    !book->failed)
		return true;
	printf("%s: the client ended with status %#x after %lu steps in %s, %u calls failed\n",
	       plan->name, st->status, st->nr, book->call ? book->call : "no call", book->failed);
	return false;
}

static bool run_freely(const struct plan *p, bool rseq)
{
	struct plan other = *p;
	struct steps st;
	bool ok;

	other.rseq = rseq;
	plan = &other;
	begin_pass();
	ok = start(&st) && steps_run(&st) && ended_well(&st) &&
	     pages_seen(st.pid, heap->base, metadata / NL_PAGE, hot);
	end_pass(&st);
	return ok;
}

/* Kill a client for real at its nth instruction. */
static bool kill_at(unsigned long n)
{
	char what[200];
	struct steps st;
	uintptr_t ip;
	bool ok;

	begin_pass();
	if (!start(&st))
		return false;
	while (st.nr < n && steps_next(&st))
		;
	ip = st.ip;
	steps_kill(&st);
	memcpy(&shadow_book, (const void *)book, sizeof(shadow_book));
	ok = judge(what, sizeof(what));
	if (!ok)
		failed_at(ip, n, what);
	all_kills++;
	nolock_heap_close(heap);
	return ok;
}

/* Stepper and stepped take turns: on one CPU neither waits for the other to be woken. */
static void use_one_cpu(void)
{
	cpu_set_t one;

	if (sched_getaffinity(0, sizeof(all_cpus), &all_cpus))
		return;
	CPU_ZERO(&one);
	for (int cpu = CPU_SETSIZE - 1; cpu >= 0; cpu--)
		if (CPU_ISSET(cpu, &all_cpus)) {
			CPU_SET(cpu, &one);
			break;
		}
	sched_setaffinity(0, sizeof(one), &one);
}

/* Stay with the client. */
static void follow(void)
{
	static unsigned int there;
	cpu_set_t one;

	if (!book->cpu || book->cpu == there)
		return;
	there = book->cpu;
	CPU_ZERO(&one);
	CPU_SET(there - 1, &one);
	sched_setaffinity(0, sizeof(one), &one);
}

/* From here on CPUs are of node 0 and 1 in turn, where there are such. */
static bool two_nodes(void)
{
	bool odd = false, even = false;

	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &all_cpus))
			*(cpu % 2 ? &odd : &even) = true;
	setenv("NOLOCK_FAKE_NODES", "2", 1);
	return odd && even && NL_MAX_NODES > 1;
}

/* Every instruction of the workload. Returns whether all went well. */
static bool every_instruction(const struct plan *p)
{
	unsigned long states = 0, bad = 0, next = 0, steps;
	uintptr_t text_from, text_to, place = 0;
	bool ok = true, well, changed;
	char what[200] = "";
	struct steps st;
	struct rng r;

	memset(hot, 0, sizeof(hot));
	if (!run_freely(p, true) || !run_freely(p, false))
		return false;
	plan = p;
	begin_pass();
	if (!start(&st))
		return false;
	note_all(true);
	symbol_text(&text_from, &text_to);
	do {
		follow();
		changed = note_changes() || !st.nr;
		if (st.nr % 64 == 0)
			note_all(false);
		if (changed) {
			states++;
			ok = judge(what, sizeof(what));
			put_back();
		}
		if (changed && ok && locks_taken_over && states >= next) {
			next = states + REPAIR_EVERY;
			ok = repair_every_instruction(what, sizeof(what));
		}
		if (st.ip >= text_from && st.ip < text_to)
			place = st.ip;
		if (!ok) {
			bad++;
			failed_at(place, st.nr, what);
		}
	} while (steps_next(&st));
	note_all(false);
	steps = st.nr;
	well = ended_well(&st) && !missed;
	if (missed)
		printf("%s: %lu pages changed that were not looked at each time\n", p->name,
		       missed);
	end_pass(&st);
	rng_init(&r, p->seed + 77);
	for (int i = 0; i < REAL_KILLS; i++)
		well &= kill_at(rng_below(&r, (uint32_t)steps));
	printf("%s, objects of %u, sheaves of %u%s: %lu instructions, %lu states, %lu fail\n",
	       p->name, p->size, p->capacity, p->rseq ? "" : ", no rseq", steps, states, bad);
	fflush(stdout);
	all_steps += steps;
	all_states += states;
	all_failed += bad;
	return well && !bad;
}

static int by_ip(const void *a, const void *b)
{
	const struct failure *x = a, *y = b;

	return x->ip < y->ip ? -1 : x->ip > y->ip;
}

/* Failing instructions, those of one function in a row with one reason as one line. */
static void show_failures(void)
{
	char name[128], line[256], end[128];

	qsort(failures, nr_failures, sizeof(failures[0]), by_ip);
	for (unsigned int i = 0, j; i < nr_failures; i = j) {
		unsigned long states = failures[i].states;
		size_t n;

		symbol_name(name, sizeof(name), failures[i].ip);
		n = strcspn(name, "+") + 1;
		for (j = i + 1; j < nr_failures && !verbose; j++) {
			if (strncmp(symbol_name(end, sizeof(end), failures[j].ip), name, n) ||
			    strncmp(failures[j].what, failures[i].what, 14) ||
			    failures[j].ip - failures[j - 1].ip > 64)
				break;
			states += failures[j].states;
		}
		symbol_name(end, sizeof(end), failures[j - 1].ip);
		printf("  %s%s%s  %s\n", name, j - i > 1 ? " to " : "",
		       j - i > 1 ? strchr(end, '+') ? strchr(end, '+') : end : "",
		       symbol_line(line, sizeof(line), failures[i].ip));
		printf("      %u instructions, %lu deaths; at step %lu in %s: %s\n", j - i, states,
		       failures[i].first, failures[i].call ? failures[i].call : "no call",
		       failures[i].what);
	}
	if (overflowed)
		printf("  and %u more\n", overflowed);
}

int main(int argc, char **argv)
{
	static const struct plan fixed[] = {
		{ "every call", true, 320, 2, 0, false },
		{ "every call", false, 320, 2, 0, false },
		{ "two nodes", true, 320, 2, 0, true },
		{ "two nodes", false, 320, 2, 0, true },
	};
	const char *nodes = getenv("NOLOCK_FAKE_NODES");
	unsigned long seconds = env_number("TORTURE_SECONDS", 0);
	uint64_t end = now_ns() + seconds * 1000000000u;
	unsigned long passed = 0, failed = 0, skipped = 0;
	struct plan again = { .name = "random calls" };
	struct rng r;

	for (int opt; (opt = getopt(argc, argv, "v")) != -1;) {
		if (opt != 'v') {
			fprintf(stderr, "usage: %s [-v]\n", argv[0]);
			return 2;
		}
		verbose = true;
	}
	book = mmap(NULL, sizeof(*book), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	shadow = mmap(NULL, HEAP_GROUPS * NL_GROUP_SIZE, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	left_behind = mmap(NULL, HEAP_GROUPS * NL_GROUP_SIZE, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (book == MAP_FAILED || shadow == MAP_FAILED || left_behind == MAP_FAILED) {
		perror("mmap");
		return 2;
	}
	use_one_cpu();
	for (size_t i = 0; i < ARRAY_LEN(fixed); i++) {
		/* CPUs of both nodes are needed. */
		if (fixed[i].nodes && !two_nodes())
			skipped++;
		else if (every_instruction(&fixed[i]))
			passed++;
		else
			failed++;
	}
	if (nodes)
		setenv("NOLOCK_FAKE_NODES", nodes, 1);
	else
		unsetenv("NOLOCK_FAKE_NODES");
	rng_init(&r, now_ns());
	while (now_ns() < end) {
		again.seed = rng_next(&r) | 1;
		again.rseq = rng_below(&r, 3) != 0;
		again.size = 16 + rng_below(&r, 4000);
		again.capacity = 1 + rng_below(&r, 6);
		if (every_instruction(&again))
			passed++;
		else
			failed++;
	}
	show_failures();
	printf("# kill_steps: %lu repairs died at each of their %lu instructions, in %lu states\n",
	       all_repairs, all_repairs_steps, all_repairs_states);
	printf("# kill_steps: %lu instructions, %lu states repaired, %lu killed for real, "
	       "%lu deaths with damage at %u instructions\n",
	       all_steps, all_states, all_kills, all_failed, nr_failures);
	row("death at every instruction", all_steps, all_states + all_kills, "deaths", all_failed);
	printf("%lu passed, %lu failed, %lu skipped\n", passed, failed, skipped);
	return failed != 0;
}
