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
#include "pages.h"
#include "row.h"
#include "shared.h"
#include "steps.h"
#include "symbol.h"
#include "../lib/hold.h"
#include "../lib/util.h"

enum { OBJECTS = 256, HEAP_GROUPS = 5, CLIENT = CLIENT_FIRST, REAL_KILLS = 6, MAX_FAILURES = 8192 };

/* What the client has, written by it before and after each call; in memory that outlives it. */
struct book {
	const char *call;
	unsigned int in_flight; /* objects that the call may have made and not handed out */
	unsigned int from, to;	/* objects [from, to) of obj[] may be free by now */
	unsigned int failed;	/* calls that failed and should not have */
	unsigned int done;
	unsigned int cpu; /* + 1: that the client has gone to, or 0 */
	void *obj[OBJECTS];
};

/* What a pass of the workload is done with. */
struct plan {
	const char *name;
	bool rseq;
	unsigned int size, capacity;
	uint64_t seed; /* 0: the fixed sequence */
	bool nodes;    /* that of two nodes instead */
};

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

/* --- the client --- */

/* A call that makes up to n objects which nobody knows of yet. */
#define MAKES(n, what, assignment)                                                                 \
	do {                                                                                       \
		book->call = what;                                                                 \
		book->in_flight = (n);                                                             \
		assignment;                                                                        \
		book->in_flight = 0;                                                               \
	} while (0)

