// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_numa.c - two nodes on one (NOLOCK_FAKE_NODES=2: CPU c is of node c % 2), on each kind of
 * heap: memory comes from the node of the CPU, or from the one that was asked for; sheaves and
 * barns hold objects of their own node; what is freed elsewhere goes home.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <criterion/criterion.h>
#include "internal.h"
#include "core/slot.h"
#include "kinds.h"
#include "util.h"

#define HEAP_SIZE (64 * MiB)
#define NODES 2

/* TINY has one node, and one CPU has no other: nothing to test. */
static bool two_nodes(void)
{
	setenv("NOLOCK_FAKE_NODES", "2", 1);
	return NL_MAX_NODES >= NODES && sysconf(_SC_NPROCESSORS_ONLN) >= NODES;
}

/* Go to a CPU of the node. */
static void go(unsigned int node)
{
	for (unsigned int cpu = node; cpu < CPU_SETSIZE; cpu += NODES)
		if (!stay_on(cpu))
			return;
	cr_assert(false, "no CPU of node %u", node);
}

static nl_u32 node_of(struct nolock_heap *heap, const void *p)
{
	return nl_node_of(heap->h, nl_group_at(heap->h, (nl_u64)p));
}

static void stat_of(struct kmem_cache *s, struct nolock_cache_stat *st)
{
	cr_assert_eq(nolock_heap_cache_stat(nolock_heap_of(s), nl_cache_id(s), st), 0);
}

static unsigned long strangers_in(struct nolock_heap *heap, nl_u32 sheaf, nl_u32 n, nl_u32 node)
{
	unsigned long strangers = 0;

	for (nl_u32 i = 0; sheaf && i < n; i++)
		strangers += nl_node_of(heap->h,
					nl_group_at(heap->h,
						    nl_sheaf(heap->h, sheaf - 1)->obj[i])) != node;
	return strangers;
}

/* Objects in sheaves of slots and barns that are of another node. */
static unsigned long strangers(struct nolock_heap *heap)
{
	nl_heap_t *h = heap->h;
	unsigned long n = 0;

	for (nl_u32 id = 0; id < NL_MAX_CACHES; id++) {
		for (nl_u32 cpu = 0; cpu < h->nr_slots; cpu++)
			for (int kind = 0; kind < 2; kind++) {
				nl_slot_t *slot = kind ? nl_rslot(h, cpu, id) :
							 nl_aslot(h, cpu, id);
				nl_u32 node = nl_slot_node(h, cpu);

				n += strangers_in(heap, slot->main, NL_WORD_SIZE(slot->word), node);
				if (slot->spare)
					n += strangers_in(heap, slot->spare,
							  nl_sheaf(h, slot->spare - 1)->size, node);
			}
		for (nl_u32 node = 0; node < h->nr_nodes; node++)
			for (nl_u32 s = nl_cache(h, id)->barn[node].full.first; s;
			     s = nl_sheaf(h, s - 1)->next)
				n += strangers_in(heap, s, nl_sheaf(h, s - 1)->size, node);
	}
	return n;
}

