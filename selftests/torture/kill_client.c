// SPDX-License-Identifier: GPL-2.0-only
/* kill_client.c - see kill_client.h: the whole API, in a fixed sequence, on two nodes, or at random. */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <string.h>
#include <unistd.h>
#include <nolock/rcu.h>
#include "core/kmalloc.h"
#include "core/slot.h"
#include "kill_client.h"
#include "shared.h"
#include "steps.h"
#include "../lib/hold.h"
#include "../lib/util.h"

static volatile struct book *book;
static struct nolock_heap *heap;
static const struct plan *plan;
static const cpu_set_t *cpus;
static struct kmem_cache *cache;

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
		if (!CPU_ISSET(cpu, cpus) || nl_slot_node(heap->h, (nl_u32)cpu) != node)
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

void kill_client(void *arg)
{
	const struct kill_client *c = arg;

	book = c->book;
	plan = c->plan;
	cpus = c->cpus;
	heap = shared_join(c->heap, CLIENT, plan->rseq);
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