#define ALLOC(i, expr)                                                                             \
	do {                                                                                       \
		MAKES(1, #expr, book->obj[i] = (expr));                                            \
		if (!book->obj[i])                                                                 \
			book->failed++;                                                            \
	} while (0)

/* A call that frees objects [i, i + n). */
#define FREES(i, n, expr)                                                                          \
	do {                                                                                       \
		book->call = #expr;                                                                \
		book->to = (i) + (n);                                                              \
		book->from = (i);                                                                  \
		expr;                                                                              \
		for (unsigned int k_ = (i); k_ < (i) + (n); k_++)                                  \
			book->obj[k_] = NULL;                                                      \
		book->from = book->to = 0;                                                         \
	} while (0)

static struct kmem_cache *cache;

static void alloc_one(unsigned int i, unsigned int how)
{
	switch (how % 5) {
	case 0:
		ALLOC(i, kmem_cache_alloc(cache, GFP_KERNEL));
		break;
	case 1:
		ALLOC(i, kmem_cache_alloc_nolock(cache, 0, NUMA_NO_NODE));
		break;
	case 2:
		ALLOC(i, kmem_cache_zalloc(cache, GFP_ATOMIC));
		break;
	case 3:
		ALLOC(i, nolock_heap_kmalloc(heap, plan->size, GFP_KERNEL));
		break;
	default:
		ALLOC(i, nolock_heap_kmalloc_nolock(heap, plan->size, 0, NUMA_NO_NODE));
	}
}

static void free_one(unsigned int i, unsigned int how)
{
	void *p = book->obj[i];
	struct kmem_cache *s = cache;

	if (!p)
		return;
	/* A bucket's object, or a large one. */
	if (nl_cache_of(heap->h, (nl_u64)(uintptr_t)p) != (int)nl_cache_id(cache))
		s = NULL;
	switch (how % 3) {
	case 0:
		FREES(i, 1, kfree(p));
		break;
	case 1:
		FREES(i, 1, kfree_nolock(p));
		break;
	default:
		FREES(i, 1, kmem_cache_free(s, p));
	}
}

/* What is in the array before the call has returned says nothing. */
static void bulk(unsigned int n, bool nolock)
{
	static void *made[OBJECTS];
	int got;

	MAKES(n, "kmem_cache_alloc_bulk",
	      got = nolock ? kmem_cache_alloc_bulk_nolock(cache, 0, n, made) :
			     kmem_cache_alloc_bulk(cache, GFP_KERNEL, n, made);
	      memcpy((void *)book->obj, made, got * sizeof(made[0])));
	book->failed += got != (int)n;
	if (got == (int)n)
		FREES(0, n, kmem_cache_free_bulk(cache, n, (void **)book->obj));
}

static void prefilled(unsigned int n)
{
	struct slab_sheaf *sheaf;
	unsigned int i;
	int err;

	/* What is in a sheaf of the table comes back; an oversize one and all in it is the client's. */
	book->in_flight = n > plan->capacity ? 2 * n + 3 : 1;
	book->call = "kmem_cache_prefill_sheaf";
	sheaf = kmem_cache_prefill_sheaf(cache, GFP_KERNEL, n);
	if (!sheaf) {
		book->failed++;
		return;
	}
	for (i = 0; i < n && i < 3; i++) {
		book->call = "kmem_cache_alloc_from_sheaf";
		book->obj[i] = kmem_cache_alloc_from_sheaf(cache, 0, sheaf);
	}
	book->call = "kmem_cache_refill_sheaf";
	err = kmem_cache_refill_sheaf(cache, GFP_KERNEL, &sheaf, n + 1);
	book->failed += err != 0;
	book->call = "kmem_cache_return_sheaf";
	kmem_cache_return_sheaf(cache, GFP_KERNEL, sheaf);
	book->in_flight = 0;
	for (; i; i--)
		free_one(i - 1, i);
}

/* Somebody else holds the cache's slots, or some of them: the levels below serve. */
static void hold(bool r, bool a, nl_u64 word)
{
	nl_heap_t *h = heap->h;

	for (nl_u32 cpu = 0; cpu < h->nr_slots; cpu++) {
		nl_u32 id = nl_cache_id(cache);

		if (r)
			hold_rslot(nl_rslot(h, cpu, id), word);
		if (a)
			hold_aslot(nl_aslot(h, cpu, id), word);
	}
}

static void with_held_slots(bool r, bool a, unsigned int n)
{
	book->call = "(others take locks)";
	hold(r, a, NL_OWNER(CLIENT_HOLDER, 1) | 1);
	for (unsigned int i = 0; i < n; i++)
		alloc_one(i, i);
	for (unsigned int i = 0; i < n; i++)
		free_one(i, i);
	book->call = "(others release locks)";
	hold(r, a, 0);
}

static void large(size_t size)
{
	void *p;

	ALLOC(0, nolock_heap_kmalloc(heap, size, GFP_KERNEL));
	ALLOC(1, nolock_heap_kmalloc_nolock(heap, 40000, 0, NUMA_NO_NODE));
	/* Moves: old and new are both there for a while. */
	book->call = "krealloc";
	book->in_flight = 1;
	book->to = 1;
	p = krealloc(book->obj[0], size + 80000, GFP_KERNEL);
	if (p)
		book->obj[0] = p;
	else
		book->failed++;
	book->to = 0;
	book->in_flight = 0;
	free_one(0, 0);
	free_one(1, 1);
}

static void maintain(unsigned int what)
{
	switch (what % 4) {
	case 0:
		book->call = "kmem_cache_shrink";
		kmem_cache_shrink(cache);
		break;
	case 1:
		book->call = "nolock_heap_trim";
		nolock_heap_trim(heap);
		break;
	case 2:
		book->call = "nolock_heap_populate(2 chunks)";
		book->failed += nolock_heap_populate(heap, 2 * NL_CHUNK_SIZE) != 0;
		break;
	default:
		book->call = "nolock_heap_populate(0)";
		book->failed += nolock_heap_populate(heap, 0) != 0;
	}
}

static void caches(void)
{
	struct kmem_cache *s;

	book->call = "kmem_cache_create";
	s = nolock_heap_kmem_cache_create(heap, "second", 700, NULL, 0);
	if (!s) {
		book->failed++;
		return;
	}
	ALLOC(0, kmem_cache_alloc(s, GFP_KERNEL));
	FREES(0, 1, kmem_cache_free(s, book->obj[0]));
	book->call = "kmem_cache_destroy";
	book->failed += kmem_cache_destroy(s) != 0;
}

/* A per-CPU array: filled ahead, emptied, filled by frees. */
static void array(void)
{
	struct kmem_cache *s;

	book->call = "kmem_cache_create";
	s = nolock_heap_kmem_cache_create(heap, "array", 900, NULL, SLAB_NO_MERGE);
	if (!s || kmem_cache_setup_percpu_array(s, 3)) {
		book->failed++;
		return;
	}
	book->call = "kmem_cache_prefill_percpu_array";
	book->failed += kmem_cache_prefill_percpu_array(s, 3, GFP_KERNEL) != 0;
	for (unsigned int i = 0; i < 5; i++)
		ALLOC(i, kmem_cache_alloc(s, GFP_KERNEL));
	for (unsigned int i = 0; i < 5; i++)
		FREES(i, 1, kmem_cache_free(s, book->obj[i]));
	book->call = "kmem_cache_destroy";
	book->failed += kmem_cache_destroy(s) != 0;
}

/* One thread, no reader: every grace period is over at once. */
static void no_readers(void)
{
}

static unsigned long no_grace_period(void)
{
	return 0;
}

static int is_over(unsigned long cookie)
{
	return cookie == 0;
}

static void have_rcu(void)
{
	static const struct nolock_rcu_ops ops = { .synchronize = no_readers,
						   .start_poll = no_grace_period,
						   .poll = is_over };

	if (nolock_rcu_register(&ops) == -EINVAL)
		book->failed++;
}

/* What waits is in sheaves of the client's. */
static void rcu(unsigned int n)
{
	have_rcu();
	for (unsigned int i = 0; i < n; i++)
		alloc_one(i, 0);
	for (unsigned int i = 0; i < n; i++)
		FREES(i, 1, kfree_rcu((void *)book->obj[i]));
	book->call = "nolock_rcu_barrier";
	book->failed += nolock_rcu_barrier() != 0;
}

/* Through every level and back: grow, fresh slabs, refill, barn, flush, release. */
static void fixed_work(void)
{
	/* Main, spare, a full barn, and what makes the spare be flushed. */
	unsigned int many = (2 + NL_BARN_MAX + 2) * plan->capacity + 2;

	for (unsigned int i = 0; i < many; i++)
		alloc_one(i, i % 3);
	for (unsigned int i = 0; i < many; i++)
		free_one(i, i);
	for (unsigned int i = 0; i < 3 * plan->capacity; i++)
		alloc_one(i, 0);
	for (unsigned int i = 0; i < 3 * plan->capacity; i++)
		free_one(i, 0);
	bulk(2 * plan->capacity + 1, false);
	bulk(2 * plan->capacity + 1, true);
	prefilled(plan->capacity);
	prefilled(3 * plan->capacity);
	with_held_slots(true, false, 7 * plan->capacity);
	with_held_slots(true, true, 4);
	alloc_one(0, 3);
	alloc_one(1, 4);
	free_one(1, 0);
	free_one(0, 1);
	large(100000);
	maintain(2);
	large((NL_GROUP_CHUNKS + 2) * NL_CHUNK_SIZE);
	maintain(3);
	maintain(0);
	caches();
	array();
	rcu(3 * plan->capacity);
	for (unsigned int i = 0; i < 3; i++)
		alloc_one(i, i);
	maintain(1);
	for (unsigned int i = 0; i < 3; i++)
		free_one(i, i);
}

/* To a CPU of the node. */
static void go(nl_u32 node)
{
	cpu_set_t one;

	book->call = "(to the other node)";
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (!CPU_ISSET(cpu, &all_cpus) || nl_slot_node(heap->h, (nl_u32)cpu) != node)
			continue;
		CPU_ZERO(&one);
		CPU_SET(cpu, &one);
		book->cpu = (unsigned int)cpu + 1;
		if (!sched_setaffinity(0, sizeof(one), &one))
			return;
	}
	book->failed++;
}