Test(numa, memory_is_local)
{
	static void *p[NODES][3000];
	struct nolock_heap *heap;

	if (!two_nodes())
		return;
	for_each_kind(heap, HEAP_SIZE) {
		struct nolock_heap_report rep;
		struct nolock_cache_stat st;
		struct kmem_cache *s = nolock_heap_kmem_cache_create(heap, "local", 200, NULL, 0);

		cr_assert_eq(heap->h->nr_nodes, NODES);
		for (unsigned int node = 0; node < NODES; node++) {
			go(node);
			for (int i = 0; i < 3000; i++) {
				p[node][i] =
					i % 3 == 0 ? kmem_cache_alloc(s, GFP_KERNEL) :
					i % 3 == 1 ? nolock_heap_kmalloc(heap, 1000, GFP_KERNEL) :
						     kmem_cache_alloc_nolock(s, 0, NUMA_NO_NODE);
				cr_assert_not_null(p[node][i]);
				cr_assert_eq(node_of(heap, p[node][i]), node, "%s: object %d",
					     heap_kinds[kind], i);
			}
		}
		/* Each is freed on the other node: none stays here. */
		for (unsigned int node = 0; node < NODES; node++) {
			go(!node);
			for (int i = 0; i < 1500; i++)
				if (i & 1)
					kfree(p[node][i]);
				else
					kfree_nolock(p[node][i]);
			kmem_cache_free_bulk(NULL, 1500, p[node] + 1500);
		}
		cr_assert_eq(strangers(heap), 0);
		stat_of(s, &st);
		cr_assert_eq(st.stat[NOLOCK_FREE_FASTPATH], 0, "%s: %lu in sheaves",
			     heap_kinds[kind], st.stat[NOLOCK_FREE_FASTPATH]);
		cr_assert_eq(st.stat[NOLOCK_FREE_SLOWPATH], 4000);
		/* And is found there again. */
		for (unsigned int node = 0; node < NODES; node++) {
			go(node);
			for (int i = 0; i < 1000; i++) {
				p[node][i] = kmem_cache_alloc(s, GFP_KERNEL);
				cr_assert_eq(node_of(heap, p[node][i]), node);
			}
			for (int i = 0; i < 1000; i++)
				kmem_cache_free(s, p[node][i]);
		}
		cr_assert_eq(strangers(heap), 0);
		stat_of(s, &st);
		cr_assert_gt(st.stat[NOLOCK_FREE_FASTPATH], 1900);
		expect_whole(heap, &rep, heap_kinds[kind]);
		cr_assert_eq(rep.allocated, 0);
		cr_assert_eq(kmem_cache_destroy(s), 0);
		cr_assert_eq(nolock_heap_close(heap), 0);
	}
}

Test(numa, node_requests)
{
	static const size_t sizes[] = { 16, 100, 4096, 32768, 100000, 5 * MiB };
	struct nolock_heap *heap;

	if (!two_nodes())
		return;
	for_each_kind(heap, 2 * HEAP_SIZE) {
		struct kmem_cache *s = nolock_heap_kmem_cache_create(heap, "asked", 64, NULL, 0);
		struct nolock_cache_stat st;
		struct nolock_heap_report rep;
		void *p;

		for (unsigned int here = 0; here < NODES; here++)
			for (int node = 0; node < NODES; node++) {
				go(here);
				for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
					for (int strict = 0; strict < 2; strict++) {
						gfp_t gfp = strict ? GFP_KERNEL | __GFP_THISNODE :
								     GFP_KERNEL;

						p = nolock_heap_kmalloc_node(heap, sizes[i], gfp,
									     node);
						cr_assert_not_null(p, "%s: %zu bytes of node %d",
								   heap_kinds[kind], sizes[i],
								   node);
						cr_assert_eq(node_of(heap, p), (nl_u32)node);
						memset(p, 1, sizes[i]);
						kfree(p);
					}
				for (int i = 0; i < 300; i++) {
					p = kmem_cache_alloc_node(s, GFP_KERNEL, node);
					cr_assert_eq(node_of(heap, p), (nl_u32)node);
					kfree(p);
					p = nolock_heap_kmalloc_nolock(heap, 100, 0, node);
					cr_assert_not_null(p);
					cr_assert_eq(node_of(heap, p), (nl_u32)node);
					kfree_nolock(p);
				}
			}
		stat_of(s, &st);
		cr_assert_eq(st.stat[NOLOCK_ALLOC_NODE_MISMATCH], 600);
		errno = 0;
		cr_assert_null(nolock_heap_kmalloc_node(heap, 64, GFP_KERNEL, NODES));
		cr_assert_eq(errno, EINVAL);
		cr_assert_eq(strangers(heap), 0);
		expect_whole(heap, &rep, "after requests");
		cr_assert_eq(rep.allocated + rep.large, 0);
		cr_assert_eq(kmem_cache_destroy(s), 0);
		cr_assert_eq(nolock_heap_close(heap), 0);
	}
}

/* A node without memory: another one serves, unless it must be this one. */
Test(numa, full_node)
{
	static void *p[8192];
	struct nolock_heap *heap;

	if (!two_nodes())
		return;
	for_each_kind(heap, HEAP_SIZE) {
		struct nolock_heap_report rep;
		size_t n = 0, other;
		void *q;

		go(0);
		cr_assert_not_null(q = nolock_heap_kmalloc_node(heap, 64, GFP_KERNEL, 1));
		while ((p[n] = nolock_heap_kmalloc_node(
				heap, 32768, GFP_KERNEL | __GFP_THISNODE | __GFP_NOWARN, 0)))
			cr_assert_eq(node_of(heap, p[n++]), 0);
		cr_assert_gt(n, 1000);
		errno = 0;
		cr_assert_null(nolock_heap_kmalloc_node(
			heap, 70000, GFP_KERNEL | __GFP_THISNODE | __GFP_NOWARN, 0));
		cr_assert_eq(errno, ENOMEM);
		/* Node 1 has what is left of the group that q is in. */
		other = n;
		while ((p[n] = nolock_heap_kmalloc(heap, 32768, GFP_KERNEL | __GFP_NOWARN)))
			cr_assert_eq(node_of(heap, p[n++]), 1);
		cr_assert_gt(n, other + 20, "%zu of node 0, %zu of node 1", other, n - other);
		cr_assert_null(nolock_heap_kmalloc_nolock(heap, 32768, 0, 0));
		while (n)
			kfree(p[--n]);
		kfree(q);
		/* All of it serves as before. */
		expect_whole(heap, &rep, "after a full node");
		cr_assert_eq(rep.allocated, 0);
		nolock_heap_trim(heap);
		cr_assert_not_null(p[0] = nolock_heap_kmalloc(heap, 20 * MiB, GFP_KERNEL));
		kfree(p[0]);
		expect_whole(heap, &rep, "after all");
		cr_assert_eq(rep.chunks_free, rep.chunks);
		cr_assert_eq(nolock_heap_close(heap), 0);
	}
}

/* All free memory is the other node's: its slabs are used up, not a chunk for each object. */
Test(numa, slabs_of_the_other_node)
{
	struct nolock_heap *heap;

	if (!two_nodes())
		return;
	/* Also when the heap is made and opens its first group. */
	go(0);
	for_each_kind(heap, 32 * MiB) {
		static void *p[8192];
		struct kmem_cache *s = nolock_heap_kmem_cache_create(heap, "there", 4096, NULL, 0);
		size_t n = 0, locked = 0;
		struct nolock_heap_report rep;
		nl_u64 holder = NL_OWNER(1, 0xfff0) | 7;
		nl_u32 id = nl_cache_id(s);

		cr_assert_eq(nolock_heap_populate(heap, 8 * MiB), 0);
		go(1);
		/* First by way of sheaves, then past locked slots. */
		for (; n < 500; n++)
			cr_assert_not_null(p[n] = kmem_cache_alloc_nolock(s, 0, NUMA_NO_NODE));
		cr_assert_leq(nl_cache(heap->h, id)->nr_slabs, n / 16 + 2, "%s: %lu slabs",
			      heap_kinds[kind], (unsigned long)nl_cache(heap->h, id)->nr_slabs);
		for (nl_u32 cpu = 0; cpu < heap->h->nr_slots; cpu++)
			nl_rslot(heap->h, cpu, id)->lock = nl_aslot(heap->h, cpu, id)->lock =
				holder;
		while ((p[n] = kmem_cache_alloc_nolock(s, 0, NUMA_NO_NODE))) {
			cr_assert_lt(++n, 8192);
			if (++locked == 500)
				cr_assert_leq(nl_cache(heap->h, id)->nr_slabs, n / 16 + 2);
		}
		cr_assert_gt(locked, 500, "%s: %zu objects", heap_kinds[kind], n);
		for (nl_u32 cpu = 0; cpu < heap->h->nr_slots; cpu++)
			nl_rslot(heap->h, cpu, id)->lock = nl_aslot(heap->h, cpu, id)->lock = 0;
		expect_whole(heap, &rep, "with all of it allocated");
		cr_assert_eq(rep.chunks_free, 0, "%s: %lu chunks", heap_kinds[kind],
			     rep.chunks_free);
		/* But for what a locked slot's sheaves hold. */
		cr_assert_geq(n + 2 * nl_cache(heap->h, id)->capacity,
			      nl_cache(heap->h, id)->nr_slabs * nl_cache(heap->h, id)->per_slab,
			      "%s: %zu objects out of %lu slabs", heap_kinds[kind], n,
			      (unsigned long)nl_cache(heap->h, id)->nr_slabs);
		while (n) {
			cr_assert_eq(node_of(heap, p[--n]), 0);
			kfree(p[n]);
		}
		cr_assert_eq(kmem_cache_destroy(s), 0);
		cr_assert_eq(nolock_heap_close(heap), 0);
		go(0);
	}
}