/* Memory of another node: asked for, freed from afar, handed out there, and found from here. */
static void nodes_work(void)
{
	nl_u32 here = nl_here(heap), there = !here;
	unsigned int n = 3 * plan->capacity + 2, many = 4 * plan->capacity + 2;
	const gfp_t strict = GFP_KERNEL | __GFP_THISNODE;

	for (unsigned int i = 0; i < n; i++)
		ALLOC(i, kmem_cache_alloc_node(cache, i % 2 ? strict : GFP_KERNEL, (int)there));
	for (unsigned int i = n; i < n + 2; i++)
		ALLOC(i, kmem_cache_alloc_nolock(cache, 0, (int)there));
	ALLOC(n + 2, nolock_heap_kmalloc_node(heap, plan->size, strict, (int)there));
	ALLOC(n + 3, nolock_heap_kmalloc_node(heap, 100000, strict, (int)there));
	for (unsigned int i = 0; i < n + 4; i++)
		if (book->obj[i] &&
		    nl_node_of(heap->h, nl_group_at(heap->h, (nl_u64)book->obj[i])) != there)
			book->failed++;
	FREES(0, 3, kmem_cache_free_bulk(cache, 3, (void **)book->obj));
	have_rcu();
	/* One bit in the client's memory: until the grace period is over it is the client's. */
	book->in_flight = 1;
	FREES(3, 1, kfree_rcu((void *)book->obj[3]));
	book->call = "nolock_rcu_barrier";
	book->failed += nolock_rcu_barrier() != 0;
	book->in_flight = 0;
	for (unsigned int i = 4; i < n + 4; i++)
		free_one(i, i);
	alloc_one(0, 0);
	go(there);
	alloc_one(1, 0);
	for (unsigned int i = 2; i < many; i++)
		alloc_one(i, i % 3);
	for (unsigned int i = 0; i < many; i++)
		free_one(i, i);
	prefilled(2);
	bulk(plan->capacity + 1, true);
	with_held_slots(true, true, 4);
	go(here);
	alloc_one(0, 1);
	maintain(0);
	free_one(0, 1);
}