/* All memory is of node 0; a per-CPU array of node 1 is filled all the same. */
/* A prefilled sheaf has this node's objects, though the slot's refill would take another's. */
Test(numa, prefill_on_this_node)
{
	static const gfp_t flags[] = { GFP_KERNEL | __GFP_THISNODE, GFP_KERNEL };
	struct kmem_cache_args args = { .sheaf_capacity = 20 };
	struct nolock_heap *heap;

	if (!two_nodes())
		return;
	go(0);
	for_each_kind(heap, HEAP_SIZE) {
		for (int i = 0; i < 2; i++) {
			struct kmem_cache *s = nolock_heap_kmem_cache_create(heap, "prefill", 1024,
									     &args, SLAB_NO_MERGE);
			void *first = kmem_cache_alloc(s, GFP_KERNEL), *p[20];
			struct slab_sheaf *sheaf;
			int n = 0;

			cr_assert_eq(node_of(heap, first), 0);
			go(1);
			sheaf = kmem_cache_prefill_sheaf(s, flags[i], 8);
			cr_assert_not_null(sheaf);
			while ((p[n] = kmem_cache_alloc_from_sheaf(s, flags[i], sheaf)))
				cr_expect_eq(node_of(heap, p[n++]), 1, "%s", heap_kinds[kind]);
			cr_expect_geq(n, 8);
			kmem_cache_return_sheaf(s, 0, sheaf);
			kmem_cache_free_bulk(s, (size_t)n, p);
			go(0);
			kmem_cache_free(s, first);
			cr_assert_eq(kmem_cache_destroy(s), 0);
		}
		expect_whole(heap, NULL, heap_kinds[kind]);
		cr_assert_eq(nolock_heap_close(heap), 0);
	}
}

Test(numa, array_from_another_node)
{
	static void *p[HEAP_SIZE / 32768];
	struct nolock_heap *heap;

	if (!two_nodes())
		return;
	go(0);
	for_each_kind(heap, 16 * MiB) {
		struct kmem_cache *s =
			nolock_heap_kmem_cache_create(heap, "array", 32768, NULL, SLAB_NO_MERGE);
		int n = 0;

		cr_assert_eq(kmem_cache_setup_percpu_array(s, 100), 0);
		while ((p[n] = nolock_heap_kmalloc(heap, 32768, GFP_KERNEL | __GFP_NOWARN)))
			n++;
		go(1);
		cr_assert_eq(kmem_cache_prefill_percpu_array(s, 100, GFP_KERNEL), -ENOMEM);
		while (n)
			kfree(p[--n]);
		cr_assert_eq(kmem_cache_prefill_percpu_array(s, 100, GFP_KERNEL | __GFP_THISNODE),
			     -ENOMEM);
		cr_assert_eq(kmem_cache_alloc_bulk(s, GFP_KERNEL | __GFP_THISNODE | __GFP_NOWARN, 9,
						   p),
			     0);
		cr_assert_eq(kmem_cache_alloc_bulk(s, GFP_KERNEL, 9, p), 9);
		cr_assert_eq(node_of(heap, p[0]), 0);
		kmem_cache_free_bulk(s, 9, p);
		cr_assert_eq(kmem_cache_prefill_percpu_array(s, 100, GFP_KERNEL), 0, "%s",
			     heap_kinds[kind]);
		for (n = 0; n < 100; n++) {
			p[n] = kmem_cache_alloc(s, GFP_KERNEL);
			cr_assert_not_null(p[n]);
		}
		while (n)
			kfree(p[--n]);
		cr_assert_eq(kmem_cache_destroy(s), 0);
		expect_whole(heap, NULL, heap_kinds[kind]);
		cr_assert_eq(nolock_heap_close(heap), 0);
		go(0);
	}
}