static void random_work(uint64_t seed)
{
	unsigned int live = 0, top = 16 * plan->capacity;
	struct rng r;

	rng_init(&r, seed);
	if (top > OBJECTS - 16)
		top = OBJECTS - 16;
	/* Who may open groups does, for those that may not. */
	alloc_one(0, 0);
	free_one(0, 0);
	for (unsigned int i = 0; i < 400; i++) {
		uint32_t what = rng_below(&r, 100);

		/* Waves: the sheaves run full and empty. */
		if (what < 90 && (i / 80 % 2 ? what < 25 : what < 70)) {
			if (live < top)
				alloc_one(16 + live++, (uint32_t)rng_next(&r));
		} else if (what < 90) {
			if (live)
				free_one(16 + --live, (uint32_t)rng_next(&r));
		} else if (what < 92) {
			prefilled(1 + rng_below(&r, 2 * plan->capacity));
		} else if (what < 94) {
			bulk(1 + rng_below(&r, 8), what & 1);
		} else if (what < 96) {
			large(40000 + rng_below(&r, 300000));
		} else if (what < 97) {
			maintain((uint32_t)rng_next(&r));
		} else {
			with_held_slots(what & 1, true, 4);
		}
	}
	for (; live; live--)
		free_one(15 + live, live);
}

static void client(void *arg)
{
	(void)arg;
	heap = shared_join(heap, CLIENT, plan->rseq);
	if ((plan->rseq && built_with_rseq()) != (heap->rseq_slots != 0))
		_exit(3);
	cache = nolock_heap_kmem_cache_find(heap, "first");
	if (!cache)
		_exit(4);
	/* What only a process's or a thread's first call does, and is nobody else's business. */
	kfree(kmalloc(100, GFP_KERNEL));
	steps_begin();
	if (plan->seed)
		random_work(plan->seed);
	else if (plan->nodes)
		nodes_work();
	else
		fixed_work();
	book->done = 1;
	steps_end();
	_exit(0);
}

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
	if (!steps_start(st, client, NULL))
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