/* Threads on both nodes that free each other's objects, and handlers that do. */
static struct mailbox box;
static struct nolock_heap *shared;
static struct kmem_cache *cache;
static pthread_t thread[NODES];
static pthread_barrier_t both;
static volatile int stop;
static unsigned long handled, done, bad;
static __thread struct rng *handler_rng;

static void swap_one(struct rng *r, bool nolock)
{
	void *p = nolock ? kmem_cache_alloc_nolock(cache, 0, (int)rng_below(r, 3) - 1) :
			   kmem_cache_alloc_node(cache, GFP_KERNEL, (int)rng_below(r, 3) - 1);

	if (!p) {
		__atomic_fetch_add(&bad, 1, __ATOMIC_RELAXED);
		return;
	}
	stamp(p, 64, (uint32_t)rng_next(r));
	p = mailbox_swap(&box, (uint32_t)rng_next(r), p);
	if (p && stamp_check(p) != 64)
		__atomic_fetch_add(&bad, 1, __ATOMIC_RELAXED);
	if (nolock)
		kfree_nolock(p);
	else
		kfree(p);
}

static void handler(int sig)
{
	int err = errno;

	(void)sig;
	if (handler_rng) {
		swap_one(handler_rng, true);
		__atomic_fetch_add(&handled, 1, __ATOMIC_RELAXED);
	}
	errno = err;
}

static void *swapper(void *arg)
{
	unsigned int node = (unsigned int)(uintptr_t)arg;
	struct rng r, of_handler;
	unsigned long n = 0;

	rng_init(&r, node + 1);
	rng_init(&of_handler, node + 11);
	go(node);
	handler_rng = &of_handler;
	pthread_barrier_wait(&both);
	for (; !stop; n++) {
		swap_one(&r, n & 1);
		if (n % 4 == 0)
			pthread_kill(thread[!node], SIGUSR1);
	}
	pthread_barrier_wait(&both);
	__atomic_fetch_add(&done, n, __ATOMIC_RELAXED);
	return NULL;
}

Test(numa, storm)
{
	struct sigaction sa = { .sa_handler = handler, .sa_flags = SA_RESTART };
	uint64_t span = env_number("NOLOCK_STORM_SECONDS", 2) * 1000000000u / NR_HEAP_KINDS;

	if (!two_nodes())
		return;
	sigaction(SIGUSR1, &sa, NULL);
	for_each_kind(shared, HEAP_SIZE) {
		struct nolock_heap_report rep;
		uint64_t end = now_ns() + span;

		stop = 0;
		cr_assert_eq(nolock_heap_populate(shared, 16 * MiB), 0);
		cache = nolock_heap_kmem_cache_create(shared, "storm", 64, NULL, 0);
		/* A handler on a node without memory may fill a sheaf from the other: both have some. */
		for (unsigned int node = 0; node < NODES; node++) {
			void *p = kmem_cache_alloc_node(cache, GFP_KERNEL, (int)node);

			cr_assert_eq(node_of(shared, p), node);
			kfree(p);
		}
		pthread_barrier_init(&both, NULL, NODES);
		for (uintptr_t i = 0; i < NODES; i++)
			cr_assert_eq(pthread_create(&thread[i], NULL, swapper, (void *)i), 0);
		while (now_ns() < end)
			usleep(10000);
		stop = 1;
		for (int i = 0; i < NODES; i++)
			pthread_join(thread[i], NULL);
		pthread_barrier_destroy(&both);
		for (uint32_t i = 0; i < MAILBOX_SLOTS; i++)
			kfree(mailbox_swap(&box, i, NULL));
		cr_assert_eq(strangers(shared), 0, "%s: %lu strangers", heap_kinds[kind],
			     strangers(shared));
		expect_whole(shared, &rep, heap_kinds[kind]);
		cr_assert_eq(rep.allocated, 0);
		cr_assert_eq(rep.refused, 0);
		cr_assert_eq(kmem_cache_destroy(cache), 0);
		cr_assert_eq(nolock_heap_close(shared), 0);
	}
	cr_assert_eq(bad, 0);
	cr_assert_gt(handled, 0);
	report("  storm on %d nodes: %lu operations, %lu handlers", NODES, done, handled);
}
